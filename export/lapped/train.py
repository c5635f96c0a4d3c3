"""Training of the flight codec, in the order of its parts: transform, context model, symbol tables, decoder.

    python -m export train --recipe edge --stage decoder --out build/edge

Every stage writes a checkpoint (safetensors) and a log (CSV) into the output folder and goes on from them.
"""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from export.data import Pool
from export.lapped.context_model import ContextModel, draw_loss, nats, new_context_model
from export.lapped.context_tables import count_tables, integer_arrays
from export.lapped.model import LappedModel, all_coefficients, augment, distortion
from export.lapped.quantiser import magnitudes
from export.lapped.sent import Sender
from export.lapped.transform import designed, from_blocks
from export.training import Average, Progress, Schedule, Shares, fit, load_weights
from payload.bundle import SHIPPED
from payload.codec.lapped.quantiser import Indices
from payload.codec.lapped.transform import BLOCK

#: Compact checkpoints that travel with the repository.
CHECKPOINTS = Path(__file__).parents[1] / "checkpoints"
STAGE_FILES, TABLES = ("transform.safetensors", "decoder.safetensors", "context.safetensors"), "tables.npz"
#: Steps in DN and layers lost at which the decoder's gain is logged.
LOGGED = ((40.0, 0), (80.0, 0), (160.0, 0), (320.0, 0), (640.0, 0), (80.0, 2))


def train_transform(pool: Pool, out: Path) -> dict[str, Tensor]:
    """Analysis kernels (7-bit integers and exponents) and ideal synthesis functions."""
    path = out / "transform.safetensors"
    if path.exists():
        return load_file(path)
    fine = [i for i in pool.training if pool.gsd_m[i] == pool.finest_m][::5]
    tensors = designed([pool.rotated[i] for i in fine])
    save_file(tensors, path)
    return tensors


