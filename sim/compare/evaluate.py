"""Tiles -> rate-distortion curves of every codec, in one run: the bench behind `sim evaluate`.

Each codec codes each tile at each of its settings, from coarse to fine, until the tile costs more than CR 20 and shows
more than 46.5 dB. Every picture is decoded again from the octets alone and measured by sim/metrics/distortion.py. The
seconds are those of one thread, measured beside each other on the same pixels.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from payload.bundle import Bundle, load_bundle
from payload.link import tile_code
from payload.link.space_packet import Reassembler, SequenceCounter, read_packets, segment
from payload.policy import Policy
from payload.scene import RGBN, Dn
from payload.tiles import Tile
from sim.compare.classical import LOSSLESS, Codec, geometric, missing_programs, open_codecs
from sim.compare.report import document
from sim.compare.summary import Row
from sim.compare.tiles import BenchTile, read_tiles
from sim.metrics import thematic
from sim.metrics.bd_rate import CR_FINE
from sim.metrics.distortion import psnr_db, rate_figures, tile_figures

FINE_PSNR_DB = 46.5  # curves reach past the last constant-quality point of the table (46 dB)
COARSEST_CR = 4000.0  # settings that cost less than this on a tile are passed over: header and nothing else
NADIR_STEPS_DN = geometric(8192, 16, 21)

#: Told of each finished tile of a codec, with how many there will be.
Advance = Callable[[str, int], None]


# --- the learned codec behind the opponents' face --------------------------------------------------------------------


class TilePayload(Protocol):
    """What flies, as far as the bench needs it: payload.pipeline.Payload."""

    policy: Policy

    def encode_tile(self, tile: Tile) -> tile_code.TileCode: ...


class TileDecoder(Protocol):
    """What decodes on the ground, as far as the bench needs it: sim.ground.decoder.Decoder."""

    def decode_tile(self, code: tile_code.TileCode) -> Dn: ...


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
        return b"".join(segment(tile_code.pack(code), SequenceCounter(policy.apid), policy.packet_octets))

    def decode(self, octets: bytes) -> Dn:
        reassembler = Reassembler()
        assemblies = [a for packet in read_packets(octets) for a in reassembler.push(packet)]
        (whole,) = assemblies + reassembler.finish()
        return self.decoder.decode_tile(tile_code.unpack(whole.data))


def open_bundle(bundle: Bundle, engine_name: str = "openvino") -> NadirCodec:
    """The learned codec of a bundle, on one thread, without its cloud gate: the bench compares coding alone."""
    from payload.engine import open_engine
    from payload.pipeline import Payload
    from sim.ground.decoder import Decoder

    engine = open_engine(engine_name, 1)
    payload = Payload(bundle, Policy(), engine)
    payload.clouds = None
    note = f"bundle {bundle.name} ({bundle.bundle_id:08x}), {engine_name}, {NadirCodec.note}"
    settings = NadirCodec.settings if payload.codec.follows_quality else (payload.policy.step_dn,)
    return NadirCodec(payload, Decoder(bundle, engine), f"nadir-{bundle.name}", settings, note)


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


def evaluate(
    paths: Sequence[Path],
    bundle: str,
    against: Sequence[str],
    limit: int | None = None,
    engine: str = "openvino",
    advance: Advance = lambda *_: None,
) -> dict[str, Any]:
    """The whole bench: what rd.json holds. `bundle` "none" runs the opponents alone."""
    codecs, absent = open_opponents(against)
    if bundle != "none":
        codecs = [open_bundle(load_bundle(bundle), engine), *codecs]
    tiles = read_tiles(paths, limit=limit)
    rows = measure(tiles, codecs, advance)
    return document(rows, tiles, codecs, absent, paths)


def measure(tiles: Sequence[BenchTile], codecs: Sequence[Codec], advance: Advance = lambda *_: None) -> list[Row]:
    """A row for every tile, codec and setting that counts; `advance` is told of every finished tile of a codec."""
    for codec in codecs:
        codec.decode(codec.encode(tiles[0].dn, codec.settings[-1]))  # first calls load libraries: not timed
    rows: list[Row] = []
    for tile in tiles:
        classified = thematic.reference(tile.dn, np.ones(tile.dn.shape[1:], dtype=bool))
        for codec in codecs:
            rows += _curve(tile, codec, classified)
            advance(codec.name, len(tiles) * len(codecs))
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
