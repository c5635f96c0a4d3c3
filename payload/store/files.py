"""The files of a store, and no more of them than it needs: so that a campaign can put a disk that fails in their place.

What is appended or written is durable behind `sync`; a new name, or a name that changed, behind `sync_names`.
"""

import errno
import os
from pathlib import Path
from typing import BinaryIO, Protocol

#: What a file is called that is written to take another's place.
NEW = ".new"


class Files(Protocol):
    """A flat folder of files. Every method may raise OSError; a write that does may have written a part."""

    def names(self) -> list[str]: ...

    def size(self, name: str) -> int: ...

    def read(self, name: str) -> BinaryIO:
        """The file, open for reading."""

    def append(self, name: str, octets: bytes) -> None: ...

    def write(self, name: str, at: int, octets: bytes) -> None:
        """Over octets that are there already: takes no room."""

    def truncate(self, name: str, octets: int) -> None: ...

    def sync(self, name: str) -> None: ...

    def rename(self, name: str, new: str) -> None: ...

    def remove(self, name: str) -> None: ...

    def sync_names(self) -> None: ...


class FolderFiles:
    """Files of a folder of the system. One of them, the last appended to, stays open. The capacity counts what is there
    to stay: a file that is written to take another's place does from then on."""

    def __init__(self, folder: Path, capacity_octets: int) -> None:
        self._folder, self._capacity = folder, capacity_octets
        folder.mkdir(parents=True, exist_ok=True)
        self._used = sum(map(self._counted, self.names()))
        self._open: tuple[str, int] | None = None

    def names(self) -> list[str]:
        return sorted(path.name for path in self._folder.iterdir() if path.is_file())

    def size(self, name: str) -> int:
        return (self._folder / name).stat().st_size

    def read(self, name: str) -> BinaryIO:
        return (self._folder / name).open("rb")

    def append(self, name: str, octets: bytes) -> None:
        stays = not name.endswith(NEW)
        if stays and self._used + len(octets) > self._capacity:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._folder / name))
        descriptor, left = self._descriptor(name), memoryview(octets)
        while left:
            written = os.write(descriptor, left)
            self._used += written * stays
            left = left[written:]

    def write(self, name: str, at: int, octets: bytes) -> None:
        descriptor = os.open(self._folder / name, os.O_WRONLY)
        try:
            os.pwrite(descriptor, octets, at)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def truncate(self, name: str, octets: int) -> None:
        before = self._counted(name)
        os.truncate(self._folder / name, octets)
        self._used += self._counted(name) - before

    def sync(self, name: str) -> None:
        os.fsync(self._descriptor(name))

    def rename(self, name: str, new: str) -> None:
        self.close()
        before = self._counted(name) + (self._counted(new) if new in self.names() else 0)
        (self._folder / name).rename(self._folder / new)
        self._used += self._counted(new) - before

    def remove(self, name: str) -> None:
        self.close()
        self._used -= self._counted(name)
        (self._folder / name).unlink()

    def sync_names(self) -> None:
        descriptor = os.open(self._folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def close(self) -> None:
        """Lets go of the file that is open."""
        if self._open is not None:
            os.close(self._open[1])
            self._open = None

    def _counted(self, name: str) -> int:
        return 0 if name.endswith(NEW) else self.size(name)

    def _descriptor(self, name: str) -> int:
        if self._open is None or self._open[0] != name:
            self.close()
            self._open = name, os.open(self._folder / name, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        return self._open[1]
