"""Training of the flight codec, in the order of its parts: transform, decoder, context model. Resumable at any moment.

    python -m export train --recipe edge --stage decoder --out build/edge

Every stage writes checkpoints (safetensors) and a log (CSV) into the output folder and picks up from them.
"""

import argparse
import csv
import shutil
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from export.data import Pool, load_pool
from export.lapped.context_model import ContextModel, channel_groups, nats, train_context
from export.lapped.context_tables import count_tables, integer_arrays
from export.lapped.networks import Analysis, Decoder, SecondLevel, Synthesis, mixed_precision
from export.lapped.quantiser import levels, magnitudes
from export.lapped.transform import (
    covariance_of,
    design_prefilter,
    from_blocks,
    quantise_weights,
    separable_weights,
    to_blocks,
)
from payload.codec.lapped.quantiser import Indices
from payload.errors import InputError

RECIPES = Path(__file__).parents[1] / "recipes"
SAVE_EVERY_S = 300.0
#: Compact checkpoints that travel with the repository.
CHECKPOINTS = Path(__file__).parents[1] / "checkpoints"
STAGE_FILES = ("transform.safetensors", "decoder.safetensors", "context.safetensors")


def load_recipe(name: str) -> dict[str, Any]:
    """A recipe by the name of its file, or file-variant where the file lists [variants.VARIANT] of a common text."""
    stem, _, variant = name.rpartition("-")
    for file, chosen in ((name, None), (stem, variant)):
        path = RECIPES / f"{file}.toml"
        if file and path.is_file():
            recipe = tomllib.loads(path.read_text(encoding="utf-8"))
            variants = recipe.pop("variants", {})
            if chosen is None and not variants:
                return recipe
            if chosen in variants:
                return recipe | variants[chosen] | {"name": name}
    raise InputError(f"recipe {name!r} is unknown; choose one of {', '.join(recipe_names())}")


def recipe_names() -> list[str]:
    names = []
    for path in sorted(RECIPES.glob("*.toml")):
        variants = tomllib.loads(path.read_text(encoding="utf-8")).get("variants")
        names += [f"{path.stem}-{variant}" for variant in variants] if variants else [path.stem]
    return names


def train_transform(pool: Pool, out: Path) -> dict[str, Tensor]:
    """Analysis kernels (7-bit integers and exponents) and ideal synthesis functions."""
    path = out / "transform.safetensors"
    if path.exists():
        return load_file(path)
    fine = [i for i in pool.training if pool.gsd_m[i] == 10][::5]
    prefilter, gain_db = design_prefilter(covariance_of([pool.rotated[i] for i in fine]))
    analysis, synthesis = separable_weights(prefilter)
    integers, exponents = quantise_weights(analysis)
    tensors = {
        "integers": torch.tensor(to_blocks(integers)),
        "exponents": torch.tensor(exponents),
        "synthesis": torch.tensor(to_blocks(synthesis), dtype=torch.float32),
        "gain_db": torch.tensor(gain_db),
    }
    save_file(tensors, path)
    return tensors


def kernels_of(transform: dict[str, Tensor]) -> Tensor:
    """The kernels as they fly: integer x 2^-exponent, f32."""
    return transform["integers"].float() * 2.0 ** -transform["exponents"].float()[:, None, None, None]


class Codec(nn.Module):
    """The differentiable line rotated bands -> levels -> better levels -> rotated bands."""

    def __init__(self, transform: dict[str, Tensor], width: int, bricks: int, bands: int = 4) -> None:
        super().__init__()
        self.analysis = Analysis(kernels_of(transform)).requires_grad_(False)
        self.synthesis = Synthesis(transform["synthesis"].clone()).requires_grad_(False)
        self.second = SecondLevel()
        self.decoder = Decoder(bands, width, bricks)

    def coefficients(self, rotated: Tensor) -> Tensor:
        """Rotated bands [N, B, T, T] -> coefficients [N, B, 64, h, w] with the second level in place."""
        flat = self.analysis(rotated)
        return torch.cat([self.second(flat[:, :, 0])[:, :, None], flat[:, :, 1:]], 2)

    def dequantise(self, coefficients: Tensor, step: Tensor, missing: Tensor) -> Tensor:
        """Levels [N, B * 64, h, w] in steps of the coarsest layer kept, block averages back in place."""
        n, b, c, h, w = coefficients.shape
        found = levels(coefficients, magnitudes(coefficients, step), missing)
        found = torch.cat([self.second.inverse(found[:, :, 0])[:, :, None], found[:, :, 1:]], 2)
        return found.reshape(n, b * c, h, w)

    def rebuild(self, found: Tensor, bands: int = 4) -> Tensor:
        """Rotated bands in steps. One Neumann step makes up for analysis weights of 7 bits (17 DN rms -> 0.3 DN)."""
        n, _, h, w = found.shape
        wanted = found.float().reshape(n, bands, -1, h, w)
        first = self.synthesis(wanted)
        return first + self.synthesis(wanted - self.analysis(first))


