"""What is down as area and quality: copies of tiles with so many layers in a row, and what they are worth."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sim.metrics.distortion import psnr_db
from sim.planning.schedule import Outcome
from sim.planning.table import TileTable
from sim.planning.units import RECORD, THUMBNAIL, Content, Units

F64 = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Delivered:
    """Tiles on the ground: rows [R] of (take, tile, layers, copies), clear km2 and NDVI error of each row."""

    take: NDArray[np.int64]
    clear_km2: F64
    ndvi_mae: F64
    whole: NDArray[np.bool_]  # with every layer that the tile has

    @property
    def total_km2(self) -> float:
        return float(self.clear_km2.sum())

    @property
    def mean_ndvi_mae(self) -> float:
        return float((self.clear_km2 * self.ndvi_mae).sum() / self.total_km2) if self.total_km2 else float("nan")

    def at_quality(self, limit: float) -> float:
        """The largest clear area, in km2, whose mean NDVI error is at most `limit`: the best tiles first."""
        order = np.argsort(self.ndvi_mae, kind="stable")
        area = np.cumsum(self.clear_km2[order])
        error = np.cumsum((self.clear_km2 * self.ndvi_mae)[order])
        held = np.flatnonzero(error <= limit * area * (1 + 1e-12))
        return float(area[held[-1]]) if len(held) else 0.0

    def each_at_quality(self, limit: float) -> float:
        """The clear area of the tiles that keep the limit each for itself, in km2."""
        return float(self.clear_km2[self.ndvi_mae <= limit].sum())


def delivered(units: Units, outcome: Outcome, table: TileTable, px_km2: float, until_s: float = np.inf) -> Delivered:
    """What is down at the end, or at `until_s`. A layer counts where all coarser ones are there."""
    arrived = outcome.arrived if np.isinf(until_s) else _until(units, outcome, until_s)
    exact = _by_layers(units, arrived, table)
    take, tile, layer = np.nonzero(exact)
    km2 = exact[take, tile, layer] * table.clear_px[tile] * px_km2
    last = (table.octets > 0).sum(axis=1) - 1
    return Delivered(take, km2, table.ndvi_mae[tile, layer], layer == last[tile])


def pooled_psnr_db(units: Units, outcome: Outcome, table: TileTable, imaged: Sequence[Content], gated: bool) -> float:
    """PSNR (peak 10 000) of the squared error of all that was imaged and not withheld, over clear pixels; a tile of
    which nothing is down counts as its mean. Infinite without an error."""
    down = _by_layers(units, outcome.arrived, table).sum(axis=0)  # [K, L]
    copies = np.zeros(len(table.scene))
    for content in imaged:
        copies[content.tiles] += content.copies
    sent = ~table.withheld if gated else np.ones(len(table.scene), bool)
    missing = copies - down.sum(axis=1)
    error = (down * np.nan_to_num(table.mse)).sum(axis=1) + missing * table.spread
    pixels = copies * table.clear_px
    mse = float((error * table.clear_px)[sent].sum() / max(pixels[sent].sum(), 1.0))
    return psnr_db(mse)


def _by_layers(units: Units, arrived: NDArray[np.int64], table: TileTable) -> NDArray[np.int64]:
    """Copies with so many layers in a row and no more, [T, K, L]."""
    picture = (units.tile != RECORD) & (units.kind != THUMBNAIL)
    takes = int(units.take.max()) + 1 if len(units.take) else 0
    down = np.zeros((takes, len(table.scene), table.layers), np.int64)
    down[units.take[picture], units.tile[picture], units.layer[picture]] = arrived[picture]
    whole = np.minimum.accumulate(down, axis=2)  # copies with at least so many layers
    return np.asarray(whole - np.concatenate([whole[:, :, 1:], np.zeros_like(whole[:, :, :1])], axis=2))


def _until(units: Units, outcome: Outcome, until_s: float) -> NDArray[np.int64]:
    arrived = np.zeros(len(units.take), np.int64)
    for when, queue, copies in outcome.events:
        if when <= until_s:
            arrived[queue] += copies
    return arrived


def latency_s(
    units: Units, outcome: Outcome, sensed_s: F64, table: TileTable, chosen: NDArray[np.bool_]
) -> tuple[float, float]:
    """Median and 95th percentile of the time from sensing to arrival of the chosen units, weighted by clear area."""
    got = chosen & (outcome.arrived > 0) & (units.tile != RECORD)
    if not got.any():
        return float("nan"), float("nan")
    waited = outcome.arrived_s[got] - sensed_s[units.take[got]]
    weight = outcome.arrived[got] * np.maximum(table.clear_px[units.tile[got]], 1.0)
    order = np.argsort(waited)
    share = np.cumsum(weight[order]) / weight.sum()
    return float(waited[order][np.searchsorted(share, 0.5)]), float(waited[order][np.searchsorted(share, 0.95)])
