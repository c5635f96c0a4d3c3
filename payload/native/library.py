"""The compiled twin of the payload's hot loops (kernel.c), where it was built. The numpy code defines them.

`available` is False where no compiler was at hand when the package was installed, on a board that runs from a zipapp,
or with NADIR_KERNEL=0 in the environment: then everything runs in numpy and gives the same octets.
"""

import ctypes
import os
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from payload.codec.lapped import plain_layer
from payload.codec.lapped.context_model import ACTIVITY_CENTRE, LayerWeights, frequency_neighbours, parts, zones
from payload.codec.lapped.layers import (
    LONGEST_RUN,
    ContextTables,
    LayerTables,
    heads,
    known_to,
    parse_head,
    shorter_layer,
)
from payload.codec.lapped.quantiser import Indices, rebuild_units, step_units
from payload.codec.lapped.range_coder import NO_ENCODERS, Table
from payload.codec.lapped.transform import BLOCK, COEFFICIENTS, DCT_BITS, LATENT_BITS, Latents, dct
from payload.codec.rotation import JACOBI_SWEEPS, PLANE_LIMIT, Rotation, Statistics
from payload.errors import StreamError
from payload.scene import Dn

_CAUSES = {1: NO_ENCODERS, 2: "a run of zeros goes past the end of its class", 3: "too few octets for its raw bits"}


def _load() -> ctypes.CDLL | None:
    if os.environ.get("NADIR_KERNEL") == "0":
        return None
    try:
        from payload.native import _kernel  # type: ignore[attr-defined]

        library = ctypes.CDLL(_kernel.__file__)
    except (ImportError, OSError):
        return None
    library.nadir_encode.restype = ctypes.c_size_t
    library.nadir_scratch_octets.restype = ctypes.c_size_t
    return library


_library = _load()
available = _library is not None


def _c() -> ctypes.CDLL:
    if _library is None:
        raise RuntimeError("the kernel was not built; check payload.native.library.available first")
    return _library


def plain_only(on: bool) -> None:
    """For tests and comparisons: leave the vector loops out."""
    _c().nadir_plain_only(int(on))


_Anything = ctypes.c_char * 0


def _at(array: NDArray[Any] | None) -> Any:
    """Where a contiguous array begins. A buffer's address is had four times as fast as `array.ctypes.data`."""
    if array is None:
        return None
    return _Anything.from_buffer(array) if array.flags.writeable else ctypes.c_void_p(array.ctypes.data)  # type: ignore[arg-type]


class _Model(ctypes.Structure):
    _fields_ = (
        ("bands", ctypes.c_int32), ("groups", ctypes.c_int32), ("order", ctypes.c_void_p),
        ("starts", ctypes.c_void_p), ("neighbours", ctypes.c_void_p), ("zone", ctypes.c_void_p),
    )  # fmt: skip


class _Layer(ctypes.Structure):
    _arrays = (
        "weight", "gain", "mix", "floor", "base", "position", "activity", "runs", "longest", "refinement", "size",
        "worth", "used", "weighted", "mixed", "mixed_ends",
    )  # fmt: skip
    _fields_ = (*((name, ctypes.c_void_p) for name in _arrays), ("weights", ctypes.c_int32))


