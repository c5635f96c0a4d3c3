"""Tiles -> rate-distortion curves of every codec, in one run: the bench behind `sim evaluate`.

Each codec codes each tile at each of its settings, from coarse to fine, until the tile costs more than CR 20 and shows
more than 46.5 dB. Every picture is decoded again from the octets alone and measured by sim/metrics/distortion.py. The
seconds are processor time of one thread, on the same pixels.
"""

import resource
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from payload.errors import InputError
from payload.policy import Profile
from payload.sensor import SENTINEL2_RGBN, Sensor
from sim.compare.classical import (
    LOSSLESS,
    Ccsds121,
    Codec,
    Jpeg2000Lossless,
    JpegLs,
    JpegXl,
    missing,
    open_codecs,
)
from sim.compare.nadir_codec import NadirCodec, open_bundles
from sim.compare.report import document
from sim.compare.summary import Row
from sim.compare.tiles import TILE_PX, BenchTile, read_tiles
from sim.ground.decoder import FAST, FULL
from sim.metrics import thematic
from sim.metrics.bd_rate import CR_FINE
from sim.metrics.distortion import psnr_db, rate_figures, tile_figures
from sim.scenes.radiometry import AS_STORED, Reading

FINE_PSNR_DB = 46.5  # curves reach past the last constant-quality point of the table (46 dB)
COARSEST_CR = 4000.0  # settings that cost less than this on a tile are passed over: header and nothing else

#: Flight standards that nothing here runs.
NOT_HERE = {
    "ccsds122": "absent: no open implementation is among the packages this project installs",
    "ccsds123": "absent: no open implementation is among the packages this project installs",
}
CLASSICAL = ("jpeg2000", "jpegxl", "htj2k", "ccsds121", *NOT_HERE)
SPECTRAL = ("klt-jpeg2000-joint", "klt-diff-jpeg2000-joint", "klt-jpeg2000")
#: Of four bands, where the extra `opponents` is installed.
VIDEO = ("klt-hevc", "klt-av1", "klt-vvc")

#: Told of each finished tile of a codec, with how many there will be.
Advance = Callable[[str, int], None]


def opponents_of(sensor: Sensor) -> tuple[str, ...]:
    """The opponents that a sensor's kind calls for. One band leaves nothing to a KLT; of more than four, codecs of
    several bands show what one codestream gains without one, and video coders take no such pictures."""
    bands = len(sensor.bands)
    if bands == 1:
        return (*CLASSICAL, "jpeg")
    return (*SPECTRAL, *CLASSICAL, "jpeg", *VIDEO) if bands <= 4 else (*SPECTRAL, "jpeg2000-joint", *CLASSICAL)


def open_opponents(names: Sequence[str]) -> tuple[list[Codec], dict[str, str]]:
    """The codecs that can run here, and for each that cannot, why."""
    codecs: list[Codec] = []
    absent: dict[str, str] = {}
    for name in dict.fromkeys(names):
        if name in NOT_HERE:
            absent[name] = NOT_HERE[name]
            continue
        opened, wanted = open_codecs(name), missing(name)
        if wanted is not None:
            absent[name] = f"absent: {wanted} is not installed on this machine"
        else:
            codecs += opened
    return codecs, absent


def evaluate(
    paths: Sequence[Path],
    bundles: Sequence[str],
    against: Sequence[str] | None,
    limit: int | None = None,
    engine: str = "openvino",
    advance: Advance = lambda *_: None,
    picture_px: int | None = None,
    reading: Reading = AS_STORED,
    decoders: Sequence[str] = (FULL,),
    profiles: Sequence[Profile] = ("fast",),
) -> dict[str, Any]:
    """The whole bench: what rd.json holds. Without bundles the opponents run alone. `picture_px`: opponents code
    pictures of that side whole, bundles cut them into their tiles; None: pictures of one tile. `reading` of rasters; a
    row of figures for each of the `profiles` and `decoders`. `against` None: the opponents of the sensor's kind."""
    ours: list[NadirCodec] = []
    tile_px, sensor = TILE_PX, SENTINEL2_RGBN
    if bundles:
        ours, tile_px, sensor = open_bundles(bundles, engine, decoders, profiles)
    opponents, absent = open_opponents(opponents_of(sensor) if against is None else against)
    codecs = [*ours, *opponents]
    if not codecs:
        raise InputError("no codec to run: give --bundle, or opponents that are installed to --against")
    side_px = picture_px or tile_px
    if bundles and side_px % tile_px:
        raise InputError(f"--picture-px is {side_px}, wanted a multiple of the bundle's tiles of {tile_px} px")
    tiles = read_tiles(paths, side_px, limit, reading, sensor)
    rows = measure(tiles, codecs, advance)
    sizes = {codec.name: dict(codec.decoder_size) for codec in ours if codec.decoder_size}
    return document(rows, tiles, codecs, absent, paths) | {"decoders": sizes}


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


