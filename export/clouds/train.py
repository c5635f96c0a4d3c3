"""Training of the cloud network: in float, then with the rounding in the loop, then thresholds, then the ONNX file.

    python -m export.clouds.train --rotation shipped --out build/clouds/shipped

Leaves out whole sites: `test` sites are never looked at here. Temperature and thresholds are chosen on every other site
by networks that have not seen it: each fold of sites is left out once more and judged by a shorter float training.
Checkpoints are safetensors; a run picks up where the last one stopped.
"""

import argparse
import hashlib
import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from export.clouds.data import CloudPool, Labelled, Sampler, averages, bleach, firm, load_cloud_pool
from export.clouds.network import CloudUnet, as_cells, macs_per_pixel
from export.graphs.qat_layers import INPUT_SCALE, calibrate, fold_into
from export.graphs.to_onnx import export_qcdq
from export.recipe import load_recipe
from export.training import Average, Progress, Schedule, fit
from payload.clouds.gate import BIN_PX, CLASSES, THICK, THIN, CloudSettings, bin_sums, hazy_and_white, input_planes
from payload.errors import InputError

Floats = NDArray[np.float64]
Bool = NDArray[np.bool_]

#: A tile is cloudy when more than this share of it is cloud: CloudScout's and PhiSat-1's definition.
CLOUDY_TILE = 0.7
#: What `sure_above` is chosen by: the bound on clear tiles taken for cloudy, and the accuracy required of tiles with a
#: point to spare for sites never seen. More accuracy than that is not bought with discards.
FALSE_DISCARDS, TILE_ACCURACY = 0.01, 0.93
#: A tile less known than this is not asked whether it is cloudy.
LEAST_KNOWN = 0.5
#: Drawn clouds per fold on which thin cloud and shadow are measured; no reference of theirs is worth the name.
DRAWN = 60
THRESHOLDS = tuple(float(t) for t in np.round(np.arange(0.2, 0.991, 0.01), 2))


def build(recipe: dict[str, Any], quantised: bool) -> CloudUnet:
    a, b = recipe["widths"]
    return CloudUnet((a, b), quantised=quantised)


def cross_entropy(logits: Tensor, targets: Tensor, weights: Tensor, smoothing: float = 0.0) -> Tensor:
    """Soft targets [N, 4, t, t], weight per cell [N, t, t]; `smoothing` is shared out among the classes."""
    wanted = targets * (1.0 - smoothing) + smoothing / len(CLASSES)
    per_cell = -(wanted * functional.log_softmax(logits, dim=1)).sum(1)
    return (per_cell * weights).sum() / weights.sum().clamp(min=1.0)


def train(
    network: nn.Module, sampler: Sampler, recipe: dict[str, Any], steps: int, rate: float, checkpoint: Path
) -> None:
    """Runs `steps` steps and leaves the running average of the weights in the network and in `checkpoint`."""

    def loss_of(step: int) -> Tensor:
        planes, targets, weights = sampler.batch(recipe["batch"], np.random.default_rng([recipe["seed"], steps, step]))
        logits = as_cells(network(torch.from_numpy(planes) * INPUT_SCALE))
        return cross_entropy(logits, torch.from_numpy(targets), torch.from_numpy(weights), recipe["label_smoothing"])

    network.train()
    fit(
        network,
        torch.optim.AdamW(network.parameters(), weight_decay=1e-3),
        Schedule(steps, rate),
        loss_of,
        checkpoint,
        Average(network, 0.995, 19),
        progress=Progress(checkpoint.stem, steps),
    )


@dataclass(frozen=True, eq=False)
class Seen:
    """A tile judged by a network that has not seen its site. `logits` of the cells; None: not judged.

    `cloud`, `known`: the reference on the same cells; `witnessed`: where the payload's second witness finds cloud, too;
    `labelled`: the reference is a classification, not a look by eye; `pale`: ground made as pale as sand or snow.
    """

    logits: Floats | None  # [4, t, t]
    cloud: Bool  # [t, t]
    known: Bool  # [t, t]
    witnessed: Bool  # [t, t]
    labelled: bool = True
    pale: bool = False

    def probability(self, temperature: float) -> Floats:
        if self.logits is None:
            return np.zeros(self.cloud.shape)
        weight = np.exp((self.logits - self.logits.max(axis=0)) / temperature)
        return np.asarray((weight[THICK] + weight[THIN]) / weight.sum(axis=0))


