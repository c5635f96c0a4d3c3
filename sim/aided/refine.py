"""Coefficients of a tile moved inside the cells that were sent, by what older dates of the place say they are.

    cells, decoder's coefficients, those of older dates -> groups -> weights, spread of each -> trust by block -> moved

In a group of alike coefficients (band, frequency, activity) a coefficient is taken for normal around a weighted sum of
the older dates', all bands of them. What was sent tells its cell only, so weights and spread are fitted by
expectation-maximisation over the cells (Tobin 1958; Dempster et al. 1977): coefficients that were sent as zero count,
and a date that does not foretell what was sent gets weights near 0. Beside it stands the same model without any date.
How much likelier the cells of a block and its neighbours are with the dates than without is its trust, 0 to 1.

A coefficient moves from where the decoder has it by its mean in the cell with the dates less that without, times trust,
and never out of its cell: what was sent stands.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter
from scipy.special import ndtr

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
Mask = NDArray[np.bool_]

SIDE = 8  # functions along and across
#: Zones of a band by the sum of both frequencies: the first of each.
ZONES = (0, 1, 2, 3, 4, 5, 7, 10)
ACTIVITIES = 3
#: Activity counts sizes up to so many steps.
MOST_ACTIVE = 4.0
#: Steps of expectation-maximisation, before trust is known and with it.
STEPS = (4, 2)
#: Weights are held to those of the coarser zone, times this, as by so many coefficients of mean size.
INHERITED, HELD_BY = 0.7, 20.0
#: A group where fewer were sent than this starts from what it inherits.
FEWEST_SENT = 0.02
FIRST_TRUST, MOST_EVIDENCE = 0.8, 20.0
LEAST_SPREAD, LEAST_START = 0.05, 0.3
#: A cell less likely than this is met at the nearer end.
UNLIKELY = 1e-12


@dataclass(frozen=True, eq=False)
class Sent:
    """Of one tile f32 [B, 64, h, w], in steps: the cells that were sent, and what the decoder makes of them."""

    low: F32
    high: F32
    plain: F32


@dataclass(frozen=True, eq=False)
class Refined:
    """`move` [B, 64, h, w]: from where the decoder has a coefficient, if the dates are trusted; `foretold` by the dates
    alone, cells or not; `trust` of every block [h, w], 0 to 1."""

    move: F32
    foretold: F32
    trust: F32

    def coefficients(self, sent: Sent, weights: F32) -> F32:
        """Moved by `weights` [64, h, w] of the way, and inside their cells."""
        return np.clip(sent.plain + weights * self.move, sent.low, sent.high)


@dataclass(eq=False)
class _Group:
    """Alike coefficients: where they are in their band [64, h, w], their cells, those of the dates [n, R]."""

    band: int
    where: Mask
    low: F64
    high: F64
    older: F64
    heads_zone: bool  # the most active of its zone, from which the next ones inherit
    alone: F64  # expected without the dates, and the log of how likely the cells are then, [n]
    likely_alone: F64
    weights: F64  # until they are fitted NaN
    spread: float


def refine(sent: Sent, older: Sequence[F32], shown: Mask) -> Refined:
    """`older`: the same coefficients of older dates [B, 64, h, w], at least one. `shown` [h, w]: blocks of which they
    show anything; elsewhere nothing is learnt of them, and nothing moved."""
    groups = list(_groups(sent, older))
    trust = np.where(shown, FIRST_TRUST, 0.0)
    for steps in STEPS:
        moved, foretold = np.zeros((2, *sent.low.shape), np.float32)
        evidence = np.zeros(trust.shape)
        for group in _fitted(groups, trust, steps):
            expected, _, likely = in_cells(group.older @ group.weights, group.spread, group.low, group.high)
            moved[group.band][group.where] = expected - group.alone
            foretold[group.band][group.where] = group.older @ group.weights
            evidence += _over_blocks(likely - group.likely_alone, group.where)
        trust = _trust(evidence) * shown
    return Refined(moved, foretold, trust.astype(np.float32))


def in_cells(mean: F64, spread: float, low: F64, high: F64) -> tuple[F64, F64, F64]:
    """Mean and variance of normal coefficients given that they lie in their cells, and the log of how likely that is,
    each [n] (Johnson, Kotz and Balakrishnan 1994, 10.1)."""
    begin, end = (low - mean) / spread, (high - mean) / spread
    above = begin > 0  # the tail below is the exact one
    begin, end = np.where(above, -end, begin), np.where(above, -begin, end)
    share = ndtr(end) - ndtr(begin)
    some = np.maximum(share, UNLIKELY)
    at_begin, at_end = _density(begin), _density(end)
    pull = (at_begin - at_end) / some
    variance = spread**2 * np.clip(1 + (begin * at_begin - end * at_end) / some - pull**2, 1e-6, 1.0)
    expected = mean + spread * np.where(above, -pull, pull)
    expected = np.where(share < UNLIKELY, mean, expected)
    return np.clip(expected, low, high), variance, np.log(some)


def _density(x: F64) -> F64:
    return np.asarray(np.exp(-0.5 * x * x) / np.sqrt(2 * np.pi))


def _groups(sent: Sent, older: Sequence[F32]) -> Iterator[_Group]:
    """Of every band from coarse to fine, of every zone the most active first."""
    active = _activity(sent.plain) + sum(map(_activity, older)) / np.float32(len(older))
    zone_of = np.searchsorted(ZONES, np.add.outer(np.arange(SIDE), np.arange(SIDE)).ravel(), side="right") - 1
    for band in range(len(sent.low)):
        for zone in range(len(ZONES)):
            inside = np.broadcast_to((zone_of == zone)[:, None, None], sent.low.shape[1:])
            edges = np.quantile(active[band][inside], np.arange(1, ACTIVITIES) / ACTIVITIES)
            activity = np.searchsorted(edges, active[band])
            for level in reversed(range(ACTIVITIES)):
                where = inside & (activity == level)
                if where.any():
                    yield _group(sent, older, band, where, level == ACTIVITIES - 1)


def _activity(coefficients: F32) -> F32:
    """Mean size around each coefficient, over neighbours in frequency and place."""
    bands, functions, *blocks = coefficients.shape
    size = np.minimum(np.abs(coefficients), np.float32(MOST_ACTIVE)).reshape(bands, SIDE, SIDE, *blocks)
    found: F32 = uniform_filter(size, (1, 3, 3, 3, 3), mode="nearest")
    return found.reshape(bands, functions, *blocks)


def _group(sent: Sent, older: Sequence[F32], band: int, where: Mask, heads_zone: bool) -> _Group:
    low, high, plain = (a[band][where].astype(np.float64) for a in (sent.low, sent.high, sent.plain))
    dates = np.stack([plane[where] for date in older for plane in date], axis=1).astype(np.float64)
    spread = max(LEAST_START, float(plain.std()))
    alone, likely = _without_dates(low, high, spread)
    start = np.full(dates.shape[1], np.nan)
    return _Group(band, where, low, high, dates, heads_zone, alone, likely, start, spread)


def _without_dates(low: F64, high: F64, spread: float) -> tuple[F64, F64]:
    """What is expected in cells [n] of coefficients that are normal around 0, and the log of how likely cells are."""
    zero = np.zeros_like(low)
    for _ in range(STEPS[0]):
        expected, variance, _ = in_cells(zero, spread, low, high)
        spread = max(LEAST_SPREAD, float(np.sqrt((variance + expected**2).mean())))
    expected, _, likely = in_cells(zero, spread, low, high)
    return expected, likely


def _fitted(groups: Sequence[_Group], trust: F64, steps: int) -> Iterator[_Group]:
    """The groups in their order, each fitted to its cells."""
    inherited, band = np.zeros(groups[0].older.shape[1]), -1
    for group in groups:
        if group.band != band:
            inherited, band = np.zeros(group.older.shape[1]), group.band
        _fit(group, np.broadcast_to(trust, group.where.shape)[group.where], INHERITED * inherited, steps)
        if group.heads_zone:
            inherited = group.weights
        yield group


def _fit(group: _Group, trust: F64, inherited: F64, steps: int) -> None:
    """Expectation-maximisation, in place."""
    if np.isnan(group.weights).any():
        sent = (group.low > 0) | (group.high < 0)
        middle = np.where(sent, (group.low + group.high) / 2, 0.0)
        group.weights = inherited if sent.mean() < FEWEST_SENT else _regressed(group.older, middle, trust, inherited)
    for _ in range(steps):
        expected, variance, _ = in_cells(group.older @ group.weights, group.spread, group.low, group.high)
        group.weights = _regressed(group.older, expected, trust, inherited)
        left = variance + (expected - group.older @ group.weights) ** 2
        group.spread = max(LEAST_SPREAD, float(np.sqrt((trust * left).sum() / max(trust.sum(), 1e-9))))


def _regressed(older: F64, values: F64, trust: F64, inherited: F64) -> F64:
    """Weights [R] by least squares, held to the inherited ones."""
    weighed = older * trust[:, None]
    products = weighed.T @ older
    held = HELD_BY * np.trace(products) / max(trust.sum(), 1.0) / len(products) + 1e-9
    found = np.linalg.solve(products + held * np.eye(len(products)), weighed.T @ (values - older @ inherited))
    return np.asarray(inherited + found)


def _over_blocks(values: F64, where: Mask) -> F64:
    """Sums over the functions of each block [h, w] but block averages, which are of more than one block."""
    at = np.flatnonzero(where)
    blocks, own = where[0].size, at >= where[0].size
    return np.asarray(np.bincount(at[own] % blocks, values[own], blocks).reshape(where.shape[1:]))


def _trust(evidence: F64) -> F64:
    """Of every block, from the evidence of it and its neighbours."""
    around = 9 * uniform_filter(evidence, 3, mode="nearest")
    return np.asarray(1 / (1 + np.exp(-np.clip(around, -MOST_EVIDENCE, MOST_EVIDENCE))))
