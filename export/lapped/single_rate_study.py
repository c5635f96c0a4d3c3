"""What an embedded stream costs: streams cut after any layer against models trained for one rate alone.

    python -m export single-rate --out build/single-rate

On the held-out sites of the training pool. For every wanted compression ratio and every number of layers kept, the
embedded codec's finest step is set so that the cut streams have that ratio. Against them stands a codec of one layer
whose context model was trained from nothing, and whose decoder was trained on from the embedded one's, at the step of
that ratio alone.
"""

import argparse
import copy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from export import training
from export.data import Pool, load_pool
from export.lapped.context_model import ContextModel, draw_loss, new_context_model
from export.lapped.context_tables import count_tables, integer_arrays
from export.lapped.model import LappedModel, all_coefficients, augment, column, distortion, load_trained
from export.lapped.quantiser import magnitudes
from payload.codec.lapped import layers
from payload.codec.lapped.compiled_layers import EntropyKernel
from payload.codec.lapped.power_law import compand, expand
from payload.codec.lapped.quantiser import Indices
from payload.codec.lapped.tables import ContextTables, load_tables
from payload.codec.rotation import fit, unrotate
from payload.link.space_packet import octets_on_air
from payload.link.tile_code import header_octets
from payload.native import library

RATIOS = (50.0, 100.0, 250.0)
PACKET_OCTETS, SIDE_OCTETS = 1024, 19
Say = Callable[[str], None]


@dataclass(frozen=True, eq=False)
class Held:
    """The held-out tiles: dn uint16 [N, 4, 128, 128], rotated and coefficients [N, 256, 16, 16]."""

    dn: NDArray[np.uint16]
    coefficients: Tensor
    gamma: float


@dataclass(frozen=True)
class Point:
    """Mean PSNR (peak 10 000) at a ratio: of embedded streams cut after `layers` layers, or of a codec for it alone."""

    ratio: float
    layers: int | None
    step_dn: float
    psnr_db: float


def compare(
    recipe: dict[str, Any], checkpoints: Path, out: Path, settings: argparse.Namespace, say: Say
) -> list[Point]:
    """All points; what was trained stays in `out`."""
    torch.set_num_threads(settings.threads)
    pool = load_pool(recipe["bands"], recipe["compand"])
    model = load_trained(recipe, checkpoints)
    coefficients = all_coefficients(pool, model)
    index = pool.validation[:: settings.every]
    held = Held(pool.dn[index], coefficients[index], recipe["compand"])
    points: list[Point] = []
    embedded = load_tables(checkpoints / "tables.npz")
    for ratio in RATIOS:
        for count in range(1, recipe["layers"] + 1):
            step = _step_for(held, embedded, count, ratio)
            points.append(Point(ratio, count, step, _psnr_db(held, model, step, recipe["layers"] - count)))
            say(_line(points[-1]))
        single = _single(recipe, pool, coefficients, model, points[-1].step_dn, out / f"cr{ratio:g}", settings)
        step = _step_for(held, single[0], 1, ratio)
        points.append(Point(ratio, None, step, _psnr_db(held, single[1], step, 0)))
        say(_line(points[-1]))
    return points


def _single(
    recipe: dict[str, Any],
    pool: Pool,
    coefficients: Tensor,
    model: LappedModel,
    step_dn: float,
    out: Path,
    settings: argparse.Namespace,
) -> tuple[ContextTables, LappedModel]:
    """Tables and decoder of one layer, trained for steps within a few per cent of `step_dn`."""
    out.mkdir(parents=True, exist_ok=True)
    narrow = (0.9 * step_dn, 1.1 * step_dn)
    context = recipe["context"] | {"steps": settings.context_steps, "step_dn": list(narrow)}
    contexts = _context_for(recipe | {"layers": 1, "context": context}, coefficients, pool.training)
    rng = np.random.default_rng(3)
    tiles = []
    for tile in rng.choice(pool.training, 200):
        magnitude = magnitudes(coefficients[tile], torch.tensor(rng.uniform(*narrow), dtype=torch.float32)).numpy()
        tiles.append(Indices(np.minimum(magnitude, 65535).astype(np.uint16), (coefficients[tile] < 0).numpy()))
    count_tables(integer_arrays(contexts), tiles, out / "tables.npz")
    return load_tables(out / "tables.npz"), _decoder_for(model, pool, narrow, settings.decoder_steps)


