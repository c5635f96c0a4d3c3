"""Training of the field's reference system: a VQ-VAE (van den Oord et al., arXiv:1711.00937) at three strides.

Codebooks follow the latents by running means (the EMA variant of the paper); entries that nobody uses start again from
a latent of the batch. First in float, then with the INT8 of the flight network in the loop. Resumable at any moment:

    python -m export train --recipe corsa-fpn3-512
"""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from export.data import Pool
from export.graphs.qat_layers import calibrate, fold_into
from export.lapped.networks import mixed_precision
from export.lapped.train import SAVE_EVERY_S, _log, load_recipe
from export.vq.networks import INT8_LIMIT, LATENT_STEPS, PLANE_STEPS, build
from payload.errors import InputError

FLOAT, QUANTISED = "float.safetensors", "quantised.safetensors"
#: Share of training samples that the int8 planes reach; what is brighter clips.
REACHED = 0.999
#: Added to the mean squared error under the logarithm, in squared plane steps: about 56 dB.
FLOOR = 0.08
#: An entry with fewer running uses than this, in shares of an even use, starts again.
DEAD = 0.03


class Codebook(nn.Module):
    """One codebook [K, D] in int8 steps, with the running sums it is the quotient of."""

    vectors: Tensor
    uses: Tensor
    sums: Tensor

    def __init__(self, size: int, depth: int, decay: float) -> None:
        super().__init__()
        self.decay = decay
        self.register_buffer("vectors", torch.zeros(size, depth))
        self.register_buffer("uses", torch.zeros(size))
        self.register_buffer("sums", torch.zeros(size, depth))

    def forward(self, latents: Tensor, whole: bool) -> tuple[Tensor, Tensor]:
        """Latents [N, D, h, w] -> nearest vectors, straight through, and the index of each [N h w].

        `whole`: vectors rounded to int8, as they fly."""
        n, d, h, w = latents.shape
        rows = latents.detach().permute(0, 2, 3, 1).reshape(-1, d)
        if self.training and not self.uses.any():
            self._start(rows)
        index = nearest(rows, self.used(whole))
        if self.training:
            self._follow(rows, index)
        found = self.used(whole)[index].reshape(n, h, w, d).permute(0, 3, 1, 2)
        return latents + (found - latents).detach(), index

    def used(self, whole: bool) -> Tensor:
        return self.vectors.round().clamp(-INT8_LIMIT, INT8_LIMIT) if whole else self.vectors

    def _start(self, rows: Tensor) -> None:
        pick = torch.randint(len(rows), (len(self.vectors),))
        share = len(rows) / len(self.vectors)
        self.vectors.copy_(rows[pick])
        self.uses.fill_(share)
        self.sums.copy_(self.vectors * share)

    def _follow(self, rows: Tensor, index: Tensor) -> None:
        uses = torch.bincount(index, minlength=len(self.vectors)).float()
        sums = torch.zeros_like(self.sums).index_add_(0, index, rows)
        self.uses.lerp_(uses, 1 - self.decay)
        self.sums.lerp_(sums, 1 - self.decay)
        share = len(rows) / len(self.vectors)
        dead = torch.nonzero(self.uses < DEAD * share)[:, 0]
        fresh = rows[torch.randint(len(rows), (len(dead),))]
        self.uses[dead] = share
        self.sums[dead] = fresh * share
        self.vectors.copy_(self.sums / self.uses[:, None])


def nearest(rows: Tensor, vectors: Tensor) -> Tensor:
    """Index of the nearest vector of each row, the twin of payload.codec.vq.codebooks.nearest."""
    return (rows @ vectors.T - 0.5 * (vectors**2).sum(1)).argmax(1)


