"""Bounds on a share from a sample of each of several passes.

A pass sends a few thumbnails of its withheld tiles, three of four or three of four hundred. Such a sample is stratified
and not in proportion: pooled, a full pass would weigh as little as an empty one. Each pass therefore enters with its
share of all withheld tiles.

    T = sum over passes of  w_h * found_h / drawn_h        w_h = withheld_h / withheld       (estimates the share)

For shares p_h of the passes, Chernoff bounds the chance of so small a T. A draw without replacement from a pass obeys
the binomial's bound (Hoeffding 1963, theorem 4):

    P(T <= t)  <=  exp(l t) * product of (1 - p_h c_h) ^ drawn_h,      c_h = 1 - exp(-l w_h / drawn_h),  any l > 0

The upper bound is the largest sum of w_h p_h, over all p_h, at which this stays above 1 - confidence. It holds for any
number of passes and draws; a pass without a draw counts in full. Where all draws stand in proportion, the exact
interval of Clopper and Pearson (1934) on the pooled counts holds too (Hoeffding 1956) and is the narrower one.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import betaincinv

from payload.errors import InputError

CONFIDENCE = 0.95
#: Rates l of the exponential bound, scaled below by the draws. Each gives a bound that holds; the least is taken.
_RATES = np.geomspace(1e-2, 1e3, 41)
_HALVINGS = 44


@dataclass(frozen=True)
class Draw:
    """What was drawn of one pass: `found` of `drawn` tiles, out of `withheld`."""

    withheld: int
    drawn: int
    found: int

    def __post_init__(self) -> None:
        if not 0 <= self.found <= self.drawn <= self.withheld:
            raise InputError(
                f"{self.found} found of {self.drawn} drawn of {self.withheld} withheld tiles, "
                "wanted no more found than drawn and no more drawn than withheld; check the verdicts"
            )


def share(draws: Sequence[Draw]) -> float | None:
    """Unbiased estimate of the share found, over passes of which something was drawn; None without any."""
    seen = [draw for draw in draws if draw.drawn]
    withheld = sum(draw.withheld for draw in seen)
    return sum(draw.withheld * draw.found / draw.drawn for draw in seen) / withheld if withheld else None


def upper_bound(draws: Sequence[Draw], confidence: float = CONFIDENCE) -> float:
    """The share found is no more than this, at `confidence`; 1 where nothing was withheld or drawn."""
    tail = 1.0 - confidence
    withheld, drawn, found = (np.array(column, np.float64) for column in _columns(draws))
    if not len(withheld) or not drawn.any():
        return 1.0
    if drawn.all() and np.ptp(drawn / withheld) < 1e-12:
        return binomial_upper(int(found.sum()), int(drawn.sum()), tail)
    return _stratified_upper(withheld / withheld.sum(), drawn, found, tail)


def lower_bound(draws: Sequence[Draw], confidence: float = CONFIDENCE) -> float:
    """The share found is no less than this, at `confidence`."""
    others = [Draw(draw.withheld, draw.drawn, draw.drawn - draw.found) for draw in draws]
    return 1.0 - upper_bound(others, confidence)


def binomial_upper(found: int, drawn: int, tail: float) -> float:
    """Clopper and Pearson: at a higher share so few would be rarer than `tail`; 1 without draws."""
    return 1.0 if found == drawn else float(betaincinv(found + 1, drawn - found, 1.0 - tail))


def clopper_pearson(found: int, drawn: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Exact two-sided interval for the share of one sample; (0, 1) without draws."""
    if not 0 <= found <= drawn:
        raise InputError(f"{found} false discards among {drawn} audits, wanted at most as many as audits")
    tail = (1.0 - confidence) / 2.0
    return 1.0 - binomial_upper(drawn - found, drawn, tail), binomial_upper(found, drawn, tail)


def _columns(draws: Sequence[Draw]) -> tuple[list[int], list[int], list[int]]:
    full = [draw for draw in draws if draw.withheld]
    return [d.withheld for d in full], [d.drawn for d in full], [d.found for d in full]


def _stratified_upper(
    weight: NDArray[np.float64], drawn: NDArray[np.float64], found: NDArray[np.float64], tail: float
) -> float:
    """weight, drawn, found [H] of the passes. A pass without a draw counts in full."""
    seen = drawn > 0
    unseen, weight, drawn, found = weight[~seen].sum(), weight[seen], drawn[seen], found[seen]
    observed = (weight * found / drawn).sum()
    rates = _RATES * drawn.sum()  # [L]
    certain = 1.0 - np.exp(-rates[:, None] * weight / drawn)  # [L, H], c_h of the text above
    allowed = rates * observed - np.log(tail)  # [L]: how small the product may become
    return float(min(1.0, unseen + min(_largest_sums(weight, drawn, certain, allowed))))


def _largest_sums(
    weight: NDArray[np.float64], drawn: NDArray[np.float64], certain: NDArray[np.float64], allowed: NDArray[np.float64]
) -> NDArray[np.float64]:
    """[L]: for each rate the largest sum of w_h p_h with sum of -drawn_h log(1 - p_h c_h) <= allowed.

    The sum of logarithms is convex in p, so a price m settles it: p_h = (1 - drawn_h c_h / (m w_h)) / c_h, cut to 0..1.
    The price is found by bisection on its logarithm; its lower end is taken, where the bound is the larger one.
    """
    low, high = np.full(len(allowed), -30.0), np.full(len(allowed), 30.0)  # log of 1 / m

    def shares(log_cheapness: NDArray[np.float64]) -> NDArray[np.float64]:
        wanted = (1.0 - drawn * certain / weight * np.exp(log_cheapness)[:, None]) / certain
        return np.clip(wanted, 0.0, 1.0)

    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        spent = -(drawn * np.log1p(-np.minimum(shares(middle) * certain, 1.0 - 1e-16))).sum(axis=1)
        fits = spent <= allowed
        low, high = np.where(fits, low, middle), np.where(fits, middle, high)
    return (weight * shares(low)).sum(axis=1)
