"""Checkpoints of a recipe -> its bundle. What training wrote is exported, proven to run in INT8, hashed and described.

One folder holds the codec's checkpoints (`python -m export train`), another clouds.onnx with clouds.json
(`python -m export.clouds.train`), a third the same of the ground's network (`python -m export.clouds.ground_fit`),
which goes where the flying one goes. A bundle without a cloud network is built when that folder holds none: it cannot
gate.
"""

import hashlib
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from export.builds import NORMATIVE
from export.bundle.add_ground_mask import ground_clouds_table
from export.bundle.assemble import Origin, assemble, derive
from export.data import pool_file
from export.recipe import load_recipe
from export.workshops import TorchModel, Workshop, workshop_for
from payload.bundle import GROUND_CLOUDS_FILE, Bundle
from payload.errors import InputError

CLOUD_FILES = ("clouds.onnx", "clouds.json")
CLOUD_CHECKPOINT = "quantised.safetensors"


def build_recipe(
    name: str, checkpoints: Path | None, clouds: tuple[Path, Path], target: str, out: Path | None
) -> Bundle:
    """The bundle of recipe `name` for `target`; `clouds`: the folders of both cloud networks.

    InputError naming the checkpoint or the data that is missing."""
    recipe = load_recipe(name)
    folder = checkpoints or Path("build") / name
    out = out or Path("build") / "bundles" / (name if target == NORMATIVE else f"{name}-{target}")
    pool = pool_file()
    if not pool.is_file():
        raise InputError(f"{pool}: the training pool is missing, its digest belongs into the manifest; set NADIR_DATA")
    workshop = workshop_for(recipe)
    for needed in workshop.NEEDED:
        if not (folder / needed).is_file():
            raise InputError(f"{folder / needed}: no such file; run `python -m export train --recipe {name}` first")
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".recipe-", dir=out.parent) as scratch:
        int8 = out if target == NORMATIVE else Path(scratch) / name
        digest = hashlib.sha256(pool.read_bytes()).hexdigest()
        bundle = _int8_bundle(workshop, recipe, (folder, *clouds), Path(scratch), int8, digest)
        return bundle if target == NORMATIVE else derive(bundle, target, out)


def _int8_bundle(
    workshop: Workshop, recipe: dict[str, Any], sources: tuple[Path, Path, Path], scratch: Path, out: Path,
    data_digest: str,
) -> Bundle:
    folder, clouds, ground_clouds = sources
    parts = workshop.parts(recipe, folder, scratch)
    files = dict(parts.files)
    more = _with_clouds(files, clouds, ground_clouds)
    digest = hashlib.sha256(b"".join((folder / n).read_bytes() for n in workshop.CHECKPOINTS)).hexdigest()
    calibration = {"activations": parts.calibration, "data_sha256": data_digest}
    origin, bands = Origin(recipe, data_digest, calibration, digest), tuple(recipe["bands"])
    return assemble(out, recipe["name"], bands, int(recipe["tile_px"]), parts.codec, files, origin, more=more)


def _with_clouds(files: dict[str, Path | bytes], clouds: Path, ground: Path) -> dict[str, Any]:
    """Adds the cloud networks to `files` where their folders hold them; what the manifest then says of them."""
    if not all((clouds / n).is_file() for n in CLOUD_FILES):
        return {}
    files["flight/clouds.onnx"] = clouds / "clouds.onnx"
    told = {"clouds": json.loads((clouds / "clouds.json").read_text(encoding="utf-8"))}
    if all((ground / n).is_file() for n in CLOUD_FILES):
        files[GROUND_CLOUDS_FILE] = ground / "clouds.onnx"
        told["ground_clouds"] = ground_clouds_table(ground)
    return told


def torch_models(bundle: Bundle, checkpoints: Path, clouds: Path) -> dict[str, TorchModel]:
    """The trained torch networks of a bundle by manifest name, as functions of arrays, for `check`."""
    models: dict[str, TorchModel] = {}
    recipe = bundle.manifest.get("built", {}).get("recipe", {})
    if "flight/encoder.onnx" in bundle.manifest["files"]:
        models["flight/encoder.onnx"] = workshop_for({**recipe, "kind": bundle.codec.get("kind")}).torch_encoder(
            recipe, checkpoints
        )
    if "flight/clouds.onnx" in bundle.manifest["files"]:
        models["flight/clouds.onnx"] = _torch_clouds(clouds / CLOUD_CHECKPOINT)
    return models


def _torch_clouds(path: Path) -> TorchModel:
    """The cloud network on u8 planes; its logits in integer steps, as the exported file gives them."""
    import torch

    from export.clouds.network import CloudUnet
    from export.clouds.train import logit_step_of
    from export.graphs.qat_layers import INPUT_SCALE
    from export.training import averaged_weights

    if not path.is_file():
        raise InputError(f"{path}: no such checkpoint; give the folder that training wrote")
    state = averaged_weights(path)
    a, planes, stem, _ = state["stem.conv.weight"].shape  # of either generation
    network = CloudUnet((a, state["down16.1.conv.weight"].shape[0]), planes, quantised=True, stem=stem)
    network.load_state_dict(state)
    network.eval()
    step = logit_step_of(network)

    def run(*arrays: NDArray[Any]) -> list[NDArray[Any]]:
        with torch.no_grad():
            return [network(torch.from_numpy(arrays[0].astype(np.float32)) * INPUT_SCALE).numpy() / step]

    return run
