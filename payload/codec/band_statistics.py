"""What the bands of a tile have in common: exact sums, the same on every machine, on which a rotation is fitted.

A rotation fitted on values decorrelates what is large: the level of whole fields. What costs octets is detail. Fitted
on differences between pixels a little apart it decorrelates that instead. It matters most where bands differ in
sharpness: of twelve bands on one grid, those of 20 and 60 m have no detail of their own.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from payload.scene import Dn, Mask

#: How far apart the pixels of a difference are where a bundle does not say: 3 and 4 px gain the most on four bands.
DISTANCE_PX = 4
#: Every so many-th line is looked at for differences.
DIFFERENCE_LINES = 4
#: A difference of more is taken as this: it fits 16 bits with its sign.
DIFFERENCE_LIMIT = 32767
#: The largest distance there is between two pixels of a difference.
MOST_DISTANCE_PX = 32


@dataclass(frozen=True, eq=False)
class Statistics:
    """Exact sums over the valid pixels of a tile: all that a rotation is fitted on."""

    count: int
    sums: tuple[int, ...]  # [B]
    products: NDArray[np.int64] | None  # [B, B], of values; None where those of differences are there
    least: tuple[int, ...]  # of all pixels, [B]
    most: tuple[int, ...]
    differences: NDArray[np.int64] | None = None  # [B, B], products of differences

    def covariance(self) -> NDArray[np.float64]:
        """[B, B] f64, but for a factor: of differences where they are known, else of values."""
        if self.differences is not None:
            return self.differences.astype(np.float64)
        if self.products is None:
            raise ValueError("statistics hold products of neither values nor differences")
        bands, n, sums = range(len(self.sums)), self.count, self.sums
        return np.array([[float(n * int(self.products[i, j]) - sums[i] * sums[j]) for j in bands] for i in bands])


def statistics(dn: Dn, valid: Mask, distance_px: int = 0) -> Statistics:
    """Statistics of a tile dn [B, T, T]. `distance_px`: between the pixels of a difference, 0: those of values."""
    bands = dn.shape[0]
    chosen = dn[:, valid] if not valid.all() else dn.reshape(bands, -1)
    least, most = (tuple(int(band) for band in edge) for edge in (dn.min(axis=(1, 2)), dn.max(axis=(1, 2))))
    sums = tuple(int(s) for s in chosen.sum(axis=1, dtype=np.int64))
    differences = difference_products(dn, valid, distance_px) if distance_px else None
    products = None
    if differences is None:
        pixels = chosen.astype(np.float64)
        products = (pixels @ pixels.T).astype(np.int64)  # exact: every partial sum is an integer below 2^53
    return Statistics(chosen.shape[1], sums, products, least, most, differences)


def difference_products(dn: Dn, valid: Mask, distance_px: int) -> NDArray[np.int64] | None:
    """Products [B, B] of differences along rows and columns, both pixels valid. None where nothing differs."""
    d, lines, found = distance_px, slice(None, None, DIFFERENCE_LINES), np.zeros((len(dn), len(dn)))
    down = dn[:, d:][:, lines], dn[:, :-d][:, lines], (valid[d:] & valid[:-d])[lines]
    right = dn[:, lines, d:], dn[:, lines, :-d], valid[lines, d:] & valid[lines, :-d]
    for there, here, known in (right, down):
        apart = there[:, known].astype(np.float64) - here[:, known]
        apart = np.clip(apart, -DIFFERENCE_LIMIT, DIFFERENCE_LIMIT)
        found += apart @ apart.T  # exact, as above
    return found.astype(np.int64) if found.any() else None
