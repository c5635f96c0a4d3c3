"""Checkpoints of a recipe -> the files of its bundle: encoder, context tables, decoder.

What the encoder file computes is exactly what training saw: the 7-bit integers of the transform, on int8 input planes.
"""

from pathlib import Path

import onnx
import torch
from brevitas.nn import QuantConv2d, QuantIdentity
from torch import Tensor, nn

from export.graphs.qat_layers import PlaneScale, Po2Weight
from export.graphs.to_onnx import OPSET, export_qcdq, half_weights
from export.lapped.model import LappedModel, kernels_of
from payload.codec.lapped.transform import COEFFICIENTS


class FlightEncoder(nn.Module):
    """The lapped transform over int8 planes, weights on the power-of-two grid they were trained on."""

    def __init__(self, kernels: Tensor) -> None:
        super().__init__()
        self.planes = QuantIdentity(act_quant=PlaneScale, return_quant_tensor=True)
        self.transform = QuantConv2d(
            COEFFICIENTS, COEFFICIENTS, 2, bias=False, weight_quant=Po2Weight, return_quant_tensor=False
        )
        with torch.no_grad():
            self.transform.weight.copy_(kernels)

    def forward(self, planes: Tensor) -> Tensor:
        result: Tensor = self.transform(self.planes(planes))
        return result


class NamedDecoder(nn.Module):
    """The decoder under the name that its weights have in the file."""

    def __init__(self, decoder: nn.Module) -> None:
        super().__init__()
        self.decoder = decoder

    def forward(self, plain: Tensor, levels: Tensor, depth: Tensor) -> Tensor:
        found: Tensor = self.decoder(plain, levels, depth)
        return found


def export_encoder(transform: dict[str, Tensor], bands: int, tile_px: int, path: Path) -> None:
    """flight/encoder.onnx for tiles of `tile_px`: planes [2B, 64, T/8 + 1, T/8 + 1] -> latents, f32.

    The planes hold int8 values in f32: with an integer input of scale 1 OpenVINO folds the quantiser away and runs in
    float."""
    cells = tile_px // 8 + 1
    example = torch.randint(-128, 128, (2 * bands, COEFFICIENTS, cells, cells)).float()
    encoder = FlightEncoder(kernels_of(transform))
    export_qcdq(encoder, example, path, (("planes",), ("latents",)))


def export_decoder(model: LappedModel, bands: int, tile_px: int, path: Path) -> None:
    """ground/decoder.onnx in f32 arithmetic, weights stored in half precision: a picture in steps, its levels and how
    many layers are missing -> a better picture."""
    cells = tile_px // 8
    levels, depth = torch.zeros(1, bands * COEFFICIENTS, cells, cells), torch.zeros(1, 1, 1, 1)
    torch.onnx.export(
        NamedDecoder(model.decoder).eval(), (torch.zeros(1, bands, tile_px, tile_px), levels, depth), str(path),
        opset_version=OPSET, dynamo=False, input_names=["plain", "levels", "depth"], output_names=["rotated"],
    )  # fmt: skip
    onnx.save(half_weights(onnx.load(str(path))), str(path))
