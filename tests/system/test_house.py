"""The house: small rooms, no circles, nothing private across a file, and a picture that agrees with the imports."""

import ast
import importlib.util
from collections.abc import Iterator
from pathlib import Path

import grimp
import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("payload", "sim", "hil", "export", "nadir")
LONGEST_FILE, FULLEST_FOLDER = 400, 14
FILES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))


def own_imports(path: Path) -> Iterator[tuple[str, str]]:
    """(module, name) of every `from <own module> import name` in a file."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.partition(".")[0] in PACKAGES:
            yield from ((node.module, alias.name) for alias in node.names)


def test_no_file_is_too_long_and_no_folder_too_full() -> None:
    long = {str(p.relative_to(ROOT)): n for p in FILES if (n := len(p.read_text().splitlines())) > LONGEST_FILE}
    folders = {path.parent for path in FILES}
    full = {str(f.relative_to(ROOT)): n for f in folders if (n := len(list(f.glob("*.py")))) > FULLEST_FOLDER}
    assert (long, full) == ({}, {})


def test_nothing_private_crosses_a_file() -> None:
    crossing = [f"{path.relative_to(ROOT)}: {m}.{n}" for path in FILES for m, n in own_imports(path) if n[0] == "_"]
    assert [c for c in crossing if not c.endswith("_kernel")] == []  # the compiled module is named so by its build


def behind_type_checking(path: Path) -> list[str]:
    """Own modules that a file imports for type checkers alone: a circle that hides."""
    nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    blocks = [n for n in nodes if isinstance(n, ast.If) and "TYPE_CHECKING" in ast.dump(n.test)]
    hidden = [n.module or "" for block in blocks for n in ast.walk(block) if isinstance(n, ast.ImportFrom)]
    return [module for module in hidden if module.partition(".")[0] in PACKAGES]


def test_no_own_import_hides_behind_type_checking() -> None:
    assert {str(path): found for path in FILES if (found := behind_type_checking(path))} == {}


def test_modules_import_each_other_in_no_circle() -> None:
    graph = grimp.build_graph(*PACKAGES)
    knows = {m: {i for i in graph.find_modules_directly_imported_by(m) if i != m} for m in graph.modules}
    while free := {module for module, below in knows.items() if not below & knows.keys()}:
        knows = {module: below for module, below in knows.items() if module not in free}
    assert sorted(knows) == []


def test_the_picture_of_the_rooms_is_what_the_imports_say() -> None:
    path = ROOT / "tests" / "golden" / "rooms.py"
    spec = importlib.util.spec_from_file_location("rooms", path)
    assert spec is not None and spec.loader is not None
    rooms = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(rooms)
    assert rooms.draw() == rooms.PICTURE.read_text(encoding="utf-8"), "python tests/golden/rooms.py draws it anew"


@pytest.mark.parametrize("page", ["sim/downlink.py", "payload/pipeline.py"])
def test_the_two_pages_that_tell_the_flow_fit_on_a_page(page: str) -> None:
    assert len((ROOT / page).read_text(encoding="utf-8").splitlines()) <= 200


def test_the_flow_of_the_ground_is_told_in_150_lines() -> None:
    assert len((ROOT / "sim" / "downlink.py").read_text(encoding="utf-8").splitlines()) <= 150


