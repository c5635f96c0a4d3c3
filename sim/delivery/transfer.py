"""One stream's packets as a file over the link, both ends of it: by CFDP or in a fountain.

the stream's packets -> PDUs or symbols, a packet each -> (the air) -> file on the ground -> the stream's packets
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from payload.errors import StreamError
from payload.link.file_pdu import CFDP_APID, pack_down, unpack_down
from payload.link.space_packet import HEADER_OCTETS, OVERHEAD_OCTETS, SequenceCounter
from payload.link.streams import Stream
from sim.delivery.spec import Delivery
from sim.ground.arriving_files import FOUNTAIN_APID, ArrivingFile, ArrivingFiles
from sim.ground.received_file import ReceivedFile

Clock = Callable[[], float]


@dataclass
class StreamReport:
    """What it took to deliver a stream. Octets that were sent, by what they are: their sum is its packets on the air.

    Of a stream that goes in packets as they are, `file` counts those packets.
    """

    mode: str
    complete: bool = False  # the ground has every octet, and the file's checksum is right
    file_octets: int = 0
    held_octets: int = 0  # of them, on the ground at the end
    sent_file_octets: int = 0  # each octet for the first time
    sent_again_octets: int = 0
    sent_repair_octets: int = 0
    sent_header_octets: int = 0  # of PDUs with file data, or of symbols and their padding
    sent_directive_octets: int = 0  # Metadata, EOF, ACK
    sent_packet_octets: int = 0  # headers and CRCs of the packets around PDUs and symbols
    arrived_twice_octets: int = 0  # though the ground had them
    naks: int = 0


class Transfer(Protocol):
    """Both ends of a file's way down."""

    stream: Stream
    report: StreamReport

    @property
    def content(self) -> ReceivedFile:
        """The file on the ground, as far as it is here."""
        ...

    @property
    def finished(self) -> bool:
        """Whether the satellite has nothing more to say."""
        ...

    @property
    def timers_s(self) -> list[float]:
        """Seconds until a timer of either end runs out."""
        ...

    @property
    def naks(self) -> int:
        """NAKs that the ground has sent."""
        ...

    def say(self) -> Iterator[bytes]:
        """The packets that the satellite has to send now."""
        ...

    def take(self, packet: bytes) -> None:
        """A packet that came down."""
        ...

    def answers(self) -> list[bytes]:
        """The PDUs that the ground has to send back now."""
        ...

    def hear(self, pdu: bytes) -> None:
        """A PDU that came up."""
        ...

    def close(self) -> None:
        """Nothing more will come: the report is whole."""
        ...


@dataclass(frozen=True)
class Counters:
    """Packet counters of the files' APIDs, shared by all streams."""

    cfdp: SequenceCounter
    fountain: SequenceCounter


def counters() -> Counters:
    return Counters(SequenceCounter(CFDP_APID), SequenceCounter(FOUNTAIN_APID))


def transfer_of(
    stream: Stream, path: Path, delivery: Delivery, packet_octets: int, now: Clock, count: Counters
) -> Transfer:
    """The transfer of a stream's packets, which are in `path`, as the mission delivers the stream."""
    kind = AcknowledgedFile if delivery.of(stream).mode == "cfdp2" else OneWayFile
    return kind(stream, path, delivery, packet_octets, now, count)


def number_of(stream: Stream) -> int:
    """Transaction number of a stream's file; in a fountain it is one less, the stream's own number."""
    return int(stream) + 1


def stream_in(packet: bytes) -> Stream | None:
    """Whose file a packet on the air has a part of; None where it is of none. A hint: the packet may be damaged."""
    apid = int.from_bytes(packet[:2], "big")
    at = {CFDP_APID: HEADER_OCTETS + 5, FOUNTAIN_APID: HEADER_OCTETS + 1}.get(apid)
    if at is None:
        return None
    number = int.from_bytes(packet[at : at + 2], "big") - (apid == CFDP_APID)
    return Stream(number) if number in list(Stream) else None


