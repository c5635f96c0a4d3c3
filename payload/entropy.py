"""Indices <-> octets: an integer context model in front of a range coder. No float decides a bit on either side.

Layer by layer, coarse first. In a layer, channels come in groups; a group sees the coarser layer everywhere and this
layer in the groups before it. From magnitudes f = min(15, about 2 log2(1 + m)) and their neighbour sums, a small
integer network predicts for every coefficient the class (0..31) of its chance to become significant:

    seen   = 6 f + 2 (sides of f) + (corners of f)
    hidden = min(255, max(0, bias_g + activity + coarser . seen(coarser layer) + current . seen(groups before)) >> a)
    logit  = base + activity + out . hidden + own . (f, sides, corners of the coarser layer)
    class  = clip((logit >> b) + 23, 0, 31)

Integers travel through matrix products in float32, where they are exact as long as every sum stays below 2^24: `load`
refuses tables that could pass that. All coefficients of one class are alike to the model, so they are coded class by
class with one table each. Octets of a layer: see docs/format.md.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from payload.bundle import read_arrays
from payload.encoder import COEFFICIENTS
from payload.errors import BundleError, StreamError
from payload.quantiser import Indices
from payload.rangecoder import Decoder, Encoder, Table

CLASSES = 32
CLASS_OFFSET = 23
HIDDEN_LIMIT = 255
FEATURE_LIMIT = 15
CENTRE = 6
#: The largest value of `seen`: f = 15 at a block and all its neighbours.
SEEN_LIMIT = FEATURE_LIMIT * (CENTRE + 2 * 4 + 4)
#: Layer 0 codes magnitudes 1..15 by table; 16 says that 16 raw bits follow.
ESCAPE = 16
SIZE_CLASSES = 8
#: Activity of a band in a layer: about 2 log2(1 + significant coefficients per 1024 blocks), one octet, centred at 16.
ACTIVITY_UNIT, ACTIVITY_CENTRE, ACTIVITY_LIMIT = 1024, 16, 32
REFINEMENTS = 3

_FEATURE = np.minimum(FEATURE_LIMIT, np.rint(2 * np.log2(1 + np.arange(256)))).astype(np.uint8)

Floats = NDArray[np.float32]
Magnitudes = NDArray[np.uint16]
Neighbourhood = tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.uint8]]


@dataclass(frozen=True, eq=False)
class LayerTables:
    """One layer of the context model: integers, those of matrix products stored as float32."""

    coarser: Floats  # [H, C] int8 values; no columns in layer 0
    current: Floats  # [H, C]
    hidden_bias: Floats  # [G, H]
    out: Floats  # [C, H]
    own: Floats  # [3, C]
    base: Floats  # [C, 8, 8]: bias, by position in the 8 x 8 transform for block averages
    activity: Floats  # [C]
    hidden_activity: Floats  # [H, B]
    hidden_shift: int
    logit_shift: int
    significance: tuple[Table, ...]  # by class: insignificant, significant
    refinement: tuple[Table, ...]  # by min(magnitude of the coarser layer, 3)
    size: tuple[Table, ...]  # layer 0 only, by class // 4: magnitude 1..15, escape


@dataclass(frozen=True, eq=False)
class ContextTables:
    """The entropy model of a bundle. `order` lists channels by rank; groups are rank intervals."""

    order: NDArray[np.int64]
    groups: tuple[tuple[int, int], ...]
    layers: tuple[LayerTables, ...]


def load_tables(path: Path) -> ContextTables:
    """Tables from an .npz without objects, every bound checked. BundleError says which does not hold."""
    arrays = read_arrays(path)
    try:
        order, starts = arrays["order"].astype(np.int64), [int(s) for s in arrays["starts"]]
        layers = tuple(_layer(arrays, k) for k in range(int(arrays["layers"])))
    except (KeyError, ValueError) as error:
        raise BundleError(f"{path}: entropy tables incomplete or malformed ({error}); rebuild the bundle") from None
    for k, layer in enumerate(layers):
        _check_exact(path, k, layer)
    return ContextTables(order, tuple(zip(starts, [*starts[1:], len(order)], strict=True)), layers)


def _layer(arrays: dict[str, NDArray[Any]], k: int) -> LayerTables:
    def floats(name: str) -> Floats:
        return arrays[f"{name}{k}"].astype(np.float32)

    def tables(name: str) -> tuple[Table, ...]:
        return tuple(Table(counts) for counts in arrays[f"{name}{k}"])

    hidden_shift, logit_shift = (int(v) for v in arrays[f"shifts{k}"])
    return LayerTables(
        floats("coarser"), floats("current"), floats("hidden_bias"), floats("out"), floats("own"), floats("base"),
        floats("activity"), floats("hidden_activity"),
        hidden_shift, logit_shift, tables("significance"), tables("refinement"), tables("size"),
    )  # fmt: skip


def _check_exact(path: Path, k: int, t: LayerTables) -> None:
    hidden = np.abs(t.hidden_bias).max() + ACTIVITY_LIMIT * np.abs(t.hidden_activity).sum(1).max()
    hidden += SEEN_LIMIT * (np.abs(t.current).sum(1) + np.abs(t.coarser).sum(1)).max()
    own = FEATURE_LIMIT * (np.abs(t.own) * np.array([1, 4, 4], np.float32)[:, None]).sum(0).max() if t.own.size else 0
    logit = np.abs(t.base).max() + HIDDEN_LIMIT * np.abs(t.out).sum(1).max() + own
    logit += ACTIVITY_LIMIT * np.abs(t.activity).max()
    if max(hidden, logit) >= 2**24:
        raise BundleError(
            f"{path}: layer {k} of the context model could reach {int(max(hidden, logit))}, wanted below 2^24; "
            "rebuild the bundle"
        )


class _Contexts:
    """Classes of one layer, group by group. `previous` [C, h, w] is the coarser layer by rank, None for layer 0."""

    def __init__(
        self, tables: ContextTables, layer: int, shape: tuple[int, ...], previous: Magnitudes | None, activity: bytes
    ) -> None:
        self._t, self._tables = tables.layers[layer], tables
        self._shape = shape
        busy = np.frombuffer(activity, np.uint8).astype(np.float32) - ACTIVITY_CENTRE  # [B]
        self._base = self._t.base + (self._t.activity * busy[tables.order // COEFFICIENTS])[:, None, None]
        self._inner = (tables.order % COEFFICIENTS != 0).astype(np.float32)[:, None]
        cells = shape[0] * shape[1]
        self._state = np.repeat((self._t.hidden_activity @ busy)[:, None], cells, axis=1)
        self._own: Neighbourhood | tuple[()] = ()
        if previous is not None:
            known = int(np.flatnonzero(previous.any(axis=(1, 2)))[-1]) + 1 if previous.any() else 0
            f, sides, corners = _neighbourhood(previous[: max(known, 1)])
            self._own = (f, sides, corners)
            self._state += self._t.coarser[:, : len(f)] @ self._seen(0, f, sides, corners)

    def classes(self, begin: int, end: int, group: int) -> NDArray[np.uint8]:
        """Classes [end - begin, h, w] of the ranks begin..end."""
        t, (h, w) = self._t, self._shape
        pre = self._state + t.hidden_bias[group][:, None]
        hidden = np.floor(np.maximum(pre, 0) * np.float32(2.0**-t.hidden_shift))
        np.minimum(hidden, HIDDEN_LIMIT, out=hidden)
        logit = ((t.out[begin:end] * self._inner[begin:end]) @ hidden).reshape(-1, h, w)
        logit += np.tile(self._base[begin:end], (1, h // 8, w // 8))
        known = len(self._own[0]) if self._own else 0
        if begin < known:
            upto = min(end, known)
            for weight, feature in zip(t.own, self._own, strict=True):
                logit[: upto - begin] += weight[begin:upto, None, None] * feature[begin:upto]
        scaled = np.floor(logit * np.float32(2.0**-t.logit_shift))
        return np.clip(scaled + CLASS_OFFSET, 0, CLASSES - 1).astype(np.uint8)

    def tell(self, begin: int, magnitude: Magnitudes) -> None:
        """This layer's magnitudes of the ranks from `begin` on are known now."""
        if magnitude.any():
            seen = self._seen(begin, *_neighbourhood(magnitude))
            self._state += self._t.current[:, begin : begin + len(magnitude)] @ seen

    def _seen(self, begin: int, f: NDArray[np.uint8], sides: NDArray[np.uint8], corners: NDArray[np.uint8]) -> Floats:
        smooth = CENTRE * f + corners  # at most 6 x 15 + 60, fits in an octet
        seen = sides.astype(np.float32)
        seen *= 2
        seen += smooth
        return seen.reshape(len(f), -1) * self._inner[begin : begin + len(f)]