def train_decoder(pool: Pool, recipe: dict[str, Any], out: Path) -> None:
    """Supervised: levels as they reach the ground in, original pixels wanted, log of the error per tile as the loss.

    From the step `everywhere_from` on the held-out sites are trained on, too: what is logged then proves nothing."""
    settings = recipe["decoder"]
    torch.manual_seed(settings["seed"])
    model = LappedModel(train_transform(pool, out), settings["width"], settings["bricks"])
    model.decoder.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    rotated = torch.tensor(pool.rotated.astype(np.int16))
    cells, shares = rotated.shape[-1] // BLOCK, torch.get_num_threads()
    senders = [Sender(out / TABLES, cells, tuple(settings["step_dn"])) for _ in range(shares)]

    def loss_of(step_no: int, share: int) -> Tensor:
        rng = np.random.default_rng([settings["seed"], step_no, share])
        tiles = pool.training if step_no < settings["everywhere_from"] else pool.everywhere
        batch = augment(rotated[rng.choice(tiles, settings["batch"] // shares)].float(), rng)
        sender = senders[share]
        sent, step, missing = sender.send(model.coefficients(batch), sender.draw(len(batch), rng))
        return torch.log(distortion(model, batch, step, missing, True, model.with_averages(sent)) + 1e-3).mean()

    torch.set_num_threads(1)
    fit(
        model.decoder,
        torch.optim.AdamW(model.decoder.parameters(), weight_decay=settings["weight_decay"]),
        Schedule(settings["steps"], settings["learning_rate"], warm_up=300, floor=0.02),
        Shares(loss_of, shares),
        out / "decoder.safetensors",
        Average(model.decoder),
        lambda: validate(model, senders[0], pool),
        progress=Progress("decoder", settings["steps"]),
    )


def validate(model: LappedModel, sender: Sender, pool: Pool, every: int = 4) -> dict[str, float]:
    """Gain of the decoder over the transform undone on held-out sites, in dB, per step asked for and layers lost."""
    model.eval()
    batches = torch.tensor(pool.rotated[pool.validation[::every]], dtype=torch.float32).split(16)
    with torch.no_grad():
        gains = {f"gain_db_{step:g}_{lost}": _gain_db(model, sender, batches, step, lost) for step, lost in LOGGED}
    model.train()
    return gains


def _gain_db(model: LappedModel, sender: Sender, batches: tuple[Tensor, ...], step_dn: float, lost: int) -> float:
    ratios = []
    for rotated in batches:
        sent, step, missing = sender.send(model.coefficients(rotated), [(*sender.within(step_dn), lost)] * len(rotated))
        sent = model.with_averages(sent)
        plain, better = (distortion(model, rotated, step, missing, refined, sent) for refined in (False, True))
        ratios.append(torch.log10(plain) - torch.log10(better))
    return round(float(10 * torch.cat(ratios).mean()), 4)


def train_context_stage(pool: Pool, recipe: dict[str, Any], out: Path) -> None:
    """The context model, on the quantised coefficients of the training sites."""
    settings = recipe["context"]
    model, coefficients = _untrained_context(pool, recipe, out)
    training, held_out = coefficients[pool.training], coefficients[pool.validation[::4]]
    torch.manual_seed(settings["seed"])
    fit(
        model,
        torch.optim.Adam(model.parameters(), betas=(0.9, 0.99)),
        Schedule(settings["steps"], settings["learning_rate"], warm_up=0, shape="linear"),
        lambda step_no: draw_loss(model, training, settings, step_no),
        out / "context.safetensors",
        validate=lambda: validate_context(model, held_out),
        progress=Progress("context model", settings["steps"]),
    )


def _untrained_context(pool: Pool, recipe: dict[str, Any], out: Path) -> tuple[ContextModel, Tensor]:
    coefficients = all_coefficients(pool, LappedModel(train_transform(pool, out), 8, 1))
    return new_context_model(recipe, coefficients, pool.training), coefficients


def write_tables(pool: Pool, recipe: dict[str, Any], out: Path) -> None:
    """tables.npz: the trained context model in integers, its symbol tables counted on the training sites."""
    settings = recipe["context"]
    model, coefficients = _untrained_context(pool, recipe, out)
    model.load_state_dict(load_weights(out / "context.safetensors")[0])
    rng = np.random.default_rng([settings["seed"], 1])
    low, high = np.log(settings["step_dn"])

    def tiles() -> Iterator[Indices]:
        for tile in rng.choice(pool.training, settings["counted_tiles"]):
            step = torch.tensor(np.exp(rng.uniform(low, high)), dtype=torch.float32)
            magnitude = magnitudes(coefficients[tile], step).numpy()
            yield Indices(np.minimum(magnitude, 65535).astype(np.uint16), (coefficients[tile] < 0).numpy())

    transform = train_transform(pool, out)
    arrays = integer_arrays(model) | {
        "kernels": from_blocks(transform["integers"].numpy()),
        "exponents": transform["exponents"].numpy().astype(np.int8),
    }
    count_tables(arrays, list(tiles()), out / TABLES)


def validate_context(model: ContextModel, coefficients: Tensor) -> dict[str, float]:
    """Bits per pixel of the significance decisions on held-out sites, per layer, at a finest step of 120 DN."""
    bpp = {}
    pixels = coefficients.shape[0] * coefficients.shape[2] * coefficients.shape[3] * 64
    with torch.no_grad():
        for layer in range(len(model.layers)):
            cost = sum(float(nats(model, magnitudes(p, torch.tensor(120.0)), layer)) for p in coefficients.split(4))
            bpp[f"bpp_layer_{layer}"] = round(cost / np.log(2) / pixels, 5)
    return bpp


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
    """Checkpoints and tables that came with the repository, where the output folder has none of its own."""
    kept = {name: CHECKPOINTS / recipe["name"] / name for name in STAGE_FILES}
    kept[TABLES] = SHIPPED / recipe["name"] / "flight" / TABLES
    for name, file in kept.items():
        if not (out / name).exists() and file.exists():
            shutil.copy(file, out / name)


def forget_checkpoints(out: Path) -> None:
    """Training then starts from nothing."""
    for name in (*STAGE_FILES, TABLES):
        (out / name).unlink(missing_ok=True)
