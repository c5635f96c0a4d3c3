"""Labelled windows -> training batches of the ground's network: DN of cells of 2 px, soft targets, weights.

What is learnt from a window, and what is done to it, is as for the flying network (sampler.py); the cells are finer,
the pictures are also those that came down (`decoded` parts, teacher.py), and a tile that ends is mirrored as the
teacher's was.
"""

import numpy as np
import torch

from export.clouds.drawn import F32
from export.clouds.sampler import T_SHADOW, Drawing, degrade

#: Cells along a crop, how often, and how much larger the ground is that it is taken from: a window has 128.
SIZES, SIZE_SHARES = (128, 96, 64), (0.25, 0.45, 0.3)
ZOOMS = {128: (0.5, 1.0, 1.0, 1.0), 96: (0.5, 0.75, 1.0, 1.0, 1.0, 1.33), 64: (1.0, 1.0, 1.0, 1.5, 2.0, 2.0)}
#: Probability that a sample is degraded, so that the network also sees pictures as they are.
DEGRADED = 0.6
#: How much more shadow counts than the rest: there is little of it.
SHADOW_COUNTS = 2.0


class GroundSampler(Drawing):
    """Draws batches: DN [N, 4, n, n], then what `sampler.loss` wants of cells [N, ..., n, n]."""

    def batch(self, rng: np.random.Generator, tiles: int) -> tuple[torch.Tensor, ...]:
        """As many cells as `tiles` windows have."""
        size = int(rng.choice(SIZES, p=SIZE_SHARES))
        count = round(tiles * (SIZES[0] / size) ** 2)
        columns = zip(*(self._of_ground(size, rng) for _ in range(count)), strict=True)
        return tuple(torch.from_numpy(np.stack(column)) for column in columns)

    def _of_ground(self, size: int, rng: np.random.Generator) -> tuple[F32, ...]:
        dn, labels = self.crop(size, float(rng.choice(ZOOMS[size])), rng)
        if rng.random() < DEGRADED:
            dn = degrade(dn, rng)
        if rng.random() < 0.05:  # the swath ends inside the tile
            ended = int(rng.integers(size // 8, size))
            dn[:, :, ended:], labels[3:, :, ended:] = 0.0, 0.0
        return dn, labels[:3], labels[3] * (1.0 + SHADOW_COUNTS * labels[T_SHADOW]), labels[4], labels[5]
