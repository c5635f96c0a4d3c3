"""A product of three resolutions through the shipped bundle for it: a picture on each grid, and nothing resampled."""

import json
from pathlib import Path

import numpy as np
import pytest
import rasterio
from made_up_safe import all_bands
from typer.testing import CliRunner

from payload.sensor import SENTINEL2
from sim.commands.root import app

#: Two tiles along and across, the outer ones partly beyond the scene.
SIDE_M = 4200
PICTURES = {"reconstruction.tif": 10, "reconstruction-20m.tif": 20, "reconstruction-60m.tif": 60}


def run(*words: str) -> str:
    done = CliRunner().invoke(app, ["-q", *words])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.output


@pytest.mark.slow
def test_a_product_of_three_resolutions_comes_down_on_three_grids(tmp_path: Path) -> None:
    product, raw = all_bands(tmp_path, "L2A", side_m=SIDE_M, smooth=True)
    flown = ["--bundle", "edge-s2-native", "--engine", "native"]
    run("downlink", "--scene", str(product), *flown, "--out", str(tmp_path / "out"))
    for name, gsd_m in PICTURES.items():
        with rasterio.open(tmp_path / "out" / name) as file:
            assert file.shape == (SIDE_M // gsd_m,) * 2 and file.transform.a == gsd_m
            assert file.dataset_mask().all()
            for number, band in enumerate(file.descriptions, 1):
                assert SENTINEL2[band].gsd_m == gsd_m
                counts = raw[band].astype(float) - 1000 - list(SENTINEL2).index(band)
                assert np.sqrt(((file.read(number) - counts) ** 2).mean()) < 60, band
    assets = json.loads((tmp_path / "out" / "item.json").read_text())["assets"]
    assert {asset["href"].removeprefix("./") for asset in assets.values()} >= set(PICTURES)
    rate = json.loads((tmp_path / "out" / "report.json").read_text())["rate"]
    assert rate["bpppb"] == pytest.approx(rate["bpp"] / (4 + 6 / 4 + 2 / 36))

    received = tmp_path / "received"
    run("receive", "--stream", str(tmp_path / "out" / "packets.bin"), *flown[:2], "--one-grid", "--out", str(received))
    assert not list(received.glob("reconstruction-*.tif"))
    with rasterio.open(received / "reconstruction.tif") as file:
        assert file.count == 12
        coarse = file.read(file.descriptions.index("B09") + 1)
    assert np.array_equal(coarse[66:354:6, 66:354:6], coarse[69:357:6, 69:357:6])  # within a tile, away from its edges
