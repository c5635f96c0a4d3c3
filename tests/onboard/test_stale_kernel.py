"""A kernel of another tree is never called: numpy takes its place, and one line says how to mend it."""

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from hostile import sanitized

from payload.native import library, sources

ROOT = Path(__file__).resolve().parents[2]
needs_kernel = pytest.mark.skipif(not library.available, reason="the kernel was not built: no C compiler at install")
INCLUDE = f"-I{sysconfig.get_paths()['include']}"
#: A module that says nothing of its sources.
OLD = """
#include <Python.h>
static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT, "_kernel", NULL, -1, NULL};
PyMODINIT_FUNC PyInit__kernel(void) { return PyModule_Create(&definition); }
"""
ASK = "import payload, payload.native.library as n; print(payload.__file__, n.available)"


def tree(folder: Path) -> Path:
    """The payload as it lies here, with its kernel, in a folder of its own."""
    return Path(shutil.copytree(ROOT / "payload", folder / "payload", ignore=shutil.ignore_patterns("bundles")))


def ask(folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if k != "NADIR_KERNEL"} | {"PYTHONPATH": str(folder)}
    done = subprocess.run(
        [sys.executable, "-c", ASK], cwd=folder, env=environment, capture_output=True, text=True, check=True
    )
    assert str(folder) in done.stdout
    return done


def hand_over(kernel: Path, payload: Path) -> None:
    (installed,) = payload.glob("native/_kernel*.so")
    installed.unlink()
    shutil.copy(kernel, installed)


@needs_kernel
def test_a_kernel_of_these_sources_is_taken_without_a_word(tmp_path) -> None:
    tree(tmp_path)
    done = ask(tmp_path)
    assert done.stdout.endswith("True\n") and done.stderr == ""


@needs_kernel
@pytest.mark.parametrize("chapter", [path.name for path in sources.chapters()])
def test_a_kernel_of_other_sources_is_refused_with_one_line(chapter, tmp_path) -> None:
    """As after an update of the checkout without a build. On the tree before it was called with other arguments."""
    changed = tree(tmp_path) / "native" / chapter
    changed.write_text(changed.read_text() + "/* later */\n")
    done = ask(tmp_path)
    assert done.stdout.endswith("False\n")
    assert done.stderr.count("\n") == 1 and "built from other sources" in done.stderr and "pip install" in done.stderr


@needs_kernel
@pytest.mark.skipif(shutil.which("gcc") is None, reason="no gcc")
def test_a_kernel_older_than_the_check_is_refused(tmp_path) -> None:
    payload, source = tree(tmp_path), tmp_path / "old.c"
    source.write_text(OLD)
    command = ["gcc", "-shared", "-fPIC", INCLUDE, str(source), "-o", str(tmp_path / "old.so")]
    subprocess.run(command, check=True)
    hand_over(tmp_path / "old.so", payload)
    done = ask(tmp_path)
    assert done.stdout.endswith("False\n") and done.stderr.count("\n") == 1


@needs_kernel
def test_without_the_sources_a_kernel_that_says_what_it_was_built_from_is_taken(tmp_path) -> None:
    payload = tree(tmp_path)
    for chapter in sources.chapters(payload / "native"):
        chapter.unlink()
    assert ask(tmp_path).stdout.endswith("True\n")


def test_the_digest_tells_names_and_octets_apart(tmp_path) -> None:
    def of(**files: str) -> str | None:
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        folder.mkdir()
        for name, text in files.items():
            (folder / f"{name}.c").write_text(text)
        return sources.digest(folder)

    digests = [of(a="x"), of(b="x"), of(a="x", b=""), of(a="xb"), of(a="", b="x")]
    assert of() is None and None not in digests and len(set(digests)) == len(digests)


def test_the_kernel_is_not_built_without_saying_of_what(tmp_path) -> None:
    if shutil.which("gcc") is None:
        pytest.skip("no gcc")
    command = ["gcc", "-fsyntax-only", INCLUDE, str(sanitized.SOURCE)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode != 0 and "NADIR_SOURCES is missing" in done.stderr
