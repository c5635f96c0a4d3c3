"""A disk that forgets: what was written and not synced is lost, kept, or torn when the power is cut.

In the manner of crash-consistency checkers (ALICE, Pillai et al., OSDI 2014): a file's octets are durable behind its
sync, its name behind a sync of names, and of what comes after any beginning may have reached the disk.
"""

import errno
from dataclasses import dataclass, field
from io import BytesIO
from typing import BinaryIO

import numpy as np

SECTOR_OCTETS = 512


class PowerCutError(Exception):
    """The power is cut: nothing of the program runs any more."""


@dataclass(eq=False)
class _File:
    durable: bytes = b""
    now: bytearray = field(default_factory=bytearray)


class VolatileFiles:
    """payload.store.files.Files in memory. `operations`: after so many the power is cut; None: never. `full_at`: that
    append finds no room, and writes a part."""

    def __init__(self, operations: int | None = None, full_at: int | None = None) -> None:
        self.operations, self.full_at = operations, full_at
        self.done = self.appends = 0
        self._names: dict[str, _File] = {}
        self._durable_names: list[dict[str, _File]] = [{}]  # every state of the folder since it was synced

    def names(self) -> list[str]:
        return sorted(self._names)

    def size(self, name: str) -> int:
        return len(self._names[name].now)

    def read(self, name: str) -> BinaryIO:
        return BytesIO(bytes(self._names[name].now))

    def append(self, name: str, octets: bytes) -> None:
        self.appends += 1
        file = self._names.get(name)
        if file is None:
            file = self._names[name] = _File()
            self._renamed()
        if self.appends == self.full_at:
            file.now += octets[: len(octets) // 3]
            raise OSError(errno.ENOSPC, "no room")
        file.now += octets
        self._operation()

    def write(self, name: str, at: int, octets: bytes) -> None:
        file = self._names[name]
        half = len(octets) // 2
        file.now[at : at + half] = octets[:half]
        self._operation()  # a cut here tears it
        file.now[at : at + len(octets)] = octets
        file.durable = bytes(file.now)

    def truncate(self, name: str, octets: int) -> None:
        del self._names[name].now[octets:]
        self._operation()

    def sync(self, name: str) -> None:
        self._operation()
        self._names[name].durable = bytes(self._names[name].now)

    def rename(self, name: str, new: str) -> None:
        self._names[new] = self._names.pop(name)
        self._renamed()
        self._operation()

    def remove(self, name: str) -> None:
        if name not in self._names:
            raise FileNotFoundError(errno.ENOENT, "no such file", name)
        del self._names[name]
        self._renamed()
        self._operation()

    def sync_names(self) -> None:
        self._operation()
        self._durable_names = [dict(self._names)]

    def after_cut(self, random: np.random.Generator) -> "VolatileFiles":
        """The disk as it may be found when the power is back."""
        found = VolatileFiles()
        names = self._durable_names[int(random.integers(len(self._durable_names)))]
        # a file that was synced is found under the last name it had then, or a later one
        for name, file in names.items():
            found._names[name] = _File(now=bytearray(_left_of(file, random)))
        for file in found._names.values():
            file.durable = bytes(file.now)
        found._durable_names = [dict(found._names)]
        return found

    def _renamed(self) -> None:
        self._durable_names.append(dict(self._names))

    def _operation(self) -> None:
        self.done += 1
        if self.operations is not None and self.done >= self.operations:
            raise PowerCutError


def _left_of(file: _File, random: np.random.Generator) -> bytes:
    """What is durable, and any beginning of what is not; a sector of that may be there in name only."""
    now = bytes(file.now)
    if len(now) <= len(file.durable):
        return file.durable if random.random() < 0.5 else now[: len(now)] + file.durable[len(now) :]
    kept = bytearray(file.durable + now[len(file.durable) : int(random.integers(len(file.durable), len(now) + 1))])
    if len(kept) > len(file.durable) and random.random() < 0.3:
        torn = max(len(file.durable), len(kept) - SECTOR_OCTETS)
        kept[torn:] = bytes(len(kept) - torn)
    return bytes(kept)
