"""Valid masks: the law of the wire, octets by hand, the sizes of usual edges, hostile octets."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from payload.errors import StreamError
from payload.link.valid_mask import pack_mask, unpack_mask

masks = st.sampled_from([8, 16, 32]).flatmap(lambda side: hnp.arrays(bool, (side, side)))


@given(masks)
def test_unpack_is_the_inverse_of_pack(mask) -> None:
    assert np.array_equal(unpack_mask(pack_mask(mask), len(mask)), mask)


@settings(deadline=None, max_examples=40)
@given(st.floats(-3, 3), st.floats(-200, 500))
def test_a_straight_edge_of_a_swath_costs_at_most_three_octets_a_row(slope, offset) -> None:
    y, x = np.mgrid[:256, :256]
    mask = x + slope * y > offset
    octets = pack_mask(mask)
    assert np.array_equal(unpack_mask(octets, 256), mask)
    assert len(octets) <= 3 * 256 + 8


def test_noise_costs_a_bit_a_pixel_and_an_octet_a_row() -> None:
    mask = np.random.default_rng(1).random((64, 64)) < 0.5
    assert len(pack_mask(mask)) <= 64 * 9


def test_a_mask_by_hand() -> None:
    mask = np.ones((8, 8), bool)
    mask[2, 5:] = mask[3, 6:] = mask[4, 6:] = False
    mask[5:] = False
    assert pack_mask(mask).hex(" ") == (
        "00 02 "  # two rows as the one above the first: wholly valid
        "03 f8 "  # 5 valid, 3 not: as bits, for its one change as a place would take five octets
        "01 01 "  # its change one column to the right
        "00 01 "  # once more
        "01 fa "  # the change 6 columns to the left: nothing is valid
        "00 02"
    )


def test_a_wholly_valid_tile_costs_nothing() -> None:
    assert pack_mask(np.ones((64, 64), bool)) == b""
    assert unpack_mask(b"", 64).all()


@settings(max_examples=300)
@given(st.binary(min_size=1, max_size=80))
def test_hostile_octets_are_refused_or_make_a_mask(octets) -> None:
    try:
        assert unpack_mask(octets, 16).shape == (16, 16)
    except StreamError as error:
        assert str(error).startswith("valid mask: ")


@pytest.mark.parametrize(
    "octets", ["00 00", "00 11", "01", "00 08 00 08 00", "04", "02 00 01 00 10", "02 00 02 00 03 00 03"]
)
def test_records_that_do_not_fit_are_refused(octets) -> None:
    with pytest.raises(StreamError, match="valid mask"):
        unpack_mask(bytes.fromhex(octets), 16)