class OneWayFile:
    """CFDP class 1, or a fountain: nothing comes back."""

    def __init__(
        self, stream: Stream, path: Path, delivery: Delivery, packet_octets: int, now: Clock, count: Counters
    ) -> None:
        self.stream, self._path, self._how = stream, path, delivery.of(stream)
        self._packet_octets, self._now, self._count = packet_octets, now, count
        self.report = StreamReport(self._how.mode, file_octets=path.stat().st_size)
        self._arriving, self._file = ArrivingFiles(), ArrivingFile()
        self.finished, self.naks = False, 0
        self.timers_s: list[float] = []

    @property
    def content(self) -> ReceivedFile:
        return self._file.content

    def say(self) -> Iterator[bytes]:
        if self.finished:
            return iter(())
        self.finished = True  # whatever comes of it
        return self._class_one() if self._how.mode == "cfdp1" else self._symbols()

    def take(self, packet: bytes) -> None:
        self._file = self._arriving.take(packet) or self._file

    def answers(self) -> list[bytes]:
        return []

    def hear(self, pdu: bytes) -> None:
        """Nothing comes up."""

    def close(self) -> None:
        self.report.held_octets = self.content.octets
        self.report.complete = self._file.complete and self.content.octets == self.report.file_octets

    def _class_one(self) -> Iterator[bytes]:
        from sim.delivery.cfdp import Protocol, Sender

        talk = Protocol(self._packet_octets - OVERHEAD_OCTETS, acknowledged=False)
        sender = Sender(self._path, talk, self._now, number_of(self.stream))
        yield from _pdus(sender, self._count.cfdp, self.report)

    def _symbols(self) -> Iterator[bytes]:
        from sim.delivery.fountain import packet_of, symbols_of

        report = self.report
        for symbol in symbols_of(self._path, self._packet_octets, self._how.overhead or 0.0, int(self.stream)):
            packet, generation = packet_of(symbol, self._count.fountain), symbol.generation
            left = generation.octets - symbol.number * generation.symbol_octets
            source = max(0, min(left, generation.symbol_octets))
            repair = 0 if symbol.number < generation.symbols else generation.symbol_octets
            yield packet
            report.sent_file_octets += source
            report.sent_repair_octets += repair
            report.sent_header_octets += len(packet) - OVERHEAD_OCTETS - source - repair
            report.sent_packet_octets += OVERHEAD_OCTETS


class AcknowledgedFile:
    """CFDP class 2: what is lost is asked for and sent again."""

    def __init__(
        self, stream: Stream, path: Path, delivery: Delivery, packet_octets: int, now: Clock, count: Counters
    ) -> None:
        from sim.delivery.cfdp import Protocol, Receiver, Sender

        self.stream, self._count, self._content = stream, count, ReceivedFile()
        self.report = StreamReport("cfdp2", file_octets=path.stat().st_size)
        talk = Protocol(packet_octets - OVERHEAD_OCTETS, True, delivery.timer_s, delivery.timer_s)
        self._sender = Sender(path, talk, now, number_of(stream))
        self._receiver = Receiver(self._content, talk, now)
        self._answers: list[bytes] = []

    @property
    def content(self) -> ReceivedFile:
        return self._content

    @property
    def finished(self) -> bool:
        return self._sender.finished

    @property
    def timers_s(self) -> list[float]:
        return [left for left in (self._sender.timer_s, self._receiver.timer_s) if left is not None]

    @property
    def naks(self) -> int:
        return int(self._receiver.naks)

    def say(self) -> Iterator[bytes]:
        return _pdus(self._sender, self._count.cfdp, self.report)

    def take(self, packet: bytes) -> None:
        try:
            self._answers += self._receiver.push(unpack_down(packet))
        except StreamError:  # damaged on the link: as if it were lost
            return

    def answers(self) -> list[bytes]:
        said, self._answers = [*self._answers, *self._receiver.tick()], []
        return said

    def hear(self, pdu: bytes) -> None:
        self._sender.push(pdu)

    def close(self) -> None:
        report, receiver = self.report, self._receiver
        report.held_octets, report.naks = self._content.octets, receiver.naks
        report.complete = receiver.complete and not self._content.holes(report.file_octets)
        report.arrived_twice_octets = receiver.arrived_twice_octets


def _pdus(sender: Any, counter: SequenceCounter, report: StreamReport) -> Iterator[bytes]:
    """Packets around the PDUs that a sender has to send now."""
    while not sender.finished and (pdu := sender.next_pdu()) is not None:
        yield pack_down(pdu, counter)
        sent = sender.sent
        report.sent_file_octets, report.sent_again_octets = sent.file, sent.again
        report.sent_header_octets, report.sent_directive_octets = sent.headers, sent.directives
        report.sent_packet_octets += OVERHEAD_OCTETS
