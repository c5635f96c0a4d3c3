"""Checkpoints of a recipe -> its bundle. What training wrote is exported, proven to run in INT8, hashed and described.

The folder of checkpoints holds transform.safetensors and decoder.safetensors (`python -m export train`) and tables.npz
(the integer context model), or of a vector-quantised recipe quantised.safetensors alone; another folder clouds.onnx
with clouds.json (`python -m export.clouds.train`). A bundle without a cloud network is built when that folder holds
none: it cannot gate.
"""

import hashlib
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from export.bundle.assemble import Origin, assemble, derive
from payload.bundle import Bundle
from payload.errors import InputError

TorchModel = Callable[..., list[NDArray[Any]]]
CHECKPOINTS = ("transform.safetensors", "decoder.safetensors")
CLOUD_FILES = ("clouds.onnx", "clouds.json")
CLOUD_CHECKPOINT = "quantised.safetensors"
TABLES = "tables.npz"
VQ_CHECKPOINTS = ("quantised.safetensors",)


def build_recipe(name: str, checkpoints: Path | None, clouds: Path, target: str, out: Path | None) -> Bundle:
    """The bundle of recipe `name` for `target`. InputError naming the checkpoint or the data that is missing."""
    from export.data import data_folder
    from export.lapped.train import load_recipe

    recipe = load_recipe(name)
    folder = checkpoints or Path("build") / name
    out = out or Path("build") / "bundles" / (name if target == "int8-po2w7" else f"{name}-{target}")
    pool = data_folder() / "train" / "tiles128.npz"
    if not pool.is_file():
        raise InputError(f"{pool}: the training pool is missing, its digest belongs into the manifest; set NADIR_DATA")
    is_vq = recipe.get("kind") == "vq"
    for needed in VQ_CHECKPOINTS if is_vq else (*CHECKPOINTS, TABLES):
        if not (folder / needed).is_file():
            raise InputError(f"{folder / needed}: no such file; run `python -m export train --recipe {name}` first")
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".recipe-", dir=out.parent) as scratch:
        int8 = out if target == "int8-po2w7" else Path(scratch) / name
        digest = hashlib.sha256(pool.read_bytes()).hexdigest()
        build = _vq_bundle if is_vq else _int8_bundle
        bundle = build(recipe, (folder, clouds), Path(scratch), int8, digest)
        return bundle if target == "int8-po2w7" else derive(bundle, target, out)


def torch_models(bundle: Bundle, checkpoints: Path, clouds: Path) -> dict[str, TorchModel]:
    """The trained torch networks of a bundle by manifest name, as functions of arrays, for `check`."""
    models = {}
    if bundle.codec.get("kind") == "fsq":
        models["flight/encoder.onnx"] = _torch_encoder(checkpoints / CHECKPOINTS[0])
    elif bundle.codec.get("kind") == "vq":
        models["flight/encoder.onnx"] = _torch_vq_encoder(bundle, checkpoints)
    if "flight/clouds.onnx" in bundle.manifest["files"]:
        models["flight/clouds.onnx"] = _torch_clouds(clouds / CLOUD_CHECKPOINT)
    return models


def _torch_encoder(path: Path) -> TorchModel:
    import torch

    from export.lapped.files import FlightEncoder
    from export.lapped.train import kernels_of

    encoder = FlightEncoder(kernels_of(_tensors(path))).eval()

    def run(*arrays: NDArray[Any]) -> list[NDArray[Any]]:
        with torch.no_grad():
            return [encoder(torch.from_numpy(arrays[0].astype(np.float32))).numpy()]

    return run


def _torch_vq_encoder(bundle: Bundle, folder: Path) -> TorchModel:
    import torch

    from export.vq.train import load_trained

    encoder = load_trained(bundle.manifest["built"]["recipe"], folder).encoder

    def run(*arrays: NDArray[Any]) -> list[NDArray[Any]]:
        with torch.no_grad():
            return [latents.numpy() for latents in encoder(torch.from_numpy(arrays[0]))]

    return run


