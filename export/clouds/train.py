"""Training of the cloud network: in float, then with the rounding in the loop, then the ONNX file.

    python -m export.clouds.teacher --out build/clouds/pool
    python -m export.clouds.train --rotation shipped --pool build/clouds/pool --out build/clouds/shipped
    python -m export.clouds.thresholds build/clouds/shipped build/clouds/alps build/clouds/plains

Leaves out whole sites: the rotation's test sites are never looked at here. Thresholds come later (thresholds.py).
Checkpoints are safetensors; a run picks up where the last one stopped.
"""

import argparse
import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from export.clouds.network import CELL_PX, CloudUnet, as_cells, macs_per_pixel
from export.clouds.sampler import Sampler, loss
from export.clouds.teacher import load_labelled
from export.graphs.qat_layers import INPUT_SCALE, calibrate, fold_into
from export.graphs.to_onnx import export_qcdq
from export.recipe import load_recipe
from export.training import Average, Progress, Schedule, fit
from payload.clouds.mask import CLASSES
from payload.clouds.planes import CloudSettings
from payload.errors import InputError

CALIBRATION_BATCHES = 24
FLOAT_FILE, QUANTISED_FILE, NETWORK_FILE, SETTINGS_FILE = (
    "float.safetensors", "quantised.safetensors", "clouds.onnx", "clouds.json",
)  # fmt: skip
#: What the network is trained for; thresholds are chosen afterwards.
SETTINGS = CloudSettings(cell_px=CELL_PX, detail=True)


@dataclass(frozen=True)
class Stage:
    """A part of the training: so many steps, from this learning rate down, kept in this file."""

    steps: int
    rate: float
    checkpoint: Path


def build(recipe: dict[str, Any], quantised: bool) -> CloudUnet:
    a, b = recipe["widths"]
    return CloudUnet((a, b), quantised=quantised)


def train(network: nn.Module, sampler: Sampler, recipe: dict[str, Any], stage: Stage) -> None:
    """Runs a stage and leaves the running average of the weights in the network and in the checkpoint."""

    def loss_of(step: int) -> Tensor:
        rng = np.random.default_rng([recipe["seed"], stage.steps, step])
        planes, *targets = sampler.batch(rng, recipe["batch"])
        planes = (planes * INPUT_SCALE).contiguous(memory_format=torch.channels_last)
        return loss(as_cells(network(planes)), tuple(targets))

    # On one core depthwise convolutions are faster with the channels last.
    network.to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    fit(
        network,
        torch.optim.AdamW(network.parameters(), weight_decay=1e-3),
        Schedule(stage.steps, stage.rate),
        loss_of,
        stage.checkpoint,
        Average(network, 0.995, 19),
        progress=Progress(stage.checkpoint.stem, stage.steps),
    )


def export(network: CloudUnet, out: Path, settings: CloudSettings, origin: dict[str, Any]) -> None:
    """Writes clouds.onnx and clouds.json (what goes into manifest["clouds"])."""
    side = 64
    drawn = np.random.default_rng(0).integers(0, 256, (1, network.stem.conv.in_channels, side, side))
    path = out / NETWORK_FILE
    export_qcdq(
        network, torch.tensor(drawn) * INPUT_SCALE, path, free_axes=(2, 3), integer_inputs=True, integer_outputs=True,
        px_per_sample=CELL_PX,
    )  # fmt: skip
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    write_settings(out, asdict(settings) | {"classes": list(CLASSES), "sha256": digest} | origin)


def write_settings(folder: Path, table: dict[str, Any]) -> None:
    text = json.dumps(table, indent=1, sort_keys=True) + "\n"
    (folder / SETTINGS_FILE).write_text(text, encoding="utf-8")


def logit_step_of(network: CloudUnet) -> float:
    """The power of two one integer step of the logits stands for."""
    scale: Tensor = network.logits.act_quant.scale()  # type: ignore[operator,union-attr]
    return float(scale.detach())


def run(recipe: dict[str, Any], rotation: str, pool: Path, out: Path) -> dict[str, Any]:
    """Everything from labelled windows to clouds.onnx; returns what is written beside it."""
    if rotation not in recipe["rotations"]:
        raise InputError(f"rotation {rotation!r} is unknown; choose one of {', '.join(recipe['rotations'])}")
    test = recipe["rotations"][rotation]["test"]
    sampler = Sampler(load_labelled(pool, test), SETTINGS)
    torch.manual_seed(recipe["seed"])
    trained, network = build(recipe, False), build(recipe, True)
    train(trained, sampler, recipe, Stage(recipe["float_steps"], recipe["learning_rate"], out / FLOAT_FILE))
    fold_into(network, trained.eval())
    draws = (sampler.batch(np.random.default_rng([9, i]), recipe["batch"] // 2)[0] for i in range(CALIBRATION_BATCHES))
    calibrate(network, (planes * INPUT_SCALE for planes in draws))
    stage = Stage(recipe["quantised_steps"], recipe["learning_rate"] / 10, out / QUANTISED_FILE)
    train(network, sampler, recipe, stage)
    return finish(network.eval(), trained, {"rotation": rotation, "split": {"test": test}}, out)


def finish(network: CloudUnet, trained: CloudUnet, origin: dict[str, Any], out: Path) -> dict[str, Any]:
    """The trained network as ONNX with its description; thresholds are still the defaults."""
    settings = CloudSettings(**asdict(SETTINGS) | {"logit_step": logit_step_of(network)})
    origin = origin | {
        "parameters": sum(p.numel() for p in trained.parameters()), "macs_per_pixel": round(macs_per_pixel(trained), 1),
    }  # fmt: skip
    export(network, out, settings, origin)
    return asdict(settings) | origin


def main(argv: list[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(prog="python -m export.clouds.train", description=__doc__)
    parser.add_argument("--recipe", default="clouds")
    parser.add_argument("--rotation", default="shipped")
    parser.add_argument("--pool", type=Path, default=Path("build") / "clouds" / "pool")
    parser.add_argument("--out", type=Path, default=None)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args(argv)
    torch.set_num_threads(arguments.threads)
    out = arguments.out or Path("build") / "clouds" / arguments.rotation
    out.mkdir(parents=True, exist_ok=True)
    return run(load_recipe(arguments.recipe), arguments.rotation, arguments.pool, out)


if __name__ == "__main__":
    main()
