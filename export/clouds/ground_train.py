"""Training of the ground's cloud network, in float, and its ONNX file.

    python -m export.clouds.teacher --out build/clouds/pool
    python -m export.clouds.ground_train --rotation shipped --pool build/clouds/pool --out build/clouds/ground/shipped

Leaves out whole sites, as train.py does: those of its rotation in the recipe `clouds`. Nothing is chosen here: how
people outline what it finds is a convention (sim/clouds/outline.py).
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
from safetensors.torch import load_file, save_file
from torch import Tensor

from export.clouds.ground_network import GroundMaskNetwork, GroundUnet, as_seen
from export.clouds.ground_sampler import GroundSampler, ground_loss
from export.clouds.teacher import load_labelled
from export.graphs.to_onnx import OPSET, half_weights
from export.recipe import load_recipe
from export.training import MEAN, Average, Progress, Schedule, averaged_weights, fit, mixed_precision, save_weights
from payload.clouds.mask import CLASSES
from payload.errors import InputError

CHECKPOINT, NETWORK_FILE, SETTINGS_FILE = "float.safetensors", "clouds.onnx", "clouds.json"
#: What the network ends as, beside the checkpoint of its training.
WEIGHTS = "weights.safetensors"
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


def grow_from(network: GroundUnet, weights: dict[str, Tensor]) -> None:
    """The network gives what a smaller one with these weights gave: blocks that it did not have begin as the identity,
    and what its channels hear of new ones begins at zero."""
    own = network.state_dict()
    for name, old in weights.items():
        new = own[name]
        if old.dim() > 1:
            new[: old.shape[0], old.shape[1] :] = 0.0
        new[tuple(slice(side) for side in old.shape)] = old.float()


def halfway(one: dict[str, Tensor], other: dict[str, Tensor]) -> dict[str, Tensor]:
    """The mean of two sets of weights, one of which was taught from the other: it keeps most of what both can (Wortsman
    and others 2022, "Robust fine-tuning of zero-shot models")."""
    return {name: torch.lerp(value, other[name], 0.5) for name, value in one.items()}


def export(network: GroundUnet, out: Path, origin: dict[str, Any]) -> dict[str, Any]:
    """Writes clouds.onnx, weights in half precision, and clouds.json (what goes into manifest["ground_clouds"])."""
    path = out / NETWORK_FILE
    torch.onnx.export(
        GroundMaskNetwork(network).eval(), (torch.zeros(1, 4, 256, 256),), str(path), opset_version=OPSET,
        input_names=["dn"], output_names=["probabilities"], dynamo=False,
        dynamic_axes={"dn": {2: "h", 3: "w"}, "probabilities": {2: "h", 3: "w"}},
    )  # fmt: skip
    onnx.save(half_weights(onnx.load(str(path))), str(path))
    table = origin | {
        "classes": list(CLASSES), "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "parameters": sum(p.numel() for p in network.parameters()),
    }  # fmt: skip
    (out / SETTINGS_FILE).write_text(json.dumps(table, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    return table


def run(recipe: dict[str, Any], rotation: str, pool: Path, out: Path, start: Path | None = None) -> dict[str, Any]:
    """Everything from labelled windows to clouds.onnx; returns what is written beside it. `start`: a checkpoint of a
    network that is narrower or has fewer blocks, as which this one begins; it ends halfway between both."""
    rotations = load_recipe(SITES)["rotations"]
    if rotation not in rotations:
        raise InputError(f"rotation {rotation!r} is unknown; choose one of {', '.join(rotations)}")
    test = rotations[rotation]["test"]
    torch.manual_seed(recipe["seed"])
    network = GroundUnet(recipe["widths"], recipe["more_blocks"])
    if start is not None:
        grow_from(network, averaged_weights(start))
    begun = {name: value.detach().clone() for name, value in network.state_dict().items()}
    train(network, GroundSampler(load_labelled(pool, test)), recipe, out / CHECKPOINT)
    if start is not None:
        network.load_state_dict(halfway(begun, network.state_dict()))
    save_weights(out / WEIGHTS, {MEAN + name: value for name, value in network.state_dict().items()}, recipe["steps"])
    return export(network, out, {"rotation": rotation, "split": {"test": test}})


def keep(out: Path, kept: Path) -> None:
    """A compact copy of what training wrote, the network's weights in half precision, from where it goes on."""
    kept.mkdir(parents=True, exist_ok=True)
    tensors = load_file(out / WEIGHTS)
    save_file({key: v.half() if v.is_floating_point() else v for key, v in tensors.items()}, kept / CHECKPOINT)
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
