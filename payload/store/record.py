"""Records of the onboard store <-> octets. Every one carries its own checksum, so that a torn or rotten one is known.

    octet 0, 1   2   3      4..7      8..11    12..15   16 ...     4
    +---------+---+------+----------+--------+--------+----------+--------+
    |  "NR"   | v | kind | scene id | number | length | n octets | CRC-32 |
    +---------+---+------+----------+--------+--------+----------+--------+

Reading goes on behind a damaged record: the next place where magic, length and checksum agree is the next record.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import BinaryIO
from zlib import crc32

from payload.errors import StreamError

MAGIC, VERSION = b"NR", 1
_HEAD = struct.Struct(">2sBBIII")
CRC_OCTETS = 4
OVERHEAD_OCTETS = _HEAD.size + CRC_OCTETS
#: A record is no longer: a tile code has 255 layers of 16 MiB at most, and one of 32 MiB no ground would take.
LONGEST_OCTETS = 1 << 25


class Kind(IntEnum):
    """What a record holds."""

    SCENE = 1  # the scene header; first in its file
    TILE = 2  # number: of tiles before it; a later record of a tile takes the place of an earlier one
    AUDIT = 3  # a thumbnail
    GOOD = 4  # number: of tiles that the guard found good; no octets
    CLOSED = 5  # number: of tiles; the scene is complete
    DOWN = 6  # number: of layers that are on the ground; which, 6 octets each


@dataclass(frozen=True)
class Record:
    """One record."""

    kind: Kind
    scene_id: int
    number: int
    octets: bytes = b""


def pack(record: Record) -> bytes:
    """The octets of a record."""
    head = _HEAD.pack(MAGIC, VERSION, record.kind, record.scene_id, record.number, len(record.octets))
    return head + record.octets + crc32(head + record.octets).to_bytes(CRC_OCTETS, "big")


def unpack(octets: bytes) -> Record:
    """Inverse of `pack`. StreamError where the octets are no whole record."""
    if len(octets) < OVERHEAD_OCTETS or crc32(octets[:-CRC_OCTETS]).to_bytes(CRC_OCTETS, "big") != octets[-CRC_OCTETS:]:
        raise StreamError("a record of the store is cut short or its checksum does not match")
    magic, version, kind, scene_id, number, length = _HEAD.unpack_from(octets)
    if (magic, version, length) != (MAGIC, VERSION, len(octets) - OVERHEAD_OCTETS) or kind not in list(Kind):
        raise StreamError(f"a record of the store of version {version}, kind {kind}; this payload reads version 1")
    return Record(Kind(kind), scene_id, number, octets[_HEAD.size : -CRC_OCTETS])


@dataclass(frozen=True)
class Found:
    """A record in a file, and the octets it takes there."""

    record: Record
    begin: int
    end: int


def scan(stream: BinaryIO) -> Iterator[Found]:
    """Every whole record of a file; what lies between them is passed over."""
    at = 0
    while (head := _read(stream, at, _HEAD.size)) and len(head) == _HEAD.size:
        found = _record_at(stream, at, head)
        if found is not None:
            yield found
            at = found.end
            continue
        at += 1
        ahead = _read(stream, at, 1 << 16)
        place = ahead.find(MAGIC)
        if place < 0:
            at += max(1, len(ahead) - 1)
        else:
            at += place


def _record_at(stream: BinaryIO, at: int, head: bytes) -> Found | None:
    magic, version, _, _, _, length = _HEAD.unpack(head)
    if magic != MAGIC or version != VERSION or length > LONGEST_OCTETS:
        return None
    octets = _read(stream, at, OVERHEAD_OCTETS + length)
    try:
        return Found(unpack(octets), at, at + len(octets))
    except StreamError:
        return None


def _read(stream: BinaryIO, at: int, count: int) -> bytes:
    stream.seek(at)
    return stream.read(count)
