"""Latents -> codebook indices and back: vector quantisation as in VQ-VAE (van den Oord et al., arXiv:1711.00937).

Latents and codebooks are int8, distances are integers, ties go to the lowest index: every machine finds the same index.
Indices are sent with log2 K bits each.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from payload.bundle import ArrayFile
from payload.errors import StreamError
from payload.scene import Dn

#: Rows of latents compared with a codebook at a time: bounds the memory of the distance matrix.
CHUNK = 4096
MOST_STRIDE, MOST_BITS, LEAST_SCALE_DN = 64, 16, 1e-3


@dataclass(frozen=True, eq=False)
class Codebook:
    """Codebook int8 values [K, D]; K is a power of two."""

    vectors: NDArray[np.float32]

    @property
    def bits(self) -> int:
        return int(len(self.vectors) - 1).bit_length()


@dataclass(frozen=True, eq=False)
class Codebooks:
    """Codebooks by layer, the coarsest stride first, and the normalisation in front of the network."""

    books: tuple[Codebook, ...]
    strides: tuple[int, ...]
    mean_dn: NDArray[np.float32]  # [B]
    scale_dn: NDArray[np.float32]  # [B], a step of the int8 input


def load_codebooks(path: Path, bands: int | None = None) -> Codebooks:
    """Codebooks from an .npz without objects, for so many bands (None: as many as it holds). BundleError says which
    array is missing or holds what cannot be."""
    arrays = ArrayFile(path)
    strides = tuple(arrays.take("strides", (None,), 1, MOST_STRIDE).tolist())
    arrays.require("strides", sorted(set(strides), reverse=True) == list(strides), "strides that fall")
    mean_dn = arrays.take("mean_dn", (bands,), 0, 65535, whole=False).astype(np.float32)
    scale_dn = arrays.take("scale_dn", (len(mean_dn),), LEAST_SCALE_DN, 65535, whole=False).astype(np.float32)
    return Codebooks(tuple(_book(arrays, f"book{k}") for k in range(len(strides))), strides, mean_dn, scale_dn)


def _book(arrays: ArrayFile, name: str) -> Codebook:
    vectors = arrays.take(name, (None, None), -128, 127)
    book = Codebook(vectors.astype(np.float32))
    power = len(vectors) == 1 << book.bits and 1 <= book.bits <= MOST_BITS
    arrays.require(name, power, f"2, 4, ... {1 << MOST_BITS} vectors")
    return book


def normalise(dn: Dn, books: Codebooks) -> NDArray[np.float32]:
    """Standardised bands as int8 values in f32, [1, B, T, T]."""
    steps = (dn.astype(np.float32) - books.mean_dn[:, None, None]) / books.scale_dn[:, None, None]
    return np.clip(np.rint(steps), -128, 127)[None]


def nearest(latents: NDArray[np.generic], book: Codebook) -> NDArray[np.uint16]:
    """Index of the nearest vector, the lowest on ties. Latents [1, D, h, w] of int8 values -> [h, w]."""
    _, depth, h, w = latents.shape
    rows = latents.astype(np.float32).reshape(depth, -1).T  # [h w, D]
    half_norm = 0.5 * (book.vectors**2).sum(axis=1)  # multiples of 1/2 below 2^23: exact in f32
    found = np.empty(len(rows), np.uint16)
    for start in range(0, len(rows), CHUNK):
        score = rows[start : start + CHUNK] @ book.vectors.T - half_norm
        found[start : start + CHUNK] = score.argmax(axis=1)
    return found.reshape(h, w)


def pack_indices(indices: NDArray[np.uint16], book: Codebook) -> bytes:
    """log2 K bits per index, most significant bit first, row by row."""
    bits = (indices.reshape(-1, 1) >> np.arange(book.bits - 1, -1, -1)) & 1
    return np.packbits(bits.astype(np.uint8)).tobytes()


def unpack_indices(octets: bytes, book: Codebook, side: int) -> NDArray[np.uint16]:
    """Inverse of `pack_indices` for a square of `side` cells. StreamError on a wrong length."""
    count = side * side
    if len(octets) != -(-count * book.bits // 8):
        raise StreamError(f"{len(octets)} octets for {count} indices of {book.bits} bits")
    bits = np.unpackbits(np.frombuffer(octets, np.uint8), count=count * book.bits).reshape(count, book.bits)
    return (bits.astype(np.uint16) @ (1 << np.arange(book.bits - 1, -1, -1)).astype(np.uint16)).reshape(side, side)
