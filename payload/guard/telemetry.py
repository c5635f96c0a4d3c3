"""What the guard tells: counters for housekeeping, and an event for everything that was found or done.

    +------+------+-------+------+----+------------+
    |v 4|1 | mode | scene | time | n  | n counters |                      housekeeping record
    +------+------+-------+------+----+------------+
       8      8      32      32    8     32 each
    +------+-------+--------+------+-------+------+------+--------+
    |v 4|2 | event | number | time | scene | row  | col  | detail |       event record
    +------+-------+--------+------+-------+------+------+--------+
       8       8      32      32     32      16     16     8 n

Both travel in packets of an APID of their own (docs/format.md, "Housekeeping and events"). Times are what the
spacecraft's clock says, and it may jump: order comes from the event's number.
"""

import struct
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum

from payload.errors import StreamError

VERSION = 1
HOUSEKEEPING, EVENT = 1, 2
NOWHERE = 0xFFFF
LONGEST_DETAIL_OCTETS = 200
#: Events that wait to be sent; when there are more the oldest go, and the count of events shows it.
MOST_WAITING = 1024
MOST_COUNT = (1 << 32) - 1

_HOUSEKEEPING = struct.Struct(">BBIIB")
_EVENT = struct.Struct(">BBIIIHH")


class Mode(IntEnum):
    """How the payload works."""

    NOMINAL = 0
    FALLBACK = 1  # tiles by JPEG 2000, without the bundle's networks and tables
    SAFE = 2  # nothing is coded: tiles are declared omitted


class Count(IntEnum):
    """Counters of a housekeeping record, in their order. New ones go to the end."""

    TILES = 0  # coded, or declared
    SCRUB_ROUNDS = 1  # times all held memory was compared
    MEMORY_HITS = 2  # pieces of held memory found changed, and mended from their copy
    COPY_HITS = 3  # copies found changed, and mended
    UNMENDED_HITS = 4  # both were hit
    NETWORK_CHECKS = 5
    NETWORK_HITS = 6  # networks that gave another answer than before
    SELF_TESTS = 7
    SELF_TESTS_FAILED = 8
    ENCODER_FAULTS = 9  # tiles whose coding stopped with an error
    READ_BACK = 10  # tiles that were decoded on board after they were coded
    READ_BACK_FAILED = 11
    RECODED = 12  # tiles coded again because something was found behind them
    RECODED_OTHERWISE = 13  # those of them that had been coded wrong
    RELOADS = 14  # from the golden copy
    FALLBACKS = 15
    SAFE_MODES = 16
    LATE_TILES = 17  # past their deadline
    EVENTS = 18
    STARTS = 19
    UNCLEAN_STARTS = 20  # after a power cut, a crash or the watchdog
    STORE_FULL = 21
    STORE_DAMAGED = 22  # records of the store found damaged
    ROLLBACKS = 23


class EventId(IntEnum):
    """What happened."""

    STARTED = 1
    UNCLEAN_START = 2
    MEMORY_HIT = 10
    COPY_HIT = 11
    UNMENDED_HIT = 12
    NETWORK_HIT = 13
    SELF_TEST_FAILED = 14
    ENCODER_FAULT = 15
    READ_BACK_FAILED = 16
    RECODED = 20
    RELOADED = 30
    FALLBACK = 31
    SAFE_MODE = 32
    ROLLED_BACK = 33
    VECTOR_LEARNT = 34
    NOMINAL_AGAIN = 35
    LATE_TILE = 40
    STORE_FULL = 50
    STORE_DAMAGED = 51
    RESUMED = 52


@dataclass(frozen=True)
class Event:
    """One line of the event log. `tile`: row and column, None where no tile is meant."""

    number: int
    event: EventId
    time_s: int
    scene_id: int
    tile: tuple[int, int] | None
    detail: str


