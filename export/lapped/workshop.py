"""The flight codec's answers to the workshop (export/workshops.py): stages, checkpoints, files of its bundle."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file

from export.data import load_pool
from export.lapped import train as stages
from export.lapped.context_tables import macs_per_px
from export.lapped.files import FlightEncoder, export_decoder, export_encoder
from export.lapped.model import kernels_of, load_trained
from export.workshops import Parts, TorchModel
from payload.errors import InputError

CHECKPOINTS = ("transform.safetensors", "decoder.safetensors")
TABLES = "tables.npz"
NEEDED = (*CHECKPOINTS, TABLES)
STAGES = ("transform", "context", "tables", "decoder", "keep")


def train(recipe: dict[str, Any], stage: str, out: Path, pool: Path | None, fresh: bool) -> None:
    """Goes on from the checkpoints that came with the repository where `out` has none of its own."""
    if stage == "keep":
        return stages.keep_checkpoints(recipe, out)
    tiles = load_pool(recipe["bands"], recipe["compand"], pool)
    out.mkdir(parents=True, exist_ok=True)
    if fresh:
        stages.forget_checkpoints(out)
    else:
        stages.fetch_checkpoints(recipe, out)
    steps = {
        "transform": lambda: stages.train_transform(tiles, out),
        "context": lambda: stages.train_context_stage(tiles, recipe, out),
        "tables": lambda: stages.write_tables(tiles, recipe, out),
        "decoder": lambda: stages.train_decoder(tiles, recipe, out),
    }
    for name, step in steps.items():
        if stage in (name, "all"):
            step()
    return None


def parts(recipe: dict[str, Any], folder: Path, scratch: Path) -> Parts:
    model, transform = load_trained(recipe, folder), load_file(folder / CHECKPOINTS[0])
    bands, tile_px = len(recipe["bands"]), int(recipe["tile_px"])
    export_encoder(transform, bands, tile_px, scratch / "encoder.onnx")
    export_decoder(model, bands, tile_px, scratch / "decoder.onnx")
    codec = {
        "kind": recipe["kind"],
        "layers": recipe.get("layers", 1),
        "compand": recipe["compand"],
        "coarsest_step_dn": recipe["context"]["step_dn"][1],
        "entropy_macs_per_px": macs_per_px(folder / TABLES),
    }
    files = {
        "flight/encoder.onnx": scratch / "encoder.onnx",
        "flight/tables.npz": folder / TABLES,
        "ground/decoder.onnx": scratch / "decoder.onnx",
    }
    return Parts(files, codec, "none: the encoder's input planes are int8 as they are")


def torch_encoder(recipe: dict[str, Any], folder: Path) -> TorchModel:
    path = folder / CHECKPOINTS[0]
    if not path.is_file():
        raise InputError(f"{path}: no such checkpoint; give the folder that training wrote")
    encoder = FlightEncoder(kernels_of(load_file(path))).eval()

    def run(*arrays: NDArray[Any]) -> list[NDArray[Any]]:
        with torch.no_grad():
            return [encoder(torch.from_numpy(arrays[0].astype(np.float32))).numpy()]

    return run
