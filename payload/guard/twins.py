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

    def __init__(self, held: Held) -> None:
        self.held = held
        self.octets = octets_of(held)
        self.copy = self.octets.copy()
        self.crc = crc_of(self.copy)
        self.pair = self.octets.ctypes.data, self.copy.ctypes.data, len(self.octets)

    @property
    def alike(self) -> bool:
        return bool(memcmp(*self.pair) == 0)

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


class Scrubber:
    """All held memory of a payload, gone through again and again, so many octets at a time."""

    def __init__(self, held: Iterable[Held]) -> None:
        self.twins = [Twin(h) for h in held if h.octets]
        self.octets = sum(twin.held.octets for twin in self.twins)
        self._at = 0
        self._slice: tuple[int, list[list[Twin]]] = (-1, [])

    @property
    def at_start(self) -> bool:
        """Whether the next scrub begins a round."""
        return self._at == 0

    def scrub(self, octets: int) -> tuple[list[Hit], bool]:
        """Compares the next pieces of memory, about so many octets; what was found, and whether a round is complete."""
        slices = self._slices(octets)
        hits = found(slices[self._at])
        self._at = (self._at + 1) % len(slices)
        return hits, self._at == 0

    def all(self) -> list[Hit]:
        """Compares everything, and starts a new round."""
        self._at = 0
        return found(self.twins)

    def _slices(self, octets: int) -> list[list[Twin]]:
        if self._slice[0] != octets:
            self._slice, self._at = (octets, sliced(self.twins, octets)), 0
        return self._slice[1]


def found(twins: list[Twin]) -> list[Hit]:
    """Those that differ from their copies, mended. Nearly always there are none, and that takes no step in Python."""
    if not any(starmap(memcmp, [twin.pair for twin in twins])):
        return []
    return [Hit(twin.held.name, twin.mend()) for twin in twins if not twin.alike]


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
