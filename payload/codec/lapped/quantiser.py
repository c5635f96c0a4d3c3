"""Latents -> indices and back: nested finite scalar quantisation.

The codebook is implicit (FSQ, Mentzer et al., arXiv:2309.15505): every latent has its own index, which is nested,
    magnitude = floor(|latent| / step + 0.2)        of layer L-1, the finest
    magnitude >> 1, >> 2, ...                       of the coarser layers,
so that a stream truncated after any layer is a valid, coarser quantisation of the same latent. The dead zone is 1.6
steps at the finest layer and grows towards 2 at the coarsest. All in integers.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from payload.codec.interface import PEAK_DN, Quality
from payload.codec.lapped.transform import LATENT_BITS, Latents

#: Steps are 2^(index / 8) DN; the index is one octet of a tile's side information.
STEPS_PER_OCTAVE = 8
STEP_INDICES = 128
#: Where in its cell a latent is rebuilt when 0, 1, 2, ... finer layers are missing, in steps above the cell's index.
REBUILD = (0.22, 0.30, 0.34, 0.36)
#: Most of what is below half a step stays out: a squared step leaves so many times its squared error.
ERROR_OF_STEP = 8
MAGNITUDE_LIMIT = (1 << 16) - 1
#: REBUILD is rounded to 64ths where errors are counted, errors to sixteenths of a rotated value.
REBUILD_UNIT, ERROR_BITS = 64, 4


@dataclass(frozen=True, eq=False)
class Indices:
    """Indices of one tile: magnitude uint16 and sign bool, both [C, h, w]; `missing` finer layers are not known.

    Channels `behind` [C] are known to one layer less: the last layer that arrived was cut before them (None: no such).
    On board, `size128` is every latent's size in 128ths of the step of the last layer that is sent (at most 255): the
    entropy coder leaves out a magnitude of one that is not worth its octets there. None: it leaves out nothing.
    """

    magnitude: NDArray[np.uint16]
    negative: NDArray[np.bool_]
    missing: int = 0
    behind: NDArray[np.bool_] | None = None
    size128: NDArray[np.uint8] | None = None


def step_index(wanted_dn: float) -> int:
    """Index of the step nearest to `wanted_dn`, 0 (1 DN) to 127."""
    return min(max(round(math.log2(wanted_dn) * STEPS_PER_OCTAVE), 0), STEP_INDICES - 1)


def step_units(index: int) -> int:
    """Step in latent units (2^-8 DN), the integer both sides use."""
    return round(2.0 ** (LATENT_BITS + index / STEPS_PER_OCTAVE))


def step_dn(index: int) -> float:
    """Step of an index in rotated DN, as both sides use it."""
    return step_units(index) / 2.0**LATENT_BITS


def within(index: int, coarsest: int) -> tuple[int, int]:
    """A step index that the model was trained on, and how many layers stay unsent for it."""
    unsent = max(0, -(-(index - coarsest) // STEPS_PER_OCTAVE))
    return max(0, index - STEPS_PER_OCTAVE * unsent), unsent


def allowed_error(quality: Quality, gain: int) -> float:
    """About the squared error that may stay in a companded value."""
    if quality.psnr_db is not None:
        return float(gain**2 * PEAK_DN**2 * 10 ** (-quality.psnr_db / 10))
    return (gain * quality.step_dn) ** 2 / ERROR_OF_STEP


def quantise(latents: Latents, index: int, unsent: int = 0) -> Indices:
    """Indices at the finest step of `index`. So many of the finest layers will stay `unsent`."""
    flat = latents.values.reshape(-1, *latents.values.shape[2:])  # [B * 64, h, w]
    step = step_units(index)
    size = np.abs(flat.astype(np.int64))
    magnitude = (5 * size + step) // (5 * step)
    share = size.astype(np.float32) * np.float32(128 / (step << unsent))
    size128 = np.minimum(share, np.float32(255)).astype(np.uint8)
    return Indices(np.minimum(magnitude, MAGNITUDE_LIMIT).astype(np.uint16), flat < 0, size128=size128)


def dequantise(indices: Indices) -> NDArray[np.float32]:
    """Levels [C, h, w] f32 in units of the step of the coarsest layer known."""
    magnitude = indices.magnitude.astype(np.float32)
    level = np.where(magnitude > 0, magnitude + inside_cells(indices)[:, None, None], np.float32(0))
    return np.where(indices.negative, -level, level)


def inside_cells(indices: Indices) -> NDArray[np.float32]:
    """Where in its cell each channel [C] is rebuilt, in cells of the coarsest layer known."""
    inside = np.full(len(indices.magnitude), _rebuild(indices.missing), np.float32)
    if indices.behind is not None:
        inside[indices.behind] = 2 * _rebuild(indices.missing + 1)
    return inside


def errors(latents: Latents, index: int, layers: int) -> tuple[int, ...]:
    """Squared error left after 0, 1, ..., `layers` layers, summed over the tile, in squared 2^-ERROR_BITS of a rotated
    value. Integers, so that every machine allots layers alike: cut to ERROR_BITS."""
    step = step_units(index)
    size = np.abs(latents.values).astype(np.int64)
    magnitude = np.minimum((5 * size + step) // (5 * step), MAGNITUDE_LIMIT)
    left = [_energy(size)]
    for missing in range(layers - 1, -1, -1):
        kept = magnitude >> missing
        level = (REBUILD_UNIT * kept + rebuild_units(missing)) * (step << missing) // REBUILD_UNIT
        left.append(_energy(size - np.where(kept > 0, level, 0)))
    return tuple(left)


def _energy(difference: NDArray[np.int64]) -> int:
    cut = np.abs(difference) >> (LATENT_BITS - ERROR_BITS)
    return int((cut * cut).sum())


def rebuild_units(missing: int) -> int:
    """Where in its cell a latent is rebuilt, in 64ths of the cell."""
    return round(REBUILD_UNIT * _rebuild(missing))


def worth_in_last(worth: NDArray[np.integer[Any]], missing: int) -> NDArray[np.uint8]:
    """Least sizes of a magnitude of one that are worth their octets, in 128ths of a step: of a layer behind which
    `missing` are not sent, from those of the same classes where magnitudes are rebuilt as in the finest layer."""
    finest, here = REBUILD_UNIT + rebuild_units(0), REBUILD_UNIT + rebuild_units(missing)
    least = here + (worth.astype(np.int64) - finest) * finest // here
    return np.clip(least, 0, 255).astype(np.uint8)


def _rebuild(missing: int) -> float:
    return REBUILD[min(missing, len(REBUILD) - 1)]
