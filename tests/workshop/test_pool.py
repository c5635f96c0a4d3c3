"""A pool of one's own: what does not fit is refused in one line, before anything is written."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from export.__main__ import main
from export.data import VALIDATION_SITES, load_pool, read_named, read_tiles
from payload.errors import InputError

BANDS = ("B02", "B03", "B04", "B08")


def write_pool(folder: Path, **changes: Any) -> Path:
    rng = np.random.default_rng(0)
    arrays: dict[str, Any] = {
        "x": rng.integers(100, 3000, (6, 4, 128, 128), dtype=np.uint16),
        "site": np.array([VALIDATION_SITES[0]] * 2 + ["elsewhere"] * 4),
        "res_m": np.full(6, 10, np.uint16),
        "bands": np.array(BANDS),
    }
    kept = {k: v for k, v in (arrays | changes).items() if v is not None}
    np.savez(folder / "pool.npz", **kept)
    return folder / "pool.npz"


def test_a_sound_pool_is_split_by_site(tmp_path: Path) -> None:
    pool = load_pool(BANDS, path=write_pool(tmp_path))
    assert pool.validation.tolist() == [0, 1] and pool.training.tolist() == [2, 3, 4, 5] and pool.finest_m == 10


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"bands": np.array(["B02", "B03", "B04", "B8A"])}, "holds B02, B03, B04, B8A, the recipe wants B02"),
        ({"x": np.zeros((6, 3, 128, 128), np.uint16)}, "x holds 3 bands, named B02, B03, B04, B08"),
        ({"x": np.full((6, 4, 128, 128), np.nan, np.float32)}, "float32 with NaN or infinite samples; leave those"),
        ({"x": np.zeros((6, 4, 128, 128), np.float32)}, "x is float32"),
        ({"x": None}, "and no x"),
        ({"site": None}, "site is missing; wanted for each of the 6 tiles"),
        ({"res_m": np.full(5, 10)}, r"res_m is int64 \(5,\)"),
        ({"res_m": np.full(6, np.nan)}, "res_m is float64"),
        ({"site": np.array(["elsewhere"] * 6)}, "no tile to measure on: none of the held-out sites"),
        ({"site": np.array([VALIDATION_SITES[0]] * 6)}, "no tile to train on"),
        ({"res_m": np.full(6, 100)}, "coarser than 63 m"),
    ],
)
def test_an_unsound_pool_is_refused_before_anything_is_written(tmp_path: Path, changes, message, capsys) -> None:
    path, out = write_pool(tmp_path, **changes), tmp_path / "out"
    with pytest.raises(InputError, match=message):
        load_pool(BANDS, path=path)
    assert main(["train", "--recipe", "edge", "--pool", str(path), "--out", str(out)]) == 2
    told = capsys.readouterr().err
    assert told.startswith("error: ") and told.count("\n") == 1 and not out.exists()


def test_a_recipe_of_other_bands_does_not_pass_silently(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"recipe wants B01; give a pool of the recipe's bands"):
        load_pool(("B01",), path=write_pool(tmp_path))


def test_a_file_that_is_cut_is_no_pool(tmp_path: Path) -> None:
    path = write_pool(tmp_path)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(InputError, match="not a pool of tiles"):
        read_tiles(path)


def test_pixels_of_any_size_design_the_transform(tmp_path: Path) -> None:
    """Five-metre tiles alone: their own finest size counts, where 10 m was once the only one."""
    from export.lapped.train import train_transform

    pool = load_pool(BANDS, 0.8, write_pool(tmp_path, res_m=np.full(6, 5, np.uint16)))
    assert np.isfinite(float(train_transform(pool, tmp_path)["gain_db"]))


def test_a_file_of_the_data_folder_that_lacks_an_array_says_which(tmp_path: Path) -> None:
    np.savez(tmp_path / "farms.npz", x=np.zeros((1, 4, 8, 8), np.uint16))
    with pytest.raises(InputError, match=r"farms\.npz: no array scl; wanted an \.npz with x, scl"):
        read_named(tmp_path / "farms.npz", "x", "scl")
    with pytest.raises(InputError, match=r"none\.npz: not a file of the data folder"):
        read_named(tmp_path / "none.npz", "x")


def test_the_ground_and_the_workshop_look_for_the_data_in_one_place(tmp_path: Path, monkeypatch) -> None:
    """Neither may import the other, so each says it: a test holds the two together."""
    from export.data import data_folder
    from sim.clouds.samples import TILES
    from sim.clouds.samples import data_folder as of_the_ground

    monkeypatch.setenv("NADIR_DATA", str(tmp_path))
    (tmp_path / TILES).parent.mkdir()
    (tmp_path / TILES).touch()
    assert data_folder() == of_the_ground() == tmp_path
    monkeypatch.delenv("NADIR_DATA")
    monkeypatch.setattr(Path, "is_dir", lambda path: True)
    monkeypatch.setattr(Path, "is_file", lambda path: True)
    assert data_folder() == of_the_ground()
