"""Tiles -> rate-distortion curves of every codec, in one run: the bench behind `sim evaluate`.

Each codec codes each tile at each of its settings, from coarse to fine, until the tile costs more than CR 20 and shows
more than 46.5 dB. Every picture is decoded again from the octets alone and measured by sim/quality.py. The seconds are
those of one thread, measured beside each other on the same pixels.
"""

import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from payload import bitstream
from payload.bundle import Bundle
from payload.errors import InputError
from payload.packets import Reassembler, SequenceCounter, read_packets, segment
from payload.policy import Policy
from payload.scene import RGBN, Dn
from payload.tiles import Tile, split
from sim import thematic
from sim.bdrate import CR_FINE
from sim.classical import LOSSLESS, Codec, geometric, missing_programs, open_codecs
from sim.quality import psnr_db, rate_figures, tile_figures

TILE_PX = 256
SENSOR_BITS = 12  # of Sentinel-2's MSI; what an .npz of tiles is taken to hold
FINE_PSNR_DB = 46.5  # curves reach past the last constant-quality point of the table (46 dB)
COARSEST_CR = 4000.0  # settings that cost less than this on a tile are passed over: header and nothing else
NADIR_STEPS_DN = geometric(4096, 16, 19)

Row = dict[str, Any]
Advance = Callable[[str], None]


@dataclass(frozen=True, eq=False)
class BenchTile:
    """One tile to be coded; all of its pixels are valid."""

    name: str
    dn: Dn  # [4, T, T], B02 B03 B04 B08
    sensor_bits: int = SENSOR_BITS


def read_tiles(paths: Sequence[Path], tile_px: int = TILE_PX, limit: int | None = None) -> list[BenchTile]:
    """The tiles of .npz files (`x` [N, B, H, W] uint16, `bands`) and of rasters, cut from the top left.

    What does not fill a tile, and tiles with invalid pixels, are left out: a rate needs real pixels under it.
    """
    if not paths:
        raise InputError("--tiles names no file, wanted an .npz of tiles or one or more GeoTIFFs")
    tiles: list[BenchTile] = []
    for path in paths:
        tiles += _npz_tiles(path, tile_px) if path.suffix == ".npz" else _raster_tiles(path, tile_px)
    if not tiles:
        raise InputError(f"{paths[0]}: no whole tile of {tile_px} x {tile_px} valid pixels; give larger pictures")
    return tiles[:limit]


def _npz_tiles(path: Path, tile_px: int) -> Iterator[BenchTile]:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            missing = [name for name in ("x", "bands") if name not in arrays]
            if missing:
                raise InputError(f"{path}: no array {' and no array '.join(missing)}, wanted x [N,B,H,W] and bands")
            x, bands = arrays["x"], [str(band) for band in arrays["bands"]]
            names = (
                [str(n) for n in arrays["names"]] if "names" in arrays else [f"{path.stem}_{i}" for i in range(len(x))]
            )
    except (OSError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"{path}: not readable as an .npz of plain arrays ({error}); write it with numpy.savez"
        ) from None
    if x.ndim != 4 or x.dtype != np.uint16 or x.shape[1] != len(bands):
        got = f"x is {x.dtype} {list(x.shape)} with {len(bands)} band names"
        raise InputError(f"{path}: {got}, wanted uint16 [N, B, H, W] and B names; store DN = reflectance x 10 000")
    absent = [band for band in RGBN if band not in bands]
    if absent:
        raise InputError(f"{path}: bands are {', '.join(bands)}; {', '.join(absent)} missing, wanted RGB and NIR")
    chosen = x[:, [bands.index(band) for band in RGBN]]
    for name, picture in zip(names, chosen, strict=True):
        yield from _cut(name, picture, tile_px)


def _cut(name: str, picture: Dn, tile_px: int) -> Iterator[BenchTile]:
    rows, cols = picture.shape[1] // tile_px, picture.shape[2] // tile_px
    for row in range(rows):
        for col in range(cols):
            square = picture[:, row * tile_px : (row + 1) * tile_px, col * tile_px : (col + 1) * tile_px]
            label = name if rows * cols == 1 else f"{name}_r{row}c{col}"
            yield BenchTile(label, np.ascontiguousarray(square))


def _raster_tiles(path: Path, tile_px: int) -> Iterator[BenchTile]:
    from sim.scenes import open_scene

    with open_scene(str(path)) as scene:
        info = scene.info
        for tile in split(scene, tile_px):
            if tile.valid.all():  # tiles that stick out of the scene are padded, hence not valid
                yield BenchTile(f"{path.stem}_r{tile.row}c{tile.col}", tile.dn, info.bits)


