"""The campaign: trials of every row, over processes, so that one that ends in a segmentation fault is counted and the
rest goes on. Every trial has a random stream of its own, made of seed, row and number: the order does not matter."""

import multiprocessing
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from typing import Any
from zlib import crc32

import numpy as np

from hil.devices.targets import Target
from payload.errors import InputError
from sim.faults import memory
from sim.faults.outcomes import Outcome, Row, row_of
from sim.faults.rates import environment
from sim.faults.rows import ROWS, RowKind, chosen
from sim.mission.devices import load_device
from sim.progress import Progress

#: Trials that a process is handed at once, and how long one may take: a tenth of a second on a machine of its own, but
#: minutes until the first one begins on a machine that has better things to do.
CHUNK, LONGEST_S = 50, 600.0
LEAST_TRIALS = 4


@dataclass(frozen=True)
class Question:
    """What is to be tried."""

    rows: tuple[str, ...] = ("memory", "channel", "process", "model")
    trials: int = 200
    jobs: int = 1
    seed: int = 0
    device: str = "myriad2"  # whose power turns time into energy


@dataclass(frozen=True)
class Task:
    """Trials of a row from `first` on."""

    row: str
    first: int
    count: int
    seed: int


@dataclass(eq=False)
class _Worker:
    """A process with trials in it. Results come one by one, so that it is known in which of them it ended."""

    process: Any
    pipe: Connection
    task: Task | None = None
    done: int = 0
    since: float = field(default_factory=time.monotonic)


def trial_of(row: str, number: int, seed: int) -> Outcome:
    """One trial, by itself: what a campaign told can be looked at again."""
    return ROWS[row].trial(np.random.default_rng([seed, crc32(row.encode()), number]))


def run(question: Question, advance: Progress) -> dict[str, Any]:
    """All rows: what faults.json holds."""
    if question.trials < 1 or question.jobs < 1:
        raise InputError(f"{question.trials} trials in {question.jobs} jobs, wanted 1 or more of both")
    rows = chosen(list(question.rows))
    counts = {row.name: max(LEAST_TRIALS, round(question.trials * row.share)) for row in rows}
    outcomes: dict[str, list[Outcome]] = {row.name: [] for row in rows}
    start = time.perf_counter()
    for name, outcome in _outcomes(_tasks(counts, question.seed), question.jobs):
        outcomes[name].append(outcome)
        advance(name, sum(counts.values()))
    power_w = _power_w(question.device)
    found = [row_of(row.name, outcomes[row.name], row.strict, power_w, _upsets(row)) for row in rows]
    return {
        "question": {"rows": list(question.rows), "trials": question.trials, "seed": question.seed},
        "device": {"name": question.device, "power_w": power_w, "basis": "modelled"},
        "environment": {**vars(environment()), "saa_factor": environment().saa_factor},
        "rows": [row.as_dict() for row in found],
        "seconds": time.perf_counter() - start,
        "failed": [row.name for row in found if not row.held],
        "window": _window(found),
    }


def _window(rows: list[Row]) -> dict[str, int]:
    """Of all flips in held memory with the guard on: how many had spoilt a tile before the next scrub."""
    held = [row for row in rows if row.name.endswith("/on") and row.upsets_a_day is not None]
    return {"flips": sum(r.trials for r in held), "spoilt_and_held_back": sum(r.window for r in held)}


def _tasks(counts: dict[str, int], seed: int) -> deque[Task]:
    return deque(
        Task(name, first, min(CHUNK, count - first), seed)
        for name, count in counts.items() for first in range(0, count, CHUNK)
    )  # fmt: skip


def _outcomes(tasks: deque[Task], jobs: int) -> Iterator[tuple[str, Outcome]]:
    workers = [_started() for _ in range(min(jobs, len(tasks)))]
    try:
        while tasks or any(worker.task for worker in workers):
            for worker in workers:
                if worker.task is None and tasks:
                    _hand(worker, tasks.popleft())
            ready = wait([worker.pipe for worker in workers if worker.task], timeout=1.0)
            for place, worker in enumerate(workers):
                if worker.task is None:
                    continue
                hung = time.monotonic() - worker.since > LONGEST_S
                if worker.pipe in ready or hung:
                    name = worker.task.row
                    outcome = _received(worker, hung)
                    if outcome.crashed:
                        _end(worker)
                        workers[place] = _started()
                        tasks.extendleft(_rest(worker))
                    yield name, outcome
    finally:
        for worker in workers:
            _end(worker)


def _hand(worker: _Worker, task: Task) -> None:
    worker.task, worker.done, worker.since = task, 0, time.monotonic()
    worker.pipe.send(task)


def _received(worker: _Worker, hung: bool) -> Outcome:
    """The next outcome of a process; one that ended in its trial, or hangs in it, crashed."""
    assert worker.task is not None
    try:
        outcome = worker.pipe.recv() if not hung else Outcome(False, True, crashed=True, note="hangs")
    except (EOFError, OSError):
        worker.process.join()
        outcome = Outcome(False, True, crashed=True, note=f"exit code {worker.process.exitcode}")
    worker.done, worker.since = worker.done + 1, time.monotonic()
    if worker.done == worker.task.count and not outcome.crashed:
        worker.task = None
    return outcome


def _rest(worker: _Worker) -> list[Task]:
    """What a process that ended has not tried."""
    task = worker.task
    if task is None or worker.done >= task.count:
        return []
    return [Task(task.row, task.first + worker.done, task.count - worker.done, task.seed)]


def _started() -> _Worker:
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_work, args=(there,), daemon=True)
    process.start()
    there.close()
    return _Worker(process, here)


def _end(worker: _Worker) -> None:
    worker.pipe.close()
    worker.process.kill()
    worker.process.join()


def _work(pipe: Connection) -> None:
    """A process: trials of tasks until nobody sends any."""
    while True:
        try:
            task = pipe.recv()
        except EOFError:
            return
        for number in range(task.first, task.first + task.count):
            pipe.send(trial_of(task.row, number, task.seed))


def _power_w(device: str) -> float | None:
    """The middle of a modelled device's power; None where it says none."""
    found = load_device(device)
    return found.figure("power_w").mid if isinstance(found, Target) else None


def _upsets(row: RowKind) -> float | None:
    return None if row.held is None else environment().upsets_a_day(memory.held_octets(*row.held))
