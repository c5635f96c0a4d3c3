"""Bundles whose tables lie while their hashes fit: made by the thousand, each refused or right.

Right means: what the kernel makes of a hostile tile is octet for octet what numpy makes of it, and decodes to what was
sent. `case(seed, folder)` is one bundle; it raises where neither holds.
"""

import io
import json
import math
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from toys import ToyEngine, dct_kernels, random_tables, write_bundle

from payload.bundle import Bundle, load_bundle
from payload.codec import rotation
from payload.codec.interface import Quality
from payload.codec.lapped import layers, tables, transform
from payload.codec.lapped.codec import FsqCodec
from payload.codec.lapped.many.groups import GroupsCodec
from payload.codec.lapped.power_law import compand
from payload.codec.lapped.quantiser import Indices, quantise
from payload.codec.registry import open_codec
from payload.codec.vq.codec import VqCodec
from payload.engine import NATIVE
from payload.errors import BundleError
from payload.stopwatch import Stopwatch
from payload.tiles import Tile

BANDS, SIDE = 2, 64
REFUSED, RIGHT = "refused", "right"
#: Asked for directly: to look for codecs that others have installed takes longer than all the rest of a case.
KINDS: dict[Any, Callable[..., Any]] = {"fsq": FsqCodec, "vq": VqCodec}
Arrays = dict[str, np.ndarray]
Mutation = Callable[[np.random.Generator, np.ndarray], Any]


class NativeToy(ToyEngine):
    """The kernel runs the transform; codebooks get latents of noise."""

    name = NATIVE

    def load(self, path: Path, require_int8: bool = False, shape: tuple[int, ...] | None = None) -> Any:
        return None if path.name != "encoder.onnx" else Noise()


