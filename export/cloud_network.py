"""The cloud network: a small U-shaped INT8 net, 10 m pixels in, class logits of 20 m cells out.

    u8 [8, T, T] -> stem 4x4/4 [a, T/4] -> [b, T/8] -> [c, T/16] -> back up, sums with what was passed on the way down
                 -> logits s8 [4 classes x 2 x 2 sub-cells, T/4, T/4]

Sums instead of concatenations, nearest-neighbour up-sampling, depthwise convolutions: what stays INT8 and exact.
"""

from torch import Tensor, nn
from torch.nn import functional

from export.qat_layers import ConvBlock, conv, pixels, relu, signed

CLASSES = 4
STEM_PX = 4


class Residual(nn.Module):
    """relu(conv1x1(relu(depthwise(x))) + x)."""

    def __init__(self, width: int, kernel: int, quantised: bool) -> None:
        super().__init__()
        self.spread = ConvBlock(width, width, kernel, groups=width, quantised=quantised)
        self.mix = ConvBlock(width, width, 1, active=False, quantised=quantised)
        self.act = relu(quantised)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.act(self.mix(self.spread(x)) + x)
        return result


class Merge(nn.Module):
    """What comes from below, twice as large, plus what was passed on the way down, then a depthwise residual."""

    def __init__(self, below: int, width: int, quantised: bool) -> None:
        super().__init__()
        self.narrow = ConvBlock(below, width, 1, quantised=quantised)
        self.skip = ConvBlock(width, width, 1, active=False, quantised=quantised)
        self.act = relu(quantised)
        self.refine = Residual(width, 3, quantised)

    def forward(self, below: Tensor, passed: Tensor) -> Tensor:
        up = functional.interpolate(self.narrow(below), scale_factor=2, mode="nearest")
        result: Tensor = self.refine(self.act(self.skip(passed) + up))
        return result


class CloudUnet(nn.Module):
    """Input planes as integers / 256 [N, planes, T, T] -> logits [N, 4 s s, T/4, T/4], class-major, s = 4 / cell_px."""

    def __init__(self, widths: tuple[int, int, int], planes: int = 8, cell_px: int = 2, quantised: bool = True) -> None:
        super().__init__()
        a, b, c = widths
        q = quantised
        self.pixels = pixels(q)
        self.stem = ConvBlock(planes, a, STEM_PX, STEM_PX, quantised=q)
        self.near = Residual(a, 3, q)
        self.down8 = ConvBlock(a, b, 3, 2, quantised=q)
        self.middle = nn.Sequential(Residual(b, 3, q), Residual(b, 3, q))
        self.down16 = nn.Sequential(ConvBlock(b, b, 3, 2, groups=b, quantised=q), ConvBlock(b, c, 1, quantised=q))
        self.far = nn.Sequential(Residual(c, 5, q), Residual(c, 5, q), Residual(c, 5, q))
        self.up8 = Merge(c, b, q)
        self.up4 = Merge(b, a, q)
        self.head = conv(a, CLASSES * (STEM_PX // cell_px) ** 2, 1, quantised=q)
        self.logits = signed(q)

    def forward(self, x: Tensor) -> Tensor:
        x4 = self.near(self.stem(self.pixels(x)))
        x8 = self.middle(self.down8(x4))
        x16 = self.far(self.down16(x8))
        result: Tensor = self.logits(self.head(self.up4(self.up8(x16, x8), x4)))
        return result


def as_cells(logits: Tensor, cell_px: int = 2) -> Tensor:
    """Logits [N, 4 s s, h, w] -> one set per cell [N, 4, h s, w s]; the twin of payload.clouds.probabilities."""
    return functional.pixel_shuffle(logits, STEM_PX // cell_px)


def macs_per_pixel(network: CloudUnet, size_px: int = 64) -> float:
    """Multiply-accumulates per input pixel, counted from the layers' real output sizes."""
    import torch

    total = 0.0
    hooks = []

    def count(layer: nn.Module, _: tuple[Tensor, ...], out: Tensor) -> None:
        nonlocal total
        weight = layer.weight
        total += float(weight[0].numel() * out.shape[1] * out.shape[2] * out.shape[3])  # type: ignore[union-attr,index]

    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            hooks.append(module.register_forward_hook(count))
    with torch.no_grad():
        network(torch.zeros(1, network.stem.conv.in_channels, size_px, size_px))
    for hook in hooks:
        hook.remove()
    return total / size_px**2
