"""What the compiled kernel may be handed by an enemy: octets of layers, indices, tiles, and arguments that lie.

Each case is made from a seed. `decode_case` and `encode_case` hold the kernel to numpy's word now and then (`compare`),
since numpy is slow; what they are for is a kernel built under sanitizers, which ends the process at the first fault.
"""

import ctypes
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from toys import random_tables

from payload.codec.lapped import compiled, layers
from payload.codec.lapped.compiled_layers import EntropyKernel
from payload.codec.lapped.quantiser import Indices, quantise
from payload.codec.lapped.range_coder import ONE, Table
from payload.codec.lapped.tables import ContextTables, LayerTables, load_tables
from payload.codec.lapped.transform import Latents
from payload.errors import InputError, StreamError
from payload.native import library
from payload.policy import Profile

#: Bands, layers, blocks down and across, and how often each is taken: the large ones take longer.
SIZES = ((1, 1, 8, 8), (1, 3, 8, 16), (2, 4, 8, 8), (3, 2, 16, 8), (4, 3, 8, 40), (1, 3, 16, 32))
SHARES = (0.3, 0.25, 0.2, 0.03, 0.02, 0.2)
Rng = np.random.Generator


@cache
def tables_of(size: int, extreme: bool) -> ContextTables:
    bands, layer_count, _, _ = SIZES[size]
    with tempfile.TemporaryDirectory() as folder:
        found = load_tables(random_tables(Path(folder) / "t.npz", bands, layer_count, size))
    return replace(found, layers=tuple(map(with_rare_symbols, found.layers))) if extreme else found


def with_rare_symbols(layer: LayerTables) -> LayerTables:
    """All that costs most is as rare as can be: 24 bits a symbol."""

    def rare(symbols: int, common: int) -> Table:
        counts = np.ones(symbols, np.int64)
        counts[common] = ONE - symbols + 1
        return Table(counts)

    return replace(
        layer, runs=tuple(rare(2 if c % 2 else 65, -1) for c in range(32)), size=tuple(rare(16, 0) for _ in range(8))
    )


@cache
def coder_of(size: int, extreme: bool) -> EntropyKernel:
    return EntropyKernel(tables_of(size, extreme), *SIZES[size][2:])


def some_coder(rng: Rng) -> EntropyKernel:
    """Mostly with the vector loops: the plain ones take far longer under sanitizers, over the same arrays."""
    library.plain_only(bool(rng.random() < 0.05))
    return coder_of(int(rng.choice(len(SIZES), p=SHARES)), bool(rng.random() < 0.3))


def shape_of(coder: EntropyKernel) -> tuple[int, int, int]:
    return len(coder.tables.order), coder.h, coder.w


def hostile_indices(rng: Rng, shape: tuple[int, int, int]) -> Indices:
    density = rng.choice([0.0, 0.001, 0.05, 0.5, 1.0])
    largest = int(rng.choice([1, 2, 15, 16, 17, 255, 32767, 32768, 65535]))
    magnitude = rng.integers(0, largest, shape, np.uint16, endpoint=True)
    if rng.random() < 0.3:
        magnitude = np.full(shape, largest, np.uint16)
    magnitude *= rng.random(shape) < density
    sizes = rng.integers(0, 256, shape).astype(np.uint8) if rng.random() < 0.5 else None
    return Indices(magnitude, rng.random(shape) < rng.random(), size128=sizes)


def equal(a: Indices, b: Indices) -> bool:
    return np.array_equal(a.magnitude, b.magnitude) and np.array_equal(a.negative, b.negative)


def some_profile(rng: Rng, compare: bool) -> Profile:
    """Numpy's word on `dense` is too slow to be asked for here: tests/onboard/test_dense.py does."""
    return "fast" if compare or rng.random() < 0.5 else "dense"


def encode_case(rng: Rng, compare: bool) -> str:
    """Hostile indices or latents through the encoder and back."""
    coder = some_coder(rng)
    shape, keep = shape_of(coder), int(rng.integers(0, len(coder.tables.layers) + 1))
    active = int(rng.integers(0, shape[0] + 1)) if rng.random() < 0.3 else None
    sent = hostile_indices(rng, shape) if rng.random() < 0.7 else hostile_latents(rng, shape)
    profile = some_profile(rng, compare)
    if rng.random() < 0.2:
        return lying_case(rng, coder, sent)
    coded = coder.encode_layers(sent, keep, active, profile, int(rng.integers(3)))
    if compare:
        wanted = layers.encode_layers(sent, coder.tables, keep=keep, last_active=active, profile=profile)
        assert coded == wanted, "C and numpy encode differently"
    if coded:
        found = coder.decode_layers(coded)
        kept = (found.magnitude > 0) & ~found.behind[:, None, None]  # type: ignore[index]
        assert np.array_equal(found.magnitude[kept], (sent.magnitude >> found.missing)[kept]), "not what was sent"
    return "encoded"