class Noise:
    """In the place of a network in front of codebooks."""

    def run(self, *inputs: np.ndarray) -> list[np.ndarray]:
        rng = np.random.default_rng(int(inputs[0].size))
        return [rng.integers(-128, 128, (1, 3, SIDE // s, SIDE // s)).astype(np.int8) for s in (8, 4)]


@cache
def lapped_arrays(seed: int) -> Arrays:
    with tempfile.TemporaryDirectory() as folder:
        path = random_tables(Path(folder) / "t.npz", BANDS, 3, seed)
        return dict(np.load(path)) | {"kernels": dct_kernels().astype(np.int8), "exponents": np.full(64, 8, np.int8)}


def vq_arrays(rng: np.random.Generator) -> Arrays:
    books = {f"book{k}": rng.integers(-128, 128, (16, 3)).astype(np.int8) for k in range(2)}
    edges = {"mean_dn": np.array([900.0, 2000.0], np.float32), "scale_dn": np.array([9.0, 20.0], np.float32)}
    return books | edges | {"strides": np.array([8, 4], np.int32)}


def odd_number(rng: np.random.Generator) -> Any:
    powers = (7, 8, 15, 16, 24, 31, 32, 62)
    whole = [s * (2 ** int(rng.choice(powers)) + int(rng.integers(-1, 2))) for s in (1, -1)]
    return [*whole, 0, 1, -1, math.nan, math.inf, -math.inf, 1e308, 0.5][int(rng.integers(10))]


def one_value(rng: np.random.Generator, array: np.ndarray) -> np.ndarray:
    found = array.astype(rng.choice(["i8", "f8", "f4", "i2"])) if rng.random() < 0.5 else array.copy()
    with np.errstate(all="ignore"):
        value = np.array(odd_number(rng)).astype(found.dtype)
    found.reshape(-1)[rng.integers(found.size)] = value
    return found


def nudge(rng: np.random.Generator, array: np.ndarray) -> np.ndarray:
    found = array.copy()
    found.reshape(-1)[rng.integers(found.size)] += np.array(rng.choice([-1, 1])).astype(found.dtype)
    return found


def moved(rng: np.random.Generator, array: np.ndarray) -> np.ndarray:
    """Two values changed so that their sum stays."""
    found = array.astype(np.int64)
    a, b = rng.integers(found.size, size=2)
    by = int(rng.integers(1, 1 << 20))
    found.reshape(-1)[a] += by
    found.reshape(-1)[b] -= by
    return found


def noise(rng: np.random.Generator, array: np.ndarray) -> np.ndarray:
    return np.frombuffer(rng.bytes(array.nbytes), array.dtype).reshape(array.shape)


MUTATIONS: tuple[Mutation, ...] = (
    one_value, one_value, nudge, nudge, moved, noise,
    lambda rng, a: None,
    lambda rng, a: np.atleast_1d(a)[:0], lambda rng, a: np.atleast_1d(a)[:1], lambda rng, a: a.reshape(-1)[:-1],
    lambda rng, a: a[None], lambda rng, a: a.reshape(-1), lambda rng, a: a.T,
    lambda rng, a: np.repeat(np.atleast_1d(a), 2, axis=0),
    lambda rng, a: np.zeros_like(a), lambda rng, a: np.full_like(a, np.iinfo(np.int8).max),
    lambda rng, a: rng.permutation(a.reshape(-1)).reshape(a.shape), lambda rng, a: np.flip(a),
    lambda rng, a: a * rng.choice([-1, 2, 16, 1000]),
    lambda rng, a: a.astype(rng.choice(["f8", "i8", "u1", "c8", "?", "S3", ">i4"])),
    lambda rng, a: np.array([{"an": "object"}], object),
)  # fmt: skip


def mutated(rng: np.random.Generator, arrays: Arrays) -> Arrays:
    found = dict(arrays)
    for name in rng.choice(sorted(arrays), int(rng.choice([1, 1, 2]))):
        with np.errstate(all="ignore"):
            change = MUTATIONS[rng.integers(len(MUTATIONS))](rng, arrays[name])
        found.pop(name, None) if change is None else found.update({name: change})
    return found


def damaged_octets(rng: np.random.Generator, octets: bytes) -> bytes:
    found = bytearray(octets)
    for at in rng.integers(len(found), size=int(rng.choice([1, 3, 30]))):
        found[at] ^= 1 << rng.integers(8)
    return bytes(found[: rng.integers(len(found))] if rng.random() < 0.2 else found)


def damaged_manifest(rng: np.random.Generator, manifest: dict[str, Any]) -> dict[str, Any]:
    odd = [odd_number(rng), "0.8", None, True, [0.8], {}, 10**4000, 0.8]
    value = odd[rng.integers(len(odd))]
    key = rng.choice(["compand", "coarsest_step_dn", "layers", "kind", "bands", "tile_px"])
    if key in ("bands", "tile_px"):
        bands = ["B02"] * int(rng.choice([0, 1, 3, 17]))
        return manifest | {key: [value, bands, 128, 4096][rng.integers(4)]}
    return manifest | {"codec": manifest["codec"] | {str(key): value}}


def write_damaged(rng: np.random.Generator, folder: Path) -> Path:
    kind = "vq" if rng.random() < 0.25 else "fsq"
    arrays = vq_arrays(rng) if kind == "vq" else lapped_arrays(int(rng.integers(4)))
    how = rng.choice(["arrays", "octets", "manifest"], p=[0.75, 0.1, 0.15])
    packed = io.BytesIO()
    np.savez(packed, **(mutated(rng, arrays) if how == "arrays" else arrays))  # type: ignore[arg-type]
    octets = damaged_octets(rng, packed.getvalue()) if how == "octets" else packed.getvalue()
    files = {"flight/tables.npz": octets, "flight/encoder.onnx": b"toy"}
    layer_count = 2 if kind == "vq" else 3
    write_bundle(folder, files, bands=["B02", "B08"], tile_px=SIDE, codec={"kind": kind, "layers": layer_count})
    if how == "manifest":
        path = folder / "manifest.json"
        path.write_text(json.dumps(damaged_manifest(rng, json.loads(path.read_text()))))
    return folder


def case(seed: int, folder: Path) -> str:
    """One damaged bundle, written to `folder`: REFUSED with one line, or RIGHT; anything else raises."""
    rng = np.random.default_rng(seed)
    write_damaged(rng, folder)
    try:
        bundle = load_bundle(folder)
        codec = KINDS.get(str(bundle.codec.get("kind")), open_codec)(bundle, NativeToy())
        if isinstance(codec, FsqCodec):
            lapped_is_right(bundle, codec, rng)
        elif isinstance(codec, VqCodec):
            vq_is_right(bundle, codec, rng)
        return RIGHT
    except BundleError as error:
        if "\n" in str(error) or len(str(error)) > 600:
            raise AssertionError(f"seed {seed}: no single line: {error}") from error
        return REFUSED


def damaged_grids(rng: np.random.Generator, manifest: dict[str, Any]) -> dict[str, Any]:
    """What says which bands lie on which grid, damaged."""
    odd = [odd_number(rng), "20m", None, True, [], {}, -10.0, 30.0]
    value, place = odd[rng.integers(len(odd))], int(rng.integers(len(manifest["bands"])))
    sensor, codec = json.loads(json.dumps(manifest["sensor"])), json.loads(json.dumps(manifest["codec"]))
    how = int(rng.integers(6))
    if how == 0:
        sensor["bands"][place][str(rng.choice(["gsd_m", "name", "group"]))] = value
    if how == 1:
        sensor["groups"] = [value, {"10m": value}, [{"name": value, "bands": ["B02"]}]][rng.integers(3)]
    if how == 2:
        codec["groups"] = [value, {"10m": codec["groups"]["10m"]}, {"10m": value, "20m": value}][rng.integers(3)]
    if how == 3:
        codec["groups"]["20m"][str(rng.choice(["kind", "layers", "compand", "coarsest_step_dn"]))] = value
    if how == 4:
        return manifest | {"tile_px": [value, 64, 96, 8192][rng.integers(4)]}
    return manifest | {"sensor": sensor, "codec": codec}


def write_damaged_grids(rng: np.random.Generator, folder: Path) -> None:
    """A bundle of bands at 10 m and at 20 m: tables of one of them lie, or what says which is which."""
    bands = [("B02", 10.0), ("B05", 20.0), ("B08", 10.0), ("B11", 20.0)]
    files, hit, how = {}, int(rng.integers(2)), rng.choice(["arrays", "manifest"])
    for number, name in enumerate(("10m", "20m")):
        arrays, packed = lapped_arrays(int(rng.integers(4))), io.BytesIO()
        arrays = mutated(rng, arrays) if how == "arrays" and number == hit else arrays
        np.savez(packed, **arrays)  # type: ignore[arg-type]
        files |= {f"flight/{name}/tables.npz": packed.getvalue(), f"flight/{name}/encoder.onnx": b"toy"}
    listed = [{"name": name, "gsd_m": gsd_m} for name, gsd_m in bands]
    own = {"kind": "fsq", "layers": 3}
    write_bundle(
        folder, files, bands=[name for name, _ in bands], tile_px=2 * SIDE,
        sensor={"name": "two grids", "kind": "optical", "bits": 12, "bands": listed},
        codec={"kind": "fsq-groups", "layers": 3, "groups": {"10m": own, "20m": dict(own)}},
    )  # fmt: skip
    if how == "manifest":
        path = folder / "manifest.json"
        path.write_text(json.dumps(damaged_grids(rng, json.loads(path.read_text()))))


def grids_case(seed: int, folder: Path) -> str:
    """As `case`, of a bundle of two grids: RIGHT where every group reads back what a codec of its own would make of it.
    """
    rng = np.random.default_rng(seed)
    write_damaged_grids(rng, folder)
    try:
        bundle = load_bundle(folder)
        codec = open_codec(bundle, NativeToy())
        if isinstance(codec, GroupsCodec) and bundle.tile_px <= 4 * SIDE:
            tile = tile_of(bundle, rng)
            coded = codec.encode(tile, Quality(step_dn=30.0), Stopwatch())
            for part, own in zip(codec._parts, codec.decode(coded.side, coded.layers), strict=True):
                alone = part.codec.encode(part.of(tile), Quality(step_dn=30.0), Stopwatch())
                assert equal(own[1], part.codec.decode(alone.side, alone.layers)[1]), f"seed {seed}: another picture"
        return RIGHT
    except BundleError as error:
        if "\n" in str(error) or len(str(error)) > 600:
            raise AssertionError(f"seed {seed}: no single line: {error}") from error
        return REFUSED


def tile_of(bundle: Bundle, rng: np.random.Generator) -> Tile:
    shape = (len(bundle.bands), bundle.tile_px, bundle.tile_px)
    dn = rng.integers(0, 1 << int(rng.integers(1, 17)), shape).astype(np.uint16)
    return Tile(0, 0, dn, np.ones(shape[1:], bool))


def equal(a: Indices, b: Indices) -> bool:
    return np.array_equal(a.magnitude, b.magnitude) and np.array_equal(a.negative, b.negative)


def lapped_is_right(bundle: Bundle, codec: FsqCodec, rng: np.random.Generator) -> None:
    """The codec in C, stage by stage beside the definition in numpy, at the tile's own rotation."""
    if bundle.tile_px > 2 * SIDE:
        return  # opened; too slow in numpy
    tile = tile_of(bundle, rng)
    coded = codec.encode(tile, Quality(step_dn=float(rng.choice([1.0, 30.0, 4000.0]))), Stopwatch())
    (turned, index), found = codec.decode(coded.side, coded.layers)
    path = bundle.file("flight/tables.npz")
    model, kernels = tables.load_tables(path), tables.load_kernels(path)
    if kernels is None:
        raise BundleError("no kernels: engine native has nothing to run")
    values = compand(tile.dn, float(bundle.codec.get("compand", 1.0)))
    rotated = rotation.rotate(values, tile.valid, turned)
    latents = transform.with_second_level(sums_of(rotated, kernels))
    indices = quantise(latents, index, found.missing)  # what stays unsent counts in what a magnitude of one is worth
    plain = layers.Plain(model, bundle.tile_px // 8)
    assert plain.encode_layers(indices, len(coded.layers)) == coded.layers, "C and numpy encode differently"
    assert equal(found, plain.decode_layers(coded.layers)), "C and numpy decode differently"
    kept = found.magnitude > 0
    sent = (indices.magnitude >> found.missing)[kept]
    assert np.array_equal(found.magnitude[kept], sent), "decoded is not what was sent"


def sums_of(rotated: np.ndarray, kernels: tables.Kernels) -> np.ndarray:
    """The transform by its definition: every function over every 16 x 16 window of the mirrored tile."""
    wide = np.pad(rotated.astype(np.int64), ((0, 0), (4, 4), (4, 4)), mode="symmetric")
    windows = np.lib.stride_tricks.sliding_window_view(wide, (16, 16), axis=(1, 2))[:, ::8, ::8]
    sums = np.tensordot(windows, kernels.values.astype(np.int64), ((3, 4), (1, 2)))  # [B, n, n, 64]
    return (sums.transpose(0, 3, 1, 2) << (8 - kernels.exponents.astype(np.int64))[:, None, None]).astype(np.int32)


def vq_is_right(bundle: Bundle, codec: VqCodec, rng: np.random.Generator) -> None:
    coded = codec.encode(tile_of(bundle, rng), Quality(), Stopwatch())
    found = codec.decode(b"", coded.layers)
    assert len(found) == len(coded.layers)
    assert all(i.max() < 16 * 2 for i in found)
