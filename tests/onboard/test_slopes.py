"""What averages tell of slopes: taken away and put back to the unit, and worth it where pictures are smooth."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from payload.bundle import Bundle, load_bundle
from payload.codec.interface import Quality
from payload.codec.lapped.transform import add_slopes, add_slopes_exactly, take_slopes
from payload.codec.registry import open_codec
from payload.engine import open_engine
from payload.errors import BundleError
from payload.stopwatch import Stopwatch
from payload.tiles import Tile

SIDE = 256


@settings(deadline=None)
@given(seed=st.integers(0, 2**32), bits=st.integers(1, 27), cells=st.sampled_from([8, 16]))
def test_what_was_taken_away_is_add_slopes_to_the_unit(seed: int, bits: int, cells: int) -> None:
    whole = np.random.default_rng(seed).integers(-(1 << bits), 1 << bits, (2, 64, cells, cells), np.int32)
    taken = whole.copy()
    take_slopes(taken)
    assert (taken != whole).any(axis=(0, 2, 3)).nonzero()[0].tolist() in ([1, 8], [1], [8], [])
    back = taken.astype(np.float64)
    add_slopes_exactly(back)
    assert np.array_equal(back, whole)
    near = taken.astype(np.float32)
    add_slopes(near)
    assert np.abs(near - whole).max() <= 0.5 + 2.0 ** (bits - 22)


def test_a_ramp_tells_by_hand() -> None:
    """Averages that rise by 256 a block: 12 x 4 - 36 x 2 = -24 inside, taken away; at the edges their neighbour counts
    twice."""
    sums = np.zeros((1, 64, 8, 8), np.int32)
    sums[0, 0] = 256 * np.arange(8)
    take_slopes(sums)
    assert sums[0, 1, 0].tolist() == [12, 36, 24, 24, 24, 24, 36, 12] and not sums[0, 8].any()


def variant(folder: Path, name: str, tell: Any) -> Bundle:
    shutil.copytree(load_bundle(name).directory, folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["codec"]["averages_tell"] = tell
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return load_bundle(folder)


def smooth_tile() -> Tile:
    y, x = np.mgrid[:SIDE, :SIDE]
    dn = 900 + 300 * np.sin((x + 2 * y) / 29) * np.cos((x - y) / 41) + 200 * np.sin(y / 17)
    return Tile(0, 0, np.rint(dn)[None].astype(np.uint16), np.ones((SIDE, SIDE), bool))


def test_a_smooth_picture_takes_fewer_octets_and_comes_back_as_well(tmp_path: Path) -> None:
    octets, errors, tile = [], [], smooth_tile()
    for tell in (False, True):
        codec = open_codec(variant(tmp_path / str(tell), "edge-pan", tell), open_engine("openvino"))
        coded = codec.encode(tile, Quality(8.0), Stopwatch())
        found = codec.reconstruct(codec.decode(coded.side, coded.layers), None)
        octets.append(coded.octets)
        errors.append(float(((found.astype(float) - tile.dn) ** 2).mean()))
    assert octets[1] < 0.9 * octets[0] and errors[1] < 1.2 * errors[0]


def test_the_bound_holds_where_averages_tell(tmp_path: Path) -> None:
    codec = open_codec(variant(tmp_path / "b", "edge-pan", True), open_engine("openvino"))
    tile = smooth_tile()
    coded = codec.encode(tile, Quality(max_error_dn=0), Stopwatch())
    assert np.array_equal(codec.reconstruct_bounded(coded.side, coded.layers, tile.valid, coded.bound), tile.dn)


@pytest.mark.parametrize("wrong", [1, 0.5, "yes", None])
def test_another_value_is_refused(wrong: Any, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="averages_tell"):
        open_codec(variant(tmp_path / "b", "edge-pan", wrong), None)
