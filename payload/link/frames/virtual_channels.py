"""Packets of virtual channels <-> transfer frames, both directions.

Sending: the packets of a channel lie back to back in its frames, over their borders; each channel counts its own.
Receiving: packets come back whole. A lost frame costs the packets that lie in it, in whole or in part; the pointer of
the next frame says where to go on. Damage is data: nothing here raises on received octets.
"""

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from zlib import crc32

from payload.errors import InputError, StreamError
from payload.link.frames.randomiser import SEQUENCE
from payload.link.frames.transfer_frame import NO_PACKET_BEGINS, ONLY_IDLE, Frame, FrameFormat, pack, unpack

PACKET_HEADER_OCTETS, SHORTEST_PACKET_OCTETS = 6, 7
IDLE_APID = 0x7FF
#: A frame that overtook others waits until so many more of its channel have come.
REORDER_FRAMES = 8
#: A count up to so far behind is a duplicate or late; further behind it is read as far ahead.
LATE_FRAMES = 16
#: A packet has at most 65 542 octets.
LONGEST_PACKET_OCTETS = PACKET_HEADER_OCTETS + 65536


def idle_packet(octets: int) -> bytes:
    """A packet that fills a data field: 7 octets or more."""
    header = bytes([0x07, 0xFF, 0xC0, 0x00]) + (octets - SHORTEST_PACKET_OCTETS).to_bytes(2, "big")
    return header + _idle_data(octets - PACKET_HEADER_OCTETS)


