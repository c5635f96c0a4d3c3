"""What block averages tell of the slopes inside their blocks, for bundles whose codec table says `averages_tell`.

A picture that is smooth on the scale of blocks, as maps of planets enlarge it near the poles, rises through a block as
it does from block to block: its lowest odd functions, channel 1 across and channel 8 down, follow from the averages of
the four blocks in line. What those tell is taken away before quantisation, and added again from the decoded averages:

    told = (12 (a[+2] - a[-2]) - 36 (a[+1] - a[-1])) / 256        beyond the tile the averages at its edge

A lifting step: an error of the averages comes back in a slope a fifth as large. The weights were fitted on such maps;
elsewhere slopes hardly follow, and what is taken away costs next to nothing (docs/codec.md).
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

#: Weights of the blocks one and two away, in 2^-SLOPE_BITS.
ONE_AWAY, TWO_AWAY, SLOPE_BITS = -36, 12, 8
#: Channel of a slope, and along which axis of [B, h, w] it looks.
SLOPES = ((1, 2), (8, 1))


def take_away(sums: NDArray[np.int32]) -> None:
    """From the sums of the transform [B, 64, h, w], in place, before the second level goes over the averages."""
    averages = sums[:, 0].astype(np.int64)
    for channel, axis in SLOPES:
        told = (_told(averages, axis) + (1 << SLOPE_BITS - 1)) >> SLOPE_BITS
        sums[:, channel] -= told.astype(np.int32)


def put_back(levels: NDArray[np.float32]) -> None:
    """To levels [B, 64, h, w], in place, their averages as before the second level."""
    for channel, axis in SLOPES:
        levels[:, channel] += _told(levels[:, 0], axis) * np.float32(2.0**-SLOPE_BITS)


def put_back_whole(levels: NDArray[np.float64]) -> None:
    """`put_back` for levels of whole numbers, rounded to such: exact."""
    for channel, axis in SLOPES:
        levels[:, channel] += np.floor(_told(levels[:, 0], axis) * 2.0**-SLOPE_BITS + 0.5)


def _told(averages: NDArray[Any], axis: int) -> NDArray[Any]:
    """In 2^-SLOPE_BITS, [B, h, w]."""
    count = averages.shape[axis]
    places = np.arange(count)

    def away(blocks: int) -> NDArray[Any]:
        return np.take(averages, np.clip(places + blocks, 0, count - 1), axis)

    found: NDArray[Any] = ONE_AWAY * (away(1) - away(-1)) + TWO_AWAY * (away(2) - away(-2))
    return found