def _augment(rotated: Tensor, rng: np.random.Generator) -> Tensor:
    turned = torch.rot90(rotated, int(rng.integers(4)), (2, 3))
    return turned.flip(3) if rng.integers(2) else turned


def _column(values: Tensor, dims: int = 5) -> Tensor:
    return values.reshape(-1, *([1] * (dims - 1)))


def _distortion(codec: Codec, rotated: Tensor, step: Tensor, missing: Tensor, refined: bool) -> Tensor:
    """Mean squared error per tile in units of the squared step kept. [N]"""
    with torch.no_grad():
        found = codec.dequantise(codec.coefficients(rotated), _column(step), _column(missing))
    if refined:
        with mixed_precision():
            correction = (
                codec.decoder(found.contiguous(memory_format=torch.channels_last), _column(missing, 4) / 3.0) - found
            )
        found = found + correction.float()
    wanted = rotated / _column(step * 2.0**missing, 4)
    return ((codec.rebuild(found) - wanted) ** 2).mean((1, 2, 3))


def validate(codec: Codec, pool: Pool, every: int = 2) -> dict[str, float]:
    """Gain of the decoder over plain dequantisation on held-out sites, in dB, per finest step and missing layers."""
    gains = {}
    index = pool.validation[::every]
    codec.eval()
    with torch.no_grad():
        for step_dn, missing in ((40.0, 0), (160.0, 0), (160.0, 1), (160.0, 2), (160.0, 3)):
            plain, better = [], []
            for start in range(0, len(index), 16):
                rotated = torch.tensor(pool.rotated[index[start : start + 16]], dtype=torch.float32)
                step, miss = torch.full((len(rotated),), step_dn), torch.full((len(rotated),), missing)
                plain.append(_distortion(codec, rotated, step, miss, refined=False))
                better.append(_distortion(codec, rotated, step, miss, refined=True))
            ratio = torch.log10(torch.cat(plain)) - torch.log10(torch.cat(better))
            gains[f"gain_db_{step_dn:g}_{missing}"] = round(float(10 * ratio.mean()), 4)
    codec.train()
    return gains


def train_decoder(pool: Pool, recipe: dict[str, Any], out: Path, threads: int) -> None:
    """Supervised: real quantised coefficients in, original pixels wanted, log of the error per tile as the loss."""
    torch.set_num_threads(threads)
    settings = recipe["decoder"]
    torch.manual_seed(settings["seed"])
    codec = Codec(train_transform(pool, out), settings["width"], settings["bricks"])
    codec.decoder.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    average = {k: v.detach().clone() for k, v in codec.decoder.state_dict().items()}
    optimiser = torch.optim.AdamW(codec.decoder.parameters(), lr=settings["learning_rate"], weight_decay=1e-4)
    step_no = _resume(out / "decoder.safetensors", codec.decoder, average)
    rotated = torch.tensor(pool.rotated.astype(np.int16))
    low, high = np.log(settings["step_dn"])
    saved = time.monotonic()
    while step_no < settings["steps"]:
        rng = np.random.default_rng([settings["seed"], step_no])
        for group in optimiser.param_groups:
            group["lr"] = settings["learning_rate"] * _schedule(step_no, settings["steps"])
        pick = rng.choice(pool.training, settings["batch"])
        batch = _augment(rotated[pick].float(), rng)
        step = torch.tensor(np.exp(rng.uniform(low, high, len(pick))), dtype=torch.float32)
        missing = torch.tensor(rng.integers(0, recipe["layers"], len(pick)))
        loss = torch.log(_distortion(codec, batch, step, missing, refined=True) + 1e-3).mean()
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(codec.decoder.parameters(), 1.0)
        optimiser.step()
        step_no += 1
        keep = min(0.999, step_no / (step_no + 10.0))
        for k, v in codec.decoder.state_dict().items():
            average[k].lerp_(v, 1.0 - keep)
        if time.monotonic() - saved > SAVE_EVERY_S or step_no == settings["steps"]:
            saved = time.monotonic()
            _checkpoint(codec, average, step_no, float(loss.detach()), pool, out)


