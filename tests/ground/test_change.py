"""Change between two passes from features alone: what was changed is found, and little else."""

import json
from pathlib import Path

import numpy as np
import pytest
import rasterio
from scipy import ndimage
from typer.testing import CliRunner

from payload.errors import InputError
from sim.commands.root import app
from sim.features.change import change_map, compare
from sim.features.source import Asked, open_source
from sim.scenes.demo import demo_scene

run = CliRunner()
SIDE = 512
#: Squares of the later pass that come from elsewhere: row, column, from row, from column, side, in px.
MOVED = ((64, 96, 320, 400, 48), (256, 200, 16, 16, 64), (416, 40, 200, 300, 40))


def write(path: Path, dn: np.ndarray) -> Path:
    info = demo_scene(SIDE, SIDE).info
    assert info.transform is not None
    with rasterio.open(path, "w", driver="GTiff", count=4, height=SIDE, width=SIDE, dtype="uint16", crs=info.crs_wkt,
                       transform=rasterio.Affine(*info.transform)) as file:  # fmt: skip
        file.write(dn)
        file.descriptions = ("B02", "B03", "B04", "B08")
    return path


@pytest.fixture(scope="module")
def passes(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """The earlier pass; the later one in other light, shifted by a fifth of a pixel, with its own noise; and that with
    squares moved."""
    folder = tmp_path_factory.mktemp("passes")
    dn, _ = demo_scene(SIDE, SIDE).read(0, 0, SIDE, SIDE)
    rng = np.random.default_rng(1)
    light = np.array([0.9, 0.95, 1.0, 1.1])[:, None, None]
    later = ndimage.shift(dn.astype(float), (0, 0.2, 0.2), order=1, mode="nearest") * light + 60
    later += rng.normal(0, 10, dn.shape)
    moved = later.copy()
    for row, col, from_row, from_col, side in MOVED:
        moved[:, row : row + side, col : col + side] = later[:, from_row : from_row + side, from_col : from_col + side]
    return (
        write(folder / "before.tif", dn),
        write(folder / "same.tif", np.clip(later, 1, 65_535).astype(np.uint16)),
        write(folder / "moved.tif", np.clip(moved, 1, 65_535).astype(np.uint16)),
    )


def test_the_false_alarm_rate_is_near_what_is_asked_where_nothing_changed(passes: tuple[Path, Path, Path]) -> None:
    with open_source(Asked(str(passes[0]))) as before, open_source(Asked(str(passes[1]))) as after:
        found = compare(before, after, 0.01)
    assert found.compared == (SIDE // 8) ** 2
    assert found.changed.mean() < 0.03


def test_what_was_moved_is_found(passes: tuple[Path, Path, Path], tmp_path: Path) -> None:
    out = tmp_path / "change"
    done = run.invoke(app, ["change", str(passes[0]), str(passes[2]), "--out", str(out), "--json"])
    record = json.loads(done.stdout)
    with rasterio.open(out / "change.tif") as file:
        certainty, changed = file.read()
        assert file.res[0] == 8 * demo_scene(SIDE, SIDE).info.gsd_m
    truth = np.zeros((SIDE // 8, SIDE // 8), bool)
    for row, col, _, _, side in MOVED:
        truth[row // 8 : (row + side) // 8, col // 8 : (col + side) // 8] = True
    away = ~ndimage.binary_dilation(truth, iterations=1)  # a block sees half of its neighbours
    assert changed[truth].mean() > 0.6 and changed[away].mean() < 0.03
    assert certainty[truth].mean() > 2 * certainty[away].mean()
    assert record["blocks_changed"] == int(changed.sum())
    assert record["false_alarms_expected"] == pytest.approx(0.01 * (SIDE // 8) ** 2, abs=0.1)
    assert "data:image/png" in (out / "change.html").read_text()


def test_two_passes_that_are_one_have_not_changed() -> None:
    blocks = np.random.default_rng(0).normal(1000, 200, size=(4, 24, 24)).astype(np.float32)
    assert not change_map(blocks, blocks, 0.01).changed.any()


def test_blocks_unknown_in_one_pass_are_neither_changed_nor_unchanged() -> None:
    rng = np.random.default_rng(0)
    before = rng.normal(size=(3, 20, 20)).astype(np.float32)
    after = 2 * before + 1 + 0.1 * rng.normal(size=before.shape).astype(np.float32)
    after[:, :5] = np.nan
    after[:, 10, 10] += 9
    found = change_map(before, after, 0.001)
    assert found.compared == 300 and np.isnan(found.probability[:5]).all() and not found.changed[:5].any()
    assert found.changed[10, 10] and found.changed.sum() <= 3


def test_passes_that_do_not_fit_each_other_are_told(passes: tuple[Path, Path, Path]) -> None:
    with open_source(Asked(str(passes[0]))) as before, open_source(Asked("demo:256")) as after:
        with pytest.raises(InputError, match="differ in their size"):
            compare(before, after, 0.01)
        with pytest.raises(InputError, match="--false-alarms"):
            compare(before, before, 0.9)
