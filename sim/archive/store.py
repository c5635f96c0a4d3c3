"""Where scene files are kept: a folder, or any place that fsspec opens, such as s3://bucket/prefix."""

import hashlib
import os
import re
import uuid
from contextlib import suppress
from pathlib import Path
from typing import Any

import fsspec

from payload.errors import InputError
from sim.archive.octets import Octets, protocols, told

ENDING = ".nadir"
COPY_OCTETS = 1 << 20


class Store:
    """A place of scene files; `options` go to fsspec."""

    def __init__(self, where: str, options: dict[str, Any] | None = None) -> None:
        self.where, self._options = where.rstrip("/") or "/", dict(options or {})
        try:
            self._files, self._root = fsspec.core.url_to_fs(self.where, **self._options)
        except ImportError as error:
            raise InputError(f"--store {where}: {error}") from None
        except ValueError as error:
            raise InputError(f"--store {where[:99]}: {error}; give a folder, or an address as s3://bucket") from None

    def names(self) -> list[str]:
        """Of the scenes in it, in order."""
        with told(f"--store {self.where}", "no such folder; `sim archive put` makes it"):
            found = self._files.ls(self._root, detail=False)
        names = [str(path).rpartition("/")[2] for path in found]
        return sorted(name.removesuffix(ENDING) for name in names if name.endswith(ENDING) and name[0] != ".")

    def address(self, name: str) -> str:
        """Where the scene of that name lies; what `nadir.open` takes."""
        return f"{self.where}/{name.removesuffix(ENDING)}{ENDING}"

    def open(self, name: str) -> Octets:
        return Octets(self.address(name), self._options)

    @property
    def options(self) -> dict[str, Any]:
        return self._options

    def has(self, name: str) -> bool:
        with told(f"--store {self.where}", "no such folder"):
            return bool(self._files.exists(self._path(name)))

    def take(self, made: Path, name: str) -> None:
        """The file `made` under a name, whole or not at all, and read back: what lies there is what was made."""
        wanted = _digest_of(made)
        target = self._path(name)
        with told(f"--store {self.where}", "no such place; make the bucket first"):
            if "file" in protocols(self._files):
                self._files.makedirs(self._root, exist_ok=True)
                self._place(made, Path(target))
            else:  # an object appears whole, and needs no folder
                self._files.put_file(str(made), target)
        octets = self.open(name)
        digest = hashlib.sha256()
        for begin in range(0, size := octets.size(), COPY_OCTETS):
            digest.update(octets.read([(begin, min(begin + COPY_OCTETS, size))])[0])
        if digest.digest() != wanted:
            raise InputError(f"{self.address(name)}: does not read back as written; keep the original, try again")

    def _place(self, made: Path, target: Path) -> None:
        half = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.part")
        try:
            self._files.put_file(str(made), str(half))
            with half.open("rb") as file:
                os.fsync(file.fileno())
            half.replace(target)
        finally:
            with suppress(FileNotFoundError):
                half.unlink()

    def _path(self, name: str) -> str:
        return f"{self._root.rstrip('/')}/{name.removesuffix(ENDING)}{ENDING}"


def name_for(scene: str, scene_id: int) -> str:
    """A file's name: the scene's, in characters that every store takes, and its id, which other pixels change."""
    plain = re.sub(r"[^A-Za-z0-9._-]+", "_", scene).strip("._")[:120]
    return f"{plain or 'scene'}-{scene_id:08x}"


def _digest_of(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()
