"""A scene of one band through the shipped bundle for one: what has no meaning for it is left out, nothing fails."""

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.transform import from_origin
from typer.testing import CliRunner

from sim.commands.root import app
from sim.scenes.open_scene import open_scene


@pytest.fixture
def one_band(tmp_path: Path) -> Path:
    dn = open_scene("demo:256").read(0, 0, 256, 256)[0][:1]
    path = tmp_path / "pan.tif"
    place = {"crs": "EPSG:32632", "transform": from_origin(500_000, 5_000_000, 2, 2)}
    with rasterio.open(path, "w", driver="GTiff", height=256, width=256, count=1, dtype="uint16", **place) as file:
        file.write(np.minimum(dn, 4095))
        file.set_band_description(1, "PAN")
    return path


def test_a_scene_of_one_band_gets_every_product_and_no_figure_that_it_cannot_have(
    one_band: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    done = CliRunner().invoke(app, ["downlink", "--scene", str(one_band), "--bundle", "edge-pan", "--out", str(out)])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    assert "NDVI, mean absolute error -; spectral angle -" in done.output
    figures = {row["key"]: row["value"] for row in json.loads((out / "report.json").read_text())["quality"]["metrics"]}
    assert figures["sam_deg"] is None and figures["ndvi_mae"] is None and figures["psnr_10k_db"] > 38
    with rasterio.open(out / "quicklook.png") as picture, zipfile.ZipFile(out / "reconstruction.kmz") as globe:
        red, green, blue = picture.read([1, 2, 3])
        assert "doc.kml" in globe.namelist()
    assert np.array_equal(red, green) and np.array_equal(green, blue) and red.std() > 10
