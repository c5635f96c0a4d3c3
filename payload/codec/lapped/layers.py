"""Indices <-> octets: an integer context model in front of a range coder. No float decides a bit on either side.

Layer by layer, coarse first; in a layer group by group of channels. `payload/codec/lapped/context_model.py` gives every
coefficient the class of its chance to become significant. All coefficients of one class are alike to the model, so they
are coded class by class, and since most stay zero, as runs: a token says how many zeros come before the next
significant one, or that the longest run its table knows holds none. Octets of a layer: docs/format.md.

This is the definition in numpy. `payload/native/kernel.c` does the same, octet for octet, some sixty times as fast with
AVX2.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from payload.codec.lapped import plain_layer
from payload.codec.lapped.context_model import (
    ACTIVITY_CENTRE,
    ACTIVITY_LIMIT,
    CLASSES,
    Contexts,
    Known,
    activity_of,
    frequency_neighbours,
    zones,
)
from payload.codec.lapped.dense.given import squash
from payload.codec.lapped.dense.layer import DenseTile, Layer
from payload.codec.lapped.dense.mixing import THIRD
from payload.codec.lapped.quantiser import MAGNITUDE_LIMIT, Indices
from payload.codec.lapped.range_coder import Decoder, Encoder, Table
from payload.codec.lapped.tables import ESCAPE, REFINEMENTS, SIZE_CLASSES, ContextTables, LayerTables
from payload.codec.lapped.transform import COEFFICIENTS
from payload.errors import StreamError
from payload.memory import Held
from payload.policy import Profile

RUN_TOO_LONG = "a run of zeros goes past the end of its class"
SMALL_ESCAPE = f"an escape for a magnitude below {ESCAPE}"

Magnitudes = NDArray[np.uint16]
Flags = NDArray[np.bool_]


def encode_layers(
    indices: Indices,
    tables: ContextTables,
    coder: Callable[[], Any] = Encoder,
    keep: int | None = None,
    last_active: int | None = None,
    profile: Profile = "fast",
    generation: int = THIRD,
) -> tuple[bytes, ...]:
    """Octets of the first `keep` layers of a tile (None: all), coarse first.

    `last_active`: the last of them holds so many channels at most, by rank. Another `coder` can count symbols instead
    (export does). `generation` of the profile `dense`: payloads write the third.
    """
    dense = DenseTile(tables) if profile == "dense" else None
    if dense is not None:
        dense.begin(generation)
    count = len(tables.layers)
    keep = count if keep is None else min(keep, count)
    limits = [len(tables.order)] * keep
    if last_active is not None and keep:
        limits[-1] = last_active
    shifted = [(indices.magnitude >> (count - 1 - k)).astype(np.uint16) for k in range(keep)]
    sizes = [indices.size128 if k == keep - 1 else None for k in range(keep)]
    return tuple(
        _encode_layer(shifted[k], (indices.negative, sizes[k]), tables, k, dense or coder(), n)
        for k, n in enumerate(limits)
    )


def _encode_layer(
    here: Magnitudes, more: tuple[Flags, Known | None], tables: ContextTables, k: int, coder: Any, most_active: int
) -> bytes:
    negative, sizes = more
    previous: Magnitudes = (here >> 1).astype(np.uint16) if k else np.zeros_like(here)
    ((active, activity),) = heads(np.count_nonzero(here, axis=(1, 2))[None], here[0].size, tables, [most_active])
    if isinstance(coder, DenseTile):
        body = coder.encode(Layer(k, here, negative, active, activity, sizes))
        bits = plain_layer.GENERATIONS[coder.generation]
        layer = shorter_layer((active, activity, body), here, previous, negative, tables, k, bits)
        if is_plain(layer):
            coder.begin(coder.generation)
        return layer
    t = tables.layers[k]
    contexts = Contexts(t.weights, here.shape, previous if k else None, activity)
    escapes = []
    for members in tables.groups_of(active):
        classes = contexts.classes(members)
        if sizes is not None:
            _clear_worthless(here, sizes, members, classes, t)
        part, before = here[members], previous[members]
        _put_runs(coder, part > 0, before == 0, classes, t)
        if k == 0:
            escapes.append(_put_sizes(coder, part, classes, t))
        else:
            _put_refinements(coder, part, before, t)
        contexts.tell(members, part)
    fresh = _fresh(here, previous, tables, active)
    signs = np.packbits(negative[tables.order[:active]][fresh]).tobytes()
    body = coder.octets() + b"".join(escapes) + signs
    return shorter_layer((active, activity, body), here, previous, negative, tables, k)


def shorter_layer(
    coded: tuple[int, bytes, bytes],
    here: Magnitudes,
    previous: Magnitudes,
    negative: Flags,
    tables: ContextTables,
    k: int,
    profile_bit: int = 0,
) -> bytes:
    """A layer as coded (active, activity, the rest), or as plain bits where those are fewer."""
    active, activity, body = coded
    members = tables.order[:active]
    if len(body) > plain_layer.least_octets(active, here[0].size):
        raw = plain_layer.pack_raw(here, previous, negative, members, k)
        if len(raw) < len(body):
            return layer_head(active, activity, plain_layer.RAW) + raw
    return layer_head(active, activity, profile_bit) + body


def layer_head(active: int, activity: bytes, bits: int = 0) -> bytes:
    """What a layer begins with. A layer of zeros is of no profile."""
    return (active | (bits if active else 0)).to_bytes(2, "big") + activity


def is_plain(layer: bytes) -> bool:
    return bool(layer[0] & plain_layer.RAW >> 8)


def profile_of(layers: Sequence[bytes]) -> Profile:
    """Of a tile's layers, which are of one profile but for those of plain bits and of zeros."""
    return "dense" if any(layer[0] & plain_layer.DENSE >> 8 for layer in layers) else "fast"


