"""What both sides know of a coefficient -> the class (0..31) of its chance to become significant. Integers throughout.

In a layer, channels come in groups. What is known of a channel is this layer's magnitude where its group was coded
before, twice the coarser layer's magnitude elsewhere, at most 15 either way. From it every coefficient gets features,

    x = min(15, sum of what is known over a neighbourhood)      24 neighbourhoods for four bands, see `neighbourhoods`

and from those a logit, with log2 in eighths of an octave as the exponent and mantissa of a float hold it:

    logit = base + activity + sum_j weight_j log2(1 + x_j) + sum_e gain_e log2(floor_e + sum_{j in e} mix_ej x_j)
    class = clip((logit >> 8) + 23, 0, 31)

The four inner sums, over the neighbourhoods in place, in frequency, in band and of the block, estimate magnitudes, as
in context coders since ECECOW (Wu, Asilomar 1997); all weights are trained (export/lapped/context_model.py).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from payload.codec.lapped.transform import BLOCK, COEFFICIENTS

CLASSES = 32
CLASS_OFFSET = 23
LOGIT_BITS = 8
#: What is known of a magnitude, and every sum over a neighbourhood, is at most this.
KNOWN_LIMIT = 15
#: Activity of a band in a layer: about 2 log2(1 + significant coefficients per 1024 blocks), one octet, centred at 16.
ACTIVITY_UNIT, ACTIVITY_CENTRE, ACTIVITY_LIMIT = 1024, 16, 32
LOGIT_LIMIT = (1 << 15) - 1
SUM_LIMIT = (1 << 15) - 1
ZONES = 4
#: Inner sums: in place, in frequency, in band, of the block.
SUMS = 4
#: Neighbouring blocks: the four sides, the four corners, the four two blocks away.
SIDES = ((-1, 0), (1, 0), (0, -1), (0, 1))
CORNERS = ((-1, -1), (-1, 1), (1, -1), (1, 1))
FAR = ((-2, 0), (2, 0), (0, -2), (0, 2))
#: Neighbours in frequency (rows, columns of the 8 x 8 functions), a feature each.
FREQUENCIES = (((-1, 0),), ((0, -1),), ((1, 0), (0, 1)), CORNERS, FAR)

Known = NDArray[np.uint8]
Integers = NDArray[np.int32]


def log2_eighths(values: NDArray[np.integer]) -> Integers:
    """About 8 log2 of integers from 1 to 2^24: exponent and top three bits of the mantissa of their float32."""
    return (values.astype(np.float32).view(np.int32) >> 20) - (127 << 3)


def feature_count(bands: int) -> int:
    return 3 + len(FREQUENCIES) + 2 * (bands - 1) + 2 * (ZONES + 1)


@lru_cache(maxsize=4)
def parts(bands: int) -> tuple[tuple[int, int], ...]:
    """Intervals of features behind the four inner sums: in place, in frequency, in band, of the block."""
    ends = np.cumsum([3, len(FREQUENCIES), 2 * (bands - 1), 2 * (ZONES + 1)])
    return tuple(zip([0, *ends[:-1].tolist()], ends.tolist(), strict=True))


@lru_cache(maxsize=1)
def zones() -> NDArray[np.int64]:
    """Zone 0..3 of each of the 64 functions, by the higher of its two frequencies; -1 for the block average."""
    u, v = np.divmod(np.arange(COEFFICIENTS), BLOCK)
    zone = np.searchsorted([2, 4, 6], np.maximum(u, v), side="right")
    return np.where(u + v == 0, -1, zone)


@lru_cache(maxsize=4)
def frequency_neighbours(bands: int) -> tuple[NDArray[np.int64], ...]:
    """Channels next to each channel in frequency, per feature [C, 1..4]; C (a channel of zeros) where there is none,
    or only the block average, whose place means nothing to the others."""
    channels = bands * COEFFICIENTS
    band, rest = np.divmod(np.arange(channels), COEFFICIENTS)
    u, v = np.divmod(rest, BLOCK)
    found = []
    for offsets in FREQUENCIES:
        columns = []
        for du, dv in offsets:
            inside = (u + du >= 0) & (u + du < BLOCK) & (v + dv >= 0) & (v + dv < BLOCK) & (u + du + v + dv > 0)
            columns.append(np.where(inside, band * COEFFICIENTS + (u + du) * BLOCK + v + dv, channels))
        found.append(np.stack(columns, 1))
    return tuple(found)


@dataclass(frozen=True, eq=False)
class LayerWeights:
    """The context model of one layer, integers. F features, E = 4 inner sums, C channels in their natural order."""

    weight: Integers  # [C, F]
    gain: Integers  # [C, E]
    mix: Integers  # [F], of the inner sum that the feature is part of
    floor: Integers  # [E]
    base: Integers  # [C]
    position: Integers  # [B, 8, 8]: of block averages, by place in the 8 x 8 transform over blocks
    activity: Integers  # [C]

    def largest(self, bands: int) -> tuple[int, int]:
        """The largest inner sum and the largest magnitude of a logit there can be."""
        tops = np.array([self.floor[e] + KNOWN_LIMIT * self.mix[a:b].sum() for e, (a, b) in enumerate(parts(bands))])
        ends = np.stack([log2_eighths(np.maximum(edge, 1)) for edge in (self.floor, tops)])  # [2, E]
        reached = [self.gain * end for end in ends]  # [C, E] each
        logs = int(log2_eighths(np.array([1 + KNOWN_LIMIT]))[0])
        largest = []
        for sign in (1, -1):
            logit = sign * self.base + ACTIVITY_LIMIT * np.abs(self.activity)
            logit = logit + np.maximum(*(sign * r for r in reached)).sum(1)
            logit += np.maximum(sign * self.weight, 0).sum(1) * logs
            logit[::COEFFICIENTS] += np.abs(self.position).max(axis=(1, 2))
            largest.append(int(logit.max()))
        return int(tops.max()), max(largest)


class Contexts:
    """Classes of one layer, group by group. `previous` [C, h, w] is the coarser layer, None for layer 0."""

    def __init__(
        self, weights: LayerWeights, shape: tuple[int, int, int], previous: NDArray[np.uint16] | None, activity: bytes
    ) -> None:
        channels, h, w = shape
        self._weights, self._bands, self._size = weights, channels // COEFFICIENTS, (h, w)
        # what is known, with two blocks of nothing around and a channel of zeros behind
        self._known = np.zeros((channels + 1, h + 4, w + 4), np.uint8)
        if previous is not None:
            self._inner[:channels] = np.minimum(previous, KNOWN_LIMIT // 2 + 1) * 2
            np.minimum(self._inner, KNOWN_LIMIT, out=self._inner)
        busy = np.frombuffer(activity, np.uint8).astype(np.int32) - ACTIVITY_CENTRE
        self._base = weights.base + weights.activity * np.repeat(busy, COEFFICIENTS)
        self._zones = self._zone_sums()

    @property
    def _inner(self) -> Known:
        return self._known[:, 2:-2, 2:-2]

    def classes(self, members: NDArray[np.int64]) -> Known:
        """Classes [M, h, w] of the channels `members`, a group or its beginning."""
        return (self.logits(members) >> LOGIT_BITS).astype(np.uint8)

    def logits(self, members: NDArray[np.int64]) -> Integers:
        """The same as logits [M, h, w], 0 where class 0 begins. A group begins here: sums over zones are taken anew."""
        t, (h, w) = self._weights, self._size
        self._zones = self._zone_sums()
        x = self.features(members)  # [F, M, h, w]
        logit = np.einsum("mf,fmhw->mhw", t.weight[members], log2_eighths(x.astype(np.int32) + 1))
        for e, (begin, end) in enumerate(parts(self._bands)):
            inner = np.tensordot(t.mix[begin:end], x[begin:end].astype(np.int32), 1) + t.floor[e]
            logit += t.gain[members, e][:, None, None] * log2_eighths(inner)
        logit += self._base[members][:, None, None]
        for at in np.flatnonzero(members % COEFFICIENTS == 0):
            logit[at] += np.tile(t.position[members[at] // COEFFICIENTS], (h // BLOCK, w // BLOCK))
        return np.clip(logit + (CLASS_OFFSET << LOGIT_BITS), 0, (CLASSES << LOGIT_BITS) - 1)

    def tell(self, members: NDArray[np.int64], magnitude: NDArray[np.uint16]) -> None:
        """This layer's magnitudes [M, h, w] of the channels `members` are known now."""
        self._inner[members] = np.minimum(magnitude, KNOWN_LIMIT)

    def known_of(self, channel: int) -> Known:
        """What is known of a channel now, [h + 4, w + 4] with two blocks of nothing around."""
        return self._known[channel].copy()

    def features(self, members: NDArray[np.int64]) -> Known:
        """x [F, M, h, w] of channels of the group, by what is known now; of zones by what was known as it began."""
        known, channels = self._known, self._bands * COEFFICIENTS
        found = [_around(known[members], offsets) for offsets in (SIDES, CORNERS, FAR)]
        found += [_added(self._inner, columns[members].T) for columns in frequency_neighbours(self._bands)]
        for turn in range(1, self._bands):
            other = known[(members + turn * COEFFICIENTS) % channels]
            found += [other[:, 2:-2, 2:-2], _around(other, SIDES)]
        block, around = self._zones
        band = members // COEFFICIENTS
        for zone in range(ZONES + 1):
            found += [block[band, zone], around[band, zone]]
        return np.minimum(np.stack(found), KNOWN_LIMIT)

    def _zone_sums(self) -> tuple[Known, Known]:
        """What is known of each block, per band [B, 5, h, w]: by zone, then of all other bands; and of the eight
        blocks around it."""
        by_band = self._known[:-1].reshape(self._bands, COEFFICIENTS, *self._known.shape[1:]).astype(np.int32)
        sums = [np.minimum(by_band[:, zones() == z].sum(1), 255) for z in range(ZONES)]
        whole = np.minimum(sum(sums), 255)
        others = whole.sum(0) - whole
        block = np.minimum(np.stack([*sums, others], 1), KNOWN_LIMIT).astype(np.uint8)  # [B, 5, h + 4, w + 4]
        return block[:, :, 2:-2, 2:-2], np.minimum(_around(block, SIDES + CORNERS), KNOWN_LIMIT)


