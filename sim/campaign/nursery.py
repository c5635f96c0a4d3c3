"""Where workers come from: one process imports what a job needs, once, and every worker is a fork of it.

Two workers that import for themselves take twice the processor's time before their first scene. The process begins to
import before the scheduler starts, which takes as long. It begins no thread, which a fork would lose: runtimes are
opened and networks compiled by each worker.
"""

import gc
import importlib
import multiprocessing
import os
from multiprocessing import forkserver

METHOD = "forkserver"
#: What a worker that is forked can no longer set for itself. As Dask sets it for a worker that starts anew; a test
#: holds the two together.
SURROUNDINGS = {
    "MALLOC_TRIM_THRESHOLD_": "65536", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1",
}  # fmt: skip
#: What every worker imports: what Dask runs it by, the command line, which it begins with as its parent did, and jobs.
COMMON = ("distributed", "sim.cli", "sim.campaign.jobs")
#: What each job imports.
MODULES = {
    "downlink": ("sim.campaign.warm_downlink",),
    "archive": ("sim.archive.service", "sim.scenes.open_scene"),
    "verify": ("sim.verify.verify",),
}


def begin(kind: str) -> None:
    """Begins to import what workers of a job need, and returns at once. Nothing where the system has no fork."""
    if METHOD not in multiprocessing.get_all_start_methods():
        return
    for name, value in SURROUNDINGS.items():
        os.environ.setdefault(name, value)  # what the user has set stands, as with Dask
    forkserver.set_forkserver_preload(modules(kind))
    forkserver.ensure_running()


def modules(kind: str) -> list[str]:
    """What is imported for a job: its own, and what each job needs where that is not among it."""
    return [*MODULES[kind], *COMMON]


def import_all(*names: str) -> None:
    """Imports modules, and leaves what they made to every fork. The garbage collector would go through all of it again
    and again, a tenth of the time, and find nothing; later it would copy what forks share."""
    gc.disable()
    for name in names:
        importlib.import_module(name)
    gc.freeze()
    gc.enable()


def settings() -> dict[str, str]:
    """What Dask has to be told."""
    there = METHOD in multiprocessing.get_all_start_methods()
    return {"distributed.worker.multiprocessing-method": METHOD} if there else {}
