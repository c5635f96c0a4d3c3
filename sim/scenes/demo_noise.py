"""Seeded noise on integer lattices -> smooth fields and hashes: the raw material of the generated scene.

Every value is a pure function of (salt, absolute pixel), so any window of a field equals that part of the whole. Only
integers and + - * / and square roots are used (no sin, exp or matrix product, whose last bit differs between machines):
a generated scene has the same octets everywhere.
"""

from ctypes import c_float
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from payload.native import library
from payload.native.library import call
from payload.native.library import span as span_of

F32 = NDArray[np.float32]
U32 = NDArray[np.uint32]

#: Standard deviation of a cubic B-spline field whose coefficients are uniform on [-1, 1]: (1/3)^(1/2) x 151/315.
SPLINE_STD = 0.2768


@dataclass(frozen=True)
class Span:
    """A window of the endless pixel plane; may begin at negative pixels."""

    row_px: int
    col_px: int
    height_px: int
    width_px: int

    def grown(self, margin_px: int) -> "Span":
        return Span(
            self.row_px - margin_px,
            self.col_px - margin_px,
            self.height_px + 2 * margin_px,
            self.width_px + 2 * margin_px,
        )

    def moved(self, rows_px: int, cols_px: int) -> "Span":
        return Span(self.row_px + rows_px, self.col_px + cols_px, self.height_px, self.width_px)


@dataclass(frozen=True)
class Octaves:
    """Wavelengths of a field. `amplitudes[k]` is the standard deviation of wavelength 2^k px; 0 leaves it out."""

    salt: int
    amplitudes: tuple[float, ...]

    @classmethod
    def between(cls, salt: int, gsd_m: float, longest_m: float, shortest_m: float, gain: float = 0.5) -> "Octaves":
        """Amplitude 1 at `longest_m`, `gain` times that at each halving down to `shortest_m` or one pixel."""
        first = max(1, round_log2(longest_m / gsd_m))
        last = max(0, min(first, round_log2(shortest_m / gsd_m)))
        return cls(salt, tuple(0.0 if k < last else gain ** (first - k) for k in range(first + 1)))

    def longer_than(self, wavelength_px: float) -> "Octaves":
        """The same field without its fine octaves."""
        return Octaves(self.salt, tuple(a if 2**k > wavelength_px else 0.0 for k, a in enumerate(self.amplitudes)))


def round_log2(value: float) -> int:
    """Nearest whole power of two of a positive number, by comparison, not by a logarithm."""
    power = 0
    while 2.0**power * 1.4142135623730951 < value:
        power += 1
    return power


def hash_lattice(salt: int, rows: NDArray[np.integer], cols: NDArray[np.integer]) -> U32:
    """One well mixed uint32 for each (row, col), broadcast; negative coordinates are welcome."""
    mixed = (rows.astype(np.uint32) * np.uint32(0x9E3779B1)) + (cols.astype(np.uint32) * np.uint32(0x85EBCA77))
    mixed ^= np.uint32(mixed_salt(salt))
    for shift, factor in ((15, 0x2C1B3C6D), (12, 0x297A2D39)):
        mixed ^= mixed >> np.uint32(shift)
        mixed *= np.uint32(factor)
    mixed ^= mixed >> np.uint32(15)
    return mixed


def unit(hashed: U32, byte: int = 0) -> F32:
    """Hash -> float32 in [0, 1) from 16 of its bits; `byte` 0, 1 or 2 chooses which."""
    return ((hashed >> np.uint32(8 * byte)) & np.uint32(0xFFFF)).astype(np.float32) * np.float32(2**-16)


def field(octaves: Octaves, span: Span) -> F32:
    """Smooth noise float32 [h, w]: cubic B-splines over hashed lattices, coarse to fine by subdivision.

    By the kernel where it was built. Each step doubles the lattice (mask 1 4 6 4 1 over 8, exact for uniform cubic
    B-splines) and adds the next octave's coefficients, so all octaves together cost little more than the finest alone.
    """
    if library.available:
        return _by_kernel(octaves, span)
    levels = len(octaves.amplitudes)
    ranges = [((span.row_px, span.row_px + span.height_px), (span.col_px, span.col_px + span.width_px))]
    for _ in range(1, levels):
        (top, bottom), (left, right) = ranges[-1]
        ranges.append((_parents(top, bottom), _parents(left, right)))
    coefficients: F32 | None = None
    for level in reversed(range(levels)):
        rows, cols = ranges[level]
        if coefficients is not None:
            (top, _), (left, _) = ranges[level + 1]
            coefficients = _subdivide_rows(_subdivide_cols(coefficients, left, cols), top, rows)
        amplitude = octaves.amplitudes[level]
        if amplitude or coefficients is None:
            fresh = _lattice(octaves.salt * 64 + level, rows, cols, amplitude)
            coefficients = fresh if coefficients is None else coefficients + fresh
    if coefficients is None:
        raise ValueError("no octaves")
    return np.ascontiguousarray(coefficients)


def _by_kernel(octaves: Octaves, span: Span) -> F32:
    levels, size = len(octaves.amplitudes), (span.height_px, span.width_px)
    salts = np.array([mixed_salt(octaves.salt * 64 + level) for level in range(levels)], np.uint32)
    amplitudes = np.array([amplitude / SPLINE_STD for amplitude in octaves.amplitudes], np.float32)
    beyond, found = 8, np.empty(size, np.float32)  # nodes that coarse lattices may reach further than the window
    scratch = np.empty((3 * (size[0] + beyond) + 2) * (size[1] + beyond), np.float32)
    given = span_of(salts, library.U32), span_of(amplitudes, library.F32), levels, span.row_px, span.col_px, *size
    call("noise", *given, span_of(scratch, library.F32), span_of(found, library.F32))
    return found


