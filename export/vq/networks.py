"""The networks of the field's reference system, CORSA's VQVAE-FPN-3 (VITO): three maps of latents through a pyramid.

    int8 planes [B, T, T] -> stride 2 -> 4 -> 8            encoder, INT8, flies
                               |    |    |
      latents z2 <- sum <- up--+----+-- sum <- up -- z8    top-down path: sums, nearest-neighbour up-sampling
    codebook vectors q8, q4, q2 -> decoder -> [B, T, T]    float, stays on the ground

Maps go the coarsest stride first everywhere: z8, z4, z2. The published pyramid is rebuilt from its description; where
it concatenates, this one adds, which stays INT8 and exact. Latents and codebooks are int8.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from brevitas.nn import QuantIdentity
from torch import Tensor, nn
from torch.nn import functional

from export.graphs.qat_layers import PlaneScale, conv, relu
from export.lapped.networks import Residual

#: int8 steps of a unit inside the network: input planes, latents. Powers of two, so that no rounding is added.
PLANE_STEPS, LATENT_STEPS = 8.0, 32.0
INT8_LIMIT = 127.0
#: What most ground looks like on input planes (about 1 000 DN); where biases start.
USUAL_PLANE = -110.0


def integers(quantised: bool, inside: bool) -> nn.Module:
    """int8 values in f32 as they are; `inside` the network (its input) or leaving it (its latents)."""
    if not quantised:
        return nn.Hardtanh(-INT8_LIMIT - 1, INT8_LIMIT)
    return QuantIdentity(act_quant=PlaneScale, return_quant_tensor=inside)


class Brick(nn.Module):
    """relu(conv3x3(x) + x): a residual whose sum is not quantised before its ReLU."""

    def __init__(self, width: int, quantised: bool) -> None:
        super().__init__()
        self.mix = conv(width, width, 3, quantised=quantised)
        self.act = relu(quantised)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.act(self.mix(x) + x)
        return result


class Join(nn.Module):
    """One step of the top-down path: what comes from below twice as large, plus what was passed on the way down."""

    def __init__(self, below: int, width: int, quantised: bool) -> None:
        super().__init__()
        self.narrow = conv(below, width, 1, quantised=quantised)
        self.narrow_act = relu(quantised)
        self.lateral = conv(width, width, 1, quantised=quantised)
        self.act = relu(quantised)

    def forward(self, below: Tensor, passed: Tensor) -> Tensor:
        up = functional.interpolate(self.narrow_act(self.narrow(below)), scale_factor=2, mode="nearest")
        result: Tensor = self.act(self.lateral(passed) + up)
        return result


class Encoder(nn.Module):
    """Input planes [N, B, T, T] of int8 values -> latents of int8 values [N, D, h, w] at strides 8, 4, 2.

    The stem is a 2 x 2 patch without margin: beyond the edge of a tile there is nothing, not a bright zero.
    """

    def __init__(self, bands: int, widths: Sequence[int], depth: int, quantised: bool) -> None:
        super().__init__()
        q, (a, b, c) = quantised, widths
        self.planes = integers(q, inside=True)
        self.stem, self.stem_act, self.near = conv(bands, a, 2, 2, quantised=q), relu(q), Brick(a, q)
        self.down4, self.act4, self.middle = conv(a, b, 3, 2, quantised=q), relu(q), Brick(b, q)
        self.down8, self.act8, self.far = conv(b, c, 3, 2, quantised=q), relu(q), Brick(c, q)
        self.join4, self.join2 = Join(c, b, q), Join(b, a, q)
        self.head8, self.head4, self.head2 = (conv(width, depth, 1, quantised=q) for width in (c, b, a))
        self.latents8, self.latents4, self.latents2 = (integers(q, inside=False) for _ in range(3))
        with torch.no_grad():
            self.stem.weight.mul_(1 / PLANE_STEPS)
            self.stem.bias.sub_(USUAL_PLANE * self.stem.weight.sum((1, 2, 3)))  # type: ignore[union-attr]
            for head in (self.head8, self.head4, self.head2):
                head.weight.mul_(LATENT_STEPS)

    def forward(self, planes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x2 = self.near(self.stem_act(self.stem(self.planes(planes))))
        x4 = self.middle(self.act4(self.down4(x2)))
        x8 = self.far(self.act8(self.down8(x4)))
        p4 = self.join4(x8, x4)
        p2 = self.join2(p4, x2)
        return self.latents8(self.head8(x8)), self.latents4(self.head4(p4)), self.latents2(self.head2(p2))


class Decoder(nn.Module):
    """Codebook vectors by stride, in int8 steps -> bands [N, B, T, T] in steps of the input planes.

    A map of zeros stands for indices that did not arrive.
    """

    def __init__(self, bands: int, widths: Sequence[int], bricks: Sequence[int], depth: int) -> None:
        super().__init__()
        a, b, c = widths
        self.in8, self.in4, self.in2 = (nn.Conv2d(depth, w, 3, padding=1) for w in (c, b, a))
        self.up8, self.up4 = nn.Conv2d(c, b, 1), nn.Conv2d(b, a, 1)
        self.far, self.middle, self.near = (
            nn.Sequential(*(Residual(w) for _ in range(n))) for w, n in ((c, bricks[2]), (b, bricks[1]), (a, bricks[0]))
        )
        self.out = nn.Conv2d(a, 4 * bands, 3, padding=1)
        nn.init.constant_(self.out.bias, USUAL_PLANE / PLANE_STEPS)  # type: ignore[arg-type]

    def forward(self, q8: Tensor, q4: Tensor, q2: Tensor) -> Tensor:
        h8 = self.far(self.in8(q8 / LATENT_STEPS))
        h4 = self.middle(self.in4(q4 / LATENT_STEPS) + _twice(self.up8(h8)))
        h2 = self.near(self.in2(q2 / LATENT_STEPS) + _twice(self.up4(h4)))
        return functional.pixel_shuffle(self.out(functional.relu(h2)), 2) * PLANE_STEPS


def _twice(x: Tensor) -> Tensor:
    return functional.interpolate(x, scale_factor=2, mode="nearest")


def build(recipe: Mapping[str, Any], quantised: bool) -> tuple[Encoder, Decoder]:
    """Untrained networks of a recipe."""
    bands, depth = len(recipe["bands"]), int(recipe["depth"])
    encoder = Encoder(bands, recipe["encoder"], depth, quantised)
    return encoder, Decoder(bands, recipe["decoder"], recipe["bricks"], depth)