def all_coefficients(pool: Pool, codec: Codec) -> Tensor:
    """Coefficients of every tile of the pool, [N, B * 64, 16, 16] f32 in DN."""
    with torch.no_grad():
        starts = range(0, len(pool.rotated), 32)
        batches = (torch.tensor(pool.rotated[s : s + 32], dtype=torch.float32) for s in starts)
        return torch.cat([codec.coefficients(batch).flatten(1, 2) for batch in batches])


def context_model(recipe: dict[str, Any], coefficients: Tensor, training: NDArray[np.intp]) -> ContextModel:
    """An untrained context model, its channel groups found on every fourth training tile."""
    order, starts = channel_groups(coefficients[training[::4]], recipe["context"]["groups"])
    return ContextModel(recipe["layers"], coefficients.shape[1], order, starts)


def train_context_stage(pool: Pool, recipe: dict[str, Any], out: Path, threads: int) -> None:
    """The context model, on the quantised coefficients of the training sites."""
    torch.set_num_threads(threads)
    transform = train_transform(pool, out)
    coefficients = all_coefficients(pool, Codec(transform, 8, 1))
    model = context_model(recipe, coefficients, pool.training)
    path, first = out / "context.safetensors", 0
    if path.exists():
        tensors = load_file(path)
        first = int(tensors.pop("step_no"))
        model.load_state_dict(tensors)
    saved = time.monotonic()

    def save(step_no: int) -> None:
        nonlocal saved
        if time.monotonic() - saved < SAVE_EVERY_S and step_no < recipe["context"]["steps"]:
            return
        saved = time.monotonic()
        partial = out / "context.partial"
        save_file({k: v.clone() for k, v in model.state_dict().items()} | {"step_no": torch.tensor(step_no)}, partial)
        partial.replace(path)
        _log(out / "context.csv", {"step": step_no, **validate_context(model, coefficients[pool.validation[::4]])})

    train_context(model, coefficients[pool.training], recipe["context"], first, save)


def write_tables(pool: Pool, recipe: dict[str, Any], out: Path) -> None:
    """tables.npz: the trained context model in integers, its symbol tables counted on the training sites."""
    settings = recipe["context"]
    transform = train_transform(pool, out)
    coefficients = all_coefficients(pool, Codec(transform, 8, 1))
    model = context_model(recipe, coefficients, pool.training)
    tensors = load_file(out / "context.safetensors")
    tensors.pop("step_no")
    model.load_state_dict(tensors)
    rng = np.random.default_rng([settings["seed"], 1])
    low, high = np.log(settings["step_dn"])

    def tiles() -> Iterator[Indices]:
        for tile in rng.choice(pool.training, settings["counted_tiles"]):
            step = torch.tensor(np.exp(rng.uniform(low, high)), dtype=torch.float32)
            magnitude = magnitudes(coefficients[tile], step).numpy()
            yield Indices(np.minimum(magnitude, 65535).astype(np.uint16), (coefficients[tile] < 0).numpy())

    arrays = integer_arrays(model) | {
        "kernels": from_blocks(transform["integers"].numpy()),
        "exponents": transform["exponents"].numpy().astype(np.int8),
    }
    count_tables(arrays, list(tiles()), out / "tables.npz")


def validate_context(model: ContextModel, coefficients: Tensor) -> dict[str, float]:
    """Bits per pixel of the significance decisions on held-out sites, per layer, at a finest step of 120 DN."""
    found = {}
    pixels = coefficients.shape[0] * coefficients.shape[2] * coefficients.shape[3] * 64
    with torch.no_grad():
        for layer in range(len(model.layers)):
            cost = sum(float(nats(model, magnitudes(p, torch.tensor(120.0)), layer)) for p in coefficients.split(4))
            found[f"bpp_layer_{layer}"] = round(cost / np.log(2) / pixels, 5)
    return found


