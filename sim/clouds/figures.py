"""Masks beside a reference -> accuracy, precision, recall, F1, IoU, reliability. Counts first, then ratios. And what a
gate does: cloud let through lies in tiles that are sent, usable ground lost in tiles that are withheld.

A ratio whose denominator is zero is None and never 0 or 1: a class that does not occur says nothing.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from payload.policy import Gate

Bool = NDArray[np.bool_]

#: A tile is cloudy when more than this share of its known pixels is cloud: the definition of CloudScout and PhiSat-1.
CLOUDY_TILE = 0.7
#: The share above which a tile is withheld unless the mission says another.
WITHHELD_ABOVE = Gate().withhold_above_percent / 100.0
RELIABILITY_BINS = 10
#: Shares of a tile above which it is withheld, for the table of what each costs.
THRESHOLDS = (0.5, 0.6, 0.7, 0.75, 0.8, 0.85, WITHHELD_ABOVE, 0.9, 0.95)


@dataclass(frozen=True)
class Counts:
    """Hits and misses of one class. Adding two Counts pools their pixels (or tiles)."""

    true_positive: int = 0
    false_positive: int = 0
    false_negative: int = 0
    true_negative: int = 0

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(
            self.true_positive + other.true_positive,
            self.false_positive + other.false_positive,
            self.false_negative + other.false_negative,
            self.true_negative + other.true_negative,
        )

    @property
    def total(self) -> int:
        return self.true_positive + self.false_positive + self.false_negative + self.true_negative

    def scores(self) -> dict[str, float | None]:
        """Every ratio of the four counts that is asked for here."""
        tp, fp, fn, tn = self.true_positive, self.false_positive, self.false_negative, self.true_negative
        recall, clear_recall = _ratio(tp, tp + fn), _ratio(tn, tn + fp)
        both = recall is not None and clear_recall is not None
        return {
            "accuracy": _ratio(tp + tn, self.total),
            "balanced_accuracy": (recall + clear_recall) / 2 if both else None,  # type: ignore[operator]
            "precision": _ratio(tp, tp + fp),
            "recall": recall,
            "f1": _ratio(2 * tp, 2 * tp + fp + fn),
            "iou": _ratio(tp, tp + fp + fn),
            "false_alarms": _ratio(fp, fp + tn),
        }


def count(found: Bool, wanted: Bool, known: Bool) -> Counts:
    """Pixels of one mask against its reference, where that is known."""
    return Counts(
        int((found & wanted & known).sum()),
        int((found & ~wanted & known).sum()),
        int((~found & wanted & known).sum()),
        int((~found & ~wanted & known).sum()),
    )


def pooled(counts: Iterable[Counts]) -> Counts:
    total = Counts()
    for one in counts:
        total = total + one
    return total


def interval(counts: Sequence[Counts], score: str, draws: int = 1000, seed: int = 0) -> tuple[float, float] | None:
    """Bootstrap over tiles: where the middle 95 % of a pooled score lie when the tiles are drawn anew.

    Percentiles of `draws` resamples (Efron 1979). None where the score is undefined in all of them.
    """
    if not counts:
        return None
    table = np.array([[c.true_positive, c.false_positive, c.false_negative, c.true_negative] for c in counts])
    picks = np.random.default_rng(seed).integers(len(table), size=(draws, len(table)))
    pools = (Counts(*(int(v) for v in sums)) for sums in table[picks].sum(axis=1))
    scores = [value for pool in pools if (value := pool.scores()[score]) is not None]
    if not scores:
        return None
    low, high = np.percentile(scores, (2.5, 97.5))
    return float(low), float(high)


def iou(one: Bool, other: Bool) -> float | None:
    """Agreement of two masks, neither of them the truth."""
    return _ratio(int((one & other).sum()), int((one | other).sum()))


def cloudy_tile(mask: Bool, known: Bool) -> bool:
    """Whether a tile would be called cloudy on this mask."""
    return bool(mask[known].mean() > CLOUDY_TILE) if known.any() else False


@dataclass(frozen=True, eq=False)
class Reliability:
    """How often what is said with probability p is so. Per bin of p: cells, and the sums of p and of observed cloud."""

    cells: NDArray[np.int64]  # [10]
    said: NDArray[np.float64]  # sums
    seen: NDArray[np.float64]  # sums

    def __add__(self, other: "Reliability") -> "Reliability":
        return Reliability(self.cells + other.cells, self.said + other.said, self.seen + other.seen)

    @property
    def expected_error(self) -> float | None:
        """Expected calibration error: mean gap between said and seen, weighed by cells."""
        return _ratio(float(np.abs(self.said - self.seen).sum()), int(self.cells.sum()))

    def rows(self) -> list[dict[str, float]]:
        """One row per bin that holds anything."""
        full = self.cells > 0
        columns = self.cells[full], self.said[full], self.seen[full]
        return [{"cells": int(n), "said": float(p / n), "seen": float(c / n)} for n, p, c in zip(*columns, strict=True)]


def reliability(probability: NDArray[np.float32], cloud: Bool, known: Bool) -> Reliability:
    """Bins of the probability of cloud against the reference."""
    p, truth = probability[known].astype(np.float64), cloud[known]
    which = np.minimum((p * RELIABILITY_BINS).astype(np.int64), RELIABILITY_BINS - 1)
    said, seen = (np.bincount(which, v, RELIABILITY_BINS).astype(np.float64) for v in (p, truth.astype(np.float64)))
    return Reliability(np.bincount(which, minlength=RELIABILITY_BINS), said, seen)


def tile_counts(found: Sequence[bool], wanted: Sequence[bool]) -> Counts:
    """Tiles called cloudy against tiles that are; `false_alarms` of its scores is the false-discard rate."""
    a, b = np.array(found, bool), np.array(wanted, bool)
    return count(a, b, np.ones(a.shape, bool))


@dataclass(frozen=True)
class GatedTile:
    """`sure`: the share of the tile that the gate counts as cloud; then the pixels of cloud and of ground whose detail
    is lost where the tile is sent and closed cloud flattened."""

    site: str
    cloud_px: int
    ground_px: int
    sure: float
    flat_cloud_px: int = 0
    flat_ground_px: int = 0


def gate_figures(tiles: Sequence[GatedTile], withheld_above: float) -> dict[str, Any]:
    """Shares of all cloud and of all ground, and of a site's ground where most is lost; None where there is none."""
    cloud = sum(t.cloud_px for t in tiles)
    sent = sum(t.cloud_px for t in tiles if t.sure <= withheld_above)
    lost = [t.ground_px if t.sure > withheld_above else 0 for t in tiles]
    worst, there = _worst_site(tiles, lost)
    return {
        "let_through": _ratio(sent, cloud), "usable_lost": _ratio(sum(lost), sum(t.ground_px for t in tiles)),
        "worst_site": worst, "usable_lost_there": there,
    }  # fmt: skip