def _neighbourhood(magnitude: Magnitudes) -> Neighbourhood:
    """Features of every coefficient and their sums over side and corner neighbours, zero outside the tile."""
    channels, h, w = magnitude.shape
    padded = np.zeros((channels, h + 2, w + 2), np.uint8)
    f = padded[:, 1:-1, 1:-1]
    np.take(_FEATURE, np.minimum(magnitude, 255), out=(taken := np.empty(magnitude.shape, np.uint8)), mode="clip")
    f[:] = taken
    across = padded[:, :, :-2] + padded[:, :, 2:]
    sides = across[:, 1:-1] + padded[:, :-2, 1:-1]
    sides += padded[:, 2:, 1:-1]
    return taken, sides, across[:, :-2] + across[:, 2:]


def encode_layers(
    indices: Indices, tables: ContextTables, coder: Callable[[], Any] = Encoder, keep: int | None = None
) -> tuple[bytes, ...]:
    """Octets of the first `keep` layers of a tile (None: all), coarse first.

    Another `coder` can count symbols instead (export does).
    """
    magnitude, negative = indices.magnitude[tables.order], indices.negative[tables.order]
    count = len(tables.layers)
    shifted = [(magnitude >> (count - 1 - k)).astype(np.uint16) for k in range(count)][:keep]
    return tuple(_encode_layer(here, negative, tables, k, coder()) for k, here in enumerate(shifted))


