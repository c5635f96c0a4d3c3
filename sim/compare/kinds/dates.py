"""What older dates of a place are worth to a decoder: tiles of places at several dates, each aided by the others.

Tiles are named PLACE_DATE: what stands before the last underscore tells places apart. Every tile is coded at some
compression ratios and decoded plainly, aided by all other dates of its place, by the one behind it in the list, and,
for what a wrong archive does, by the same date of the next place.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from payload.bundle import Bundle
from payload.codec.interface import Codec, Quality, Refinable
from payload.codec.registry import open_codec
from payload.engine import Engine, Network
from payload.errors import InputError
from payload.link.space_packet import octets_on_air
from payload.link.tile_code import Kind, TileCode
from payload.scene import Dn
from payload.stopwatch import Stopwatch
from payload.tiles import Tile
from sim.aided.archive import Seen, require_refinable
from sim.aided.decoder import aided_tile
from sim.compare.tiles import BenchTile
from sim.ground.decoder import network_of
from sim.ground.residual_network import open_network
from sim.metrics.distortion import psnr_db
from sim.metrics.pixels import ndvi_errors, spectral_angle_deg
from sim.progress import Progress

PACKET_OCTETS = 1024
#: The finest and the coarsest step tried, DN, and how often the range is halved.
STEPS_DN, HALVINGS = (4.0, 4096.0), 9
ALL, ONE, WRONG = "all other dates", "the date before", "another place"
#: Place, date, and which part of a larger picture.
NAME = re.compile(r"(.+)_([^_]+?)(_r\d+c\d+)?")
FIGURES = ("psnr_db", "ndvi_mae", "sam_deg")


@dataclass(frozen=True, eq=False)
class _Ground:
    """Codec and network of one bundle, on both sides."""

    bundle: Bundle
    codec: Codec
    network: Network | None

    @classmethod
    def of(cls, bundle: Bundle, engine: Engine, decoder: str) -> "_Ground":
        require_refinable(bundle)
        codec = open_codec(bundle, engine)
        file = network_of(bundle, codec, decoder)
        return cls(bundle, codec, None if file is None else open_network(bundle.file(file), engine))


def evaluate_aided(
    tiles: Sequence[BenchTile], ratios: Sequence[float], bundle: Bundle, engine: Engine, decoder: str,
    progress: Progress,
) -> list[dict[str, Any]]:  # fmt: skip
    """A row for every tile, ratio and way of aiding. InputError where no place has several dates."""
    places: dict[str, list[BenchTile]] = {}
    for tile in tiles:
        places.setdefault(_place(tile), []).append(tile)
    if max(map(len, places.values()), default=0) < 2:
        raise InputError("no place has two dates, wanted tiles named PLACE_DATE with the same PLACE")
    ground = _Ground.of(bundle, engine, decoder)
    rows: list[dict[str, Any]] = []
    for tile in tiles:
        for ratio in ratios:
            rows += _rows(tile, _archives(tile, places), ratio, ground)
            progress("aided", len(tiles) * len(ratios))
    return rows


def _place(tile: BenchTile) -> str:
    found = NAME.fullmatch(tile.name)
    return tile.name if found is None else found[1] + (found[3] or "")


def _archives(tile: BenchTile, places: dict[str, list[BenchTile]]) -> dict[str, list[BenchTile]]:
    names = list(places)
    dates, following = places[_place(tile)], places[names[(names.index(_place(tile)) + 1) % len(names)]]
    at = dates.index(tile)
    found = {WRONG: [following[at % len(following)]]} if len(names) > 1 else {}
    return found if len(dates) < 2 else {ALL: [d for d in dates if d is not tile], ONE: [dates[at - 1]]} | found


def _rows(
    tile: BenchTile, archives: dict[str, list[BenchTile]], ratio: float, ground: _Ground
) -> Iterator[dict[str, Any]]:
    valid = np.ones(tile.dn.shape[1:], bool)
    code = _coded(tile, ratio, ground)
    decoded = ground.codec.decode(code.side, code.layers)
    plain = ground.codec.reconstruct(decoded, ground.network)
    coefficients = ground.codec.refining(ground.network) if isinstance(ground.codec, Refinable) else None
    if coefficients is None:
        raise InputError(f"bundle {ground.bundle.name} has no coefficients that an archive could refine")
    about = {"tile": tile.name, "cr": ratio, "cr16": 2 * tile.dn.size / _octets(code)}
    for way, dates in archives.items():
        seen = [Seen(date.name, date.dn, valid) for date in dates]
        dn, overruled = aided_tile(coefficients, decoded, plain, valid, seen)
        yield about | {"archive": way, "plain": _figures(tile, plain), "aided": _figures(tile, dn)} | {
            "followed_percent": float(overruled.trust.mean()), "overruled_percent": 100 * overruled.share,
        }  # fmt: skip


def _coded(tile: BenchTile, ratio: float, ground: _Ground) -> TileCode:
    """At the finest step tried that reaches the ratio."""
    low, high = np.log2(STEPS_DN)
    whole = Tile(0, 0, tile.dn, np.ones(tile.dn.shape[1:], bool))
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        if 2 * tile.dn.size / _octets(_code(whole, 2.0**middle, ground)) < ratio:
            low = middle
        else:
            high = middle
    return _code(whole, 2.0**high, ground)


def _code(tile: Tile, step_dn: float, ground: _Ground) -> TileCode:
    coded = ground.codec.encode(tile, Quality(step_dn), Stopwatch())
    return TileCode(Kind.CODED, 0, 0, ground.bundle.bundle_id, 0, coded.side, coded.layers)


def _octets(code: TileCode) -> int:
    return octets_on_air(code.head_octets(len(code.layers)) + sum(map(len, code.layers)), PACKET_OCTETS)


def _figures(tile: BenchTile, dn: Dn) -> dict[str, float]:
    error = float(((tile.dn.astype(np.float64) - dn) ** 2).mean())
    ndvi, angles = ndvi_errors(tile.sensor, tile.dn, dn), spectral_angle_deg(tile.dn, dn, -tile.sensor.lowest)
    return dict(zip(FIGURES, (psnr_db(error), _mean(ndvi), _mean(angles)), strict=True))


def _mean(values: Any) -> float:
    return float(np.mean(values)) if np.size(values) else float("nan")


def as_text(rows: Sequence[dict[str, Any]]) -> str:
    """A line for every ratio and way: means over the tiles, of the gain also the worst and the best tile."""
    lines = ["CR    archive          tiles  PSNR plain   gain dB (worst .. best)  lost  NDVI MAE         SAM deg"]
    for ratio in sorted({row["cr"] for row in rows}):
        for way in (ALL, ONE, WRONG):
            here = [row for row in rows if row["cr"] == ratio and row["archive"] == way]
            lines += [_line(ratio, way, here)] if here else []
    return "\n".join([*lines, ""])


def _line(ratio: float, way: str, rows: Sequence[dict[str, Any]]) -> str:
    plain, aided = (np.array([[r[kind][f] for f in FIGURES] for r in rows]) for kind in ("plain", "aided"))
    gain = (aided - plain)[:, 0]
    (psnr, ndvi, sam), (_, ndvi_aided, sam_aided) = plain.mean(axis=0), aided.mean(axis=0)
    spread = f"{gain.mean():+.2f} ({gain.min():+.2f} .. {gain.max():+.2f})"
    figures = f"{ndvi:.4f} {ndvi_aided:.4f}   {sam:.3f} {sam_aided:.3f}"
    return f"{ratio:<5g} {way:<16} {len(rows):>5}  {psnr:>7.2f}      {spread:<25}{int((gain < 0).sum()):>4}  {figures}"