class Plain:
    """The entropy coder of a bundle for tiles of cells x cells blocks, in numpy; its twin is kernel.EntropyKernel."""

    def __init__(self, tables: ContextTables, cells: int) -> None:
        self._tables, self._shape = tables, (len(tables.order), cells, cells)

    def held(self) -> Iterator[Held]:
        """What is read for every tile; the counts of symbols are Python's own numbers, which nothing can watch."""
        yield from self._tables.held()
        for k, columns in enumerate(frequency_neighbours(len(self._tables.order) // COEFFICIENTS)):
            yield Held(f"context.neighbours{k}", "tables", columns)
        yield Held("context.zones", "tables", zones())
        yield Held("dense.squash", "tables", squash())

    def encode_layers(
        self, indices: Indices, keep: int | None = None, last_active: int | None = None, profile: Profile = "fast"
    ) -> tuple[bytes, ...]:
        return encode_layers(indices, self._tables, keep=keep, last_active=last_active, profile=profile)

    def decode_layers(self, layers: tuple[bytes, ...]) -> Indices:
        return decode_layers(layers, self._shape, self._tables)

    profile_of = staticmethod(profile_of)


def heads(
    hits: NDArray[np.integer[Any]], blocks: int, tables: ContextTables, most_active: Sequence[int]
) -> list[tuple[int, bytes]]:
    """What layers begin with: active channels by rank, and activity, from the significant ones [layers, C]."""
    ranked = hits[:, tables.order] > 0
    last = np.where(ranked.any(axis=1), len(tables.order) - ranked[:, ::-1].argmax(axis=1), 0)
    activity = activity_of(hits, blocks)
    return [(min(int(n), most), row.tobytes()) for n, most, row in zip(last, most_active, activity, strict=True)]


def parse_head(octets: bytes, k: int, channels: int) -> tuple[int, bytes, bytes, int]:
    """Active channels, activity, what follows, and what that is: RAW, one of GENERATIONS or 0. StreamError where that
    cannot be."""
    first, end = int.from_bytes(octets[:2], "big"), 2 + channels // COEFFICIENTS
    coding = first & (plain_layer.RAW | plain_layer.DENSE | plain_layer.SECOND | plain_layer.THIRD)
    active, activity = first - coding, octets[2:end]
    whole = coding in (0, plain_layer.RAW) or (coding in plain_layer.GENERATIONS and active > 0)
    if len(octets) < end or not whole or active > channels or max(activity) > ACTIVITY_CENTRE + ACTIVITY_LIMIT:
        raise StreamError(f"layer {k}: {len(octets)} octets, {active} active channels of {channels}")
    return active, activity, octets[end:], coding


def _fresh(here: Magnitudes, previous: Magnitudes, tables: ContextTables, active: int) -> Flags:
    """Which coefficients of the active channels, by rank, became significant in this layer."""
    members = tables.order[:active]
    return (here[members] > 0) & (previous[members] == 0)


def _clear_worthless(
    here: Magnitudes, sizes: Known, members: NDArray[np.int64], classes: Known, t: LayerTables
) -> None:
    """Rate-distortion optimised quantisation of the last layer: the rarer a class is significant, the larger a
    magnitude of one must be to be worth its octets. Block averages are few and worth much: they stay."""
    part = here[members]
    worthless = (part == 1) & (sizes[members] < t.worth[classes]) & (members % COEFFICIENTS != 0)[:, None, None]
    here[members] = np.where(worthless, 0, part)


def _put_runs(coder: Any, significant: Flags, open_: Flags, classes: Known, t: LayerTables) -> None:
    order, bounds = _by_class(classes[open_])
    flags = significant[open_][order]
    for c, (first, last) in _runs_of_class(bounds):
        coder.put(tokens(flags[first:last], len(t.runs[c].counts) - 1), t.runs[c])


def tokens(flags: Flags, longest: int) -> NDArray[np.int32]:
    """Flags as tokens: 0..longest-1 zeros and then a one, or `longest` zeros; the last may reach beyond the end."""
    ones = np.flatnonzero(flags)
    gaps = np.diff(ones, prepend=-1) - 1
    whole, rest = np.divmod(gaps, longest)
    tail = -(-(len(flags) - 1 - (ones[-1] if len(ones) else -1)) // longest)
    found = np.full(int(whole.sum()) + len(ones) + tail, longest, np.int32)
    found[np.cumsum(whole + 1) - 1] = rest
    return found


def _put_sizes(coder: Any, part: Magnitudes, classes: Known, t: LayerTables) -> bytes:
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
    active, dense = 0, DenseTile(tables)
    for k, octets in enumerate(layers):
        magnitude, active = _decode_layer(octets, magnitude, negative, tables, k, dense)
        refuse_oversized(magnitude, k, len(tables.layers))
    return known_to(len(layers), magnitude, negative, active, tables)


def refuse_oversized(magnitude: Magnitudes, k: int, layers: int) -> None:
    """StreamError where the coarsest of so many layers holds more than the largest magnitude shifted down to it: no
    encoder writes that, and the finer layers would not fit 16 bits."""
    most, found = MAGNITUDE_LIMIT >> (layers - 1), int(magnitude.max()) if k == 0 else 0
    if found > most:
        raise StreamError(f"layer 0: a magnitude of {found}, the coarsest of {layers} layers holds {most} at most")


def too_short(k: int, octets: bytes, signs: int, escapes: int) -> StreamError:
    """The error of a layer without room for its raw bits."""
    return StreamError(f"layer {k}: {len(octets)} octets do not hold {signs} signs and {escapes} escapes")


def known_to(layers: int, magnitude: Magnitudes, negative: Flags, active: int, tables: ContextTables) -> Indices:
    """Indices after so many layers, the last of which was cut behind its first `active` channels by rank."""
    behind = np.zeros(len(magnitude), bool)
    behind[tables.order[active:]] = layers > 1
    return Indices(magnitude, negative, len(tables.layers) - layers, behind)


def _decode_layer(
    octets: bytes, coarser: Magnitudes, negative: Flags, tables: ContextTables, k: int, dense: DenseTile
) -> tuple[Magnitudes, int]:
    active, activity, body, coding = parse_head(octets, k, len(negative))
    members = tables.order[:active]
    if coding == plain_layer.RAW:
        dense.begin()
        return plain_layer.unpack_raw(body, coarser, negative, members, k), active
    here = (coarser << 1).astype(np.uint16)
    if coding in plain_layer.GENERATIONS:
        generation = plain_layer.GENERATIONS.index(coding)
        if generation != dense.generation:
            dense.begin(generation)
        try:
            escaped = dense.decode(body, Layer(k, here, negative, active, activity))
        except StreamError as error:
            raise StreamError(f"layer {k}: {error}") from None
        _take_raw(body, here, negative, (members, np.zeros((active, *here.shape[1:]), bool)), escaped, k)
        return here, active
    t, coder, escaped = tables.layers[k], Decoder(body), 0
    contexts = Contexts(t.weights, coarser.shape, coarser if k else None, activity)
    for members in tables.groups_of(active):
        classes, before = contexts.classes(members), coarser[members]
        part = (before << 1).astype(np.uint16)
        try:
            _take_runs(coder, part, before == 0, classes, t)
            if k == 0:
                escaped += _take_sizes(coder, part, classes, t)
            else:
                _take_refinements(coder, part, before, t)
        except StreamError as error:
            raise StreamError(f"layer {k}: {error}") from None
        here[members] = part
        contexts.tell(members, part)
    _take_raw(body, here, negative, (tables.order[:active], _fresh(here, coarser, tables, active)), escaped, k)
    return here, active


def _take_runs(coder: Any, part: Magnitudes, open_: Flags, classes: Known, t: LayerTables) -> None:
    where = np.flatnonzero(open_)
    order, bounds = _by_class(classes.ravel()[where])
    for c, (first, last) in _runs_of_class(bounds):
        ones = _ones(coder, last - first, t.runs[c])
        part.ravel()[where[order[first + ones]]] = 1


def _ones(coder: Any, count: int, table: Table) -> NDArray[np.intp]:
    """Places of the significant among `count` coefficients of a class. As many tokens are taken at once as must be
    there: none covers more places than the longest run."""
    longest = len(table.counts) - 1
    covered, found = 0, []
    while covered < count:
        taken = coder.take(-(-(count - covered) // longest), table)
        span = np.where(taken == longest, longest, taken + 1)
        ends = covered + np.cumsum(span)
        found.append(ends[taken < longest] - 1)
        covered = int(ends[-1])
    ones = np.concatenate(found) if found else np.zeros(0, np.intp)
    if len(ones) and ones[-1] >= count:
        raise StreamError(RUN_TOO_LONG)
    return ones


def _take_sizes(coder: Any, part: Magnitudes, classes: Known, t: LayerTables) -> int:
    hit = np.flatnonzero(part)
    bucket = classes.ravel()[hit] >> 2
    sizes = np.empty(len(hit), np.uint16)
    for c in range(SIZE_CLASSES):
        at = bucket == c
        sizes[at] = coder.take(int(at.sum()), t.size[c]) + 1
    part.ravel()[hit] = sizes
    return int((sizes == ESCAPE).sum())


def _take_refinements(coder: Any, part: Magnitudes, before: Magnitudes, t: LayerTables) -> None:
    size = np.minimum(before, REFINEMENTS)
    for c in range(REFINEMENTS):
        at = size == c + 1
        part[at] |= coder.take(int(at.sum()), t.refinement[c]).astype(np.uint16)


def _take_raw(
    octets: bytes,
    here: Magnitudes,
    negative: Flags,
    fresh: tuple[NDArray[np.int64], Flags],
    escapes: int,
    k: int,
) -> None:
    """Raw bits stand at the end of a layer: 16 bits for every escape, then one bit for every new sign."""
    members, new = fresh
    signs = int(new.sum())
    octets_of_signs = -(-signs // 8)
    start = len(octets) - octets_of_signs - 2 * escapes
    if start < 0:
        raise too_short(k, octets, signs, escapes)
    bits = np.unpackbits(np.frombuffer(octets, np.uint8, octets_of_signs, len(octets) - octets_of_signs), count=signs)
    part = negative[members]
    part[new] = bits.astype(bool)
    negative[members] = part
    if escapes:
        sizes = here[members]
        escaped = np.frombuffer(octets, ">u2", escapes, start)
        if escaped.min() < ESCAPE:
            raise StreamError(f"layer {k}: {SMALL_ESCAPE}")
        sizes[sizes == ESCAPE] = escaped
        here[members] = sizes


def _by_class(classes: Known) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """A stable order by class, and where each class begins in it."""
    return np.argsort(classes, kind="stable"), np.concatenate([[0], np.cumsum(np.bincount(classes, minlength=CLASSES))])


def _runs_of_class(bounds: NDArray[np.intp]) -> Iterator[tuple[int, tuple[int, int]]]:
    for c in range(CLASSES):
        if bounds[c] < bounds[c + 1]:
            yield c, (int(bounds[c]), int(bounds[c + 1]))
