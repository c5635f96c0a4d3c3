"""The compiled twin of the payload's hot loops (kernel.c), where it was built. The numpy code defines them.

`available` is False where no compiler was at hand when the package was installed, on a board that runs from a zipapp,
or with NADIR_KERNEL=0 in the environment: then everything runs in numpy and gives the same octets.
"""

import ctypes
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from payload.codec.lapped import plain_layer
from payload.codec.lapped.context_model import ACTIVITY_CENTRE, LayerWeights, frequency_neighbours, parts, zones
from payload.codec.lapped.layers import (
    RUN_TOO_LONG,
    SMALL_ESCAPE,
    heads,
    known_to,
    parse_head,
    refuse_oversized,
    shorter_layer,
    too_short,
)
from payload.codec.lapped.quantiser import Indices, rebuild_units, step_units
from payload.codec.lapped.range_coder import NO_ENCODERS, Table
from payload.codec.lapped.tables import LONGEST_RUN, ContextTables, Kernels, LayerTables
from payload.codec.lapped.transform import BLOCK, COEFFICIENTS, DCT_BITS, LATENT_BITS, Latents, dct
from payload.codec.rotation import JACOBI_SWEEPS, PLANE_LIMIT, Rotation, Statistics
from payload.errors import BundleError, InputError, StreamError
from payload.scene import Dn

_CAUSES = {1: NO_ENCODERS, 2: RUN_TOO_LONG, 4: SMALL_ESCAPE}
_TOO_SHORT = 3
#: A coefficient takes 8.2 octets at most: two symbols of 24 bits, an escape, a sign (nadir_encode asks for so much).
MOST_OCTETS, LAST_OCTETS = 9, 64
#: What the kernel says of arguments that would lead it astray.
_REFUSALS: dict[int, tuple[type[InputError], str]] = {
    -1: (InputError, "a buffer is too small for the kernel; hand over tiles of the bundle's size and bands"),
    -2: (InputError, "a number is out of range for the kernel; hand over tiles of the bundle's size and bands"),
    -3: (BundleError, "the bundle's tables in memory are not those that were loaded; load the bundle again"),
}


def _load() -> ctypes.CDLL | None:
    if os.environ.get("NADIR_KERNEL") == "0":
        return None
    try:
        from payload.native import _kernel  # type: ignore[attr-defined]

        library = ctypes.CDLL(_kernel.__file__)
    except (ImportError, OSError):
        return None
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


class Span(ctypes.Structure):
    """A contiguous array as the kernel sees it: where it begins and how many octets it has."""

    _fields_ = (("at", ctypes.c_void_p), ("octets", ctypes.c_size_t))


def span(array: NDArray[Any], dtype: "np.dtype[Any]") -> Span:
    """The array must be of this dtype. A buffer's address is had four times as fast as `array.ctypes.data`."""
    if array.dtype != dtype or not array.flags.c_contiguous:
        raise TypeError(f"the kernel was handed {array.dtype} {list(array.shape)}, wanted {dtype}, contiguous")
    writable = array.flags.writeable
    found = Span(ctypes.addressof(_Anything.from_buffer(array)) if writable else array.ctypes.data, array.nbytes)  # type: ignore[arg-type]
    found.array = array  # lives as long as the span does
    return found


_NONE = Span(None, 0)
_U8, _U16, _U32, _U64, _I8, _I16, _I32, _I64, _F32, _F64, _BOOL = map(
    np.dtype, ("u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8", "f4", "f8", "?")
)


def call(entry: str, *arguments: Any) -> int:
    """What an entry of the kernel gives back; InputError or BundleError where it refuses its arguments."""
    code: int = getattr(_c(), f"nadir_{entry}")(*arguments)
    if code < 0:
        error, text = _REFUSALS[code]
        raise error(text)
    return code


class _Model(ctypes.Structure):
    _fields_ = (
        ("bands", ctypes.c_int32), ("groups", ctypes.c_int32), ("order", ctypes.c_void_p),
        ("starts", ctypes.c_void_p), ("neighbours", ctypes.c_void_p), ("zone", ctypes.c_void_p),
        ("octets", ctypes.c_size_t * 4),
    )  # fmt: skip


