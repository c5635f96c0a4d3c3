"""Layers as plain bits: their law, their octets by hand, and what a tile costs at most."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from payload.codec.lapped.layers import decode_layers, encode_layers
from payload.codec.lapped.plain_layer import pack_raw, unpack_raw
from payload.codec.lapped.quantiser import Indices
from payload.codec.lapped.tables import load_tables
from payload.errors import StreamError


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32), st.integers(0, 128), st.sampled_from([0, 1, 300, 65535]), st.integers(0, 2))
def test_unpacking_undoes_packing(seed, active, largest, k) -> None:
    rng = np.random.default_rng(seed)
    members = rng.permutation(128)[:active]
    here = np.zeros((128, 8, 8), np.uint16)
    here[members] = rng.integers(0, largest, (active, 8, 8), endpoint=True)
    before = (here >> 1).astype(np.uint16) if k else np.zeros_like(here)
    signs = rng.random(here.shape) < 0.5
    known = signs & (before > 0)  # of what the layers before had
    found = unpack_raw(pack_raw(here, before, signs, members, k), before, known, members, k)
    assert np.array_equal(found, here) and np.array_equal(known, signs & (here > 0))


def test_octets_by_hand() -> None:
    here, signs = np.zeros((64, 1, 2), np.uint16), np.zeros((64, 1, 2), bool)
    here[3, 0], here[9, 0], signs[9, 0, 0] = [5, 0], [2, 7], True
    # the band's largest is 7: 3 bits each. Channel 3: 101 000, channel 9: 010 111; signs of 5, 2, 7: 0 1 0
    wanted = "03" + f"{0b1010_0001_0111_0000:04x}" + f"{0b0100_0000:02x}"
    assert pack_raw(here, np.zeros_like(here), signs, np.array([3, 9]), 0).hex() == wanted
    # a finer layer: the lowest bit of each, 1 0 0 1; only 2 was nothing before
    before = here.copy() >> 1
    before[9, 0, 0] = 0
    assert pack_raw(here, before, signs, np.array([3, 9]), 1).hex() == f"{0b1001_0000:02x}" + f"{0b1000_0000:02x}"


@pytest.mark.parametrize("octets", [b"", b"\x11" * 40, b"\x03\x00"])
def test_too_few_octets_or_impossible_widths_are_refused(octets) -> None:
    nothing = np.zeros((64, 8, 8), np.uint16)
    with pytest.raises(StreamError):
        unpack_raw(octets, nothing, np.zeros(nothing.shape, bool), np.arange(64), 0)


@pytest.mark.parametrize("largest", [1, 7, 1000, 65535])
def test_no_tile_costs_more_than_its_indices_written_out_and_half_a_per_cent(make_tables, tmp_path, largest) -> None:
    """Noise, which no model of ground expects: written out, its bits a coefficient and a sign where it is not 0."""
    tables = load_tables(make_tables(tmp_path / "t.npz", 4, 3))
    rng = np.random.default_rng(largest)
    sent = Indices(rng.integers(0, largest, (256, 16, 16), np.uint16, endpoint=True), rng.random((256, 16, 16)) < 0.5)
    layers = encode_layers(sent, tables)
    written_out = (sent.magnitude.size * max(3, largest.bit_length()) + np.count_nonzero(sent.magnitude)) / 8
    assert sum(map(len, layers)) <= 1.005 * written_out
    found = decode_layers(layers, sent.magnitude.shape, tables)
    assert np.array_equal(found.magnitude, sent.magnitude)
