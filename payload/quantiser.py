"""Latents -> indices and back: nested finite scalar quantisation.

The codebook is implicit (FSQ, Mentzer et al., arXiv:2309.15505): every latent has its own index, which is nested,
    magnitude = floor(|latent| / step + 0.2)        of layer L-1, the finest
    magnitude >> 1, >> 2, ...                       of the coarser layers,
so that a stream truncated after any layer is a valid, coarser quantisation of the same latent. The dead zone is 1.6
steps at the finest layer and grows towards 2 at the coarsest. All in integers.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from payload.encoder import LATENT_BITS, Latents

#: Steps are 2^(index / 8) DN; the index is one octet of a tile's side information.
STEPS_PER_OCTAVE = 8
STEP_INDICES = 128
#: Where in its cell a latent is rebuilt when 0, 1, 2, ... finer layers are missing, in steps above the cell's index.
REBUILD = (0.22, 0.30, 0.34, 0.36)
MAGNITUDE_LIMIT = (1 << 16) - 1


@dataclass(frozen=True, eq=False)
class Indices:
    """Indices of one tile: magnitude uint16 and sign bool, both [C, h, w]; at `missing` finer layers not known."""

    magnitude: NDArray[np.uint16]
    negative: NDArray[np.bool_]
    missing: int = 0


def step_index(wanted_dn: float) -> int:
    """Index of the step nearest to `wanted_dn`, 0 (1 DN) to 127."""
    return int(np.clip(np.rint(np.log2(wanted_dn) * STEPS_PER_OCTAVE), 0, STEP_INDICES - 1))


def step_units(index: int) -> int:
    """Step in latent units (2^-8 DN), the integer both sides use."""
    return round(2.0 ** (LATENT_BITS + index / STEPS_PER_OCTAVE))


def step_dn(index: int) -> float:
    """Step of an index in rotated DN, as both sides use it."""
    return step_units(index) / 2.0**LATENT_BITS


def quantise(latents: Latents, index: int) -> Indices:
    """Indices at the finest step of `index`."""
    flat = latents.values.reshape(-1, *latents.values.shape[2:])  # [B * 64, h, w]
    step = step_units(index)
    size = np.abs(flat).astype(np.uint32)
    magnitude = (5 * size + np.uint32(step)) // np.uint32(5 * step)
    return Indices(np.minimum(magnitude, MAGNITUDE_LIMIT).astype(np.uint16), flat < 0)


def dequantise(indices: Indices) -> NDArray[np.float32]:
    """Levels [C, h, w] f32 in units of the step of the coarsest layer known."""
    magnitude = indices.magnitude.astype(np.float32)
    level = np.where(magnitude > 0, magnitude + np.float32(_rebuild(indices.missing)), np.float32(0))
    return np.where(indices.negative, -level, level)


def errors_dn2(latents: Latents, indices: Indices, index: int, layers: int, shift: int) -> tuple[float, ...]:
    """Squared error left after 0, 1, ..., `layers` layers, summed over the tile, in DN^2. For rate control only."""
    unit = 2.0 ** (shift - LATENT_BITS)
    size = np.abs(latents.values.reshape(indices.magnitude.shape)).astype(np.float32)
    step = np.float32(step_units(index))
    left = [float(np.vdot(size, size))]
    for missing in range(layers - 1, -1, -1):
        level = (indices.magnitude >> missing).astype(np.float32)
        level[level > 0] += _rebuild(missing)
        difference = size - level * (step * 2**missing)
        left.append(float(np.vdot(difference, difference)))
    return tuple(error * unit * unit for error in left)


def _rebuild(missing: int) -> float:
    return REBUILD[min(missing, len(REBUILD) - 1)]