class _Layer(ctypes.Structure):
    _arrays = (
        "weight", "gain", "mix", "floor", "base", "position", "activity", "runs", "longest", "refinement", "size",
        "worth", "used", "weighted", "mixed", "mixed_ends",
    )  # fmt: skip
    _fields_ = (
        *((name, ctypes.c_void_p) for name in _arrays), ("weights", ctypes.c_int32), ("octets", ctypes.c_size_t * 16),
    )  # fmt: skip


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
        arrays = (t.order, _I16), (starts, _I32), (neighbours, _I16), (zones(), _I8)
        where, octets = self._hold(arrays)
        self._model = _Model(bands, len(t.groups), *where, octets)
        self._layers = [self._layer(layer) for layer in t.layers]
        longest_group = max(end - begin for begin, end in t.groups)
        self._scratch = np.empty(_c().nadir_scratch_octets(channels, self.h, self.w, longest_group), np.uint8)
        self._magnitude = np.empty((channels, self.h, self.w), np.uint16)
        self._out = np.empty(MOST_OCTETS * channels * self.h * self.w + LAST_OCTETS, np.uint8)
        self._room = span(self._scratch, _U8), span(self._out, _U8)

    def _hold(self, arrays: Sequence[tuple[Any, "np.dtype[Any]"]]) -> tuple[list[int], tuple[int, ...]]:
        """Arrays that the kernel reads for as long as this object lives: where they begin, and their octets."""
        held = [np.ascontiguousarray(values, dtype) for values, dtype in arrays]
        self._held += held
        return [int(a.ctypes.data) for a in held], tuple(a.nbytes for a in held)

    def _layer(self, layer: LayerTables) -> _Layer:
        w, features = layer.weights, _features_in_use(layer.weights)
        arrays = (
            (w.weight, _I8), (w.gain, _I8), (w.mix, _I8), (w.floor, _I16), (w.base, _I16), (w.position, _I16),
            (w.activity, _I16), (_lower(layer.runs, LONGEST_RUN + 2), _U32),
            ([len(t.counts) - 1 for t in layer.runs], _I32), (_lower(layer.refinement, 3), _U32),
            (_lower(layer.size, 17), _U32), (layer.worth, _U8), *features,
        )  # fmt: skip
        where, octets = self._hold(arrays)
        return _Layer(*where, len(features[1][0]), octets)

    def encode_layers(
        self, indices: Indices, keep: int | None = None, last_active: int | None = None
    ) -> tuple[bytes, ...]:
        """As payload.codec.lapped.layers.encode_layers."""
        if indices.magnitude.shape != self._magnitude.shape:
            raise InputError(_REFUSALS[-1][1])
        count = len(self.tables.layers)
        keep = count if keep is None else min(keep, count)
        if not keep:
            return ()
        magnitude, negative = np.ascontiguousarray(indices.magnitude), np.ascontiguousarray(indices.negative)
        sizes = None if indices.size128 is None else np.ascontiguousarray(indices.size128)
        if sizes is not None and keep == count:  # the finest layer clears what is not worth its octets
            np.copyto(self._magnitude, magnitude)
            magnitude = self._magnitude
        hits, channels = _hits(magnitude, count), len(magnitude)
        limits = [channels] * (keep - 1) + [channels if last_active is None else last_active]
        layers = []
        for k, (active, activity) in enumerate(heads(hits[:keep], magnitude[0].size, self.tables, limits)):
            of_layer = magnitude, negative, sizes if k == count - 1 else None, hits
            body = self._encode(k, of_layer, (active, _busy(activity)))
            if len(body) <= plain_layer.least_octets(active, magnitude[0].size):  # as nearly every layer is
                layers.append(active.to_bytes(2, "big") + activity + body)
                continue
            here = (magnitude >> (count - 1 - k)).astype(np.uint16)
            before = (here >> 1).astype(np.uint16) if k else np.zeros_like(here)
            layers.append(shorter_layer((active, activity, body), here, before, negative, self.tables, k))
        return tuple(layers)

    def _encode(self, k: int, arrays: tuple[Any, ...], head: tuple[int, NDArray[np.int16]]) -> bytes:
        magnitude, negative, sizes, hits = arrays
        written = ctypes.c_size_t()
        call(
            "encode", ctypes.byref(self._model), ctypes.byref(self._layers[k]), k, span(magnitude, _U16),
            span(negative, _BOOL), _NONE if sizes is None else span(sizes, _U8), span(hits, _I32),
            len(self._layers) - 1 - k, self.h, self.w, head[0], span(head[1], _I16), *self._room, ctypes.byref(written),
        )  # fmt: skip
        return self._out[: written.value].tobytes()

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
                refuse_oversized(here, k, len(self._layers))
                continue
            here <<= 1
            self._decode(k, body, (active, _busy(activity)), here, negative)
            refuse_oversized(here, k, len(self._layers))
        return known_to(len(layers), here, negative, active, self.tables)

    def _decode(self, k: int, body: bytes, head: tuple[int, NDArray[np.int16]], *arrays: NDArray[Any]) -> None:
        here, negative = arrays
        raw = np.zeros(2, np.uint64)  # signs, escapes
        failed = call(
            "decode", ctypes.byref(self._model), ctypes.byref(self._layers[k]), k,
            span(np.frombuffer(body, np.uint8), _U8), self.h, self.w, head[0], span(head[1], _I16), self._room[0],
            span(here, _U16), span(negative, _BOOL), span(raw, _U64),
        )  # fmt: skip
        if failed == _TOO_SHORT:
            raise too_short(k, body, *raw.tolist())
        if failed:
            raise StreamError(f"layer {k}: {_CAUSES[failed]}")