def judge(network: nn.Module, pool: CloudPool, settings: CloudSettings) -> list[Seen]:
    """Labelled tiles, clear tiles, and the clear tiles once more, made pale; each as the payload would see it."""
    rng = np.random.default_rng(17)
    seen = [
        Seen(_logits(network, t.dn, settings), *_reference(t, settings.cell_px), _witnessed(t.dn), bool(t.scl.any()))
        for t in pool.labelled + pool.clear
    ]
    for tile in pool.clear:
        ground = averages(tile.dn)
        pale = bleach(ground, rng)
        if not np.array_equal(pale, ground):
            dn = np.round(pale).astype(np.uint16).repeat(BIN_PX, 1).repeat(BIN_PX, 2)
            reference = _reference(tile, settings.cell_px)
            seen.append(Seen(_logits(network, dn, settings), *reference, _witnessed(dn), labelled=False, pale=True))
    return seen


def _witnessed(dn: NDArray[np.uint16]) -> Bool:
    return hazy_and_white(bin_sums(dn))


def _logits(network: nn.Module, dn: NDArray[np.uint16], settings: CloudSettings) -> Floats | None:
    planes = input_planes(dn, np.ones(dn.shape[1:], bool), settings)
    if planes is None:
        return None
    with torch.no_grad():
        return np.asarray(as_cells(network(torch.tensor(planes[None]) * INPUT_SCALE))[0].numpy(), np.float64)


def _reference(tile: Labelled, cell_px: int) -> tuple[Bool, Bool]:
    """Which cells are cloud, and of which that is known; a clear tile's cells are all known. [t, t] each"""
    cloud, known = firm(tile.scl) if tile.scl.any() else (np.zeros(tile.scl.shape, bool), np.ones(tile.scl.shape, bool))
    return cloud[::cell_px, ::cell_px], known[::cell_px, ::cell_px]


def settle(seen: list[Seen], settings: CloudSettings) -> tuple[CloudSettings, dict[str, float]]:
    """Temperature (least cross-entropy), `cloudy_above` (best IoU of cloud) and `sure_above` from tiles judged unseen.

    `sure_above`: the most careful threshold that reaches TILE_ACCURACY, else the most accurate one, among those that
    throw away at most FALSE_DISCARDS of the labelled tiles that are not cloudy and of the tiles clear by eye.
    """
    real = [s for s in seen if not s.pale]
    temperature, loss = _temperature(real)
    shown = [(s, s.probability(temperature)) for s in seen]
    ious = {t: pixel_iou([(s, p > t) for s, p in shown if not s.pale]) for t in THRESHOLDS}
    cloudy_above = max(ious, key=ious.__getitem__)
    scores = {t: _tile_scores([(s, (p > t) & s.witnessed) for s, p in shown]) for t in THRESHOLDS}
    allowed = {t: s for t, s in scores.items() if max(s["false_discards"], s["clear_discards"]) <= FALSE_DISCARDS} or {
        THRESHOLDS[-1]: scores[THRESHOLDS[-1]]
    }
    sure_above = max(allowed, key=lambda t: (min(allowed[t]["tile_accuracy"], TILE_ACCURACY), t))
    found = replace(settings, temperature=temperature, cloudy_above=cloudy_above, sure_above=sure_above)
    return found, {"log_loss": loss, "pixel_iou": ious[cloudy_above]} | scores[sure_above]


def _temperature(seen: list[Seen]) -> tuple[float, float]:
    losses = {}
    for temperature in np.round(np.arange(0.5, 4.01, 0.1), 2):
        p = np.concatenate([s.probability(float(temperature))[s.known] for s in seen]).clip(1e-4, 1.0 - 1e-4)
        cloud = np.concatenate([s.cloud[s.known] for s in seen])
        losses[float(temperature)] = float(-np.where(cloud, np.log(p), np.log(1.0 - p)).mean())
    best = min(losses, key=losses.__getitem__)
    return best, losses[best]


def pixel_iou(found: list[tuple[Seen, Bool]]) -> float:
    hit = sum(int((mask & s.cloud & s.known).sum()) for s, mask in found)
    either = sum(int(((mask | s.cloud) & s.known).sum()) for s, mask in found)
    return hit / max(1, either)


