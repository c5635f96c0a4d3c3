"""Figures -> checks: every requirement and every budget of the mission, measured against its limit.

A figure that is required but missing or not a number is not held: nothing passes for want of being looked at.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from sim.metrics.catalogue import REQUIREMENTS
from sim.mission.budgets import Basis, Budget
from sim.mission.spec import Mission, Requirements

Relation = Literal["<=", ">="]
_AT_MOST: Relation = "<="
_AT_LEAST: Relation = ">="


@dataclass(frozen=True)
class Check:
    """One requirement or budget, judged."""

    requirement: str
    measured: float | None
    limit: float
    unit: str
    held: bool
    basis: Basis
    cause: str | None = None  # why it was not held, where the numbers do not say
    relation: Relation = "<="  # of measured to limit
    judged: bool = True  # False: there was nothing to judge, which is not held either


def verify(figures: Mapping[str, float | None], mission: Mission, budgets: Sequence[Budget] = ()) -> list[Check]:
    """Checks of every requirement the mission sets, then of `budgets` (from `sim.mission.budgets.assess`).

    `figures` go by the keys in sim/metrics/catalogue.py: psnr_10k_db, cr16, ndvi_mae, ...
    """
    return [*_requirements(figures, mission.requirements), *map(_budget, budgets)]


def all_held(checks: Sequence[Check]) -> bool:
    return all(check.held for check in checks)


def _requirements(figures: Mapping[str, float | None], requirements: Requirements) -> list[Check]:
    checks = []
    for name, metric in REQUIREMENTS.items():
        limit = getattr(requirements, name)
        if limit is None:
            continue
        value = figures.get(metric.key)
        cause = _unusable(value, metric.key)
        held = cause is None and value is not None
        if value is not None and held:
            held = value >= limit if metric.limit == "min" else value <= limit
        relation = _AT_LEAST if metric.limit == "min" else _AT_MOST
        checks.append(Check(name, value, limit, metric.unit, held, "measured", cause, relation, cause is None))
    return checks


def _budget(budget: Budget) -> Check:
    """What the run found is measured, what it is held against is the limit, whichever of the two is used of which."""
    found, limit, relation = budget.used, budget.available, _AT_MOST
    if budget.found == "available":
        found, limit, relation = budget.available or None, budget.used or 0.0, _AT_LEAST
    cause = budget.not_judged or _unusable(found, budget.name)
    name, judged = f"budget: {budget.name}", cause is None
    return Check(name, found, limit, budget.unit, budget.held, budget.basis, cause, relation, judged)


def _unusable(value: float | None, name: str) -> str | None:
    """Why a figure cannot be judged; plus infinity can (the PSNR of a lossless tile)."""
    if value is None:
        return f"{name} was not measured"
    if math.isnan(value):
        return f"{name} is not a number"
    return None
