"""The compiled twin of payload/codec/lapped/layers.py: indices <-> octets, same law, same octets, same refusals."""

import ctypes
from collections.abc import Iterator, Sequence
from copy import copy
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from payload.codec.lapped import plain_layer
from payload.codec.lapped.context_model import (
    ACTIVITY_CENTRE,
    LayerWeights,
    frequency_neighbours,
    least_significant,
    parts,
    zones,
)
from payload.codec.lapped.dense.compiled import DenseRoom, givens
from payload.codec.lapped.dense.mixing import THIRD
from payload.codec.lapped.layers import (
    RUN_TOO_LONG,
    SMALL_ESCAPE,
    is_plain,
    known_to,
    layer_head,
    parse_head,
    profile_of,
    refuse_oversized,
    shorter_layer,
    too_short,
)
from payload.codec.lapped.quantiser import REBUILD_UNIT, Indices, rebuild_units
from payload.codec.lapped.range_coder import NO_ENCODERS, PRECISION, Table
from payload.codec.lapped.tables import LONGEST_RUN, WEIGHTS, ContextTables, LayerTables
from payload.codec.lapped.transform import COEFFICIENTS
from payload.errors import InputError, StreamError
from payload.memory import Held
from payload.native.library import BOOL, I8, I16, I32, NONE, U8, U16, U32, U64, Span, call, loaded, span
from payload.policy import Profile

#: What nadir_decode says of octets.
_CAUSES, _TOO_SHORT = {1: NO_ENCODERS, 2: RUN_TOO_LONG, 4: SMALL_ESCAPE}, 3
#: A coefficient takes 8.2 octets at most: two symbols of 24 bits, an escape, a sign (nadir_encode asks for so much).
MOST_OCTETS, LAST_OCTETS = 9, 64
#: First guesses for every table of runs, by a quantile's first eight bits.
GUESSES = 256
_MOST_POINTER = (1 << 8 * ctypes.sizeof(ctypes.c_void_p)) - 1


class _Model(ctypes.Structure):
    arrays = ("order", "starts", "neighbours", "zone")
    _fields_ = (
        ("bands", ctypes.c_int32), ("groups", ctypes.c_int32), ("order", ctypes.c_void_p),
        ("starts", ctypes.c_void_p), ("neighbours", ctypes.c_void_p), ("zone", ctypes.c_void_p),
        ("octets", ctypes.c_size_t * 4),
        ("complements", ctypes.c_void_p * 4),
    )  # fmt: skip


class _Layer(ctypes.Structure):
    arrays = (
        "weight", "gain", "mix", "floor", "base", "position", "activity", "runs", "longest", "refinement", "size",
        "worth", "used", "weighted", "mixed", "mixed_ends", "guess",
    )  # fmt: skip
    _fields_ = (
        *((name, ctypes.c_void_p) for name in arrays), ("weights", ctypes.c_int32), ("octets", ctypes.c_size_t * 17),
        ("complements", ctypes.c_void_p * 17),
    )  # fmt: skip


