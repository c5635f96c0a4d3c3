"""Events and housekeeping -> packets of an APID of their own, so that they can go down by another way than scenes."""

from collections.abc import Callable, Iterator

from payload.guard.telemetry import Count, Telemetry, pack_event
from payload.link.space_packet import SequenceCounter, segment


class Beacon:
    """Packets of one telemetry: its events as they come, and `housekeeping`, a record, after every `tiles` tiles."""

    def __init__(
        self, telemetry: Telemetry, housekeeping: Callable[[], bytes], counter: SequenceCounter, packet_octets: int,
        tiles: int,
    ) -> None:  # fmt: skip
        self._telemetry, self._housekeeping = telemetry, housekeeping
        self._counter, self._packet_octets = counter, packet_octets
        self._tiles, self._next = tiles, tiles

    def due(self) -> Iterator[bytes]:
        """What there is to tell by now: nothing where no event waits and too few tiles went by."""
        if self._telemetry.waiting or self._telemetry.counts[Count.TILES] >= self._next:
            yield from self.now()

    def now(self) -> Iterator[bytes]:
        """The events that wait, then the counters."""
        self._next = self._telemetry.counts[Count.TILES] + self._tiles
        for event in self._telemetry.take():
            yield from segment(pack_event(event), self._counter, self._packet_octets)
        yield from segment(self._housekeeping(), self._counter, self._packet_octets)
