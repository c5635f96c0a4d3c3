"""Training of the ground's cloud network, in float, and its ONNX file.

    python -m export.clouds.teacher --out build/clouds/pool
    python -m export.clouds.ground_train --rotation shipped --pool build/clouds/pool --out build/clouds/ground/shipped

It begins with the teacher's weights (shortened.py), or with those of a checkpoint (`--start`). Leaves out whole sites,
as train.py does: those of its rotation in the recipe `clouds`. Nothing is chosen here: how people outline what it finds
is a convention (sim/clouds/outline.py).
"""

import argparse
import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from torch import Tensor

from export.clouds.ground_network import GroundMaskNetwork, GroundUnet, as_seen
from export.clouds.ground_sampler import GroundSampler, ground_loss
from export.clouds.shortened import begin
from export.clouds.teacher import load_labelled, teacher_file
from export.graphs.to_onnx import OPSET, octet_weights
from export.recipe import load_recipe
from export.training import (
    MEAN,
    Average,
    Progress,
    Schedule,
    averaged_weights,
    fit,
    load_weights,
    mixed_precision,
    save_weights,
)  # fmt: skip
from payload.clouds.mask import CLASSES
from payload.errors import InputError

CHECKPOINT, NETWORK_FILE, SETTINGS_FILE = "float.safetensors", "clouds.onnx", "clouds.json"
#: Whose work the weights are derived from; NOTICE says the same.
DERIVED_FROM = "ukis-csmask 1.0.0, model_4b_l2a (c) 2020 German Aerospace Center (DLR), Apache-2.0; changed"
RECIPE, SITES = "ground-clouds", "clouds"


def train(network: GroundUnet, sampler: GroundSampler, recipe: dict[str, Any], checkpoint: Path) -> None:
    """Leaves the running average of the weights in the network and in the checkpoint."""

    def loss_of(step: int) -> Tensor:
        rng = np.random.default_rng([recipe["seed"], step])
        dn, *targets = sampler.batch(rng, recipe["batch"])
        seen = as_seen(dn).contiguous(memory_format=torch.channels_last)
        with mixed_precision():
            logits = network(seen)
        return ground_loss(logits.float(), tuple(targets))

    network.to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    fit(
        network,
        torch.optim.AdamW(network.parameters(), weight_decay=1e-3),
        Schedule(recipe["steps"], recipe["learning_rate"]),
        loss_of,
        checkpoint,
        Average(network, 0.995, 19),
        progress=Progress(checkpoint.parent.name, recipe["steps"]),
    )
    network.eval()


def export(network: GroundUnet, out: Path, origin: dict[str, Any]) -> dict[str, Any]:
    """Writes clouds.onnx, weights in octets, and clouds.json (what goes into manifest["ground_clouds"])."""
    path = out / NETWORK_FILE
    torch.onnx.export(
        GroundMaskNetwork(network).eval(), (torch.zeros(1, 4, 256, 256),), str(path), opset_version=OPSET,
        input_names=["dn"], output_names=["probabilities"], dynamo=False,
        dynamic_axes={"dn": {2: "h", 3: "w"}, "probabilities": {2: "h", 3: "w"}},
    )  # fmt: skip
    onnx.save(octet_weights(onnx.load(str(path))), str(path))
    table = origin | {
        "classes": list(CLASSES), "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "parameters": sum(p.numel() for p in network.parameters()), "derived_from": DERIVED_FROM,
    }  # fmt: skip
    (out / SETTINGS_FILE).write_text(json.dumps(table, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    return table


def run(recipe: dict[str, Any], rotation: str, pool: Path, out: Path, start: Path | None = None) -> dict[str, Any]:
    """Everything from labelled windows to clouds.onnx; returns what is written beside it.

    `start`: a checkpoint to begin with in place of the teacher.
    """
    rotations = load_recipe(SITES)["rotations"]
    if rotation not in rotations:
        raise InputError(f"rotation {rotation!r} is unknown; choose one of {', '.join(rotations)}")
    test = rotations[rotation]["test"]
    windows = load_labelled(pool, test)
    torch.manual_seed(recipe["seed"])
    network = GroundUnet()
    if start is not None:
        network.load_state_dict({name: value.float() for name, value in averaged_weights(start).items()})
    elif not (out / CHECKPOINT).exists():
        begin(network, teacher_file("L2A"), windows["dn"], recipe["seed"])
    train(network, GroundSampler(windows), recipe, out / CHECKPOINT)
    return export(network, out, {"rotation": rotation, "split": {"test": test}})


def keep(out: Path, kept: Path) -> None:
    """A compact copy of what training wrote: the averaged weights in half precision, from where it goes on."""
    kept.mkdir(parents=True, exist_ok=True)
    tensors, step_no = load_weights(out / CHECKPOINT)
    save_weights(kept / CHECKPOINT, {key: v.half() for key, v in tensors.items() if key.startswith(MEAN)}, step_no)
    for name in (NETWORK_FILE, SETTINGS_FILE):
        shutil.copyfile(out / name, kept / name)


def main(argv: list[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(prog="python -m export.clouds.ground_train", description=__doc__)
    parser.add_argument("--recipe", default=RECIPE)
    parser.add_argument("--rotation", default="shipped")
    parser.add_argument("--pool", type=Path, default=Path("build") / "clouds" / "pool")
    parser.add_argument("--out", type=Path, default=None)
    parser.add_argument("--start", type=Path, metavar="FILE", help="a checkpoint to begin from")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--keep", type=Path, metavar="DIR", help="a compact copy of all of it into this folder")
    arguments = parser.parse_args(argv)
    torch.set_num_threads(arguments.threads)
    out = arguments.out or Path("build") / "clouds" / "ground" / arguments.rotation
    out.mkdir(parents=True, exist_ok=True)
    table = run(load_recipe(arguments.recipe), arguments.rotation, arguments.pool, out, arguments.start)
    if arguments.keep:
        keep(out, arguments.keep)
    return table


if __name__ == "__main__":
    main()