def _tile_scores(found: list[tuple[Seen, Bool]]) -> dict[str, float]:
    """Accuracy over labelled tiles; discards of labelled ones that are not cloudy, of clear ones, of pale ones."""
    asked = [(s, bool(mask.mean() > CLOUDY_TILE)) for s, mask in found if s.known.mean() > LEAST_KNOWN]
    labelled = [(bool(s.cloud[s.known].mean() > CLOUDY_TILE), gone) for s, gone in asked if s.labelled]
    return {
        "tiles": len(labelled),
        "tile_accuracy": _mean([cloudy == gone for cloudy, gone in labelled]),
        "false_discards": _mean([gone for cloudy, gone in labelled if not cloudy]),
        "clear_discards": _mean([gone for s, gone in asked if not s.labelled and not s.pale]),
        "pale_discards": _mean([gone for s, gone in asked if s.pale]),
    }


def _mean(values: list[bool]) -> float:
    return float(np.mean(values)) if values else 0.0


def export(network: CloudUnet, out: Path, settings: CloudSettings, origin: dict[str, Any]) -> None:
    """Writes clouds.onnx and clouds.json (what goes into manifest["clouds"])."""
    example = torch.tensor(np.random.default_rng(0).integers(0, 256, (1, 8, 64, 64))) * INPUT_SCALE
    path = out / "clouds.onnx"
    export_qcdq(
        network, example, path, free_axes=(2, 3), integer_inputs=True, integer_outputs=True, px_per_sample=BIN_PX
    )
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
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
    settings = CloudSettings()
    pool = load_cloud_pool().without(set(split["test"]))
    seen, drawn = judge_folds(recipe, split["folds"], pool, settings, out)
    sampler = Sampler(pool, recipe, settings)
    torch.manual_seed(recipe["seed"])
    trained, network = build(recipe, False), build(recipe, True)
    train(trained, sampler, recipe, recipe["float_steps"], recipe["learning_rate"], out / "float.safetensors")
    fold_into(network, trained.eval())
    draws = (sampler.batch(8, np.random.default_rng([9, i]))[0] for i in range(24))
    calibrate(network, (torch.tensor(planes) * INPUT_SCALE for planes in draws))
    rate = recipe["learning_rate"] / 10
    train(network, sampler, recipe, recipe["quantised_steps"], rate, out / "quantised.safetensors")
    network.eval()
    settings, figures = settle(seen, replace(settings, logit_step=logit_step_of(network)))
    origin = {
        "rotation": rotation, "split": split, "validation": {k: round(v, 4) for k, v in figures.items()},
        "drawn_iou": {name: round(iou, 4) for name, iou in zip(CLASSES, _class_ious(drawn), strict=True)},
        "parameters": sum(p.numel() for p in trained.parameters()), "macs_per_pixel": round(macs_per_pixel(trained), 1),
    }  # fmt: skip
    export(network, out, settings, origin)
    return asdict(settings) | origin


def judge_folds(
    recipe: dict[str, Any], folds: list[list[str]], pool: CloudPool, settings: CloudSettings, out: Path
) -> tuple[list[Seen], NDArray[np.int64]]:
    """The tiles of every fold, judged by a float network trained without it, and drawn clouds over its clear tiles.

    The counts [4, 4]: cells of each class drawn (rows) and found (columns).
    """
    seen, drawn = [], np.zeros((len(CLASSES), len(CLASSES)), np.int64)
    for i, sites in enumerate(folds):
        torch.manual_seed(recipe["seed"] + 1 + i)
        network = build(recipe, False)
        sampler = Sampler(pool.without(set(sites)), recipe, settings)
        checkpoint = out / f"fold{i}.safetensors"
        train(network, sampler, recipe, recipe["float_steps"], recipe["learning_rate"], checkpoint)
        left_out = pool.only(set(sites))
        seen += judge(network.eval(), left_out, settings)
        only_drawn = recipe | {"small_share": 0.0, "mix": recipe["mix"] | {"labelled": 0.0, "composited": 1.0}}
        drawn += _count_drawn(network, Sampler(left_out, only_drawn, settings))
    return seen, drawn


def _count_drawn(network: nn.Module, sampler: Sampler) -> NDArray[np.int64]:
    planes, targets, weights = sampler.batch(DRAWN, np.random.default_rng(23))
    with torch.no_grad():
        found = as_cells(network(torch.from_numpy(planes) * INPUT_SCALE)).argmax(1).numpy()
    pairs = len(CLASSES) * targets.argmax(axis=1) + found
    return np.bincount(pairs[weights > 0], minlength=len(CLASSES) ** 2).reshape(len(CLASSES), -1)


def _class_ious(counts: NDArray[np.int64]) -> list[float]:
    hits = counts.diagonal()
    return [float(v) for v in hits / np.maximum(1, counts.sum(axis=0) + counts.sum(axis=1) - hits)]


def main(argv: list[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(prog="python -m export.clouds.train", description=__doc__)
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
