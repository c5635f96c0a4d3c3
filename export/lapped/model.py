"""The flight codec as one differentiable model: rotated bands -> levels -> better levels -> rotated bands."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from export.data import Pool
from export.lapped.networks import Analysis, Decoder, SecondLevel, Synthesis
from export.lapped.quantiser import levels, magnitudes
from export.training import averaged_weights, mixed_precision
from payload.codec.lapped.transform import BLOCK
from payload.errors import InputError


def kernels_of(transform: dict[str, Tensor]) -> Tensor:
    """The kernels as they fly: integer x 2^-exponent, f32."""
    return transform["integers"].float() * 2.0 ** -transform["exponents"].float()[:, None, None, None]


class LappedModel(nn.Module):
    """Transform, second level, quantiser and ground decoder; only the decoder learns here."""

    def __init__(self, transform: dict[str, Tensor], width: int, bricks: int, bands: int = 4) -> None:
        super().__init__()
        self.analysis = Analysis(kernels_of(transform)).requires_grad_(False)
        self.synthesis = Synthesis(transform["synthesis"].clone()).requires_grad_(False)
        self.second = SecondLevel()
        self.decoder = Decoder(bands, width, bricks)

    def coefficients(self, rotated: Tensor) -> Tensor:
        """Rotated bands [N, B, T, T] -> coefficients [N, B, 64, h, w] with the second level in place."""
        return self.with_second_level(self.analysis(rotated))

    def with_second_level(self, flat: Tensor) -> Tensor:
        """Its averages transformed, of coefficients [N, B, 64, h, w]."""
        return torch.cat([self.second(flat[:, :, 0])[:, :, None], flat[:, :, 1:]], 2)

    def dequantise(self, coefficients: Tensor, step: Tensor, missing: Tensor) -> Tensor:
        """Levels [N, B * 64, h, w] in steps of the coarsest layer kept, block averages back in place."""
        return self.with_averages(levels(coefficients, magnitudes(coefficients, step), missing))

    def with_averages(self, kept: Tensor) -> Tensor:
        """Levels [N, B, 64, h, w] -> [N, B * 64, h, w], the second level undone. By floats both ways: on board it goes
        by integers both ways, and what the two differ by would be no error of the quantiser's."""
        n, b, c, h, w = kept.shape
        averages = self.second.inverse(kept[:, :, 0])[:, :, None]
        return torch.cat([averages, kept[:, :, 1:]], 2).reshape(n, b * c, h, w)

    def rebuild(self, levels_: Tensor, bands: int = 4) -> Tensor:
        """Rotated bands in steps. One Neumann step makes up for analysis weights of 7 bits (17 DN rms -> 0.3 DN)."""
        n, _, h, w = levels_.shape
        wanted = levels_.float().reshape(n, bands, -1, h, w)
        first = self.synthesis(wanted)
        return first + self.synthesis(wanted - self.analysis(first))

    def better(self, plain: Tensor, levels_: Tensor, depth: Tensor) -> Tensor:
        """The decoder's picture of levels, and of the picture that they give."""
        with mixed_precision():
            found: Tensor = self.decoder(plain, levels_, depth)
        return found


def augment(rotated: Tensor, rng: np.random.Generator) -> Tensor:
    """The batch turned by a multiple of 90 degrees, half of the time mirrored; every tile shifted against the blocks,
    the mirror image filling what becomes empty, every rotated band negated half of the time."""
    batch = torch.rot90(rotated, int(rng.integers(4)), (2, 3))
    batch = batch.flip(3) if rng.integers(2) else batch
    side, most = batch.shape[3], BLOCK - 1
    wide = functional.pad(batch, (most, 0, most, 0), mode="reflect")
    starts = rng.integers(0, BLOCK, (len(batch), 2)).tolist()
    shifted = torch.stack([w[:, y : y + side, x : x + side] for w, (y, x) in zip(wide, starts, strict=True)])
    return shifted * torch.tensor(rng.choice([-1.0, 1.0], (*batch.shape[:2], 1, 1)), dtype=batch.dtype)


def column(values: Tensor, dims: int = 5) -> Tensor:
    """Values [N] as [N, 1, 1, ...], to be multiplied with tensors of `dims` axes."""
    return values.reshape(-1, *([1] * (dims - 1)))


def distortion(
    model: LappedModel, rotated: Tensor, step: Tensor, missing: Tensor, refined: bool, sent: Tensor | None = None
) -> Tensor:
    """Mean squared error per tile in units of the squared step kept. [N]

    `sent`: levels [N, B * 64, h, w] as they reach the ground; None: those of a sender that leaves out nothing."""
    with torch.no_grad():
        if sent is None:
            sent = model.dequantise(model.coefficients(rotated), column(step), column(missing))
        found = model.rebuild(sent)
    if refined:
        found = model.better(found, sent, column(missing, 4) / 3.0)
    wanted = rotated / column(step * 2.0**missing, 4)
    return ((found - wanted) ** 2).mean((1, 2, 3))


def all_coefficients(pool: Pool, model: LappedModel) -> Tensor:
    """Coefficients of every tile of the pool, [N, B * 64, 16, 16] f32 in DN."""
    with torch.no_grad():
        starts = range(0, len(pool.rotated), 32)
        batches = (torch.tensor(pool.rotated[s : s + 32], dtype=torch.float32) for s in starts)
        return torch.cat([model.coefficients(batch).flatten(1, 2) for batch in batches])


def load_trained(recipe: dict[str, Any], folder: Path) -> LappedModel:
    """The model with the averaged decoder weights of its newest checkpoint. InputError where there is none."""
    for name in ("transform", "decoder"):
        if not (folder / f"{name}.safetensors").is_file():
            raise InputError(
                f"no {name}.safetensors in {folder}; run `python -m export train --recipe {recipe['name']}` first"
            )
    settings = recipe["decoder"]
    model = LappedModel(load_file(folder / "transform.safetensors"), settings["width"], settings["bricks"])
    model.decoder.load_state_dict(averaged_weights(folder / "decoder.safetensors"))
    return model
