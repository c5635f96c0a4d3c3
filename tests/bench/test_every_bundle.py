"""Every bundle that ships, on every runtime and without the kernel, through the bench's agent: the same octets.

The bundles are those that lie in payload/bundles, so that none can be forgotten. NADIR_EQUAL=all (`make equal-bundles`)
takes every runtime and more tiles; else those two are taken that differ most."""

import os
import sys
from pathlib import Path

import numpy as np
import pytest
from toys import ArrayScene

from hil.bench.run import RunFolder, run, run_identity
from hil.host.client import open_device
from payload.bundle import Bundle, load_bundle, shipped_bundles
from payload.policy import Policy
from payload.scene import SceneInfo
from payload.tiles import Tile, split

#: Engine, and whether the kernel is there; the first is the yardstick.
RUNTIMES = (("openvino", True), ("onnxruntime", False), ("native", True), ("onnxruntime", True))
ALL = os.environ.get("NADIR_EQUAL") == "all"
STEPS_DN = (20.0, 90.0, 500.0) if ALL else (90.0,)


def tiles_of(bundle: Bundle) -> list[Tile]:
    """Bands alike and rough on every scale, within what the sensor counts; a corner without data, tiles not full."""
    rng, side = np.random.default_rng(14), 2 * bundle.tile_px - 40
    ground = rng.integers(-40, 41, (side, side)).cumsum(axis=0).cumsum(axis=1) >> 4
    most = min(bundle.sensor.highest_dn, 4000)  # no cloud: it would be withheld
    slopes = [b % 5 + 2 for b in range(len(bundle.bands))]
    bands = [most // 4 + (slope * ground >> 3) + rng.integers(-90, 91, ground.shape) for slope in slopes]
    valid = np.ones((side, side), bool)
    corner = bundle.tile_px // 4 - 4
    valid[-corner:, -corner:] = False
    info = SceneInfo("made-up", side, side, bundle.bands, 10.0, sensor=bundle.sensor)
    found = list(split(ArrayScene(info, np.clip(bands, 0, most).astype(np.uint16), valid), bundle.tile_px))
    return found if ALL else found[-1:]


def device(bundle: Bundle, kernel: bool) -> str:
    command = f"env NADIR_KERNEL=0 {sys.executable} -m hil.agent.serve --stdio --bundle {bundle.directory.resolve()}"
    return "host:" if kernel else f"stdio:{command}"


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", shipped_bundles())
def test_a_shipped_bundle_gives_the_same_octets_on_every_runtime(name: str, tmp_path: Path) -> None:
    bundle, found = load_bundle(name), {}
    tiles = tiles_of(bundle)
    for engine, kernel in RUNTIMES if ALL else RUNTIMES[:2]:
        if engine == "native" and bundle.codec["kind"] == "vq":
            continue  # its networks are none of the kernel's
        for step_dn in STEPS_DN:
            policy, out = Policy(step_dn=step_dn), tmp_path / f"{engine}-{kernel}-{step_dn:g}"
            folder = RunFolder(out, run_identity("made-up", bundle, policy), False, False)
            with open_device(device(bundle, kernel), bundle, policy, engine) as session:
                report = run(session, tiles, bundle, policy, folder, None)
            assert report.kinds == {"coded": len(tiles)} and report.tiles == len(tiles)
            found.setdefault(step_dn, {})[engine, kernel] = report.sha256
    assert all(len(set(digests.values())) == 1 for digests in found.values()), found
