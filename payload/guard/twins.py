"""Held memory twice over: an array and its copy are compared between tiles, and where they differ a CRC says which of
the two was hit.

Comparing finds every change, in the array and in the copy alike, and costs less than a CRC of the array would. The CRC
of the copy, taken when nothing had been hit yet, is the third vote that triple redundancy would have.
"""

import ctypes
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from itertools import starmap

import numpy as np
from numpy.typing import NDArray

from payload.guard.checksum import crc_of, memcmp
from payload.memory import Held
from payload.native import library


class Mended(Enum):
    """What was hit, and so what was written over."""

    MEMORY = "memory"
    COPY = "copy"
    NEITHER = "neither"  # both were hit: only the golden copy helps


@dataclass(frozen=True)
class Hit:
    """One piece of memory that was found changed."""

    name: str
    mended: Mended


class Twin:
    """A piece of held memory, its copy, and the CRC-32 of that."""

    def __init__(self, held: Held, room: NDArray[np.uint8]) -> None:
        """The copy lies in `room`."""
        self.held = held
        self.octets = octets_of(held)
        self.copy = room
        room[:] = self.octets
        self.crc = crc_of(self.copy)
        self.pair = self.octets.ctypes.data, self.copy.ctypes.data, len(self.octets)

    @property
    def alike(self) -> bool:
        return not memcmp(*self.pair)

    def mend(self) -> Mended:
        """Writes what is whole over what was hit."""
        here, there, count = self.pair
        if crc_of(self.copy) == self.crc:
            ctypes.memmove(here, there, count)
            return Mended.MEMORY
        if crc_of(self.octets) == self.crc:
            ctypes.memmove(there, here, count)
            return Mended.COPY
        return Mended.NEITHER


class Comparison:
    """Twins that are compared in one go: by the kernel where it is there, else one by one."""

    def __init__(self, twins: list[Twin]) -> None:
        self.twins = twins
        pairs = [[here, octets, there, octets] for here, there, octets in (twin.pair for twin in twins)]
        self._pairs = np.array(pairs, np.uint64).ravel()
        self._span = library.span(self._pairs, library.U64)

    @property
    def alike(self) -> bool:
        if library.available:
            return library.call("unlike", self._span, len(self.twins)) == len(self.twins)
        return not any(starmap(memcmp, [twin.pair for twin in self.twins]))

    def hits(self) -> list[Hit]:
        """Those that differ from their copies, mended. Nearly always there are none."""
        if self.alike:
            return []
        return [Hit(twin.held.name, twin.mend()) for twin in self.twins if not twin.alike]


class Scrubber:
    """All held memory of a payload, gone through again and again, so many octets at a time."""

    def __init__(self, held: Iterable[Held]) -> None:
        pieces = [one for one in held if one.octets]
        ends = np.cumsum([one.octets for one in pieces], dtype=np.int64)
        self.octets = int(ends[-1]) if pieces else 0
        room = np.empty(self.octets, np.uint8)  # copies side by side are read faster
        self.twins = [Twin(one, room[end - one.octets : end]) for one, end in zip(pieces, ends, strict=True)]
        self._all = Comparison(self.twins)
        self._at = 0
        self._slice: tuple[int, list[Comparison]] = (-1, [])

    @property
    def at_start(self) -> bool:
        """Whether the next scrub begins a round."""
        return self._at == 0

    def scrub(self, octets: int) -> tuple[list[Hit], bool]:
        """Compares the next pieces of memory, about so many octets; what was found, and whether a round is complete."""
        slices = self._slices(octets)
        hits = slices[self._at].hits()
        self._at = (self._at + 1) % len(slices)
        return hits, self._at == 0

    def all(self) -> list[Hit]:
        """Compares everything, and starts a new round."""
        self._at = 0
        return self._all.hits()

    def _slices(self, octets: int) -> list[Comparison]:
        if self._slice[0] != octets:
            self._slice, self._at = (octets, list(map(Comparison, sliced(self.twins, octets)))), 0
        return self._slice[1]


def sliced(twins: list[Twin], octets: int) -> list[list[Twin]]:
    """Twins in runs of at most so many octets, each of one twin at least."""
    slices: list[list[Twin]] = [[]]
    room = octets
    for twin in twins:
        if slices[-1] and twin.held.octets > room:
            slices.append([])
            room = octets
        slices[-1].append(twin)
        room -= twin.held.octets
    return slices


def octets_of(held: Held) -> NDArray[np.uint8]:
    """The octets of held memory themselves, not a copy; writable, whatever the array says of itself."""
    memory = held.memory
    if isinstance(memory, np.ndarray) and not memory.flags.c_contiguous:
        raise TypeError(f"held memory {held.name} is not contiguous; hand over the array that owns it")
    at = memory.ctypes.data if isinstance(memory, np.ndarray) else ctypes.addressof(memory)
    return np.ctypeslib.as_array((ctypes.c_uint8 * held.octets).from_address(at))
