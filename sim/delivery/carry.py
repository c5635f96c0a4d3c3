"""What the payload made, over the link, to the packets that the ground gets: each stream as the mission delivers it."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from payload.link.frames.stack import LayerOctets, Stack
from payload.policy import Policy
from sim.delivery.air import Tagged
from sim.delivery.by_stream import ByStream
from sim.delivery.contact import Contact
from sim.delivery.rounds import DeliveryReport
from sim.delivery.spec import Delivery
from sim.ground.arrivals import Arrivals
from sim.link.channel import Channel, LinkReport
from sim.link.frames.channel import FRAMES_FILE, FrameChannel, FrameLinkReport, units_in
from sim.link.frames.receiver import GATHERED_OCTETS, FrameReceiver, FrameReception, packets_off_air
from sim.link.link import Link

#: The receiver looks at what came at least so often in a run: often enough for a picture that grows.
LOOKS = 256


@dataclass
class Carried:
    """(virtual channel, packet) that arrived, to be read once. All else is whole when they have been."""

    packets: Iterator[Tagged]
    report: DeliveryReport
    _channel: Channel | FrameChannel
    _receiver: FrameReceiver | None = None
    _by_stream: ByStream | None = None

    @property
    def link(self) -> LinkReport | FrameLinkReport:
        return self._channel.report

    @property
    def frames(self) -> FrameReception | None:
        """The frames as the ground decoded them; None where packets went without."""
        return None if self._receiver is None else self._receiver.reception

    @property
    def layers(self) -> LayerOctets | None:
        """What each layer added, where streams went as files; None where all went in packets as they are."""
        return None if self._by_stream is None else self._by_stream.layers


def carry(
    packets: Callable[[Path], Iterable[bytes]], path: Path, link: Link, delivery: Delivery, policy: Policy, seed: int,
    arrivals: Arrivals,
) -> Carried:  # fmt: skip
    """The packets of a file over `link` as the mission delivers them; `packets` reads them. Where all go as they are,
    frames are those of frames.bin beside the file.

    `arrivals` keeps what came when. Where streams go as files, what goes down is written beside the file: frames.bin,
    or downlink.bin where there are no frames.
    """
    if not delivery.in_frames:
        sorted_out = ByStream(path.parent, link, delivery, policy, seed, arrivals)
        came = sorted_out.arriving(packets(path))
        return Carried(came, sorted_out.report, sorted_out.channel, sorted_out.receiver, sorted_out)
    contact = Contact(link, 1, 0.0)
    if link.stack is not None:
        return _frames_of(path.parent / FRAMES_FILE, link, link.stack, contact, arrivals, seed)
    channel = Channel(link, seed)
    arriving = ((0, packet) for packet in channel.send(_sent(packets(path), contact, arrivals)))
    return Carried(_seen(arriving, contact, arrivals, lambda: None), DeliveryReport("raw"), channel)


def _frames_of(path: Path, link: Link, stack: Stack, contact: Contact, arrivals: Arrivals, seed: int) -> Carried:
    """The frames of a file over the air and through the ground's receiver."""
    channel, receiver = FrameChannel(link, seed), FrameReceiver(stack)
    arrivals.unit = "frames"
    off_air = channel.send(_sent(units_in(path, stack), contact, arrivals))
    at_once = max(4 * stack.unit_octets, min(GATHERED_OCTETS, path.stat().st_size // LOOKS))
    arriving = packets_off_air(off_air, receiver, at_once)
    seen = _seen(arriving, contact, arrivals, lambda: _read_frames(receiver))
    return Carried(seen, DeliveryReport("raw"), channel, receiver)


def _read_frames(receiver: FrameReceiver) -> int:
    counts = receiver.reception.frames
    return counts.received - counts.refused


def _sent(units: Iterable[bytes], contact: Contact, arrivals: Arrivals) -> Iterator[bytes]:
    """Packets or frames as they are offered to the channel, which itself ends the pass."""
    for unit in units:
        if contact.take(len(unit)):
            arrivals.sent(contact.now_s, len(unit))
        yield unit


def _seen(
    packets: Iterable[Tagged], contact: Contact, arrivals: Arrivals, arrived: Callable[[], int | None]
) -> Iterator[Tagged]:
    """Packets as they come down. `arrived` counts frames, where they come in those."""
    for channel, packet in packets:
        arrivals.arrived(contact.now_s, packet, arrived())
        yield channel, packet