def _around(padded: Known, offsets: Sequence[tuple[int, int]]) -> Known:
    """Sums over neighbouring blocks: [..., h + 4, w + 4] -> [..., h, w]. Eight times 15 fit an octet."""
    h, w = padded.shape[-2] - 4, padded.shape[-1] - 4
    return np.sum([padded[..., 2 + i : 2 + i + h, 2 + j : 2 + j + w] for i, j in offsets], axis=0, dtype=np.uint8)


def _added(known: Known, channels: NDArray[np.int64]) -> Known:
    return np.sum([known[row] for row in channels], axis=0, dtype=np.uint8)


def activity_of(hits: NDArray[np.integer], blocks: int) -> NDArray[np.uint8]:
    """One octet per band from the number of significant coefficients of every channel, block averages left out.

    [..., C] -> [..., C / 64]"""
    return _activity(hits.reshape(*hits.shape[:-1], -1, COEFFICIENTS)[..., 1:].sum(axis=-1), blocks)


def _activity(inner: NDArray[np.integer], blocks: int) -> NDArray[np.uint8]:
    return np.rint(2 * np.log2(1 + ACTIVITY_UNIT * inner / blocks)).astype(np.uint8)


def least_significant(blocks: int) -> NDArray[np.int32]:
    """How many significant coefficients a band has at least, block averages left out, at each activity from 0 on."""
    most = (COEFFICIENTS - 1) * blocks
    activities = np.arange(int(_activity(np.array(most), blocks)) + 1)
    low, high = np.zeros(len(activities), np.int32), np.full(len(activities), most, np.int32)
    while (low < high).any():
        middle = (low + high) // 2
        reached = _activity(middle, blocks) >= activities
        low, high = np.where(reached, low, middle + 1), np.where(reached, middle, high)
    return low
