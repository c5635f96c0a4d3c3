"""What applications count over an area of a tile: pixels that meet a formula, sums under a mask, sums over windows.

numpy defines it (`plain_sum`, `plain_window_sums` here, `Formula.of`); the kernel gives the same whole numbers in one
pass over the bands.
"""

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from payload.apps.formula import NARROW_DN, Formula, Test, Whole, parse
from payload.native import library
from payload.native.library import BOOL, I32, I64, NONE, U8, U16, call, span
from payload.scene import Dn, Mask

#: Top, left, height and width of an area in pixels of its tile.
Box = tuple[int, int, int, int]
Ints = NDArray[Any]
#: Longer programs are left to numpy; octets of an instruction's values in the kernel.
MOST_INSTRUCTIONS, SLOT_OCTETS = 1024, 8 * 256 + 64
#: What the kernel calls its instructions, in payload/native/apps.c.
BAND, CONSTANT, WIDEN, ADD, SUBTRACT, MULTIPLY, LESS, LESS_OR_EQUAL, EQUAL, AND, OR, NOT = range(12)
_SUMS = {"+": ADD, "-": SUBTRACT, "*": MULTIPLY}
#: A comparison as an instruction; whether its sides change places.
_COMPARE = {"<": (LESS, False), ">": (LESS, True), "<=": (LESS_OR_EQUAL, False), ">=": (LESS_OR_EQUAL, True),
            "==": (EQUAL, False)}  # fmt: skip


def masked_sum(plane: Dn, box: Box, mask: Mask) -> int:
    """Sum of a band [T, T] in an area where its mask [h, w] holds."""
    if not library.available:
        return plain_sum(_part(plane, box), mask)
    found = np.empty(1, np.int64)
    call("masked_sum", span(plane, U16), len(plane), *box, _octets(mask), span(found, I64))
    return int(found[0])


def plain_sum(values: Dn, mask: Mask) -> int:
    """As `masked_sum`, of the area [h, w]. A row fits 32 bits, which is four times as fast as all in 64."""
    return int((values * mask).sum(axis=1, dtype=np.uint32).sum(dtype=np.int64))


def window_sums(plane: Dn | None, box: Box, mask: Mask, reach_px: int) -> NDArray[np.int32]:
    """Sums over the window around each pixel of an area, as far as it lies inside, of a band [T, T] where the mask
    [h, w] holds; without a band: how many pixels these are. [h, w]"""
    if not library.available:
        return plain_window_sums(mask.view(np.uint8) if plane is None else _part(plane, box) * mask, reach_px)
    found = np.empty(mask.shape, np.int32)
    scratch = np.empty(2 * (box[3] + 2 * reach_px), np.int32)
    handed, size = (NONE, max(box[0] + box[2], box[1] + box[3])) if plane is None else (span(plane, U16), len(plane))
    call("window_sums", handed, size, *box, _octets(mask), reach_px, span(scratch, I32), span(found, I32))
    return found


def plain_window_sums(values: Ints, reach_px: int) -> NDArray[np.int32]:
    """As `window_sums`, of values [h, w] that are 0 where the mask does not hold.

    Zeros stand around, so that a step along a row or a column is one of the flat array. Sums of 2, 4, 8 and so on are
    made of each other: many times as fast as running sums.
    """
    height, width = values.shape
    stride, length = width + 2 * reach_px, 2 * reach_px + 1
    padded = np.zeros((height + 2 * reach_px, stride), np.int32)
    padded[reach_px : reach_px + height, reach_px : reach_px + width] = values
    sums = _runs(_runs(padded.ravel(), length, 1), length, stride)
    return np.pad(sums, (0, length - 1)).reshape(height, stride)[:, :width]


def _runs(values: Ints, length: int, step: int) -> Ints:
    """Sums of `length` numbers, an odd count, that lie `step` apart, from every place where so many are left."""
    places = len(values) - (length - 1) * step
    total, at, size = values[:places], step, 1
    while 2 * size <= length:
        values = values[: -size * step] + values[size * step :]
        size *= 2
        if length & size:
            total, at = total + values[at : at + places], at + size * step
    return total


