"""Tile -> side information and layers, and back to indices: the codec of a bundle behind one interface.

`kind = "fsq"`: rotation, INT8 lapped transform, nested scalar quantiser, integer context model (this project's codec).
`kind = "vq"`: normalisation, INT8 convolutional encoder, vector-quantised codebooks at several strides, indices of
fixed length (the reference system of the field, CORSA).
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from payload import entropy, quantiser, vector
from payload.bundle import Bundle
from payload.encoder import COEFFICIENTS, encode
from payload.engine import Engine, Network
from payload.errors import BundleError, StreamError
from payload.quantiser import Indices
from payload.rotation import ANGLE_BITS, ANGLES, SHIFT_LIMIT, Rotation, fit, rotate
from payload.tiles import Tile

ENCODER_FILE = "flight/encoder.onnx"
TABLES_FILE = "flight/tables.npz"
#: Blocks of 8 x 8 px, whose averages go in blocks of 8 x 8 through the second level.
TILE_MULTIPLE_PX = 64


@dataclass(eq=False)
class Stopwatch:
    """Seconds spent per stage of the payload, by `clock`: of the wall, or of the processor where a host is shared."""

    seconds: dict[str, float] = field(default_factory=dict)
    clock: Callable[[], float] = time.perf_counter

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        start = self.clock()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + self.clock() - start


@dataclass(frozen=True, eq=False)
class Coded:
    """One tile, coded: side information, layers coarse first, and the squared error left after 0, 1, 2, ... layers.

    `errors` is an onboard estimate in DN^2 summed over samples, from the latents (the transform is nearly orthonormal);
    empty where the codec has no such estimate.
    """

    side: bytes
    layers: tuple[bytes, ...]
    errors: tuple[float, ...] = ()


class Codec(Protocol):
    """What a bundle's codec can do with one tile."""

    layers: int

    def encode(
        self, tile: Tile, step_dn: float, watch: Stopwatch, with_errors: bool = False, keep: int | None = None
    ) -> Coded: ...

    def decode(self, side: bytes, layers: tuple[bytes, ...]) -> tuple[Any, Any]:
        """Side information and indices, parsed. StreamError where they make no sense."""
        ...


class FsqCodec:
    """The flight codec. Side information: means 16 bits each, angles 12 bits each, step index 8, shift 8."""

    def __init__(self, bundle: Bundle, engine: Engine | None) -> None:
        self._tile_px, self._bands = bundle.tile_px, len(bundle.bands)
        self._coarsest_dn = float(bundle.codec.get("coarsest_step_dn", quantiser.step_dn(quantiser.STEP_INDICES - 1)))
        if self._tile_px % TILE_MULTIPLE_PX:
            raise BundleError(
                f"bundle {bundle.name}: tiles of {self._tile_px} px, wanted a multiple of {TILE_MULTIPLE_PX}; "
                "restore the bundle or rebuild it"
            )
        self._tables = entropy.load_tables(bundle.file(TABLES_FILE))
        self._network: Network | None = engine.load(bundle.file(ENCODER_FILE), require_int8=True) if engine else None
        self.layers = len(self._tables.layers)

    def encode(
        self, tile: Tile, step_dn: float, watch: Stopwatch, with_errors: bool = False, keep: int | None = None
    ) -> Coded:
        if self._network is None:
            raise BundleError("this codec was opened for decoding only; give it an engine to encode")
        with watch.stage("rotate"):
            rotation = fit(tile.dn, tile.valid)
            rotated = rotate(tile.dn, tile.valid, rotation)
        with watch.stage("encode"):
            latents = encode(rotated, self._network)
        with watch.stage("quantise"):
            unsent = self._layers_beyond(step_dn)
            index = quantiser.step_index(step_dn * 2.0 ** -(rotation.shift + unsent))
            indices = quantiser.quantise(latents, index)
            errors = quantiser.errors_dn2(latents, indices, index, self.layers, rotation.shift) if with_errors else ()
        with watch.stage("entropy"):
            layers = entropy.encode_layers(indices, self._tables, keep=min(keep or self.layers, self.layers - unsent))
        return Coded(_pack_side(rotation, index), layers, errors[: len(layers) + 1])

    def _layers_beyond(self, step_dn: float) -> int:
        """How many finer layers stay on board: beyond the steps the context model was trained on, a tile is coded at
        half the step, or a quarter, ... and cut after the layer of the step that was asked for."""
        excess = np.log2(step_dn / self._coarsest_dn)
        return int(np.clip(np.ceil(excess), 0, self.layers - 1))

    def decode(self, side: bytes, layers: tuple[bytes, ...]) -> tuple[tuple[Rotation, int], Indices]:
        found = _unpack_side(side, self._bands)
        cells = self._tile_px // 8
        return found, entropy.decode_layers(layers, (self._bands * COEFFICIENTS, cells, cells), self._tables)


