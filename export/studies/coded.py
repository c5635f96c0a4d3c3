"""Coefficients of any transform through the flight coder: tables refitted to them, real octets, PSNR in DN, BD-rate.

Every arm of a study gets the same budget: the shipped context model trained on for so many steps on the arm's own
coefficients of the training sites, symbol tables counted on so many of their tiles. What is sent is what the payload
sends (indices, layers, what is left out as not worth its octets); what is not counted alike is counted for neither.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.interpolate import PchipInterpolator
from torch import Tensor

from export import training
from export.lapped.context_model import ContextModel, draw_loss, new_context_model
from export.lapped.context_tables import count_tables, integer_arrays
from export.lapped.quantiser import magnitudes
from export.lapped.train import CHECKPOINTS
from export.studies.tiles import Held, apart, side_by_side
from payload.codec.interface import PEAK_DN, to_dn
from payload.codec.lapped import layers, quantiser
from payload.codec.lapped.compiled_layers import EntropyKernel
from payload.codec.lapped.many.sets import LayerCoder
from payload.codec.lapped.power_law import expand
from payload.codec.lapped.tables import load_tables
from payload.codec.lapped.transform import BLOCK, COEFFICIENTS, LATENT_BITS, Latents
from payload.codec.rotation import unrotate
from payload.link.tile_code import header_octets
from payload.native import library

#: Steps asked for, DN: from CR 8 or less to 250 or more on every mosaic.
STEPS_DN = tuple(64.0 * 2.0 ** (k / 2) for k in range(11))
SIDE_OCTETS, RATIOS = 19, (20.0, 250.0)
BOOTSTRAP_DRAWS = 10_000


@dataclass(frozen=True)
class Arm:
    """One way to code: rotated tiles [N, B, T, T] -> coefficients [N, B, 64, h, w] for the coder, and back."""

    name: str
    forward: Callable[[Tensor, Tensor], Tensor]  # of rotated tiles and steps [N]
    back: Callable[[Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class Curve:
    """Octets and PSNR of one mosaic by step, a point each, [P]."""

    octets: NDArray[np.float64]
    psnr_db: NDArray[np.float64]

    def beside(self, other: "Curve") -> "Curve":
        """Points of either."""
        return Curve(np.append(self.octets, other.octets), np.append(self.psnr_db, other.psnr_db))


def refitted(coefficients: Tensor, recipe: dict[str, Any], steps: int, counted: int, path: Path) -> list[float]:
    """Tables at `path` for coefficients [N, B * 64, h, w] of training tiles. Gives the losses of the last 50 steps."""
    settings = recipe["context"]
    everywhere = np.arange(len(coefficients))
    model = new_context_model(recipe, coefficients, everywhere)
    shipped, _ = training.load_weights(CHECKPOINTS / recipe["name"] / "context.safetensors")
    model.load_state_dict(shipped | {"order": model.order})
    losses: list[float] = []

    def loss_of(step_no: int) -> Tensor:
        loss = draw_loss(model, coefficients, settings, step_no)
        losses.append(float(loss.detach()))
        return loss

    optimiser = torch.optim.Adam(model.parameters(), betas=(0.9, 0.99))
    schedule = training.Schedule(steps, 0.3 * settings["learning_rate"], warm_up=20, shape="linear")
    training.fit(model, optimiser, schedule, loss_of, progress=training.Progress(path.stem, steps))
    _count(model, coefficients, settings, counted, path)
    return losses[-50:]


def _count(model: ContextModel, coefficients: Tensor, settings: dict[str, Any], counted: int, path: Path) -> None:
    rng = np.random.default_rng([settings["seed"], 1])
    low, high = np.log(settings["step_dn"])
    tiles = []
    for tile in rng.choice(len(coefficients), counted):
        step = torch.tensor(np.exp(rng.uniform(low, high)), dtype=torch.float32)
        magnitude = magnitudes(coefficients[tile], step).clamp(max=quantiser.MAGNITUDE_LIMIT)
        indices = magnitude.numpy().astype(np.uint16), (coefficients[tile] < 0).numpy()
        tiles.append(quantiser.Indices(*indices))
    count_tables(integer_arrays(model), tiles, path)


def kept_steps(count: int) -> Tensor:
    """Steps [N] at which the arm's coefficients of training tiles are taken, where they hang on it."""
    low, high = np.log([STEPS_DN[1], STEPS_DN[-2]])
    return torch.from_numpy(np.exp(np.random.default_rng(3).uniform(low, high, count))).float()


