"""What waits on board as units: one layer of one tile of one take, in the order in which it is to be sent.

Classes, the first first: records of applications; alerts and scene headers; thumbnails of withheld tiles; regions of
interest; then everything else, by an order of payload/link/pass_filling.py. `coarse-first` has the coarsest layer of
every tile before a finer layer of any; the other two go by what a layer is worth per octet alone. docs/planning.md says
what that trades.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from payload.link.pass_filling import CutPoint, PassOrder, values_per_octet
from sim.planning.catalogue import Take
from sim.planning.table import TileTable

Order = PassOrder | Literal["fifo", "random"]
F64 = NDArray[np.float64]
I64 = NDArray[np.int64]
ANSWER, ALERT, THUMBNAIL, REGION, COARSE, FINE = range(6)
CLASSES = (
    "records of applications", "alerts and headers", "thumbnails", "regions of interest", "coarse layers",
    "fine layers",
)  # fmt: skip
RECORD = -1  # in place of a tile: a scene's headers, or its applications' records


@dataclass(frozen=True, eq=False)
class Units:
    """Arrays [U] in sending order. `octets` of one copy; `copies`: how many tiles of the take are like this one."""

    take: I64
    tile: I64  # in the table; RECORD for headers
    layer: I64
    octets: F64
    copies: I64
    kind: I64  # one of CLASSES

    @property
    def total_octets(self) -> float:
        return float((self.octets * self.copies).sum())


@dataclass(frozen=True, eq=False)
class Content:
    """A take's tiles: which of the table, and how many of each [K of its scene]."""

    tiles: I64
    copies: I64


def contents(takes: Sequence[Take], scenes: Sequence[int], tiles: Sequence[int], table: TileTable) -> list[Content]:
    """Spreads each take's number of tiles over the coded tiles of its scene, as evenly as whole numbers allow."""
    found = []
    for n, (scene, count) in enumerate(zip(scenes, tiles, strict=True)):
        kinds = table.tiles_of(scene)
        base, more = divmod(count, len(kinds))
        copies = np.full(len(kinds), base)
        copies[(np.arange(more) + n) % len(kinds)] += 1
        found.append(Content(kinds, copies))
    return found


def build(
    takes: Sequence[Take], found: Sequence[Content], scenes: Sequence[int], table: TileTable, gated: bool, order: Order,
    audit_count: int = 0, seed: int = 0,
) -> Units:  # fmt: skip
    """The units of every take, in order. `gated`: withheld tiles are not sent, but as thumbnails for the audit."""
    parts = [
        part
        for n, (take, content, scene) in enumerate(zip(takes, found, scenes, strict=True))
        for part in _of_take(n, take, content, scene, table, gated, audit_count)
    ]
    take, tile, layer, octets, copies, kind = (np.concatenate(column) for column in zip(*parts, strict=True))
    units = Units(take, tile, layer, octets, copies, kind)
    chosen = np.lexsort(_keys(units, takes, table, gated, order, seed)[::-1])
    return Units(*(np.ascontiguousarray(a[chosen]) for a in (take, tile, layer, octets, copies, kind)))