class VqCodec:
    """The field's reference: codebook indices of fixed length, one layer per codebook, the coarsest stride first."""

    def __init__(self, bundle: Bundle, engine: Engine | None) -> None:
        self._books = vector.load_codebooks(bundle.file(TABLES_FILE))
        self._network: Network | None = engine.load(bundle.file(ENCODER_FILE), require_int8=True) if engine else None
        self._tile_px = bundle.tile_px
        self.layers = len(self._books.books)

    def encode(
        self, tile: Tile, step_dn: float, watch: Stopwatch, with_errors: bool = False, keep: int | None = None
    ) -> Coded:
        if self._network is None:
            raise BundleError("this codec was opened for decoding only; give it an engine to encode")
        with watch.stage("encode"):
            latents = self._network.run(vector.normalise(tile.dn, self._books))
        with watch.stage("quantise"):
            indices = [vector.nearest(z, book) for z, book in zip(latents, self._books.books, strict=True)]
        with watch.stage("entropy"):
            layers = tuple(vector.pack_indices(i, book) for i, book in zip(indices, self._books.books, strict=True))
        return Coded(b"", layers[:keep])

    def decode(self, side: bytes, layers: tuple[bytes, ...]) -> tuple[None, tuple[NDArray[np.uint16], ...]]:
        if side or not 1 <= len(layers) <= self.layers:
            raise StreamError(
                f"{len(side)} octets of side information and {len(layers)} layers, wanted 0 and 1 to {self.layers}"
            )
        return None, tuple(
            vector.unpack_indices(octets, book, self._tile_px // stride)
            for octets, book, stride in zip(layers, self._books.books, self._books.strides, strict=False)
        )


def open_codec(bundle: Bundle, engine: Engine | None = None) -> Codec:
    """The codec a bundle's manifest names; without an engine it decodes only."""
    kinds: dict[str, type[FsqCodec] | type[VqCodec]] = {"fsq": FsqCodec, "vq": VqCodec}
    kind = str(bundle.codec.get("kind"))
    if kind not in kinds:
        raise BundleError(
            f"bundle {bundle.name}: codec kind {kind!r} is unknown, wanted one of {', '.join(kinds)}; "
            "update Nadir or rebuild"
        )
    return kinds[kind](bundle, engine)


def _pack_side(rotation: Rotation, index: int) -> bytes:
    angles = 0
    for angle in rotation.angles:
        angles = angles << ANGLE_BITS | angle
    bits = ANGLE_BITS * len(rotation.angles)
    octets = b"".join(mean.to_bytes(2, "big") for mean in rotation.means)
    return octets + (angles << -bits % 8).to_bytes(-(-bits // 8), "big") + bytes([index, rotation.shift])


def _unpack_side(side: bytes, bands: int) -> tuple[Rotation, int]:
    turns = bands * (bands - 1) // 2
    bits = ANGLE_BITS * turns
    middle = -(-bits // 8)
    if len(side) != 2 * bands + middle + 2 or side[-2] >= quantiser.STEP_INDICES or side[-1] > SHIFT_LIMIT:
        raise StreamError(f"{len(side)} octets of side information do not fit {bands} bands")
    means = tuple(int.from_bytes(side[2 * b : 2 * b + 2], "big") for b in range(bands))
    packed = int.from_bytes(side[2 * bands : 2 * bands + middle], "big") >> -bits % 8
    angles = tuple(packed >> ANGLE_BITS * (turns - 1 - k) & (ANGLES - 1) for k in range(turns))
    return Rotation(means, angles, side[-1]), side[-2]