def _torch_clouds(path: Path) -> TorchModel:
    """The cloud network on u8 planes; its logits in integer steps, as the exported file gives them."""
    import torch

    from export.clouds.train import build, logit_step_of
    from export.graphs.qat_layers import INPUT_SCALE
    from export.lapped.train import load_recipe

    tensors = _tensors(path)
    network = build(load_recipe("clouds"), quantised=True)
    network.load_state_dict({k.removeprefix("mean."): v for k, v in tensors.items() if k.startswith("mean.")})
    network.eval()
    step = logit_step_of(network)

    def run(*arrays: NDArray[Any]) -> list[NDArray[Any]]:
        with torch.no_grad():
            return [network(torch.from_numpy(arrays[0].astype(np.float32)) * INPUT_SCALE).numpy() / step]

    return run


def _tensors(path: Path) -> dict[str, Any]:
    from safetensors.torch import load_file

    if not path.is_file():
        raise InputError(f"{path}: no such checkpoint; give the folder that training wrote")
    return dict(load_file(path))


def _int8_bundle(
    recipe: dict[str, Any], sources: tuple[Path, Path], scratch: Path, out: Path, data_digest: str
) -> Bundle:
    from export.lapped.context_tables import macs_per_px
    from export.lapped.files import export_decoder, export_encoder, trained_codec

    folder, clouds = sources
    codec, transform = trained_codec(recipe, folder)
    bands, tile_px = tuple(recipe["bands"]), int(recipe["tile_px"])
    export_encoder(transform, len(bands), tile_px, scratch / "encoder.onnx")
    export_decoder(codec, len(bands), tile_px, scratch / "decoder.onnx")
    files: dict[str, Path | bytes] = {
        "flight/encoder.onnx": scratch / "encoder.onnx",
        "flight/tables.npz": folder / TABLES,
        "ground/decoder.onnx": scratch / "decoder.onnx",
    }
    more = _with_clouds(files, clouds)
    digest = hashlib.sha256(b"".join((folder / n).read_bytes() for n in CHECKPOINTS)).hexdigest()
    calibration = {"activations": "none: the encoder's input planes are int8 as they are", "data_sha256": data_digest}
    origin = Origin(recipe, data_digest, calibration, digest)
    description = {
        "kind": recipe["kind"],
        "layers": recipe.get("layers", 1),
        "compand": recipe["compand"],
        "coarsest_step_dn": recipe["context"]["step_dn"][1],
        "entropy_macs_per_px": macs_per_px(folder / TABLES),
    }
    return assemble(out, recipe["name"], bands, tile_px, description, files, origin, more=more)


def _vq_bundle(
    recipe: dict[str, Any], sources: tuple[Path, Path], scratch: Path, out: Path, data_digest: str
) -> Bundle:
    """The reference system of the field: three outputs, three codebooks, indices of fixed length."""
    from export.vq.networks import export_decoder, export_encoder, write_codebooks
    from export.vq.train import load_trained

    folder, clouds = sources
    system = load_trained(recipe, folder)
    export_encoder(system.encoder, recipe, scratch / "encoder.onnx")
    export_decoder(system.decoder, recipe, scratch / "decoder.onnx")
    write_codebooks(scratch / TABLES, system, recipe["strides"])
    files: dict[str, Path | bytes] = {
        "flight/encoder.onnx": scratch / "encoder.onnx",
        "flight/tables.npz": scratch / TABLES,
        "ground/decoder.onnx": scratch / "decoder.onnx",
    }
    more = _with_clouds(files, clouds)
    digest = hashlib.sha256((folder / VQ_CHECKPOINTS[0]).read_bytes()).hexdigest()
    calibration = {
        "activations": "training tiles, then trained with the rounding in the loop",
        "data_sha256": data_digest,
    }
    description = {"kind": "vq", "layers": len(recipe["strides"]), "codebook": recipe["codebook"]}
    bands, origin = tuple(recipe["bands"]), Origin(recipe, data_digest, calibration, digest)
    return assemble(out, recipe["name"], bands, int(recipe["tile_px"]), description, files, origin, more=more)


def _with_clouds(files: dict[str, Path | bytes], clouds: Path) -> dict[str, Any]:
    """Adds the cloud network to `files` where its folder holds one; what the manifest then says of it."""
    if not all((clouds / n).is_file() for n in CLOUD_FILES):
        return {}
    files["flight/clouds.onnx"] = clouds / "clouds.onnx"
    return {"clouds": json.loads((clouds / "clouds.json").read_text(encoding="utf-8"))}
