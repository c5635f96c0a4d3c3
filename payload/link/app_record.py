"""Record of an onboard application <-> octets: one answer about one place, 58 octets, in the stream of alerts.

    octet 0   1      2 .. 5    6, 7    8, 9   10 .. 13  14         15, 16  17 .. 24  25 .. 28  29 .. 32   33
    +---+---+-------+---------+-------+------+---------+----------+-------+---------+---------+----------+------------+
    |v 4|13 | flags | scene id| number| of   | app     | indicator| site  | time    | value   | threshold| confidence |
    +---+---+-------+---------+-------+------+---------+----------+-------+---------+---------+----------+------------+
    34 .. 37  38 .. 41  42, 43   44, 45  46 .. 49    50 .. 53   54 .. 57
    +--------+---------+--------+-------+-----------+----------+------+
    | top    | left    | height | width | longitude | latitude | CRC  |
    +--------+---------+--------+-------+-----------+----------+------+

A record stands alone: without the scene's header it still says what, when and, where the scene is placed, where on
Earth. docs/format.md, "Records of applications".
"""

import struct
from dataclasses import dataclass
from enum import IntEnum, IntFlag
from zlib import crc32

from payload.errors import InputError, StreamError
from payload.link.housekeeping import NO_TIME
from payload.link.scene_header import pack_time, unpack_time

VERSION, MARK = 1, 13
NO_SITE, UNKNOWN_CONFIDENCE = 0xFFFF, 0xFF
#: Value and threshold count in parts of the indicator's unit.
PARTS = 10_000
#: Longitude and latitude count in these parts of a degree: about a centimetre.
PARTS_OF_A_DEGREE = 10_000_000
_FIXED = struct.Struct(">BBIHHIBH8siiBIIHHii")
OCTETS = _FIXED.size + 4


class Flag(IntFlag):
    """What a record is besides an answer."""

    ALERT = 1  # the value has reached the threshold
    UNSEEN = 2  # too little of the place was seen: value and alert say nothing
    WITHHELD = 4  # a tile of the place is withheld: its picture does not come
    CUT_OFF = 8  # the application was stopped; `value` is a Cause, the box is the tile at which
    PLACED = 16  # longitude and latitude are known


#: An answer below its threshold, and nothing else.
NOTHING = Flag(0)


class Cause(IntEnum):
    """Why an application was cut off."""

    FAILED = 1  # it stopped with an error
    COST = 2  # more operations or memory than its budget
    LATE = 3  # longer than its deadline
    RECORDS = 4  # more records than its budget


@dataclass(frozen=True)
class AppRecord:
    """One answer. `app`: digest of what asked (name, version, rule, threshold); `value` and `threshold` in 1 / PARTS of
    the indicator's unit. `box`: top, left, height and width in pixels of the scene. `place`: longitude and latitude of
    its centre in 1 / PARTS_OF_A_DEGREE, None where the scene is not placed. `site`: its number in the mission."""

    scene_id: int
    number: int
    total: int
    app: int
    indicator: int
    value: int
    threshold: int
    box: tuple[int, int, int, int]
    flags: Flag = NOTHING
    site: int | None = None
    time: str | None = None
    confidence: int | None = None  # per cent
    place: tuple[int, int] | None = None

    @property
    def alert(self) -> bool:
        return Flag.ALERT in self.flags


def pack(record: AppRecord) -> bytes:
    """The octets of a record. InputError where a value does not fit its field."""
    time = NO_TIME if record.time is None else pack_time(record.time)
    flags = record.flags & ~Flag.PLACED | (Flag.PLACED if record.place is not None else NOTHING)
    try:
        octets = _FIXED.pack(
            VERSION << 4 | MARK, flags, record.scene_id, record.number, record.total, record.app, record.indicator,
            NO_SITE if record.site is None else record.site, time, record.value, record.threshold,
            UNKNOWN_CONFIDENCE if record.confidence is None else record.confidence, *record.box,
            *(record.place or (0, 0)),
        )  # fmt: skip
    except struct.error as error:
        raise InputError(f"{record} does not fit its record ({error}); see docs/format.md for the ranges") from None
    return octets + crc32(octets).to_bytes(4, "big")


def is_app_record(octets: bytes) -> bool:
    """Whether what was received is the record of an application."""
    return bool(octets) and octets[0] & 15 == MARK


def unpack(octets: bytes) -> AppRecord:
    """Inverse of `pack`. StreamError where the octets are no whole record of this version, or contradict themselves."""
    if octets and octets[0] >> 4 != VERSION:
        raise StreamError(f"application record of version {octets[0] >> 4}; this ground reads version {VERSION}")
    if len(octets) != OCTETS or crc32(octets[:-4]) != int.from_bytes(octets[-4:], "big"):
        raise StreamError("application record is cut short or its CRC does not match")
    (
        _, flags, scene_id, number, total, app, indicator, site, time, value, threshold, confidence,
        top, left, height, width, longitude, latitude,
    ) = _FIXED.unpack_from(octets)  # fmt: skip
    try:
        at = None if time == NO_TIME else unpack_time(time)
    except (OverflowError, ValueError) as error:
        raise StreamError(f"application record: time {time.hex()} ({error})") from None
    if not (number < total and (confidence <= 100 or confidence == UNKNOWN_CONFIDENCE) and flags < 2 * Flag.PLACED):
        raise StreamError(f"application record: number {number} of {total}, {confidence} % sure, flags {flags}")
    return AppRecord(
        scene_id, number, total, app, indicator, value, threshold, (top, left, height, width), Flag(flags),
        None if site == NO_SITE else site, at, None if confidence == UNKNOWN_CONFIDENCE else confidence,
        (longitude, latitude) if flags & Flag.PLACED else None,
    )  # fmt: skip
