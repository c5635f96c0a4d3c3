"""Tile code <-> CCSDS space packets (133.0-B-2), both directions. Every octet is in docs/format.md, "Space packets".

Sending splits one tile code into segments, one per packet, numbered by a 14-bit counter per application (APID).
Receiving gives back tile codes: damage on the link is data, so nothing here raises on received octets.

     0        3 4 5          16 18              32               48            8 x (L + 7) - 16
    +---+----+-+-+-------------+--+--------------+----------------+-- ... -----+----------------+
    |000| 0  |0|  APID (11)    |fl| count (14)   | L (16)         | segment    | CRC-16 (16)    |
    +---+----+-+-+-------------+--+--------------+----------------+-- ... -----+----------------+
    version type secondary     flags             data field octets - 1
"""

import re
from binascii import crc_hqx
from collections.abc import Collection, Iterator
from dataclasses import asdict, dataclass
from enum import IntEnum
from io import BytesIO
from typing import BinaryIO
from zlib import crc32

from payload.errors import PacketError, StreamError

try:
    from spacepackets.ccsds import SequenceFlags, SpacePacketHeader
except ImportError:  # a device under test encodes tiles without it: its host makes the packets
    SequenceFlags = SpacePacketHeader = None  # type: ignore[assignment,misc]

HEADER_OCTETS = 6
CRC_OCTETS = 2
OVERHEAD_OCTETS = HEADER_OCTETS + CRC_OCTETS
#: The length field counts data field octets - 1 in 16 bits.
LONGEST_PACKET_OCTETS = HEADER_OCTETS + 65536
IDLE_APID = 0x7FF
COUNTS = 1 << 14
#: A packet overtaken by up to this many others is put back in order.
REORDER_PACKETS = 32
#: A count up to this far behind the newest is a duplicate or too late; further behind it is read as far ahead.
LATE_PACKETS = 4096
#: So many late packets in a row mean that the counter itself jumped: a restart, or a very long outage.
RESTART_PACKETS = 64
#: Longest tile code the ground will hold while it waits for a last segment: four times a raw 1024 px RGB-NIR tile.
LONGEST_DATA_OCTETS = 32 * 1024 * 1024
_READ_OCTETS = 1 << 20


class SequenceFlag(IntEnum):
    """Sequence flags: which part of a tile code a packet carries."""

    CONTINUATION = 0b00
    FIRST = 0b01
    LAST = 0b10
    WHOLE = 0b11


@dataclass(frozen=True)
class Packet:
    """One space packet without its CRC: telemetry, no secondary header."""

    apid: int  # 0 to 2047
    count: int  # 0 to 16383
    flag: SequenceFlag
    data: bytes  # 1 to 65534 octets

    def __post_init__(self) -> None:
        if not 0 <= self.apid <= IDLE_APID:
            raise PacketError(f"apid {self.apid} does not fit in 11 bits; wanted 0 to 2047")
        if not 0 <= self.count < COUNTS:
            raise PacketError(f"count {self.count} does not fit in 14 bits; wanted 0 to 16383")
        if not 1 <= len(self.data) <= LONGEST_PACKET_OCTETS - OVERHEAD_OCTETS:
            raise PacketError(f"{len(self.data)} octets do not fit in a packet; wanted 1 to 65534")


def pack(packet: Packet) -> bytes:
    """The octets of a packet: header, data, CRC over both."""
    flags = SequenceFlags(packet.flag)
    length = len(packet.data) + CRC_OCTETS - 1
    octets = SpacePacketHeader.tm(packet.apid, packet.count, length, seq_flags=flags).pack()
    octets += packet.data
    octets += crc_hqx(octets, 0xFFFF).to_bytes(CRC_OCTETS, "big")
    return bytes(octets)