@dataclass(frozen=True)
class Housekeeping:
    """The counters at one moment."""

    mode: Mode
    scene_id: int
    time_s: int
    counts: tuple[int, ...]

    def __getitem__(self, count: Count) -> int:
        return self.counts[count] if count < len(self.counts) else 0


@dataclass(eq=False)
class Telemetry:
    """Counters and events of one payload. `clock` gives the spacecraft's time in seconds."""

    clock: Callable[[], float] = lambda: 0.0
    mode: Mode = Mode.NOMINAL
    scene_id: int = 0
    counts: Counter[Count] = field(default_factory=Counter)
    waiting: deque[Event] = field(default_factory=lambda: deque(maxlen=MOST_WAITING))

    def count(self, what: Count, by: int = 1) -> None:
        self.counts[what] += by

    def tell(self, event: EventId, detail: str = "", tile: tuple[int, int] | None = None) -> None:
        """Puts an event into the log."""
        self.counts[Count.EVENTS] += 1
        self.waiting.append(Event(self.counts[Count.EVENTS], event, self.now_s, self.scene_id, tile, detail))

    def take(self) -> list[Event]:
        """The events that were not taken yet."""
        events = list(self.waiting)
        self.waiting.clear()
        return events

    @property
    def now_s(self) -> int:
        return min(max(int(self.clock()), 0), MOST_COUNT)

    def housekeeping(self) -> Housekeeping:
        """The counters as they stand."""
        counts = tuple(min(self.counts[count], MOST_COUNT) for count in Count)
        return Housekeeping(self.mode, self.scene_id, self.now_s, counts)


def by_name(counts: Mapping[Count, int]) -> dict[str, int]:
    """Every counter by its name in lower case, zeros too: for reports."""
    return {count.name.lower(): counts.get(count, 0) for count in Count}


def pack_housekeeping(record: Housekeeping) -> bytes:
    """The octets of a housekeeping record."""
    head = VERSION << 4 | HOUSEKEEPING, record.mode, record.scene_id, record.time_s, len(record.counts)
    return _HOUSEKEEPING.pack(*head) + struct.pack(f">{len(record.counts)}I", *record.counts)


def pack_event(event: Event) -> bytes:
    """The octets of an event; its text is cut to LONGEST_DETAIL_OCTETS."""
    row, col = event.tile if event.tile is not None else (NOWHERE, NOWHERE)
    head = VERSION << 4 | EVENT, event.event, event.number, event.time_s, event.scene_id, row, col
    return _EVENT.pack(*head) + event.detail.encode()[:LONGEST_DETAIL_OCTETS]


def unpack(octets: bytes) -> Housekeeping | Event:
    """Inverse of `pack_housekeeping` and `pack_event`. StreamError where the octets are neither.

    Counters that this reader does not know are kept; ones that the sender did not know read as 0.
    """
    try:
        if octets[0] == VERSION << 4 | HOUSEKEEPING:
            return _unpack_housekeeping(octets)
        if octets[0] == VERSION << 4 | EVENT:
            return _unpack_event(octets)
        raise ValueError("version or kind")
    except (IndexError, ValueError, struct.error):
        raise StreamError(f"{len(octets)} octets are no housekeeping or event record of version {VERSION}") from None


def _unpack_housekeeping(octets: bytes) -> Housekeeping:
    _, mode, scene_id, time_s, n = _HOUSEKEEPING.unpack_from(octets)
    if len(octets) != _HOUSEKEEPING.size + 4 * n:
        raise ValueError("length")
    return Housekeeping(Mode(mode), scene_id, time_s, struct.unpack_from(f">{n}I", octets, _HOUSEKEEPING.size))


def _unpack_event(octets: bytes) -> Event:
    _, event, number, time_s, scene_id, row, col = _EVENT.unpack_from(octets)
    tile = None if (row, col) == (NOWHERE, NOWHERE) else (row, col)
    detail = octets[_EVENT.size :].decode("utf-8", "replace")
    return Event(number, EventId(event), time_s, scene_id, tile, detail)
