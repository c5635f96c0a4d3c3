"""The ground's cloud network: the upper levels of the teacher's, in float, probabilities of every pixel out.

    reflectance [N, 4, T, T] -> averages of 2 x 2 px, standardised [4, T/2]
                             -> EfficientNet-B4 down to cells of 32 px [112, T/32] -> bridge [256, T/32]
                             -> up again, as a U-Net does -> logits [4, T/2] -> bilinear [4, T] -> softmax

`ukis-csmask` 1.0.0 (Wieland, Fichtner, Martinis 2022; Apache-2.0), which teaches (teacher.py), is a U-Net whose
downward path is an EfficientNet-B4 (Tan and Le 2019). It has 19.5 million parameters, of which its lowest levels have
17. Here these are replaced by one convolution, the bridge, and it sees pixels of twice the size: 2.3 million are left,
all but the bridge's as the teacher has them (shortened.py). What it learnt from its own, far larger world stays in it,
and that is what networks that were taught here lacked on sites that they had never seen. Batch normalisation is folded
into the convolutions. It need not fit on board, so nothing but its weights is rounded.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from payload.clouds.mask import CLASSES

#: Pixels along one cell of input and logits.
GROUND_CELL_PX = 2
#: Reflectance of blue, green, red and near infrared, mean and standard deviation, as the teacher's L2A network has it.
MEAN = torch.tensor([0.26681778, 0.27799085, 0.28811995, 0.36494744])[:, None, None]
DEVIATION = torch.tensor([0.33637598, 0.31254559, 0.31114847, 0.27260706])[:, None, None]


class Stage(NamedTuple):
    """Blocks of one width: how many, channels in and out, kernel, stride of the first, how many times wider inside."""

    blocks: int
    taken: int
    given: int
    kernel: int
    stride: int
    wider: int


#: EfficientNet-B4's first four stages, to a sixteenth of the input's side.
STEM = 48
STAGES = (
    Stage(2, 48, 24, 3, 1, 1), Stage(4, 24, 32, 3, 2, 6), Stage(4, 32, 56, 5, 2, 6), Stage(6, 56, 112, 3, 2, 6),
)  # fmt: skip
#: What the bridge gives, and channels of the upward path.
BRIDGE, UP = 256, (128, 64, 32, 16)
#: Kernel and stride where the teacher adds zeros after a picture alone, not on both sides.
ONE_SIDED = (3, 2)


class Padded(nn.Conv2d):
    """A convolution that gives a picture of 1/stride of the side, with zeros where the teacher has them."""

    def __init__(self, taken: int, given: int, kernel: int, stride: int, groups: int = 1) -> None:
        self.one_sided = (kernel, stride) == ONE_SIDED
        super().__init__(taken, given, kernel, stride, 0 if self.one_sided else kernel // 2, groups=groups)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(functional.pad(x, (0, 1, 0, 1)) if self.one_sided else x)


class Block(nn.Module):
    """Inverted residual with squeeze and excitation (Tan and Le 2019)."""

    def __init__(self, stage: Stage, first: bool) -> None:
        super().__init__()
        taken, stride = (stage.taken, stage.stride) if first else (stage.given, 1)
        inside, squeezed = stage.wider * taken, max(1, taken // 4)
        self.expand = nn.Conv2d(taken, inside, 1) if stage.wider > 1 else None
        self.depthwise = Padded(inside, inside, stage.kernel, stride, groups=inside)
        self.squeeze, self.excite = nn.Conv2d(inside, squeezed, 1), nn.Conv2d(squeezed, inside, 1)
        self.project = nn.Conv2d(inside, stage.given, 1)
        self.adds = not first

    def forward(self, x: Tensor) -> Tensor:
        y = x if self.expand is None else functional.silu(self.expand(x))
        y = functional.silu(self.depthwise(y))
        y = y * torch.sigmoid(self.excite(functional.silu(self.squeeze(y.mean((2, 3), keepdim=True)))))
        result: Tensor = x + self.project(y) if self.adds else self.project(y)
        return result


class Level(nn.Module):
    """One step up: twice the side, beside what the way down had there."""

    def __init__(self, taken: int, given: int) -> None:
        super().__init__()
        self.first, self.second = (nn.Conv2d(width, given, 3, padding=1) for width in (taken, given))

    def forward(self, x: Tensor, passed: Tensor | None) -> Tensor:
        x = functional.interpolate(x, scale_factor=2.0, mode="nearest")
        if passed is not None:
            x = torch.cat((x, passed), dim=1)
        result: Tensor = torch.relu(self.second(torch.relu(self.first(x))))
        return result


class GroundUnet(nn.Module):
    """What `as_seen` gives of cells [N, 4, n, n] -> logits of payload.clouds.mask.CLASSES [N, 4, n, n]; n a multiple
    of 16."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = Padded(len(MEAN), STEM, 3, 2)
        self.stages = nn.ModuleList(nn.Sequential(*(Block(s, i == 0) for i in range(s.blocks))) for s in STAGES)
        self.bridge = nn.Conv2d(STAGES[-1].given, BRIDGE, 3, padding=1)
        passed = (*(s.given for s in reversed(STAGES[1:-1])), STEM, 0)
        self.up = nn.ModuleList(Level(a + b, c) for a, b, c in zip((BRIDGE, *UP), passed, UP, strict=False))
        self.head = nn.Conv2d(UP[-1], len(CLASSES), 3, padding=1)

    def down(self, x: Tensor) -> tuple[Tensor, list[Tensor | None]]:
        """The lowest level [N, 112, n/16, n/16], and what the way up takes beside it, coarsest first."""
        x = functional.silu(self.stem(x))
        passed: list[Tensor | None] = [None, x]
        for i, stage in enumerate(self.stages):
            x = stage(x)
            if 0 < i < len(self.stages) - 1:
                passed.append(x)
        return x, passed[::-1]

    def forward(self, x: Tensor) -> Tensor:
        x, passed = self.down(x)
        x = torch.relu(self.bridge(x))
        for level, beside in zip(self.up, passed, strict=True):
            x = level(x, beside)
        logits: Tensor = self.head(x)
        return logits


class GroundMaskNetwork(nn.Module):
    """What is shipped: reflectance x 10 000 of pixels [N, 4, T, T] f32 -> probabilities [N, 4, T, T]."""

    def __init__(self, network: GroundUnet) -> None:
        super().__init__()
        self.network = network

    def forward(self, dn: Tensor) -> Tensor:
        logits = self.network(as_seen(functional.avg_pool2d(dn, GROUND_CELL_PX)))
        wide = functional.interpolate(logits, scale_factor=float(GROUND_CELL_PX), mode="bilinear", align_corners=False)
        return torch.softmax(wide, dim=1)


def as_seen(dn: Tensor) -> Tensor:
    """DN of cells -> what the network takes: reflectance in standard deviations from the mean. [N, 4, n, n]"""
    return (dn * 1e-4 - MEAN) / DEVIATION
