"""Do the transform's 2-D functions, trained freely through the context model's rate, beat the designed products?

64 functions of 16 x 16 px, even or odd along both axes as the flight kernel folds them, otherwise free. Their 7-bit
rounding is in the loop (straight through), and what undoes them is dual to them at every step, so that the error is
what the decoder `fast` would leave. Loss: bits + squared error at the slope of the codec's own curve.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from export import training
from export.lapped.context_model import ContextModel
from export.lapped.model import augment
from export.lapped.networks import SecondLevel
from export.lapped.transform import WEIGHT_LIMIT, quantise_weights
from export.studies import rate
from export.studies.blocks import Blocks
from payload.codec.lapped.transform import BLOCK, COEFFICIENTS

#: Steps kept that training draws from, and the coarsest finest step: coarser ones leave layers unsent.
STEP_DN, COARSEST_DN = (100.0, 1600.0), 320.0
BATCH = 2


class Functions(nn.Module):
    """The 64 functions by their first quarters [64, 8, 8]; evenness and oddness give the rest."""

    def __init__(self, functions: Tensor) -> None:
        super().__init__()
        self.quarter = nn.Parameter(functions[:, :BLOCK, :BLOCK].clone())
        place = torch.arange(COEFFICIENTS)
        self.rows, self.columns = ((-1.0) ** n for n in (place // BLOCK, place % BLOCK))

    def whole(self) -> Tensor:
        """[64, 16, 16] in full precision; of those even along both axes, all but the first are blind to a constant."""
        free = (self.rows > 0) & (self.columns > 0)
        free[0] = False
        means = self.quarter.mean((1, 2), keepdim=True) * free[:, None, None]
        quarter = self.quarter - means
        upper = torch.cat([quarter, self.columns[:, None, None] * quarter.flip(2)], 2)
        return torch.cat([upper, self.rows[:, None, None] * upper.flip(1)], 1)

    def rounded(self) -> Tensor:
        """The same on their 7-bit grids, the gradient straight through."""
        whole = self.whole()
        unit = torch.exp2(-torch.floor(torch.log2((WEIGHT_LIMIT + 0.49) / whole.detach().abs().amax((1, 2)))))
        on_grid = torch.round(whole / unit[:, None, None]) * unit[:, None, None]
        return whole + (on_grid - whole).detach()

    def flown(self) -> Tensor:
        """The same as the exporter rounds them."""
        integers, exponents = quantise_weights(self.whole().detach().double().numpy())
        return torch.from_numpy(integers * 2.0 ** -exponents[:, None, None]).float()


def with_averages(found: Tensor, second: Callable[[Tensor], Tensor]) -> Tensor:
    """Coefficients [N, B, 64, h, w], `second` applied to the block averages."""
    return torch.cat([second(found[:, :, 0])[:, :, None], found[:, :, 1:]], 2)


def finest(kept_dn: float) -> tuple[Tensor, int]:
    """The finest step for a step kept, and how many layers stay unsent for it."""
    unsent = max(0, int(np.ceil(np.log2(kept_dn / COARSEST_DN))))
    return torch.tensor(kept_dn / 2.0**unsent), unsent


def loss(blocks: Blocks, contexts: ContextModel, tiles: Tensor, kept_dn: float) -> Tensor:
    """Bits a pixel, the error at its price. tiles [N, B, T, T] f32."""
    (step, unsent), levels = finest(kept_dn), SecondLevel()
    found = with_averages(blocks.coefficients(tiles), levels)
    share = (found.abs() / step).flatten(1, 2)
    level = rate.errors(found.detach(), torch.zeros_like(found), step, unsent)
    wrong = blocks.rotated(with_averages(level, levels.inverse)) - tiles / kept_dn  # what cut duals leave, too
    squared = (wrong**2).sum() + rate.jump(share, unsent).sum()
    cost = rate.bits(contexts, share, unsent) + squared / rate.SQUARED_STEPS_PER_BIT
    return cost / (tiles.numel() / tiles.shape[1])


def train(
    functions: Functions, contexts: ContextModel, tiles: Tensor, schedule: training.Schedule, path: Path
) -> None:
    """In place, from the checkpoint at `path` on where there is one; tiles int16 [N, B, 128, 128]."""

    def loss_of(step_no: int) -> Tensor:
        batch, kept_dn = drawn(tiles, step_no)
        return loss(Blocks(functions.rounded()), contexts, batch, kept_dn)

    optimiser = torch.optim.Adam(functions.parameters())
    training.fit(functions, optimiser, schedule, loss_of, path, progress=training.Progress(path.stem, schedule.steps))


def drawn(tiles: Tensor, step_no: int) -> tuple[Tensor, float]:
    """The tiles of a training step, f32, and the step that is kept of them, in DN."""
    rng = np.random.default_rng([18, step_no])
    kept_dn = float(np.exp(rng.uniform(*np.log(STEP_DN))))
    return augment(tiles[rng.choice(len(tiles), BATCH)].float(), rng), kept_dn
