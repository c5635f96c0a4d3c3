"""What carries packets of several streams from round to round: in the mission's frames, or alone.

A round is what the satellite has to say until it waits for the ground. Both kinds keep the clock of the passes, log
what went up into the air, and hand on what came down.
"""

from collections.abc import Iterable, Iterator
from typing import BinaryIO, Protocol

from payload.link.frames.convolutional import ConvolutionalEncoder
from payload.link.frames.security import Sealer
from payload.link.frames.stack import Stack, encode_frames
from payload.link.frames.virtual_channels import Framer
from sim.delivery.contact import Contact
from sim.ground.arrivals import Arrivals
from sim.link.channel import Channel
from sim.link.frames.channel import FrameChannel
from sim.link.frames.receiver import FrameReceiver

Tagged = tuple[int, bytes]  # virtual channel and packet


class Air(Protocol):
    """`frames`: sent up to now; `arrived_frames`: read on the ground, None where packets go alone."""

    frames: int

    @property
    def arrived_frames(self) -> int | None: ...

    def send(self, packets: Iterable[Tagged]) -> Iterator[Tagged]:
        """One round: those packets that the passes hold, in their order, and what arrived of them. What one pass does
        not hold waits for the next; what no pass holds is never sent."""
        ...


class PacketAir:
    """Packets alone."""

    frames = 0
    arrived_frames = None

    def __init__(self, contact: Contact, channel: Channel, log: BinaryIO, arrivals: Arrivals) -> None:
        self._contact, self._channel, self._log, self._arrivals = contact, channel, log, arrivals

    def send(self, packets: Iterable[Tagged]) -> Iterator[Tagged]:
        return ((0, packet) for packet in self._channel.send(self._sent(packets)))

    def _sent(self, packets: Iterable[Tagged]) -> Iterator[bytes]:
        for _, packet in packets:
            if not self._contact.take(len(packet)):
                return
            self._log.write(packet)
            self._arrivals.sent(self._contact.now_s, len(packet))
            yield packet


class FrameAir:
    """Packets in frames of their virtual channels, with every layer of the stack.

    Each round, and each pass, begins with the stack's lead-in of idle frames and ends with every channel filled up: no
    packet waits in half a frame for the next.
    """

    def __init__(
        self, stack: Stack, contact: Contact, channel: FrameChannel, receiver: FrameReceiver, log: BinaryIO,
        arrivals: Arrivals,
    ) -> None:  # fmt: skip
        self._stack, self._contact, self._channel, self._receiver = stack, contact, channel, receiver
        self._log, self._arrivals, self.frames = log, arrivals, 0
        self._framer, self._convolutional = Framer(stack.packet_layout), ConvolutionalEncoder()
        self._sealer = None if stack.security is None else Sealer(stack.security, stack.layout)

    @property
    def arrived_frames(self) -> int:
        counts = self._receiver.reception.frames
        return counts.received - counts.refused

    def send(self, packets: Iterable[Tagged]) -> Iterator[Tagged]:
        frames = self._frames(packets)
        sealed = frames if self._sealer is None else map(self._sealer.seal, frames)
        units = encode_frames(sealed, self._stack, self._convolutional)
        for octets in self._channel.send(self._logged(units)):
            yield from self._receiver.push(octets)
        yield from self._receiver.settle()

    def _logged(self, units: Iterable[bytes]) -> Iterator[bytes]:
        for unit in units:
            self.frames += 1
            self._log.write(unit)
            self._arrivals.sent(self._contact.now_s, len(unit))
            yield unit

    def _frames(self, packets: Iterable[Tagged]) -> Iterator[bytes]:
        """The frames of a round, each as long as a pass has room for it; none where there is nothing to say."""
        begun = False
        for channel, packet in packets:
            if not begun:
                yield from self._timed(self._lead_in())
                begun = True
            if not self._holds(channel, packet):
                yield from self._timed(self._framer.flush())
                if not self._contact.next_pass():
                    return
                yield from self._timed(self._lead_in())
                if not self._holds(channel, packet):
                    return
            yield from self._timed(self._framer.push(channel, packet))
        yield from self._timed(self._framer.flush())

    def _holds(self, channel: int, packet: bytes) -> bool:
        """Whether this pass has room for the frames that a packet ends in, and for those that fill up its end."""
        needed = self._framer.frames_until_flushed(channel, len(packet))
        return needed * self._stack.unit_octets <= self._contact.left_octets

    def _lead_in(self) -> Iterator[bytes]:
        for _ in range(self._stack.lead_in_frames):
            if self._contact.left_octets >= self._stack.unit_octets:
                yield self._framer.idle_frame()

    def _timed(self, frames: Iterable[bytes]) -> Iterator[bytes]:
        for frame in frames:
            self._contact.take(self._stack.unit_octets)
            yield frame
