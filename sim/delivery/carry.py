"""What the payload made, over the link, to the packets that the ground gets: raw, or as a file."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from payload.policy import Policy
from sim.delivery.contact import Contact
from sim.delivery.spec import Delivery
from sim.delivery.transfer import DOWNLINK_FILE, DeliveryReport, air_of, carry_file
from sim.ground.arrivals import Arrivals
from sim.link.channel import Channel, Link, LinkReport


@dataclass
class Carried:
    """`packets` that arrived, to be read once. `link` and `report` are whole when they have been."""

    packets: Iterator[bytes]
    report: DeliveryReport
    _channel: Channel

    @property
    def link(self) -> LinkReport:
        return self._channel.report


def carry(
    packets: Callable[[Path], Iterable[bytes]], path: Path, link: Link, delivery: Delivery, policy: Policy, seed: int,
    arrivals: Arrivals,
) -> Carried:  # fmt: skip
    """The packets of a file over `link` as the mission delivers them; `packets` reads them.

    `arrivals` keeps what came when. A file that goes down by CFDP or RaptorQ leaves what went down for it in
    downlink.bin beside it.
    """
    over_all_passes, contact = air_of(link, delivery)
    channel = Channel(over_all_passes, seed)
    if delivery.mode == "raw":
        sent = _sent(packets(path), contact, arrivals)
        return Carried(_raw(channel.send(sent), contact, arrivals), DeliveryReport("raw"), channel)
    with (path.parent / DOWNLINK_FILE).open("wb") as log:
        carried = carry_file(path, delivery, policy.packet_octets, contact, channel, seed, log, arrivals)
    return Carried(carried.content.packets((policy.apid,)), carried.report, channel)


def _sent(packets: Iterable[bytes], contact: Contact, arrivals: Arrivals) -> Iterator[bytes]:
    """Raw packets as they are offered to the channel, which itself ends the pass."""
    for packet in packets:
        if contact.take(len(packet)):
            arrivals.sent(contact.now_s, len(packet))
        yield packet


def _raw(packets: Iterable[bytes], contact: Contact, arrivals: Arrivals) -> Iterator[bytes]:
    for packet in packets:
        arrivals.arrived(contact.now_s, packet)
        yield packet

