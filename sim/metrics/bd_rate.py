"""Rate-distortion points -> curves -> BD-rate per tile, then the mean over tiles with its spread.

Bjontegaard, "Calculation of average PSNR differences between RD-curves", ITU-T VCEG-M33 (2001), with log rate as a
monotone piecewise-cubic (PCHIP, Fritsch and Carlson 1980) function of PSNR instead of one cubic through all points:
the practice since JVET common test conditions; see Herglotz et al., "The Bjontegaard bible", IEEE TIP 33 (2024).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import PchipInterpolator

F64 = NDArray[np.float64]

CR_FINE, CR_COARSE = 20.0, 250.0  # the range of rates that counts, CR against 16 bit
MIN_POINTS = 3
BOOTSTRAP_DRAWS, BOOTSTRAP_SEED = 10_000, 20


@dataclass(frozen=True, eq=False)
class Curve:
    """One codec on one tile: log octets and PSNR of its undominated points, both rising."""

    log_octets: F64  # [n]
    psnr_db: F64  # [n]

    @classmethod
    def of(cls, octets: Sequence[float], psnr_db: Sequence[float]) -> "Curve | None":
        """From points in any order. A point that costs more and shows less than another is no point of the curve;
        lossless points (infinite PSNR) are left out. None under three points."""
        points = sorted((float(o), float(p)) for o, p in zip(octets, psnr_db, strict=True) if np.isfinite(p))
        kept: list[tuple[float, float]] = []
        for cost, quality in points:
            if kept and cost == kept[-1][0]:
                kept.pop()  # sorted: same cost, better quality
            if not kept or quality > kept[-1][1]:
                kept.append((cost, quality))
        if len(kept) < MIN_POINTS:
            return None
        cost_octets, quality_db = np.array(kept).T
        return cls(np.log(cost_octets), quality_db)

    def octets_at(self, psnr_db: float) -> float:
        """NaN outside the curve: nothing is extrapolated."""
        return float(np.exp(PchipInterpolator(self.psnr_db, self.log_octets, extrapolate=False)(psnr_db)))

    def psnr_at(self, octets: float) -> float:
        return float(PchipInterpolator(self.log_octets, self.psnr_db, extrapolate=False)(np.log(octets)))

    def span_db(self, fewest_octets: float, most_octets: float) -> tuple[float, float]:
        """PSNR at both ends of a range of rates, or where the curve ends first."""
        low = self.psnr_at(max(fewest_octets, float(np.exp(self.log_octets[0] + 1e-12))))
        high = self.psnr_at(min(most_octets, float(np.exp(self.log_octets[-1] - 1e-12))))
        return low, high


def bd_rate_percent(test: Curve, reference: Curve, fewest_octets: float, most_octets: float) -> float:
    """Mean difference in octets at equal PSNR, in per cent; negative where `test` needs fewer. Taken over the PSNR both
    reach between the two rates; NaN where they share none."""
    spans = [curve.span_db(fewest_octets, most_octets) for curve in (test, reference)]
    low, high = max(s[0] for s in spans), min(s[1] for s in spans)
    if not low < high:
        return float("nan")
    tested, wanted = (
        PchipInterpolator(curve.psnr_db, curve.log_octets).integrate(low, high) / (high - low)
        for curve in (test, reference)
    )
    return float(100 * np.expm1(tested - wanted))


def spread(percent: Sequence[float]) -> dict[str, float | int]:
    """Mean over tiles, its 95 % interval, and how far tiles lie apart; tiles without a common range are counted, not
    averaged."""
    values = np.array(percent, dtype=np.float64)
    known = values[np.isfinite(values)]
    nan = float("nan")
    return {
        "mean_percent": float(known.mean()) if known.size else nan,
        **_interval(known),
        "median_percent": float(np.median(known)) if known.size else nan,
        "std_percent": float(known.std(ddof=1)) if known.size > 1 else nan,
        "best_percent": float(known.min()) if known.size else nan,
        "worst_percent": float(known.max()) if known.size else nan,
        "tiles": int(known.size),
        "tiles_without_common_range": int(len(values) - known.size),
    }


def _interval(percent: NDArray[np.float64]) -> dict[str, float]:
    """Bootstrap over tiles: where the mean of other tiles like these would lie, 95 %. Repeatable: the seed is fixed."""
    if percent.size < 2:
        return {"low_percent": float("nan"), "high_percent": float("nan")}
    drawn = np.random.default_rng(BOOTSTRAP_SEED).integers(percent.size, size=(BOOTSTRAP_DRAWS, percent.size))
    low, high = np.percentile(percent[drawn].mean(axis=1), [2.5, 97.5])
    return {"low_percent": float(low), "high_percent": float(high)}
