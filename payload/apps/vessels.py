"""Vessel candidates: small bright targets on open water.

    near infrared above the mean of the water around by the threshold -> few such pixels, much water around -> target

Water is dark in the near infrared and vessels are not. What else is small and bright on water (buoys, rocks, foam,
small clouds that the mask misses) is found, too: hence candidates. Sums over windows, in whole numbers. What costs
little comes first: most tiles hold no pixel that is bright enough and lies in water.
"""

from collections.abc import Iterator, Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from payload.apps import index_app
from payload.apps.formula import parse
from payload.apps.indicators import VESSEL
from payload.apps.interface import Finding, Need, View
from payload.apps.settings import AppSettings
from payload.bundle import Bundle
from payload.engine import Engine
from payload.errors import InputError
from payload.link.app_record import PARTS
from payload.scene import Mask

WATER = parse(index_app.WATER)
I32 = NDArray[np.int32]
#: The window around a pixel reaches so far; two targets are so far apart at least.
REACH_PX, APART_PX = 10, 6
#: A target is no longer than this, as far as it is bright, and so many per cent of its window are water.
LONGEST_PX, LEAST_WATER_PERCENT = 10, 90
#: Targets of one area, the brightest first: more are no ships but waves, ice or cloud.
MOST_TARGETS = 16
#: An area with fewer pixels of water holds no target.
LEAST_WATER_PX = 200


class VesselCandidates:
    """Contrast in the near infrared of every target, in reflectance."""

    indicator = VESSEL
    needs: frozenset[Need] = frozenset({"mask"})
    identity = f"nir contrast 1 {WATER.text} {REACH_PX} {APART_PX} {LONGEST_PX} {LEAST_WATER_PERCENT} {MOST_TARGETS}"
    default_threshold = 0.05
    macs_per_px = 32.0

    def __init__(self, settings: AppSettings, bundle: Bundle, engine: Engine | None) -> None:
        if settings.formula is not None:
            raise InputError('app vessels has a rule of its own; take formula out, or app = "index"')
        bundle.sensor.place_of("green")
        bundle.sensor.place_of("nir")
        threshold = self.default_threshold if settings.threshold is None else settings.threshold
        self._least = round(PARTS * threshold)
        self.memory_octets = 40 * bundle.tile_px**2

    def look(self, view: View) -> Sequence[Finding]:
        clear, nir = view.clear, view.plane("nir")
        view.meter.charge(self.macs_per_px * clear.size, self.memory_octets)
        water = clear & view.meets(WATER)
        seen = int(np.count_nonzero(water))
        if seen < LEAST_WATER_PX:
            return []
        bright = clear & (nir >= int(nir.min()) + self._least)  # no water is darker than the darkest pixel
        for edge in (np.s_[:APART_PX], np.s_[-APART_PX:], np.s_[:, :APART_PX], np.s_[:, -APART_PX:]):
            bright[edge] = False  # of what is cut by the edge nobody knows how large it is
        if not bright.any():
            return []
        count = view.around(water, REACH_PX)
        bright &= count >= least_water(water.shape)
        return list(self._targets(view, bright, water, count)) if bright.any() else []

    def _targets(self, view: View, bright: Mask, water: Mask, count: I32) -> Iterator[Finding]:
        """Those of the bright pixels, in water for the most part, that stand out of it far enough."""
        at = np.divmod(np.flatnonzero(bright), bright.shape[1])
        sums = view.around(water, REACH_PX, "nir")
        contrast, share = np.zeros_like(count), np.zeros_like(count)
        contrast[at] = view.plane("nir")[at] - sums[at] // count[at]  # above the mean of the water around, in DN
        bright[at] = contrast[at] >= self._least
        share[at] = 100 * count[at] // window_areas(bright.shape)[at]
        yield from _targets(bright, contrast, share, view.clear, int(np.count_nonzero(water)))

    def value(self, counts: tuple[int, ...], seen: int, ndvi: float | None) -> int:
        return counts[0]


@lru_cache(maxsize=4)
def least_water(shape: tuple[int, ...]) -> I32:
    """Pixels of water that the window around each pixel of a target holds at least. [h, w]"""
    return -(-LEAST_WATER_PERCENT * window_areas(shape) // 100)


def window_areas(shape: tuple[int, ...], reach_px: int = REACH_PX) -> I32:
    """Pixels of the window around each pixel, as far as it lies inside. [h, w]"""
    lengths = []
    for size in shape:
        place = np.arange(size, dtype=np.int32)
        lengths.append(np.minimum(place + reach_px + 1, size) - np.maximum(place - reach_px, 0))
    return np.multiply.outer(*lengths)


def _targets(bright: Mask, contrast: I32, share: I32, clear: Mask, seen: int) -> Iterator[Finding]:
    """The brightest pixel, then the brightest of those that lie apart from it, and so on; of equals the first. What
    reaches out of its surroundings is a shore or a cloud, and so is what has cloud beside it."""
    left = contrast * bright
    for _ in range(MOST_TARGETS):
        row, col = divmod(int(left.argmax()), left.shape[1])
        height = int(left[row, col])
        if height <= 0:
            return
        near = slice(max(row - APART_PX, 0), row + APART_PX + 1), slice(max(col - APART_PX, 0), col + APART_PX + 1)
        around = slice(max(row - REACH_PX, 0), row + REACH_PX + 1), slice(max(col - REACH_PX, 0), col + REACH_PX + 1)
        box = _box(bright[near], near)
        left[near] = 0
        if max(box[2:]) <= LONGEST_PX and clear[around].all():
            yield Finding((height,), seen, box, int(share[row, col]))


def _box(bright: Mask, near: tuple[slice, slice]) -> tuple[int, int, int, int]:
    """Top, left, height and width of what is bright."""
    rows, cols = np.flatnonzero(bright.any(axis=1)), np.flatnonzero(bright.any(axis=0))
    top, left = near[0].start + int(rows[0]), near[1].start + int(cols[0])
    return top, left, int(rows[-1] - rows[0]) + 1, int(cols[-1] - cols[0]) + 1