def meets(formula: Formula, dn: Dn, places: tuple[int, ...], box: Box) -> Mask | None:
    """Where a formula holds in an area of a tile [B, T, T], its bands at `places`: as `Formula.of`. None where that has
    to find it: there is no kernel, or the formula is longer than the kernel takes."""
    if not library.available:
        return None
    is_dark = formula.is_wide and all(int(dn[place].max()) <= NARROW_DN for place in places)
    program = _program(formula.text, places, is_dark)
    if len(program) > MOST_INSTRUCTIONS:
        return None
    found, scratch = np.empty(box[2:], bool), np.empty(len(program) * SLOT_OCTETS, np.uint8)
    call(
        "formula", span(program, I64), len(program), span(np.ascontiguousarray(dn), U16), len(dn), dn.shape[-1],
        *box, span(scratch, U8), span(found, BOOL),
    )  # fmt: skip
    return found


@lru_cache(maxsize=64)
def _program(text: str, places: tuple[int, ...], is_dark: bool) -> NDArray[np.int64]:
    """Instructions [n, 4] of a formula in one spelling, its bands at these planes of a tile that may be dark."""
    formula = parse(text)
    compiler = _Compiler(dict(zip(formula.bands, places, strict=True)))
    compiler.test(formula.narrow if is_dark else formula.test)
    return np.array(list(compiler.code), np.int64)


class _Compiler:
    """A parsed test -> instructions, each once: what it does, whether its values have 64 bits, and of which two."""

    def __init__(self, places: dict[str, int]) -> None:
        self._places = places
        self.code: dict[tuple[int, int, int, int], int] = {}  # by instruction, in order: its number
        self._wide: list[bool] = []

    def _put(self, op: int, wide: bool, a: int, b: int = 0) -> int:
        key = op, int(wide), a, b
        if key not in self.code:
            self.code[key] = len(self.code)
            self._wide.append(wide and op < LESS)
        return self.code[key]

    def _whole(self, whole: Whole) -> int:
        if whole.op == "band":
            return self._put(BAND, False, self._places[whole.band])
        if whole.left is None or whole.right is None:
            return self._put(CONSTANT, whole.passes_32_bits, whole.constant)
        sides = self._whole(whole.left), self._whole(whole.right)
        return self._of_two(_SUMS[whole.op], *sides, whole.passes_32_bits)

    def _of_two(self, op: int, a: int, b: int, wide: bool = False) -> int:
        """In 64 bits where the result or a side needs them."""
        wide = wide or self._wide[a] or self._wide[b]
        return self._put(op, wide, *(self._widened(one) if wide else one for one in (a, b)))

    def _widened(self, at: int) -> int:
        return at if self._wide[at] else self._put(WIDEN, True, at, at)

    def test(self, test: Test) -> int:
        if test.op in ("and", "or", "not"):
            parts = [self.test(part) for part in test.parts]
            return self._put({"and": AND, "or": OR, "not": NOT}[test.op], False, parts[0], parts[-1])
        left, right, below = (self._whole(part) for part in test.parts)
        low, _ = test.parts[2].bounds
        straight = self._compared(test.op, left, right)
        if low > 0:
            return straight
        zero = self._put(CONSTANT, False, 0)
        straight = self._put(AND, False, straight, self._of_two(LESS, zero, below))
        if low == 0:
            return straight
        turned = self._of_two(AND, self._compared(test.op, right, left), self._of_two(LESS, below, zero))
        return self._put(OR, False, straight, turned)

    def _compared(self, op: str, left: int, right: int) -> int:
        if op == "!=":
            equal = self._of_two(EQUAL, left, right)
            return self._put(NOT, False, equal, equal)
        instruction, turned = _COMPARE[op]
        return self._of_two(instruction, *((right, left) if turned else (left, right)))


def _part(plane: Dn, box: Box) -> Dn:
    top, left, height, width = box
    return plane[top : top + height, left : left + width]


def _octets(mask: Mask) -> library.Span:
    return span(np.ascontiguousarray(mask), BOOL)