def lying_case(rng: Rng, coder: EntropyKernel, sent: Indices) -> str:
    """The entries that code a tile, and begin its layers, with one number or one array that is wrong."""
    count, sizes = len(coder.tables.layers), np.zeros(sent.magnitude.shape, np.uint8)
    arrays = [sent.magnitude, sent.negative, sizes, coder._least, coder._scratch, coder._out, coder._ends]
    arrays += [np.zeros(256 * count, np.int32), np.zeros(count, np.int32), np.zeros(4 * count, np.uint8)]
    numbers = [count, count, len(coder.tables.order), coder.h, coder.w, coder.h * coder.w]
    if rng.random() < 0.5:
        numbers[int(rng.integers(len(numbers)))] = int(rng.choice(NUMBERS))
    else:
        lies = int(rng.integers(len(arrays)))
        arrays[lies] = arrays[lies].ravel()[: int(rng.integers(arrays[lies].size))].copy()
    magnitude, negative, sizes_of, least, *room = (library.span(a, a.dtype) for a in arrays[:7])
    model = ctypes.byref(coder._model)
    layers_of = library.Span(ctypes.addressof(coder._of_layers), ctypes.sizeof(coder._of_layers))
    calls: tuple[tuple[Any, ...], ...] = (
        ("encode", model, layers_of, *numbers[:2], magnitude, negative, sizes_of, least, *numbers[2:5], *room),
        ("heads", model, magnitude, numbers[5], numbers[0], least, *(library.span(a, a.dtype) for a in arrays[7:])),
    )
    return " and ".join(outcome_of(entry, arguments) for entry, *arguments in calls)


def outcome_of(entry: str, arguments: Sequence[Any]) -> str:
    try:
        library.call(entry, *arguments)
        return "ran"
    except InputError:
        return "refused"