def _schedule(step_no: int, steps: int) -> float:
    warm = min(1.0, (step_no + 1) / 300)
    return float(warm * (0.02 + 0.98 * 0.5 * (1 + np.cos(np.pi * step_no / steps))))


def _resume(path: Path, module: nn.Module, average: dict[str, Tensor]) -> int:
    if not path.exists():
        return 0
    tensors = load_file(path)
    compact = not any(k.startswith("live.") for k in tensors)
    live = "mean." if compact else "live."
    module.load_state_dict({k.removeprefix(live): v.float() for k, v in tensors.items() if k.startswith(live)})
    for k in average:
        average[k].copy_(tensors["mean." + k])
    return int(tensors["step_no"])


def _checkpoint(codec: Codec, average: dict[str, Tensor], step_no: int, loss: float, pool: Pool, out: Path) -> None:
    live = {k: v.clone() for k, v in codec.decoder.state_dict().items()}
    tensors = {f"live.{k}": v.contiguous() for k, v in live.items()}
    tensors |= {f"mean.{k}": v.contiguous() for k, v in average.items()}
    tensors["step_no"] = torch.tensor(step_no)
    partial = out / "decoder.partial"
    save_file(tensors, partial)
    partial.replace(out / "decoder.safetensors")
    codec.decoder.load_state_dict(average)
    _log(out / "decoder.csv", {"step": step_no, "loss": round(loss, 4), **validate(codec, pool)})
    codec.decoder.load_state_dict(live)


def _log(path: Path, row: dict[str, float]) -> None:
    fresh = not path.exists()
    with path.open("a", newline="", encoding="utf-8") as sheet:
        writer = csv.DictWriter(sheet, list(row))
        if fresh:
            writer.writeheader()
        writer.writerow(row)


def keep_checkpoints(recipe: dict[str, Any], out: Path) -> None:
    """Compact copies (averaged weights in half precision) into export/checkpoints/, from where training goes on."""
    kept = CHECKPOINTS / recipe["name"]
    kept.mkdir(parents=True, exist_ok=True)
    for name in STAGE_FILES:
        tensors = load_file(out / name)
        if name == "decoder.safetensors":
            tensors = {k: v.half() if k.startswith("mean.") else v for k, v in tensors.items() if "live." not in k}
        save_file(tensors, kept / name)


def fetch_checkpoints(recipe: dict[str, Any], out: Path) -> None:
    """Checkpoints that came with the repository, where the output folder has none of its own."""
    for name in STAGE_FILES:
        if not (out / name).exists() and (CHECKPOINTS / recipe["name"] / name).exists():
            shutil.copy(CHECKPOINTS / recipe["name"] / name, out / name)


def main(argv: list[str] | None = None) -> None:
    """`python -m export train`: one stage or all of a recipe."""
    parser = argparse.ArgumentParser(prog="python -m export train", description=__doc__)
    parser.add_argument("--recipe", default="edge")
    parser.add_argument("--stage", choices=("transform", "decoder", "context", "tables", "keep", "all"), default="all")
    parser.add_argument("--out", type=Path, default=None)
    parser.add_argument("--fresh", action="store_true", help="from nothing, not from the newest checkpoints")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args(argv)
    recipe = load_recipe(arguments.recipe)
    out = arguments.out or Path("build") / arguments.recipe
    out.mkdir(parents=True, exist_ok=True)
    if arguments.fresh:
        for name in STAGE_FILES:
            (out / name).unlink(missing_ok=True)
    else:
        fetch_checkpoints(recipe, out)
    if arguments.stage == "keep":
        return keep_checkpoints(recipe, out)
    if recipe.get("kind") == "vq":
        from export.vq.train import train_vq

        train_vq(load_pool(), recipe, out, arguments.threads)
        return
    pool = load_pool(recipe["compand"])
    if arguments.stage in ("transform", "all"):
        train_transform(pool, out)
    if arguments.stage in ("decoder", "all"):
        train_decoder(pool, recipe, out, arguments.threads)
    if arguments.stage in ("context", "all"):
        train_context_stage(pool, recipe, out, arguments.threads)
    if arguments.stage in ("tables", "all"):
        write_tables(pool, recipe, out)


if __name__ == "__main__":
    main()
