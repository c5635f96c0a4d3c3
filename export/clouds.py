"""Training of the cloud network: in float, then with the rounding in the loop, then thresholds, then the ONNX file.

    python -m export.clouds --rotation shipped --out build/clouds

Leaves out whole sites: `test` sites are never looked at here, `validation` sites only to set the temperature and the
threshold. Checkpoints are safetensors; a run picks up where the last one stopped.
"""

import argparse
import csv
import hashlib
import json
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from export.cloud_data import CLOUD_CLASSES, CloudPool, Labelled, Sampler, bleach, load_cloud_pool
from export.cloud_network import CloudUnet, as_cells, macs_per_pixel
from export.qat_layers import INPUT_SCALE, calibrate, fold_into
from export.to_onnx import export_qcdq
from export.train import load_recipe
from payload.clouds import CLASSES, THICK, THIN, CloudSettings, input_planes
from payload.errors import InputError

#: Per cell: logits in steps or a probability; and which cells are cloud, of which that is known.
Steps = NDArray[np.float64]
Truth = tuple[NDArray[np.bool_], NDArray[np.bool_]]

SAVE_EVERY_S = 120.0
#: A tile is cloudy when more than this share of it is cloud: CloudScout's and PhiSat-1's definition.
CLOUDY_TILE = 0.7
#: Bound on clear tiles taken for cloudy when the threshold is chosen.
FALSE_DISCARDS = 0.01


def build(recipe: dict[str, Any], quantised: bool) -> CloudUnet:
    a, b, c = recipe["widths"]
    return CloudUnet((a, b, c), cell_px=recipe["cell_px"], quantised=quantised)


