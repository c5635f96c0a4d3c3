"""What the guard counts, and the event log.

    octet 0      1       2..5     6..9   10..13  14,15  16,17  18 ...
    +------+-------+--------+------+-------+------+------+--------+
    |v 4|2 | event | number | time | scene | row  | col  | detail |       event record
    +------+-------+--------+------+-------+------+------+--------+
       8       8      32      32     32      16     16     8 n

Counters go down in the link's housekeeping record (payload/link/housekeeping.py). docs/format.md, "Events". Times are
what the spacecraft's clock says, and it may jump: order comes from the event's number.
"""

import struct
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import IntEnum

from payload.errors import StreamError
from payload.link.housekeeping import Status

VERSION = 1
EVENT = 2
NOWHERE = 0xFFFF
LONGEST_DETAIL_OCTETS = 200
#: Events that wait to be sent; when there are more the oldest go, and the count of events shows it.
MOST_WAITING = 1024
MOST_COUNT = (1 << 32) - 1

_EVENT = struct.Struct(">BBIIIHH")


class Mode(IntEnum):
    """How the payload works."""

    NOMINAL = 0
    FALLBACK = 1  # tiles by JPEG 2000, without the bundle's networks and tables
    SAFE = 2  # nothing is coded: tiles are declared omitted


class Count(IntEnum):
    """Counters of the guard in a housekeeping record, in their order. New ones go to the end."""

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
    WATCHDOGS = 24  # starts after the watchdog had ended the payload, as whoever starts it says
    COMMANDS = 25  # telecommands that were done
    COMMANDS_REFUSED = 26
    TILES_GIVEN_UP = 27  # that stopped the payload at every start


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
    TAKEN_BACK = 21  # stored tiles from this one on are pending again
    RELOADED = 30
    FALLBACK = 31
    SAFE_MODE = 32
    ROLLED_BACK = 33
    VECTOR_LEARNT = 34
    NOMINAL_AGAIN = 35
    CONFIRMED = 36  # the bundle on trial is the active one from now on
    LATE_TILE = 40
    TILE_GIVEN_UP = 41
    STORE_FULL = 50
    STORE_DAMAGED = 51
    RESUMED = 52
    LET_GO = 53  # layers of stored tiles made room
    COMMAND_DONE = 60
    COMMAND_REFUSED = 61


@dataclass(frozen=True)
class Event:
    """One line of the event log. `tile`: row and column, None where no tile is meant."""

    number: int
    event: EventId
    time_s: int
    scene_id: int
    tile: tuple[int, int] | None
    detail: str


@dataclass(eq=False)
class Telemetry:
    """Counters and events of one payload. `clock` gives the spacecraft's time in seconds."""

    clock: Callable[[], float] = lambda: 0.0
    mode: Mode = Mode.NOMINAL
    scene_id: int = 0
    guarded: bool = False  # without a guard nothing is counted, and no counters go down
    counts: Counter[Count] = field(default_factory=Counter)
    waiting: deque[Event] = field(default_factory=lambda: deque(maxlen=MOST_WAITING))
    log: deque[Event] = field(default_factory=lambda: deque(maxlen=MOST_WAITING))  # the last ones, sent or not

    def count(self, what: Count, by: int = 1) -> None:
        self.counts[what] += by

    def tell(self, event: EventId, detail: str = "", tile: tuple[int, int] | None = None) -> None:
        """Puts an event into the log."""
        self.counts[Count.EVENTS] += 1
        found = Event(self.counts[Count.EVENTS], event, self.now_s, self.scene_id, tile, detail)
        self.waiting.append(found)
        self.log.append(found)

    def tell_again(self) -> None:
        """The whole log waits to be sent once more."""
        self.waiting = self.log.copy()

    def take(self) -> list[Event]:
        """The events that were not taken yet."""
        events = list(self.waiting)
        self.waiting.clear()
        return events

    @property
    def now_s(self) -> int:
        return min(max(int(self.clock()), 0), MOST_COUNT)

    def status(self) -> Status:
        """Mode and counters as they stand, for a housekeeping record."""
        counts = tuple(min(self.counts[count], MOST_COUNT) for count in Count) if self.guarded else ()
        return Status(self.mode, self.scene_id, counts)

    def adopt(self, earlier: "Telemetry") -> None:
        """Goes on with what was counted and told before the payload was there."""
        self.counts.update(earlier.counts)
        self.waiting.extendleft(reversed(earlier.waiting))
        self.log.extendleft(reversed(earlier.log))


def named(counts: Sequence[int]) -> dict[str, int]:
    """Counters of a housekeeping record by their names; those that this reader does not know are left out."""
    return {count.name.lower(): value for count, value in zip(Count, counts, strict=False)}


def pack_event(event: Event) -> bytes:
    """The octets of an event; its text is cut to LONGEST_DETAIL_OCTETS."""
    row, col = event.tile if event.tile is not None else (NOWHERE, NOWHERE)
    head = VERSION << 4 | EVENT, event.event, event.number, event.time_s, event.scene_id, row, col
    return _EVENT.pack(*head) + event.detail.encode()[:LONGEST_DETAIL_OCTETS]


def unpack(octets: bytes) -> Event:
    """Inverse of `pack_event`. StreamError where the octets are none."""
    try:
        if octets[0] != VERSION << 4 | EVENT:
            raise ValueError("version or kind")
        _, event, number, time_s, scene_id, row, col = _EVENT.unpack_from(octets)
        tile = None if (row, col) == (NOWHERE, NOWHERE) else (row, col)
        return Event(number, EventId(event), time_s, scene_id, tile, octets[_EVENT.size :].decode("utf-8", "replace"))
    except (IndexError, ValueError, struct.error):
        raise StreamError(f"{len(octets)} octets are no event record of version {VERSION}") from None
