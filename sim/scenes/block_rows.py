"""Windows of a file -> whole rows of its blocks, so that none is decoded twice while strips pass from top to bottom.

A Sentinel-2 image has JPEG 2000 tiles of 1024 px: four strips of 256 px lie in one row of them. Relying on GDAL's own
own cache for this fails at a cliff: writers share it, and one block too many makes every strip decode all again.
"""

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

#: Samples as a file stores them.
Samples = NDArray[Any]

#: Blocks lower than this are read by several rows at once: a file stored line by line is not asked for single lines.
#: Of a line of many bands fewer rows are, so that what is read at once holds no more samples than this.
LOWEST_PX, MOST_SAMPLES = 256, 1 << 24


def unit_px(block_height_px: int, samples_a_line: int = 0) -> int:
    """Rows that are read at once from a file with blocks of this height, whose lines hold so many samples."""
    wanted = min(LOWEST_PX, max(1, MOST_SAMPLES // max(samples_a_line, 1)))
    return block_height_px * -(-wanted // block_height_px)


class Bands(Protocol):
    """What is needed of an open raster file."""

    shape: Any
    block_shapes: Any
    dtypes: Any

    def read(self, indexes: Any, window: Any) -> Any: ...


@dataclass(frozen=True, eq=False)
class _Row:
    left_px: int
    right_px: int
    values: Samples  # [b, unit, right - left]


class BlockRows:
    """Reads windows of some bands. Holds the rows of blocks that the last window touched, as wide as it was."""

    def __init__(self, file: Bands, indexes: tuple[int, ...]) -> None:
        self._file = file
        self._indexes = list(indexes)
        self._height_px, self._width_px = file.shape
        height, self._block_width_px = (max(sides) for sides in zip(*file.block_shapes, strict=True))
        self._unit_px = unit_px(height, self._width_px * len(indexes))
        self._dtype = np.result_type(*(file.dtypes[index - 1] for index in indexes))
        self._rows: dict[int, _Row] = {}

    def read(self, row_px: int, col_px: int, height_px: int, width_px: int) -> Samples:
        """Samples [b, h, w] as stored, the caller's own to change."""
        window = np.empty((len(self._indexes), height_px, width_px), self._dtype)
        needed = range(row_px // self._unit_px, (row_px + height_px - 1) // self._unit_px + 1)
        self._rows = {number: row for number, row in self._rows.items() if number in needed}
        for number in needed:
            row = self._row(number, col_px, col_px + width_px)
            top = number * self._unit_px
            first, end = max(row_px, top), min(row_px + height_px, top + self._unit_px)
            cols = slice(col_px - row.left_px, col_px - row.left_px + width_px)
            window[:, first - row_px : end - row_px] = row.values[:, first - top : end - top, cols]
        return window

    def _row(self, number: int, left_px: int, right_px: int) -> _Row:
        held = self._rows.pop(number, None)
        if held is None or left_px < held.left_px or right_px > held.right_px:
            held = None  # let go of it before the next one is read
            left = left_px // self._block_width_px * self._block_width_px
            right = min(self._width_px, -(-right_px // self._block_width_px) * self._block_width_px)
            rows = number * self._unit_px, min(self._height_px, (number + 1) * self._unit_px)
            held = _Row(left, right, self._file.read(self._indexes, window=(rows, (left, right))))
        self._rows[number] = held
        return held
