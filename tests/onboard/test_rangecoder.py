"""The range coder: octets by hand, library and plain Python octet for octet, and what hostile octets do."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from payload.codec.lapped import range_coder
from payload.codec.lapped.range_coder import ONE, LibraryDecoder, LibraryEncoder, PlainDecoder, PlainEncoder, Table
from payload.errors import StreamError

HALVES = Table(np.array([ONE // 2, ONE // 2]))
#: The middle symbol keeps the interval around one half: nothing is decided until another symbol comes.
MIDDLE = Table(np.array([ONE // 4, ONE // 2, ONE // 4]))
SKEWED = Table(np.array([ONE - 2, 1, 1]))
SIXTEEN = Table(np.arange(1, 17) * 1000 + np.where(np.arange(16) == 15, ONE - 136_000, 0))
TABLES = (HALVES, MIDDLE, SKEWED, SIXTEEN)

needs_library = pytest.mark.skipif(range_coder.constriction is None, reason="constriction has no wheel here")
CODERS = [
    pytest.param(PlainEncoder, PlainDecoder, id="plain"),
    pytest.param(LibraryEncoder, LibraryDecoder, id="library", marks=needs_library),
]

runs = st.lists(
    st.integers(0, len(TABLES) - 1).flatmap(
        lambda t: st.tuples(st.just(t), st.lists(st.integers(0, len(TABLES[t].counts) - 1), max_size=60))
    ),
    max_size=8,
)


def coded(encoder, parts) -> bytes:
    coder = encoder()
    for table, symbols in parts:
        coder.put(np.array(symbols, np.int32), TABLES[table])
    return coder.octets()


@pytest.mark.parametrize(("encoder", "decoder"), CODERS)
@pytest.mark.parametrize(
    ("symbols", "octets"),
    [
        ([], ""),  # nothing coded, nothing sent
        # low = 0, range = 2^64 - 1. A half takes (range >> 24) x 2^23 = (2^40 - 1) 2^23 = 2^63 - 2^23.
        # 0: low stays 0; the point low + 2^32 - 1 has the high word 0, the interval's end another one: one word
        ([0], "00000000"),
        # 1: low = 2^63 - 2^23 = 7fffffffff800000; + ffffffff = 80000000ff7fffff: its high word
        ([1], "80000000"),
        # 0 thirty-one more times after 1: the range falls below 2^32 at the 32nd symbol: low's high word 7fffffff goes
        # out, its low word ff800000 moves up; the point is ff800000ffffffff, its high word ends the stream
        ([1] + 31 * [0], "7fffffffff800000"),
    ],
)
def test_octets_by_hand(encoder, decoder, symbols, octets) -> None:
    coder = encoder()
    coder.put(np.array(symbols, np.int32), HALVES)
    assert coder.octets().hex() == octets
    assert decoder(bytes.fromhex(octets)).take(len(symbols), HALVES).tolist() == symbols


@needs_library
@settings(max_examples=60, deadline=None)
@given(runs)
@example([(1, 100 * [1] + [2])])  # undecided for seven words, then a carry through all of them
@example([(1, 100 * [1] + [0])])
@example([(1, 100 * [1])])
@example([(3, [5, 14, 13])])  # the interval ends within the point's word: a second word must follow
@example([(3, [4, 14, 14])])
@example([(2, 900 * [0])])  # hardly any range used up
@example([(2, 20 * [1, 2])])  # a word a symbol
def test_library_and_plain_python_write_the_same_octets(parts) -> None:
    assert coded(LibraryEncoder, parts) == coded(PlainEncoder, parts)


@pytest.mark.parametrize(("encoder", "decoder"), CODERS)
@settings(max_examples=40, deadline=None)
@given(parts=runs, garbage=st.binary(max_size=20))
@example(parts=[(1, 100 * [1])], garbage=b"\xff" * 12)
@example(parts=[(3, [5, 14, 13])], garbage=b"\xff" * 12)
@example(parts=[(1, 100 * [1] + [2])], garbage=b"\xff" * 3)
def test_decoding_gives_the_symbols_back_whatever_follows_the_octets(encoder, decoder, parts, garbage) -> None:
    coder = decoder(coded(encoder, parts) + garbage)
    for table, symbols in parts:
        assert coder.take(len(symbols), TABLES[table]).tolist() == symbols


@pytest.mark.parametrize("middles", range(0, 140, 7))
@pytest.mark.parametrize("last", [0, 2])
def test_a_carry_runs_through_any_number_of_words(middles, last) -> None:
    symbols = middles * [1] + [last]
    octets = coded(PlainEncoder, [(1, symbols)])
    assert PlainDecoder(octets + b"\xff\xff").take(len(symbols), MIDDLE).tolist() == symbols


@needs_library
@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=24) | st.just(b"\xff" * 16), st.lists(st.integers(0, 3), min_size=1, max_size=5))
def test_on_any_octets_both_decoders_agree_or_both_refuse(octets, tables) -> None:
    def taken(decoder):
        coder = decoder(octets)
        try:
            return [coder.take(20, TABLES[t]).tolist() for t in tables]
        except StreamError as error:
            return str(error)

    assert taken(LibraryDecoder) == taken(PlainDecoder)


@pytest.mark.parametrize(("encoder", "decoder"), CODERS)
def test_octets_past_the_end_of_every_interval_are_refused(encoder, decoder) -> None:
    # ffffffffffffffff lies at quantile (2^64 - 1) / (2^40 - 1) = 2^24, one past the last of 0 .. 2^24 - 1
    with pytest.raises(StreamError, match="no encoder"):
        decoder(b"\xff" * 8).take(1, HALVES)


@needs_library
@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), st.integers(2, 40))
def test_the_library_takes_counts_exactly(seed, symbols) -> None:
    """Each bound between two symbols: the last quantile of one and the first of the next decode as they should."""
    rng = np.random.default_rng(seed)
    cuts = np.sort(rng.choice(ONE - 1, symbols - 1, replace=False)) + 1
    table = Table(np.diff(np.concatenate([[0], cuts, [ONE]])))
    scale = ((1 << 64) - 1) >> 24  # of a fresh decoder
    for symbol, bound in enumerate(table.lower[1:-1]):
        for quantile, wanted in ((bound - 1, symbol), (bound, symbol + 1)):
            octets = (quantile * scale).to_bytes(8, "big")
            assert LibraryDecoder(octets).take(1, table).tolist() == [wanted]


@pytest.mark.parametrize("counts", [[ONE - 1, 0, 1], [ONE, 1], [ONE - 1], [-1, ONE + 1]])
def test_counts_that_are_no_distribution_are_refused(counts) -> None:
    with pytest.raises(ValueError, match="positive and sum to 16777216"):
        Table(np.array(counts))
