"""What the cloud network says of a tile: probabilities per cell, and the two answers read from them.

The *mask* says which pixels are cloud (`cloudy`); the ground draws a user's from it (sim.clouds.outline). The *gate*
asks what may be withheld: `sure_fraction`. They have a threshold each, because their mistakes differ: a pixel of the
mask can be drawn again, a tile that was withheld is gone. So the gate hears a second witness that has learnt nothing:
a published rule on colour (payload.clouds.planes.witnessed) must find cloud there, too.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from payload.clouds.planes import averaged, hides_the_ground, witnessed
from payload.scene import Dn, Mask

CLASSES = ("clear", "thick", "thin", "shadow")
CLEAR, THICK, THIN, SHADOW = range(4)
#: In a raster of classes: a pixel without data.
NO_CLASS = 255

Parts = NDArray[np.float32]  # probabilities of CLASSES, [4, s, s, h, w]


@dataclass(frozen=True, eq=False)
class CloudCounts:
    """Cells of a tile: all of them, those that are cloud, thin cloud, and cloud beyond doubt to the network; which are
    cloud, in the network's order [s, s, h, w]; and what they were counted from, logits [4, s, s, h, w] and the table of
    their exponentials."""

    cells: int
    cloud: int
    thin: int
    sure: int
    is_cloudy: NDArray[np.bool_]
    logits: NDArray[np.int8]
    exponentials: NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class CloudMask:
    """What the network says about a tile: probabilities of CLASSES per cell; their sum is 1, or 0 unjudged.

    `parts` lies as the network gives it, s x s sub-cells of h x w positions: counting needs no other order, and most
    tiles are only counted. `cells` is the same as a picture. Where the kernel has counted, not even `parts` is needed.
    """

    probabilities: Parts | Callable[[], Parts]  # or how they are got
    valid: Mask  # [T, T]
    cloudy_above: float = 0.5
    sure_above: float = 0.5
    dn: Dn | None = None  # [B, T, T], what the second witness looks at; None: it is not asked
    counts: CloudCounts | None = None

    @cached_property
    def parts(self) -> Parts:
        """Probabilities in the network's order. [4, s, s, h, w]"""
        return self.probabilities() if callable(self.probabilities) else self.probabilities

    @cached_property
    def cells(self) -> NDArray[np.float32]:
        """Probabilities as a picture. [4, T / cell_px, T / cell_px]"""
        classes, s, _, h, w = self.parts.shape
        return np.ascontiguousarray(self.parts.transpose(0, 3, 1, 4, 2)).reshape(classes, h * s, w * s)

    @property
    def cell_px(self) -> int:
        return self.valid.shape[0] // (self.parts.shape[1] * self.parts.shape[3])

    @cached_property
    def probability(self) -> NDArray[np.float32]:
        """Cloud probability (thick + thin) of every pixel, between the cells' centres linear; 0 without data. [T, T]"""
        return interpolated(self.cells[THICK] + self.cells[THIN], self.cell_px) * self.valid

    @cached_property
    def cloudy(self) -> Mask:
        """Pixels of the cells taken for cloud, thick or thin: what `cloud_fraction` counts. [T, T]"""
        cells = self._cloud > self.cloudy_above if self.counts is None else self.counts.is_cloudy
        return self._pixels(_picture(cells)) & self.valid

    @cached_property
    def sure(self) -> Mask:
        """Pixels of the cells that are cloud beyond doubt, to network and second witness. [T, T]"""
        return self._pixels(_picture(self._sure)) & self.valid

    def closed(self, thin_too: bool = True) -> NDArray[np.bool_]:
        """Cells that are cloud beyond doubt to the network and the stricter witness, as a picture. [T / c, T / c]"""
        accused = self._cloud > self.sure_above
        cells = _picture(accused if thin_too else accused & ~self._thinner)
        return cells if self._sums is None else cells & hides_the_ground(self._sums)

    @property
    def cloud_fraction(self) -> float:
        """Share of the valid pixels that are cloud, thick or thin."""
        if self.counts is not None:
            return self.counts.cloud / self.counts.cells
        return self._share(self._cloud > self.cloudy_above)

    @property
    def thin_fraction(self) -> float:
        """Share of the valid pixels that are thin cloud."""
        if self.counts is not None:
            return self.counts.thin / self.counts.cells
        return self._share((self._cloud > self.cloudy_above) & self._thinner)

    @property
    def accused_fraction(self) -> float:
        """Share of the valid pixels that are cloud beyond doubt to the network alone: never below `sure_fraction`."""
        if self.counts is not None:
            return self.counts.sure / self.counts.cells
        return self._share(self._cloud > self.sure_above)

    @property
    def sure_fraction(self) -> float:
        """Share of the valid pixels that are cloud to network and second witness: what may cost the tile."""
        return self._share(self._sure)

    @property
    def sure_thin_fraction(self) -> float:
        """The part of `sure_fraction` that is thin cloud."""
        return self._share(self._sure & self._thinner)

    @cached_property
    def _cloud(self) -> NDArray[np.float32]:
        return np.asarray(self.parts[THICK] + self.parts[THIN])  # [s, s, h, w]

    @cached_property
    def _sure(self) -> NDArray[np.bool_]:
        accused = self._cloud > self.sure_above
        if self._sums is None:
            return accused
        _, s, _, h, w = self.parts.shape
        return accused & witnessed(self._sums).reshape(h, s, w, s).transpose(1, 3, 0, 2)  # in the order of `parts`

    @cached_property
    def _sums(self) -> NDArray[np.uint32] | None:
        """Four times the averages of the cells, as a picture [B, n, n]; None: the witness is not asked."""
        return None if self.dn is None else averaged(self.dn, self.valid, self.cell_px)[0]

    @cached_property
    def _thinner(self) -> NDArray[np.bool_]:
        return np.asarray(self.parts[THIN] > self.parts[THICK])

    @cached_property
    def _valid_px(self) -> NDArray[np.int64] | None:
        """Valid pixels of each cell in the order of `parts`; None where all are."""
        if self.valid.all():
            return None
        _, s, _, h, w = self.parts.shape
        c = self.cell_px
        return self.valid.reshape(h, s, c, w, s, c).sum(axis=(2, 5)).transpose(1, 3, 0, 2)

    def _share(self, chosen: NDArray[np.bool_]) -> float:
        if self._valid_px is None:
            return np.count_nonzero(chosen) / chosen.size
        total = int(self._valid_px.sum())
        return float(self._valid_px[chosen].sum() / total) if total else 0.0

    def _pixels(self, cells: NDArray[Any]) -> NDArray[Any]:
        cell_px = self.valid.shape[0] // len(cells)
        return cells.repeat(cell_px, axis=1).repeat(cell_px, axis=0)  # short rows first: three times as fast