@dataclass(eq=False)
class EntropyKernel:
    """The entropy tables of a bundle as the kernel reads them, and its scratch memory for tiles of h x w blocks."""

    tables: ContextTables
    h: int
    w: int
    _held: list[Held] = field(default_factory=list)  # arrays the structures point into

    def __post_init__(self) -> None:
        channels, t = len(self.tables.order), self.tables
        self._bands = bands = channels // COEFFICIENTS
        neighbours = [
            np.pad(columns, ((0, 0), (0, 4 - columns.shape[1])), constant_values=channels)
            for columns in frequency_neighbours(bands)
        ]
        starts = [g[0] for g in t.groups] + [channels]
        arrays = (t.order, I16), (starts, I32), (neighbours, I16), (zones(), I8)
        where, octets = self._hold("kernel.model", _Model.arrays, arrays)
        self._model = _Model(bands, len(t.groups), *where, octets, _complements(where))
        self._of_layers = (_Layer * len(t.layers))(*(self._layer(k, layer) for k, layer in enumerate(t.layers)))
        self._layers = list(self._of_layers)  # each lies where the array has it
        self._givens = givens(t, self._hold, _complements)
        self._make_room()

    def _make_room(self) -> None:
        channels, self._blocks = len(self.tables.order), self.h * self.w
        self._least = least_significant(self._blocks)
        longest_group = max(end - begin for begin, end in self.tables.groups)
        self._scratch = np.empty(loaded().nadir_scratch_octets(channels, self.h, self.w, longest_group), np.uint8)
        self._magnitude = np.empty((channels, self.h, self.w), np.uint16)
        self._out = np.empty(len(self._layers) * (MOST_OCTETS * channels * self._blocks + LAST_OCTETS), np.uint8)
        self._ends = np.empty(len(self._layers), np.uint64)
        self._room = span(self._scratch, U8), span(self._out, U8), span(self._ends, U64)
        self._dense = DenseRoom(channels, self.h, self.w, longest_group)

    def of_size(self, h: int, w: int) -> "EntropyKernel":
        """The same tables, read where they lie, for tiles of other blocks."""
        other = copy(self)
        other.h, other.w = h, w
        other._make_room()
        return other

    def held(self) -> Iterator[Held]:
        """What the kernel reads, the structures that point at it, and the tables it was made of."""
        yield from self._held
        for k, structure in enumerate((self._model, *self._layers, *self._givens)):
            yield Held(f"kernel.structure{k}", "pointers", structure)
        yield Held("kernel.least", "tables", self._least)
        yield from self.tables.held()

    def _hold(
        self, owner: str, names: Sequence[str], arrays: Sequence[tuple[Any, "np.dtype[Any]"]]
    ) -> tuple[list[int], tuple[int, ...]]:
        """Arrays that the kernel reads for as long as this object lives: where they begin, and their octets. Copies:
        one that is hit does not take the array it was made of with it."""
        held = [np.array(values, dtype, order="C") for values, dtype in arrays]
        self._held += [
            Held(f"{owner}.{name}", "weights" if name in WEIGHTS else "tables", a)
            for name, a in zip(names, held, strict=True)
        ]
        return [int(a.ctypes.data) for a in held], tuple(a.nbytes for a in held)

    def _layer(self, k: int, layer: LayerTables) -> _Layer:
        w, features = layer.weights, _features_in_use(layer.weights)
        arrays = (
            (w.weight, I8), (w.gain, I8), (w.mix, I8), (w.floor, I16), (w.base, I16), (w.position, I16),
            (w.activity, I16), (_lower(layer.runs, LONGEST_RUN + 2), U32),
            ([len(t.counts) - 1 for t in layer.runs], I32), (_lower(layer.refinement, 3), U32),
            (_lower(layer.size, 17), U32), (layer.worth, U8), *features, (_guesses(layer.runs), U8),
        )  # fmt: skip
        where, octets = self._hold(f"kernel.layer{k}", _Layer.arrays, arrays)
        return _Layer(*where, len(features[1][0]), octets, _complements(where))

    def encode_layers(
        self, indices: Indices, keep: int | None = None, last_active: int | None = None, profile: Profile = "fast",
        generation: int = THIRD,
    ) -> tuple[bytes, ...]:  # fmt: skip
        """As payload.codec.lapped.layers.encode_layers."""
        if indices.magnitude.shape != self._magnitude.shape:
            raise InputError(
                f"indices of {list(indices.magnitude.shape)}, wanted {list(self._magnitude.shape)}; "
                "encode tiles of the bundle's size and bands"
            )
        keep = len(self.tables.layers) if keep is None else min(keep, len(self.tables.layers))
        if not keep:
            return ()
        most = len(self._magnitude) if last_active is None else last_active
        if profile == "dense":
            return self._dense_layers(indices, keep, most, generation)
        layers = self._encode(indices, keep, most)
        for k, layer in enumerate(layers):
            head = self._bands + 2
            active = int.from_bytes(layer[:2], "big")
            if len(layer) - head > plain_layer.least_octets(active, self._blocks):  # as hardly any is
                coded = active, layer[2:head], layer[head:]
                layers[k] = self._shorter(k, layers, coded, (indices, keep))
        return tuple(layers)

    def _encode(self, indices: Indices, keep: int, last_active: int) -> list[bytes]:
        """The first `keep` layers, none of plain bits."""
        magnitude, negative = np.ascontiguousarray(indices.magnitude), np.ascontiguousarray(indices.negative)
        sizes = NONE if indices.size128 is None else span(np.ascontiguousarray(indices.size128), U8)
        scratch, out, ends = self._room
        layers = Span(ctypes.addressof(self._of_layers), ctypes.sizeof(self._of_layers))
        call(
            "encode", ctypes.byref(self._model), layers, len(self.tables.layers), keep, span(magnitude, U16),
            span(negative, BOOL), sizes, span(self._least, I32), last_active, self.h, self.w, scratch, out, ends,
        )  # fmt: skip
        begins = [0, *self._ends[:keep].tolist()]
        return [self._out[begin:end].tobytes() for begin, end in pairwise(begins)]

    def _shorter(
        self, k: int, layers: list[bytes], coded: tuple[int, bytes, bytes], sent: tuple[Indices, int]
    ) -> bytes:
        """Layer k as it was coded, or as plain bits where those are fewer."""
        indices, keep = sent
        here, before = _layer_of(indices.magnitude, len(self.tables.layers) - 1 - k, k)
        if k == keep - 1 and indices.size128 is not None:  # plain bits, too, leave out what is not worth its octets
            members = self.tables.order[: coded[0]]
            left = self.decode_layers(tuple(layers)).magnitude[members]
            here[members] = np.where(here[members] == 1, left, here[members])
        return shorter_layer(coded, here, before, indices.negative, self.tables, k)

    profile_of = staticmethod(profile_of)

    def _dense_layers(self, indices: Indices, keep: int, last_active: int, generation: int) -> tuple[bytes, ...]:
        count, bit = len(self.tables.layers), plain_layer.GENERATIONS[generation]
        magnitude, negative = np.ascontiguousarray(indices.magnitude), np.ascontiguousarray(indices.negative)
        sizes = None if indices.size128 is None else np.ascontiguousarray(indices.size128)
        if sizes is not None:  # the last layer clears what is not worth its octets
            magnitude = np.right_shift(magnitude, count - keep, out=self._magnitude)
            count = keep
        layers: list[bytes] = []
        self._dense.begin(generation)
        for k, (active, activity) in enumerate(self._heads(magnitude, count)[:keep]):
            finer, last = count - 1 - k, k == keep - 1
            active = min(active, last_active) if last else active
            of_layer = magnitude, negative, sizes if last else None
            body = self._encode_dense(k, finer, of_layer, (active, _busy(activity)))
            if len(body) <= plain_layer.least_octets(active, self._blocks):  # as nearly every layer is
                layers.append(layer_head(active, activity, bit) + body)
                continue
            here, before = _layer_of(magnitude, finer, k)
            layers.append(shorter_layer((active, activity, body), here, before, negative, self.tables, k, bit))
            if is_plain(layers[-1]):
                self._dense.begin(generation)
        return tuple(layers)

    def _encode_dense(self, k: int, finer: int, arrays: tuple[Any, ...], head: tuple[int, NDArray[np.int16]]) -> bytes:
        rebuilt = REBUILD_UNIT + rebuild_units(len(self.tables.layers) - 1 - k)
        return self._dense.encode(self._of_dense(k), k, arrays, (rebuilt, finer), head)

    def _heads(self, magnitude: NDArray[np.uint16], layers: int) -> list[tuple[int, bytes]]:
        """Active channels and activity of each layer of the finest magnitudes [C, h, w]."""
        channels = len(magnitude)
        hits, active = np.empty((layers, channels), np.int32), np.empty(layers, np.int32)
        activity = np.empty((layers, self._bands), np.uint8)
        call(
            "heads", ctypes.byref(self._model), span(magnitude, U16), self._blocks, layers, span(self._least, I32),
            span(hits, I32), span(active, I32), span(activity, U8),
        )  # fmt: skip
        return [(n, row.tobytes()) for n, row in zip(active.tolist(), activity, strict=True)]

    def _of_dense(self, k: int) -> tuple[Any, ...]:
        return self._model, self._layers[k], self._givens[k]

    def decode_layers(self, layers: tuple[bytes, ...]) -> Indices:
        """As payload.codec.lapped.layers.decode_layers."""
        if not 1 <= len(layers) <= len(self._layers):
            raise StreamError(f"{len(layers)} layers, this bundle has 1 to {len(self._layers)}")
        shape = (len(self.tables.order), self.h, self.w)
        here, negative, active = np.zeros(shape, np.uint16), np.zeros(shape, bool), 0
        self._dense.begin()
        for k, octets in enumerate(layers):
            active, activity, body, coding = parse_head(octets, k, shape[0])
            if coding == plain_layer.RAW:
                here = plain_layer.unpack_raw(body, here, negative, self.tables.order[:active], k)
                self._dense.begin()
            elif coding:
                here <<= 1
                if coding != plain_layer.GENERATIONS[self._dense.generation]:
                    self._dense.begin(plain_layer.GENERATIONS.index(coding))
                self._decode_dense(k, body, (active, _busy(activity)), here, negative)
            else:
                self._decode(k, body, (active, _busy(activity)), here, negative)
            refuse_oversized(here, k, len(self._layers))
        return known_to(len(layers), here, negative, active, self.tables)

    def _decode(self, k: int, body: bytes, head: tuple[int, NDArray[np.int16]], *arrays: NDArray[Any]) -> None:
        here, negative = arrays
        raw = np.zeros(2, np.uint64)  # signs, escapes
        failed = call(
            "decode", ctypes.byref(self._model), ctypes.byref(self._layers[k]), k,
            span(np.frombuffer(body, np.uint8), U8), self.h, self.w, head[0], span(head[1], I16), self._room[0],
            span(here, U16), span(negative, BOOL), span(raw, U64),
        )  # fmt: skip
        _refuse(failed, k, body, *raw.tolist())

    def _decode_dense(self, k: int, body: bytes, head: tuple[int, NDArray[np.int16]], *arrays: NDArray[Any]) -> None:
        failed, escapes = self._dense.decode(self._of_dense(k), k, body, head, *arrays)
        _refuse(failed, k, body, 0, escapes)


