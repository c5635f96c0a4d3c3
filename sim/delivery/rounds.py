"""Streams over the link in rounds: what the satellite has to say, then what the ground answers, until all are content.

Order of a round: files of small streams, packets that go as they are, the file of the layers.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, fields
from itertools import chain

import numpy as np

from payload.errors import StreamError
from payload.link.file_pdu import CFDP_APID, pack_up, unpack_up
from payload.link.space_packet import SequenceCounter
from payload.link.streams import Stream
from sim.delivery.air import Air, Tagged
from sim.delivery.contact import Contact
from sim.delivery.spec import Delivery, Uplink
from sim.delivery.transfer import StreamReport, Transfer, number_of, stream_in
from sim.ground.arrivals import Arrivals
from sim.link.channel import Channel
from sim.link.link import Link

_DAY_S = 86400.0
#: Octets before the transaction number of a PDU, whose entity ids have one octet.
_NUMBER_AT = 5


@dataclass
class DeliveryReport(StreamReport):
    """What the delivery took: its streams' sums, and the passes and the uplink that they share."""

    nak_rounds: int = 0
    uplink_packets: int = 0
    uplink_packets_lost: int = 0
    uplink_octets: int = 0
    passes_used: int = 1
    in_contact_s: float = 0.0
    elapsed_s: float = 0.0
    streams: dict[str, StreamReport] = field(default_factory=dict)

    def add_up(self, streams: dict[str, StreamReport]) -> None:
        """The sums over streams."""
        self.streams, self.complete = streams, all(stream.complete for stream in streams.values())
        for name in (one.name for one in fields(StreamReport) if one.name not in ("mode", "complete")):
            setattr(self, name, sum(getattr(stream, name) for stream in streams.values()))


class Rounds:
    """Runs transfers over the air, and packets of other streams with them; `report` grows on the way."""

    def __init__(
        self, air: Air, transfers: Sequence[Transfer], delivery: Delivery, contact: Contact, seed: int,
        report: DeliveryReport, arrivals: Arrivals,
    ) -> None:  # fmt: skip
        self._air, self._delivery, self._contact, self._arrivals = air, delivery, contact, arrivals
        self._transfers = {transfer.stream: transfer for transfer in transfers}
        self._uplink, self.report, self._naks = delivery.uplink or Uplink(), report, 0
        way_up = Link(self._uplink.rate_bps, _DAY_S, self._uplink.packet_loss, burst=self._uplink.burst)
        self._up, self._count_up = Channel(way_up, _seed_of_the_uplink(seed)), SequenceCounter(CFDP_APID)

    def run(self, raw: Iterable[Tagged]) -> Iterator[Tagged]:
        """`raw` as far as it arrived. What came of the files is in the transfers."""
        small = [stream for stream in self._transfers if stream is not Stream.LAYERS]
        saying = chain(self._say(small), raw, self._say([Stream.LAYERS]))
        on = True
        while on:
            said = self._contact.sent_octets
            yield from self._down(saying)
            on = not self._over() and self._answered(said)
            saying = chain(self._say(small), self._say([Stream.LAYERS]))

    def _over(self) -> bool:
        return all(transfer.finished for transfer in self._transfers.values())

    def _say(self, streams: Iterable[Stream]) -> Iterator[Tagged]:
        """What the satellite has to say of these streams' files."""
        for stream in streams:
            if stream in self._transfers:
                yield from ((int(stream), packet) for packet in self._transfers[stream].say())

    def _down(self, saying: Iterable[Tagged]) -> Iterator[Tagged]:
        for channel, packet in self._air.send(saying):
            stream = stream_in(packet)
            transfer = None if stream is None else self._transfers.get(stream)
            if transfer is None:
                yield channel, packet
                continue
            transfer.take(packet)
            if stream is Stream.LAYERS:
                self._arrivals.file_grew(self._contact.now_s, transfer.content, self._air.arrived_frames)

    def _answered(self, said: int) -> bool:
        """The ground answers, and the satellite listens. False where the passes are over."""
        answers = [pdu for transfer in self._transfers.values() for pdu in transfer.answers()]
        if self._over():
            return False
        naks = sum(transfer.naks for transfer in self._transfers.values())
        self.report.nak_rounds, self._naks = self.report.nak_rounds + (naks > self._naks), naks
        packed = [pack_up(pdu, self._count_up) for pdu in answers]
        octets = sum(map(len, packed))
        on = self._contact.wait(self._delivery.round_trip_s + 8 * octets / self._uplink.rate_bps)
        came = list(self._up.send(packed)) if on else []
        self.report.uplink_packets += len(packed)
        self.report.uplink_octets += octets
        self.report.uplink_packets_lost += len(packed) - len(came)
        for packet in came:
            self._hear(packet)
        if on and not came and self._contact.sent_octets == said:
            on = self._contact.wait(self._until_a_timer())
        return on

    def _hear(self, packet: bytes) -> None:
        try:
            pdu = unpack_up(packet)
        except StreamError:  # damaged on the link: as if it were lost
            return
        number = int.from_bytes(pdu[_NUMBER_AT : _NUMBER_AT + 2], "big")
        for stream, transfer in self._transfers.items():
            if number_of(stream) == number:
                transfer.hear(pdu)

    def _until_a_timer(self) -> float:
        """Seconds until one of the ends speaks again."""
        timers = [left for transfer in self._transfers.values() for left in transfer.timers_s]
        return max(0.001, min(timers, default=self._delivery.timer_s))


def _seed_of_the_uplink(seed: int) -> int:
    """A stream of its own: what the uplink loses says nothing of what the downlink loses."""
    return int(np.random.SeedSequence([seed, 1]).generate_state(1)[0])
