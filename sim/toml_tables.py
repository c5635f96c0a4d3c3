"""TOML files -> frozen dataclasses: every mistake is named with its file and table, what was found, what was wanted.

The dataclass is the schema: its fields are the keys, its annotations the types, its defaults what may be left out, and
its own checks (`__post_init__`) the ranges. Nothing is listed twice.
"""

import dataclasses
import difflib
import json
import math
import re
import stat
import tomllib
import types
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from payload.errors import InputError

T = TypeVar("T")

#: The missions that ship have 5 KB and keys of 3 parts; reports of a granule with 1849 tiles have 0.7 MB.
MOST_TOML_OCTETS, DEEPEST_KEY = 2**18, 32
MOST_JSON_OCTETS = 2**26
#: Whole numbers in a TOML file, which are unbounded there.
LARGEST_INT = 2**63

_WANTED = {
    float: "a number",
    int: "a whole number",
    bool: "true or false",
    str: "a string",
    datetime: "a date and time with its zone, like 2026-06-21T00:00:00Z",
}


def check_range(name: str, value: float | None, low: float, high: float) -> None:
    """InputError unless low <= value <= high; None, a field left out, passes."""
    if value is not None and not low <= value <= high:
        raise InputError(f"{name} is {value:g}, wanted {low:g} to {high:g}")


def read_toml(path: Path) -> dict[str, Any]:
    """The tables of a TOML file. It is bounded before it is parsed: a large or deep one takes minutes and gigabytes."""
    text = read_text(path, MOST_TOML_OCTETS, "a TOML file")
    try:
        _refuse_deep_keys(text)
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # ValueError also for a number of thousands of digits
        words = "nested too deeply" if isinstance(error, RecursionError) else " ".join(str(error).split())[:200]
        raise InputError(f"{path}: is not valid TOML ({words}); mend it there") from None


def read_json(path: Path, wanted: str, most_octets: int = MOST_JSON_OCTETS) -> Any:
    """What a JSON file holds. InputError where it cannot be read, is larger than allowed, or is nested too deeply."""
    text = read_text(path, most_octets, wanted)
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        words = "nested too deeply" if isinstance(error, RecursionError) else " ".join(str(error).split())[:200]
        raise InputError(f"{path}: is not valid JSON ({words}), wanted {wanted}") from None


def read_text(path: Path, most_octets: int, wanted: str) -> str:
    """The text of a regular file of at most so many octets. InputError otherwise."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise InputError(f"{path}: is no regular file; give {wanted}")
        with path.open("rb") as file:
            octets = file.read(most_octets + 1)
        if len(octets) > most_octets:
            raise InputError(f"{path}: is longer than {most_octets} octets; give {wanted}")
        return octets.decode("utf-8")
    except OSError as error:
        raise InputError(f"{str(path)[:200]}: cannot be read ({error.strerror}); give {wanted}") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: is not text in UTF-8 ({error}); give {wanted}") from None


def _refuse_deep_keys(text: str) -> None:
    """tomllib takes memory by the square of a dotted key's parts."""
    for word in re.sub(r"[ \t]*\.[ \t]*", ".", text).split():
        parts = word.split(".")
        if len(parts) > DEEPEST_KEY and all(parts[: DEEPEST_KEY + 1]):
            raise ValueError(f"a key of {len(parts)} parts, {word[:20]}...")


def from_table(kind: type[T], table: Mapping[str, Any], source: str, where: str = "") -> T:
    """A `kind` (a dataclass) from a TOML table. `source` is the file for messages, `where` the table's name in it."""
    if not isinstance(table, Mapping):
        raise InputError(f"{source}: {where} is {_shown(table)}, wanted a table [{where}]")
    fields = {field.name: field for field in dataclasses.fields(cast(Any, kind)) if field.init}
    place = f"[{where}]" if where else "the top level"
    for key in table:
        if key not in fields:
            raise InputError(f"{source}: unknown key '{key}' in {place}; {nearest(key, sorted(fields))}")
    hints = get_type_hints(kind)
    values = {key: _convert(value, hints[key], source, f"{where}.{key}".lstrip(".")) for key, value in table.items()}
    for name, field in fields.items():
        if name not in values and field.default is field.default_factory is dataclasses.MISSING:
            raise InputError(f"{source}: '{name}' is missing from {place}; add it ({_wanted(hints[name])})")
    try:
        return kind(**values)
    except InputError as error:
        raise InputError(f"{source}: in {place}: {error}") from None


