"""The ground asks numpy for one thread before numpy is loaded, and leaves a number that the user has set."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = "import sim.cli, os, sys; assert 'numpy' in sys.modules; print(os.environ['OPENBLAS_NUM_THREADS'])"


@pytest.mark.parametrize(("already", "then"), [({}, "1"), ({"OPENBLAS_NUM_THREADS": "2"}, "2")])
def test_blas_gets_one_thread_unless_told_otherwise(already: dict[str, str], then: str) -> None:
    environment = {key: value for key, value in os.environ.items() if "NUM_THREADS" not in key} | already
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == then


def test_the_package_itself_does_not_load_numpy_first() -> None:
    script = "import sim, sys; print('numpy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
