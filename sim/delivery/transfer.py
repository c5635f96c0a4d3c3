"""The payload's packets over the link by what the mission chose: raw, as a file by CFDP, or as a file in a fountain.

packets.bin -> (PDUs or symbols ->) packets on the air -> channel -> file on the ground -> the payload's packets
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import numpy as np

from payload.errors import StreamError
from payload.link.file_pdu import CFDP_APID, pack_down, pack_up, unpack_down, unpack_up
from payload.link.space_packet import OVERHEAD_OCTETS, SequenceCounter
from sim.delivery.contact import Contact
from sim.delivery.spec import Delivery, Uplink
from sim.ground.arriving_files import FOUNTAIN_APID, ArrivingFile, ArrivingFiles
from sim.ground.received_file import ReceivedFile
from sim.link.channel import Channel
from sim.link.link import Link

#: What went down, where it is not the payload's packets as they are.
DOWNLINK_FILE = "downlink.bin"
_DAY_S = 86400.0


class Watch(Protocol):
    """Told of every packet that is sent, and of the file whenever some of it arrived, by the clock of the contact."""

    def sent(self, now_s: float, octets: int) -> None: ...
    def file_grew(self, now_s: float, content: ReceivedFile) -> None: ...


class Unwatched:
    """Where nobody watches."""

    def sent(self, now_s: float, octets: int) -> None: ...
    def file_grew(self, now_s: float, content: ReceivedFile) -> None: ...


class Air(Protocol):
    """What carries packets, and loses some."""

    def send(self, packets: Iterable[bytes]) -> Iterator[bytes]: ...


@dataclass
class DeliveryReport:
    """What a delivery took. Octets of what was sent, by layer: their sum is all that went down."""

    mode: str
    complete: bool = False  # the ground has every octet of the file, and its checksum is right
    file_octets: int = 0
    held_octets: int = 0  # of the file, on the ground at the end
    sent_file_octets: int = 0  # each octet of the file for the first time
    sent_again_octets: int = 0
    sent_repair_octets: int = 0
    sent_header_octets: int = 0  # of PDUs with file data, or of symbols and their padding
    sent_directive_octets: int = 0  # Metadata, EOF, ACK
    sent_packet_octets: int = 0  # headers and CRCs of the packets around them
    arrived_twice_octets: int = 0  # of the file, though the ground had them
    nak_rounds: int = 0
    naks: int = 0
    uplink_packets: int = 0
    uplink_packets_lost: int = 0
    uplink_octets: int = 0
    passes_used: int = 1
    in_contact_s: float = 0.0
    elapsed_s: float = 0.0


@dataclass
class CarriedFile:
    """A file as it came down, and how."""

    report: DeliveryReport
    content: ReceivedFile


def air_of(link: Link, delivery: Delivery) -> tuple[Link, Contact]:
    """The link over all passes, which the channel is made for, and the clock of them."""
    return replace(link, pass_s=link.pass_s * delivery.passes), Contact(link, delivery.passes, delivery.gap_s)


def carry_file(
    path: Path, delivery: Delivery, packet_octets: int, contact: Contact, down: Air, seed: int, log: BinaryIO,
    watch: Watch = Unwatched(),  # noqa: B008 it holds nothing
) -> CarriedFile:  # fmt: skip
    """A file over the link by CFDP or fountain. `log` gets every packet that was sent, `seed` is of the run."""
    if delivery.mode == "cfdp2":
        carried = _acknowledged(path, delivery, packet_octets, contact, down, seed, log, watch)
    else:
        carried = _one_way(path, delivery, packet_octets, contact, down, log, watch)
    report = carried.report
    report.file_octets, report.held_octets = path.stat().st_size, carried.content.octets
    report.passes_used, report.in_contact_s, report.elapsed_s = contact.number, contact.now_s, contact.elapsed_s
    return carried


def _one_way(
    path: Path, delivery: Delivery, packet_octets: int, contact: Contact, down: Air, log: BinaryIO, watch: Watch
) -> CarriedFile:
    """CFDP class 1, or a fountain: nothing comes back."""
    report, arriving = DeliveryReport(delivery.mode), ArrivingFiles()
    make = _class_one if delivery.mode == "cfdp1" else _fountain
    for packet in down.send(_on_air(make(path, delivery, packet_octets, contact, report), contact, report, log, watch)):
        file = arriving.take(packet)
        if file is not None:
            watch.file_grew(contact.now_s, file.content)
    file = next(iter(arriving.files.values()), ArrivingFile())
    report.complete = file.complete and file.content.octets == path.stat().st_size
    return CarriedFile(report, file.content)


def _class_one(
    path: Path, delivery: Delivery, packet_octets: int, contact: Contact, report: DeliveryReport
) -> Iterator[bytes]:
    from sim.delivery.cfdp import Protocol, Sender

    sender = Sender(path, Protocol(packet_octets - OVERHEAD_OCTETS, acknowledged=False), lambda: contact.now_s)
    yield from _pdus(sender, SequenceCounter(CFDP_APID), report)


def _fountain(
    path: Path, delivery: Delivery, packet_octets: int, contact: Contact, report: DeliveryReport
) -> Iterator[bytes]:
    from sim.delivery.fountain import packet_of, symbols_of

    counter = SequenceCounter(FOUNTAIN_APID)
    for symbol in symbols_of(path, packet_octets, delivery.overhead or 0.0):
        packet, generation = packet_of(symbol, counter), symbol.generation
        left = generation.octets - symbol.number * generation.symbol_octets
        source = max(0, min(left, generation.symbol_octets))
        repair = 0 if symbol.number < generation.symbols else generation.symbol_octets
        yield packet
        report.sent_file_octets += source
        report.sent_repair_octets += repair
        report.sent_header_octets += len(packet) - OVERHEAD_OCTETS - source - repair


def _acknowledged(
    path: Path, delivery: Delivery, packet_octets: int, contact: Contact, down: Air, seed: int, log: BinaryIO,
    watch: Watch,
) -> CarriedFile:  # fmt: skip
    """CFDP class 2: rounds of what the satellite has to say and what the ground answers, until both are content."""
    from sim.delivery.cfdp import Protocol, Receiver, Sender

    report, content = DeliveryReport(delivery.mode), ReceivedFile()
    talk = Protocol(packet_octets - OVERHEAD_OCTETS, True, delivery.timer_s, delivery.timer_s)
    sender, receiver = Sender(path, talk, lambda: contact.now_s), Receiver(content, talk, lambda: contact.now_s)
    uplink = delivery.uplink or Uplink()
    up = Channel(Link(uplink.rate_bps, _DAY_S, uplink.packet_loss, burst=uplink.burst), _seed_of_the_uplink(seed))
    counter, answers = SequenceCounter(CFDP_APID), SequenceCounter(CFDP_APID)
    open_ = True
    while open_ and not sender.finished:
        replies: list[bytes] = []
        said, naks = contact.sent_octets, receiver.naks
        for packet in down.send(_on_air(_pdus(sender, counter, report), contact, report, log, watch)):
            replies += _received(receiver, packet)
            watch.file_grew(contact.now_s, content)
        replies += receiver.tick()
        report.nak_rounds += receiver.naks > naks
        if sender.finished:
            break
        packed = [pack_up(pdu, answers) for pdu in replies]
        octets = sum(map(len, packed))
        open_ = contact.wait(delivery.round_trip_s + 8 * octets / uplink.rate_bps)
        report.uplink_packets, report.uplink_octets = report.uplink_packets + len(packed), report.uplink_octets + octets
        came = [unpack_up(packet) for packet in up.send(packed)] if open_ else []
        report.uplink_packets_lost += len(packed) - len(came)
        for pdu in came:
            sender.push(pdu)
        if open_ and not came and contact.sent_octets == said:
            open_ = contact.wait(_until_a_timer(sender, receiver, delivery))
    report.complete, report.naks = receiver.complete and not content.holes(path.stat().st_size), receiver.naks
    report.arrived_twice_octets = receiver.arrived_twice_octets
    return CarriedFile(report, content)


def _seed_of_the_uplink(seed: int) -> int:
    """A stream of its own: what the uplink loses says nothing of what the downlink loses."""
    return int(np.random.SeedSequence([seed, 1]).generate_state(1)[0])


def _received(receiver: Any, packet: bytes) -> list[bytes]:
    try:
        return receiver.push(unpack_down(packet))
    except StreamError:  # damaged on the link: as if it were lost
        return []


def _until_a_timer(sender: Any, receiver: Any, delivery: Delivery) -> float:
    """Seconds until one of the two speaks again."""
    timers = [t for t in (sender.timer_s, receiver.timer_s) if t is not None]
    return max(0.001, min(timers, default=delivery.timer_s))


def _pdus(sender: Any, counter: SequenceCounter, report: DeliveryReport) -> Iterator[bytes]:
    """Packets around the PDUs that a sender has to send now."""
    while (pdu := sender.next_pdu()) is not None:
        yield pack_down(pdu, counter)
        sent = sender.sent
        report.sent_file_octets, report.sent_again_octets = sent.file, sent.again
        report.sent_header_octets, report.sent_directive_octets = sent.headers, sent.directives
        if sender.finished:
            return


def _on_air(
    packets: Iterator[bytes], contact: Contact, report: DeliveryReport, log: BinaryIO, watch: Watch
) -> Iterator[bytes]:
    """Those packets that the passes hold, in the order in which they are sent. What one pass does not hold waits for
    the next; what no pass holds is never sent."""
    for packet in packets:
        if not contact.take(len(packet)):
            return
        report.sent_packet_octets += OVERHEAD_OCTETS
        log.write(packet)
        watch.sent(contact.now_s, len(packet))
        yield packet