def nearest(found: str, valid: list[str]) -> str:
    """'did you mean ...' where one of `valid` is near what was found, else the whole list."""
    close = difflib.get_close_matches(found, valid, n=1, cutoff=0.5)
    return f"did you mean '{close[0]}'?" if close else f"valid here: {', '.join(valid) or 'nothing'}"


def _convert(value: Any, hint: Any, source: str, where: str) -> Any:
    """`value` as the type `hint`; InputError if it is something else."""
    hint = _chosen(_without_none(hint), value)
    if dataclasses.is_dataclass(hint):
        return from_table(cast(type, hint), value, source, where)
    if get_origin(hint) is tuple:
        return _convert_tuple(value, get_args(hint), source, where)
    if get_origin(hint) is Mapping:
        return _convert_named(value, get_args(hint)[1], source, where)
    if not _fits(value, hint):
        raise InputError(f"{source}: {where} is {_shown(value)}, wanted {_wanted(hint)}")
    return float(value) if hint is float else value


def _convert_tuple(value: Any, kinds: tuple[Any, ...], source: str, where: str) -> tuple[Any, ...]:
    if not isinstance(value, list):
        raise InputError(f"{source}: {where} is {_shown(value)}, wanted a list")
    if kinds[-1] is not Ellipsis:
        if len(value) != len(kinds):
            raise InputError(f"{source}: {where} has {len(value)} entries, wanted {len(kinds)}")
        return tuple(
            _convert(v, kind, source, f"{where}[{i}]") for i, (v, kind) in enumerate(zip(value, kinds, strict=True))
        )
    return tuple(_convert(v, kinds[0], source, f"{where}[{i}]") for i, v in enumerate(value))


def _convert_named(value: Any, kind: Any, source: str, where: str) -> dict[str, Any]:
    """Tables under names of the user's own."""
    if not isinstance(value, Mapping):
        raise InputError(f"{source}: {where} is {_shown(value)}, wanted tables [{where}.NAME]")
    return {name: _convert(one, kind, source, f"{where}.{name}") for name, one in value.items()}


def _fits(value: Any, hint: Any) -> bool:
    if get_origin(hint) is Literal:
        return value in get_args(hint)
    if isinstance(value, int) and abs(value) >= LARGEST_INT:
        return False
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if hint is datetime:
        return isinstance(value, datetime) and value.tzinfo is not None
    return isinstance(value, hint)


def _without_none(hint: Any) -> Any:
    """The type behind `X | None`: a TOML file says None by leaving the key out."""
    if get_origin(hint) in (Union, types.UnionType):
        kinds = [kind for kind in get_args(hint) if kind is not type(None)]
        if len(kinds) == 1:
            return kinds[0]
    return hint


def _chosen(hint: Any, value: Any) -> Any:
    """Of several dataclasses (`A | B`) the one whose fields the table's keys name best; any other type as it is."""
    if get_origin(hint) not in (Union, types.UnionType) or not isinstance(value, Mapping):
        return hint
    kinds = [kind for kind in get_args(hint) if dataclasses.is_dataclass(kind)]
    return max(
        kinds, key=lambda kind: len({field.name for field in dataclasses.fields(kind)} & set(value)), default=hint
    )


def _wanted(hint: Any) -> str:
    hint = _without_none(hint)
    if dataclasses.is_dataclass(hint) or get_origin(hint) in (Union, types.UnionType):
        return "a table"
    if get_origin(hint) is tuple:
        return f"a list of {_wanted(get_args(hint)[0]).removeprefix('a ')}s"
    if get_origin(hint) is Literal:
        return "one of " + ", ".join(map(repr, get_args(hint)))
    return _WANTED.get(hint, str(hint))


def _shown(value: Any) -> str:
    kind = {
        bool: "true or false",
        int: "a whole number",
        float: "a number",
        str: "a string",
        list: "a list",
        dict: "a table",
    }
    text = {True: "true", False: "false"}.get(value) if isinstance(value, bool) else repr(value)
    return f"{str(text)[:60]} ({kind.get(type(value), type(value).__name__)})"