def _encode_layer(here: Magnitudes, negative: NDArray[np.bool_], tables: ContextTables, k: int, coder: Any) -> bytes:
    previous: Magnitudes | None = here >> 1 if k else None  # type: ignore[assignment]
    used = here.any(axis=(1, 2))
    active = int(np.flatnonzero(used)[-1]) + 1 if used.any() else 0
    t = tables.layers[k]
    activity = _activity(here, tables)
    contexts = _Contexts(tables, k, here.shape[1:], previous, activity)
    escapes = []
    for group, begin, end in _groups(tables, active):
        part = here[begin:end]
        classes = contexts.classes(begin, end, group)
        open_ = np.flatnonzero(previous[begin:end] == 0) if previous is not None else np.arange(part.size)
        flags = (part.ravel()[open_] > 0).astype(np.int32)
        order, bounds = _by_class(classes.ravel()[open_])
        sorted_flags = flags[order]
        for c, (first, last) in _runs(bounds):
            coder.put(sorted_flags[first:last], t.significance[c])
        if k == 0:
            escapes.append(_put_sizes(coder, part, classes, t))
        else:
            _put_refinements(coder, part, previous[begin:end], t)  # type: ignore[index]
        contexts.tell(begin, np.minimum(part, ESCAPE) if k == 0 else part)  # what the decoder knows by then
    fresh = here[:active] > 0 if previous is None else (here[:active] > 0) & (previous[:active] == 0)
    signs = np.packbits(negative[:active][fresh]).tobytes()
    raw = b"".join(escapes) + signs
    return active.to_bytes(2, "big") + activity + coder.octets() + raw