def _refuse(failed: int, k: int, body: bytes, signs: int, escapes: int) -> None:
    """StreamError where the kernel found something wrong with a layer's octets."""
    if failed == _TOO_SHORT:
        raise too_short(k, body, signs, escapes)
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
    return (used, U8), (weighted, U8), (np.concatenate(mixed), U8), (ends, I32)


def _complements(where: Sequence[int]) -> tuple[int, ...]:
    return tuple(_MOST_POINTER ^ at for at in where)


def _layer_of(magnitude: NDArray[np.uint16], finer: int, k: int) -> tuple[NDArray[np.uint16], NDArray[np.uint16]]:
    """Magnitudes of layer k, behind which there are so many `finer`, and of the one before it."""
    here = (magnitude >> finer).astype(np.uint16)
    return here, (here >> 1).astype(np.uint16) if k else np.zeros_like(here)


def _busy(activity: bytes) -> NDArray[np.int16]:
    return np.frombuffer(activity, np.uint8).astype(np.int16) - ACTIVITY_CENTRE


def _lower(tables: tuple[Table, ...], width: int) -> NDArray[np.uint32]:
    found = np.zeros((len(tables), width), np.uint32)
    for row, t in zip(found, tables, strict=True):
        row[: len(t.lower)] = t.lower
    return found


def _guesses(tables: tuple[Table, ...]) -> NDArray[np.uint8]:
    """Of every table [256]: the symbol that the first of each 256th of all quantiles belongs to."""
    firsts = np.arange(GUESSES) << PRECISION - 8
    return np.array([np.searchsorted(t.lower, firsts, side="right") - 1 for t in tables], np.uint8)

