"""`--archive` through the command line: a second product beside the plain one, labelled; bad archives exit 2."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import rasterio

from payload.scene import SceneInfo
from sim.cli import main
from sim.products.rasters import PictureWriter
from sim.scenes.demo import demo_scene

PX = 256


@pytest.fixture(scope="module")
def dates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the demo scene as it was half a year before, brighter and with other noise."""
    folder = tmp_path_factory.mktemp("archive")
    with demo_scene(PX, PX) as scene:
        dn, valid = scene.read(0, 0, PX, PX)
        info = scene.info
    noise = np.random.default_rng(0).normal(scale=15, size=dn.shape)
    write(folder / "autumn.tif", np.clip(dn * 1.2 + noise, 0, 65535).astype(np.uint16), valid, info)
    return folder


def write(path: Path, dn: np.ndarray, valid: np.ndarray, info: SceneInfo) -> None:
    with PictureWriter(path, replace(info, sensed_at="2025-10-01T10:00:00Z")) as writer:
        writer.write_strip(0, dn, valid)


@pytest.fixture(scope="module")
def run(dates: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run") / "out"
    sim("downlink", "--scene", f"demo:{PX}", "--jobs", "1", "--out", out, "--archive", dates)
    return out


def sim(*arguments: str | Path) -> str:
    """What a command that must end well says. A process of its own, as users have it: in this one a mission would count
    the memory of other tests, and matrices be multiplied by as many threads as numpy began with."""
    command = [sys.executable, "-m", "sim", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_aided_product_lies_beside_the_plain_one_and_names_its_dates(run):
    with rasterio.open(run / "aided.tif") as aided, rasterio.open(run / "reconstruction.tif") as plain:
        assert aided.tags()["NADIR_AIDED_BY"] == "autumn (2025-10-01T10:00:00Z)"
        assert "archive-aided" in aided.tags()["NADIR_PRODUCT"]
        assert not {"NADIR_AIDED_BY", "NADIR_PRODUCT"} & plain.tags().keys()
        assert (aided.crs, aided.transform, aided.shape) == (plain.crs, plain.transform, plain.shape)
        assert not np.array_equal(aided.read(), plain.read())
    assert {"aided", "overruled"} <= json.loads((run / "item.json").read_text())["assets"].keys()


def test_the_map_of_changes_has_the_grid_of_the_scene(run):
    with rasterio.open(run / "overruled.tif") as file:
        assert (file.count, file.shape, file.nodata) == (2, (PX, PX), 65_535)
        assert file.read(2).max() <= 100


def test_the_report_has_the_figures_of_both(run):
    report = json.loads((run / "report.json").read_text())
    aided = {row["key"]: row for row in report["aided"]["metrics"]}
    for row in report["quality"]["metrics"]:
        assert aided[row["key"]]["plain"] == row["value"]
    assert aided["psnr_10k_db"]["aided"] > aided["psnr_10k_db"]["plain"]
    assert report["aided"]["dates"] == ["autumn (2025-10-01T10:00:00Z)"]
    assert report["aided"]["tiles_refined"] == len(report["aided"]["list"]) == 1
    assert "Archive-aided product" in (run / "report.html").read_text()


def test_the_plain_product_is_the_one_without_an_archive(run, tmp_path):
    out = tmp_path / "received"
    sim("receive", "--stream", run / "frames.bin", "--out", out)
    with rasterio.open(out / "reconstruction.tif") as alone, rasterio.open(run / "reconstruction.tif") as beside:
        assert np.array_equal(alone.read(), beside.read())
    assert not (out / "aided.tif").exists()


@pytest.mark.slow
def test_receiving_with_an_archive_gives_the_same_second_product(run, dates, tmp_path):
    out = tmp_path / "received"
    sim("receive", "--stream", run / "frames.bin", "--out", out, "--archive", dates)
    with rasterio.open(out / "aided.tif") as here, rasterio.open(run / "aided.tif") as there:
        assert np.array_equal(here.read(), there.read())


@pytest.mark.slow
def test_an_archived_scene_is_aided_by_archived_scenes(dates, tmp_path):
    """Both as `.nadir` files; three of the scene's four tiles reach beyond it, and beyond the date."""
    now, old = tmp_path / "now", tmp_path / "old"
    sim("archive", "put", "demo:300", "--store", now)
    sim("archive", "put", dates / "autumn.tif", "--cr", "8", "--store", old)
    (name,) = (path.stem for path in now.glob("*.nadir"))
    said = sim("archive", "get", name, "--store", now, "--out", tmp_path / "a.tif", "--archive", old)
    assert " tiles refined" in said
    with rasterio.open(tmp_path / "a-aided.tif") as aided, rasterio.open(tmp_path / "a.tif") as plain:
        assert aided.tags()["NADIR_AIDED_BY"].startswith("autumn")
        assert not np.array_equal(aided.read(), plain.read())


@pytest.fixture
def failed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Runs a command that must end with exit 2; gives the one line that it says."""

    def run(*arguments: str | Path) -> str:
        monkeypatch.setattr(sys, "argv", ["sim", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            main()
        lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("sim: --archive")]
        assert (end.value.code, len(lines)) == (2, 1)
        return lines[0]

    return run


def test_an_archive_that_does_not_overlap_is_one_line_and_leaves_nothing(dates, tmp_path, failed):
    shutil.copy(dates / "autumn.tif", tmp_path / "far.tif")
    with rasterio.open(tmp_path / "far.tif", "r+", IGNORE_COG_LAYOUT_BREAK="YES") as file:
        file.transform = rasterio.Affine(10, 0, 600_000, 0, -10, 5_012_000)
    out = tmp_path / "out"
    said = failed("downlink", "--scene", f"demo:{PX}", "--archive", tmp_path, "--out", out)
    assert "none of 1 scenes overlaps demo-256x256" in said
    assert not out.exists()


def test_an_archive_that_is_no_folder_is_one_line(tmp_path, failed):
    out = tmp_path / "out"
    said = failed("downlink", "--scene", f"demo:{PX}", "--archive", tmp_path / "none", "--out", out)
    assert said.endswith("is no folder, wanted one of rasters or .nadir files")
    assert not out.exists()
