"""Tiles out of .npz files: fill is no picture, broken files are one line."""

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from payload.errors import InputError
from payload.sensor import RGBN, Band, Sensor
from sim.compare.tiles import read_tiles

SIDE = 64


def pictures(count: int) -> np.ndarray:
    return np.random.default_rng(2).integers(1, 4000, (count, 4, SIDE, SIDE)).astype(np.uint16)


def save(path: Path, **arrays: np.ndarray) -> Path:
    np.savez_compressed(path, **({"bands": np.array(RGBN)} | arrays))
    return path


@pytest.mark.parametrize("fill", [0, 65_535])
def test_tiles_with_fill_are_left_out_and_counted(tmp_path: Path, fill: int, caplog: pytest.LogCaptureFixture) -> None:
    x = pictures(3)
    x[1, :, : SIDE // 2] = fill
    x[2, 0, :5] = fill  # dark or bright in one band only: measured
    tiles = read_tiles([save(tmp_path / "t.npz", x=x)], SIDE)
    assert [tile.name for tile in tiles] == ["t_0", "t_2"]
    assert "1 of 3 tiles left out" in caplog.text and caplog.records[0].levelno == logging.WARNING


def test_zeros_of_a_camera_are_counts_unless_its_sensor_says_that_they_are_none(tmp_path: Path) -> None:
    pan = Sensor("pan", "panchromatic", (Band("PAN", 1.0),), bits=12, scale=1.0)
    path = save(tmp_path / "t.npz", x=np.zeros((1, 1, SIDE, SIDE), np.uint16), bands=np.array(["PAN"]))
    assert len(read_tiles([path], SIDE, sensor=pan)) == 1
    with pytest.raises(InputError, match="no whole tile"):
        read_tiles([path], SIDE, sensor=replace(pan, nodata=0))


def test_nothing_but_fill_is_refused(tmp_path: Path) -> None:
    x = pictures(1)
    x[:, :, :10] = 0
    with pytest.raises(InputError, match="no whole tile"):
        read_tiles([save(tmp_path / "t.npz", x=x)], SIDE)


@pytest.mark.parametrize("share", [0.0, 0.5, 0.98])
def test_a_cut_file_is_one_line(tmp_path: Path, share: float) -> None:
    path = save(tmp_path / "t.npz", x=pictures(2))
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    with pytest.raises(InputError, match=r"t\.npz: not readable as an \.npz") as caught:
        read_tiles([path], SIDE)
    assert "\n" not in str(caught.value)


def test_names_that_are_too_few_are_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "t.npz", x=pictures(3), names=np.array(["one", "two"]))
    with pytest.raises(InputError, match="2 names for 3 pictures"):
        read_tiles([path], SIDE)
