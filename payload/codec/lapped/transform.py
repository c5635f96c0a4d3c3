"""Rotated bands -> latents: input planes for the INT8 network, the network, and the second level over block averages.

A rotated value needs 16 bits, the network takes 8: value = 256 high + low, both in -128..127. The transform is linear,
so the same INT8 network runs over the high and the low plane (a batch of 2 B planes); the results add up as integers:

    rotated [B, T, T] -> planes [2B, 64, T/8 + 1, T/8 + 1] -> network -> [2B, 64, T/8, T/8] -> latents [B, 64, T/8, T/8]

A runtime that can takes the planes one at a time: what it keeps of the network is asked whole by one plane then.
Block averages (coefficient 0) of neighbouring blocks are still alike: an 8 x 8 DCT in exact integers goes over them.

Slopes, where a bundle's codec table says `averages_tell`. A picture that is smooth on the scale of blocks, as maps of
planets enlarge it near the poles, rises through a block as it does from block to block: its lowest odd functions,
channel 1 across and channel 8 down, follow from the averages of the four blocks in line. What those tell is taken away
before quantisation, and added again from the decoded averages:

    told = (12 (a[+2] - a[-2]) - 36 (a[+1] - a[-1])) / 256        beyond the tile the averages at its edge

A lifting step: an error of the averages comes back in a slope a fifth as large. The weights were fitted on such maps;
elsewhere slopes hardly follow, and what is taken away costs next to nothing (docs/codec.md, decision 11).
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from payload.engine import Network
from payload.errors import BundleError

BLOCK = 8
COEFFICIENTS = BLOCK * BLOCK
#: Latents are integers in units of 2^-8 DN (times 2^shift of the rotation): the exponent of the network's weights.
LATENT_BITS = 8
#: The second level's matrix has 12 fractional bits.
DCT_BITS = 12
#: Sums of the network over an int8 plane stay below: 256 times that, at a unit of 2^-8, and 8 times that in the second
#: level, fit 32 bits.
LARGEST_SUM = 2.0**11
#: Weights of the blocks one and two away, in 2^-SLOPE_BITS.
ONE_AWAY, TWO_AWAY, SLOPE_BITS = -36, 12, 8
#: Channel of a slope, and along which axis of [B, h, w] it looks.
SLOPES = ((1, 2), (8, 1))
Exact = TypeVar("Exact", np.float64, np.int64)


@dataclass(frozen=True, eq=False)
class Latents:
    """Integer latents [B, 64, h, w] int32 in units of 2^-8 rotated DN, block averages transformed in place."""

    values: NDArray[np.int32]


def planes(rotated: NDArray[np.int32] | NDArray[np.int16]) -> NDArray[np.float32]:
    """Input of the network, [2B, 64, T/8 + 1, T/8 + 1] f32 holding int8 values: the high planes, then the low ones.

    The tile is extended by half a block of mirror image on every side, then cut into blocks (space to depth).
    """
    bands, side, _ = rotated.shape
    half, cells = BLOCK // 2, side // BLOCK + 1
    both = np.empty((2 * bands, side + BLOCK, side + BLOCK), np.int8)
    inner = both[:, half:-half, half:-half]
    np.right_shift(rotated + 128, 8, out=inner[:bands], casting="unsafe")
    inner[bands:] = rotated  # the cast keeps the low octet, which is value - 256 high
    both[:, :half, half:-half] = inner[:, half - 1 :: -1]
    both[:, -half:, half:-half] = inner[:, : -half - 1 : -1]
    both[:, :, :half] = both[:, :, 2 * half - 1 : half - 1 : -1]
    both[:, :, -half:] = both[:, :, -half - 1 : -2 * half - 1 : -1]
    blocks = both.reshape(2 * bands, cells, BLOCK, cells, BLOCK).transpose(0, 2, 4, 1, 3)
    return blocks.astype(np.float32, order="C").reshape(2 * bands, COEFFICIENTS, cells, cells)


def encode(
    rotated: NDArray[np.int32] | NDArray[np.int16], network: Network, at_once: int | None = None,
    averages_tell: bool = False,
) -> Latents:  # fmt: skip
    """Latents of one tile. `at_once`: so many planes go into the network at a time; None: all. `averages_tell`: of the
    slopes in their blocks."""
    bands, side, _ = rotated.shape
    given = planes(rotated)
    sums = np.empty((2 * bands, COEFFICIENTS, side // BLOCK, side // BLOCK), np.int32)
    for first in range(0, len(sums), at_once or len(sums)):
        some = slice(first, first + (at_once or len(sums)))
        found = _believable(network.run(given[some]), sums[some].shape)
        np.multiply(found, np.float32(1 << LATENT_BITS), out=sums[some], casting="unsafe")  # exact: multiples of 2^-8
    values = sums[:bands]
    values <<= 8
    values += sums[bands:]
    if averages_tell:
        take_slopes(values)
    return with_second_level(values)


def _believable(outputs: list[NDArray[Any]], wanted: tuple[int, ...]) -> NDArray[np.float32]:
    """The network's only output, [P, 64, T/8, T/8]; BundleError where it is another, or no sums of a transform."""
    found = outputs[0]
    if len(outputs) != 1 or found.shape != wanted or found.dtype != np.float32:
        raise BundleError(
            f"the encoder gives {len(outputs)} outputs of {found.dtype} {list(found.shape)}, "
            f"wanted one of float32 {list(wanted)}; restore the bundle or rebuild it"
        )
    least, most = float(found.min()), float(found.max())
    if not (least > -LARGEST_SUM and most < LARGEST_SUM):  # nor is it where one is no number
        raise BundleError(
            f"the encoder gives values from {least:g} to {most:g}, wanted less than {LARGEST_SUM:g} in magnitude; "
            "restore the bundle or rebuild it"
        )
    return found


