"""What the payload made, over the link, to the packets that the ground gets: raw, or as a file."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from payload.errors import InputError
from payload.link.frames.stack import Stack
from payload.link.streams import apids_of
from payload.policy import Policy
from sim.delivery.contact import Contact
from sim.delivery.spec import Delivery
from sim.delivery.transfer import DOWNLINK_FILE, DeliveryReport, air_of, carry_file
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

    packets: Iterator[tuple[int, bytes]]
    report: DeliveryReport
    _channel: Channel | FrameChannel
    _receiver: FrameReceiver | None = None

    @property
    def link(self) -> LinkReport | FrameLinkReport:
        return self._channel.report

    @property
    def frames(self) -> FrameReception | None:
        """The frames as the ground decoded them; None where packets went without."""
        return None if self._receiver is None else self._receiver.reception


def carry(
    packets: Callable[[Path], Iterable[bytes]], path: Path, link: Link, delivery: Delivery, policy: Policy, seed: int,
    arrivals: Arrivals,
) -> Carried:  # fmt: skip
    """The packets of a file over `link` as the mission delivers them; `packets` reads them. Frames are those of
    frames.bin beside it.

    `arrivals` keeps what came when. A file that goes down by CFDP or RaptorQ leaves what went down for it in
    downlink.bin beside it.
    """
    if delivery.mode == "raw" and link.stack is not None:
        return _frames_of(path.parent / FRAMES_FILE, link, link.stack, arrivals, seed)
    over_all_passes, contact = air_of(packet_link(link), delivery)
    channel = Channel(over_all_passes, seed)
    if delivery.mode == "raw":
        sent = _sent(packets(path), contact, arrivals)
        arriving = _first_channel(channel.send(sent))
        return Carried(_seen(arriving, contact, arrivals, lambda: None), DeliveryReport("raw"), channel)
    with (path.parent / DOWNLINK_FILE).open("wb") as log:
        carried = carry_file(path, delivery, policy.packet_octets, contact, channel, seed, log, arrivals)
    return Carried(_first_channel(carried.content.packets(apids_of(policy.apid))), carried.report, channel)


def _frames_of(path: Path, link: Link, stack: Stack, arrivals: Arrivals, seed: int) -> Carried:
    """The frames of a file over the air and through the ground's receiver."""
    contact = Contact(link, 1, 0.0)
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
    packets: Iterable[tuple[int, bytes]], contact: Contact, arrivals: Arrivals, arrived: Callable[[], int | None]
) -> Iterator[tuple[int, bytes]]:
    """Packets as they come down. `arrived` counts frames, where they come in those."""
    for channel, packet in packets:
        arrivals.arrived(contact.now_s, packet, arrived())
        yield channel, packet


def packet_link(link: Link) -> Link:
    """The link as packets see it, for files: what frames leave of the rate, frames of that size thought of. Bit errors
    are those that the code corrects; without a code they stay. InputError where that would say nothing."""
    stack, hurt = link.stack, link.mishaps
    if stack is None:
        return link
    if link.bit_burst is not None or hurt.bit_slip_rate or hurt.inversion or link.security is not None:
        raise InputError(
            "bit_burst, bit_slip_rate, inversion and security need real frames, which files (delivery.mode) are not "
            "sent in; "
            'take them out, or take mode = "raw"'
        )
    errors = 0.0 if stack.code is not None and link.bit_error_rate <= CORRECTED_RATE else link.bit_error_rate
    size = stack.packet_layout.data_octets
    return replace(link, stack=None, rate_bps=link.packet_rate_bps, frame_octets=size, bit_error_rate=errors)


#: Share of bits in error up to which even (255,239) corrects all frames but one in 10^10 (binomial tail).
CORRECTED_RATE = 1e-4


def _first_channel(packets: Iterable[bytes]) -> Iterator[tuple[int, bytes]]:
    return ((0, packet) for packet in packets)
