"""Training of the cloud network: in float, then with the rounding in the loop, then the ONNX file.

    python -m export.clouds.teacher --out build/clouds/pool
    python -m export.clouds.train --rotation shipped --pool build/clouds/pool --out build/clouds/shipped
    python -m export.clouds.thresholds build/clouds/shipped build/clouds/alps build/clouds/plains

Leaves out whole sites: the rotation's test sites are never looked at here. Thresholds come later (thresholds.py).
Checkpoints are safetensors; a run picks up where the last one stopped.
"""

import argparse
import csv
import hashlib
import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from export.clouds.network import CELL_PX, CloudUnet, as_cells, macs_per_pixel
from export.clouds.sampler import Sampler, loss
from export.clouds.teacher import load_labelled
from export.graphs.qat_layers import INPUT_SCALE, calibrate, fold_into
from export.graphs.to_onnx import export_qcdq
from export.lapped.train import load_recipe
from payload.clouds.mask import CLASSES
from payload.clouds.planes import CloudSettings
from payload.errors import InputError

SAVE_EVERY_S = 120.0
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
    average = {k: v.detach().clone() for k, v in network.state_dict().items()}
    start = _resume(stage.checkpoint, network, average)
    optimiser = torch.optim.AdamW(network.parameters(), lr=stage.rate, weight_decay=1e-3)
    network.train()
    saved = time.monotonic()
    for step in range(start, stage.steps):
        rng = np.random.default_rng([recipe["seed"], stage.steps, step])
        planes, *targets = sampler.batch(rng, recipe["batch"])
        for group in optimiser.param_groups:
            group["lr"] = stage.rate * min(1.0, (step + 1) / 100) * 0.5 * (1.02 + np.cos(np.pi * step / stage.steps))
        error = loss(as_cells(network(planes * INPUT_SCALE)), tuple(targets))
        optimiser.zero_grad()
        error.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        _blend(average, network, min(0.995, (step + 1) / (step + 20)))
        if step % 50 == 0:
            _log(stage.checkpoint.with_suffix(".csv"), {"step": step, "loss": round(float(error.detach()), 4)})
        if time.monotonic() - saved > SAVE_EVERY_S or step == stage.steps - 1:
            saved = time.monotonic()
            _save(stage.checkpoint, network if step < stage.steps - 1 else None, average, step + 1)
    network.load_state_dict(average)


def _blend(average: dict[str, Tensor], network: nn.Module, keep: float) -> None:
    for key, value in network.state_dict().items():
        if value.is_floating_point():
            average[key].lerp_(value, 1.0 - keep)
        else:
            average[key].copy_(value)


def _save(path: Path, network: nn.Module | None, average: dict[str, Tensor], step: int) -> None:
    """The average, and until training has ended the weights to go on from."""
    live = {} if network is None else network.state_dict()
    tensors = {f"live.{k}": v.detach().clone().contiguous() for k, v in live.items()}
    tensors |= {f"mean.{k}": v.contiguous() for k, v in average.items()}
    partial = path.with_suffix(".partial")
    save_file(tensors | {"step": torch.tensor(step)}, partial)
    partial.replace(path)


def _resume(path: Path, network: nn.Module, average: dict[str, Tensor]) -> int:
    if not path.exists():
        return 0
    tensors = load_file(path)
    for key in average:
        average[key].copy_(tensors[f"mean.{key}"])
    live = {k.removeprefix("live."): v for k, v in tensors.items() if k.startswith("live.")}
    network.load_state_dict(live or average)
    return int(tensors["step"])


def _log(path: Path, row: dict[str, float]) -> None:
    fresh = not path.exists()
    with path.open("a", newline="", encoding="utf-8") as sheet:
        writer = csv.DictWriter(sheet, list(row))
        if fresh:
            writer.writeheader()
        writer.writerow(row)


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
