"""Coefficients inside the cells that were sent: what the ground may change of a tile without contradicting its octets.

    indices -> cells [low, high]     what the decoder makes of them, any other picture -> the same coefficients -> DN

All of it is in steps of the coarsest layer known, in the domain of the quantiser: block averages are behind the second
level. Ground only, in floats.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from payload.codec.lapped.power_law import compand
from payload.codec.lapped.quantiser import Indices, step_dn
from payload.codec.lapped.tables import Kernels
from payload.codec.lapped.transform import BLOCK, COEFFICIENTS, DCT_BITS, dct, first_level
from payload.codec.rotation import MATRIX_BITS, Rotation
from payload.scene import Dn, Mask

#: A magnitude is the whole number below a size and this share of the finest step.
ROUNDED_UP = 0.2
#: Cells are narrower by so much at both ends, in steps: rounding to units of the quantiser does not leave them.
INSIDE = 2.0**-8
F32 = NDArray[np.float32]
#: What a codec decodes of one tile.
Decoded = tuple[tuple[Rotation, int], Indices]


@dataclass(frozen=True, eq=False)
class Refining:
    """`payload.codec.interface.Coefficients` of one bundle. `levels`: a tile's own [B * 64, h, w]; `gained`: what the
    decoder's network adds to rotated bands [B, T, T] in steps, of indices and a step in rotated DN, None without a
    network; `untransformed`: DN of levels, a rotation and a step."""

    kernels: Kernels
    law: tuple[float, int]
    levels: Callable[[Indices], F32]
    gained: Callable[[Indices, float], F32] | None
    untransformed: Callable[[Indices, F32, Rotation, float], Dn]

    def cells(self, decoded: Decoded) -> tuple[F32, F32]:
        """Least and greatest value of every coefficient [B, 64, h, w] that has the indices sent."""
        return cells(decoded[1])

    def plain(self, decoded: Decoded) -> F32:
        """What the decoder makes of the indices [B, 64, h, w]. It may leave the cells."""
        (_, index), indices = decoded
        found = _by_band(self.levels(indices)).copy()
        found[:, 0] = _second_level(found[:, 0], np.linalg.inv(dct().T) * 2.0**DCT_BITS)  # what `picture` undoes
        if self.gained is not None:
            found += analysed(self.gained(indices, _step(index, indices)), self.kernels)
        return found

    def of_picture(self, dn: Dn, valid: Mask, decoded: Decoded) -> F32:
        """The coefficients [B, 64, h, w] of another picture dn [B, T, T], by the tile's own rotation and step."""
        (rotation, index), found = decoded
        values = compand(dn, *self.law).astype(np.float32) - np.array(rotation.means, np.float32)[:, None, None]
        matrix = (rotation.matrix * 2.0 ** -(MATRIX_BITS + rotation.shift)).astype(np.float32)
        rotated = (matrix @ values.reshape(len(values), -1)).reshape(values.shape)
        rotated[:, ~valid] = 0
        return analysed(rotated, self.kernels) / np.float32(_step(index, found))

    def weights(self, blocks: F32) -> F32:
        """Of every coefficient [64, h, w] the least of what blocks [h, w] have, of all that it reaches: functions lap
        over into the next blocks, block averages go in squares of 8 x 8 blocks."""
        around = minimum_of_neighbours(blocks)
        found = np.repeat(around[None], COEFFICIENTS, axis=0)
        squares = around.reshape(len(blocks) // BLOCK, BLOCK, -1, BLOCK).min(axis=(1, 3))
        found[0] = squares.repeat(BLOCK, axis=0).repeat(BLOCK, axis=1)
        return found

    def picture(self, coefficients: F32, decoded: Decoded) -> Dn:
        """DN uint16 [B, T, T] of coefficients [B, 64, h, w]."""
        (rotation, index), found = decoded
        levels = coefficients.copy()
        levels[:, 0] = first_level(levels[:, 0])
        return self.untransformed(found, levels.reshape(-1, *levels.shape[2:]), rotation, _step(index, found))


def minimum_of_neighbours(blocks: F32) -> F32:
    """Over 3 x 3 of [h, w]."""
    wide = np.pad(blocks, 1, mode="edge")
    rows = np.minimum(np.minimum(wide[:-2], wide[1:-1]), wide[2:])
    return np.minimum(np.minimum(rows[:, :-2], rows[:, 1:-1]), rows[:, 2:])


def cells(indices: Indices) -> tuple[F32, F32]:
    """The cells of a tile's indices [B, 64, h, w] f32. That of 0 is where a size rounds to 0: the sender may have left
    out a magnitude of one that lay beyond it, and nothing is put there."""
    wide = np.ones(len(indices.magnitude), np.float32)
    if indices.behind is not None:
        wide[indices.behind] = 2
    share = np.float32(ROUNDED_UP * 2.0**-indices.missing)
    size = indices.magnitude.astype(np.float32)
    end = size + wide[:, None, None] - share - np.float32(INSIDE)
    begin = np.where(size > 0, size - share + np.float32(INSIDE), -end)
    turned = indices.negative & (size > 0)
    return _by_band(np.where(turned, -end, begin)), _by_band(np.where(turned, -begin, end))


def analysed(rotated: F32, kernels: Kernels) -> F32:
    """The transform in floats: coefficients [B, 64, h, w] of rotated bands [B, T, T], in their unit."""
    bands, side, _ = rotated.shape
    cells_a_side, half = side // BLOCK, BLOCK // 2
    wide = np.pad(rotated, ((0, 0), (half, half), (half, half)), mode="symmetric")
    blocks = wide.reshape(bands, cells_a_side + 1, BLOCK, cells_a_side + 1, BLOCK).transpose(0, 1, 3, 2, 4)
    pixels = blocks.reshape(bands, cells_a_side + 1, cells_a_side + 1, COEFFICIENTS)
    quarters = kernels.values.reshape(COEFFICIENTS, 2, BLOCK, 2, BLOCK).transpose(1, 3, 2, 4, 0)
    weights = quarters.reshape(2, 2, COEFFICIENTS, COEFFICIENTS) * np.exp2(-kernels.exponents.astype(np.float32))
    found = sum(pixels[:, y : y + cells_a_side, x : x + cells_a_side] @ weights[y, x] for y in (0, 1) for x in (0, 1))
    coefficients = np.ascontiguousarray(np.moveaxis(np.asarray(found, np.float32), 3, 1))
    coefficients[:, 0] = _second_level(coefficients[:, 0], dct() * 2.0**-DCT_BITS)
    return coefficients


def _second_level(averages: F32, basis: NDArray[np.floating]) -> F32:
    """As payload.codec.lapped.transform.second_level, in floats: [B, h, w]."""
    rows = _apply_rows(averages.astype(np.float64), basis)
    return _apply_rows(rows.swapaxes(1, 2), basis).swapaxes(1, 2).astype(np.float32)


def _apply_rows(x: NDArray[np.float64], matrix: NDArray[np.floating]) -> NDArray[np.float64]:
    bands, height, width = x.shape
    found: NDArray[np.float64] = matrix @ x.reshape(bands, height // BLOCK, BLOCK, width)
    return found.reshape(x.shape)


def _by_band(channels: F32) -> F32:
    return channels.reshape(-1, COEFFICIENTS, *channels.shape[1:])


def _step(index: int, found: Indices) -> float:
    return step_dn(index) * 2.0**found.missing
