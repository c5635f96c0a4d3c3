"""The reference system's answers to the workshop (export/workshops.py): three codebooks, indices of fixed length."""

from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray

from export.data import load_pool
from export.vq.files import export_decoder, export_encoder, write_codebooks
from export.vq.model import QUANTISED, load_trained
from export.vq.train import FLOAT, train_vq
from export.workshops import Parts, TorchModel

CHECKPOINTS = (QUANTISED,)
NEEDED = CHECKPOINTS
STAGES: tuple[str, ...] = ()


def train(recipe: dict[str, Any], stage: str, out: Path, pool: Path | None, fresh: bool) -> None:
    """Both phases, whatever `stage` says: the second needs the first."""
    tiles = load_pool(recipe["bands"], path=pool)
    out.mkdir(parents=True, exist_ok=True)
    if fresh:
        for name in (FLOAT, QUANTISED):
            (out / name).unlink(missing_ok=True)
    train_vq(tiles, recipe, out)


def parts(recipe: dict[str, Any], folder: Path, scratch: Path) -> Parts:
    system = load_trained(recipe, folder)
    export_encoder(system.encoder, recipe, scratch / "encoder.onnx")
    export_decoder(system.decoder, recipe, scratch / "decoder.onnx")
    write_codebooks(scratch / "tables.npz", system, recipe["strides"])
    files = {
        "flight/encoder.onnx": scratch / "encoder.onnx",
        "flight/tables.npz": scratch / "tables.npz",
        "ground/decoder.onnx": scratch / "decoder.onnx",
    }
    codec = {"kind": recipe["kind"], "layers": len(recipe["strides"]), "codebook": recipe["codebook"]}
    return Parts(files, codec, "training tiles, then trained with the rounding in the loop")


def torch_encoder(recipe: dict[str, Any], folder: Path) -> TorchModel:
    encoder = load_trained(recipe, folder).encoder

    def run(*arrays: NDArray[Any]) -> list[NDArray[Any]]:
        with torch.no_grad():
            return [latents.numpy() for latents in encoder(torch.from_numpy(arrays[0]))]

    return run
