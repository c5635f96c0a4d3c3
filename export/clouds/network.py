"""The cloud network: a small U-shaped INT8 net over averages of 4 x 4 pixels, class logits of cells of 4 px out.

    u8 [12, T/4, T/4] -> stem 2x2/2 [a, T/8] -> [b, T/16] -> [b, T/32] -> back up, sums with what was passed on
                      -> logits s8 [4 classes x 2 x 2 sub-cells, T/8, T/8]

At 10 m pixels the lowest level sees 320 m a cell and 1.6 km a kernel: even cloud is told from even ground by what lies
around it. Sums instead of concatenations, nearest-neighbour up-sampling, depthwise convolutions: what stays INT8 and
exact. Nothing runs at more than an eighth of the tile's size: on a processor without VNNI the time goes into moving
activations, not into products.
"""

from torch import Tensor, nn
from torch.nn import functional

from export.graphs.qat_layers import ConvBlock, conv, pixels, relu, signed
from payload.clouds.mask import CLASSES

#: Input samples along one position of the stem, and cells along one position of the logits.
STEM = 2
#: Pixels along one cell.
CELL_PX = 4


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
    """What comes from below, twice as large, plus what was passed on the way down."""

    def __init__(self, below: int, width: int, quantised: bool) -> None:
        super().__init__()
        self.narrow = ConvBlock(below, width, 1, quantised=quantised)
        self.skip = ConvBlock(width, width, 1, active=False, quantised=quantised)
        self.act = relu(quantised)

    def forward(self, below: Tensor, passed: Tensor) -> Tensor:
        up = functional.interpolate(self.narrow(below), scale_factor=2, mode="nearest")
        result: Tensor = self.act(self.skip(passed) + up)
        return result


class CloudUnet(nn.Module):
    """Input planes as integers / 256 [N, planes, n, n] -> logits [N, 4 s s, n/2, n/2], class-major, s = 2."""

    def __init__(self, widths: tuple[int, int], planes: int = 12, quantised: bool = True, stem: int = STEM) -> None:
        super().__init__()
        a, b = widths
        q = quantised
        self.pixels = pixels(q)
        self.stem = ConvBlock(planes, a, stem, stem, quantised=q)
        self.near = Residual(a, 3, q)
        self.down16 = nn.Sequential(ConvBlock(a, a, 3, 2, groups=a, quantised=q), ConvBlock(a, b, 1, quantised=q))
        self.middle = nn.Sequential(Residual(b, 5, q), Residual(b, 5, q))
        self.down32 = ConvBlock(b, b, 3, 2, groups=b, quantised=q)
        self.far = Residual(b, 5, q)
        self.up16 = Merge(b, b, q)
        self.up8 = Merge(b, a, q)
        self.refine = Residual(a, 3, q)
        self.head = conv(a, len(CLASSES) * stem**2, 1, quantised=q)
        self.logits = signed(q)

    def forward(self, x: Tensor) -> Tensor:
        x8 = self.near(self.stem(self.pixels(x)))
        x16 = self.middle(self.down16(x8))
        x32 = self.far(self.down32(x16))
        result: Tensor = self.logits(self.head(self.refine(self.up8(self.up16(x32, x16), x8))))
        return result


def as_cells(logits: Tensor) -> Tensor:
    """Logits [N, 4 s s, h, w] -> one set per cell [N, 4, h s, w s]; the twin of payload.clouds.mask.CloudMask.cells."""
    return functional.pixel_shuffle(logits, STEM)


def macs_per_pixel(network: CloudUnet, size_px: int = 128) -> float:
    """Multiply-accumulates per pixel of the tile, counted from the layers' real output sizes."""
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
        network(torch.zeros(1, network.stem.conv.in_channels, size_px // CELL_PX, size_px // CELL_PX))
    for hook in hooks:
        hook.remove()
    return total / size_px**2
