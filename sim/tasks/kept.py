"""What a run of `sim evaluate-tasks` has done, on disk, so that one that was cut goes on where it stood.

    KEPT/rows.jsonl          a row for each head that was learnt and judged
    KEPT/TASK-BUNDLE-CR.npz  what a bundle made of a task's pictures

Both are of one bundle, plan and code: the folder bears their digest in its name.
"""

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from payload.array_files import ArrayFileError, read_arrays

Row = dict[str, Any]
Arrays = dict[str, NDArray[Any]]
#: By which a row is known.
KEY = ("task", "input", "bundle", "cr_asked", "learnt_from", "share", "seed")
ROWS = "rows.jsonl"


class Kept:
    """A folder of rows and arrays; none at all where there is no `folder`."""

    def __init__(self, folder: Path | None, about: Mapping[str, Any]) -> None:
        self._folder = None if folder is None else folder / digest_of(about)
        self._rows = {key_of(row): row for row in self._read()}

    def _read(self) -> Iterator[Row]:
        """Rows that were written whole; the last line of a run that was cut may not be, and is taken away."""
        if self._folder is None or not (self._folder / ROWS).is_file():
            return
        text = (self._folder / ROWS).read_bytes()
        whole = text[: text.rfind(b"\n") + 1]
        if len(whole) < len(text):
            (self._folder / ROWS).write_bytes(whole)
        yield from map(json.loads, whole.splitlines())

    def has(self, key: tuple[Any, ...]) -> bool:
        return key in self._rows

    @property
    def rows(self) -> list[Row]:
        return list(self._rows.values())

    def add(self, row: Row) -> None:
        """One more row, on disk before anything else is begun."""
        self._rows[key_of(row)] = row
        if self._folder is not None:
            self._folder.mkdir(parents=True, exist_ok=True)
            with (self._folder / ROWS).open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")

    def arrays(self, name: str, make: Callable[[], Arrays]) -> Arrays:
        """Arrays by a name: what was made before, or what is made now."""
        if self._folder is None:
            return make()
        path = self._folder / f"{name}.npz"
        if path.is_file():
            try:
                return read_arrays(path)
            except ArrayFileError:
                path.unlink()  # damaged: made once more
        made = make()
        self._folder.mkdir(parents=True, exist_ok=True)
        half = path.with_name(f".{path.name}")
        np.savez(half, **made)  # type: ignore[arg-type]  # names of arrays, none of them an option
        half.replace(path)
        return made

    def clear(self) -> None:
        """The run is whole: nothing of it has to be kept."""
        if self._folder is not None and self._folder.is_dir():
            shutil.rmtree(self._folder)
            if not any(self._folder.parent.iterdir()):
                self._folder.parent.rmdir()


def key_of(row: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(row[name] for name in KEY)


def digest_of(about: Mapping[str, Any]) -> str:
    """Of what decides every row, and of the code that makes them."""
    found = hashlib.sha256(json.dumps(about, sort_keys=True).encode())
    for path in sorted(Path(__file__).parent.rglob("*.py")):
        found.update(path.read_bytes())
    return found.hexdigest()[:12]
