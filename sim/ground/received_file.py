"""A file that arrives in pieces, in any order and more than once: what is here of it, and the packets in it."""

import tempfile
from bisect import bisect_left, bisect_right
from collections.abc import Collection, Iterator
from io import BufferedReader, RawIOBase
from typing import Any
from zlib import crc32

from payload.errors import StreamError
from payload.link.space_packet import read_packets

#: Offsets of CFDP's ordinary files have 32 bits.
LONGEST_FILE_OCTETS = 1 << 32
_READ_OCTETS = 1 << 20


class ReceivedFile:
    """Octets at their offsets, on disk, and a sorted list of the stretches that are here."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 closed by `close`
        self._starts: list[int] = []  # of stretches that neither overlap nor touch, ascending
        self._ends: list[int] = []
        self.octets = 0  # that are here

    @property
    def stretches(self) -> list[tuple[int, int]]:
        """(start, end) of what is here, ascending."""
        return list(zip(self._starts, self._ends, strict=True))

    @property
    def last_stretch(self) -> tuple[int, int]:
        """The stretch that is farthest behind; (0, 0) where nothing is here."""
        return (self._starts[-1], self._ends[-1]) if self._starts else (0, 0)

    def write(self, offset: int, data: bytes) -> int:
        """Puts octets in their place; gives how many of them were here before. StreamError beyond 4 GiB."""
        end = offset + len(data)
        if not 0 <= offset <= end <= LONGEST_FILE_OCTETS:
            raise StreamError(f"octets {offset} to {end} of a file, wanted 0 to {LONGEST_FILE_OCTETS}")
        self._file.seek(offset)
        self._file.write(data)
        return self._mark(offset, end) if data else 0

    def read(self, offset: int, octets: int) -> bytes:
        """Octets as they are on disk; zeros where nothing arrived."""
        self._file.seek(offset)
        return self._file.read(octets)

    def holes(self, octets: int) -> list[tuple[int, int]]:
        """(start, end) of what is missing of the first `octets` octets."""
        edges = [0, *(at for stretch in self.stretches for at in stretch), octets]
        pairs = zip(edges[::2], edges[1::2], strict=True)
        return [(start, min(end, octets)) for start, end in pairs if start < min(end, octets)]

    def crc32(self, octets: int) -> int:
        """CRC-32 over the first `octets` octets."""
        crc, pieces = 0, range(0, octets, _READ_OCTETS)
        for at in pieces:
            crc = crc32(self.read(at, min(_READ_OCTETS, octets - at)), crc)
        return crc

    def packets(self, apids: Collection[int]) -> Iterator[bytes]:
        """The packets in every stretch; what is no packet, such as one cut off by a hole, comes as a refused piece."""
        for start, end in self.stretches:
            yield from read_packets(BufferedReader(_Stretch(self, start, end), _READ_OCTETS), apids)

    def close(self) -> None:
        self._file.close()

    def _mark(self, start: int, end: int) -> int:
        """Adds a stretch; gives how much of it was there."""
        first, last = bisect_left(self._ends, start), bisect_right(self._starts, end)
        touched = list(zip(self._starts[first:last], self._ends[first:last], strict=True))
        known = sum(max(0, min(e, end) - max(s, start)) for s, e in touched)
        self._starts[first:last] = [min([start, *(s for s, _ in touched)])]
        self._ends[first:last] = [max([end, *(e for _, e in touched)])]
        self.octets += end - start - known
        return known


class _Stretch(RawIOBase):
    """One stretch of a file, as a stream to read from."""

    def __init__(self, file: ReceivedFile, start: int, end: int) -> None:
        self._file, self._at, self._end = file, start, end

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._file.read(self._at, min(len(buffer), self._end - self._at))
        self._at += len(data)
        buffer[: len(data)] = data
        return len(data)