class Corsa(nn.Module):
    """Encoder, codebooks, decoder: planes [N, B, T, T] -> planes as rebuilt. Planes are (DN - mean_dn) / scale_dn."""

    mean_dn: Tensor
    scale_dn: Tensor

    def __init__(self, recipe: Mapping[str, Any], quantised: bool) -> None:
        super().__init__()
        self.register_buffer("mean_dn", torch.zeros(len(recipe["bands"])))
        self.register_buffer("scale_dn", torch.ones(len(recipe["bands"])))
        self.encoder, self.decoder = build(recipe, quantised)
        self.quantised = quantised
        decay = recipe["training"]["decay"]
        self.books = nn.ModuleList(Codebook(recipe["codebook"], recipe["depth"], decay) for _ in recipe["strides"])

    @property
    def codebooks(self) -> list[Codebook]:
        return [book for book in self.books if isinstance(book, Codebook)]

    def forward(self, planes: Tensor, kept: Tensor | None = None) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Planes rebuilt, commitment loss, indices per map. `kept` [N, maps]: 0 where indices do not arrive."""
        with mixed_precision(not self.quantised):
            latents = [z.float() for z in self.encoder(planes)]
        found = [book(z, self.quantised) for book, z in zip(self.books, latents, strict=True)]
        vectors = [q for q, _ in found]
        away = [((z - q.detach()) ** 2).mean() for z, q in zip(latents, vectors, strict=True)]
        if kept is not None:
            vectors = [q * kept[:, k, None, None, None] for k, q in enumerate(vectors)]
        with mixed_precision():
            rebuilt = self.decoder(*vectors)
        return rebuilt.float(), torch.stack(away).sum() / LATENT_STEPS**2, [index for _, index in found]


def normalisation(training_dn: NDArray[np.uint16]) -> tuple[Tensor, Tensor]:
    """mean_dn and scale_dn [B]: planes -128..127 hold DN 0 to what REACHED of the samples [N, B, h, w] lie below."""
    by_band = training_dn.transpose(1, 0, 2, 3).reshape(training_dn.shape[1], -1)
    scale = torch.tensor(np.quantile(by_band[:, ::7], REACHED, axis=1) / 255, dtype=torch.float32)
    return 128 * scale, scale


def distortion(planes: Tensor, rebuilt: Tensor) -> Tensor:
    """Mean over crops of the logarithm of the mean squared error, as a mean PSNR weighs it."""
    return torch.log(((planes - rebuilt) ** 2).mean((1, 2, 3)) + FLOOR).mean()


def train_vq(pool: Pool, recipe: Mapping[str, Any], out: Path, threads: int) -> None:
    """Both phases of a system, or the second alone from another one; leaves quantised.safetensors and logs in `out`."""
    torch.set_num_threads(threads)
    settings = recipe["training"]
    torch.manual_seed(settings["seed"])
    if "start" in recipe:
        flight = resized(load_trained(load_recipe(recipe["start"]), out.parent / recipe["start"]), recipe)
        planes = _planes(pool, flight)
    else:
        model = Corsa(recipe, quantised=False).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        model.mean_dn, model.scale_dn = normalisation(pool.dn[pool.training])
        planes = _planes(pool, model)
        _phase(model, planes, pool, (settings, settings["float_steps"], settings["learning_rate"]), out / FLOAT)
        flight = in_int8(model, recipe)
        calibrate(flight.encoder, (_crops(planes, pool, settings, np.random.default_rng([9, k])) for k in range(16)))
    rate = settings["learning_rate"] * 0.3
    _phase(flight.train(), planes, pool, (settings, settings["quantised_steps"], rate), out / QUANTISED)


def _planes(pool: Pool, system: Corsa) -> Tensor:
    """Every tile of the pool in plane steps, not rounded: [N, B, 128, 128]."""
    dn = torch.tensor(pool.dn.astype(np.float32))
    return (dn - system.mean_dn[:, None, None]) / system.scale_dn[:, None, None]


def resized(trained: Corsa, recipe: Mapping[str, Any]) -> Corsa:
    """A trained system with codebooks of another size: the entries used most, or each entry several times, apart."""
    flight = Corsa(recipe, quantised=True)
    flight.encoder.load_state_dict(trained.encoder.state_dict())
    flight.decoder.load_state_dict(trained.decoder.state_dict())
    flight.mean_dn, flight.scale_dn = trained.mean_dn, trained.scale_dn
    for book, former in zip(flight.codebooks, trained.codebooks, strict=True):
        order = former.uses.argsort(descending=True)
        size = len(book.vectors)
        pick = order.repeat(-(-size // len(order)))[:size]
        book.vectors.copy_(former.vectors[pick] + torch.randn_like(book.vectors))
        book.uses.fill_(former.uses.sum() / size)
        book.sums.copy_(book.vectors * book.uses[:, None])
    return flight.to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


def in_int8(model: Corsa, recipe: Mapping[str, Any]) -> Corsa:
    """The system with its encoder in INT8, weights as trained in float, activation scales not yet set."""
    flight = Corsa(recipe, quantised=True)
    fold_into(flight.encoder, model.encoder)
    flight.decoder.load_state_dict(model.decoder.state_dict())
    flight.books.load_state_dict(model.books.state_dict())
    flight.mean_dn, flight.scale_dn = model.mean_dn, model.scale_dn
    return flight.to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


def _phase(model: Corsa, planes: Tensor, pool: Pool, plan: tuple[Mapping[str, Any], int, float], path: Path) -> None:
    settings, steps, rate = plan
    optimiser = torch.optim.Adam(_groups(model))
    first = _resume(path, model)
    saved = time.monotonic()
    for step_no in range(first, steps):
        torch.manual_seed(settings["seed"] * 1_000_000 + step_no)
        rng = np.random.default_rng([settings["seed"], steps, step_no])
        for group in optimiser.param_groups:
            group["lr"] = rate * group["gain"] * _schedule(step_no, steps)
        loss = _step(model, _crops(planes, pool, settings, rng), rng, settings)
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimiser.step()
        if time.monotonic() - saved > SAVE_EVERY_S or step_no + 1 == steps:
            saved = time.monotonic()
            _checkpoint(model, step_no + 1, path)
            found = validate(model, planes[pool.validation[::5]])
            _log(path.with_suffix(".csv"), {"step": step_no + 1, "loss": round(float(loss.detach()), 4), **found})


def _step(model: Corsa, crops: Tensor, rng: np.random.Generator, settings: Mapping[str, Any]) -> Tensor:
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


def _schedule(step_no: int, steps: int) -> float:
    warm = min(1.0, (step_no + 1) / 100)
    return float(warm * (0.01 + 0.99 * 0.5 * (1 + np.cos(np.pi * step_no / steps))))


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


def load_trained(recipe: Mapping[str, Any], folder: Path) -> Corsa:
    """The trained system, INT8 in the loop. InputError if training has not come so far."""
    path = folder / QUANTISED
    if not path.is_file():
        raise InputError(f"{path}: no such file; run `python -m export train --recipe {recipe['name']}` first")
    model = Corsa(recipe, quantised=True)
    _resume(path, model)
    return model.eval()


def _checkpoint(model: Corsa, step_no: int, path: Path) -> None:
    tensors = {k: v.detach().clone().contiguous() for k, v in model.state_dict().items()}
    partial = path.with_suffix(".partial")
    save_file(tensors | {"step_no": torch.tensor(step_no)}, partial)
    partial.replace(path)


def _resume(path: Path, model: Corsa) -> int:
    if not path.exists():
        return 0
    tensors = load_file(path)
    step_no = int(tensors.pop("step_no"))
    model.load_state_dict(tensors)
    return step_no