def _picture(parts: NDArray[Any]) -> NDArray[Any]:
    """Cells in the network's order [s, s, h, w] as a picture. [h s, w s]"""
    s, _, h, w = parts.shape
    return parts.transpose(2, 0, 3, 1).reshape(h * s, w * s)


def interpolated(cells: NDArray[np.float32], cell_px: int) -> NDArray[np.float32]:
    """Cells -> pixels, linear between the cells' centres, constant beyond the outermost. [n, n] -> [n c, n c]"""
    size = cells.shape[0]
    place = (np.arange(size * cell_px) + 0.5) / cell_px - 0.5
    low = np.clip(np.floor(place).astype(np.int64), 0, max(0, size - 2))
    high = np.minimum(low + 1, size - 1)
    share = np.clip(place - low, 0.0, 1.0).astype(np.float32)
    rows = cells[low] * (1 - share)[:, None] + cells[high] * share[:, None]
    return rows[:, low] * (1 - share) + rows[:, high] * share


def grown(pixels: Mask, radius_px: float) -> Mask:
    """Pixels at most `radius_px` from a set one. [T, T]"""
    reach = int(radius_px)
    if reach == 0:
        return pixels
    height, width = pixels.shape
    sums = np.pad(np.pad(pixels, reach).astype(np.int32).cumsum(axis=1, dtype=np.int32), ((0, 0), (1, 0)))
    found = np.zeros_like(pixels)
    for row in range(-reach, reach + 1):
        half = int((radius_px**2 - row**2) ** 0.5)
        line = sums[reach + row :][:height]
        found |= line[:, reach + half + 1 :][:, :width] > line[:, reach - half :][:, :width]
    return found
