"""The studies of what else the flight codec could do, each from data to a table of figures (docs/codec.md tells them).

    python -m export study blocks-16

All of them measure on held-out sites of the training pool, with the flight coder's real octets but for `zones`, which
counts code lengths. Arms of a study get equal budgets.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from export.lapped.context_model import ContextModel, new_context_model
from export.lapped.model import kernels_of
from export.lapped.networks import SecondLevel
from export.lapped.train import CHECKPOINTS
from export.lapped.transform import from_blocks
from export.studies import block16, residual_encoder, trained_functions, zone_flags
from export.studies.blocks import Blocks
from export.studies.coded import Arm, Curve, bd_rate_percent, coder_of, curves, kept_steps, refitted, sent, told
from export.studies.tiles import FOUR, Held, training_tiles
from export.studies.trained_functions import with_averages
from export.training import Schedule, load_weights
from payload.bundle import SHIPPED
from payload.codec.lapped.tables import load_tables
from payload.codec.lapped.transform import BLOCK, COEFFICIENTS

#: Of `designed` and of the context model's channel groups: every so many-th training tile.
EVERY = 5
ZONE_STEPS_DN, ZONE_MOSAICS = (160.0, 400.0, 900.0), 24


@dataclass(frozen=True)
class Budget:
    """What every arm gets: steps that the context model is trained on, tiles that tables are counted on; steps of the
    study's own training and its learning rate."""

    refit_steps: int
    counted: int
    steps: int
    learning_rate: float

    def schedule(self) -> Schedule:
        return Schedule(self.steps, self.learning_rate, warm_up=20)


@dataclass(frozen=True, eq=False)
class Bench:
    """What all studies need: the recipe, rotated training tiles, held-out mosaics, the flown transform."""

    recipe: dict[str, Any]
    tiles: Tensor
    held: tuple[Held, ...]
    flown: Blocks

    @classmethod
    def of(cls, recipe: dict[str, Any]) -> "Bench":
        tiles, held = training_tiles(recipe)
        transform = load_file(CHECKPOINTS / recipe["name"] / "transform.safetensors")
        functions = torch.from_numpy(from_blocks(kernels_of(transform).numpy())).float()
        return cls(recipe, tiles, held, Blocks(functions))

    def contexts(self) -> ContextModel:
        """The shipped context model, as it is."""
        found = self.flown.coefficients(self.tiles[::EVERY].float())
        model = new_context_model(self.recipe, found.flatten(1, 2), np.arange(len(found)))
        model.load_state_dict(load_weights(CHECKPOINTS / self.recipe["name"] / "context.safetensors")[0])
        return model.requires_grad_(False)


def plain_arm(name: str, blocks: Blocks) -> Arm:
    """A transform of blocks of 8 with the second level over its averages."""
    levels = SecondLevel()
    return Arm(
        name,
        lambda rotated, _: with_averages(blocks.coefficients(rotated), levels),
        lambda found: blocks.rotated(with_averages(found, levels.inverse)),
    )


def arm_of_16(bench: Bench) -> Arm:
    blocks, levels = block16.designed(bench.tiles[::EVERY]), SecondLevel()
    return Arm(
        "blocks of 16",
        lambda rotated, _: with_averages(block16.as_blocks_of_8(blocks.coefficients(rotated)), levels),
        lambda found: blocks.rotated(block16.as_blocks_of_16(with_averages(found, levels.inverse))),
    )


def arm_merged(bench: Bench) -> Arm:
    flown = plain_arm("", bench.flown)
    return Arm(
        "blocks of 8, merged by fours",
        lambda rotated, kept: block16.merged(flown.forward(rotated, kept)),
        lambda found: flown.back(block16.merged(found)),
    )


def arm_of_functions(bench: Bench, budget: Budget, out: Path) -> Arm:
    functions = trained_functions.Functions(bench.flown.functions)
    trained_functions.train(functions, bench.contexts(), bench.tiles, budget.schedule(), out)
    return plain_arm("functions trained through the rate", Blocks(functions.flown()))


def arm_of_residual(bench: Bench, budget: Budget, out: Path) -> Arm:
    torch.manual_seed(1)
    network, flown = residual_encoder.ResidualEncoder(len(bench.recipe["bands"])), plain_arm("", bench.flown)
    residual_encoder.train(network, bench.flown, bench.contexts(), bench.tiles, budget.schedule(), out)
    network.eval()
    return Arm(
        "residual network behind the transform",
        lambda rotated, kept: residual_encoder.encoded(network, flown.forward(rotated, kept), kept),
        flown.back,
    )


