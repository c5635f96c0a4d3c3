"""The ground's cloud network: a U-Net in float over averages of 2 x 2 pixels, probabilities of every pixel out.

    reflectance [N, 4, T, T] -> averages, square root [4, T/2] -> 2 x 2 of them side by side [16, T/4]
                             -> U of four levels, T/4 to T/32 -> logits [4, T/2] -> bilinear [4, T] -> softmax

It need not fit on board, so nothing is rounded and every level is convolved in full; the flying network beside it
(network.py) has a sixth of its weights. One kernel of the lowest level spans 1 km at 10 m. Nothing is normalised:
brightness is what tells cloud and shadow, and the statistics of a few tiles would take it away. Instead every block
begins as the identity (Zhang, Dauphin and Ma 2019).
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from payload.clouds.mask import CLASSES

#: Pixels along one cell of input and logits, and cells along one position of what is convolved.
GROUND_CELL_PX, FOLD = 2, 2


class Block(nn.Module):
    """x + two convolutions of 3 x 3, the second of which begins at zero."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.second = (nn.Conv2d(width, width, 3, padding=1) for _ in range(2))
        nn.init.kaiming_normal_(self.first.weight)
        nn.init.zeros_(self.second.weight)
        nn.init.zeros_(self.second.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = x + self.second(torch.relu(self.first(torch.relu(x))))
        return result


class GroundUnet(nn.Module):
    """Square roots of reflectance of cells [N, 4, n, n] -> logits of payload.clouds.mask.CLASSES [N, 4, n, n]."""

    def __init__(self, widths: Sequence[int], more_blocks: int = 0, bands: int = 4) -> None:
        """`more_blocks`: so many on every level but the finest, where they would cost the most."""
        super().__init__()
        self.stem = nn.Conv2d(bands * FOLD**2, widths[0], 3, padding=1)
        steps = list(pairwise(widths))
        self.down = nn.ModuleList(Block(width) for width in widths)
        self.more = nn.ModuleList(nn.Sequential(*(Block(width) for _ in range(more_blocks))) for width in widths[1:])
        self.widen = nn.ModuleList(nn.Conv2d(above, below, 1) for above, below in steps)
        self.narrow = nn.ModuleList(nn.Conv2d(below, above, 1) for above, below in reversed(steps))
        self.up = nn.ModuleList(Block(above) for above, _ in reversed(steps))
        self.head = nn.Conv2d(widths[0], len(CLASSES) * FOLD**2, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.down[0](self.stem(functional.pixel_unshuffle(x, FOLD)))
        passed = [x]
        for widen, block, more in zip(self.widen, self.down[1:], self.more, strict=True):
            x = more(block(widen(functional.max_pool2d(x, 2))))
            passed.append(x)
        passed.pop()
        for narrow, block in zip(self.narrow, self.up, strict=True):
            x = block(passed.pop() + functional.interpolate(narrow(x), scale_factor=2.0, mode="nearest"))
        return functional.pixel_shuffle(self.head(torch.relu(x)), FOLD)


class GroundMaskNetwork(nn.Module):
    """What is shipped: reflectance x 10 000 of pixels [N, 4, T, T] f32 -> probabilities [N, 4, T, T]."""

    def __init__(self, network: GroundUnet) -> None:
        super().__init__()
        self.network = network

    def forward(self, dn: Tensor) -> Tensor:
        cells = functional.avg_pool2d(dn, GROUND_CELL_PX)
        logits = self.network(as_seen(cells))
        wide = functional.interpolate(logits, scale_factor=float(GROUND_CELL_PX), mode="bilinear", align_corners=False)
        return torch.softmax(wide, dim=1)


def as_seen(dn: Tensor) -> Tensor:
    """DN of cells -> what the network takes: the square root of reflectance, 1 at a reflectance of 1."""
    return torch.sqrt(dn * 1e-4)
