"""The workshop's rooms: no import circle, no private name and no typing-only import between its own files."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

EXPORT = Path(__file__).resolve().parents[2] / "export"
OWN = ("export", "payload")


def modules() -> dict[str, ast.Module]:
    return {
        path.relative_to(EXPORT.parent).as_posix(): ast.parse(path.read_text(encoding="utf-8"))
        for path in sorted(EXPORT.rglob("*.py"))
    }


def own_imports(tree: ast.AST) -> Iterator[ast.ImportFrom]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in OWN:
            yield node


def test_no_private_name_crosses_a_file() -> None:
    crossing = [
        f"{file}: {node.module}.{alias.name}"
        for file, tree in modules().items()
        for node in own_imports(tree)
        for alias in node.names
        if alias.name.startswith("_")
    ]
    assert crossing == []


def test_no_import_of_our_own_is_for_the_type_checker_alone() -> None:
    hidden = [
        f"{file}: {imported.module}"
        for file, tree in modules().items()
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and isinstance(block.test, ast.Name) and block.test.id == "TYPE_CHECKING"
        for imported in own_imports(block)
    ]
    assert hidden == []


def test_no_import_circle() -> None:
    grimp = pytest.importorskip("grimp")
    graph = grimp.build_graph("export")
    circles = [
        (one, other)
        for one in graph.modules
        for other in graph.find_modules_directly_imported_by(one)
        if graph.chain_exists(other, one)
    ]
    assert circles == []


def test_files_and_folders_stay_small() -> None:
    lines = {file: len(Path(EXPORT.parent, file).read_text(encoding="utf-8").splitlines()) for file in modules()}
    assert {file: n for file, n in lines.items() if n > 400 and "/clouds/" not in file} == {}
    folders = [Path(file).parent for file in modules()]
    assert max(folders.count(folder) for folder in folders) <= 14
