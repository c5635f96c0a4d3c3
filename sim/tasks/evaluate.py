"""`sim evaluate-tasks`: the same heads on original pixels, on decoded pixels and on features, task by task."""

import importlib
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from payload.errors import InputError
from payload.policy import Profile
from payload.scene import Dn
from sim.ground.decoder import FULL
from sim.progress import Progress
from sim.spread import Spread
from sim.tasks import scores
from sim.tasks.coded import BundleCoder, Coded, digest_of
from sim.tasks.data import TASKS, load_task
from sim.tasks.kept import Arrays, Kept, key_of
from sim.tasks.learning.heads import Budget, Head, Labelled, Units, labelled, of_features, of_pixels, predicted
from sim.tasks.learning.restoration import Restoration
from sim.tasks.scenes import figures, load_scenes
from sim.tasks.second_look import second_looks
from sim.tasks.steps import Input, Plan, Step, ordered
from sim.tasks.summary import ORIGINALS, SAME, summary
from sim.tasks.task import IGNORED, Labels, Task

#: What a row is known by.
Run = Mapping[str, Any]
SCHEMA, SCENES = "nadir-tasks/2", "scenes"
NAMES = (*TASKS, SCENES)
BUNDLES = ("edge", "corsa-fpn3-256")
QUICK = Plan((20.0, 100.0), (34.0,), (0,), (0.1,), Budget(units=3000, rounds=3, last_rounds=1), 36)


