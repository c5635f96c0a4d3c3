"""Levels -> rotated bands without a network: the flown transform undone by the functions that are dual to its own.

The transform is a filter bank over blocks of 8 x 8: block (i, j) of latents sees the blocks (i, j) to (i + 1, j + 1) of
a band that is mirrored at its edges. Its inverse is another such bank. The lapped transform's inverse is as short as
itself, 16 x 16; the rounding of the kernels to 7 bits lengthens it, with tails of 1 % in the next blocks. So every
function comes in two lengths: NARROW, and WIDE with the first tails. Block averages are large and always take the wide
one: what is left out then is an error of 3 to 4 DN rms on bright scenes. With the ten lowest functions wide it is 2 DN,
with all of them 0.2. The finer the step, the more are taken wide.
"""

from functools import lru_cache
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from payload.codec.lapped.tables import Kernels
from payload.codec.lapped.transform import BLOCK, COEFFICIENTS

NARROW, WIDE = 2 * BLOCK, 4 * BLOCK
#: What the wide functions reach beyond a tile of blocks.
MARGIN = (WIDE - BLOCK) // 2
#: The inverse is computed on a torus of so many blocks a side: its tails are below 1e-6 half way round.
TORUS = 16
#: Below these steps, in rotated DN, functions are taken wide whose two frequencies together are up to so much.
WIDE_BELOW_DN = ((64.0, 2 * BLOCK), (256.0, 3))

Functions = NDArray[np.float32]
Real = TypeVar("Real", np.float32, np.float64)


@lru_cache(maxsize=4)
def _dual(values: bytes, exponents: bytes) -> NDArray[np.float64]:
    """Block (p, q) of the inverse's answer to a latent in block (0, 0): [TORUS, TORUS, 64 pixels, 64 functions]."""
    kernels = np.frombuffer(values, np.int8).reshape(COEFFICIENTS, 2, BLOCK, 2, BLOCK).astype(np.float64)
    kernels *= 2.0 ** -np.frombuffer(exponents, np.int8).astype(np.float64)[:, None, None, None, None]
    blocks = kernels.transpose(1, 3, 0, 2, 4).reshape(2, 2, COEFFICIENTS, COEFFICIENTS)  # [2, 2, functions, pixels]
    turn = np.exp(2j * np.pi * np.outer(np.arange(TORUS), np.arange(2)) / TORUS)  # [frequency, block]
    forward = np.einsum("ua,vb,abfp->uvfp", turn, turn, blocks)
    found: NDArray[np.float64] = np.fft.ifft2(np.linalg.inv(forward), axes=(0, 1)).real
    return found


def dual_functions(kernels: Kernels, size: int) -> Functions:
    """The inverse's functions [64, size, size] f32, cut to NARROW or WIDE."""
    return dual_functions_f64(kernels, size).astype(np.float32)


def dual_functions_f64(kernels: Kernels, size: int) -> NDArray[np.float64]:
    """The same as they are computed."""
    dual, beyond = _dual(kernels.values.tobytes(), kernels.exponents.tobytes()), (size - NARROW) // (2 * BLOCK)
    places = np.arange(-beyond, 2 + beyond)
    found = dual[np.ix_(places % TORUS, places % TORUS)].reshape(len(places), len(places), BLOCK, BLOCK, COEFFICIENTS)
    return np.ascontiguousarray(found.transpose(4, 0, 2, 1, 3).reshape(COEFFICIENTS, size, size))


def wide_functions(step_dn: float) -> NDArray[np.bool_]:
    """Which functions [64] are taken wide at a step."""
    highest = next((frequency for below_dn, frequency in WIDE_BELOW_DN if step_dn < below_dn), 0)
    return np.add.outer(np.arange(BLOCK), np.arange(BLOCK)).ravel() <= highest


def synthesise(
    levels: NDArray[Real], narrow: NDArray[Real], wide: NDArray[Real], is_wide: NDArray[np.bool_]
) -> NDArray[Real]:
    """Rotated bands [B, 8h, 8h] of levels [B * 64, h, h], in the levels' unit."""
    cells = levels.shape[-1]
    bands = levels.reshape(-1, COEFFICIENTS, cells, cells)
    plane = np.zeros((len(bands), BLOCK * cells + 2 * MARGIN, BLOCK * cells + 2 * MARGIN), levels.dtype)
    _add(plane, bands[:, is_wide], wide[is_wide])
    _add(plane, bands[:, ~is_wide], narrow[~is_wide])
    return _fold(_fold(plane).swapaxes(1, 2)).swapaxes(1, 2)


def _add(plane: NDArray[Real], levels: NDArray[Real], functions: NDArray[Real]) -> None:
    """The functions [F, size, size] of levels [B, F, h, h] added in their places, block by block of their support."""
    size, cells = functions.shape[-1], levels.shape[-1]
    first, side = MARGIN - (size - BLOCK) // 2, BLOCK * cells
    for top in range(0, size, BLOCK):
        for left in range(0, size, BLOCK):
            part = functions[:, top : top + BLOCK, left : left + BLOCK]
            added = np.einsum("bfij,fyx->biyjx", levels, part, optimize=True).reshape(len(plane), side, side)
            plane[:, first + top :, first + left :][:, :side, :side] += added


def _fold(plane: NDArray[Real]) -> NDArray[Real]:
    """What lies beyond the first and the last row of [B, T + 2 MARGIN, W] belongs to the rows that it mirrors."""
    inner = plane[:, MARGIN:-MARGIN].copy()
    inner[:, :MARGIN] += plane[:, MARGIN - 1 :: -1]
    inner[:, -MARGIN:] += plane[:, : -MARGIN - 1 : -1]
    return inner
