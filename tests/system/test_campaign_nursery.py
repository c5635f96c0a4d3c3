"""Workers are forked from one process that has imported what they need, and has begun no thread."""

import os
import subprocess
import sys
from pathlib import Path

import dask
import pytest

from sim.campaign import nursery
from sim.campaign.jobs import DO

ROOT = Path(__file__).resolve().parents[2]
pytest.importorskip("distributed")
pytestmark = pytest.mark.skipif(not nursery.settings(), reason="no fork here")


def test_workers_find_the_environment_that_dask_would_give_them() -> None:
    wanted = dask.config.get("distributed.nanny.pre-spawn-environ")
    assert nursery.SURROUNDINGS.items() <= {name: str(value) for name, value in wanted.items()}.items()
    assert set(nursery.SURROUNDINGS) == set(wanted)


def test_every_job_has_its_modules() -> None:
    assert set(nursery.MODULES) == set(DO)


def in_a_nursery(kind: str, script: str) -> str:
    """What a script says that imports what the process does that workers of a job are forked from."""
    imports = "\n".join(f"import {name}" for name in nursery.modules(kind))
    environment = os.environ | nursery.SURROUNDINGS
    done = subprocess.run(
        [sys.executable, "-c", f"{imports}\n{script}"], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="threads are not listed here")
@pytest.mark.parametrize("kind", sorted(DO))
def test_it_begins_no_thread(kind: str) -> None:
    """A fork has only the thread that called it: locks that others hold would never open again."""
    assert in_a_nursery(kind, "import os; print(len(os.listdir('/proc/self/task')))") == "1"


def test_a_scene_then_imports_nothing_large(tmp_path) -> None:
    """What workers import after all, each for itself, with a runtime that may begin threads: openvino, and no more."""
    script = f"""
import sys
from pathlib import Path
from sim.campaign.items import Item
from sim.campaign.jobs import Job, run
Path({str(tmp_path / "rows")!r}).mkdir()
before = set(sys.modules)
assert run(Item("demo:64"), Job("downlink", "phisat2"), {str(tmp_path)!r})["state"] == "done"
late = {{name.partition(".")[0] for name in set(sys.modules) - before}}
print(*sorted(late & {{"scipy", "rasterio", "matplotlib", "jinja2", "PIL", "sim", "distributed"}}))
"""
    assert in_a_nursery("downlink", script) == ""

