"""Which counters and which weights a decision of the profile `dense` has: numbers from what both sides know.

Features are those of payload/codec/lapped/context_model.py, taken anew before every channel; the sums over zones are
those of the group's beginning. SIX and FOUR are coarse sizes of a feature. docs/format.md lists the contexts, those of
the first generation first.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from payload.codec.lapped.context_model import FREQUENCIES, KNOWN_LIMIT, log2_eighths, zones
from payload.codec.lapped.transform import BLOCK, COEFFICIENTS

Plane = NDArray[np.int64]
SIX = np.array([0, 1, 2, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 5, 5, 5])
FOUR = np.array([0, 1, 2, 2, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3])
#: Bands from the fourth on, and layers from the fourth on, count as one.
LAST = 3


@dataclass(frozen=True, eq=False)
class Place:
    """A channel while it is coded: its features, and the classes of the bundle's context model. Planes are [h, w]."""

    channel: int
    layer: int
    bands: int
    features: NDArray[np.uint8]  # [F, h, w]
    logits: NDArray[np.int32]  # 0 where class 0 begins
    own: NDArray[np.uint8]  # [h + 4, w + 4] what was known of the channel before it is coded, two blocks around

    @property
    def function(self) -> int:
        return self.channel % COEFFICIENTS

    @property
    def band(self) -> int:
        return min(self.channel // COEFFICIENTS, LAST)

    @property
    def zone(self) -> int:
        """0: block average."""
        return int(zones()[self.function]) + 1

    @property
    def classes(self) -> Plane:
        return self.logits.astype(np.int64) >> 8

    def x(self, feature: int) -> Plane:
        return self.features[feature].astype(np.int64)

    @property
    def each_other(self) -> list[Plane]:
        """The same function here of bands + 1, + 2 and + 3; nothing of those that are not there."""
        first = 3 + len(FREQUENCIES)
        found = [self.x(first + 2 * turn) for turn in range(min(self.bands - 1, 3))]
        return found + [np.zeros(self.logits.shape, np.int64)] * (3 - len(found))

    def parts(self, n: int) -> Plane:
        """Which of n x n parts of the tile a block lies in."""
        h, w = self.logits.shape
        row, col = np.mgrid[:h, :w]
        return np.asarray(row * n // h * n + col * n // w)

    @property
    def others(self) -> tuple[Plane, Plane]:
        """Sums over all other bands: the same function here, and in the four blocks beside."""
        first, end = 3 + len(FREQUENCIES), 3 + len(FREQUENCIES) + 2 * (self.bands - 1)
        wide = self.features[first:end].astype(np.int64)
        return np.minimum(wide[::2].sum(0), KNOWN_LIMIT), np.minimum(wide[1::2].sum(0), KNOWN_LIMIT)

    def zone_sum(self, zone: int) -> Plane:
        return self.x(3 + len(FREQUENCIES) + 2 * (self.bands - 1) + 2 * zone)


Contexts = tuple[Plane, Plane]


def significance(place: Place) -> Contexts:
    """Numbers of every coefficient to become significant: counters [10, h, w] and rows [6, h, w]. Those that look at
    decisions of the same channel (`Near` completes them) are without what these say."""
    h, w = place.logits.shape
    here, beside = place.others
    side, corner, up, left, after, around = (place.x(f) for f in (0, 1, 3, 4, 5, 6))
    near = np.minimum(up + left, KNOWN_LIMIT)
    every = 2 * side + corner + 2 * (up + left) + after + around + 2 * here + beside
    low, next_, middle, others = (SIX[place.zone_sum(z)] for z in (0, 1, 2, 4))
    band, layer, classes = place.band, min(place.layer, LAST), place.classes
    first, second, third = (SIX[x] for x in place.each_other)
    below, right = (place.own[2 + i : 2 + i + h, 2 + j : 2 + j + w].astype(np.int64) for i, j in ((1, 0), (0, 1)))
    counters = _planes(
        (((band * 6 + SIX[up]) * 6 + SIX[left]) * 4 + FOUR[after]) * 3 + np.minimum(around, 2),
        ((band * 6 + SIX[here]) * 4 + FOUR[beside]) * 6 + SIX[near],
        (((band * 6 + low) * 6 + next_) * 6 + middle) * 6 + others,
        (place.parts(8) * 4 + band) * 5 + place.zone,
        classes * 32 + (log2_eighths(1 + every) >> 1),
        (place.parts(16) * 4 + band) * 8 + (classes >> 2),
        place.zone * 576 + FOUR[below] * 4 + FOUR[right],
        place.logits >> 6,
        place.parts(32) * 8 + (classes >> 2),
        ((((classes >> 3) * 4 + band) * 6 + first) * 6 + second) * 6 + third,
    )
    rows = _planes(
        np.full((h, w), layer * 5 + place.zone),
        layer * 32 + classes,
        SIX[side] * 6 + SIX[near],
        np.full((h, w), band * COEFFICIENTS + place.function),
        place.parts(8),
        SIX[here] * 6,
    )
    return counters, rows


class Near:
    """What was decided on of a channel so far, at most 7 each, and the contexts that look at it."""

    #: Of the counters and of the rows of `significance`.
    AROUND, HOOD, ROW = 6, 7, 5

    def __init__(self, place: Place, before: NDArray[np.uint16]) -> None:
        h, w = before.shape
        self._seen = [[0] * (w + 4) for _ in range(h + 2)]
        for row, values in enumerate(np.minimum(2 * before.astype(np.int64), 7).tolist()):
            self._seen[2 + row][2 : 2 + w] = values
        self._own = place.own.tolist()

    def numbers(self, row: int, col: int) -> tuple[int, int, int]:
        """What is added to the contexts AROUND, HOOD and ROW of a block."""
        two_up, up, here, own = self._seen[row], self._seen[row + 1], self._seen[row + 2], self._own
        above, left, right, below = up[col + 2], here[col + 1], own[row + 2][col + 3], own[row + 3][col + 2]
        hood = 4 * (above + left + below + right) + 2 * (up[col + 1] + up[col + 3]) + two_up[col + 2] + here[col]
        around = (int(SIX[above]) * 6 + int(SIX[left])) * 16
        return around, (_eighths(1 + hood) >> 1) * 128, int(SIX[above + left])

    def tell(self, row: int, col: int, bit: int) -> None:
        self._seen[row + 2][col + 2] = bit


@lru_cache(maxsize=256)
def _eighths(value: int) -> int:
    return int(log2_eighths(np.array([value]))[0])


def more(place: Place, v: Plane) -> Contexts:
    """Of a size to be more than v, or of the next bit of one that is v so far: [7, h, w] and [5, h, w]."""
    h, w = place.logits.shape
    row, col = np.mgrid[:h, :w]
    side, (here, beside) = place.x(0), place.others
    every = 2 * side + place.x(1) + 2 * (place.x(3) + place.x(4)) + place.x(5) + place.x(6) + 2 * here + beside
    band, spot = place.band, row % BLOCK * BLOCK + col % BLOCK
    counters = _planes(
        v * 32 + place.classes,
        np.minimum(v, 3) * 256 + band * 64 + place.function,
        (v * 6 + SIX[side]) * 4 + FOUR[place.x(1)],
        (v * 6 + SIX[place.x(3)]) * 6 + SIX[place.x(4)],
        (v * 6 + SIX[here]) * 4 + band,
        v * 16 + side if place.function else 256 + v * 64 + spot,
        (np.minimum(v, 7) * 64 + place.parts(8)) * 4 + band,
    )
    rows = _planes(
        v,
        np.full((h, w), band * 5 + place.zone),
        place.classes,
        np.full((h, w), band * COEFFICIENTS + place.function),
        log2_eighths(1 + every) >> 1,
    )
    return counters, rows


def sign(place: Place, signs: NDArray[np.int8]) -> Contexts:
    """Of a coefficient to be negative: [9, h, w] and [3, h, w]. signs [C, h + 2, w + 2] of what is known, -1, 0, 1."""
    channel, function, band = place.channel, place.function, place.band
    u, v = divmod(function, BLOCK)
    nothing = np.zeros(place.logits.shape, np.int64)

    def at(other: int, down: int = 0, right: int = 0) -> Plane:
        h, w = place.logits.shape
        return signs[other, 1 + down : 1 + down + h, 1 + right : 1 + right + w].astype(np.int64)

    left, right, above, below = at(channel, 0, -1), at(channel, 0, 1), at(channel, -1), at(channel, 1)
    turns = range(1, min(place.bands, 4))
    others = [at((channel + turn * COEFFICIENTS) % len(signs)) for turn in turns]
    first, second, third = others + [nothing] * (3 - len(others))
    up2, left2 = at(channel - 2 * BLOCK) if u > 1 else nothing, at(channel - 2) if v > 1 else nothing
    up1, left1 = at(channel - BLOCK) if u else nothing, at(channel - 1) if v else nothing
    three, zone = _pair(first, second) * 3 + third + 1, (0, 0, 1, 2, 2)[place.zone]
    counters = _planes(
        _pair(left, right) * 64 + function,
        _pair(above, below) * 64 + function,
        three * 4 + band,
        _pair(first, second) * 256 + band * 64 + function,
        _pair(up2, left2) * 64 + function,
        _pair(up1, left1) * 64 + function,
        (place.parts(8) * 27 + three) * 4 + band,
        (place.parts(16) * 4 + band) * 3 + third + 1,
        ((place.parts(4) * 4 + band) * 27 + three) * 3 + zone,
    )
    rows = _planes(
        nothing + band * 5 + place.zone,
        np.abs(left) + np.abs(right) + 3 * (np.abs(above) + np.abs(below)),
        np.abs(first) + 2 * np.abs(second) + 4 * np.abs(third),
    )
    return counters, rows


def _pair(a: Plane, b: Plane) -> Plane:
    return (a + 1) * 3 + b + 1


def _planes(*planes: Any) -> Plane:
    return np.stack([np.asarray(plane, np.int64) for plane in planes])