def _idle_data(octets: int) -> bytes:
    return (SEQUENCE * (octets // len(SEQUENCE) + 1))[:octets]


class Framer:
    """Packets -> frames, each as soon as its channel has filled it. Counters run on as long as the framer lives."""

    def __init__(self, layout: FrameFormat) -> None:
        self.layout = layout
        self._master_count = 0
        self._counts: dict[int, int] = {}  # of each channel, of the next frame
        self._open: dict[int, tuple[bytearray, int]] = {}  # octets that wait, and where their first packet begins
        self._idle_frame_data = _idle_data(layout.data_octets)

    def push(self, channel: int, packet: bytes) -> list[bytes]:
        """The frames that this packet fills. InputError where the channel does not exist."""
        if not 0 <= channel < self.layout.idle_channel:
            raise InputError(f"virtual channel {channel}, wanted 0 to {self.layout.idle_channel - 1}")
        waiting, pointer = self._open.get(channel, (bytearray(), NO_PACKET_BEGINS))
        pointer = min(pointer, len(waiting))
        waiting += packet
        frames, size = [], self.layout.data_octets
        while len(waiting) >= size:
            frames.append(self._frame(channel, pointer, bytes(waiting[:size])))
            del waiting[:size]
            pointer = NO_PACKET_BEGINS
        self._open[channel] = waiting, pointer
        return frames

    def frames_until_flushed(self, channel: int, octets: int) -> int:
        """How many frames it takes until a packet of so many octets, and all that waits, is sent and filled up."""
        size, waiting = self.layout.data_octets, {number: len(data) for number, (data, _) in self._open.items()}
        waiting[channel] = waiting.get(channel, 0) + octets
        filled = (n if n % size == 0 else n + SHORTEST_PACKET_OCTETS for n in waiting.values())
        return sum(-(-n // size) for n in filled)

    def flush(self) -> list[bytes]:
        """What waits in every channel, filled up with an idle packet each, in the order of the channels."""
        return [frame for channel in sorted(self._open) for frame in self.flush_channel(channel)]

    def flush_channel(self, channel: int) -> list[bytes]:
        waiting, _ = self._open.get(channel, (b"", 0))
        if not waiting:
            return []
        gap = self.layout.data_octets - len(waiting)
        return self.push(channel, idle_packet(gap if gap >= SHORTEST_PACKET_OCTETS else gap + self.layout.data_octets))

    def idle_frame(self) -> bytes:
        """A frame without packets: something to lock on while there is nothing to send."""
        return self._frame(self.layout.idle_channel, ONLY_IDLE, self._idle_frame_data)

    def _frame(self, channel: int, pointer: int, data: bytes) -> bytes:
        count, master = self._counts.get(channel, 0), self._master_count
        self._counts[channel] = (count + 1) % self.layout.counts
        self._master_count = (master + 1) & 0xFF
        return pack(Frame(channel, count, pointer, data, master), self.layout)


def frames_of(
    packets: Iterable[tuple[int, bytes]], layout: FrameFormat, lead_in: int = 0, urgent: int | None = None
) -> Iterator[bytes]:
    """(channel, packet) in sending order -> frames, so many idle frames before them, the last ones filled up. What the
    channel `urgent` holds does not wait for more: its frame is filled up as soon as another channel has its turn."""
    framer, before = Framer(layout), None
    for _ in range(lead_in):
        yield framer.idle_frame()
    for channel, packet in packets:
        if urgent is not None and before == urgent != channel:
            yield from framer.flush_channel(urgent)
        before = channel
        yield from framer.push(channel, packet)
    yield from framer.flush()


@dataclass(frozen=True)
class FrameCounts:
    """What happened to the frames. received = refused + idle + late + those that were read."""

    received: int = 0
    refused: int = 0  # damaged, or of another spacecraft or format
    idle: int = 0
    late: int = 0  # doubled, or overtaken by more than REORDER_FRAMES of its channel
    missing: int = 0  # gaps in the counts of the channels
    packets: int = 0  # that came whole
    idle_packets: int = 0
    packets_cut: int = 0  # of which a part was lost with a frame


class Deframer:
    """Frames as they come off the link -> (channel, packet). Holds REORDER_FRAMES frames and one packet a channel."""

    def __init__(self, layout: FrameFormat) -> None:
        self.layout = layout
        self.tally = asdict(FrameCounts())
        self._channels: dict[int, _Channel] = {}

    @property
    def counts(self) -> FrameCounts:
        return FrameCounts(**self.tally)

    def push(self, octets: bytes) -> list[tuple[int, bytes]]:
        """The packets that this frame completes."""
        self.tally["received"] += 1
        try:
            frame = unpack(octets, self.layout)
        except StreamError:
            self.tally["refused"] += 1
            return []
        if frame.channel == self.layout.idle_channel or frame.pointer == ONLY_IDLE:
            self.tally["idle"] += 1
            return []
        channel = self._channels.setdefault(frame.channel, _Channel(self.layout.counts, self.tally))
        return [(frame.channel, packet) for packet in channel.push(frame)]

    def refuse(self, frames: int = 1) -> None:
        """Counts frames that never became octets of one: decoding gave them up."""
        self.tally["received"] += frames
        self.tally["refused"] += frames

    def finish(self) -> list[tuple[int, bytes]]:
        """What was held back for frames that may have been overtaken, when nothing more will come."""
        return [(number, packet) for number, channel in self._channels.items() for packet in channel.finish()]


class _Channel:
    """The frames of one virtual channel, put in order, and the packets in them."""

    def __init__(self, counts: int, tally: dict[str, int]) -> None:
        self._counts, self._tally = counts, tally
        self._expected: int | None = None
        self._held: dict[int, Frame] = {}  # by how far ahead of the first frame ever
        self._begun = False  # a frame was read, so a gap before the next one is a loss
        self._seen: dict[int, int] = {}  # count -> CRC of the data that came under it, of the last LATE_FRAMES
        self._open = bytearray()  # octets from the beginning of a packet on
        self._in_step = False  # `_open` begins with a packet

    def push(self, frame: Frame) -> Iterator[bytes]:
        if self._expected is None:
            self._expected = frame.count
        ahead = (frame.count - self._expected) % self._counts
        if ahead >= self._counts - LATE_FRAMES:
            if self._seen.get(frame.count, crc32(frame.data)) == crc32(frame.data):
                self._tally["late"] += 1
                return
            yield from self._restart(frame)  # other data under a count that was read: the counter began again
            ahead = 0
        self._tally["late"] += ahead + self._expected in self._held
        self._held.setdefault(ahead + self._expected, frame)
        yield from self._deliver(flush=False)

    def finish(self) -> Iterator[bytes]:
        yield from self._deliver(flush=True)
        self._drop()

    def _restart(self, frame: Frame) -> Iterator[bytes]:
        yield from self.finish()
        self._expected, self._begun = frame.count, False
        self._seen.clear()

    def _deliver(self, flush: bool) -> Iterator[bytes]:
        while self._held and self._expected is not None:
            first = min(self._held)
            gap = first - self._expected
            if gap and not flush and len(self._held) <= REORDER_FRAMES:
                return
            if gap and self._begun:
                self._tally["missing"] += gap
                self._drop()
            frame = self._held.pop(first)
            self._held = {key - first - 1 + (frame.count + 1) % self._counts: held for key, held in self._held.items()}
            self._expected, self._begun = (frame.count + 1) % self._counts, True
            self._remember(frame)
            yield from self._read(frame)

    def _remember(self, frame: Frame) -> None:
        self._seen.pop(frame.count, None)
        self._seen[frame.count] = crc32(frame.data)
        if len(self._seen) > LATE_FRAMES:
            del self._seen[next(iter(self._seen))]

    def _read(self, frame: Frame) -> Iterator[bytes]:
        """The packets that end in this frame, which follows the one before without a gap."""
        if frame.pointer == NO_PACKET_BEGINS:
            if self._in_step:
                self._open += frame.data
        elif not self._in_step:
            self._open[:] = frame.data[frame.pointer :]
        else:
            self._open += frame.data[: frame.pointer]
            yield from self._packets()
            if self._open:  # the pointer knows better where a packet begins
                self._drop()
            self._open += frame.data[frame.pointer :]
        self._in_step = self._in_step or frame.pointer != NO_PACKET_BEGINS
        yield from self._packets()

    def _packets(self) -> Iterator[bytes]:
        """Takes whole packets from the front of what is open."""
        at = 0
        while len(self._open) - at >= PACKET_HEADER_OCTETS:
            size = SHORTEST_PACKET_OCTETS + int.from_bytes(self._open[at + 4 : at + 6], "big")
            if len(self._open) - at < size:
                break
            packet = bytes(self._open[at : at + size])
            at += size
            if int.from_bytes(packet[:2], "big") & IDLE_APID == IDLE_APID:
                self._tally["idle_packets"] += 1
            else:
                self._tally["packets"] += 1
                yield packet
        del self._open[:at]

    def _drop(self) -> None:
        self._tally["packets_cut"] += bool(self._open)
        self._open.clear()
        self._in_step = False