def hostile_latents(rng: Rng, shape: tuple[int, int, int]) -> Indices:
    """Latents of any 32 bits through the kernel's quantiser."""
    values = rng.integers(-(1 << 31), 1 << 31, (shape[0] // 64, 64, *shape[1:])) >> int(rng.integers(0, 32))
    latents = Latents(values.astype(np.int32))
    index = int(rng.integers(0, 128))
    compiled.errors(latents, index, int(rng.integers(1, 5)))
    buffers = compiled.Buffers(shape[0] // 64, 64)
    for name, dtype in (("magnitude", np.uint16), ("negative", np.bool_), ("size128", np.uint8)):
        setattr(buffers, name, np.empty(shape, dtype))
    found, wanted = compiled.quantise(latents, index, buffers), quantise(latents, index)
    assert equal(found, wanted) and np.array_equal(found.size128, wanted.size128), "quantised differently"  # type: ignore[arg-type]
    return found


@cache
def written(size: int, extreme: bool, seed: int, profile: Profile) -> tuple[bytes, ...]:
    coder, rng = coder_of(size, extreme), np.random.default_rng(seed)
    sent = hostile_indices(rng, shape_of(coder))
    return coder.encode_layers(sent, profile=profile, generation=seed % 3)


def hostile_layer(rng: Rng, octets: bytes, head: int) -> bytes:
    found = bytearray(octets)
    how = rng.integers(7)
    if how == 0:
        del found[int(rng.integers(len(found) + 1)) :]
    elif how == 1:
        for at in rng.integers(len(found), size=int(rng.integers(1, 9))):
            found[at] ^= 1 << rng.integers(8)
    elif how == 2:
        found[head:] = rng.bytes(int(rng.integers(0, 400)))
    elif how == 3:
        found[int(rng.integers(head, len(found) + 1)) :] = b"\xff" * int(rng.integers(0, 300))
    elif how == 4:
        found[:head] = rng.bytes(head)
    elif how == 5:
        found += rng.bytes(int(rng.integers(1, 40)))
    return bytes(found)


def decode_case(rng: Rng, compare: bool) -> str:
    """Layers as an encoder writes them, each damaged or not, some of another tile, with an end or without."""
    coder = some_coder(rng)
    size = next(i for i, s in enumerate(SIZES) if (64 * s[0], *s[2:]) == shape_of(coder))
    extreme = coder is coder_of(size, True)
    made = [
        written(size, extreme, int(rng.integers(12)), some_profile(rng, compare)) for _ in coder.tables.layers
    ]  # profiles mixed, too, as no encoder writes them
    hostile = [
        hostile_layer(rng, made[int(rng.integers(len(made)))][k], 2 + shape_of(coder)[0] // 64)
        for k in range(int(rng.integers(1, len(made) + 1)))
    ]
    return decode_both(coder, tuple(hostile), compare)


def decode_both(coder: EntropyKernel, octets: tuple[bytes, ...], compare: bool = True) -> str:
    """The kernel's word on these layers, and numpy's: the same indices, or the same refusal."""
    found, said = outcome(lambda: coder.decode_layers(octets))
    if compare:
        wanted, numpy_said = outcome(lambda: layers.decode_layers(octets, shape_of(coder), coder.tables))
        assert said == numpy_said, f"the kernel says {said!r}, numpy {numpy_said!r}"
        assert found is None or equal(found, wanted), "C and numpy decode differently"
    return "refused" if found is None else "decoded"


def outcome(decode: Callable[[], Indices]) -> tuple[Any, str]:
    try:
        return decode(), ""
    except StreamError as error:
        return None, str(error)


NUMBERS = (-(1 << 31), -1, 0, 1, 2, 7, 8, 16, 17, 63, 64, 4096, 4097, (1 << 31) - 1)
REAL = "real number"
#: Arrays (their dtype), whole numbers (None) and real ones of each entry, in order.
ENTRIES: dict[str, tuple[str | None, ...]] = {
    "compand": ("u2", "u2", None, None, "u2", "u8", "u2", "u2"),
    "products": ("u2", None, None, "u8", "u2", "u2", "u8"),
    "difference_products": ("u2", None, None, None, None, None, "i8"),
    "jacobi": ("f8", "f8", None, None),
    "fit": ("f8", None, None, "f8", "f8", "i4", "i4", "i8"),
    "rotate": ("u2", "i4", "f8", "f8", "i4", None, None, None, None, "i2"),
    "transform": ("i2", "i2", "i4", "i4", None, None, "i2", "i4"),
    "second_level": ("i4", "i8", None, None, None, None),
    "quantise": ("i4", None, None, None, "u2", "?", "u1"),
    "errors": ("i4", None, None, None, "i4", "u8"),
    "winograd_in": ("f4", None, None, "f4", "f4", "i2", "f4"),
    "winograd_out": ("f4", "f4", None, None, REAL, REAL, "i2", "f4"),
    "synthesis": ("f4", "u2", "?", "f4", "f4", "f4", "f4", "?", None, None, "f4", "f4"),
    "unrotate": ("f4", "f4", "f4", "f4", None, None, "u2"),
    "rs_encode": ("u1", "u1", None, None, None, None),
    "rs_decode": ("u1", "u1", None, None, None, None, "i1"),
    "viterbi": ("u1", None, "u1", "u1"),
    "cloud_planes": ("u2", None, None, None, None, None, None, None, "u1"),
    "cloud_counts": ("i1", "f4", None, REAL, REAL, "i4", "?"),
    "flatten": ("i1", "f4", None, None, None, REAL, None, "u2", None, "u2", None, "u1", "u2", "f4", "u2"),
    "cloud_network": ("u1", None, None, None, "i4", None, "i4", "i1", "i4", "i4", "i4", "u1", "i1"),
    "formula": ("i8", None, "u2", None, None, None, None, None, None, "u1", "?"),
    "masked_sum": ("u2", None, None, None, None, None, "?", "i8"),
    "window_sums": ("u2", None, None, None, None, None, "?", None, "i4", "i4"),
    "multiply": ("i2", "f4", "i2", "f4", None, None, None, None, None, "f4"),
    "agreement": ("u2", "u2", "?", None, None, None, "i4", "i8", "i8", "i8", "i8", "f8", "i8", "i8"),
    "noise": ("u4", "f4", None, None, None, None, None, "f4", "f4"),
    "smoothstep": ("f4", REAL, REAL, None, "f4"),
    "nearest": ("f4", "f4", "f4", "f4", "f4", REAL, None, None, None, "i4"),
    "blend": ("f4", "f4", "f4", None, None, "f4"),
    "parcels": ("f4", "f4", "u4", "f4", "u4", None, "u4", "f4"),
    "sense": ("f4", "u8", REAL, REAL, None, "u2"),
    "near": ("?", None, None, "i4", None, "i4", "?"),
    "open_mixture": ("u1", None),
    "similarity": ("u2", "u2", "?", "f8", None, None, "f8", "f8", "f8"),
}
#: Entries with structures of their own, which the encoder and the decoder hand over, and those that take no array.
OTHERS = {"encode", "heads", "decode", "encode_dense", "decode_dense", "plain_only", "scratch_octets", "dense_octets",
          "mixture_octets", "unlike", "take_loops"}  # fmt: skip


def entry_case(rng: Rng, compare: bool) -> str:
    """An entry of the kernel with numbers and arrays of any length: it refuses, or keeps within them."""
    entry = str(rng.choice(list(ENTRIES)))
    arguments: list[Any] = []
    for dtype in ENTRIES[entry]:
        if dtype == REAL:
            arguments.append(ctypes.c_float(float(rng.choice([-1.0, 0.0, 0.5, 4096.0, np.inf, np.nan]))))
            continue
        if dtype is None:
            arguments.append(int(rng.choice(NUMBERS)) if rng.random() < 0.2 else int(rng.choice([1, 2, 3, 8, 16, 64])))
            continue
        count = int(rng.choice([0, 1, 64, 256, 4096, 65536])) if rng.random() < 0.2 else 65536
        array = np.frombuffer(rng.bytes(count * np.dtype(dtype).itemsize), dtype).copy()
        arguments.append(library.span(array.view("u1").view("?") if dtype == "?" else array, np.dtype(dtype)))
    return outcome_of(entry, arguments)


CASES: dict[str, Callable[[Rng, bool], str]] = {"decode": decode_case, "encode": encode_case, "entry": entry_case}