@dataclass(eq=False)
class EntropyKernel:
    """The entropy tables of a bundle as the kernel reads them, and its scratch memory for tiles of h x w blocks."""

    tables: ContextTables
    h: int
    w: int
    _held: list[NDArray[Any]] = field(default_factory=list)  # arrays the structures point into

    def __post_init__(self) -> None:
        channels, t = len(self.tables.order), self.tables
        bands = channels // COEFFICIENTS
        neighbours = [
            np.pad(columns, ((0, 0), (0, 4 - columns.shape[1])), constant_values=channels)
            for columns in frequency_neighbours(bands)
        ]
        starts = [g[0] for g in t.groups] + [channels]
        self._model = _Model(
            bands, len(t.groups), self._hold(t.order, np.int16), self._hold(starts, np.int32),
            self._hold(neighbours, np.int16), self._hold(zones(), np.int8),
        )  # fmt: skip
        self._layers = [self._layer(layer) for layer in t.layers]
        longest_group = max(end - begin for begin, end in t.groups)
        octets = _c().nadir_scratch_octets(channels, self.h, self.w, longest_group)
        self._scratch = np.empty(octets, np.uint8)
        self._magnitude = np.empty((channels, self.h, self.w), np.uint16)
        self._out = np.empty(6 * channels * self.h * self.w + 64, np.uint8)
        self._room = _at(self._scratch), _at(self._out)

    def _hold(self, values: Any, dtype: Any) -> int:
        array = np.ascontiguousarray(values, dtype)
        self._held.append(array)
        return int(array.ctypes.data)

    def _layer(self, layer: LayerTables) -> _Layer:
        w = layer.weights
        weights = ((w.weight, np.int8), (w.gain, np.int8), (w.mix, np.int8), (w.floor, np.int16), (w.base, np.int16),
                   (w.position, np.int16), (w.activity, np.int16))  # fmt: skip
        longest = [len(t.counts) - 1 for t in layer.runs]
        return _Layer(
            *(self._hold(values, dtype) for values, dtype in weights),
            self._hold(_lower(layer.runs, LONGEST_RUN + 2), np.uint32), self._hold(longest, np.int32),
            self._hold(_lower(layer.refinement, 3), np.uint32), self._hold(_lower(layer.size, 17), np.uint32),
            self._hold(layer.worth, np.uint8), *self._features_in_use(w),
        )  # fmt: skip

    def _features_in_use(self, w: LayerWeights) -> tuple[int, ...]:
        """What the kernel looks at of a model that leaves features, or whole inner sums, at no weight."""
        weighted = np.flatnonzero(w.weight.any(axis=0))
        mixed: list[NDArray[np.intp]] = []
        for e, (begin, end) in enumerate(parts(len(w.base) // COEFFICIENTS)):
            inside = begin + np.flatnonzero(w.mix[begin:end])
            looked_at = w.gain[:, e].any()
            mixed.append((inside if len(inside) else np.array([begin])) if looked_at else np.zeros(0, np.intp))
        used = np.zeros(w.weight.shape[1], np.uint8)
        used[weighted] = used[np.concatenate(mixed)] = 1
        ends = np.cumsum([len(features) for features in mixed])
        return (
            self._hold(used, np.uint8), self._hold(weighted, np.uint8), self._hold(np.concatenate(mixed), np.uint8),
            self._hold(ends, np.int32), len(weighted),
        )  # fmt: skip

    def encode_layers(
        self, indices: Indices, keep: int | None = None, last_active: int | None = None
    ) -> tuple[bytes, ...]:
        """As payload.codec.lapped.layers.encode_layers."""
        count = len(self.tables.layers)
        keep = count if keep is None else min(keep, count)
        magnitude, negative = np.ascontiguousarray(indices.magnitude), np.ascontiguousarray(indices.negative)
        sizes = None if indices.size128 is None else np.ascontiguousarray(indices.size128)
        if sizes is not None and keep == count:  # the finest layer clears what is not worth its octets
            np.copyto(self._magnitude, magnitude)
            magnitude = self._magnitude
        hits, channels = _hits(magnitude, count), len(magnitude)
        limits = [channels] * (keep - 1) + [channels if last_active is None else last_active] if keep else []
        layers = []
        for k, (active, activity) in enumerate(heads(hits[:keep], magnitude[0].size, self.tables, limits)):
            arrays = (magnitude, negative, sizes if k == count - 1 else None, hits[k])
            body = self._encode(k, arrays, (active, _busy(activity)))
            if len(body) <= plain_layer.least_octets(active, magnitude[0].size):  # as nearly every layer is
                layers.append(active.to_bytes(2, "big") + activity + body)
                continue
            here = (magnitude >> (count - 1 - k)).astype(np.uint16)
            before = (here >> 1).astype(np.uint16) if k else np.zeros_like(here)
            layers.append(shorter_layer((active, activity, body), here, before, negative, self.tables, k))
        return tuple(layers)

    def _encode(self, k: int, arrays: tuple[NDArray[Any] | None, ...], head: tuple[int, NDArray[np.int16]]) -> bytes:
        size = _c().nadir_encode(
            ctypes.byref(self._model), ctypes.byref(self._layers[k]), k, *map(_at, arrays),
            len(self._layers) - 1 - k, self.h, self.w, head[0], _at(head[1]), *self._room,
        )  # fmt: skip
        return self._out[:size].tobytes()

    def decode_layers(self, layers: tuple[bytes, ...]) -> Indices:
        """As payload.codec.lapped.layers.decode_layers."""
        if not 1 <= len(layers) <= len(self._layers):
            raise StreamError(f"{len(layers)} layers, this bundle has 1 to {len(self._layers)}")
        shape = (len(self.tables.order), self.h, self.w)
        here, negative, active = np.zeros(shape, np.uint16), np.zeros(shape, bool), 0
        for k, octets in enumerate(layers):
            active, activity, body, raw = parse_head(octets, k, shape[0])
            if raw:
                here = plain_layer.unpack_raw(body, here, negative, self.tables.order[:active], k)
                continue
            here <<= 1
            busy = _busy(activity)
            failed = _c().nadir_decode(
                ctypes.byref(self._model), ctypes.byref(self._layers[k]), k, body, ctypes.c_size_t(len(body)),
                self.h, self.w, active, _at(busy), _at(self._scratch), _at(here), _at(negative),
            )  # fmt: skip
            if failed:
                raise StreamError(f"layer {k}: {_CAUSES[failed]}")
        return known_to(len(layers), here, negative, active, self.tables)


def _busy(activity: bytes) -> NDArray[np.int16]:
    return np.frombuffer(activity, np.uint8).astype(np.int16) - ACTIVITY_CENTRE


def _lower(tables: tuple[Table, ...], width: int) -> NDArray[np.uint32]:
    found = np.zeros((len(tables), width), np.uint32)
    for row, t in zip(found, tables, strict=True):
        row[: len(t.lower)] = t.lower
    return found


def _hits(magnitude: NDArray[np.uint16], layers: int) -> NDArray[np.int32]:
    """Significant coefficients per layer and channel, [layers, C], of the finest magnitudes [C, h, w]."""
    channels = len(magnitude)
    hits = np.empty((layers, channels), np.int32)
    _c().nadir_count(_at(magnitude), channels, magnitude[0].size, layers, _at(hits))
    return hits


class Buffers:
    """Arrays of one tile that are written anew for every tile: fresh memory would cost more than what fills it."""

    def __init__(self, bands: int, side: int) -> None:
        blocks = side // BLOCK
        self.values = np.empty((bands, side, side), np.uint16)
        self.rotated = np.empty((bands, side, side), np.int16)
        self.sums = np.empty((bands, COEFFICIENTS, blocks, blocks), np.int32)
        self.part_sums = np.empty((COEFFICIENTS // 2, blocks), np.int32)
        self.magnitude = np.empty((bands * COEFFICIENTS, blocks, blocks), np.uint16)
        self.negative = np.empty(self.magnitude.shape, bool)
        self.size128 = np.empty(self.magnitude.shape, np.uint8)
        self.lines = np.empty(2 * BLOCK * (side + BLOCK), np.int16)


def statistics(dn: Dn, table: NDArray[np.uint16], values: Dn) -> Statistics:
    """Companded `values` [B, T, T] of a tile, and their statistics, all pixels valid."""
    bands, n = len(dn), dn[0].size
    products = np.zeros((bands, bands), np.uint64)
    sums, edges = np.empty(bands, np.uint64), np.empty((2, bands), np.uint16)
    dn = np.ascontiguousarray(dn)
    _c().nadir_statistics(
        _at(dn), _at(table), bands, n, _at(values), _at(sums), _at(products), _at(edges[0]), _at(edges[1])
    )
    return Statistics(n, tuple(sums.tolist()), products.astype(np.int64), *(tuple(e.tolist()) for e in edges))


def diagonalise(a: NDArray[np.float64], v: NDArray[np.float64]) -> None:
    """As payload.codec.rotation.diagonalise."""
    _c().nadir_jacobi(_at(a), _at(v), len(a), JACOBI_SWEEPS)


def rotate(values: Dn, rotation: Rotation, rotated: NDArray[np.int16]) -> None:
    """`rotated` bands [B, T, T] of a tile whose pixels are all valid. Sums fit 32 bits for up to four bands."""
    matrix, means = rotation.matrix.astype(np.int32), np.array(rotation.means, np.int32)
    _c().nadir_rotate(
        _at(values), _at(matrix), _at(means), len(values), values[0].size, rotation.shift, PLANE_LIMIT, _at(rotated)
    )


class Transform:
    """The encoder's network as the kernel runs it. kernels int8 [64, 16, 16], each even or odd along both axes, and
    their exponents [64] (payload/codec/lapped/layers.py keeps both in the tables of the bundle)."""

    def __init__(self, kernels: NDArray[np.int8], exponents: NDArray[np.int8]) -> None:
        u, v = np.divmod(np.arange(COEFFICIENTS), BLOCK)
        parity = 2 * (u % 2) + v % 2
        functions = [np.flatnonzero(parity == p) for p in range(4)]
        self._functions = np.concatenate(functions).astype(np.int32)
        self._weights = kernels[self._functions, :BLOCK, :BLOCK].astype(np.int16).copy()
        self._shift = (LATENT_BITS - exponents.astype(np.int32)).copy()

    def run(self, rotated: NDArray[np.int16], buffers: Buffers) -> NDArray[np.int32]:
        """Sums [B, 64, T/8, T/8] in 2^-8 of rotated bands [B, T, T]."""
        bands, side, _ = rotated.shape
        _c().nadir_transform(
            _at(rotated), _at(self._weights), _at(self._functions), _at(self._shift), bands, side, _at(buffers.lines),
            _at(buffers.part_sums), _at(buffers.sums),
        )  # fmt: skip
        return buffers.sums


def with_second_level(sums: NDArray[np.int32]) -> Latents:
    """As payload.codec.lapped.transform.with_second_level. sums [B, 64, h, w], in place."""
    bands, _, h, w = sums.shape
    _c().nadir_second_level(_at(sums), _at(dct().astype(np.int64)), bands, h, w, DCT_BITS)
    return Latents(sums)


def quantise(latents: Latents, index: int, buffers: Buffers) -> Indices:
    """As payload.codec.lapped.quantiser.quantise, into the buffers."""
    values = np.ascontiguousarray(latents.values)
    step = ctypes.c_uint32(step_units(index))
    _c().nadir_quantise(
        _at(values), values.size, step, _at(buffers.magnitude), _at(buffers.negative), _at(buffers.size128)
    )
    return Indices(buffers.magnitude, buffers.negative, size128=buffers.size128)


def errors(latents: Latents, index: int, layers: int) -> tuple[int, ...]:
    """As payload.codec.lapped.quantiser.errors."""
    values = np.ascontiguousarray(latents.values)
    inside = np.array([rebuild_units(layers - 1 - k) for k in range(layers)], np.int32)
    left = np.zeros(layers + 1, np.uint64)
    _c().nadir_errors(_at(values), values.size, ctypes.c_uint32(step_units(index)), layers, _at(inside), _at(left))
    return tuple(left.tolist())


def cloud_planes(
    dn: Dn, cell_px: int, detail: bool, low_permille: int, high_permille: int, least_span: int
) -> NDArray[np.uint8] | None:
    """As payload.clouds.planes.input_planes, of a tile whose pixels are all valid. [B, T, T] -> [P, T/c, T/c]"""
    dn = np.ascontiguousarray(dn)
    bands, size, _ = dn.shape
    n = size // cell_px
    planes = np.empty((2 * bands + 4 * detail, n, n), np.uint8)
    judged = _c().nadir_cloud_planes(
        _at(dn), bands, n, cell_px, int(detail), low_permille, high_permille, least_span, _at(planes)
    )  # fmt: skip
    return planes if judged else None


def cloud_counts(
    logits: NDArray[np.int8], exponentials: NDArray[np.float32], cloudy_above: float, sure_above: float
) -> tuple[int, int, int, int]:
    """Cells of logits [4, n]: all, cloud, thin cloud, cloud beyond doubt; as CloudMask counts them."""
    logits = np.ascontiguousarray(logits)
    counts = np.empty(3, np.int32)
    _c().nadir_cloud_counts(
        _at(logits), _at(exponentials), logits.shape[1], ctypes.c_float(cloudy_above), ctypes.c_float(sure_above),
        _at(counts),
    )  # fmt: skip
    cloudy, thin, sure = counts.tolist()
    return logits.shape[1], cloudy, thin, sure
