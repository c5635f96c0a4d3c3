"""What the payload did, as it counts it on board: this, not what arrived, is what time and energy are modelled from."""

import numpy as np
import pytest
from toys import ArrayScene

from payload.bundle import load_bundle
from payload.link.tile_code import Kind
from payload.pipeline import Payload
from payload.policy import Gate, Policy
from payload.scene import SceneInfo
from payload.sensor import RGBN

T = 64


def scene_of(tiles: int, bright: int, unseen_px: int = 0) -> ArrayScene:
    """A row of dark tiles, the first `bright` of which the toy gate takes for cloud; the last lacks some columns."""
    dn = np.random.default_rng(5).integers(400, 1500, (4, T, tiles * T)).astype(np.uint16)
    dn[:, :, : bright * T] += 12_000
    valid = np.ones(dn.shape[1:], bool)
    valid[:, tiles * T - unseen_px :] = False
    return ArrayScene(SceneInfo("made up", T, tiles * T, RGBN, 10.0), dn, valid)


@pytest.mark.parametrize("audited", [0, 1, 2])
def test_thumbnails_count_as_coded_tiles_and_withheld_ones_as_judged(
    toy_bundle_with_gate, toy_engine, audited: int
) -> None:
    """Three tiles of cloud, two of ground. Thumbnails that a later one replaced were coded too."""
    policy = Policy(gate=Gate(audit_count=audited, audit_seed=3))
    payload = Payload(load_bundle(toy_bundle_with_gate), policy, toy_engine)
    offered = []
    payload.thumbnail, coded = lambda tile: (offered.append(tile), coded(tile))[1], payload.thumbnail  # type: ignore
    kinds = [code.kind for code in payload.tile_codes(scene_of(5, bright=3, unseen_px=7))]
    assert kinds.count(Kind.WITHHELD) == 3 and kinds.count(Kind.AUDIT) == audited <= len(offered)
    assert dict(payload.work) == {
        "judged": 5, "withheld": 3, "coded": 2 + len(offered), "valid_px": T * (5 * T - 7),
    }  # fmt: skip


def test_a_tile_without_a_pixel_is_no_work(toy_bundle_with_gate, toy_engine) -> None:
    payload = Payload(load_bundle(toy_bundle_with_gate), Policy(), toy_engine)
    (code,) = payload.tile_codes(scene_of(1, bright=0, unseen_px=T))
    assert code.kind is Kind.EMPTY and dict(payload.work) == {}
