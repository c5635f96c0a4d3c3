"""Which tests run a line, and in what order they are tried: the quick ones that run little else first."""

import ast
import json
from collections import Counter, defaultdict
from difflib import SequenceMatcher
from functools import cached_property
from pathlib import Path

from coverage import CoverageData

Span = tuple[int, int]  # first and last line
#: Line -> contexts (`contexts.py`) that ran it; "" is what ran on import.
Contexts = dict[int, set[str]]
WHOLE_FILE: Span = (1, 1_000_000)


class Measurement:
    """One run of tests under coverage: a folder with the data, the tests that passed, and the sources as they were."""

    def __init__(self, folder: Path) -> None:
        self._sources = folder / "sources"
        self.seconds: dict[str, float] = json.loads((folder / "passed.json").read_text(encoding="utf-8"))
        self._data = CoverageData(str(folder / "coverage"))
        self._data.read()
        #: Name in the repository -> as it was measured, in a copy of it.
        self.files = {file.rpartition("/tree/")[2]: file for file in self._data.measured_files()}

    def contexts(self, file: str, text: str) -> Contexts:
        """Of a file that reads `text` now: lines that have changed since have none."""
        if file not in self.files:
            return {}
        then = (self._sources / file).read_text(encoding="utf-8").splitlines()
        told = self._data.contexts_by_lineno(self.files[file])
        same = SequenceMatcher(None, then, text.splitlines(), autojunk=False).get_matching_blocks()
        moved = {block.a + i + 1: block.b + i + 1 for block in same for i in range(block.size)}
        return {moved[line]: set(contexts) for line, contexts in told.items() if line in moved}


class Covering:
    """The map from lines to tests, as one or several measurements left it; of one test the last counts.

    A line that no test runs itself, since it ran on import (a constant, a default) or is new, has the tests of the
    function, class or module around it, and a module of nothing but constants those of the modules that import it.
    """

    def __init__(self, root: Path, folders: list[Path]) -> None:
        self.root = root
        self._measured = [Measurement(folder) for folder in folders]
        self.seconds = {test: s for measured in self._measured for test, s in measured.seconds.items()}
        self._lines: dict[str, Contexts] = {}

    def tests(self, file: str, line: int) -> list[str]:
        """Ids of the tests that run `line` of `file`, in the order in which they are worth trying."""
        statement, *around = _spans(ast.parse(self._text(file)), line)
        found = self._tests(file, statement)
        if not found:
            wider = (self._tests(file, span) for span in (*around, WHOLE_FILE))
            found = self._beside(next((tests for tests in wider if tests), set()) or self._tests_of_importers(file))
        return sorted(found, key=lambda test: ((self.seconds[test] + 1) * (self._breadth[test] + 100), test))

    def _tests(self, file: str, span: Span) -> set[str]:
        told = [context.rpartition("|") for context in self._within(file, span)]
        run = {test for test, _, phase in told if phase == "run"}
        shared = {test.partition("::")[0] for test, _, phase in told if phase == "setup"}
        return {test for test in self.seconds if test in run or test.partition("::")[0] in shared}

    def _beside(self, tests: set[str]) -> set[str]:
        """These and every test of their files: one may look at a constant and run no line of its module."""
        homes = {test.partition("::")[0] for test in tests}
        return {test for test in self.seconds if test.partition("::")[0] in homes}

    def _tests_of_importers(self, file: str) -> set[str]:
        module = file.removesuffix(".py").replace("/", ".")
        importers = [other for other in self._files if _imports(self._text(other), module)]
        return {test for importer in importers for test in self._tests(importer, WHOLE_FILE)}

    def _within(self, file: str, span: Span) -> set[str]:
        return {c for line, cs in self._of(file).items() if span[0] <= line <= span[1] for c in cs}

    def _of(self, file: str) -> Contexts:
        if file not in self._lines:
            merged: Contexts = defaultdict(set)
            for measured in self._measured:
                for line, contexts in measured.contexts(file, self._text(file)).items():
                    merged[line] |= contexts
            self._lines[file] = merged
        return self._lines[file]

    def _text(self, file: str) -> str:
        return (self.root / file).read_text(encoding="utf-8")

    @cached_property
    def _files(self) -> list[str]:
        known = {file for measured in self._measured for file in measured.files}
        return sorted(file for file in known if file.endswith(".py") and (self.root / file).is_file())

    @cached_property
    def _breadth(self) -> Counter[str]:
        """Test -> how many lines of all files it runs."""
        lines = (contexts for file in self._files for contexts in self._of(file).values())
        return Counter(context.rpartition("|")[0] for contexts in lines for context in contexts)


def _spans(tree: ast.Module, line: int) -> list[Span]:
    """The statement at `line` (of a compound one its head), then the functions and classes around it, inside first."""
    around = [n for n in ast.walk(tree) if isinstance(n, ast.stmt) and _first_line(n) <= line <= (n.end_lineno or 0)]
    homes = [n for n in reversed(around) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)]
    return [_head(around[-1]), *((_first_line(node), node.end_lineno or 0) for node in homes)]


def _first_line(node: ast.stmt) -> int:
    return min([node.lineno, *(d.lineno for d in getattr(node, "decorator_list", []))])


def _head(node: ast.stmt) -> Span:
    body = getattr(node, "body", None)
    last = body[0].lineno - 1 if body else node.end_lineno or node.lineno
    return _first_line(node), max(last, node.lineno)


def _imports(text: str, module: str) -> bool:
    return any(
        (isinstance(node, ast.ImportFrom) and node.module is not None and module in (node.module, *_below(node)))
        or (isinstance(node, ast.Import) and any(alias.name == module for alias in node.names))
        for node in ast.walk(ast.parse(text))
    )


def _below(node: ast.ImportFrom) -> list[str]:
    return [f"{node.module}.{alias.name}" for alias in node.names]
