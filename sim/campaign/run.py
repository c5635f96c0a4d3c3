"""A campaign on Dask: items go out to workers a few at a time, rows come back in whatever order, and are kept at once.

Restartable: a row is a file by the digest of its item and job, written when its scene is whole. A worker that dies
takes only the scene in its hands with it, which goes to another one.
"""

import contextlib
import importlib
import json
import logging
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from payload.errors import InputError
from sim.campaign import jobs, nursery
from sim.campaign.items import Item
from sim.campaign.jobs import Job
from sim.progress import Progress

#: Items that wait at the scheduler for each worker: one in hand, and one so that it need not wait.
AHEAD = 2
#: Deaths of a worker after which the scene it had is taken for the cause.
DEATHS = 3
#: Dask keeps profiles and logs of its workers, which grow for an hour, and looks after its processes up to fifty times
#: a second, which took some hundredths of the host. Nobody looks at any of it here; a worker over its memory is still
#: found within a second.
SETTINGS = {
    "distributed.scheduler.allowed-failures": DEATHS, "distributed.comm.timeouts.connect": "60s",
    "distributed.worker.profile.enabled": False, "distributed.admin.log-length": 100,
    "distributed.admin.low-level-log-length": 100, "distributed.admin.system-monitor.log-length": 100,
    "distributed.admin.tick.interval": "500ms", "distributed.admin.system-monitor.interval": "5s",
    "distributed.worker.memory.monitor-interval": "1s",
}  # fmt: skip


@dataclass
class Outcome:
    """How a campaign went. Rows themselves are on disk."""

    done: int = 0
    skipped: int = 0
    retried: int = 0
    failed: list[dict[str, Any]] = field(default_factory=list)
    not_held: int = 0


def dask() -> Any:
    """dask.distributed. InputError, with the extra's name, where it is not installed."""
    try:
        return importlib.import_module("distributed")
    except ModuleNotFoundError:
        raise InputError("distributed is not installed; pip install 'nadir-payload[campaign]'") from None


@contextlib.contextmanager
def cluster(scheduler: str | None, workers: int, memory: str) -> Iterator[Any]:
    """A client of the scheduler at an address, or of workers on this host, each a process with bounded memory."""
    distributed = dask()
    config = importlib.import_module("dask").config
    logging.getLogger("distributed").setLevel(logging.CRITICAL)  # what goes wrong is said by the rows
    with config.set(SETTINGS | nursery.settings()):
        if scheduler is not None:
            try:
                client = distributed.Client(scheduler, timeout="20s")
            except (OSError, ValueError) as error:
                raise InputError(
                    f"{scheduler}: no scheduler answers ({str(error)[:100]}); start one, or leave it out"
                ) from None
            with client:
                yield client
            return
        with (
            distributed.LocalCluster(
                n_workers=workers, threads_per_worker=1, processes=True, memory_limit=memory,
                dashboard_address="127.0.0.1:0", silence_logs=50,
            ) as local,
            distributed.Client(local) as client,
        ):  # fmt: skip
            yield client


def campaign(items: Sequence[Item], job: Job, out: Path, client: Any, retries: int, progress: Progress) -> Outcome:
    """Every item once. Failures are kept with their reason and tried again, last, `retries` times."""
    for name in (jobs.ROWS, jobs.SCENES):
        (out / name).mkdir(parents=True, exist_ok=True)
    outcome = Outcome()
    again = [(item, 0) for item in dict.fromkeys(items)]
    while again:
        waiting, again = deque(again), []
        for item, tries, row in _rows(waiting, job, out, client):
            if row["state"] == "failed" and tries < retries and row.pop("worth_another_try", True):
                again.append((item, tries + 1))
                outcome.retried += 1
                continue
            _count(outcome, row | {"tries": tries + 1})
            progress("scenes", len(items))
    jobs.write_whole(out / "failures.json", json.dumps(outcome.failed, indent=1) + "\n")
    return outcome


def _count(outcome: Outcome, row: dict[str, Any]) -> None:
    if row["state"] == "failed":
        outcome.failed.append({key: row.get(key) for key in ("scene", "seed", "reason", "tries")})
        return
    outcome.skipped += row["skipped"]
    outcome.done += not row["skipped"]
    outcome.not_held += not row.get("held", True)


def _rows(
    waiting: deque[tuple[Item, int]], job: Job, out: Path, client: Any
) -> Iterator[tuple[Item, int, dict[str, Any]]]:
    """Rows as they come. No more than AHEAD items a worker are at the scheduler, however long the catalogue."""
    distributed = dask()
    held: dict[str, tuple[Item, int]] = {}
    finished = distributed.as_completed(loop=client.loop)
    while waiting or held:
        room = AHEAD * max(1, len(client.scheduler_info(n_workers=-1)["workers"])) - len(held)
        for _ in range(min(room, len(waiting))):
            item, tries = waiting.popleft()
            future = client.submit(
                jobs.run, item, job, str(out.resolve()), pure=False, key=f"{item.scene}-{id(item)}-{tries}"
            )
            held[future.key] = item, tries
            finished.add(future)
        future = next(finished)
        item, tries = held.pop(future.key)
        yield item, tries, _row(future, item)
        future.release()


def _row(future: Any, item: Item) -> dict[str, Any]:
    """Its result; or why there is none: its workers died, or the scheduler gave up."""
    error = future.exception()
    if error is None:
        return dict(future.result())
    reason = f"{type(error).__name__}: {str(error)[:300]}"
    return {"state": "failed", "reason": reason, "scene": item.scene, "seed": item.seed, "skipped": False}
