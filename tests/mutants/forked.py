"""Tests in a fork of this process, which holds the libraries already: a run costs a fraction of a second, not seconds.

The fork imports the code under test itself, from the tree that it is given.
"""

import contextlib
import importlib
import multiprocessing
import os
import signal
import sys
from pathlib import Path

#: What the tests import of others, worth having before the fork. What is not installed is left out.
LIBRARIES = (
    "numpy", "scipy.ndimage", "scipy.stats", "scipy.interpolate", "openvino", "constriction", "spacepackets",
    "rasterio", "rasterio.warp", "imagecodecs", "typer.testing", "rich.console", "jinja2", "PIL.Image",
    "matplotlib.figure", "hypothesis.extra.numpy", "pytest", "sgp4.api", "skimage", "sklearn.cluster",
    "onnxruntime", "skyfield.api",
)  # fmt: skip
WORKSHOP = ("torch", "onnx", "brevitas.nn")


def import_libraries(names: tuple[str, ...]) -> None:
    for name in names:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)


def pytest(tree: Path, tests: list[str], log: Path, limit_s: float, environment: dict[str, str]) -> int | None:
    """Exit code of pytest over `tests` in `tree`, its words in `log`. None: it did not end in time."""
    child = multiprocessing.get_context("fork").Process(target=_run, args=(tree, tests, log, environment))
    child.start()
    child.join(limit_s)
    if child.is_alive():
        assert child.pid is not None
        os.killpg(child.pid, signal.SIGKILL)
        child.join()
        return None
    return child.exitcode


def _run(tree: Path, tests: list[str], log: Path, environment: dict[str, str]) -> None:
    import hypothesis
    import pytest as library

    found_is_enough = [hypothesis.Phase.explicit, hypothesis.Phase.generate]  # no shrinking, which takes minutes
    hypothesis.settings.register_profile(
        "mutants", deadline=None, derandomize=True, database=None, phases=found_is_enough
    )
    hypothesis.settings.load_profile("mutants")
    os.setpgid(0, 0)  # of its own, so that all it starts can be ended; the session stays, and its priority with it
    os.chdir(tree)
    os.environ.update(environment)
    with log.open("w", encoding="utf-8") as words:
        os.dup2(words.fileno(), 1)
        os.dup2(words.fileno(), 2)
    sys.stdin = open(os.devnull, encoding="utf-8")  # noqa: SIM115, PTH123 - for as long as the fork lives
    sys.dont_write_bytecode = True
    sys.path[:0] = [str(tree)]
    code = library.main(["-x", "-q", "-rfE", "--tb=line", "-p", "no:cacheprovider", "-p", "no:randomly", *tests])
    sys.stdout.flush()
    os._exit(int(code))
