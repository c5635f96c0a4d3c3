"""A trained system -> the files of its bundle: encoder, codebooks, decoder."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch

from export.graphs.to_onnx import OPSET, export_qcdq, half_weights
from export.vq.model import Corsa
from export.vq.networks import Decoder, Encoder


def export_encoder(encoder: Encoder, recipe: Mapping[str, Any], path: Path) -> onnx.ModelProto:
    """flight/encoder.onnx: planes f32 [1, B, T, T] of int8 values -> latents f32 of int8 values.

    The float input keeps its quantiser: with an integer input of scale 1 OpenVINO folds it and runs in float."""
    side = int(recipe["tile_px"])
    example = torch.randint(-128, 128, (1, len(recipe["bands"]), side, side)).float()
    names = [f"latents{stride}" for stride in recipe["strides"]]
    return export_qcdq(encoder, example, path, (("planes",), names))


def export_decoder(decoder: Decoder, recipe: Mapping[str, Any], path: Path) -> None:
    """ground/decoder.onnx in f32 arithmetic, weights stored in half precision."""
    depth, side = int(recipe["depth"]), int(recipe["tile_px"])
    example = tuple(torch.zeros(1, depth, side // stride, side // stride) for stride in recipe["strides"])
    torch.onnx.export(
        decoder.eval(), example, str(path), opset_version=OPSET, dynamo=False,
        input_names=[f"vectors{stride}" for stride in recipe["strides"]], output_names=["planes"],
    )  # fmt: skip
    onnx.save(half_weights(onnx.load(str(path))), str(path))


def write_codebooks(path: Path, system: Corsa, strides: Sequence[int]) -> None:
    """flight/tables.npz as payload/codec/vq/codebooks.py reads it: int8 codebooks [K, D], the normalisation in DN."""
    arrays: dict[str, Any] = {"mean_dn": system.mean_dn.numpy(), "scale_dn": system.scale_dn.numpy()}
    for k, book in enumerate(system.codebooks):
        arrays[f"book{k}"] = book.used(whole=True).numpy().astype(np.int8)
    np.savez_compressed(path, strides=np.array(strides, np.int32), **arrays)
