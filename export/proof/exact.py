"""Exact arithmetic of quantised networks: integers times a power of two.

`Fixed` is what lies between two nodes of a power-of-two-scaled network. Nothing here rounds except `shift_half_even`.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from payload.errors import InputError

Integers = NDArray[np.int64]
#: Largest sum of products that IEEE doubles hold exactly: lets BLAS do integer sums without a rounding error.
EXACT_DOUBLE = 2**53


@dataclass(frozen=True, eq=False)
class Fixed:
    """value = q x 2^exponent; `exponent` int64, one number or broadcastable per channel ([1, C, 1, 1])."""

    q: Integers
    exponent: Any

    def to_float32(self) -> NDArray[np.float32]:
        return np.ldexp(self.q.astype(np.float64), self.exponent).astype(np.float32)


def shift_half_even(q: Integers, shift: Integers) -> Integers:
    """q x 2^-shift rounded half to even; a negative shift multiplies."""
    left = shift_left(q, np.maximum(-shift, 0))
    down = np.clip(shift, 0, 62)
    floor = np.right_shift(left, down)
    rest = left - np.left_shift(floor, down)
    half = np.where(down > 0, np.left_shift(np.int64(1), np.maximum(down - 1, 0)), np.int64(1))
    up = (down > 0) & ((rest > half) | ((rest == half) & (floor & 1 == 1)))
    return floor + up


def shift_left(q: Integers, by: Any) -> Integers:
    """q x 2^by. InputError where that leaves 64 bits: values this far apart are no quantised network."""
    bits = int(np.abs(q).max(initial=0)).bit_length() + int(np.max(by, initial=0))
    if bits > 62 and np.any(q):
        raise InputError(
            f"values span {bits} bits in the integer reference, at most 62 fit; check the network's scales"
        )
    return np.left_shift(q, by)


def product(a: Integers, b: Integers) -> Integers:
    """a x b, element by element. InputError where that leaves 64 bits."""
    bits = sum(int(np.abs(x).max(initial=0)).bit_length() for x in (a, b))
    if bits > 62:
        raise InputError(f"a product takes {bits} bits in the integer reference, at most 62 fit; quantise before it")
    return a * b


def exponent_of(scale: NDArray[Any], where: str) -> Integers:
    """log2 of power-of-two scales. InputError if one is not a power of two."""
    mantissa, exponent = np.frexp(np.asarray(scale, np.float64))
    if not np.all(mantissa == 0.5):
        bad = float(np.asarray(scale, np.float64).ravel()[int(np.argmax((mantissa != 0.5).ravel()))])
        raise InputError(f"{where}: scale {bad:.9g} is not a power of two; export with power-of-two scales")
    return exponent.astype(np.int64) - 1


def fixed(value: Any, where: str) -> Fixed:
    """A value as Fixed: float constants become their exact dyadic form."""
    if isinstance(value, Fixed):
        return value
    array = np.asarray(value)
    if array.dtype.kind in "iub":
        return Fixed(array.astype(np.int64), np.int64(0))
    exponent = np.frexp(array.astype(np.float64))[1]
    low = int((exponent - 24)[array != 0].min()) if np.any(array != 0) else 0
    scaled = np.ldexp(array.astype(np.float64), -low)
    if not np.all(np.abs(scaled) < EXACT_DOUBLE):
        raise InputError(f"{where}: constants span too many octaves for the integer reference")
    q, twos = scaled.astype(np.int64), 0
    while np.any(q) and twos < 48 and not np.any(q & 1):
        q, twos = q >> 1, twos + 1
    return Fixed(q, np.int64(low + twos))


def align(a: Fixed, b: Fixed) -> tuple[Integers, Integers, Integers]:
    """Both on the finer of the two steps: qa, qb, exponent."""
    exponent = np.minimum(a.exponent, b.exponent)
    return shift_left(a.q, a.exponent - exponent), shift_left(b.q, b.exponent - exponent), exponent


def matrix_product(a: Integers, b: Integers) -> Integers:
    """[.., m, k] @ [.., k, n] in integers. Doubles do the sums: below 2^53 every one of them is exact."""
    bound = int(np.abs(a).max(initial=0)) * int(np.abs(b).max(initial=0)) * a.shape[-1]
    if bound >= 2**63:
        raise InputError("a sum of products leaves 64 bits in the integer reference; quantise before it")
    if bound >= EXACT_DOUBLE:
        return a @ b
    return (a.astype(np.float64) @ b.astype(np.float64)).astype(np.int64)
