"""Places of a source file where an operator of cosmic-ray can change one thing, and the file so changed.

Left out, since such a mutant fails on import whatever the tests say and would flatter the count: annotations, unions of
types, and arithmetic on strings (paths, messages). Left out, since no test could notice: options of @dataclass, which
guard and do not compute, and floats of a thousand and more, which one more or less changes by less than any figure is
rounded.
"""

import ast
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code
from cosmic_ray.plugins import get_operator

#: Families of operators: a place is drawn first, then one operator of its family. Of cosmic-ray's replacements those
#: that a person could mistake: a neighbour for a comparison, the inverse for arithmetic.
FAMILIES = {
    "number": ("NumberReplacer",),
    "arithmetic": tuple(
        f"ReplaceBinaryOperator_{pair}"
        for pair in (
            "Add_Sub", "Sub_Add", "Mul_Div", "Div_Mul", "FloorDiv_Mul", "Mod_Mul", "Pow_Mul", "LShift_RShift",
            "RShift_LShift", "BitOr_BitAnd", "BitAnd_BitOr", "BitXor_BitAnd",
        )
    ),
    "comparison": tuple(
        f"ReplaceComparisonOperator_{pair}"
        for pair in (
            "Lt_LtE", "Lt_GtE", "LtE_Lt", "LtE_Gt", "Gt_GtE", "Gt_LtE", "GtE_Gt", "GtE_Lt", "Eq_NotEq", "NotEq_Eq",
            "Is_IsNot", "IsNot_Is",
        )
    ),
    "sign": ("ReplaceUnaryOperator_USub_UAdd", "ReplaceUnaryOperator_Delete_Not", "ReplaceUnaryOperator_Invert_UAdd"),
    "condition": ("AddNot",),
    "logic": ("ReplaceAndWithOr", "ReplaceOrWithAnd", "ReplaceTrueWithFalse", "ReplaceFalseWithTrue"),
    "flow": ("ZeroIterationForLoop", "ReplaceBreakWithContinue", "ReplaceContinueWithBreak", "ExceptionReplacer"),
}  # fmt: skip


LARGE = 1000.0


@dataclass(frozen=True)
class Mutant:
    """One change: an operator at its `occurrence` in a file. `name` stays the same while other lines change."""

    file: str  # relative to the root
    line: int
    operator: str
    occurrence: int
    name: str

    def source(self, root: Path) -> str:
        """The text of the file with this one change."""
        changed = mutate_code(
            (root / self.file).read_text(encoding="utf-8"), get_operator(f"core/{self.operator}")(), self.occurrence
        )
        if changed is None:
            raise ValueError(f"{self.name}: no such place in the file as it is now")
        return changed


@dataclass(frozen=True)
class Rewritten:
    """One change written down by hand: some words of one line replaced by others."""

    file: str
    line: int
    name: str
    was: str
    becomes: str

    @classmethod
    def of(cls, root: Path, entry: dict[str, str]) -> "Rewritten":
        """From its entry in named.toml. ValueError where the words are not once in the file any more."""
        text = (root / entry["file"]).read_text(encoding="utf-8")
        if text.count(entry["was"]) != 1:
            raise ValueError(f"named.toml: {entry['file']} holds {entry['was']!r} {text.count(entry['was'])} times")
        line = text[: text.index(entry["was"])].count("\n") + 1
        return cls(entry["file"], line, f"{entry['file']}: {entry['about']}", entry["was"], entry["is"])

    def source(self, root: Path) -> str:
        return (root / self.file).read_text(encoding="utf-8").replace(self.was, self.becomes)


def places(root: Path, file: str) -> list[list[Mutant]]:
    """The mutants of each place where something can be changed, in the order of the file."""
    text = (root / file).read_text(encoding="utf-8")
    lines, nodes, left_out = text.splitlines(), list(ast_nodes(get_ast(text))), list(_left_out(text))
    found: dict[tuple[int, int, str], list[tuple[str, int]]] = defaultdict(list)
    for family, names in FAMILIES.items():
        for name in names:
            operator = get_operator(f"core/{name}")()
            starts = (start for node in nodes for start, _ in operator.mutation_positions(node))
            for occurrence, (line, column) in enumerate(starts):
                if not any(first <= (line, column) < last for first, last in left_out):
                    found[line, column, family].append((name, occurrence))
    seen: Counter[str] = Counter()
    return [
        [Mutant(file, line, name, occurrence, f"{where} {name}") for name, occurrence in mutants]
        for (line, column, family), mutants in sorted(found.items())
        for where in [_named(file, lines[line - 1], column, family, seen)]
    ]


def _named(file: str, line: str, column: int, family: str, seen: Counter[str]) -> str:
    """A name for a place that does not change with its line number: what the line says, and which of its like it is."""
    text = line.strip()
    name = f"{file}: {text} @{column - len(line) + len(line.lstrip())} {family}"
    seen[name] += 1
    return f"{name} #{seen[name]}"


def _left_out(text: str) -> Iterator[tuple[tuple[int, int], tuple[int, int]]]:
    """(start, end) of expressions that are not mutated, as (line, column in characters)."""
    lines = text.splitlines()

    def at(line: int | None, octets: int | None) -> tuple[int, int]:
        assert line is not None and octets is not None
        return line, len(lines[line - 1].encode()[:octets].decode())

    for node in ast.walk(ast.parse(text)):
        for part in _unfit(node):
            yield at(part.lineno, part.col_offset), at(part.end_lineno, part.end_col_offset)


def _unfit(node: ast.AST) -> Iterator[ast.expr]:
    if isinstance(node, ast.ClassDef):
        yield from (decorator for decorator in node.decorator_list if isinstance(decorator, ast.Call))
    if isinstance(node, ast.Constant) and isinstance(node.value, float) and abs(node.value) >= LARGE:
        yield node
    if isinstance(node, ast.arg | ast.AnnAssign) and node.annotation is not None:
        yield node.annotation
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.returns is not None:
        yield node.returns
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("isinstance", "cast"):
        yield from node.args
    if isinstance(node, ast.BinOp) and any(_is_text(side) for side in (node.left, node.right)):
        yield node
    if isinstance(node, ast.Assign) and isinstance(node.value, ast.BinOp) and isinstance(node.value.op, ast.BitOr):
        yield node.value  # a union under a name


def _is_text(node: ast.expr) -> bool:
    return isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str))
