"""The gate takes blue, green, red and near infrared wherever a bundle has them, by role."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from payload.bundle import Bundle, load_bundle, shipped_bundles
from payload.clouds.gate import Action, detect_clouds, judge
from payload.clouds.network import ROLES, load_cloud_net
from payload.engine import open_engine
from payload.errors import BundleError
from payload.pipeline import Payload
from payload.policy import Gate, Policy
from payload.tiles import Tile

PLACES = {"edge-s2-12": (1, 2, 3, 7), "edge-phisat2": (1, 2, 3, 7), "edge-s2-native": (1, 2, 3, 7), "edge": ()}
pytestmark = pytest.mark.skipif(not set(PLACES) <= set(shipped_bundles()), reason="bundles are not built in this tree")


def scene(side: int, cloudy: float) -> np.ndarray:
    """Four bands of ground, its left part under cloud."""
    rng = np.random.default_rng(2)
    ground = np.array([500, 800, 600, 2800])[:, None, None] + rng.normal(0, 90, (4, side, side))
    y, x = np.mgrid[:side, :side]
    cloud = 6000 + 1500 * np.sin(x / 31) * np.cos(y / 23) + rng.normal(0, 30, (4, side, side))
    ground = np.where(x < cloudy * side, cloud, ground)
    return np.clip(ground, 1, 9000).astype(np.uint16)


def tile_for(bundle: Bundle, rgbn: np.ndarray) -> Tile:
    """The four bands in their places, the others at what would mislead a network that took the first four."""
    dn = np.full((len(bundle.bands), *rgbn.shape[1:]), 300, np.uint16)
    dn[list(bundle.sensor.places(*ROLES))] = rgbn
    return Tile(0, 0, dn, np.ones(rgbn.shape[1:], bool))


@pytest.mark.parametrize("name", sorted(PLACES))
def test_the_gate_sees_the_four_bands_by_role(name: str) -> None:
    bundle, engine = load_bundle(name), open_engine("openvino")
    net = load_cloud_net(bundle, engine)
    assert net.places == PLACES[name]
    rgbn = scene(bundle.tile_px, 0.6)
    found = detect_clouds(tile_for(bundle, rgbn), net)
    own = detect_clouds(Tile(0, 0, rgbn, np.ones(rgbn.shape[1:], bool)), type(net)(net.network, net.settings))
    assert np.array_equal(found.cells, own.cells) and found.sure_fraction == own.sure_fraction > 0.4
    (inside,) = net.runs_inside(tile_for(bundle, rgbn))
    assert inside.inputs[0].shape[1] == 8


@pytest.mark.parametrize("name", ["edge-s2-12", "edge-phisat2"])
def test_a_covered_tile_of_many_bands_is_withheld(name: str) -> None:
    bundle = load_bundle(name)
    payload = Payload(bundle, Policy(), open_engine("openvino"))
    assert payload.clouds is not None
    for cloudy, action in ((1.0, Action.WITHHOLD), (0.1, Action.SEND)):
        decision, _, _ = judge(tile_for(bundle, scene(256, cloudy)), payload.clouds, Gate())
        assert decision.action is action


def test_a_network_that_needs_bands_which_are_not_there_is_refused(tmp_path: Path) -> None:
    shutil.copytree(load_bundle("edge-s2-12").directory, tmp_path / "b")
    manifest = json.loads((tmp_path / "b" / "manifest.json").read_text())
    manifest["sensor"]["bands"][7]["role"] = "nir08"
    manifest["sensor"]["bands"][8].pop("role")
    (tmp_path / "b" / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(BundleError, match="looks at blue, green, red, nir"):
        load_cloud_net(load_bundle(tmp_path / "b"), open_engine("openvino"))