def unpack(octets: bytes) -> Packet:
    """The packet in `octets`; StreamError with the cause if they are not exactly one undamaged packet of ours."""
    if len(octets) <= OVERHEAD_OCTETS:
        raise StreamError(f"{len(octets)} octets are too few for a packet")
    if crc_hqx(octets, 0xFFFF) != 0:  # a CRC that follows its own message leaves the remainder 0
        raise StreamError("CRC does not match")
    try:
        header = SpacePacketHeader.unpack(octets)
    except (ValueError, IndexError) as error:
        raise StreamError(f"header does not parse: {error}") from None
    if header.ccsds_version or header.packet_type or header.sec_header_flag:
        raise StreamError("not a telemetry packet without secondary header")
    if header.packet_len != len(octets):
        raise StreamError(f"length field says {header.packet_len} octets, {len(octets)} came")
    data = bytes(octets[HEADER_OCTETS:-CRC_OCTETS])
    return Packet(header.apid, header.seq_count, SequenceFlag(header.seq_flags), data)


def is_packet(octets: bytes) -> bool:
    """Whether these are exactly one undamaged packet of ours."""
    try:
        unpack(octets)
    except StreamError:
        return False
    return True


class SequenceCounter:
    """The packet counter of one application: 14 bits, 0 follows 16383, runs on from tile code to tile code."""

    def __init__(self, apid: int, start: int = 0) -> None:
        if not 0 <= apid < IDLE_APID:
            raise PacketError(f"apid is {apid}, wanted 0 to 2046 (2047 is the idle packet)")
        if not 0 <= start < COUNTS:
            raise PacketError(f"start is {start}, wanted 0 to 16383")
        self.apid = apid
        self._next = start

    @property
    def next(self) -> int:
        """The count that comes next."""
        return self._next

    def take(self) -> int:
        """The count of the next packet."""
        count = self._next
        self._next = (count + 1) % COUNTS
        return count


def segment(data: bytes, counter: SequenceCounter, packet_octets: int) -> Iterator[bytes]:
    """Packets of at most `packet_octets` octets, header and CRC included, that carry one tile code in order."""
    if not OVERHEAD_OCTETS < packet_octets <= LONGEST_PACKET_OCTETS:
        raise PacketError(f"packet_octets is {packet_octets}, wanted {OVERHEAD_OCTETS + 1} to {LONGEST_PACKET_OCTETS}")
    if not data:
        raise PacketError("there are 0 octets to send; a tile code has at least its header")
    return _segments(data, counter, packet_octets - OVERHEAD_OCTETS)


def _segments(data: bytes, counter: SequenceCounter, step: int) -> Iterator[bytes]:
    for start in range(0, len(data), step):
        first, last = start == 0, start + step >= len(data)
        flag = SequenceFlag.FIRST * first | SequenceFlag.LAST * last
        yield pack(Packet(counter.apid, counter.take(), SequenceFlag(flag), data[start : start + step]))