def with_second_level(values: NDArray[np.int32]) -> Latents:
    """Latents from the sums of the transform [B, 64, h, w], in place."""
    values[:, 0] = second_level(values[:, 0])
    return Latents(values)


def second_level(averages: NDArray[np.int32]) -> NDArray[np.int32]:
    """8 x 8 DCT over block averages [B, h, w], exact: in 64-bit integers, since the hardest tiles pass 2^53."""
    basis = dct().astype(np.int64)
    rows = _apply_rows(averages.astype(np.int64), basis)
    columns = _apply_rows(rows.swapaxes(1, 2), basis).swapaxes(1, 2)
    return ((columns + (1 << (2 * DCT_BITS - 1))) >> 2 * DCT_BITS).astype(np.int32)


def first_level(transformed: NDArray[np.floating]) -> NDArray[np.float64]:
    """Inverse of `second_level` in floats, on the ground: [B, h, w]."""
    inverse = dct().T * 2.0**-DCT_BITS
    rows = _apply_rows(transformed.astype(np.float64), inverse)
    return _apply_rows(rows.swapaxes(1, 2), inverse).swapaxes(1, 2)


def _apply_rows(x: NDArray[Exact], matrix: NDArray[Exact]) -> NDArray[Exact]:
    bands, height, width = x.shape
    return (matrix @ x.reshape(bands, height // BLOCK, BLOCK, width)).reshape(bands, height, width)


@lru_cache(maxsize=1)
def dct() -> NDArray[np.float64]:
    """The second level's basis [8, 8], integers of unit 2^-12."""
    k, m = np.arange(BLOCK)[:, None], np.arange(BLOCK)[None]
    basis = np.cos(np.pi * (2 * m + 1) * k / (2 * BLOCK)) * np.sqrt(2 / BLOCK)
    basis[0] /= np.sqrt(2)
    return np.round(basis * 2.0**DCT_BITS)


def take_slopes(sums: NDArray[np.int32]) -> None:
    """From the sums of the transform [B, 64, h, w], in place, before the second level goes over the averages."""
    averages = sums[:, 0].astype(np.int64)
    for channel, axis in SLOPES:
        told = (_told(averages, axis) + (1 << SLOPE_BITS - 1)) >> SLOPE_BITS
        sums[:, channel] -= told.astype(np.int32)


def add_slopes(levels: NDArray[np.float32]) -> None:
    """To levels [B, 64, h, w], in place, their averages as before the second level."""
    for channel, axis in SLOPES:
        levels[:, channel] += _told(levels[:, 0], axis) * np.float32(2.0**-SLOPE_BITS)


def add_slopes_exactly(levels: NDArray[np.float64]) -> None:
    """`add_slopes` for levels of whole numbers, rounded to such: exact."""
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
