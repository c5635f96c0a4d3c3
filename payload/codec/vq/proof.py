"""Latents of the encoder -> indices of all codebooks -> vectors, for the proofs."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from payload.codec.interface import LatentQuantiser
from payload.codec.vq.codebooks import Codebook, nearest


def latent_quantiser(books: tuple[Codebook, ...]) -> LatentQuantiser:
    """Indices of all codebooks in a row, latents flattened one after the other."""
    shapes: list[tuple[int, ...]] = []

    def latents(outputs: list[NDArray[Any]]) -> NDArray[Any]:
        shapes[:] = [o.shape for o in outputs]
        return np.concatenate([np.asarray(o, np.float32).ravel() for o in outputs])

    def indices(flat: NDArray[Any]) -> NDArray[Any]:
        ends = np.cumsum([int(np.prod(s)) for s in shapes])
        parts = [part.reshape(s) for part, s in zip(np.split(flat, ends[:-1]), shapes, strict=True)]
        return np.concatenate([nearest(z, book).ravel() for z, book in zip(parts, books, strict=True)])

    def rebuilt(found: NDArray[Any]) -> NDArray[Any]:
        ends = np.cumsum([int(np.prod(s[2:])) for s in shapes])
        parts = np.split(found, ends[:-1])
        return np.concatenate([book.vectors[i].T.ravel() for i, book in zip(parts, books, strict=True)])

    return LatentQuantiser("codebooks", latents, indices, rebuilt)