def mixed_salt(salt: int) -> int:
    """A salt as lattices are hashed with."""
    return (salt * 0x27D4EB2F + 0x165667B1) & 0xFFFFFFFF


def _lattice(salt: int, rows: tuple[int, int], cols: tuple[int, int], amplitude: float) -> F32:
    hashed = hash_lattice(salt, np.arange(*rows)[:, None], np.arange(*cols)[None, :])
    signed = (hashed >> np.uint32(8)).astype(np.float32) * np.float32(2**-23) - np.float32(1)  # [-1, 1)
    return signed * np.float32(amplitude / SPLINE_STD)


def _parents(first: int, end: int) -> tuple[int, int]:
    """Range of the coarse lattice that nodes first..end-1 of the fine one are made from."""
    return first // 2 - 1, (end - 1) // 2 + 2


def _subdivide_rows(coarse: F32, first: int, fine: tuple[int, int]) -> F32:
    """Doubles the lattice down the rows. coarse [n, m] begins at node `first`; gives nodes fine[0]..fine[1]-1."""
    middle = coarse[1:-1]
    both = np.empty((2 * len(middle), coarse.shape[1]), np.float32)
    both[0::2] = (coarse[:-2] + coarse[2:] + np.float32(6) * middle) * np.float32(0.125)
    both[1::2] = (middle + coarse[2:]) * np.float32(0.5)
    start = fine[0] - 2 * (first + 1)
    return both[start : start + fine[1] - fine[0]]


def _subdivide_cols(coarse: F32, first: int, fine: tuple[int, int]) -> F32:
    """The same along the columns."""
    middle = coarse[:, 1:-1]
    both = np.empty((coarse.shape[0], 2 * middle.shape[1]), np.float32)
    both[:, 0::2] = (coarse[:, :-2] + coarse[:, 2:] + np.float32(6) * middle) * np.float32(0.125)
    both[:, 1::2] = (middle + coarse[:, 2:]) * np.float32(0.5)
    start = fine[0] - 2 * (first + 1)
    return both[:, start : start + fine[1] - fine[0]]


def smoothstep(value: F32, low: float, high: float) -> F32:
    """0 below low, 1 above high, a cubic between."""
    times = np.float32(1 / (high - low))
    if library.available:
        return _smoothstep_by_kernel(value, low, times)
    t = np.clip((value - np.float32(low)) * times, np.float32(0), np.float32(1))
    return t * t * (np.float32(3) - np.float32(2) * t)


def _smoothstep_by_kernel(value: F32, low: float, times: np.float32) -> F32:
    given = np.ascontiguousarray(value, np.float32)
    found = np.empty_like(given)
    both = span_of(given, library.F32), span_of(found, library.F32)
    call("smoothstep", both[0], c_float(low), c_float(float(times)), given.size, both[1])
    return found


@dataclass(frozen=True, eq=False)
class Jittered:
    """A grid of points, one somewhere in each cell. east, south float32 [rows, cols], in cells; `first`: row and column
    of the first cell; `scale` cells a metre."""

    east: F32
    south: F32
    first: tuple[float, float]
    scale: float

    def nearest(self, x: F32, y: F32) -> NDArray[np.intp]:
        """Place [h, w] in the flat grid of the point nearest to each x, y in metres, by the four cells around it."""
        if library.available:
            return self._by_kernel(x, y)
        gx, gy = x * np.float32(self.scale), y * np.float32(self.scale)
        row, col = (np.floor(at - np.float32(0.5)) - np.float32(n) for at, n in zip((gy, gx), self.first, strict=True))
        corner = (row * np.float32(self.east.shape[1]) + col).astype(np.intp)
        best, owner = np.full(gx.shape, np.float32(9), np.float32), corner
        for step in (0, 1, self.east.shape[1], self.east.shape[1] + 1):
            cell = corner + step
            right, down = np.take(self.east, cell) - gx, np.take(self.south, cell) - gy
            distance = right * right + down * down
            owner = np.where(distance < best, cell, owner)
            np.minimum(best, distance, out=best)
        return owner

    def _by_kernel(self, x: F32, y: F32) -> NDArray[np.intp]:
        found = np.empty(x.shape, np.int32)
        arrays = [span_of(np.ascontiguousarray(part), library.F32) for part in (x, y, self.east, self.south)]
        first = span_of(np.array(self.first, np.float32), library.F32)
        call("nearest", *arrays, first, c_float(self.scale), *self.east.shape, x.size, span_of(found, library.I32))
        return found.astype(np.intp)


def gaussian_like(words: NDArray[np.uint64]) -> F32:
    """Random words uint64 [n] -> float32 [2 n], mean 0, deviation 1: four octets of each half added, kurtosis 2.7."""
    pairs = (words & np.uint64(0x00FF00FF00FF00FF)) + ((words >> np.uint64(8)) & np.uint64(0x00FF00FF00FF00FF))
    sums = (pairs & np.uint64(0x0000FFFF0000FFFF)) + ((pairs >> np.uint64(16)) & np.uint64(0x0000FFFF0000FFFF))
    lanes = sums.astype("<u8").view("<u4").astype(np.float32)
    return (lanes - np.float32(510)) * np.float32(1 / 147.8005)
