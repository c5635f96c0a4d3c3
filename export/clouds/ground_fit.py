"""The ground's cloud network, made from the teacher's, and its ONNX file.

    python -m export.clouds.teacher --out build/clouds/pool
    python -m export.clouds.ground_fit --rotation shipped --pool build/clouds/pool --out build/clouds/ground/shipped

Its weights are the teacher's (shortened.py); only the bridge is fitted, to what the teacher has there over the pool's
windows. Leaves out whole sites, as train.py does: those of its rotation in the recipe `clouds`. Nothing is chosen here:
how people outline what it finds is a convention (sim/clouds/outline.py).
"""

import argparse
import hashlib
import json
from pathlib import Path
from typing import Any

import onnx
import torch

from export.clouds.ground_network import GroundMaskNetwork, GroundUnet
from export.clouds.shortened import shorten
from export.clouds.teacher import load_labelled, teacher_file
from export.graphs.to_onnx import OPSET, octet_weights
from export.recipe import load_recipe
from payload.clouds.mask import CLASSES
from payload.errors import InputError

NETWORK_FILE, SETTINGS_FILE = "clouds.onnx", "clouds.json"
#: Whose work the weights are; NOTICE says the same.
DERIVED_FROM = "ukis-csmask 1.0.0, model_4b_l2a (c) 2020 German Aerospace Center (DLR), Apache-2.0; changed"
RECIPE, SITES = "ground-clouds", "clouds"


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


def run(recipe: dict[str, Any], rotation: str, pool: Path, out: Path) -> dict[str, Any]:
    """Everything from labelled windows to clouds.onnx; returns what is written beside it."""
    rotations = load_recipe(SITES)["rotations"]
    if rotation not in rotations:
        raise InputError(f"rotation {rotation!r} is unknown; choose one of {', '.join(rotations)}")
    test = rotations[rotation]["test"]
    network = shorten(teacher_file("L2A"), load_labelled(pool, test)["dn"], recipe)
    return export(network, out, {"rotation": rotation, "split": {"test": test}})


def main(argv: list[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(prog="python -m export.clouds.ground_fit", description=__doc__)
    parser.add_argument("--recipe", default=RECIPE)
    parser.add_argument("--rotation", default="shipped")
    parser.add_argument("--pool", type=Path, default=Path("build") / "clouds" / "pool")
    parser.add_argument("--out", type=Path, default=None)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args(argv)
    torch.set_num_threads(arguments.threads)
    out = arguments.out or Path("build") / "clouds" / "ground" / arguments.rotation
    out.mkdir(parents=True, exist_ok=True)
    return run(load_recipe(arguments.recipe), arguments.rotation, arguments.pool, out)


if __name__ == "__main__":
    main()