def packets_needed(data_octets: int, packet_octets: int) -> int:
    """How many packets `segment` makes of `data_octets` octets."""
    return -(-data_octets // (packet_octets - OVERHEAD_OCTETS))


def octets_on_air(data_octets: int, packet_octets: int) -> int:
    """Octets that `segment` sends for `data_octets` octets, headers and CRCs included."""
    return data_octets + OVERHEAD_OCTETS * packets_needed(data_octets, packet_octets)


def octets_within(on_air: int, packet_octets: int) -> int:
    """The most octets that `segment` sends in `on_air` octets: the inverse of `octets_on_air`."""
    whole, rest = divmod(on_air, packet_octets)
    return whole * (packet_octets - OVERHEAD_OCTETS) + max(0, rest - OVERHEAD_OCTETS)


@dataclass(frozen=True)
class Assembly:
    """One tile code as far as it arrived: `data` is its beginning without holes, the whole of it if `complete`."""

    data: bytes
    complete: bool
    cause: str | None = None  # why it is not complete


@dataclass(frozen=True)
class ReceptionCounts:
    """What happened to the packets. received = refused + foreign + late + orphaned + those that made assemblies."""

    received: int = 0
    refused: int = 0  # damaged: CRC, length or header
    foreign: int = 0  # of another application, idle packets included
    late: int = 0  # duplicates, or overtaken by more than REORDER_PACKETS
    missing: int = 0  # gaps in the count between the first and the last packet received
    orphaned: int = 0  # segments whose beginning was lost
    restarts: int = 0  # times the count jumped back for good


class Reassembler:
    """Packets of one application, as they come off the link, to assemblies in sending order.

    Bears loss, duplicates, bit errors, packets overtaken by up to REORDER_PACKETS others, the wrap of the count, and
    its restart. Holds at most REORDER_PACKETS packets and one tile code. Never raises on what was received. What a
    14-bit count cannot show stays unseen: a loss of exactly 16384 packets in a row, or a multiple.
    Packets of other applications are counted and never followed.
    """

    def __init__(
        self, apid: int, longest_data_octets: int = LONGEST_DATA_OCTETS, reorder_packets: int = REORDER_PACKETS
    ) -> None:
        self._apid, self._reorder_packets = apid, reorder_packets
        self._longest_data_octets = longest_data_octets
        self._tally = asdict(ReceptionCounts())
        self._held: dict[int, Packet] = {}  # by running count: the 14-bit count, unwrapped
        self._expected: int | None = None  # running count that comes next; None before the first packet
        self._in_step = False  # a packet was delivered, so a gap before the next one is a loss
        self._late_in_a_row = 0
        self._delivered: dict[int, int] = {}  # 14-bit count -> CRC of the segment that came under it, newest last
        self._open: bytearray | None = None  # the tile code being received

    @property
    def counts(self) -> ReceptionCounts:
        return ReceptionCounts(**self._tally)

    @property
    def open_octets(self) -> int:
        """How long `open_record` is."""
        return len(self._open or b"")

    @property
    def open_record(self) -> bytes:
        """The beginning, as far as it is here, of the record whose last segment has not come yet."""
        return bytes(self._open or b"")

    def push(self, packet: bytes) -> list[Assembly]:
        """The assemblies that this packet completes or proves broken, in sending order."""
        self._tally["received"] += 1
        try:
            parsed = unpack(packet)
        except StreamError:
            self._tally["refused"] += 1
            return []
        if parsed.apid != self._apid:
            self._tally["foreign"] += 1
            return []
        return self._place(parsed)

    def finish(self) -> list[Assembly]:
        """What is left when nothing more will come. Packets lost after the last one received stay unseen."""
        return [*self._deliver(flush=True), *self._close("the stream ended before its last segment")]

    def _place(self, packet: Packet) -> list[Assembly]:
        """Puts a packet into the reorder window, unless its place was filled or given up already."""
        if self._expected is None:
            self._expected = packet.count - self._reorder_packets  # earlier ones may still come
        ahead = (packet.count - self._expected) % COUNTS
        running = self._expected + ahead
        if ahead < COUNTS - LATE_PACKETS and running not in self._held:
            self._late_in_a_row = 0
            self._held[running] = packet
            return list(self._deliver(flush=False))
        self._late_in_a_row += 1
        if self._late_in_a_row > RESTART_PACKETS or self._is_new_under_an_old_count(packet):
            return self._restart(packet)
        self._tally["late"] += 1
        return []

    def _is_new_under_an_old_count(self, packet: Packet) -> bool:
        """Whether another packet has been delivered under this count: then it is no duplicate, and the count jumped."""
        known = self._delivered.get(packet.count)
        return known is not None and known != crc32(packet.data)

    def _restart(self, packet: Packet) -> list[Assembly]:
        """The count jumped back for good: ends what was held and goes on from this packet."""
        self._tally["restarts"] += 1
        ended = [*self._deliver(flush=True), *self._close("the packet count started again")]
        self._expected, self._late_in_a_row = packet.count, 0
        self._delivered.clear()
        self._held[packet.count] = packet
        return [*ended, *self._deliver(flush=False)]

    def _deliver(self, flush: bool) -> Iterator[Assembly]:
        """Takes packets out of the window in order, over a gap once it cannot be filled any more."""
        while self._held and self._expected is not None:
            first = min(self._held)
            gap = first - self._expected
            if gap and not flush and max(self._held) - first < self._reorder_packets:
                return
            if gap and self._in_step:
                self._tally["missing"] += gap
                yield from self._close(f"{gap} packet{'s' * (gap > 1)} lost after {len(self._open or b'')} octets")
            self._in_step = True
            self._expected = first + 1
            self._remember(self._held[first])
            yield from self._take(self._held.pop(first))

    def _remember(self, packet: Packet) -> None:
        self._delivered.pop(packet.count, None)
        self._delivered[packet.count] = crc32(packet.data)
        if len(self._delivered) > LATE_PACKETS:
            del self._delivered[next(iter(self._delivered))]

    def _take(self, packet: Packet) -> Iterator[Assembly]:
        """One packet in order: opens, grows or ends the tile code being received."""
        if packet.flag in (SequenceFlag.FIRST, SequenceFlag.WHOLE):
            yield from self._close("another tile code began before its last segment")
            self._open = bytearray()
        if self._open is None:
            self._tally["orphaned"] += 1
            return
        self._open += packet.data
        if len(self._open) > self._longest_data_octets:
            yield from self._close(f"longer than {self._longest_data_octets} octets")
        elif packet.flag in (SequenceFlag.LAST, SequenceFlag.WHOLE):
            yield Assembly(bytes(self._open), complete=True)
            self._open = None

    def _close(self, cause: str) -> Iterator[Assembly]:
        if self._open is not None:
            yield Assembly(bytes(self._open), complete=False, cause=cause)
            self._open = None


def read_packets(
    source: bytes | BinaryIO, apids: Collection[int] = (), longest_octets: int = LONGEST_PACKET_OCTETS
) -> Iterator[bytes]:
    """Splits a stream of packets into pieces; joined together the pieces are the stream, whatever is in it.

    Where an undamaged packet begins, the piece is that packet. Elsewhere the reader moves on octet by octet to the
    next place where one begins, and what lies between comes as pieces that `unpack` refuses. No piece is longer than
    `longest_octets`, the longest packet to expect: it bounds memory and the work spent on hostile octets. With
    `apids` only packets of those applications are a place to begin again, which makes a false start all but impossible
    (without: 2^-16 at about one octet in 32 of damaged data).
    """
    heads = b"|".join(re.escape(apid.to_bytes(2, "big")) for apid in apids)
    begins = re.compile(heads or rb"[\x00-\x07]", re.DOTALL)
    read = (BytesIO(source) if isinstance(source, bytes) else source).read
    window, damaged, at, ended = b"", 0, 0, False  # window[damaged:at] is no packet
    while True:
        while not ended and len(window) - at < 2 * longest_octets:
            more = read(_READ_OCTETS)
            window, at, damaged, ended = window[damaged:] + more, at - damaged, 0, not more
        if at >= len(window):
            break
        length = _packet_at(window, at, longest_octets) if begins.match(window, at) else 0
        if length:
            if damaged < at:
                yield window[damaged:at]
            yield window[at : at + length]
            damaged = at = at + length
        elif at - damaged == longest_octets:
            yield window[damaged:at]
            damaged = at
        else:
            found = begins.search(window, at + 1, damaged + longest_octets + 1)
            at = min(found.start() if found else len(window), damaged + longest_octets)
    if damaged < at:
        yield window[damaged:]


def _packet_at(window: bytes, at: int, longest_octets: int) -> int:
    """Octets of the undamaged packet that begins at `at`; 0 if none does."""
    length = HEADER_OCTETS + 1 + int.from_bytes(window[at + 4 : at + HEADER_OCTETS], "big")
    if not OVERHEAD_OCTETS < length <= min(longest_octets, len(window) - at):
        return 0
    return length if crc_hqx(memoryview(window)[at : at + length], 0xFFFF) == 0 else 0
