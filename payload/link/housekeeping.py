"""Housekeeping record <-> octets: when, and what has been sent so far, so that the ground knows what it misses.

    octet 0     1 .. 8   9 .. 12   13 .. 36             37 .. 52              4
    +---+---+----------+---------+--------------------+---------------------+-----+
    |v 4|14 |  time    | scenes  | tile codes, 6 x 32 | packets, 4 x 32     | crc |
    +---+---+----------+---------+--------------------+---------------------+-----+

The low half of octet 0 tells it from a tile code and from a scene header. Counts start with the payload and wrap.
"""

import struct
from dataclasses import dataclass
from zlib import crc32

from payload.errors import InputError, StreamError
from payload.link.scene_header import pack_time, unpack_time

VERSION, MARK = 1, 14
#: A clock that was never set.
NO_TIME = b"\xff" * 8
_FIXED = struct.Struct(">B8sI6I4I")
OCTETS = _FIXED.size + 4
_WRAP = 1 << 32


@dataclass(frozen=True)
class Housekeeping:
    """`time` ISO 8601 in UTC, None where the clock is not set; tile codes sent by kind 0 to 5; packets sent by stream,
    before this record."""

    time: str | None
    scenes: int
    tiles: tuple[int, ...] = (0,) * 6
    packets: tuple[int, ...] = (0,) * 4

    def __post_init__(self) -> None:
        if len(self.tiles) != 6 or len(self.packets) != 4:
            raise InputError(f"{len(self.tiles)} kinds and {len(self.packets)} streams, wanted 6 and 4")


def pack(record: Housekeeping) -> bytes:
    """The octets of a housekeeping record."""
    time = NO_TIME if record.time is None else pack_time(record.time)
    counts = (count % _WRAP for count in (record.scenes, *record.tiles, *record.packets))
    octets = _FIXED.pack(VERSION << 4 | MARK, time, *counts)
    return octets + crc32(octets).to_bytes(4, "big")


def is_housekeeping(octets: bytes) -> bool:
    """Whether what was received is a housekeeping record."""
    return bool(octets) and octets[0] & 15 == MARK


def unpack(octets: bytes) -> Housekeeping:
    """Inverse of `pack`. StreamError where the octets are no whole record of this version."""
    if len(octets) != OCTETS or crc32(octets[:-4]) != int.from_bytes(octets[-4:], "big"):
        raise StreamError("housekeeping record is cut short or its CRC does not match")
    first, time, scenes, *counts = _FIXED.unpack_from(octets)
    if first != VERSION << 4 | MARK:
        raise StreamError(f"housekeeping record of version {first >> 4}; this ground reads version {VERSION}")
    try:
        at = None if time == NO_TIME else unpack_time(time)
    except (OverflowError, ValueError) as error:
        raise StreamError(f"housekeeping record: time {time.hex()} ({error})") from None
    return Housekeeping(at, scenes, tuple(counts[:6]), tuple(counts[6:]))
