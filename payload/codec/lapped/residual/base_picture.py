"""Indices -> the base picture in DN, in integers alone: what the residual layer is counted from on both sides.

The same steps as the ground's own decoder, `payload/codec/lapped/synthesis.py`, each rounded where that says: levels in
64ths of a step, functions in 2^-14, rotated values and companded ones in sixteenths. Sums of products are taken in
doubles, which hold them exactly: below 2^53, whatever the indices are.
"""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from payload.codec.lapped import synthesis
from payload.codec.lapped.power_law import LINEAR, REFERENCE_DN
from payload.codec.lapped.quantiser import REBUILD_UNIT, Indices, rebuild_units, step_units
from payload.codec.lapped.tables import Kernels
from payload.codec.lapped.transform import COEFFICIENTS, LATENT_BITS, add_slopes_exactly, first_level
from payload.codec.rotation import MATRIX_BITS, Rotation
from payload.scene import Dn

FUNCTION_BITS = 14
#: Rotated, companded and expanded values have four fractional bits.
FINE_BITS = 4
FINE = 1 << FINE_BITS
#: Sums are in 2^-20 steps (64ths times 2^-14), a step in 2^-8 of a rotated value.
SUM_BITS = REBUILD_UNIT.bit_length() - 1 + FUNCTION_BITS
#: What is beyond is no picture; held so that no product passes 64 bits.
ROTATED_LIMIT = 1 << 21
TOP = (1 << 16) - 1

Integers = NDArray[np.int64]
Exact = NDArray[np.float64]


def unrounded_functions(kernels: Kernels) -> Exact:
    """The inverse's functions [64, 32, 32] in 2^-14, before they are rounded."""
    return synthesis.dual_functions_f64(kernels, synthesis.WIDE) * float(1 << FUNCTION_BITS)


def unrounded_expansion(gamma: float, gain: int) -> Exact:
    """Sixteenths of a DN of every whole companded value [65537], before they are rounded."""
    values = np.arange(TOP + 2, dtype=np.float64) / gain
    if gamma != LINEAR:
        values = REFERENCE_DN * (values * (gamma / REFERENCE_DN)) ** (1 / gamma)
    return np.minimum(values, TOP) * FINE


@lru_cache(maxsize=4)
def expansion(gamma: float, gain: int) -> Integers:
    """`unrounded_expansion`, rounded. No entry lies so near a rounding edge that two machines' powers could disagree
    (tested for the gammas that ship)."""
    return np.rint(unrounded_expansion(gamma, gain)).astype(np.int64)


class BasePicture:
    """The integer synthesis of one bundle."""

    def __init__(self, kernels: Kernels, gamma: float, gain: int, averages_tell: bool = False) -> None:
        self._functions = np.rint(unrounded_functions(kernels))
        self._expansion, self._averages_tell = expansion(gamma, gain), averages_tell

    def of(self, indices: Indices, rotation: Rotation, step_index: int) -> Dn:
        """DN uint16 [B, T, T]."""
        step = step_units(step_index) << indices.missing
        bands = [_rotated(self._sums(indices, band), step) for band in range(len(rotation.means))]
        return self._dn(np.array(bands), rotation)

    def _sums(self, indices: Indices, band: int) -> Integers:
        """One rotated band [T, T] in 2^-20 steps. Bands are taken one by one: doubles of many would fill the memory."""
        own = slice(band * COEFFICIENTS, (band + 1) * COEFFICIENTS)
        levels = _levels(Indices(indices.magnitude[own], indices.negative[own], indices.missing))
        if self._averages_tell:
            add_slopes_exactly(levels[None])
        every = np.ones(COEFFICIENTS, np.bool_)
        return synthesis.synthesise(levels, self._functions, self._functions, every)[0].astype(np.int64)

    def _dn(self, rotated: Integers, rotation: Rotation) -> Dn:
        flat = rotation.matrix.T @ rotated.reshape(len(rotated), -1)
        turned = (flat << rotation.shift) + (1 << MATRIX_BITS - 1) >> MATRIX_BITS
        values = np.clip(turned + np.array(rotation.means, np.int64)[:, None] * FINE, 0, TOP * FINE)
        whole, share = values >> FINE_BITS, values & FINE - 1
        low, high = self._expansion[whole], self._expansion[whole + 1]
        fine = low * (FINE - share) + high * share  # in 2^-8 DN
        dn = np.minimum(fine + (1 << 2 * FINE_BITS - 1) >> 2 * FINE_BITS, TOP)
        return dn.astype(np.uint16).reshape(rotated.shape)


def _levels(indices: Indices) -> Exact:
    """Levels [B * 64, h, w] in 64ths of a step of the coarsest layer known, averages as before the second level."""
    magnitude = indices.magnitude.astype(np.float64)
    level = np.where(magnitude > 0, REBUILD_UNIT * magnitude + rebuild_units(indices.missing), 0.0)
    levels = np.where(indices.negative, -level, level)
    levels[::COEFFICIENTS] = np.rint(first_level(levels[::COEFFICIENTS]))
    return levels


def _rotated(sums: Integers, step: int) -> Integers:
    """Rotated values in sixteenths, of sums in 2^-20 steps of `step` in 2^-8 of a value."""
    most, down = (1 << 62) // step, SUM_BITS + LATENT_BITS - FINE_BITS
    found = np.clip(sums, -most, most) * step + (1 << down - 1) >> down
    return np.clip(found, -ROTATED_LIMIT, ROTATED_LIMIT)
