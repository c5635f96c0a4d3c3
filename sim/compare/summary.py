"""Rows of the bench -> comparisons: BD-rate against each reference, figures at fixed CR, rate at fixed PSNR, speed.

Curves are compared per tile and then averaged: a codec at constant quality spends more on hard tiles, so means of
points hide what they are means of. Nothing is extrapolated; a mean over fewer than all tiles says over how many.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from sim.metrics.bd_rate import CR_COARSE, CR_FINE, Curve, bd_rate_percent, spread
from sim.metrics.catalogue import COMPARED
from sim.metrics.distortion import PEAK_10K, per_tile_summary

Row = Mapping[str, Any]

#: The first is the headline: one set of headers, rate by slope across components. The last is the strongest coder whose
#: rate a payload may hope for.
REFERENCES = ("klt-jpeg2000-joint", "klt-jpeg2000", "jpeg2000", "klt-av1")
TABLE_CR = (20, 50, 100, 250)
TABLE_PSNR_DB = (35.0, 37.5, 40.0, 42.5, 45.0, 46.0)
METRICS = tuple(metric.key for metric in COMPARED)
NAN = float("nan")


class Bench:
    """The rows by codec and tile, each codec and tile in the order it was run."""

    def __init__(self, rows: Iterable[Row]) -> None:
        self._rows: dict[str, dict[str, list[Row]]] = defaultdict(lambda: defaultdict(list))
        for row in rows:
            self._rows[row["codec"]][row["tile"]].append(row)
        self.codecs = tuple(self._rows)
        self.tiles = tuple(dict.fromkeys(tile for by_tile in self._rows.values() for tile in by_tile))
        self._curves = {(c, t): _curve(self._rows[c][t]) for c in self.codecs for t in self.tiles}
        first = {tile: next(by[tile][0] for by in self._rows.values() if by[tile]) for tile in self.tiles}
        self._octets16 = {tile: row["cr16"] * row["octets"] for tile, row in first.items()}  # what CR 1 is
        self._pixels = {tile: 8 * row["octets"] / row["bpp"] for tile, row in first.items()}

    def bd_rate(self, codec: str, reference: str) -> dict[str, Any]:
        """Per cent of octets at equal PSNR over CR 20 to 250: spread over tiles, and every tile."""
        per_tile = {tile: self._bd_rate(codec, reference, tile) for tile in self.tiles}
        return {**spread(list(per_tile.values())), "per_tile_percent": per_tile}

    def _bd_rate(self, codec: str, reference: str, tile: str) -> float:
        test, against = self._curves[codec, tile], self._curves[reference, tile]
        if test is None or against is None:
            return NAN
        return bd_rate_percent(test, against, self._octets16[tile] / CR_COARSE, self._octets16[tile] / CR_FINE)

    def at_cr(self, codec: str, cr: float) -> dict[str, float | int]:
        """Every metric with each tile at the same CR, mean over tiles; PSNR averaged in four ways; how many tiles."""
        each = [self._figures_at(codec, tile, self._octets16[tile] / cr) for tile in self.tiles]
        known = [figures for figures in each if figures is not None]
        means = {name: float(np.mean([f[name] for f in known])) if known else NAN for name in METRICS}
        mse = [PEAK_10K**2 / 10 ** (figures["psnr_10k_db"] / 10) for figures in known]
        return {**means, **per_tile_summary(mse, [1] * len(mse)), "tiles": len(known)}

    def _figures_at(self, codec: str, tile: str, octets: float) -> dict[str, float] | None:
        """Between rows: PSNR along the curve, the rest in straight lines over log octets."""
        curve = self._curves[codec, tile]
        if curve is None or not curve.log_octets[0] <= np.log(octets) <= curve.log_octets[-1]:
            return None
        rows = sorted((row for row in self._rows[codec][tile] if np.isfinite(row["psnr_10k_db"])), key=_cost)
        at = [np.log(row["octets"]) for row in rows]
        figures = {name: float(np.interp(np.log(octets), at, [row[name] for row in rows])) for name in METRICS}
        return figures | {"psnr_10k_db": curve.psnr_at(octets)}

    def at_psnr(self, codec: str, psnr_db: float) -> dict[str, float | int]:
        """Mean bits per pixel (all bands) with every tile at the same PSNR, and over how many tiles."""
        curves = {tile: self._curves[codec, tile] for tile in self.tiles}
        bits = [8 * curve.octets_at(psnr_db) / self._pixels[tile] for tile, curve in curves.items() if curve]
        known = [value for value in bits if np.isfinite(value)]
        return {"bpp": float(np.mean(known)) if known else NAN, "tiles": len(known)}

    def curve_points(self, codec: str, metric: str, crs: Sequence[float]) -> list[float]:
        """Mean over tiles of one metric along CR, for plots; NaN where not every tile has it."""
        return [f[metric] if (f := self.at_cr(codec, cr))["tiles"] == len(self.tiles) else NAN for cr in crs]

    def speed(self, codec: str) -> dict[str, float]:
        """Median over tiles of Mpx/s (a pixel is all bands) at the setting nearest to CR 20; lossless at its own CR."""
        nearest = [min(rows, key=_distance_from_cr_20) for rows in self._rows[codec].values() if rows]
        megapixels = [8e-6 * row["octets"] / row["bpp"] for row in nearest]
        return {
            "encode_mpx_s": float(np.median([m / row["encode_s"] for m, row in zip(megapixels, nearest, strict=True)])),
            "decode_mpx_s": float(np.median([m / row["decode_s"] for m, row in zip(megapixels, nearest, strict=True)])),
            "encode_s_per_tile": float(np.median([row["encode_s"] for row in nearest])),
            "cr16": float(np.median([row["cr16"] for row in nearest])),
        }

    def lossless_cr16(self, codec: str) -> float:
        """Mean CR of the codec's lossless rows; NaN where it has none."""
        found = [r["cr16"] for rows in self._rows[codec].values() for r in rows if r["psnr_10k_db"] == float("inf")]
        return float(np.mean(found)) if found else NAN

    def summary(self) -> dict[str, Any]:
        """Everything above for every codec; speeds are not in it, they differ from run to run."""
        references = [name for name in REFERENCES if name in self.codecs]
        return {
            "bd_rate": {c: {r: self.bd_rate(c, r) for r in references if r != c} for c in self.codecs},
            "at_cr": {c: {str(cr): self.at_cr(c, cr) for cr in TABLE_CR} for c in self.codecs},
            "at_psnr": {c: {f"{db:g}": self.at_psnr(c, db) for db in TABLE_PSNR_DB} for c in self.codecs},
            "lossless_cr16": {c: self.lossless_cr16(c) for c in self.codecs},
        }


def _curve(rows: Sequence[Row]) -> Curve | None:
    return Curve.of([row["octets"] for row in rows], [row["psnr_10k_db"] for row in rows])


def _cost(row: Row) -> float:
    return float(row["octets"])


def _distance_from_cr_20(row: Row) -> float:
    return abs(float(np.log(row["cr16"] / CR_FINE)))
