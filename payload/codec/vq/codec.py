"""The reference system of the field (CORSA): normalisation, INT8 convolutional encoder, vector-quantised codebooks.

Indices of fixed length, one layer per codebook, the coarsest stride first. No side information.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from payload.bundle import Bundle
from payload.codec.features import FeatureLevel
from payload.codec.interface import (
    DECODER_FILE,
    ENCODER_FILE,
    TABLES_FILE,
    CodedTile,
    LatentQuantiser,
    Quality,
    to_dn,
)
from payload.codec.vq import codebooks
from payload.codec.vq.proof import latent_quantiser
from payload.engine import Engine, Network
from payload.errors import BundleError, StreamError
from payload.link.tile_code import Kind
from payload.memory import Held, RunsInside
from payload.scene import Dn
from payload.stopwatch import Stopwatch
from payload.tiles import Tile, require_tile

Maps = tuple[NDArray[np.uint16], ...]


class VqCodec:
    """One bundle's codebooks; without an engine it decodes only."""

    code_kind = Kind.CODED
    follows_quality = False  # indices have one length
    flight_network = ENCODER_FILE
    ground_network = DECODER_FILE
    decodes_alone = False

    def __init__(self, bundle: Bundle, engine: Engine | None) -> None:
        self._books = codebooks.load_codebooks(bundle.file(TABLES_FILE), len(bundle.bands))
        self._check(bundle)
        self._network: Network | None = engine.load(bundle.file(ENCODER_FILE), require_int8=True) if engine else None
        self._bands, self._tile_px = len(bundle.bands), bundle.tile_px
        self.layers = len(self._books.books)

    def held(self) -> Iterator[Held]:
        """Codebooks and the normalisation."""
        yield Held("mean_dn", "scales", self._books.mean_dn)
        yield Held("scale_dn", "scales", self._books.scale_dn)
        for k, book in enumerate(self._books.books):
            yield Held(f"book{k}", "codebook", book.vectors)

    def runs_inside(self, tile: Tile) -> Iterator[RunsInside]:
        """The encoder, with `tile` as it goes into it."""
        if self._network is not None:
            yield RunsInside("encoder", self._network, self.network_inputs(tile))

    def _check(self, bundle: Bundle) -> None:
        odd = [stride for stride in self._books.strides if bundle.tile_px % stride]
        declared = bundle.codec.get("layers", len(self._books.books))
        if odd or declared != len(self._books.books):
            raise BundleError(
                f"bundle {bundle.name}: codebooks of strides {list(self._books.strides)} do not fit tiles of "
                f"{bundle.tile_px} px in {str(declared)[:60]!r} layers; restore the bundle or rebuild it"
            )

    def encode(self, tile: Tile, quality: Quality, watch: Stopwatch) -> CodedTile:
        require_tile(tile, self._bands, self._tile_px)
        if self._network is None:
            raise BundleError("this codec was opened for decoding only; give it an engine to encode")
        with watch.stage("encode"):
            latents = self._network.run(*self.network_inputs(tile))
            self._check_latents(latents)
        with watch.stage("quantise"):
            indices = [codebooks.nearest(z, book) for z, book in zip(latents, self._books.books, strict=True)]
        with watch.stage("entropy"):
            layers = tuple(codebooks.pack_indices(i, book) for i, book in zip(indices, self._books.books, strict=True))
        return CodedTile(b"", layers[: quality.keep])

    def _check_latents(self, latents: list[NDArray[Any]]) -> None:
        cells = [self._tile_px // stride for stride in self._books.strides]
        wanted = [(1, book.vectors.shape[1], n, n) for book, n in zip(self._books.books, cells, strict=True)]
        if [z.shape for z in latents] != wanted:
            raise BundleError(
                f"the encoder gives latents {[list(z.shape) for z in latents]}, the codebooks want "
                f"{[list(shape) for shape in wanted]}; restore the bundle or rebuild it"
            )

    def shorten(self, layers: tuple[bytes, ...], octets: int) -> tuple[bytes, ...]:
        """Indices of fixed length come whole or not at all."""
        return layers

    def decode(self, side: bytes, layers: tuple[bytes, ...]) -> Maps:
        if side or not 1 <= len(layers) <= self.layers:
            raise StreamError(
                f"{len(side)} octets of side information and {len(layers)} layers, wanted 0 and 1 to {self.layers}"
            )
        return tuple(
            codebooks.unpack_indices(octets, book, self._tile_px // stride)
            for octets, book, stride in zip(layers, self._books.books, self._books.strides, strict=False)
        )

    def reconstruct(self, indices: Maps, network: Network | None) -> Dn:
        """A map whose indices did not arrive is zeros, as the decoder was trained to take it."""
        if network is None:
            raise BundleError(f"codebook indices need {DECODER_FILE} of their bundle; load it and pass it")
        books, strides = self._books.books, self._books.strides
        maps = [b.vectors[i].transpose(2, 0, 1)[None] for b, i in zip(books, indices, strict=False)]
        for book, stride in zip(books[len(maps) :], strides[len(maps) :], strict=True):
            cells = self._tile_px // stride
            maps.append(np.zeros((1, book.vectors.shape[1], cells, cells), np.float32))
        (standardised,) = network.run(*maps)
        return to_dn(standardised[0] * self._books.scale_dn[:, None, None] + self._books.mean_dn[:, None, None])

    def features(self, indices: Maps) -> tuple[FeatureLevel, ...]:
        """The codebook vector of every index, a level for each codebook that arrived."""
        levels = zip(self._books.books, self._books.strides, indices, strict=False)
        return tuple(
            FeatureLevel(
                f"codebook_{stride}px", stride, tuple(f"{k}" for k in range(book.vectors.shape[1])),
                "int8 values of the encoder's latents", np.ascontiguousarray(book.vectors[found].transpose(2, 0, 1)),
            )
            for book, stride, found in levels
        )  # fmt: skip

    def step_of(self, side: bytes, layers: int) -> float:
        """A codebook has no step."""
        return 0.0

    def finest(self, indices: Maps) -> NDArray[Any]:
        return indices[-1]

    def network_inputs(self, tile: Tile) -> tuple[NDArray[Any], ...]:
        return (codebooks.normalise(tile.dn, self._books),)

    def latent_quantiser(self, step_dn: float) -> LatentQuantiser:
        return latent_quantiser(self._books.books)