def flattening_figures(tiles: Sequence[GatedTile], withheld_above: float) -> dict[str, Any]:
    """What becomes of all cloud where closed cloud in tiles that are sent is flattened: withheld, sent without its
    detail, sent with it (shares, 1 together); and ground whose detail is lost with it, of all ground; what is lost
    either way, of all and of a site's ground where that is most."""
    cloud, ground = sum(t.cloud_px for t in tiles), sum(t.ground_px for t in tiles)
    sent = [t for t in tiles if t.sure <= withheld_above]
    flat = sum(t.flat_cloud_px for t in sent)
    lost = [t.ground_px if t.sure > withheld_above else t.flat_ground_px for t in tiles]
    worst, there = _worst_site(tiles, lost)
    through = sum(t.cloud_px for t in sent)
    return {
        "cloud_withheld": _ratio(cloud - through, cloud), "cloud_flattened": _ratio(flat, cloud),
        "cloud_with_detail": _ratio(through - flat, cloud),
        "ground_flattened": _ratio(sum(t.flat_ground_px for t in sent), ground),
        "lost_either_way": _ratio(sum(lost), ground),
        "worst_site_either_way": worst, "lost_either_way_there": there,
    }  # fmt: skip


def _worst_site(tiles: Sequence[GatedTile], lost_px: Sequence[int]) -> tuple[str | None, float | None]:
    """The site that loses the largest share of its ground, and that share; None where there is no ground."""
    by_site: dict[str, list[int]] = {}
    for tile, lost in zip(tiles, lost_px, strict=True):
        site = by_site.setdefault(tile.site, [0, 0])
        site[0], site[1] = site[0] + lost, site[1] + tile.ground_px
    shares = {site: lost / ground for site, (lost, ground) in by_site.items() if ground}
    worst = max(shares, key=lambda site: shares[site]) if shares else None
    return worst, None if worst is None else shares[worst]


def at_threshold(tiles: Sequence[GatedTile], withheld_above: float) -> dict[str, Any]:
    """What a gate at this share of a tile lets through, flattens and loses."""
    told = gate_figures(tiles, withheld_above) | flattening_figures(tiles, withheld_above)
    return {"withheld_above": withheld_above} | told


def by_threshold(tiles: Sequence[GatedTile]) -> list[dict[str, Any]]:
    """A row per threshold: this gate, with closed cloud flattened, and one that knows how much of a tile is cloud."""
    told = [replace(t, sure=t.cloud_px / max(1, t.cloud_px + t.ground_px)) for t in tiles]
    return [
        {
            "withheld_above": above,
            "knowing": gate_figures(told, above),
            "ours": at_threshold(tiles, above),
        }
        for above in THRESHOLDS
    ]


def _ratio(part: float, whole: float) -> float | None:
    return part / whole if whole else None


def rounded(value: Any, digits: int = 4) -> Any:
    """Every float of a nested result to `digits` places, for JSON."""
    if isinstance(value, float):
        return round(value, digits)
    if isinstance(value, dict):
        return {k: rounded(v, digits) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(v, digits) for v in value]
    return value
