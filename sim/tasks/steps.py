"""In which order `sim evaluate-tasks` works: of every task what the bars ask for, then what is good to know."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

from sim.tasks.learning.heads import Budget

Kind = Literal["original", "reconstruction", "features"]
#: Ratios of decoded pixels, and of features of a bundle that follows a ratio: the first shall be 32 at least, and steps
#: are found to some 3 %.
PIXEL_CR, FEATURE_CR = (20.0, 50.0, 100.0, 250.0), (34.0, 100.0)
SEEDS, SHARES = (0, 1, 2), (0.01, 0.05, 0.1)


@dataclass(frozen=True)
class Plan:
    """What is run. `pictures`: at most so many a task."""

    pixel_cr: Sequence[float] = PIXEL_CR
    feature_cr: Sequence[float] = FEATURE_CR
    seeds: Sequence[int] = SEEDS
    shares: Sequence[float] = SHARES
    budget: Budget = field(default_factory=Budget)
    pictures: int = 10_000


@dataclass(frozen=True)
class Input:
    """What heads see. `bundle`: which of those asked for; `cr`: None at the bundle's own ratio."""

    kind: Kind
    bundle: int | None = None
    cr: float | None = None


ORIGINAL = Input("original")
#: What the bars ask for, and of what label efficiency is shown besides the original; of the first bundle.
BARS = (Input("reconstruction", 0, 20.0), Input("reconstruction", 0, 100.0), Input("features", 0, 34.0))
FEW_LABELS = (Input("reconstruction", 0, 50.0), Input("features", 0, 34.0))


@dataclass(frozen=True)
class Step:
    """Heads of one task that see one thing, with these shares of the labels."""

    task: str
    seen: Input
    shares: tuple[float, ...] = (1.0,)


def ordered(tasks: Sequence[str], plan: Plan, follows_ratio: Sequence[bool]) -> Iterator[Step]:
    """Every step once, a stage of all tasks before the next. `follows_ratio`: of each bundle, whether a ratio can be
    asked of it; decoded pixels of others than the first are shown where it cannot."""
    first, *others = (_of_bundle(plan, n, follows) for n, follows in enumerate(follows_ratio))
    of_others = [one for found in others for one in found if one.kind == "features" or one.cr is None]
    stages: list[tuple[list[Input], tuple[float, ...]]] = [
        ([ORIGINAL, *(one for one in first if one in BARS)], (1.0,)),
        ([one for one in first if one not in BARS], (1.0,)),
        ([ORIGINAL, *(one for one in first if one in FEW_LABELS)], tuple(plan.shares)),
        (of_others, (1.0,)),
    ]
    for inputs, shares in stages:
        for task in tasks if shares else ():
            yield from (Step(task, seen, shares) for seen in inputs)


def _of_bundle(plan: Plan, bundle: int, follows_ratio: bool) -> list[Input]:
    """Decoded pixels and features."""
    pixels, features = (plan.pixel_cr, plan.feature_cr) if follows_ratio else ((None,), (None,))
    return [Input("reconstruction", bundle, cr) for cr in pixels] + [Input("features", bundle, cr) for cr in features]
