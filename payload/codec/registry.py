"""Tile -> side information and layers, and back to indices: the codec of a bundle behind one interface.

`kind = "fsq"`: this project's codec (payload/codec/lapped/codec.py).
`kind = "none"`: a bundle that failed its checks; every tile is a fallback (payload/codec/jpeg2000.py).
`kind = "vq"`: normalisation, INT8 convolutional encoder, vector-quantised codebooks at several strides, indices of
fixed length (the reference system of the field, CORSA).
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from payload.bundle import BARE, Bundle
from payload.codec.interface import Codec, Coded, Quality, Stopwatch
from payload.codec.jpeg2000 import FallbackCodec
from payload.codec.lapped.codec import ENCODER_FILE, TABLES_FILE, FsqCodec
from payload.codec.vq import codebooks
from payload.engine import Engine, Network
from payload.errors import BundleError, StreamError
from payload.tiles import Tile, require_tile


class VqCodec:
    """The field's reference: codebook indices of fixed length, one layer per codebook, the coarsest stride first."""

    def __init__(self, bundle: Bundle, engine: Engine | None) -> None:
        self._books = codebooks.load_codebooks(bundle.file(TABLES_FILE), len(bundle.bands))
        self._check(bundle)
        self._network: Network | None = engine.load(bundle.file(ENCODER_FILE), require_int8=True) if engine else None
        self._bands, self._tile_px = len(bundle.bands), bundle.tile_px
        self.layers = len(self._books.books)

    def _check(self, bundle: Bundle) -> None:
        odd = [stride for stride in self._books.strides if bundle.tile_px % stride]
        declared = bundle.codec.get("layers", len(self._books.books))
        if odd or declared != len(self._books.books):
            raise BundleError(
                f"bundle {bundle.name}: codebooks of strides {list(self._books.strides)} do not fit tiles of "
                f"{bundle.tile_px} px in {str(declared)[:60]!r} layers; restore the bundle or rebuild it"
            )

    def encode(self, tile: Tile, quality: Quality, watch: Stopwatch) -> Coded:
        require_tile(tile, self._bands, self._tile_px)
        if self._network is None:
            raise BundleError("this codec was opened for decoding only; give it an engine to encode")
        with watch.stage("encode"):
            latents = self._network.run(codebooks.normalise(tile.dn, self._books))
            self._check_latents(latents)
        with watch.stage("quantise"):
            indices = [codebooks.nearest(z, book) for z, book in zip(latents, self._books.books, strict=True)]
        with watch.stage("entropy"):
            layers = tuple(codebooks.pack_indices(i, book) for i, book in zip(indices, self._books.books, strict=True))
        return Coded(b"", layers[: quality.keep])

    def _check_latents(self, latents: list[NDArray[Any]]) -> None:
        cells = [self._tile_px // stride for stride in self._books.strides]
        wanted = [(1, book.vectors.shape[1], n, n) for book, n in zip(self._books.books, cells, strict=True)]
        if [z.shape for z in latents] != wanted:
            raise BundleError(
                f"the encoder gives latents {[list(z.shape) for z in latents]}, the codebooks want "
                f"{[list(shape) for shape in wanted]}; restore the bundle or rebuild it"
            )

    def decode(self, side: bytes, layers: tuple[bytes, ...]) -> tuple[None, tuple[NDArray[np.uint16], ...]]:
        if side or not 1 <= len(layers) <= self.layers:
            raise StreamError(
                f"{len(side)} octets of side information and {len(layers)} layers, wanted 0 and 1 to {self.layers}"
            )
        return None, tuple(
            codebooks.unpack_indices(octets, book, self._tile_px // stride)
            for octets, book, stride in zip(layers, self._books.books, self._books.strides, strict=False)
        )

    def shorten(self, layers: tuple[bytes, ...], octets: int) -> tuple[bytes, ...]:
        """Indices of fixed length come whole or not at all."""
        return layers


def open_codec(bundle: Bundle, engine: Engine | None = None) -> Codec:
    """The codec a bundle's manifest names; without an engine it decodes only."""
    kinds: dict[str, Callable[[Bundle, Engine | None], Codec]] = {
        "fsq": FsqCodec,
        "vq": VqCodec,
        BARE: lambda bare, _: FallbackCodec(len(bare.bands), bare.tile_px),
    }
    kind = str(bundle.codec.get("kind"))[:60]
    if kind not in kinds:
        raise BundleError(
            f"bundle {bundle.name}: codec kind {kind!r} is unknown, wanted one of {', '.join(kinds)}; "
            "update Nadir or rebuild"
        )
    return kinds[kind](bundle, engine)