def curves(arm: Arm, held: Sequence[Held], tables: Path, recipe: dict[str, Any]) -> list[Curve]:
    """Of every mosaic."""
    coder, found = coder_of(tables, 2 * held[0].rotated.shape[-1] // BLOCK), []
    for four in held:
        points = np.array([_point(arm, four, coder, recipe, step) for step in STEPS_DN])
        found.append(Curve(points[:, 0], points[:, 1]))
    return found


def coder_of(tables: Path, cells: int) -> LayerCoder:
    """The flight coder for tiles of cells x cells blocks."""
    model = load_tables(tables)
    return EntropyKernel(model, cells, cells) if library.available else layers.Plain(model, cells)


def sent(
    arm: Arm, rotated: Tensor, coder: LayerCoder, step_dn: float, recipe: dict[str, Any]
) -> tuple[tuple[bytes, ...], float]:
    """Layers of a mosaic [4, B, T, T] at a step, as the payload sends them, and the step that is kept."""
    coarsest = quantiser.step_index(recipe["context"]["step_dn"][1])
    index, unsent = quantiser.within(quantiser.step_index(step_dn), coarsest)
    kept = quantiser.step_dn(index) * 2.0**unsent
    with torch.no_grad():
        found = side_by_side(arm.forward(rotated, torch.full((len(rotated),), kept)))
    latents = Latents(np.rint(found.numpy() * 2.0**LATENT_BITS).astype(np.int32))
    return coder.encode_layers(quantiser.quantise(latents, index, unsent), recipe["layers"] - unsent), kept


def _point(arm: Arm, four: Held, coder: LayerCoder, recipe: dict[str, Any], step_dn: float) -> tuple[float, float]:
    """Octets and PSNR at a step."""
    found, kept = sent(arm, four.rotated, coder, step_dn, recipe)
    levels = torch.from_numpy(quantiser.dequantise(coder.decode_layers(found)))
    bands = levels.reshape(-1, COEFFICIENTS, *levels.shape[1:])
    with torch.no_grad():
        rotated = arm.back(apart(bands) * kept).numpy()
    octets = sum(map(len, found)) + header_octets(SIDE_OCTETS, len(found))
    return float(octets), _psnr_db(four, rotated, recipe["compand"])


def _psnr_db(four: Held, rotated: NDArray[np.float32], gamma: float) -> float:
    tiles = zip(rotated, four.rotations, strict=True)
    rebuilt = np.stack([to_dn(expand(unrotate(r, rotation), gamma)) for r, rotation in tiles])
    error = rebuilt.astype(np.float64) - four.dn
    return float(10 * np.log10(PEAK_DN**2 / (error**2).mean()))


def bd_rate_percent(test: Curve, reference: Curve, samples: int) -> float:
    """Mean difference in octets at equal PSNR over RATIOS, in per cent; sim/metrics/bd_rate.py has the same."""
    most, fewest = (2 * samples / ratio for ratio in RATIOS)
    lines = [_line(curve) for curve in (test, reference)]
    spans = [PchipInterpolator(x, db)(np.clip(np.log([fewest, most]), x[0], x[-1])) for x, db in lines]
    low, high = max(s[0] for s in spans), min(s[1] for s in spans)
    mean = [PchipInterpolator(db, octets).integrate(low, high) / (high - low) for octets, db in lines]
    return float(100 * np.expm1(mean[0] - mean[1]))


def _line(curve: Curve) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Log octets and PSNR of the points that no other undercuts, both rising."""
    order = np.lexsort((-curve.psnr_db, curve.octets))
    octets, psnr = curve.octets[order], curve.psnr_db[order]
    better = psnr > np.maximum.accumulate(np.append(-np.inf, psnr[:-1]))
    return np.log(octets[better]), psnr[better]


def told(percent: Sequence[float]) -> str:
    """Mean and its 95 % interval, a bootstrap over mosaics."""
    values = np.array(percent)
    drawn = np.random.default_rng(20).integers(len(values), size=(BOOTSTRAP_DRAWS, len(values)))
    low, high = np.percentile(values[drawn].mean(1), [2.5, 97.5])
    return f"{values.mean():+.2f} % ({low:+.2f} .. {high:+.2f})"

