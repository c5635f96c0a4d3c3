"""Housekeeping record <-> octets: when, what has been sent so far, how the payload works and what its guard counted.

    octet 0     1 .. 8   9 .. 12   13 .. 36             37 .. 52              53     54 .. 57   58   59 ..         4
    +---+---+----------+---------+--------------------+---------------------+------+----------+---+--------------+-----+
    |v 4|14 |  time    | scenes  | tile codes, 6 x 32 | packets, 4 x 32     | mode | scene id | n | n x 32       | crc |
    +---+---+----------+---------+--------------------+---------------------+------+----------+---+--------------+-----+

The low half of octet 0 tells it from a tile code and from a scene header. Counts start with the payload and wrap; those
of the guard (payload/guard/telemetry.py names them) stop at their end. Version 1 ends behind the packets.
"""

import struct
from dataclasses import dataclass, field
from zlib import crc32

from payload.errors import InputError, StreamError
from payload.link.scene_header import pack_time, unpack_time

VERSION, MARK = 2, 14
#: A clock that was never set.
NO_TIME = b"\xff" * 8
_SENT = struct.Struct(">B8sI6I4I")
_STATUS = struct.Struct(">BIB")
CRC_OCTETS = 4
_WRAP = 1 << 32


@dataclass(frozen=True)
class Status:
    """How the payload works: its mode, the scene it works on, and its guard's counters; none where there is no guard.

    A reader keeps counters that it does not know, and reads 0 for those that the sender does not know."""

    mode: int = 0
    scene_id: int = 0
    counts: tuple[int, ...] = ()

    def __getitem__(self, count: int) -> int:
        return self.counts[count] if count < len(self.counts) else 0


@dataclass(frozen=True)
class Housekeeping:
    """`time` ISO 8601 in UTC, None where the clock is not set; tile codes sent by kind 0 to 5; packets sent by stream,
    before this record."""

    time: str | None
    scenes: int
    tiles: tuple[int, ...] = (0,) * 6
    packets: tuple[int, ...] = (0,) * 4
    status: Status = field(default_factory=Status)

    def __post_init__(self) -> None:
        if len(self.tiles) != 6 or len(self.packets) != 4 or len(self.status.counts) > 255:
            raise InputError(
                f"{len(self.tiles)} kinds, {len(self.packets)} streams and {len(self.status.counts)} counters, wanted "
                "6, 4 and 255 at most"
            )


def octets_with(counters: int) -> int:
    """Octets of a record with so many counters of the guard."""
    return _SENT.size + _STATUS.size + 4 * counters + CRC_OCTETS


def pack(record: Housekeeping) -> bytes:
    """The octets of a housekeeping record."""
    time = NO_TIME if record.time is None else pack_time(record.time)
    counts = (count % _WRAP for count in (record.scenes, *record.tiles, *record.packets))
    status = record.status
    octets = _SENT.pack(VERSION << 4 | MARK, time, *counts)
    octets += _STATUS.pack(status.mode, status.scene_id, len(status.counts))
    octets += struct.pack(f">{len(status.counts)}I", *status.counts)
    return octets + crc32(octets).to_bytes(CRC_OCTETS, "big")


def is_housekeeping(octets: bytes) -> bool:
    """Whether what was received is a housekeeping record."""
    return bool(octets) and octets[0] & 15 == MARK


def unpack(octets: bytes) -> Housekeeping:
    """Inverse of `pack`, of version 1, too. StreamError where the octets are no whole record."""
    body, crc = octets[:-CRC_OCTETS], octets[-CRC_OCTETS:]
    if len(body) < _SENT.size or crc32(body) != int.from_bytes(crc, "big"):
        raise StreamError("housekeeping record is cut short or its CRC does not match")
    first, time, scenes, *counts = _SENT.unpack_from(body)
    if first & 15 != MARK or first >> 4 not in (1, VERSION):
        raise StreamError(f"housekeeping record of version {first >> 4}; this ground reads versions 1 and {VERSION}")
    try:
        status = _status(body[_SENT.size :]) if first >> 4 == VERSION else _none(body[_SENT.size :])
        at = None if time == NO_TIME else unpack_time(time)
    except (OverflowError, ValueError, struct.error) as error:
        raise StreamError(f"housekeeping record: time {time.hex()} or counters make no sense ({error})") from None
    return Housekeeping(at, scenes, tuple(counts[:6]), tuple(counts[6:]), status)


def _status(octets: bytes) -> Status:
    mode, scene_id, n = _STATUS.unpack_from(octets)
    if len(octets) != _STATUS.size + 4 * n:
        raise ValueError(f"{n} counters in {len(octets)} octets")
    return Status(mode, scene_id, struct.unpack_from(f">{n}I", octets, _STATUS.size))


def _none(octets: bytes) -> Status:
    if octets:
        raise ValueError(f"{len(octets)} octets behind a record of version 1")
    return Status()
