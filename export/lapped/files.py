"""Checkpoints of a recipe -> the files of its bundle: encoder, context tables, decoder.

What the encoder file computes is exactly what training saw: the 7-bit integers of the transform, on int8 input planes.
"""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from brevitas.nn import QuantConv2d, QuantIdentity
from brevitas.quant import Int8ActPerTensorFixedPoint
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from safetensors.torch import load_file
from torch import Tensor, nn

from export.graphs.qat_layers import Po2Weight
from export.graphs.to_onnx import OPSET, export_qcdq
from export.lapped.networks import COEFFICIENTS
from export.lapped.train import Codec, kernels_of
from payload.errors import InputError

#: Initialisers larger than this are stored in half precision and widened when the network is loaded.
HALF_ABOVE = 1024


class PlaneScale(Int8ActPerTensorFixedPoint):
    """Integers -128..127 as they are: scale 1."""

    scaling_impl_type = "const"
    scaling_init = 128.0


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


class GroundDecoder(nn.Module):
    """Levels of a tile -> rotated bands in steps: residual network, synthesis, one Neumann step."""

    def __init__(self, codec: Codec, bands: int) -> None:
        super().__init__()
        self.codec, self.bands = codec, bands

    def forward(self, levels: Tensor, depth: Tensor) -> Tensor:
        return self.codec.rebuild(self.codec.decoder(levels, depth), self.bands)


def export_encoder(transform: dict[str, Tensor], bands: int, tile_px: int, path: Path) -> None:
    """flight/encoder.onnx for tiles of `tile_px`: planes [2B, 64, T/8 + 1, T/8 + 1] -> latents, f32.

    The planes hold int8 values in f32: with an integer input of scale 1 OpenVINO folds the quantiser away and runs in
    float."""
    cells = tile_px // 8 + 1
    example = torch.randint(-128, 128, (2 * bands, COEFFICIENTS, cells, cells)).float()
    encoder = FlightEncoder(kernels_of(transform))
    export_qcdq(encoder, example, path, (("planes",), ("latents",)))


def export_decoder(codec: Codec, bands: int, tile_px: int, path: Path) -> None:
    """ground/decoder.onnx in f32 arithmetic, weights stored in half precision."""
    cells = tile_px // 8
    example = (torch.zeros(1, bands * COEFFICIENTS, cells, cells), torch.zeros(1, 1, 1, 1))
    torch.onnx.export(
        GroundDecoder(codec, bands).eval(), example, str(path), opset_version=OPSET, dynamo=False,
        input_names=["levels", "depth"], output_names=["rotated"],
    )  # fmt: skip
    onnx.save(half_weights(onnx.load(str(path))), str(path))


def half_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with large f32 initialisers stored as f16 behind a Cast; runtimes fold it when they load."""
    graph = model.graph
    casts = []
    for tensor in [t for t in graph.initializer if t.data_type == TensorProto.FLOAT]:
        values = numpy_helper.to_array(tensor)
        if values.size <= HALF_ABOVE:
            continue
        half: NDArray[Any] = values.astype(np.float16)
        graph.initializer.remove(tensor)
        graph.initializer.append(numpy_helper.from_array(half, tensor.name + "_half"))
        casts.append(helper.make_node("Cast", [tensor.name + "_half"], [tensor.name], to=TensorProto.FLOAT))
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    onnx.checker.check_model(model)
    return model


def trained_codec(recipe: dict[str, Any], out: Path) -> tuple[Codec, dict[str, Tensor]]:
    """The codec with the averaged decoder weights of its newest checkpoint."""
    for name in ("transform", "decoder"):
        if not (out / f"{name}.safetensors").is_file():
            raise InputError(
                f"no {name}.safetensors in {out}; run `python -m export train --recipe {recipe['name']}` first"
            )
    transform = load_file(out / "transform.safetensors")
    codec = Codec(transform, recipe["decoder"]["width"], recipe["decoder"]["bricks"])
    tensors = load_file(out / "decoder.safetensors")
    codec.decoder.load_state_dict({k.removeprefix("mean."): v for k, v in tensors.items() if k.startswith("mean.")})
    return codec, transform