def study(name: str, recipe: dict[str, Any], budget: Budget, out: Path) -> list[str]:
    """Lines of figures; tables and checkpoints stay in `out`."""
    out.mkdir(parents=True, exist_ok=True)
    bench = Bench.of(recipe)
    if name == "zones":
        return zones(bench)
    made: dict[str, Callable[[], Sequence[Arm]]] = {
        "blocks-16": lambda: (arm_of_16(bench), arm_merged(bench)),
        "functions": lambda: (arm_of_functions(bench, budget, out / "functions.safetensors"),),
        "residual": lambda: (arm_of_residual(bench, budget, out / "residual.safetensors"),),
    }
    arms = (plain_arm("blocks of 8", bench.flown), *made[name]())
    found = [_measured(arm, bench, budget, out / f"{name}-{k}") for k, arm in enumerate(arms)]
    return compared([arm.name for arm in arms], found, bench.held)


def _measured(arm: Arm, bench: Bench, budget: Budget, out: Path) -> list[Curve]:
    out.mkdir(exist_ok=True)
    kept = kept_steps(len(bench.tiles))
    with torch.no_grad():
        parts = zip(bench.tiles.split(16), kept.split(16), strict=True)
        found = torch.cat([arm.forward(tiles.float(), steps).flatten(1, 2) for tiles, steps in parts])
    refitted(found, bench.recipe, budget.refit_steps, budget.counted, out / "tables.npz")
    return curves(arm, bench.held, out / "tables.npz", bench.recipe)


def compared(names: Sequence[str], found: Sequence[Sequence[Curve]], held: Sequence[Held]) -> list[str]:
    """BD-rate of every arm against the first, alone and where the better of both is taken on each mosaic and rate."""
    lines = []
    for name, own in list(zip(names, found, strict=True))[1:]:
        triples = list(zip(own, found[0], held, strict=True))
        alone = [bd_rate_percent(a, b, four.dn.size) for a, b, four in triples]
        better = [bd_rate_percent(a.beside(b), b, four.dn.size) for a, b, four in triples]
        lines += [f"{name}: {told(alone)}", f"{name}, or {names[0]} where better: {told(better)}"]
    return lines


def zones(bench: Bench) -> list[str]:
    """Of zone flags, by step."""
    path = SHIPPED / bench.recipe["name"] / "flight" / "tables.npz"
    tables, coder = load_tables(path), coder_of(path, 2 * bench.tiles.shape[-1] // BLOCK)
    flown, rng = plain_arm("", bench.flown), np.random.default_rng(0)

    def layers_of(rotated: Tensor, step_dn: float) -> tuple[list[zone_flags.LayerDecisions], int]:
        octets, _ = sent(flown, rotated.float(), coder, step_dn, bench.recipe)
        return list(zone_flags.walk(coder.decode_layers(octets), tables)), sum(map(len, octets))

    fours = [bench.tiles[rng.choice(len(bench.tiles), FOUR)] for _ in range(ZONE_MOSAICS)]
    seen = [layers_of(four, step)[0] for step in ZONE_STEPS_DN for four in fours]
    counts = [zone_flags.Counts() for _ in tables.layers]
    for count in (zone_flags.count_plain, zone_flags.count_flags):
        for tile in seen:
            for layer, of_layer in zip(tile, counts, strict=False):
                count(layer, of_layer)
    held = [four.rotated for four in bench.held[::2]]
    return [zone_line(step, [layers_of(four, step) for four in held], counts) for step in ZONE_STEPS_DN]


def zone_line(
    step_dn: float, tiles: Sequence[tuple[list[zone_flags.LayerDecisions], int]], counts: Sequence[zone_flags.Counts]
) -> str:
    """Figures of held-out tiles, each with its octets, at a step."""
    per_layer = [[zone_flags.figures(layer, c) for layer, c in zip(tile, counts, strict=False)] for tile, _ in tiles]
    all_ = zone_flags.summed([f for tile in per_layer for f in tile])
    octets, blocks = sum(n for _, n in tiles), sum(tile[0].fresh[0].size for tile, _ in tiles)
    pixels, more_bits = blocks * COEFFICIENTS, all_.bits_flagged + all_.bits_of_flags - all_.bits
    return (
        f"step {step_dn:g} DN, CR {2 * FOUR * pixels / octets:.1f}: {all_.decisions / pixels:.2f} decisions a pixel, "
        f"with flags {all_.decisions_flagged / pixels:.2f} and {all_.flags / pixels:.2f} flags; "
        f"{100 * more_bits / 8 / octets:+.2f} % of the octets (flags {100 * all_.bits_of_flags / 8 / octets:.1f} %); "
        f"{100 * all_.rows_idle / all_.rows:.0f} % of rows of blocks fall away"
    )
