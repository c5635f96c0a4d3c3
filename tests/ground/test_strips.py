"""Rows of blocks: what is read equals the file, and a file read in strips is read once."""

from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from sim.scenes.block_rows import MOST_SAMPLES, BlockRows, unit_px


class CountingFile:
    """Bands in memory that count how often each pixel is read."""

    def __init__(self, height: int, width: int, block: tuple[int, int]) -> None:
        self.shape = (height, width)
        self.block_shapes = [block] * 3
        self.dtypes = ["uint16"] * 3
        self.values = np.random.default_rng(1).integers(0, 65536, (3, height, width)).astype(np.uint16)
        self.reads = np.zeros((height, width), int)

    def read(self, indexes: list[int], window: Any) -> np.ndarray:
        (top, bottom), (left, right) = window
        assert top % self.block_shapes[0][0] == 0 and left % self.block_shapes[0][1] == 0, "not on the block's grid"
        self.reads[top:bottom, left:right] += 1
        return self.values[[index - 1 for index in indexes], top:bottom, left:right]


@settings(max_examples=60, deadline=None)
@given(
    height=st.integers(1, 900), width=st.integers(1, 300), strip=st.integers(1, 400),
    block=st.sampled_from([(1, 300), (64, 64), (256, 128), (300, 300), (512, 40), (1024, 1024)]),
)  # fmt: skip
def test_a_file_read_in_strips_is_read_once(height: int, width: int, strip: int, block: tuple[int, int]) -> None:
    file = CountingFile(height, width, block)
    rows = BlockRows(file, (3, 1))
    strips = [rows.read(row, 0, min(strip, height - row), width) for row in range(0, height, strip)]
    assert (np.concatenate(strips, axis=1) == file.values[[2, 0]]).all()
    assert (file.reads == 1).all()


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_windows_in_any_order_equal_the_file(data: st.DataObject) -> None:
    file = CountingFile(700, 500, (256, 128))
    rows = BlockRows(file, (1, 2, 3))
    for _ in range(4):
        row, col = data.draw(st.integers(0, 699)), data.draw(st.integers(0, 499))
        height, width = data.draw(st.integers(1, 700 - row)), data.draw(st.integers(1, 500 - col))
        window = rows.read(row, col, height, width)
        assert (window == file.values[:, row : row + height, col : col + width]).all()
        window[:] = 0  # the caller may do so


def test_no_more_is_held_than_the_window_touched() -> None:
    file = CountingFile(5000, 50, (256, 50))
    rows = BlockRows(file, (1,))
    for row in range(0, 4900, 100):
        rows.read(row, 0, 100, 50)
        assert len(rows._rows) <= 2


def test_fewer_lines_of_many_bands_are_read_at_once() -> None:
    assert unit_px(1, 4 * 10_980) == 256
    assert 0 < unit_px(1, 200 * 1000) * 200 * 1000 <= MOST_SAMPLES
    assert unit_px(1, 512 * 100_000) == 1 and unit_px(64, 200 * 1000) == 128  # whole rows of blocks
