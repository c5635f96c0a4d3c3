"""Decoder `best`: the bundle's own decoder network, asked about a tile in all its turns, the answers averaged.

Turned by any of the eight symmetries of the square a tile is as likely as it was, and so the network was trained. Its
errors are not alike each time, and part of them averages out. Nothing is trained here: ground/decoder-best.onnx holds
the weights of ground/decoder.onnx, and is to be written anew whenever that is.

    plain, levels -> eight turns of both -> the network, as a batch -> turned back -> their mean

A turned picture has turned blocks of functions that are even or odd: mirrored rows negate the levels of functions that
are odd down, transposition exchanges rows and columns of functions.
"""

from functools import partial
from pathlib import Path

import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from export.bundle.assemble import with_ground_file
from export.graphs.to_onnx import OPSET, half_weights
from export.lapped.networks import Decoder
from payload.bundle import BEST_DECODER_FILE, Bundle
from payload.codec.interface import DECODER_FILE
from payload.codec.lapped.transform import BLOCK, COEFFICIENTS
from payload.errors import InputError

Turn = tuple[bool, bool, bool]
#: Rows mirrored, columns mirrored, then rows and columns exchanged.
TURNS: tuple[Turn, ...] = tuple((bool(n & 1), bool(n & 2), bool(n & 4)) for n in range(8))
#: Names of the weights in ground/decoder.onnx begin with the one and, in half precision, end with the other.
OWN, HALF = "decoder.", "_half"


class Averaged(nn.Module):
    """The mean of a decoder's answers over TURNS.

    The network has another name here than alone: a ground that knows it by its weights' names, and runs it by hand,
    would take this file for the network itself."""

    def __init__(self, network: Decoder) -> None:
        super().__init__()
        self.asked = network

    def forward(self, plain: Tensor, levels: Tensor, depth: Tensor) -> Tensor:
        """As Decoder, of one tile."""
        pictures = torch.cat([turned(plain, turn) for turn in TURNS])
        answers = self.asked(pictures, torch.cat([turned_levels(levels, turn) for turn in TURNS]), depth)
        back = [turned_back(answers[k : k + 1], turn) for k, turn in enumerate(TURNS)]
        return torch.stack(back).mean(0)


def turned(x: Tensor, turn: Turn) -> Tensor:
    """[..., h, w]."""
    mirrored = _mirrored(x, turn)
    return mirrored.transpose(-1, -2) if turn[2] else mirrored


def turned_back(x: Tensor, turn: Turn) -> Tensor:
    """Inverse of `turned`."""
    return _mirrored(x.transpose(-1, -2) if turn[2] else x, turn)


def turned_levels(levels: Tensor, turn: Turn) -> Tensor:
    """Levels [1, B * 64, h, w] of the turned picture."""
    rows, columns, exchanged = turn
    u, v = torch.arange(COEFFICIENTS) // BLOCK, torch.arange(COEFFICIENTS) % BLOCK
    sign = (1.0 - 2.0 * ((u * rows + v * columns) % 2))[:, None, None]
    by_function = levels.reshape(-1, COEFFICIENTS, *levels.shape[2:]) * sign
    exchanged_functions = by_function[:, v * BLOCK + u] if exchanged else by_function
    return turned(exchanged_functions.reshape(levels.shape), turn)


def _mirrored(x: Tensor, turn: Turn) -> Tensor:
    axes = [axis for axis, asked in ((-2, turn[0]), (-1, turn[1])) if asked]
    return x.flip(axes) if axes else x


def decoder_in(path: Path, bands: int) -> Decoder:
    """The network of a ground/decoder.onnx. InputError where the file holds another."""
    tensors = {}
    for tensor in onnx.load(str(path)).graph.initializer:
        if tensor.name.startswith(OWN):
            name = tensor.name.removeprefix(OWN).removesuffix(HALF)
            tensors[name] = torch.from_numpy(numpy_helper.to_array(tensor).copy()).float()
    try:
        network = Decoder(bands, len(tensors["picture.bias"]), sum(name.endswith("mix.bias") for name in tensors))
        network.load_state_dict(tensors)
    except (KeyError, RuntimeError) as error:
        raise InputError(f"{path}: not the flight codec's decoder network ({error}); no `best` of it") from None
    return network.eval()


def with_best_decoder(bundle: Bundle, out: Path) -> Bundle:
    """The bundle, unsigned, with ground/decoder-best.onnx of its decoder; `out` may be its own folder. Its id stays.
    InputError where it has no decoder network, or another."""
    if DECODER_FILE not in bundle.manifest["files"]:
        raise InputError(f"bundle {bundle.name} has no {DECODER_FILE} to average; its tiles are decoded without")
    averaged = Averaged(decoder_in(bundle.file(DECODER_FILE), len(bundle.bands))).eval()
    return with_ground_file(bundle, BEST_DECODER_FILE, partial(_export, averaged, bundle), {}, out)


def _export(averaged: Averaged, bundle: Bundle, path: Path) -> None:
    bands, tile_px, cells = len(bundle.bands), bundle.tile_px, bundle.tile_px // BLOCK
    levels, depth = torch.zeros(1, bands * COEFFICIENTS, cells, cells), torch.zeros(1, 1, 1, 1)
    torch.onnx.export(
        averaged, (torch.zeros(1, bands, tile_px, tile_px), levels, depth), str(path), opset_version=OPSET,
        dynamo=False, input_names=["plain", "levels", "depth"], output_names=["rotated"],
    )  # fmt: skip
    onnx.save(half_weights(onnx.load(str(path))), str(path))