def digest(path: Path) -> str | None:
    """sha256 of a file, so that a result names its input; None for a product that is a directory."""
    if path.is_dir():
        return None
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# --- the learned codec behind the opponents' face --------------------------------------------------------------------


class TilePayload(Protocol):
    """What flies, as far as the bench needs it: payload.pipeline.Payload."""

    policy: Policy

    def encode_tile(self, tile: Tile) -> bitstream.TileCode: ...


class TileDecoder(Protocol):
    """What decodes on the ground, as far as the bench needs it: sim.ground.Decoder."""

    def decode_tile(self, code: bitstream.TileCode) -> Dn: ...


@dataclass(frozen=True, eq=False)
class NadirCodec:
    """A bundle. Its octets are the space packets as sent: packet headers, CRCs, tile header and bundle id included."""

    payload: TilePayload
    decoder: TileDecoder
    name: str = "nadir"
    settings: tuple[float, ...] = NADIR_STEPS_DN
    note: str = "learned codec, whole space packets as sent; setting = finest quantiser step in DN"

    def encode(self, dn: Dn, setting: float) -> bytes:
        self.payload.policy = replace(self.payload.policy, step_dn=setting)
        code = self.payload.encode_tile(Tile(0, 0, dn, np.ones(dn.shape[1:], dtype=bool)))
        policy = self.payload.policy
        return b"".join(segment(bitstream.pack(code), SequenceCounter(policy.apid), policy.packet_octets))

    def decode(self, octets: bytes) -> Dn:
        reassembler = Reassembler()
        assemblies = [a for packet in read_packets(octets) for a in reassembler.push(packet)]
        return self.decoder.decode_tile(bitstream.unpack(assemblies[0].data))


def open_bundle(bundle: Bundle, engine_name: str = "openvino") -> NadirCodec:
    """The learned codec of a bundle, on one thread, without its cloud gate: the bench compares coding alone."""
    from payload.engine import open_engine
    from payload.pipeline import Payload
    from sim.ground import Decoder

    engine = open_engine(engine_name, 1)
    payload = Payload(bundle, Policy(), engine)
    payload.clouds = None
    note = f"bundle {bundle.name} ({bundle.bundle_id:08x}), {engine_name}, {NadirCodec.note}"
    return NadirCodec(payload, Decoder(bundle, engine), f"nadir-{bundle.name}", note=note)


def open_opponents(names: Sequence[str]) -> tuple[list[Codec], dict[str, str]]:
    """The codecs that can run here, and for each that cannot, why."""
    codecs: list[Codec] = []
    absent: dict[str, str] = {}
    for name in dict.fromkeys(names):
        opened, missing = open_codecs(name), missing_programs(name)
        if missing:
            absent[name] = f"absent: {' and '.join(missing)} not installed on this machine"
        else:
            codecs += opened
    return codecs, absent


# --- the bench -------------------------------------------------------------------------------------------------------


def measure(tiles: Sequence[BenchTile], codecs: Sequence[Codec], advance: Advance = lambda _: None) -> list[Row]:
    """A row for every tile, codec and setting that counts; `advance` is told of every finished tile of a codec."""
    for codec in codecs:
        codec.decode(codec.encode(tiles[0].dn, codec.settings[-1]))  # first calls load libraries: not timed
    rows: list[Row] = []
    for tile in tiles:
        classified = thematic.reference(tile.dn, np.ones(tile.dn.shape[1:], dtype=bool))
        for codec in codecs:
            rows += _curve(tile, codec, classified)
            advance(codec.name)
    return rows


def _curve(tile: BenchTile, codec: Codec, classified: thematic.Reference | None) -> Iterator[Row]:
    fine_enough = False
    for setting in codec.settings:
        if fine_enough and setting != LOSSLESS:
            continue
        start = time.perf_counter()
        octets = codec.encode(tile.dn, setting)
        encoded = time.perf_counter()
        reconstruction = codec.decode(octets)
        decoded = time.perf_counter()
        rate = rate_figures(len(octets), tile.dn[0].size, len(tile.dn), tile.sensor_bits)
        quality_db = psnr_db(float(np.mean((tile.dn.astype(np.float64) - reconstruction) ** 2)))
        fine_enough |= rate["cr16"] < CR_FINE and quality_db > FINE_PSNR_DB
        if rate["cr16"] > COARSEST_CR:
            continue
        valid = np.ones(tile.dn.shape[1:], dtype=bool)
        yield {
            "codec": codec.name,
            "tile": tile.name,
            "setting": setting,
            "octets": len(octets),
            **rate,
            **tile_figures(tile.dn, reconstruction, valid, RGBN, classified),
            "encode_s": encoded - start,
            "decode_s": decoded - encoded,
        }