def _context_for(recipe: dict[str, Any], coefficients: Tensor, training_tiles: NDArray[np.intp]) -> ContextModel:
    settings = recipe["context"]
    contexts = new_context_model(recipe, coefficients, training_tiles)
    torch.manual_seed(settings["seed"])
    training.fit(
        contexts,
        torch.optim.Adam(contexts.parameters(), betas=(0.9, 0.99)),
        training.Schedule(settings["steps"], settings["learning_rate"], warm_up=0, shape="linear"),
        lambda step_no: draw_loss(contexts, coefficients[training_tiles], settings, step_no),
        progress=training.Progress("context model of one layer", settings["steps"]),
    )
    return contexts


def _decoder_for(model: LappedModel, pool: Pool, narrow: tuple[float, float], steps: int) -> LappedModel:
    trained = copy.deepcopy(model)

    def loss_of(step_no: int) -> Tensor:
        rng = np.random.default_rng([7, step_no])
        batch = augment(torch.tensor(pool.rotated[rng.choice(pool.training, 6)], dtype=torch.float32), rng)
        step = torch.tensor(rng.uniform(*narrow, len(batch)), dtype=torch.float32)
        return torch.log(distortion(trained, batch, step, torch.zeros(len(batch)), refined=True) + 1e-3).mean()

    training.fit(
        trained.decoder,
        torch.optim.AdamW(trained.decoder.parameters(), weight_decay=1e-4),
        training.Schedule(steps, 1e-4, warm_up=0, floor=0.0, shape="linear"),
        loss_of,
        progress=training.Progress("decoder for one rate", steps),
    )
    return trained


def _step_for(held: Held, tables: ContextTables, layers: int, ratio: float) -> float:
    """The finest step whose streams, cut after `layers` layers, have this ratio over all tiles together."""
    low, high = np.log(2.0), np.log(16000.0)
    for _ in range(12):
        middle = (low + high) / 2
        if _octets(held, tables, float(np.exp(middle)), layers) * ratio > held.dn.size * 2:
            low = middle
        else:
            high = middle
    return float(np.exp(high))


def _octets(held: Held, tables: ContextTables, step: float, keep: int) -> int:
    """On the link, a tile of the pool counted as the quarter of a 256 px tile that it is: headers by a quarter."""
    cells = held.coefficients.shape[-1]
    coder = EntropyKernel(tables, cells, cells) if library.available else layers.Plain(tables, cells)
    total = 0
    for tile in held.coefficients:
        magnitude = np.minimum(magnitudes(tile, torch.tensor(step)).numpy(), 65535).astype(np.uint16)
        coded = coder.encode_layers(Indices(magnitude, (tile < 0).numpy()), keep)
        total += sum(map(len, coded)) + header_octets(SIDE_OCTETS, keep) // 4
    return octets_on_air(total, PACKET_OCTETS)


def _psnr_db(held: Held, model: LappedModel, step: float, missing: int) -> float:
    per_tile = []
    model.eval()
    for dn, coefficients in zip(held.dn, held.coefficients, strict=True):
        rotation = fit(compand(dn, held.gamma), np.ones(dn.shape[1:], bool))
        steps, depth = torch.tensor([step]), torch.tensor([missing])
        with torch.no_grad():
            bands = coefficients.reshape(1, 4, -1, *coefficients.shape[1:])
            kept = model.dequantise(bands, column(steps), column(depth))
            better = model.decoder(model.rebuild(kept), kept, column(depth, 4) / 3.0)
            rotated = better[0].numpy() * step * 2.0**missing
        rebuilt = np.clip(np.rint(expand(unrotate(rotated, rotation), held.gamma)), 0, 65535)
        per_tile.append(10 * np.log10(1e8 / ((rebuilt - dn) ** 2).mean()))
    return float(np.mean(per_tile))


def _line(point: Point) -> str:
    what = "trained for it" if point.layers is None else f"cut after {point.layers}"
    return f"CR {point.ratio:5g}  {what:16} finest step {point.step_dn:7.1f} DN  {point.psnr_db:.2f} dB"
