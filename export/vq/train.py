"""Training of the field's reference system: a VQ-VAE (van den Oord et al., arXiv:1711.00937) at three strides.

Codebooks follow the latents by running means (the EMA variant of the paper); entries that nobody uses start again from
a latent of the batch. First in float, then with the INT8 of the flight network in the loop:

    python -m export train --recipe corsa-fpn3-512
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from export.data import Pool
from export.graphs.qat_layers import calibrate
from export.recipe import load_recipe
from export.training import Progress, Schedule, fit
from export.vq.model import QUANTISED, Corsa, distortion, in_int8, load_trained, normalisation, planes_of, resized
from export.vq.networks import LATENT_STEPS, PLANE_STEPS

FLOAT = "float.safetensors"


def train_vq(pool: Pool, recipe: Mapping[str, Any], out: Path) -> None:
    """Both phases of a system, or the second alone from another one; leaves quantised.safetensors and logs in `out`."""
    settings = recipe["training"]
    torch.manual_seed(settings["seed"])
    if "start" in recipe:
        flight = resized(load_trained(load_recipe(recipe["start"]), out.parent / recipe["start"]), recipe)
        planes = planes_of(pool, flight)
    else:
        flight, planes = _trained_in_float(pool, recipe, out)
    schedule = Schedule(settings["quantised_steps"], 0.3 * settings["learning_rate"])
    _phase(flight.train(), planes, pool, settings, schedule, out / QUANTISED)


def _trained_in_float(pool: Pool, recipe: Mapping[str, Any], out: Path) -> tuple[Corsa, Tensor]:
    """A system trained in float, its encoder then in INT8 with calibrated scales; and the pool's planes."""
    settings = recipe["training"]
    model = Corsa(recipe, quantised=False).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    model.mean_dn, model.scale_dn = normalisation(pool.dn[pool.training])
    planes = planes_of(pool, model)
    _phase(model, planes, pool, settings, Schedule(settings["float_steps"], settings["learning_rate"]), out / FLOAT)
    flight = in_int8(model, recipe)
    calibrate(flight.encoder, (_crops(planes, pool, settings, np.random.default_rng([9, k])) for k in range(16)))
    return flight, planes


def _phase(
    model: Corsa, planes: Tensor, pool: Pool, settings: Mapping[str, Any], schedule: Schedule, path: Path
) -> None:
    def loss_of(step_no: int) -> Tensor:
        torch.manual_seed(settings["seed"] * 1_000_000 + step_no)
        rng = np.random.default_rng([settings["seed"], schedule.steps, step_no])
        return _loss(model, _crops(planes, pool, settings, rng), rng, settings)

    fit(
        model,
        torch.optim.Adam(_groups(model)),
        schedule,
        loss_of,
        path,
        validate=lambda: validate(model, planes[pool.validation[::5]]),
        clip=5.0,
        progress=Progress("in INT8" if model.quantised else "in float", schedule.steps),
    )


def _loss(model: Corsa, crops: Tensor, rng: np.random.Generator, settings: Mapping[str, Any]) -> Tensor:
    kept = torch.ones(len(crops), len(model.books))
    for crop in np.flatnonzero(rng.random(len(crops)) < settings["dropped"]):
        kept[crop, int(rng.integers(1, len(model.books))) :] = 0  # the coarsest always arrives
    rebuilt, away, _ = model(crops, kept)
    return distortion(crops, rebuilt) + settings["commitment"] * away


def _crops(planes: Tensor, pool: Pool, settings: Mapping[str, Any], rng: np.random.Generator) -> Tensor:
    """A batch [N, B, c, c] from the training sites, each turned or mirrored its own way."""
    size, crops = settings["crop_px"], []
    for tile in rng.choice(pool.training, settings["batch"]):
        top, left = rng.integers(0, planes.shape[2] - size + 1, 2)
        crop = torch.rot90(planes[tile, :, top : top + size, left : left + size], int(rng.integers(4)), (1, 2))
        crops.append(crop.flip(2) if rng.integers(2) else crop)
    return torch.stack(crops).contiguous(memory_format=torch.channels_last)


def _groups(model: Corsa) -> list[dict[str, Any]]:
    """Parameters by the unit they are in: a step of the optimiser must be as large in every unit."""
    gains = {"encoder.stem.weight": 1 / PLANE_STEPS} | {
        f"encoder.head{s}.{kind}": LATENT_STEPS for s in (8, 4, 2) for kind in ("weight", "bias")
    }
    groups = [{"params": [p], "gain": gains[name]} for name, p in model.named_parameters() if name in gains]
    return [*groups, {"params": [p for name, p in model.named_parameters() if name not in gains], "gain": 1.0}]


def validate(model: Corsa, planes: Tensor) -> dict[str, float]:
    """Mean SNR in plane steps (peak 255), and entries in use per codebook, on held-out sites."""
    model.eval()
    used: list[set[int]] = [set() for _ in model.books]
    errors = []
    with torch.no_grad():
        for batch in planes.split(8):
            rebuilt, _, indices = model(batch)
            errors.append(((batch - rebuilt) ** 2).mean((1, 2, 3)))
            for seen, index in zip(used, indices, strict=True):
                seen.update(index.unique().tolist())
    model.train()
    psnr = 10 * torch.log10(255.0**2 / torch.cat(errors)).mean()
    return {"psnr_planes_db": round(float(psnr), 3)} | {f"used_{k}": len(seen) for k, seen in enumerate(used)}