def cross_entropy(logits: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """Soft targets [N, 4, t, t], weight per cell [N, t, t]."""
    per_cell = -(targets * functional.log_softmax(logits, dim=1)).sum(1)
    return (per_cell * weights).sum() / weights.sum().clamp(min=1.0)


def train(
    network: nn.Module, sampler: Sampler, recipe: dict[str, Any], steps: int, rate: float, checkpoint: Path
) -> None:
    """Runs `steps` steps and leaves the running average of the weights in the network and in `checkpoint`."""
    average = {k: v.detach().clone() for k, v in network.state_dict().items()}
    start = _resume(checkpoint, network, average)
    optimiser = torch.optim.AdamW(network.parameters(), lr=rate, weight_decay=1e-3)
    network.train()
    saved = time.monotonic()
    for step in range(start, steps):
        planes, targets, weights = sampler.batch(recipe["batch"], np.random.default_rng([recipe["seed"], steps, step]))
        for group in optimiser.param_groups:
            group["lr"] = rate * min(1.0, (step + 1) / 100) * 0.5 * (1.02 + np.cos(np.pi * step / steps))
        logits = as_cells(network(torch.tensor(planes) * INPUT_SCALE), recipe["cell_px"])
        loss = cross_entropy(logits, torch.tensor(targets), torch.tensor(weights))
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        _blend(average, network, min(0.995, (step + 1) / (step + 20)))
        if step % 50 == 0:
            _log(checkpoint.with_suffix(".csv"), {"step": step, "loss": round(float(loss.detach()), 4)})
        if time.monotonic() - saved > SAVE_EVERY_S or step == steps - 1:
            saved = time.monotonic()
            _save(checkpoint, network, average, step + 1)
    network.load_state_dict(average)


def _blend(average: dict[str, Tensor], network: nn.Module, keep: float) -> None:
    for key, value in network.state_dict().items():
        if value.is_floating_point():
            average[key].lerp_(value, 1.0 - keep)
        else:
            average[key].copy_(value)


def _save(path: Path, network: nn.Module, average: dict[str, Tensor], step: int) -> None:
    tensors = {f"live.{k}": v.detach().clone().contiguous() for k, v in network.state_dict().items()}
    tensors |= {f"mean.{k}": v.contiguous() for k, v in average.items()}
    partial = path.with_suffix(".partial")
    save_file(tensors | {"step": torch.tensor(step)}, partial)
    partial.replace(path)


def _resume(path: Path, network: nn.Module, average: dict[str, Tensor]) -> int:
    if not path.exists():
        return 0
    tensors = load_file(path)
    network.load_state_dict({k.removeprefix("live."): v for k, v in tensors.items() if k.startswith("live.")})
    for key in average:
        average[key].copy_(tensors[f"mean.{key}"])
    return int(tensors["step"])


def _log(path: Path, row: dict[str, float]) -> None:
    fresh = not path.exists()
    with path.open("a", newline="", encoding="utf-8") as sheet:
        writer = csv.DictWriter(sheet, list(row))
        if fresh:
            writer.writeheader()
        writer.writerow(row)


def judge(network: nn.Module, tile: Labelled, settings: CloudSettings) -> NDArray[np.float64]:
    """Logits of one tile's cells in whole steps, as the payload sees them. [4, t, t]"""
    planes = input_planes(tile.dn, np.ones(tile.dn.shape[1:], bool), settings)
    if planes is None:
        raise InputError(f"a tile of site {tile.site} has one value per band; leave it out of validation")
    with torch.no_grad():
        logits = network(torch.tensor(planes[None]) * INPUT_SCALE)
    return np.round(as_cells(logits, settings.cell_px)[0].numpy() / settings.logit_step).astype(np.float64)


def settle(network: nn.Module, pool: CloudPool, settings: CloudSettings) -> tuple[CloudSettings, dict[str, float]]:
    """Temperature (least cross-entropy) and threshold on validation sites: best tile accuracy within FALSE_DISCARDS.

    False discards are counted over the clear tiles as they are and bleached, because few sites have snow or sand to
    spare for validation; accuracy over real tiles only, because bleached ones would drown the clouds.
    """
    rng = np.random.default_rng(17)
    tiles = pool.labelled + pool.clear
    pale = [replace(tile, dn=bleach(tile.dn, rng)) for tile in pool.clear]
    judged, truth = [judge(network, t, settings) for t in tiles], [_cloud_of(t, settings.cell_px) for t in tiles]
    temperature, loss = _temperature(judged, truth, settings)
    shares, pale_shares = (
        [_cloud_probability(j, settings, temperature) for j in steps]
        for steps in (judged, [judge(network, tile, settings) for tile in pale])
    )
    scores = {}
    for threshold in (float(t) for t in np.round(np.arange(0.2, 0.91, 0.02), 2)):
        scores[threshold] = _tile_scores(shares, truth, threshold)
        scores[threshold] |= _pale_discards(shares, pale_shares, truth, threshold)
    allowed = {t: s for t, s in scores.items() if s["false_discards_with_pale"] <= FALSE_DISCARDS} or scores
    best = max(allowed, key=lambda t: (allowed[t]["tile_accuracy"], allowed[t]["pixel_iou"]))
    return replace(settings, temperature=temperature, cloudy_above=best), {"log_loss": loss} | scores[best]


def _temperature(judged: list[Steps], truth: list[Truth], settings: CloudSettings) -> tuple[float, float]:
    pairs = [(j[:, known], cloud[known]) for j, (cloud, known) in zip(judged, truth, strict=True)]
    steps, cloud = np.concatenate([a for a, _ in pairs], axis=1), np.concatenate([b for _, b in pairs])
    losses = {t: _log_loss(_cloud_probability(steps, settings, t), cloud) for t in np.arange(0.5, 4.01, 0.1)}
    best = min(losses, key=losses.__getitem__)
    return round(float(best), 2), losses[best]


def _pale_discards(shares: list[Steps], pale: list[Steps], truth: list[Truth], threshold: float) -> dict[str, float]:
    """False discards over every clear tile there is, bleached ones among them."""
    clear = [s for s, (cloud, known) in zip(shares, truth, strict=True) if cloud[known].mean() <= CLOUDY_TILE] + pale
    withheld = [(share > threshold).mean() > CLOUDY_TILE for share in clear]
    return {"false_discards_with_pale": float(np.mean(withheld)) if withheld else 0.0}


def _cloud_of(tile: Labelled, cell_px: int) -> Truth:
    """Which cells are cloud, and of which that is known; a clear tile's cells are all known. [t, t] each"""
    cells = tile.scl[::cell_px, ::cell_px]
    known = ~np.isin(cells, (0, 1, 7)) if tile.scl.any() else np.ones(cells.shape, bool)
    return np.isin(cells, CLOUD_CLASSES), known


def _cloud_probability(steps: NDArray[np.float64], settings: CloudSettings, temperature: float) -> NDArray[np.float64]:
    weight = np.exp((steps - steps.max(axis=0)) * settings.logit_step / temperature)
    return np.asarray((weight[THICK] + weight[THIN]) / weight.sum(axis=0))


def _log_loss(probability: NDArray[np.float64], cloud: NDArray[np.bool_]) -> float:
    p = np.clip(probability, 1e-4, 1.0 - 1e-4)
    return float(-np.where(cloud, np.log(p), np.log(1.0 - p)).mean())


def _tile_scores(
    shares: list[Steps], truth: list[Truth], threshold: float
) -> dict[str, float]:
    cloudy = np.array([cloud[known].mean() > CLOUDY_TILE for cloud, known in truth])
    found = np.array([(share > threshold).mean() > CLOUDY_TILE for share in shares])
    hit = sum(int(((s > threshold) & c & k).sum()) for s, (c, k) in zip(shares, truth, strict=True))
    either = sum(int((((s > threshold) | c) & k).sum()) for s, (c, k) in zip(shares, truth, strict=True))
    return {
        "tiles": len(cloudy),
        "tile_accuracy": float((cloudy == found).mean()),
        "false_discards": float((found & ~cloudy).sum() / max(1, (~cloudy).sum())),
        "pixel_iou": hit / max(1, either),
    }


def export(network: CloudUnet, out: Path, settings: CloudSettings, origin: dict[str, Any]) -> None:
    """Writes clouds.onnx and clouds.json (what goes into manifest["clouds"])."""
    example = torch.tensor(np.random.default_rng(0).integers(0, 256, (1, 8, 128, 128))) * INPUT_SCALE
    export_qcdq(network, example, out / "clouds.onnx", free_axes=(2, 3), integer_inputs=True, integer_outputs=True)
    digest = hashlib.sha256((out / "clouds.onnx").read_bytes()).hexdigest()
    table = asdict(settings) | {"classes": list(CLASSES), "sha256": digest} | origin
    (out / "clouds.json").write_text(json.dumps(table, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def logit_step_of(network: CloudUnet) -> float:
    """The power of two one integer step of the logits stands for."""
    scale: Tensor = network.logits.act_quant.scale()  # type: ignore[operator,union-attr]
    return float(scale.detach())


def run(recipe: dict[str, Any], rotation: str, out: Path) -> dict[str, Any]:
    """Everything from data to clouds.onnx; returns what is written beside it."""
    if rotation not in recipe["rotations"]:
        raise InputError(f"rotation {rotation!r} is unknown; choose one of {', '.join(recipe['rotations'])}")
    split = recipe["rotations"][rotation]
    settings = CloudSettings(cell_px=recipe["cell_px"])
    pool = load_cloud_pool()
    sampler = Sampler(pool.without(set(split["validation"]) | set(split["test"])), recipe, settings)
    torch.manual_seed(recipe["seed"])
    trained, network = build(recipe, False), build(recipe, True)
    train(trained, sampler, recipe, recipe["float_steps"], recipe["learning_rate"], out / "float.safetensors")
    fold_into(network, trained.eval())
    draws = (sampler.batch(8, np.random.default_rng([9, i]))[0] for i in range(24))
    calibrate(network, (torch.tensor(planes) * INPUT_SCALE for planes in draws))
    rate = recipe["learning_rate"] / 10
    train(network, sampler, recipe, recipe["quantised_steps"], rate, out / "quantised.safetensors")
    network.eval()
    settings = replace(settings, logit_step=logit_step_of(network))
    settings, figures = settle(network, pool.only(set(split["validation"])), settings)
    origin = {
        "rotation": rotation, "split": split, "validation": {k: round(v, 4) for k, v in figures.items()},
        "parameters": sum(p.numel() for p in trained.parameters()), "macs_per_pixel": round(macs_per_pixel(trained), 1),
    }  # fmt: skip
    export(network, out, settings, origin)
    return asdict(settings) | origin


def main(argv: list[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(prog="python -m export.clouds", description=__doc__)
    parser.add_argument("--recipe", default="clouds")
    parser.add_argument("--rotation", default="shipped")
    parser.add_argument("--out", type=Path, default=None)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args(argv)
    torch.set_num_threads(arguments.threads)
    out = arguments.out or Path("build") / "clouds" / arguments.rotation
    out.mkdir(parents=True, exist_ok=True)
    return run(load_recipe(arguments.recipe), arguments.rotation, out)


if __name__ == "__main__":
    main()
