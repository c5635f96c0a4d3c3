"""Cloud whose detail the gate gave up is in no figure of quality, and what a report counts is what the payload did."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from toys import ArrayScene

from payload.bundle import load_bundle, shipped_bundles
from payload.clouds.gate import judge, pixels_without_detail
from payload.clouds.network import load_cloud_net
from payload.engine import open_engine
from payload.policy import Gate, Region
from payload.scene import SceneInfo
from payload.sensor import RGBN
from payload.tiles import Tile, split
from sim.onboard.cloud_strips import FlattenedPixels
from sim.products.native import GridFile
from sim.report.comparison import judge_picture
from sim.scenes.demo import demo_scene

T = 64


def tile_at(row: int, col: int) -> Tile:
    return Tile(row, col, np.zeros((4, T, T), np.uint16), np.ones((T, T), bool))


def test_strips_hold_what_tiles_added_and_end_where_the_scene_does() -> None:
    flattened, pixels = FlattenedPixels(T), np.random.default_rng(0).random((2, T, T)) < 0.5
    flattened.add(tile_at(0, 1), pixels[0])
    flattened.add(tile_at(1, 0), pixels[1])
    flattened.add(tile_at(1, 1), np.zeros((T, T), bool))
    wanted = np.zeros((2, T, 2 * T), bool)
    wanted[0, :, T:], wanted[1, :, :T] = pixels
    for row, height in ((0, T), (1, 40)):
        np.testing.assert_array_equal(flattened.strip(row, height, 100), wanted[row, :height, :100])


def test_what_is_flattened_is_in_no_figure_of_quality(tmp_path: Path) -> None:
    """Off by 5 DN everywhere, by 2 000 where the detail was given up."""
    dn = np.random.default_rng(1).integers(1000, 4000, (4, T, 2 * T)).astype(np.uint16)
    flat = np.zeros((T, T), bool)
    flat[:20] = True
    received = dn + 5
    received[:, :20, T:] += 1995
    with rasterio.open(tmp_path / "p.tif", "w", "GTiff", 2 * T, T, 4, dtype="uint16") as raster:
        raster.write(received)
    scene: Any = ArrayScene(SceneInfo("made up", T, 2 * T, RGBN, 10.0), dn, np.ones((T, 2 * T), bool))
    flattened = FlattenedPixels(T)
    flattened.add(tile_at(0, 1), flat)
    picture = GridFile(tmp_path / "p.tif", (0, 1, 2, 3), 1)
    quality, by_tile = judge_picture(scene, picture, T, flattened=flattened)
    off_by_5_db = 20 * np.log10(10_000 / 5)
    assert by_tile == {(0, 0): pytest.approx(off_by_5_db), (0, 1): pytest.approx(off_by_5_db)}
    assert quality.figures()["psnr_10k_pooled_db"] == pytest.approx(off_by_5_db)
    assert judge_picture(scene, picture, T)[1][0, 1] < 20.0


@pytest.mark.skipif("edge" not in shipped_bundles(), reason="bundles are not built in this tree")
def test_the_pixels_told_are_those_that_the_gate_smooths() -> None:
    bundle = load_bundle("edge")
    net = load_cloud_net(bundle, open_engine("openvino"))
    gates = (
        Gate(), Gate(withhold_above_percent=30.0), Gate(flatten_clouds=False), Gate(thin_counts=0.5),
        Gate(regions=(Region(0, 0, 300, 300),)),
    )  # fmt: skip
    found = []
    for tile in split(demo_scene(1024, 1024), bundle.tile_px):
        for gate in gates:
            _, mask, coded = judge(tile, net, gate)
            told = pixels_without_detail(tile, mask, gate)
            assert not (coded.dn != tile.dn).any(axis=0)[~told].any()
            assert (coded is tile) == (not told.any())
            found.append(told.sum())
    counts = np.reshape(found, (-1, len(gates))).sum(axis=0)
    assert counts[0] > counts[1] > 0 == counts[2] and counts[0] >= counts[3] > 0 and counts[0] > counts[4]
