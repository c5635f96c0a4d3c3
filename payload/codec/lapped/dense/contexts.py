"""Which counters and which weights a decision of the profile `dense` has: nine numbers from what both sides know.

Features are those of payload/codec/lapped/context_model.py, taken anew before every channel; the sums over zones are
those of the group's beginning. SIX and FOUR are coarse sizes of a feature. docs/format.md lists the contexts.
"""

from dataclasses import dataclass
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
    def others(self) -> tuple[Plane, Plane]:
        """Sums over all other bands: the same function here, and in the four blocks beside."""
        first, end = 3 + len(FREQUENCIES), 3 + len(FREQUENCIES) + 2 * (self.bands - 1)
        wide = self.features[first:end].astype(np.int64)
        return np.minimum(wide[::2].sum(0), KNOWN_LIMIT), np.minimum(wide[1::2].sum(0), KNOWN_LIMIT)

    def zone_sum(self, zone: int) -> Plane:
        return self.x(3 + len(FREQUENCIES) + 2 * (self.bands - 1) + 2 * zone)


def significance(place: Place) -> Plane:
    """Nine numbers [9, h, w] of every coefficient to become significant."""
    h, w = place.logits.shape
    row, col = np.mgrid[:h, :w]
    here, beside = place.others
    side, corner, up, left, after, around = (place.x(f) for f in (0, 1, 3, 4, 5, 6))
    near = np.minimum(up + left, KNOWN_LIMIT)
    every = 2 * side + corner + 2 * (up + left) + after + around + 2 * here + beside
    low, next_, middle, others = (SIX[place.zone_sum(z)] for z in (0, 1, 2, 4))
    band, layer, classes = place.band, min(place.layer, LAST), place.classes
    region, spot = row * 8 // h * 8 + col * 8 // w, row * 16 // h * 16 + col * 16 // w
    return _planes(
        (((band * 6 + SIX[up]) * 6 + SIX[left]) * 4 + FOUR[after]) * 3 + np.minimum(around, 2),
        ((band * 6 + SIX[here]) * 4 + FOUR[beside]) * 6 + SIX[near],
        (((band * 6 + low) * 6 + next_) * 6 + middle) * 6 + others,
        (region * 4 + band) * 5 + place.zone,
        classes * 32 + (log2_eighths(1 + every) >> 1),
        (spot * 4 + band) * 8 + (classes >> 2),
        np.full((h, w), layer * 5 + place.zone),
        layer * 32 + classes,
        SIX[side] * 6 + SIX[near],
    )


def more(place: Place, v: Plane) -> Plane:
    """Of a size to be more than v, or of the next bit of one that is v so far: [9, h, w]."""
    h, w = place.logits.shape
    row, col = np.mgrid[:h, :w]
    side, (here, _) = place.x(0), place.others
    band, spot = place.band, row % BLOCK * BLOCK + col % BLOCK
    return _planes(
        v * 32 + place.classes,
        np.minimum(v, 3) * 256 + band * 64 + place.function,
        (v * 6 + SIX[side]) * 4 + FOUR[place.x(1)],
        (v * 6 + SIX[place.x(3)]) * 6 + SIX[place.x(4)],
        (v * 6 + SIX[here]) * 4 + band,
        v * 16 + side if place.function else 256 + v * 64 + spot,
        v,
        np.full((h, w), band * 5 + place.zone),
        place.classes,
    )


def sign(place: Place, signs: NDArray[np.int8]) -> Plane:
    """Of a coefficient to be negative: [9, h, w]. signs [C, h + 2, w + 2] of what is known, -1, 0, 1."""
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
    return _planes(
        _pair(left, right) * 64 + function,
        _pair(above, below) * 64 + function,
        (_pair(first, second) * 3 + third + 1) * 4 + band,
        _pair(first, second) * 256 + band * 64 + function,
        _pair(up2, left2) * 64 + function,
        _pair(up1, left1) * 64 + function,
        nothing + band * 5 + place.zone,
        np.abs(left) + np.abs(right) + 3 * (np.abs(above) + np.abs(below)),
        np.abs(first) + 2 * np.abs(second) + 4 * np.abs(third),
    )


def _pair(a: Plane, b: Plane) -> Plane:
    return (a + 1) * 3 + b + 1


def _planes(*planes: Any) -> Plane:
    return np.stack([np.asarray(plane, np.int64) for plane in planes])