def _features_in_use(w: LayerWeights) -> tuple[tuple[Any, "np.dtype[Any]"], ...]:
    """What the kernel looks at of a model that leaves features, or whole inner sums, at no weight."""
    weighted = np.flatnonzero(w.weight.any(axis=0))
    mixed: list[NDArray[np.intp]] = []
    for e, (begin, end) in enumerate(parts(len(w.base) // COEFFICIENTS)):
        inside = begin + np.flatnonzero(w.mix[begin:end])
        mixed.append(inside if w.gain[:, e].any() else inside[:0])
    used = np.zeros(w.weight.shape[1], np.uint8)
    used[weighted] = used[np.concatenate(mixed)] = 1
    ends = np.cumsum([len(features) for features in mixed])
    return (used, _U8), (weighted, _U8), (np.concatenate(mixed), _U8), (ends, _I32)


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
    call("count", span(magnitude, _U16), channels, magnitude[0].size, layers, span(hits, _I32))
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
    call(
        "statistics", span(np.ascontiguousarray(dn), _U16), span(table, _U16), bands, n, span(values, _U16),
        span(sums, _U64), span(products, _U64), span(edges[0], _U16), span(edges[1], _U16),
    )  # fmt: skip
    return Statistics(n, tuple(sums.tolist()), products.astype(np.int64), *(tuple(e.tolist()) for e in edges))


def diagonalise(a: NDArray[np.float64], v: NDArray[np.float64]) -> None:
    """As payload.codec.rotation.diagonalise."""
    call("jacobi", span(a, _F64), span(v, _F64), len(a), JACOBI_SWEEPS)


def rotate(values: Dn, rotation: Rotation, rotated: NDArray[np.int16]) -> None:
    """`rotated` bands [B, T, T] of a tile whose pixels are all valid."""
    matrix, means = rotation.matrix.astype(np.int32), np.array(rotation.means, np.int32)
    call(
        "rotate", span(values, _U16), span(matrix, _I32), span(means, _I32), len(values), values[0].size,
        rotation.shift, PLANE_LIMIT, span(rotated, _I16),
    )  # fmt: skip


class Transform:
    """The encoder's network as the kernel runs it."""

    def __init__(self, kernels: Kernels) -> None:
        u, v = np.divmod(np.arange(COEFFICIENTS), BLOCK)
        parity = 2 * (u % 2) + v % 2
        functions = [np.flatnonzero(parity == p) for p in range(4)]
        self._functions = np.concatenate(functions).astype(np.int32)
        self._weights = kernels.values[self._functions, :BLOCK, :BLOCK].astype(np.int16).copy()
        self._shift = (LATENT_BITS - kernels.exponents.astype(np.int32)).copy()

    def run(self, rotated: NDArray[np.int16], buffers: Buffers) -> NDArray[np.int32]:
        """Sums [B, 64, T/8, T/8] in 2^-8 of rotated bands [B, T, T]."""
        bands, side, _ = rotated.shape
        call(
            "transform", span(rotated, _I16), span(self._weights, _I16), span(self._functions, _I32),
            span(self._shift, _I32), bands, side, span(buffers.lines, _I16), span(buffers.part_sums, _I32),
            span(buffers.sums, _I32),
        )  # fmt: skip
        return buffers.sums


def with_second_level(sums: NDArray[np.int32]) -> Latents:
    """As payload.codec.lapped.transform.with_second_level. sums [B, 64, h, w], in place."""
    bands, _, h, w = sums.shape
    call("second_level", span(sums, _I32), span(dct().astype(np.int64), _I64), bands, h, w, DCT_BITS)
    return Latents(sums)


def quantise(latents: Latents, index: int, buffers: Buffers) -> Indices:
    """As payload.codec.lapped.quantiser.quantise, into the buffers."""
    values = np.ascontiguousarray(latents.values)
    call(
        "quantise", span(values, _I32), values.size, ctypes.c_uint32(step_units(index)), span(buffers.magnitude, _U16),
        span(buffers.negative, _BOOL), span(buffers.size128, _U8),
    )  # fmt: skip
    return Indices(buffers.magnitude, buffers.negative, size128=buffers.size128)


def errors(latents: Latents, index: int, layers: int) -> tuple[int, ...]:
    """As payload.codec.lapped.quantiser.errors."""
    values = np.ascontiguousarray(latents.values)
    inside = np.array([rebuild_units(layers - 1 - k) for k in range(layers)], np.int32)
    left = np.zeros(layers + 1, np.uint64)
    step = ctypes.c_uint32(step_units(index))
    call("errors", span(values, _I32), values.size, step, layers, span(inside, _I32), span(left, _U64))
    return tuple(left.tolist())


def cloud_planes(
    dn: Dn, cell_px: int, detail: bool, low_permille: int, high_permille: int, least_span: int
) -> NDArray[np.uint8] | None:
    """As payload.clouds.planes.input_planes, of a tile whose pixels are all valid. [B, T, T] -> [P, T/c, T/c]"""
    bands, size, _ = dn.shape
    n = size // cell_px
    planes = np.empty((2 * bands + 4 * detail, n, n), np.uint8)
    judged = call(
        "cloud_planes", span(np.ascontiguousarray(dn), _U16), bands, n, cell_px, int(detail),
        low_permille, high_permille, least_span, span(planes, _U8),
    )  # fmt: skip
    return planes if judged else None


def cloud_counts(
    logits: NDArray[np.int8], exponentials: NDArray[np.float32], cloudy_above: float, sure_above: float
) -> tuple[int, int, int, int]:
    """Cells of logits [4, n]: all, cloud, thin cloud, cloud beyond doubt; as payload.clouds.CloudMask counts them."""
    counts = np.empty(3, np.int32)
    call(
        "cloud_counts", span(np.ascontiguousarray(logits), _I8), span(exponentials, _F32), logits.shape[1],
        ctypes.c_float(cloudy_above), ctypes.c_float(sure_above), span(counts, _I32),
    )  # fmt: skip
    cloudy, thin, sure = counts.tolist()
    return logits.shape[1], cloudy, thin, sure
