"""The payload's packets, stream by stream: some as they are, some as a file by CFDP or RaptorQ, in frames or alone."""

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import BinaryIO

from payload.link.frames.stack import LayerOctets, octets_by_layer
from payload.link.space_packet import is_packet, read_packets
from payload.link.streams import Stream, apids_of, with_channels
from payload.policy import Policy
from sim.delivery.air import Air, FrameAir, PacketAir, Tagged
from sim.delivery.contact import Contact
from sim.delivery.rounds import DeliveryReport, Rounds
from sim.delivery.spec import Delivery
from sim.delivery.transfer import StreamReport, Transfer, counters, transfer_of
from sim.ground.arrivals import Arrivals
from sim.link.channel import Channel
from sim.link.frames.channel import FRAMES_FILE, FrameChannel
from sim.link.frames.receiver import FrameReceiver
from sim.link.link import Link

#: What went down where there are no frames, and it is not the payload's packets as they are.
DOWNLINK_FILE = "downlink.bin"
_RAW = "raw"


class ByStream:
    """One delivery. What goes down is written into `folder`. `report` and `layers` are whole when all that arrived
    has been read."""

    def __init__(
        self, folder: Path, link: Link, delivery: Delivery, policy: Policy, seed: int, arrivals: Arrivals
    ) -> None:
        self._folder, self._stack, self._delivery, self._policy = folder, link.stack, delivery, policy
        self._seed, self._arrivals = seed, arrivals
        self._contact = Contact(link, delivery.passes, delivery.gap_s)
        self.receiver: FrameReceiver | None = None
        self.channel, self._air = self._over(replace(link, pass_s=link.pass_s * delivery.passes))
        self.report, self.layers = DeliveryReport(delivery.name), LayerOctets(0, 0)
        self._ends: dict[Stream, list[int]] = {}  # of each packet in the octets of its stream
        self._raw: dict[Stream, StreamReport] = {}
        self._seen: set[int] = set()  # digests of raw packets that arrived

    def arriving(self, packets: Iterable[bytes]) -> Iterator[Tagged]:
        """Everything that comes down: packets that go as they are, then those in the files."""
        with ExitStack() as kept:
            place = Path(kept.enter_context(TemporaryDirectory()))
            transfers = self._sorted_into(place, packets)
            air = self._air(kept.enter_context(self._log_file.open("wb")))
            rounds = Rounds(air, transfers, self._delivery, self._contact, self._seed, self.report, self._arrivals)
            for channel, packet in rounds.run(self._as_they_are(place / _RAW)):
                self._note(packet, air.arrived_frames)
                yield channel, packet
        for transfer in transfers:
            transfer.close()
            yield from ((int(transfer.stream), packet) for packet in transfer.content.packets(self._apids))
        self._sum_up(transfers, air.frames)

    @property
    def _apids(self) -> range:
        return apids_of(self._policy.apid)

    @property
    def _log_file(self) -> Path:
        """What takes everything that goes down."""
        return self._folder / (DOWNLINK_FILE if self._stack is None else FRAMES_FILE)

    def _over(self, link: Link) -> tuple[Channel | FrameChannel, Callable[[BinaryIO], Air]]:
        """The channel over all passes, and what makes the air of a file that logs it."""
        contact, arrivals = self._contact, self._arrivals
        if link.stack is None:
            alone = Channel(link, self._seed)
            return alone, lambda log: PacketAir(contact, alone, log, arrivals)
        stack, channel, receiver = link.stack, FrameChannel(link, self._seed), FrameReceiver(link.stack)
        self.receiver, arrivals.unit = receiver, "frames"
        return channel, lambda log: FrameAir(stack, contact, channel, receiver, log, arrivals)

    def _sorted_into(self, place: Path, packets: Iterable[bytes]) -> list[Transfer]:
        """Writes packets that go as they are into one file, those of every other stream into its own; gives the
        transfers of these. A stream without packets has none."""
        with ExitStack() as kept:
            files = {_RAW: kept.enter_context((place / _RAW).open("wb"))}
            for channel, packet in with_channels(packets, self._policy.apid):
                stream = Stream(channel)
                name = self._name(stream)
                if name not in files:
                    files[name] = kept.enter_context((place / name).open("wb"))
                files[name].write(packet)
                ends = self._ends.setdefault(stream, [])
                ends.append((ends[-1] if ends else 0) + len(packet))
        count, size, now = counters(), self._policy.packet_octets, lambda: self._contact.now_s
        for stream, ends in self._ends.items():
            if self._name(stream) == _RAW:
                self._raw[stream] = StreamReport("raw", file_octets=ends[-1])
        return [
            transfer_of(stream, place / self._name(stream), self._delivery, size, now, count)
            for stream in sorted(self._ends.keys() - self._raw.keys(), reverse=True)
        ]

    def _name(self, stream: Stream) -> str:
        return _RAW if self._delivery.of(stream).mode == "raw" else stream.name.lower()

    def _as_they_are(self, path: Path) -> Iterator[Tagged]:
        """The packets that go as they are; counted once they are on the air."""
        with path.open("rb") as file:
            for channel, packet in with_channels(read_packets(file, self._apids), self._policy.apid):
                yield channel, packet
                self._raw[Stream(channel)].sent_file_octets += len(packet)

    def _note(self, packet: bytes, frames: int | None) -> None:
        """A packet that went as it is has come down."""
        self._arrivals.arrived(self._contact.now_s, packet, frames)
        stream = int.from_bytes(packet[:2], "big") - self._policy.apid
        if not is_packet(packet) or stream not in self._raw:
            return
        report, digest = self._raw[Stream(stream)], hash(packet)
        if digest in self._seen:
            report.arrived_twice_octets += len(packet)
        else:
            self._seen.add(digest)
            report.held_octets += len(packet)

    def _sum_up(self, transfers: list[Transfer], frames: int) -> None:
        reports = self._raw | {transfer.stream: transfer.report for transfer in transfers}
        for raw in self._raw.values():
            raw.complete = raw.held_octets == raw.file_octets
        self.report.add_up({stream.name.lower(): reports[stream] for stream in sorted(reports)})
        contact = self._contact
        self.report.passes_used, self.report.in_contact_s = contact.number, contact.now_s
        self.report.elapsed_s = contact.elapsed_s
        sent = {stream: report.sent_file_octets for stream, report in reports.items()}
        begun = sum(bisect_left([0, *self._ends[stream][:-1]], octets) for stream, octets in sent.items())
        beside = sum(_beside_the_file(report) for report in reports.values())
        self.layers = octets_by_layer(begun, sum(sent.values()), self._stack, frames, beside)


def _beside_the_file(report: StreamReport) -> int:
    """Octets on the air that are not the file's, each for the first time."""
    again = report.sent_again_octets + report.sent_repair_octets
    return again + report.sent_header_octets + report.sent_directive_octets + report.sent_packet_octets
