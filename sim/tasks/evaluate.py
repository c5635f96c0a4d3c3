"""`sim evaluate-tasks`: the same heads on original pixels, on decoded pixels and on features, task by task."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from payload.errors import InputError
from sim.progress import Progress
from sim.spread import Spread
from sim.tasks import scores
from sim.tasks.coded import BundleCoder
from sim.tasks.data import TASKS, load_task
from sim.tasks.heads import Budget, Head, Units, of_features, of_pixels
from sim.tasks.restoration import restored_db
from sim.tasks.scenes import figures, load_scenes
from sim.tasks.summary import summary
from sim.tasks.task import IGNORED, Task

SCHEMA, SCENES = "nadir-tasks/1", "scenes"
NAMES = (*TASKS, SCENES)
#: Ratios of decoded pixels, and of features of a bundle that follows a ratio: steps are found to some 3 %, and the
#: first shall be 32 at least.
PIXEL_CR, FEATURE_CR = (20.0, 50.0, 100.0, 250.0), (34.0, 100.0)
SEEDS, SHARES = (0, 1, 2), (0.01, 0.05, 0.1)
BUNDLES = ("edge", "corsa-fpn3-256")
#: Of which inputs label efficiency is shown, besides the original.
FEW_LABELS_PIXEL_CR, FEW_LABELS_FEATURE_CR = 50.0, 34.0


@dataclass(frozen=True)
class Plan:
    """What is run. `pictures`: at most so many a task."""

    pixel_cr: Sequence[float] = PIXEL_CR
    feature_cr: Sequence[float] = FEATURE_CR
    seeds: Sequence[int] = SEEDS
    shares: Sequence[float] = SHARES
    budget: Budget = field(default_factory=Budget)
    pictures: int = 10_000


QUICK = Plan((20.0, 100.0), (34.0,), (0,), (0.1,), Budget(units=3000, rounds=3, last_rounds=1), 36)


@dataclass(frozen=True)
class TasksRequest:
    """What the user asked for. The first bundle is the one of decoded pixels; features are of all."""

    data: Path
    tasks: Sequence[str] = NAMES
    bundles: Sequence[str] = BUNDLES
    plan: Plan = field(default_factory=Plan)
    jobs: int = 1

    def __post_init__(self) -> None:
        unknown = [name for name in self.tasks if name not in NAMES]
        if unknown:
            raise InputError(f"--tasks {unknown[0][:40]!r} is unknown, wanted some of {', '.join(NAMES)}")


@dataclass(frozen=True, eq=False)
class Seen:
    """One thing that heads see: `kind` original, reconstruction or features; of which bundle, at which ratio."""

    kind: str
    bundle: str
    asked_cr: float | None
    cr: float
    units: Units
    pixels: Any = None

    @property
    def about(self) -> dict[str, Any]:
        return {"input": self.kind, "bundle": self.bundle, "cr_asked": self.asked_cr, "cr16": round(self.cr, 2)}


def evaluate(request: TasksRequest, progress: Progress) -> dict[str, Any]:
    """Rows of every run, and the tables made of them. InputError where data or a bundle is not there."""
    coders = [BundleCoder(name) for name in request.bundles]
    rows: list[dict[str, Any]] = []
    tasks: dict[str, Any] = {}
    with Spread(request.jobs) as spread:
        for name in request.tasks:
            if name == SCENES:
                about, found = _scenes(request, coders)
            else:
                task = load_task(name, request.data).first(request.plan.pictures)
                about, found = _about(task), list(_dense(task, request.plan, coders, spread))
            tasks[name], rows = about, rows + found
            progress(name, len(request.tasks))
    plan = asdict(request.plan)
    return {"schema": SCHEMA, "plan": plan, "bundles": list(request.bundles), "tasks": tasks,
            "summary": summary(rows, tasks), "rows": rows}  # fmt: skip


def _about(task: Task) -> dict[str, Any]:
    return {"title": task.title, "metric": task.metric, "classes": list(task.classes), "note": task.note,
            "pictures": len(task.pictures)}  # fmt: skip


def _dense(task: Task, plan: Plan, coders: Sequence[BundleCoder], spread: Spread) -> Iterator[dict[str, Any]]:
    """A row for each input, share of labels and seed."""
    for seen in _inputs(task, plan, coders):
        shares = (1.0, *plan.shares) if _is_shown_with_few(seen, coders) and task.finer == 1 else (1.0,)
        runs = [(share, seed) for share in shares for seed in plan.seeds]
        yield from spread.map(lambda run, seen=seen: _run(task, seen, plan.budget, *run), runs)  # type: ignore[misc]


def _run(task: Task, seen: Seen, budget: Budget, share: float, seed: int) -> dict[str, Any]:
    """One head, learnt and judged."""
    head = Head(len(task.classes), budget, seed).fit(seen.units, task.with_share(share, seed).learn)
    judged, (height, width) = (task.judge != IGNORED).any(axis=(1, 2)), task.judge.shape[1:]
    found = dict(task.score(task.judge[judged], head.predict(seen.units.of(judged))[:, :height, :width]))
    if task.truth_dn is not None and seen.pixels is not None:
        found |= restored_db(task, seen.pixels, budget, seed)
    return {"task": task.name, **seen.about, "share": share, "seed": seed, "parameters": head.parameters,
            "macs_per_px": round(head.macs_per_px, 1), **found}  # fmt: skip


def _inputs(task: Task, plan: Plan, coders: Sequence[BundleCoder]) -> Iterator[Seen]:
    """One at a time: an input is as large as all its windows."""
    yield Seen("original", "", None, 1.0, of_pixels(task.pictures, task.finer), task.pictures)
    for n, coder in enumerate(coders):
        name = coder.bundle.name
        of_pixels_at = plan.pixel_cr if coder.follows_ratio else (None,)
        for cr in of_pixels_at if n == 0 or not coder.follows_ratio else ():
            coded = coder.code(task.pictures, cr)
            yield Seen("reconstruction", name, cr, coded.cr, of_pixels(coded.pixels, task.finer), coded.pixels)
        for cr in (plan.feature_cr if coder.follows_ratio else (None,)) if task.finer == 1 else ():
            coded = coder.code(task.pictures, cr)
            yield Seen("features", name, cr, coded.cr, of_features(coded.features, len(coder.bundle.bands)))


def _is_shown_with_few(seen: Seen, coders: Sequence[BundleCoder]) -> bool:
    wanted = {"original": None, "reconstruction": FEW_LABELS_PIXEL_CR, "features": FEW_LABELS_FEATURE_CR}
    return seen.asked_cr == wanted[seen.kind] and seen.bundle in ("", coders[0].bundle.name)


def _scenes(request: TasksRequest, coders: Sequence[BundleCoder]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Scene classification: one answer an input."""
    scenes = load_scenes(request.data)
    none = np.zeros((len(scenes.pictures), 1, 1), np.uint8)
    task = Task(SCENES, "Scene classification", scenes.pictures, none, none, scenes.names, "micro_f1", scores.binary,
                scenes.note)  # fmt: skip
    rows = [
        {"task": SCENES, **seen.about, "share": 1.0, "seed": 0, "macs_per_px": None, **figures(scenes, seen.units)}
        for seen in _inputs(task, request.plan, coders)
    ]
    return _about(task), rows