def _activity(here: Magnitudes, tables: ContextTables) -> bytes:
    """One octet per band: how many coefficients of this layer are significant, block averages left out."""
    bands = len(tables.order) // COEFFICIENTS
    inner = tables.order % COEFFICIENTS != 0
    hits = np.count_nonzero(here, axis=(1, 2)) * inner
    counts = np.bincount(tables.order // COEFFICIENTS, weights=hits, minlength=bands)
    per_cell = counts / (here.shape[1] * here.shape[2])
    return np.rint(2 * np.log2(1 + ACTIVITY_UNIT * per_cell)).astype(np.uint8).tobytes()


def _put_sizes(coder: Any, part: Magnitudes, classes: NDArray[np.uint8], t: LayerTables) -> bytes:
    hit = part > 0
    sizes, bucket = part[hit], classes[hit] >> 2
    symbols = (np.minimum(sizes, ESCAPE) - 1).astype(np.int32)
    for c in range(SIZE_CLASSES):
        coder.put(symbols[bucket == c], t.size[c])
    return sizes[sizes >= ESCAPE].astype(">u2").tobytes()


def _put_refinements(coder: Any, part: Magnitudes, previous: Magnitudes, t: LayerTables) -> None:
    hit = previous > 0
    bits, size = (part[hit] & 1).astype(np.int32), np.minimum(previous[hit], REFINEMENTS)
    for c in range(REFINEMENTS):
        coder.put(bits[size == c + 1], t.refinement[c])


def decode_layers(layers: tuple[bytes, ...], shape: tuple[int, int, int], tables: ContextTables) -> Indices:
    """Indices [C, h, w] of the layers that are there (at least one). StreamError where the octets make no sense."""
    if not 1 <= len(layers) <= len(tables.layers):
        raise StreamError(f"{len(layers)} layers, this bundle has 1 to {len(tables.layers)}")
    magnitude = np.zeros(shape, np.uint16)
    negative = np.zeros(shape, bool)
    for k, octets in enumerate(layers):
        magnitude = _decode_layer(octets, magnitude if k else None, negative, tables, k)
    ranked = np.argsort(tables.order)
    return Indices(magnitude[ranked], negative[ranked], len(tables.layers) - len(layers))


def _decode_layer(
    octets: bytes, previous: Magnitudes | None, negative: NDArray[np.bool_], tables: ContextTables, k: int
) -> Magnitudes:
    channels, h, w = negative.shape
    active, head = int.from_bytes(octets[:2], "big"), 2 + channels // COEFFICIENTS
    activity = octets[2:head]
    if len(octets) < head or active > channels or max(activity) > ACTIVITY_CENTRE + ACTIVITY_LIMIT:
        raise StreamError(f"layer {k}: {len(octets)} octets, {active} active channels of {channels}")
    t, coder = tables.layers[k], Decoder(octets[head:])
    contexts = _Contexts(tables, k, (h, w), previous, activity)
    here: Magnitudes = np.zeros((channels, h, w), np.uint16)
    if previous is not None:
        here[:] = previous << 1
    escaped = []
    for group, begin, end in _groups(tables, active):
        classes = contexts.classes(begin, end, group)
        before = previous[begin:end] if previous is not None else np.zeros((end - begin, h, w), np.uint16)
        open_ = np.flatnonzero(before == 0)
        order, bounds = _by_class(classes.ravel()[open_])
        flags = np.empty(len(open_), np.int32)
        for c, (first, last) in _runs(bounds):
            flags[order[first:last]] = coder.take(last - first, t.significance[c])
        part = np.zeros((end - begin) * h * w, np.uint16)
        part[open_] = flags
        part = part.reshape(end - begin, h, w)
        if k == 0:
            escaped.append(_take_sizes(coder, part, classes, t))
        else:
            part += _take_refinements(coder, before, t)
            part += before << 1
        here[begin:end] = part
        contexts.tell(begin, part)
    fresh = here > 0 if previous is None else (here > 0) & (previous == 0)
    _take_raw(octets, here, negative, fresh, escaped, k)
    return here


def _take_sizes(coder: Any, part: Magnitudes, classes: NDArray[np.uint8], t: LayerTables) -> int:
    hit = np.flatnonzero(part)
    bucket = classes.ravel()[hit] >> 2
    sizes = np.empty(len(hit), np.uint16)
    for c in range(SIZE_CLASSES):
        at = bucket == c
        sizes[at] = coder.take(int(at.sum()), t.size[c]) + 1
    part.ravel()[hit] = sizes
    return int((sizes == ESCAPE).sum())


def _take_refinements(coder: Any, before: Magnitudes, t: LayerTables) -> Magnitudes:
    bits = np.zeros(before.shape, np.uint16)
    size = np.minimum(before, REFINEMENTS)
    for c in range(REFINEMENTS):
        at = size == c + 1
        bits[at] = coder.take(int(at.sum()), t.refinement[c])
    return bits


def _take_raw(
    octets: bytes, here: Magnitudes, negative: NDArray[np.bool_], fresh: NDArray[np.bool_], escaped: list[int], k: int
) -> None:
    """Raw bits stand at the end of a layer: 16 bits for every escape, then one bit for every new sign."""
    signs, escapes = int(fresh.sum()), sum(escaped)
    octets_of_signs = -(-signs // 8)
    start = len(octets) - octets_of_signs - 2 * escapes
    if start < 2 + len(negative) // COEFFICIENTS:
        raise StreamError(f"layer {k}: {len(octets)} octets do not hold {signs} signs and {escapes} escapes")
    if escapes:
        here[here == ESCAPE] = np.frombuffer(octets, ">u2", escapes, start)
    bits = np.unpackbits(np.frombuffer(octets, np.uint8, octets_of_signs, len(octets) - octets_of_signs), count=signs)
    negative[fresh] = bits.astype(bool)


def _groups(tables: ContextTables, active: int) -> Iterator[tuple[int, int, int]]:
    for group, (begin, end) in enumerate(tables.groups):
        if begin < active:
            yield group, begin, min(end, active)


def _by_class(classes: NDArray[np.uint8]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """A stable order by class, and where each class begins in it."""
    return np.argsort(classes, kind="stable"), np.concatenate([[0], np.cumsum(np.bincount(classes, minlength=CLASSES))])


def _runs(bounds: NDArray[np.intp]) -> Iterator[tuple[int, tuple[int, int]]]:
    for c in range(CLASSES):
        if bounds[c] < bounds[c + 1]:
            yield c, (int(bounds[c]), int(bounds[c + 1]))
