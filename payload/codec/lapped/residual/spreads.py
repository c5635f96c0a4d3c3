"""Bins of a residual layer <-> symbols: classes of samples, each with a spread that its sender chose.

A spread is one of 81 two-sided distributions of the logistic kind, four to an octave: 1/16 of a bin to 65 536 bins.
Beyond 8 bins a bin is told by its high bits under one of the four widest tables, its low bits are plain.
"""

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from payload.codec.lapped.range_coder import ONE, Table
from payload.codec.lapped.residual.raw_bits import BitReader, Bits, digits
from payload.errors import StreamError

#: Classes to an octave of the expected size, and from which sixteenth of a bin on.
PER_OCTAVE = 4
CLASSES = 20 * PER_OCTAVE
#: The narrowest spread is 2^-4 bins; tables are made up to 2^3 bins, spreads go on with plain low bits.
NARROWEST, TABLES, SPREADS = -4, 29, 81
#: Symbols are bins from -REACH to REACH, and one for all others.
REACH = 96
ESCAPE = 2 * REACH + 1
ESCAPE_BITS = 17
#: One sample in so many is taken from a distribution four times as wide, so that a rare large one does not cost all.
OUTLIERS, OUTLIERS_WIDTH = 1 / 64, 4.0
#: Costs of symbols are counted in 256ths of a bit.
COST_UNIT = 256

Integers = NDArray[np.int64]


def classes_of(sizes: Integers) -> Integers:
    """Class of each expected size in sixteenths of a bin: its octave and the next two bits."""
    held = np.clip(sizes, 1, (1 << 20) - 1).astype(np.float32)
    return (held.view(np.uint32) >> 21).astype(np.int64) - (127 << 2)


def edges(spread: int) -> NDArray[np.float64]:
    """Cumulative counts of a table before they are rounded, [ESCAPE + 1]."""
    places = np.arange(-REACH, REACH + 2) - 0.5
    width = 2.0 ** (NARROWEST + spread / PER_OCTAVE)
    below = (1 - OUTLIERS) * _logistic(places / width) + OUTLIERS * _logistic(places / (width * OUTLIERS_WIDTH))
    inside = below - below[0]  # what lies beyond the reach on either side belongs to the escape, which comes last
    found: NDArray[np.float64] = inside * (ONE - ESCAPE - 1)
    return found


def _logistic(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """1 / (1 + e^-x)."""
    small = np.exp(-np.abs(x))
    return np.where(x < 0, small, 1.0) / (1.0 + small)


@lru_cache(maxsize=1)
def tables() -> tuple[Table, ...]:
    """The tables of symbols. No entry lies so near a rounding edge that two machines could disagree (tested)."""
    found = []
    for spread in range(TABLES):
        lower = np.rint(edges(spread)).astype(np.int64) + np.arange(ESCAPE + 1)
        found.append(Table(np.diff(np.append(lower, ONE))))
    return tuple(found)


@lru_cache(maxsize=1)
def _costs() -> Integers:
    """[TABLES, symbols] in 256ths of a bit, the escape's plain bits in it."""
    counts = np.array([table.counts for table in tables()], np.float64)
    costs = np.rint(COST_UNIT * -np.log2(counts / ONE)).astype(np.int64)
    costs[:, ESCAPE] += COST_UNIT * ESCAPE_BITS
    return costs


def _split(spread: int) -> tuple[int, int]:
    """The table of a spread, and how many low bits are plain."""
    low = max(0, -(-(spread - TABLES + 1) // PER_OCTAVE))
    return spread - PER_OCTAVE * low, low


def choose(bins: Sequence[Integers], classes: Sequence[Integers]) -> tuple[int, bytes]:
    """The first class there is, and from it to the last the spread that codes each in the fewest bits."""
    values, places = np.concatenate(bins), np.concatenate(classes)
    if not len(values):
        return 0, b""
    first, count = int(places.min()), int(places.max()) - int(places.min()) + 1
    return first, bytes(_best(values[places == first + c]) for c in range(count))


def _best(values: Integers) -> int:
    """The spread of a class, searched around its mean size."""
    if not len(values):
        return 0
    mean = 2 * int(np.abs(values).sum()) // len(values)  # in halves of a bin
    near = min((mean + 1).bit_length() * PER_OCTAVE + 3 * PER_OCTAVE, SPREADS - 1)
    tried = range(max(0, near - 5 * PER_OCTAVE), min(SPREADS, near + 2 * PER_OCTAVE))
    distinct, counts = np.unique(values, return_counts=True)
    return min(tried, key=lambda spread: (_cost(distinct, counts, spread), spread))


def _cost(distinct: Integers, counts: Integers, spread: int) -> int:
    table, low = _split(spread)
    symbols = _symbols(distinct, low)
    plain = np.where(symbols == ESCAPE, 0, COST_UNIT * low)
    return int(((_costs()[table][symbols] + plain) * counts).sum())


def _symbols(bins: Integers, low: int) -> Integers:
    high = bins >> low
    return np.where(np.abs(high) <= REACH, high + REACH, ESCAPE)


def put(coder: Any, bins: Integers, classes: Integers, chosen: bytes) -> Iterator[Bits]:
    """Codes bins class by class; gives the plain bits that belong to them."""
    for members, (table, low) in _by_class(classes, chosen):
        values = bins[members]
        symbols = _symbols(values, low)
        coder.put(symbols.astype(np.int32), tables()[table])
        escaped = symbols == ESCAPE
        yield digits(values[escaped] + (1 << ESCAPE_BITS - 1), ESCAPE_BITS)
        yield digits(values[~escaped] & ((1 << low) - 1), low)


def take(coder: Any, raw: BitReader, classes: Integers, chosen: bytes) -> Integers:
    """Bins of pixels of these classes. StreamError where the octets hold no such."""
    if len(classes) and not 0 <= classes.min() <= classes.max() < len(chosen):
        raise StreamError("residual layer: a class without a spread")
    bins = np.zeros(len(classes), np.int64)
    for members, (table, low) in _by_class(classes, chosen):
        symbols = coder.take(len(members), tables()[table]).astype(np.int64)
        escaped = symbols == ESCAPE
        far = raw.take(int(escaped.sum()), ESCAPE_BITS) - (1 << ESCAPE_BITS - 1)
        near = (symbols[~escaped] - REACH << low) + raw.take(int((~escaped).sum()), low)
        bins[members[escaped]], bins[members[~escaped]] = far, near
    return bins


def _by_class(classes: Integers, chosen: bytes) -> Iterator[tuple[Integers, tuple[int, int]]]:
    """Places of the members of each class that has any, and the table and low bits of its spread."""
    order = np.argsort(classes, kind="stable")
    ends = np.searchsorted(classes[order], np.arange(len(chosen) + 1))
    for c, spread in enumerate(chosen):
        if ends[c + 1] > ends[c]:
            yield order[ends[c] : ends[c + 1]], _split(spread)
