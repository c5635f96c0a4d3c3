"""`sim evaluate-tasks`: the same heads on original pixels, on decoded pixels and on features, task by task."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from payload.errors import InputError
from payload.scene import Dn
from sim.progress import Progress
from sim.spread import Spread
from sim.tasks import scores
from sim.tasks.coded import BundleCoder, Coded
from sim.tasks.data import TASKS, load_task
from sim.tasks.heads import Budget, Head, Units, of_features, of_pixels
from sim.tasks.kept import Arrays, Kept, key_of
from sim.tasks.restoration import restored_db
from sim.tasks.scenes import figures, load_scenes
from sim.tasks.steps import Input, Plan, Step, ordered
from sim.tasks.summary import ORIGINALS, SAME, summary
from sim.tasks.task import IGNORED, Task

SCHEMA, SCENES = "nadir-tasks/2", "scenes"
NAMES = (*TASKS, SCENES)
BUNDLES = ("edge", "corsa-fpn3-256")
QUICK = Plan((20.0, 100.0), (34.0,), (0,), (0.1,), Budget(units=3000, rounds=3, last_rounds=1), 36)


@dataclass(frozen=True)
class TasksRequest:
    """What the user asked for. The first bundle is the one of decoded pixels; features are of all. `kept`: where what
    is done is kept until all is."""

    data: Path
    tasks: Sequence[str] = NAMES
    bundles: Sequence[str] = BUNDLES
    plan: Plan = field(default_factory=Plan)
    jobs: int = 1
    kept: Path | None = None

    def __post_init__(self) -> None:
        unknown = [name for name in self.tasks if name not in NAMES]
        if unknown:
            raise InputError(f"--tasks {unknown[0][:40]!r} is unknown, wanted some of {', '.join(NAMES)}")


@dataclass(frozen=True, eq=False)
class Seen:
    """What heads see of one input, at which ratio. `pixels`: none of features."""

    cr: float
    units: Units
    pixels: Dn | None = None


def evaluate(request: TasksRequest, progress: Progress) -> dict[str, Any]:
    """Rows of every run, and the tables made of them. InputError where data or a bundle is not there."""
    run = _Run(request)
    steps = list(ordered(request.tasks, request.plan, [coder.follows_ratio for coder in run.coders]))
    with Spread(request.jobs) as spread:
        for step in steps:
            run.step(step, spread)
            progress(step.task, len(steps))
    result = run.result()
    run.kept.clear()
    return result


class _Run:
    """The coders, what is kept, and the heads of original pixels, which are shown decoded ones, too."""

    def __init__(self, request: TasksRequest) -> None:
        self.request, self.plan = request, request.plan
        self.coders = [BundleCoder(name) for name in request.bundles]
        self.kept = Kept(request.kept, self._decisive())
        self.task = lru_cache(1)(self._loaded)
        self._heads: dict[tuple[str, int], Head] = {}
        self._coded = lru_cache(1)(self._code)

    def _decisive(self) -> dict[str, Any]:
        """What rows depend on, besides the code."""
        return {"schema": SCHEMA, "plan": asdict(self.plan), "data": str(self.request.data.resolve()),
                "bundles": [coder.bundle.bundle_id for coder in self.coders]}  # fmt: skip

    def _loaded(self, name: str) -> Task:
        if name == SCENES:
            return scene_task(name, self.request.data)  # of few pictures a label would be borne by all or none
        return load_task(name, self.request.data).first(self.plan.pictures)

    def step(self, step: Step, spread: Spread) -> None:
        """Adds the rows of a step that are not there."""
        task = self.task(step.task)
        if task.finer > 1 and (step.seen.kind == "features" or step.shares != (1.0,)):
            return  # labels of 32 x 32 px a block pass 50 000 parameters
        missing = [run for run in self._runs(task, step) if not self.kept.has(key_of(run))]
        if missing:
            seen = self._seen(task, step.seen)
            for row in spread.map(lambda run: self._row(task, seen, run), missing):
                self.kept.add(row)

    def _runs(self, task: Task, step: Step) -> Iterator[dict[str, Any]]:
        """What rows of a step are known by."""
        bundle = "" if step.seen.bundle is None else self.coders[step.seen.bundle].bundle.name
        about = {"task": task.name, "input": step.seen.kind, "bundle": bundle, "cr_asked": step.seen.cr}
        if task.name == SCENES:
            return iter([{**about, "learnt_from": SAME, "share": 1.0, "seed": 0}] if step.shares == (1.0,) else [])
        sources = (SAME, ORIGINALS) if step.seen.kind == "reconstruction" and step.shares == (1.0,) else (SAME,)
        return ({**about, "learnt_from": source, "share": share, "seed": seed}
                for source in sources for share in step.shares for seed in self.plan.seeds)  # fmt: skip

    def _row(self, task: Task, seen: Seen, run: Mapping[str, Any]) -> dict[str, Any]:
        """One head, learnt and judged."""
        if task.name == SCENES:
            return {**run, "cr16": round(seen.cr, 2), "macs_per_px": None,
                    **figures(load_scenes(self.request.data), seen.units)}  # fmt: skip
        head = self._head(task, seen, run)
        judged, (height, width) = (task.judge != IGNORED).any(axis=(1, 2)), task.judge.shape[1:]
        found = dict(task.score(task.judge[judged], head.predict(seen.units.of(judged))[:, :height, :width]))
        if task.truth_dn is not None and seen.pixels is not None and run["learnt_from"] == SAME:
            found |= restored_db(task, seen.pixels, self.plan.budget, run["seed"])
        return {**run, "cr16": round(seen.cr, 2), "parameters": head.parameters,
                "macs_per_px": round(head.macs_per_px, 1), **found}  # fmt: skip

    def _head(self, task: Task, seen: Seen, run: Mapping[str, Any]) -> Head:
        """A head that learnt from what it is shown, or from the original pixels: these learn once."""
        share, seed = run["share"], run["seed"]
        new = Head(len(task.classes), self.plan.budget, seed)
        if share < 1 or (run["learnt_from"] == SAME and run["input"] != "original"):
            return new.fit(seen.units, task.with_share(share, seed).learn)
        if (task.name, seed) not in self._heads:
            self._heads[task.name, seed] = new.fit(of_pixels(task.pictures, task.finer), task.learn)
        return self._heads[task.name, seed]

    def _seen(self, task: Task, wanted: Input) -> Seen:
        if wanted.bundle is None:
            return Seen(1.0, of_pixels(task.pictures, task.finer), task.pictures)
        coder = self.coders[wanted.bundle]
        name = f"{task.name}-{coder.bundle.bundle_id:08x}-{wanted.kind}-{wanted.cr or 'own'}"
        found = self.kept.arrays(name, lambda: self._made(task.name, wanted))
        cr = float(found.pop("cr"))
        if wanted.kind == "features":
            levels = {int(stride): values for stride, values in found.items()}
            return Seen(cr, of_features(levels, len(coder.bundle.bands)))
        return Seen(cr, of_pixels(found["pixels"], task.finer), found["pixels"])

    def _made(self, name: str, wanted: Input) -> Arrays:
        """What a bundle makes of a task's pictures, and their ratio."""
        coded = self._coded(name, wanted.bundle, wanted.cr)
        if wanted.kind == "features":
            made: Arrays = {str(stride): values for stride, values in coded.features.items()}
        else:
            made = {"pixels": coded.pixels}
        return {"cr": np.array(coded.cr), **made}

    def _code(self, name: str, bundle: int, cr: float | None) -> Coded:
        task = self.task(name)
        return self.coders[bundle].code(task.pictures, cr, task.valid)

    def result(self) -> dict[str, Any]:
        """What tasks.json holds."""
        rows = [row for name in self.request.tasks for row in self.kept.rows if row["task"] == name]
        tasks = {name: _about(self.task(name)) for name in self.request.tasks}
        return {"schema": SCHEMA, "plan": asdict(self.plan), "bundles": list(self.request.bundles), "tasks": tasks,
                "summary": summary(rows, tasks), "rows": rows}  # fmt: skip


def _about(task: Task) -> dict[str, Any]:
    return {"title": task.title, "metric": task.metric, "classes": list(task.classes), "note": task.note,
            "pictures": len(task.pictures)}  # fmt: skip


def scene_task(name: str, data: Path) -> Task:
    """Scene classification as a task without labels a pixel."""
    scenes = load_scenes(data)
    none = np.zeros((len(scenes.pictures), 1, 1), np.uint8)
    return Task(name, "Scene classification", scenes.pictures, none, none, scenes.names, "micro_f1", scores.binary,
                scenes.note)  # fmt: skip
