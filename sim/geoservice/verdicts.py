"""What the moderator said of figures: a line of JSON each, in a file beside the service's. Lines are only ever added.

A verdict is of one figure, whose name holds its value and the digests of its runs: of other octets it says nothing.
"""

import json
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal

from payload.errors import InputError
from sim.geoservice.service import check_text
from sim.toml_tables import from_table, read_text

Word = Literal["accept", "reject", "comment"]
FIGURE = re.compile(r"[0-9a-f]{12}")
MOST_OCTETS = 2**24


@dataclass(frozen=True)
class Verdict:
    """`at`: when it was given. A comment changes no state."""

    figure: str
    verdict: Word
    by: str
    at: str
    comment: str = ""

    def __post_init__(self) -> None:
        if not FIGURE.fullmatch(self.figure):
            raise InputError(f"figure is {self.figure[:40]!r}, wanted the 12 hexadecimal digits on the dashboard")
        check_text("by", self.by, 80)
        if self.comment or self.verdict == "comment":
            check_text("comment", self.comment, 500)
        try:
            datetime.fromisoformat(self.at)
        except ValueError:
            raise InputError(f"at is {self.at[:40]!r}, wanted a time like 2026-06-21T10:00:00Z") from None

    @property
    def words(self) -> str:
        """As pages and mails show it."""
        return f"{self.by}, {self.at}: {self.verdict}" + (f": {self.comment}" if self.comment else "")


def verdicts_file(service: Path) -> Path:
    """floods.toml -> floods.verdicts.jsonl"""
    return service.with_suffix(".verdicts.jsonl")


def read_verdicts(path: Path) -> list[Verdict]:
    """All of them, oldest first; none where there is no file. InputError names the line at fault."""
    if not path.exists():
        return []
    found = []
    for number, line in enumerate(read_text(path, MOST_OCTETS, "the verdicts of a geoservice").splitlines(), 1):
        try:
            table = json.loads(line)
        except (ValueError, RecursionError):
            raise InputError(f"{path}, line {number}: is no JSON object; mend the line or take it out") from None
        found.append(from_table(Verdict, table, f"{path}, line {number}"))
    return found


def add_verdict(path: Path, verdict: Verdict) -> None:
    """One line more."""
    try:
        with path.open("a", encoding="utf-8", newline="\n") as file:
            file.write(json.dumps(asdict(verdict), ensure_ascii=False) + "\n")
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror}), wanted a writable folder") from None


def standing(verdicts: Iterable[Verdict]) -> dict[str, Verdict]:
    """Of each figure the newest that accepts or rejects it."""
    return {one.figure: one for one in verdicts if one.verdict != "comment"}