def processor_s() -> float:
    """Processor time so far of this process and of those it ran, in seconds: a busy host does not lengthen it."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def _curve(tile: BenchTile, codec: Codec, classified: thematic.Reference | None) -> Iterator[Row]:
    fine_enough, at_cr_fine = False, False
    finer: tuple[float, ...] = getattr(codec, "finer", ())
    for setting in (*codec.settings, *finer):
        if (fine_enough and setting != LOSSLESS) or (at_cr_fine and setting in finer):
            continue
        start = processor_s()
        octets = codec.encode(tile.dn, setting)
        encoded = processor_s()
        reconstruction = codec.decode(octets)
        decoded = processor_s()
        rate = rate_figures(len(octets), tile.dn[0].size, len(tile.dn), tile.sensor.bits)
        quality_db = psnr_db(float(np.mean((tile.dn.astype(np.float64) - reconstruction) ** 2)))
        at_cr_fine |= rate["cr16"] < CR_FINE
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
            **tile_figures(tile.dn, reconstruction, valid, tile.sensor, classified),
            "encode_s": encoded - start,
            "decode_s": decoded - encoded,
        }


def within_bounds(
    paths: Sequence[Path], bundle: str, bounds_dn: Sequence[int], limit: int | None = None,
    engine: str = "openvino", advance: Advance = lambda *_: None, reading: Reading = AS_STORED,
) -> dict[str, Any]:  # fmt: skip
    """A bundle beside the lossless and near-lossless codecs: a row for every codec and bound, means over tiles."""
    (ours,), tile_px, bands = open_bundles([bundle], engine, (FAST,))
    tiles, bounded = read_tiles(paths, tile_px, limit, reading, bands), replace(ours, bounded=True)
    pairs = [(c, d) for d in bounds_dn for c in (bounded, *(_LOSSLESS if d == 0 else _NEAR_LOSSLESS))]
    tick = partial(advance, "bounds", len(pairs) * len(tiles))
    rows = [{"codec": codec.name, "bound_dn": d, **_within(codec, d, tiles, tick)} for codec, d in pairs]
    notes = {codec.name: codec.note for codec in (*_LOSSLESS, *_NEAR_LOSSLESS)}
    return {"schema": "nadir-bounds/1", "tiles": len(tiles), "tile_px": tile_px, "codecs": notes, "rows": rows}


_NEAR_LOSSLESS = (JpegLs(),)
_LOSSLESS = (Ccsds121(), JpegLs(), JpegXl(7), Jpeg2000Lossless())


def _within(codec: Codec, bound_dn: int, tiles: Sequence[BenchTile], tick: Callable[[], None]) -> dict[str, float]:
    octets, largest, start_s = 0, 0, processor_s()
    for tile in tiles:
        coded = codec.encode(tile.dn, bound_dn)
        error = np.abs(codec.decode(coded).astype(np.int64) - tile.dn)
        octets, largest = octets + len(coded), max(largest, int(error.max()))
        tick()
    samples = sum(tile.dn.size for tile in tiles)
    return {"bits_per_sample": 8 * octets / samples, "largest_error_dn": largest, "seconds": processor_s() - start_s}


def bounds_as_text(found: Mapping[str, Any]) -> str:
    """The table of `within_bounds`; seconds are of one processor, encoding and decoding together."""
    lines = [f"{'codec':<20}{'bound':>8}{'largest':>9}{'bit/sample':>12}{'s':>9}"]
    lines += [
        f"{row['codec']:<20}{row['bound_dn']:>5} DN{row['largest_error_dn']:>6} DN"
        f"{row['bits_per_sample']:>12.3f}{row['seconds']:>9.1f}"
        for row in found["rows"]
    ]
    return "\n".join(lines) + "\n"
