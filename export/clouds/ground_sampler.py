"""Labelled windows -> training batches of the ground's network: DN of cells of 2 px, soft targets, weights.

What is learnt from a window, and what is done to it, is as for the flying network (sampler.py); the cells are finer,
the pictures are also those that came down (`decoded` parts, teacher.py), and a tile that ends is mirrored as the
teacher's was.
"""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from export.clouds.drawn import F32
from export.clouds.sampler import T_SHADOW, Drawing, degrade, how_often, loss
from export.clouds.windows import CLEAR

#: Cells along a crop, how often, and how much larger the ground is that it is taken from: a window has 128.
SIZES, SIZE_SHARES = (128, 96, 64), (0.5, 0.3, 0.2)
ZOOMS = {128: (0.5, 1.0, 1.0, 1.0), 96: (0.5, 0.75, 1.0, 1.0, 1.0, 1.33), 64: (1.0, 1.0, 1.0, 1.5, 2.0, 2.0)}
#: Probability that a sample is degraded, so that the network also sees pictures as they are.
DEGRADED = 0.6
#: How much more shadow counts than the rest: there is little of it.
SHADOW_COUNTS = 2.0
#: A window with this share of shadow is drawn three times as often as one without.
FULL_SHADOW = 0.05
#: Share of draws that are coarser than this, and of the others that are clear by eye: what is bright and no cloud.
COARSE_SHARE, COARSE_FROM_M, CLEAR_SHARE = 0.12, 20, 0.27
#: Clear windows of a site that has fewer than so many are drawn more often, at most so many times as often.
FEW, FEW_OFTEN = 40, 3.0
#: What the overlap of shadow counts beside the rest of the loss.
OVERLAP_COUNTS = 1.0


class GroundSampler(Drawing):
    """Draws batches: DN [N, 4, n, n], then what `sampler.loss` wants of cells [N, ..., n, n]."""

    def __init__(self, windows: dict[str, NDArray[Any]]) -> None:
        super().__init__(windows, often_of(windows))

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


def often_of(windows: dict[str, NDArray[Any]]) -> NDArray[np.float64]:
    """As for the flying network; windows with shadow more often, clear and coarse ones in fixed shares."""
    shadow = windows["teacher"][:, T_SHADOW, ::4, ::4].mean(axis=(1, 2)) / 255.0
    often = how_often(windows) * (1.0 + 2.0 * np.minimum(1.0, shadow / FULL_SHADOW))
    clear, coarse = windows["kind"] == CLEAR, windows["gsd_m"] > COARSE_FROM_M
    _, place, counts = np.unique(windows["site"][clear], return_inverse=True, return_counts=True)
    often[clear] *= np.clip((FEW / counts[place]) ** 0.5, 1.0, FEW_OFTEN)
    return _in_share(_in_share(often, clear, CLEAR_SHARE), coarse, COARSE_SHARE)


def _in_share(often: NDArray[np.float64], some: NDArray[np.bool_], share: float) -> NDArray[np.float64]:
    """So that `some` are drawn in this share of draws, where there are any."""
    theirs, others = often[some].sum(), often[~some].sum()
    return np.where(some, often * (share / (1.0 - share) * others / max(theirs, 1e-9)), often)


def ground_loss(logits: Tensor, batch: tuple[Tensor, ...]) -> Tensor:
    """The flying network's, and how little the shadow told and the teacher's overlap (Dice) over the batch."""
    told, taught, seen = torch.softmax(logits, dim=1)[:, 3], batch[0][:, T_SHADOW], (batch[1] > 0).float()
    both, either = (seen * told * taught).sum(), (seen * (told**2 + taught**2)).sum()
    return loss(logits, batch) + OVERLAP_COUNTS * (1.0 - (2.0 * both + 1.0) / (either + 1.0))