@dataclass(frozen=True)
class TasksRequest:
    """What the user asked for. The first bundle is the one of decoded pixels; features are of all. `kept`: where what
    is done is kept until all is. `profile` of the entropy coder: ratios follow it. `decoder`: one of
    `DECODERS`, of pixels."""

    data: Path
    tasks: Sequence[str] = NAMES
    bundles: Sequence[str] = BUNDLES
    plan: Plan = field(default_factory=Plan)
    jobs: int = 1
    kept: Path | None = None
    profile: Profile = "fast"
    decoder: str = FULL

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
    with Spread(request.jobs) as spread, _one_thread_each(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Stochastic Optimizer")  # it says that it was stopped, which it was
        run = _Run(request, spread)
        steps = list(ordered(request.tasks, request.plan, [coder.follows_ratio for coder in run.coders]))
        for step in steps:
            run.step(step)
            progress(step.task, len(steps))
    result = run.result()
    run.kept.clear()
    return result


class _Run:
    """The coders, what is kept, and the heads of original pixels, which are shown decoded ones, too."""

    def __init__(self, request: TasksRequest, spread: Spread) -> None:
        self.request, self.plan, self.spread = request, request.plan, spread
        self.coders = [BundleCoder(name, spread, request.decoder, request.profile) for name in request.bundles]
        self.kept = Kept(request.kept, self._decisive())
        self.task = lru_cache(1)(self._loaded)
        self._heads: dict[tuple[str, int], Head] = {}

    def _decisive(self) -> dict[str, Any]:
        """What rows depend on, besides the code."""
        about = {"schema": SCHEMA, "plan": asdict(self.plan), "profile": self.request.profile}
        bundles = [coder.bundle.manifest["files"] for coder in self.coders]  # an id outlives a better decoder network
        about |= {"decoder": self.request.decoder, "data": str(self.request.data.resolve())}
        return about | {"bundles": bundles}

    def _loaded(self, name: str) -> Task:
        if name == SCENES:
            return scene_task(name, self.request.data)  # of few pictures a label would be borne by all or none
        return load_task(name, self.request.data).first(self.plan.pictures)

    def step(self, step: Step) -> None:
        """Adds the rows of a step that are not there."""
        task = self.task(step.task)
        if task.finer > 1 and (step.seen.kind == "features" or step.shares != (1.0,)):
            return  # labels of 32 x 32 px a block pass 50 000 parameters
        missing = [run for run in self._runs(task, step) if not self.kept.has(key_of(run))]
        if missing:
            seen = self._seen(task, step.seen)
            for row in self._of_scenes(seen, missing) if task.name == SCENES else self._rows(task, seen, missing):
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

    def _of_scenes(self, seen: Seen, runs: Sequence[Run]) -> Iterator[dict[str, Any]]:
        scenes = load_scenes(self.request.data)
        return ({**run, "cr16": round(seen.cr, 2), "macs_per_px": None, **figures(scenes, seen.units)} for run in runs)

    def _rows(self, task: Task, seen: Seen, runs: Sequence[Run]) -> Iterator[dict[str, Any]]:
        """A head for each run, learnt and judged."""
        labels = {drawn: labelled(task.with_share(*drawn).learn, seen.units) for drawn in set(map(_drawn, runs))}
        heads = list(self.spread.map(lambda run: self._head(task, seen, labels[_drawn(run)], run), runs))
        judged, (height, width) = (task.judge != IGNORED).any(axis=(1, 2)), task.judge.shape[1:]
        found = predicted(heads, seen.units, np.flatnonzero(judged).tolist(), self.spread)
        restoration = None if task.truth_dn is None or seen.pixels is None else Restoration(task, seen.pixels)

        def row(run: Run, head: Head, answer: Labels) -> dict[str, Any]:
            scored = dict(task.score(task.judge[judged], answer[:, :height, :width]))
            if restoration is not None and run["learnt_from"] == SAME:
                scored |= restoration.db(self.plan.budget, run["seed"])
            return {**run, "cr16": round(seen.cr, 2), "parameters": head.parameters,
                    "macs_per_px": round(head.macs_per_px, 1), **scored}  # fmt: skip

        return self.spread.map(lambda one: row(*one), zip(runs, heads, found, strict=True))

    def _head(self, task: Task, seen: Seen, labels: Labelled, run: Run) -> Head:
        """A head that learnt from what it is shown, or from the original pixels: these learn once."""
        seed = run["seed"]
        new = Head(len(task.classes), self.plan.budget, seed)
        if run["share"] < 1 or (run["learnt_from"] == SAME and run["input"] != "original"):
            return new.fit(seen.units, labels)
        if (task.name, seed) not in self._heads:
            self._heads[task.name, seed] = new.fit(of_pixels(task.pictures, task.finer), labels)
        return self._heads[task.name, seed]

    def _seen(self, task: Task, wanted: Input) -> Seen:
        if wanted.bundle is None:
            return Seen(1.0, of_pixels(task.pictures, task.finer), task.pictures)
        coder = self.coders[wanted.bundle]
        content = digest_of(task.pictures, task.valid)
        name = f"{content}-{coder.bundle.bundle_id:08x}-{wanted.kind}-{wanted.cr or 'own'}"
        found = self.kept.arrays(name, lambda: _made(coder.code(task.pictures, wanted.cr, task.valid), wanted.kind))
        cr = float(found.pop("cr"))
        if wanted.kind == "features":
            levels = {int(stride): values for stride, values in found.items()}
            return Seen(cr, of_features(levels, len(coder.bundle.bands)))
        return Seen(cr, of_pixels(found["pixels"], task.finer), found["pixels"])

    def result(self) -> dict[str, Any]:
        """What tasks.json holds."""
        rows = [row for name in self.request.tasks for row in self.kept.rows if row["task"] == name]
        tasks = {name: _about(self.task(name)) for name in self.request.tasks}
        found = {"schema": SCHEMA, "plan": asdict(self.plan), "bundles": list(self.request.bundles),
                 "profile": self.request.profile, "decoder": self.request.decoder, "tasks": tasks,
                 "summary": summary(rows, tasks), "rows": rows}  # fmt: skip
        return found | ({"second_looks": second_looks(self.request.data)} if "mangrove" in tasks else {})


def _one_thread_each() -> AbstractContextManager[object]:
    """Small matrices are multiplied by one thread: the others are at work on other heads."""
    try:
        limits: AbstractContextManager[object] = importlib.import_module("threadpoolctl").threadpool_limits(1)
    except ModuleNotFoundError:
        raise InputError("scikit-learn is not installed; pip install 'nadir-payload[features]'") from None
    return limits


def _drawn(run: Run) -> tuple[float, int]:
    """Which share of the labels a head learns from, and by which draw; all of them are one."""
    return run["share"], run["seed"] if run["share"] < 1 else 0


def _made(coded: Coded, kind: str) -> Arrays:
    """What is kept of pictures that were coded."""
    if kind == "features":
        return {"cr": np.array(coded.cr), **{str(stride): values for stride, values in coded.features.items()}}
    return {"cr": np.array(coded.cr), "pixels": coded.pixels}


def _about(task: Task) -> dict[str, Any]:
    return {"title": task.title, "metric": task.metric, "classes": list(task.classes), "note": task.note,
            "pictures": len(task.pictures)}  # fmt: skip


def scene_task(name: str, data: Path) -> Task:
    """Scene classification as a task without labels a pixel."""
    scenes = load_scenes(data)
    none = np.zeros((len(scenes.pictures), 1, 1), np.uint8)
    return Task(name, "Scene classification", scenes.pictures, none, none, scenes.names, "micro_f1", scores.binary,
                scenes.note)  # fmt: skip
