"""Does a small non-linear network behind the transform, trained through the context model's rate, pay?

    coefficients -> coefficients + network(coefficients in steps)      before they are quantised

Three convolutions of the recipe po2w7 with ReLU between them over all bands of 3 x 3 blocks: with the transform and the
context model 3.97 kMAC/px, 118 k parameters. The network begins at nearly nothing, so the first encoder is the lapped
transform alone; the transform, what undoes it and the quantiser stay. So it can learn what to send otherwise: what is
not worth its octets where its neighbours stand as they do, and what makes up for it.
"""

from pathlib import Path

import torch
from torch import Tensor, nn

from export import training
from export.graphs.qat_layers import PlaneScale, calibrate, conv, relu
from export.lapped.context_model import ContextModel
from export.lapped.networks import SecondLevel
from export.studies import rate
from export.studies.blocks import Blocks
from export.studies.trained_functions import STEP_DN, drawn, finest, with_averages
from payload.codec.lapped.transform import COEFFICIENTS

WIDTH = 64
#: Coefficients go in, and what is added comes out, in these shares of a step.
SHARE = 8.0


class ResidualEncoder(nn.Module):
    """What is added to coefficients in steps [N, B * 64, h, w]; to block averages nothing."""

    outer: Tensor

    def __init__(self, bands: int, width: int = WIDTH) -> None:
        super().__init__()
        channels = bands * COEFFICIENTS
        self.planes = _planes()
        self.mix, self.spread, self.out = conv(channels, width, 1), conv(width, width, 3), conv(width, channels, 1)
        self.first, self.second = relu(), relu()
        with torch.no_grad():
            self.out.weight.mul_(0.02)
        self.register_buffer("outer", (torch.arange(channels) % COEFFICIENTS > 0).float()[:, None, None])

    def forward(self, in_steps: Tensor) -> Tensor:
        given = (in_steps * self.outer * SHARE).clamp(-128, 127)
        found = self.second(self.spread(self.first(self.mix(self.planes(given)))))
        added: Tensor = self.out(found) * (self.outer / SHARE)
        return added


def _planes() -> nn.Module:
    from brevitas.nn import QuantIdentity

    return QuantIdentity(act_quant=PlaneScale, return_quant_tensor=True)


def macs_per_px(bands: int, width: int = WIDTH) -> float:
    channels = bands * COEFFICIENTS
    return (2 * channels * width + 9 * width * width) / COEFFICIENTS


def encoded(network: ResidualEncoder, found: Tensor, kept: Tensor) -> Tensor:
    """Coefficients [N, B, 64, h, w] as they are quantised, of steps kept [N]."""
    unit = kept[:, None, None, None]
    flat = found.flatten(1, 2)
    return (flat + unit * network(flat / unit)).reshape(found.shape)


def loss(network: ResidualEncoder, blocks: Blocks, contexts: ContextModel, tiles: Tensor, kept_dn: float) -> Tensor:
    """Bits a pixel, the error at its price. tiles [N, B, T, T] f32."""
    (step, unsent), levels = finest(kept_dn), SecondLevel()
    with torch.no_grad():
        wanted = with_averages(blocks.coefficients(tiles), levels)
    found = encoded(network, wanted, torch.full((len(tiles),), kept_dn))
    share = (found.abs() / step).flatten(1, 2)
    wrong = with_averages(rate.errors(found, wanted, step, unsent), levels.inverse)
    squared = (blocks.rotated(wrong) ** 2).sum() + rate.jump(share, unsent).sum()
    cost = rate.bits(contexts, share, unsent) + squared / rate.SQUARED_STEPS_PER_BIT
    return cost / (tiles.numel() / tiles.shape[1])


def train(
    network: ResidualEncoder, blocks: Blocks, contexts: ContextModel, tiles: Tensor, schedule: training.Schedule,
    path: Path,
) -> None:  # fmt: skip
    """In place, from the checkpoint at `path` on where there is one; tiles int16 [N, B, 128, 128]."""
    calibrate(network, [_in_steps(blocks, tiles[first : first + 8].float()) for first in range(0, 64, 8)])

    def loss_of(step_no: int) -> Tensor:
        batch, kept_dn = drawn(tiles, step_no)
        return loss(network, blocks, contexts, batch, kept_dn)

    optimiser = torch.optim.Adam(network.parameters())
    training.fit(network, optimiser, schedule, loss_of, path, progress=training.Progress(path.stem, schedule.steps))


def _in_steps(blocks: Blocks, tiles: Tensor) -> Tensor:
    with torch.no_grad():
        found = with_averages(blocks.coefficients(tiles), SecondLevel()).flatten(1, 2)
        return (found / STEP_DN[0]).clamp(-16.0, 16.0)
