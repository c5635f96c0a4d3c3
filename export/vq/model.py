"""The field's reference system as one differentiable model: encoder, codebooks that follow the latents, decoder."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from export.data import Pool
from export.graphs.qat_layers import fold_into
from export.training import mixed_precision, resume
from export.vq.networks import INT8_LIMIT, LATENT_STEPS, build
from payload.errors import InputError

#: The checkpoint of a trained system.
QUANTISED = "quantised.safetensors"
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


def planes_of(pool: Pool, system: Corsa) -> Tensor:
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


def load_trained(recipe: Mapping[str, Any], folder: Path) -> Corsa:
    """The trained system, INT8 in the loop. InputError if training has not come so far."""
    path = folder / QUANTISED
    if not path.is_file():
        raise InputError(f"{path}: no such file; run `python -m export train --recipe {recipe['name']}` first")
    model = Corsa(recipe, quantised=True)
    resume(path, model)
    return model.eval()