def _of_take(
    number: int, take: Take, content: Content, scene: int, table: TileTable, gated: bool, audit_count: int
) -> list[tuple[NDArray, ...]]:
    """(take, tile, layer, octets, copies, class) of one take."""
    parts = []
    if table.answer_octets is not None and table.answer_octets[scene]:
        parts.append(_rows(number, [RECORD], [0], [table.answer_octets[scene]], [1], [ANSWER]))
    if table.record_octets[scene]:
        parts.append(_rows(number, [RECORD], [0], [table.record_octets[scene]], [1], [ALERT]))
    octets = table.octets[content.tiles]  # [K, L]
    sent = (octets > 0) & (np.arange(table.layers) < table.keep[content.tiles][:, None]) if gated else octets > 0
    withheld = table.withheld[content.tiles] if gated else np.zeros(len(content.tiles), bool)
    k, layer = np.nonzero(sent & ~withheld[:, None] & (content.copies > 0)[:, None])
    kind = np.where(layer == 0, COARSE, FINE)
    kind = np.full(len(k), REGION) if take.priority > 0 else kind
    kind = np.where(layer == 0, ALERT, kind) if take.alert else kind
    parts.append(_rows(number, content.tiles[k], layer, octets[k, layer], content.copies[k], kind))
    drawn = np.flatnonzero(withheld & (content.copies > 0))
    if len(drawn) and audit_count:
        copies = np.minimum(content.copies[drawn], -(-audit_count // len(drawn)))
        whole = np.minimum(np.cumsum(copies), audit_count)
        copies = np.diff(whole, prepend=0)
        kept = copies > 0
        tiles = content.tiles[drawn][kept]
        parts.append(_rows(number, tiles, 0 * tiles, table.octets[tiles, 0], copies[kept], THUMBNAIL + 0 * tiles))
    return parts


def _rows(number: int, tile: Sequence[int] | I64, *columns: Sequence[float] | NDArray) -> tuple[NDArray, ...]:
    layer, octets, copies, kind = columns
    return (
        np.full(len(tile), number), np.asarray(tile, np.int64), np.asarray(layer, np.int64),
        np.asarray(octets, np.float64), np.asarray(copies, np.int64), np.asarray(kind, np.int64),
    )  # fmt: skip


def _keys(
    units: Units, takes: Sequence[Take], table: TileTable, gated: bool, order: Order, seed: int
) -> tuple[NDArray, ...]:
    """What units are sorted by, the most important first."""
    if order == "fifo":
        return (units.take, units.tile, units.layer)
    if order == "random":
        lot = np.random.default_rng(seed).random((len(takes), len(table.scene) + 1))
        return (units.kind > THUMBNAIL, lot[units.take, units.tile], units.layer)
    priority = np.array([take.priority for take in takes])[units.take]
    if order == "coarse-first":
        steep = areas(table, gated)
        falling = np.minimum.accumulate(steep, axis=1)  # a region's layers share a class: coarse ones go first
        steep = np.where(units.kind == REGION, falling[units.tile, units.layer], steep[units.tile, units.layer])
        return (units.kind, -priority, -steep, units.take, units.tile, units.layer)
    values = whole_tiles(table, gated) if order == "whole-tiles" else errors_removed(table, gated)
    kind = np.where(units.kind == FINE, COARSE, units.kind)  # a fine layer goes where it is worth its octets
    return (kind, -priority, -values[units.tile, units.layer], units.take, units.tile, units.layer)


def areas(table: TileTable, gated: bool) -> F64:
    """Clear pixels per octet of what is still to come of a tile: of its coarsest layer, and of all the finer ones
    together. Without a gate nobody knows which are clear. [K + 1, L], the last row for headers."""
    pixels = _pixels(table, gated)
    fine = table.octets[:, 1:].sum(axis=1, keepdims=True)
    cost = np.concatenate([table.octets[:, :1], np.repeat(fine, table.layers - 1, axis=1)], axis=1)
    steep = np.divide(pixels[:, None], cost, out=np.zeros_like(cost), where=cost > 0)
    return np.concatenate([steep, np.zeros((1, table.layers))])


def whole_tiles(table: TileTable, gated: bool) -> F64:
    """Clear pixels per octet of a tile with all the layers that are sent of it: the same for each of them. [K + 1, L],
    the last row for headers."""
    pixels, count = _pixels(table, gated), (table.octets > 0).sum(axis=1)
    sent = np.minimum(count, table.keep) if gated else count
    found = np.zeros((len(sent) + 1, table.layers))
    for k, layers in enumerate(sent.tolist()):
        octets = [0.0, *np.cumsum(table.octets[k, :layers]).tolist()]
        points = [CutPoint(n, octets[n], pixels[k] * (n < layers)) for n in range(layers + 1)]
        found[k, :layers] = values_per_octet(points)
    return found


def errors_removed(table: TileTable, gated: bool) -> F64:
    """Squared error that each layer removes per octet, of clear pixels, by the codec's own estimate. [K + 1, L], the
    last row for headers."""
    share = np.divide(_pixels(table, gated), table.valid_px, out=np.zeros(len(table.scene)), where=table.valid_px > 0)
    return np.concatenate([table.value * share[:, None], np.zeros((1, table.layers))])


def _pixels(table: TileTable, gated: bool) -> F64:
    """Clear ones; without a gate nobody knows which are."""
    return table.clear_px if gated else table.valid_px
