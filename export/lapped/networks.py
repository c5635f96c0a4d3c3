"""The codec's networks: the INT8 encoder that flies and the decoder that stays on the ground."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from export.lapped.transform import dct_matrix
from payload.codec.lapped.transform import BLOCK, COEFFICIENTS

#: Side in pixels of what the decoder takes as one place, and the steps that detail stays below.
CELL, SOFT = 4, 8.0


def space_to_depth(rotated: Tensor) -> Tensor:
    """Bands [N, B, T, T] -> blocks [N * B, 64, T/8 + 1, T/8 + 1], edges extended by half a block of mirror image."""
    n, b, t, _ = rotated.shape
    half = BLOCK // 2
    index = torch.cat([torch.arange(half).flip(0), torch.arange(t), torch.arange(t - half, t).flip(0)])
    wide = rotated[:, :, index][:, :, :, index].reshape(n * b, 1, t + BLOCK, t + BLOCK)
    return functional.pixel_unshuffle(wide, BLOCK)


class Analysis(nn.Module):
    """Lapped block transform: rotated bands [N, B, T, T] -> coefficients [N, B, 64, T/8, T/8] in DN."""

    def __init__(self, kernels: Tensor) -> None:
        super().__init__()
        self.kernels = nn.Parameter(kernels)  # [64, 64, 2, 2]

    def forward(self, rotated: Tensor) -> Tensor:
        n, b, t, _ = rotated.shape
        flat = functional.conv2d(space_to_depth(rotated), self.kernels)
        return flat.reshape(n, b, COEFFICIENTS, t // BLOCK, t // BLOCK)


class Synthesis(nn.Module):
    """Inverse of Analysis: coefficients [N, B, 64, h, w] -> rotated bands [N, B, 8h, 8w]."""

    def __init__(self, functions: Tensor) -> None:
        super().__init__()
        self.functions = nn.Parameter(functions)  # [64, 64, 2, 2]

    def forward(self, coefficients: Tensor) -> Tensor:
        n, b, c, h, w = coefficients.shape
        flat = functional.conv_transpose2d(coefficients.reshape(n * b, c, h, w), self.functions)
        wide = functional.pixel_shuffle(flat, BLOCK)  # [N * B, 1, 8h + 8, 8w + 8]
        return _fold(_fold(wide, 2), 3).reshape(n, b, BLOCK * h, BLOCK * w)


def _fold(wide: Tensor, axis: int) -> Tensor:
    """What the mirror image beyond an edge received belongs to the pixels it mirrors."""
    half, size = BLOCK // 2, wide.shape[axis] - BLOCK
    outer = wide.narrow(axis, 0, half).flip(axis), wide.narrow(axis, half + size, half).flip(axis)
    first = wide.narrow(axis, half, half) + outer[0]
    last = wide.narrow(axis, size, half) + outer[1]
    return torch.cat([first, wide.narrow(axis, BLOCK, size - BLOCK), last], axis)


class SecondLevel(nn.Module):
    """8 x 8 DCT over the block averages: coefficient 0 of each band, [N, B, h, w] <-> its transform in place."""

    dct: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("dct", torch.tensor(dct_matrix(BLOCK), dtype=torch.float32))

    def forward(self, dc: Tensor) -> Tensor:
        return self._both_ways(dc, self.dct)

    def inverse(self, dc: Tensor) -> Tensor:
        return self._both_ways(dc, self.dct.T)

    @staticmethod
    def _both_ways(dc: Tensor, m: Tensor) -> Tensor:
        n, b, h, w = dc.shape
        rows = m @ dc.reshape(n, b, h // BLOCK, BLOCK, w)
        columns = rows.reshape(n, b, h, w // BLOCK, BLOCK) @ m.T
        return columns.reshape(n, b, h, w)


class Residual(nn.Module):
    """x + conv1x1(relu(conv3x3(relu(x)))), the decoder's only brick."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.spread = nn.Conv2d(width, width, 3, padding=1)
        self.mix = nn.Conv2d(width, width, 1)
        nn.init.zeros_(self.mix.weight)
        nn.init.zeros_(self.mix.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        return x + self.mix(functional.relu(self.spread(functional.relu(x))))


class Decoder(nn.Module):
    """The picture that levels give -> a better one, in units of the quantiser step: one network serves all rates.

    plain [N, B, T, T]: rotated bands in steps, the transform undone; levels [N, B * 64, T/8, T/8]: what it was undone
    of, which tells what the picture no longer does: where nothing was sent; depth [N, 1, 1, 1]: how many layers were
    not, 0..1. All bricks run on cells of 4 x 4 pixels.
    """

    def __init__(self, bands: int, width: int, bricks: int) -> None:
        super().__init__()
        self.picture = nn.Conv2d(bands * CELL**2, width, 1)
        self.near = nn.Conv2d(bands * COEFFICIENTS, width * (BLOCK // CELL) ** 2, 1, bias=False)
        self.depth = nn.Linear(1, width)
        self.trunk = nn.Sequential(*(Residual(width) for _ in range(bricks)))
        self.out = nn.Conv2d(width, bands * CELL**2, 1)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)  # type: ignore[arg-type]

    def forward(self, plain: Tensor, levels: Tensor, depth: Tensor) -> Tensor:
        x = self.picture(bounded_detail(plain)) + self.depth(depth.flatten(1))[:, :, None, None]
        x = x + functional.pixel_shuffle(self.near(levels.clamp(-2, 2)), BLOCK // CELL)
        correction = self.out(functional.relu(self.trunk(x)))
        return plain + functional.pixel_shuffle(correction.float(), CELL)


def bounded_detail(plain: Tensor) -> Tensor:
    """Cells [N, B * 16, T/4, T/4] of a picture: how far pixels are off the mean around, bent to stay below SOFT."""
    n, b, t, _ = plain.shape
    cells = functional.pixel_unshuffle(plain, CELL).reshape(n, b, CELL**2, t // CELL, t // CELL)
    means = functional.pad(cells.mean(2), (1, 1, 1, 1), mode="replicate")
    detail = cells - functional.avg_pool2d(means, 3, stride=1)[:, :, None]
    return (detail / (1 + detail.abs() / SOFT)).flatten(1, 2)
