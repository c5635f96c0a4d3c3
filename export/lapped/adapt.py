"""A bundle for another sensor in minutes: what a codec knows of its sensor is refitted from a universal start.

    pool -> rotated, transformed -> context model -> symbol tables -> bundle

Trained anew: the order of channels, the context model, the symbol tables and the range of steps. As it is: the lapped
transform, which suits any picture, and the decoder, which undoes it and needs no network. Every stage leaves a file in
the output folder and is left out where that is there.

Full training (`python -m export train` of a recipe that names a sensor) goes the same way from nothing: the transform
is designed on the pool, and the context model begins empty.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor

from export.lapped.context_model import ContextModel, channel_groups, draw_loss, nats
from export.lapped.context_tables import count_tables, integer_arrays, macs_per_px
from export.lapped.files import export_encoder
from export.lapped.model import LappedModel
from export.lapped.quantiser import magnitudes
from export.lapped.transform import designed, from_blocks
from export.lapped.universal import START, universal_context
from export.pools import SensorPool
from export.training import Progress, Schedule, fit, load_weights
from export.workshops import Parts
from payload.codec.lapped import power_law
from payload.codec.lapped.many.sets import set_bands, sets_of
from payload.codec.lapped.quantiser import Indices
from payload.codec.lapped.transform import COEFFICIENTS, LATENT_BITS, take_slopes
from payload.codec.rotation import FEW_BANDS, rotate
from payload.codec.rotation import fit as fit_rotation
from payload.sensor import Sensor

#: The share of coefficients that is significant at a CR of about 20, and the range of steps around that step. Of many
#: bands it is the share of those of the leading set alone: the others are mostly noise, which no CR that counts sends.
USUAL_SHARE, FINER, COARSER = 0.2, 6.0, 4.0
#: Twelve bits or more are coded as they are, fewer with finer steps than a DN.
USUAL_BITS = 12
REFLECTANCE_GAMMA = 0.8
#: The rotation decorrelates differences over so many px: 1, 2 and 3 px are alike, values far worse (docs/codec.md).
DIFFERENCES_PX = 2
#: Of the leading set of bands, and of all others.
TABLES = ("tables.npz", "tables-rest.npz")
SETTINGS: dict[str, Any] = {
    "layers": 4, "groups": 5, "steps": 500, "batch": 4, "learning_rate": 8e-3, "channels": 48, "counted_tiles": 60,
    "seed": 2, "from_nothing": False,
}  # fmt: skip
#: Bands of each square, the strongest, and squares that the transform of full training is designed on.
DESIGN_BANDS, DESIGN_SQUARES = 4, 100


def law_of(sensor: Sensor) -> dict[str, Any]:
    """What a sensor's DN go through. The power law: Sentinel-2's over reflectance x 10 000, none over other numbers.
    Pictures of one band are planetary or panchromatic, and often smooth: there averages tell of slopes."""
    tell = {"averages_tell": True} if len(sensor.bands) == 1 else {}
    reflectance = sensor.kind == "optical" and sensor.scale == 1e-4 and sensor.offset == 0.0
    if reflectance:
        return {"compand": REFLECTANCE_GAMMA, "gain": 1, **tell}
    return {"compand": power_law.LINEAR, "gain": 1 << max(0, USUAL_BITS - sensor.bits), **tell}


def rotated_of(dn: NDArray[np.uint16], law: dict[str, float]) -> NDArray[np.int32]:
    """A square [B, S, S] as the rotation leaves it."""
    values, everywhere = power_law.compand(dn, law["compand"], int(law["gain"])), np.ones(dn.shape[1:], bool)
    return rotate(values, everywhere, fit_rotation(values, everywhere, distance_px=DIFFERENCES_PX))


def write_transform(pool: SensorPool, law: dict[str, float], out: Path, from_nothing: bool) -> None:
    """The universal transform, or one of the greatest coding gain over training squares."""
    path = out / "transform.safetensors"
    if path.is_file():
        return
    if not from_nothing:
        save_file(load_file(START / "transform.safetensors"), path)
        return
    chosen = pool.training[:: -(-len(pool.training) // DESIGN_SQUARES)]
    save_file(designed([rotated_of(pool.dn[k], law)[:DESIGN_BANDS] for k in chosen]), path)


def coefficients_of(pool: SensorPool, law: dict[str, float], transform: dict[str, Tensor]) -> Tensor:
    """Coefficients of every square, [N, B' * 64, S/8, S/8] f32 in rotated values; B' fills the sets of bands."""
    model, bands = LappedModel(transform, 8, 1), pool.dn.shape[1]
    spare = sets_of(bands) * set_bands(bands) - bands
    found = []
    for dn in pool.dn:
        whole = np.pad(rotated_of(dn, law), ((0, spare), (0, 0), (0, 0))).astype(np.float32)
        with torch.no_grad():
            flat = model.analysis(torch.from_numpy(whole[None]))  # [1, B', 64, S/8, S/8]
            if law.get("averages_tell"):
                flat = _without_slopes(flat)
            found.append(model.with_second_level(flat).flatten(1, 2))
    return torch.cat(found)


def _without_slopes(flat: Tensor) -> Tensor:
    """What averages tell taken away, as it is on board."""
    sums = np.rint(flat[0].numpy() * 2.0**LATENT_BITS).astype(np.int32)
    take_slopes(sums)
    return torch.from_numpy(sums[None].astype(np.float32) * np.float32(2.0**-LATENT_BITS))


def steps_of(coefficients: Tensor) -> list[float]:
    """Finest and coarsest step of the finest layer that the context model is trained on, in rotated values."""
    leading = coefficients[:, : FEW_BANDS * COEFFICIENTS]
    sample = leading.abs().flatten()[:: max(1, leading.numel() // 2_000_000)]
    usual = float(torch.quantile(sample[: 1 << 24], 1 - USUAL_SHARE)) / 0.8
    return [max(1.0, usual / FINER), max(4.0, usual * COARSER)]


def adapt_tables(pool: SensorPool, law: dict[str, float], out: Path, more: dict[str, Any]) -> dict[str, Any]:
    """The tables of every kind of set in `out`, from the training sites. Gives the settings, steps among them."""
    write_transform(pool, law, out, more.get("from_nothing", False))
    transform = load_file(out / "transform.safetensors")
    coefficients = coefficients_of(pool, law, transform)
    settings = SETTINGS | {"step_dn": steps_of(coefficients[pool.training])} | more
    for name, part in zip(TABLES, _of_sets(coefficients, pool.dn.shape[1]), strict=False):
        if (out / name).is_file():
            continue
        times = len(part) // len(coefficients)  # the sets behind the first are further squares to their tables
        training, held_out = (part[np.tile(chosen, times)] for chosen in _chosen(pool))
        model = _context(training, held_out, out / f"context-{name.removesuffix('.npz')}.safetensors", settings)
        _write_tables(model, training, transform, out / name, settings)
    return settings


def _chosen(pool: SensorPool) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    held_out = np.isin(pool.site, pool.held_out_sites)
    return ~held_out, held_out


def _of_sets(coefficients: Tensor, bands: int) -> list[Tensor]:
    """Of the leading set, and of all others."""
    parts = list(coefficients.split(set_bands(bands) * COEFFICIENTS, 1))
    return [parts[0]] + ([torch.cat(parts[1:])] if len(parts) > 1 else [])


def _context(training: Tensor, held_out: Tensor, path: Path, settings: dict[str, Any]) -> ContextModel:
    order, starts = channel_groups(training, settings["groups"], float(np.sqrt(np.prod(settings["step_dn"]))))
    empty = settings["from_nothing"]
    model = ContextModel(settings["layers"], len(order), order, starts) if empty else universal_context(order, starts)
    torch.manual_seed(settings["seed"])
    fit(
        model,
        torch.optim.Adam(model.parameters(), betas=(0.9, 0.99)),
        Schedule(settings["steps"], settings["learning_rate"], warm_up=20, shape="linear"),
        lambda step_no: draw_loss(model, training, settings, step_no),
        path,
        validate=lambda: _bits(model, held_out, settings),
        progress=Progress("context model", settings["steps"]),
    )
    model.load_state_dict(load_weights(path)[0])
    return model


def _bits(model: ContextModel, coefficients: Tensor, settings: dict[str, Any]) -> dict[str, float]:
    """Bits a sample of the significance decisions on some squares of held-out sites, at the middle step."""
    if not len(coefficients):
        return {}
    step = torch.tensor(float(np.sqrt(np.prod(settings["step_dn"]))))
    some = coefficients[:: max(1, len(coefficients) // 6)]
    with torch.no_grad():
        cost = sum(float(nats(model, magnitudes(some, step), layer)) for layer in range(len(model.layers)))
    return {"held_out_bits_per_sample": round(cost / np.log(2) / some.numel(), 5)}


def _write_tables(
    model: ContextModel, training: Tensor, transform: dict[str, Tensor], path: Path, settings: dict[str, Any]
) -> None:
    rng = np.random.default_rng([settings["seed"], 1])
    low, high = np.log(settings["step_dn"])

    def tiles() -> Iterator[Indices]:
        for square in rng.permutation(len(training))[: settings["counted_tiles"]]:
            step = torch.tensor(np.exp(rng.uniform(low, high)), dtype=torch.float32)
            magnitude = magnitudes(training[square], step).numpy()
            yield Indices(np.minimum(magnitude, 65535).astype(np.uint16), (training[square] < 0).numpy())

    arrays = integer_arrays(model) | {
        "kernels": from_blocks(transform["integers"].numpy()),
        "exponents": transform["exponents"].numpy().astype(np.int8),
    }
    count_tables(arrays, list(tiles()), path)


def parts_of(sensor: Sensor, tile_px: int, out: Path, settings: dict[str, Any], scratch: Path) -> Parts:
    """What the adapted bundle is assembled from."""
    law, bands = law_of(sensor), len(sensor.bands)
    export_encoder(load_file(out / "transform.safetensors"), set_bands(bands), tile_px, scratch / "encoder.onnx")
    codec = {
        "kind": "fsq", "layers": settings["layers"], **law, "differences_px": DIFFERENCES_PX,
        "coarsest_step_dn": settings["step_dn"][1],
        "entropy_macs_per_px": macs_per_px(out / TABLES[0]) * sets_of(bands),
    }  # fmt: skip
    held = {f"flight/{name}": out / name for name in TABLES if (out / name).is_file()}
    files: dict[str, Path | bytes] = {"flight/encoder.onnx": scratch / "encoder.onnx", **held}
    return Parts(files, codec, "none: the encoder's input planes are int8 as they are")
