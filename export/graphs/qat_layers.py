"""Layers for quantisation-aware training that stay bit-exact from torch to every runtime ("po2w7").

Takes nothing, gives layers. The recipe: 7-bit narrow-range weights per output channel and 8-bit activations per tensor,
every scale a power of two, biases of 32 bits on the scale of the accumulator. Why these: 8-bit weights overflow the
16-bit pair sums of x86 cores without VNNI, and a scale that is not a power of two makes the last bit depend on the
order of roundings. `export.graphs.to_onnx` refuses a network that breaks the recipe.

Every maker takes `quantised`: False gives torch's own layer of the same parameter names, quick to train. A network is
trained in float first, then built again quantised, `fold_into` copies the weights (batch norms folded away),
`calibrate` sets the activation scales, and training goes on with the rounding in the loop.

A residual must be written `relu(conv(x) + x)` with an unquantised sum: a shared signed quantiser on both arms costs
speed and exactness.
"""

from collections.abc import Iterable

import torch
from brevitas.core.function_wrapper import CeilSte
from brevitas.core.restrict_val import RestrictValueType
from brevitas.graph.calibrate import calibration_mode
from brevitas.nn import QuantConv2d, QuantIdentity, QuantReLU
from brevitas.quant import (
    Int8ActPerTensorFixedPoint,
    Int8WeightPerChannelFloat,
    Int32Bias,
    Uint8ActPerTensorFixedPoint,
)
from torch import Tensor, nn

from payload.errors import InputError

WEIGHT_BITS = 7
#: u8 inputs are fed as integer / 256: scale 2^-8, nothing to learn.
INPUT_SCALE = 2.0**-8


class Po2Weight(Int8WeightPerChannelFloat):
    """7 bits, one power-of-two scale per output channel, rounded up so that no weight clips."""

    bit_width = WEIGHT_BITS
    restrict_scaling_type = RestrictValueType.POWER_OF_TWO
    restrict_value_float_to_int_impl = CeilSte


class PixelScale(Uint8ActPerTensorFixedPoint):
    """u8 as the payload hands it over, on the fixed scale INPUT_SCALE."""

    scaling_impl_type = "const"
    scaling_init = 255 * INPUT_SCALE


class PlaneScale(Int8ActPerTensorFixedPoint):
    """Integers -128..127 as they are: scale 1."""

    scaling_impl_type = "const"
    scaling_init = 128.0


def conv(
    inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1, bias: bool = True, quantised: bool = True
) -> nn.Conv2d:
    """A convolution that divides the size by `stride`; a patch stem (kernel = stride) has no margin."""
    padding = 0 if kernel == stride else (kernel - 1) // 2
    if not quantised:
        return nn.Conv2d(inputs, outputs, kernel, stride, padding, groups=groups, bias=bias)
    return QuantConv2d(
        inputs, outputs, kernel, stride=stride, padding=padding, groups=groups, bias=bias,
        weight_quant=Po2Weight, bias_quant=Int32Bias if bias else None, return_quant_tensor=False,
    )  # fmt: skip


def relu(quantised: bool = True) -> nn.Module:
    """ReLU into u8; closes a convolution or a residual (unquantised sum in, u8 out)."""
    return QuantReLU(act_quant=Uint8ActPerTensorFixedPoint, return_quant_tensor=True) if quantised else nn.ReLU()


def signed(quantised: bool = True) -> nn.Module:
    """A signed 8-bit activation on a power-of-two scale: latents, logits."""
    if not quantised:
        return nn.Identity()
    return QuantIdentity(act_quant=Int8ActPerTensorFixedPoint, return_quant_tensor=False)


def pixels(quantised: bool = True) -> nn.Module:
    """The u8 input on its fixed scale: feed integers times INPUT_SCALE."""
    return QuantIdentity(act_quant=PixelScale, return_quant_tensor=True) if quantised else nn.Identity()


class ConvBlock(nn.Module):
    """convolution, batch norm, activation. Quantised, the batch norm has been folded into the convolution.

    `active` False leaves the sum open for a residual.
    """

    def __init__(
        self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1, active: bool = True,
        quantised: bool = True,
    ) -> None:  # fmt: skip
        super().__init__()
        self.conv = conv(inputs, outputs, kernel, stride, groups, bias=quantised, quantised=quantised)
        self.norm = nn.Identity() if quantised else nn.BatchNorm2d(outputs, momentum=0.02)
        self.act = relu(quantised) if active else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.act(self.norm(self.conv(x)))
        return result


def fold_into(quantised: nn.Module, trained: nn.Module) -> None:
    """Copies the weights of a float network into its quantised twin, batch norms folded into the convolutions."""
    twins = dict(trained.named_modules())
    for name, module in quantised.named_modules():
        twin = twins.get(name)
        if isinstance(module, ConvBlock) and isinstance(twin, ConvBlock):
            _fold(module.conv, twin.conv, twin.norm)
        elif isinstance(module, QuantConv2d) and not name.endswith(".conv"):
            if not isinstance(twin, nn.Conv2d):
                raise InputError(f"layer {name} has no float twin; build both networks from the same class")
            module.load_state_dict(twin.state_dict(), strict=False)


def _fold(into: nn.Conv2d, conv_: nn.Conv2d, norm: nn.Module) -> None:
    if not isinstance(norm, nn.BatchNorm2d) or norm.running_var is None or norm.running_mean is None:
        raise InputError("the float network has no batch norm to fold; build it with quantised=False")
    with torch.no_grad():
        gain = norm.weight / torch.sqrt(norm.running_var + norm.eps)
        into.weight.copy_(conv_.weight * gain[:, None, None, None])
        if into.bias is not None:
            into.bias.copy_(norm.bias - norm.running_mean * gain)


def calibrate(network: nn.Module, batches: Iterable[Tensor]) -> None:
    """Sets every activation scale from `batches`; the network is left in training mode."""
    network.eval()
    with torch.no_grad(), calibration_mode(network):
        for batch in batches:
            network(batch)
    network.train()
