"""The streams of a payload: which application (APID) and which virtual channel a record goes down in.

Every stream counts its own packets: a thumbnail that is lost is not taken for a layer. APID = the mission's `apid` +
the stream; virtual channel = the stream. docs/format.md, "Streams".
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from enum import IntEnum

from payload.link import app_record, housekeeping
from payload.link.housekeeping import Housekeeping
from payload.link.space_packet import SequenceCounter, octets_on_air, segment
from payload.link.tile_code import Kind
from payload.policy import Policy


class Stream(IntEnum):
    """What goes down apart from what. ALERTS: the answers of onboard applications."""

    LAYERS = 0
    TELEMETRY = 1
    ALERTS = 2
    THUMBNAILS = 3


def apids_of(apid: int) -> range:
    """The APIDs of a payload whose mission gives it `apid`."""
    return range(apid, apid + len(Stream))


def stream_of(record: bytes) -> Stream:
    """The stream that a record belongs to, by the low half of its first octet."""
    mark = record[0] & 15
    if mark == housekeeping.MARK:
        return Stream.TELEMETRY
    if mark == app_record.MARK:
        return Stream.ALERTS
    return Stream.THUMBNAILS if mark == Kind.AUDIT else Stream.LAYERS


def with_channels(packets: Iterable[bytes], apid: int) -> Iterator[tuple[int, bytes]]:
    """Packets of this payload, each with the virtual channel of its stream."""
    return ((int.from_bytes(packet[:2], "big") % 2048 - apid, packet) for packet in packets)


class Sender:
    """Records -> packets, with the counters of every stream. `time`: what the clock of the payload shows."""

    def __init__(self, policy: Policy, time: str | None = None) -> None:
        self.time = time
        self._packet_octets = policy.packet_octets
        self._counters = [SequenceCounter(apid) for apid in apids_of(policy.apid)]
        self._packets = [0] * len(Stream)
        self._tiles: Counter[int] = Counter()
        self._scenes = 0

    def packets(self, record: bytes) -> list[bytes]:
        """The packets that carry one record."""
        stream = stream_of(record)
        made = list(segment(record, self._counters[stream], self._packet_octets))
        self._packets[stream] += len(made)
        self._tiles[record[0] & 15] += 1
        return made

    def begin_scene(self) -> list[bytes]:
        """Housekeeping before a scene."""
        self._scenes += 1
        return self.housekeeping()

    def housekeeping(self) -> list[bytes]:
        """What has been sent so far, as packets."""
        tiles = tuple(self._tiles[kind] for kind in range(6))
        return self.packets(housekeeping.pack(Housekeeping(self.time, self._scenes, tiles, tuple(self._packets))))


def housekeeping_on_air(packet_octets: int) -> int:
    """Octets of packets that the housekeeping of a scene takes, before it and behind it."""
    return 2 * octets_on_air(housekeeping.OCTETS, packet_octets)
