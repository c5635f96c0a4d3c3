"""Housekeeping and events -> packets of their own APID."""

from collections.abc import Iterator

from payload.guard.telemetry import Count, Telemetry, pack_event, pack_housekeeping
from payload.link.space_packet import SequenceCounter, segment


class Beacon:
    """Packets of one telemetry: its events as they come, and the counters after every `tiles` tiles."""

    def __init__(self, telemetry: Telemetry, counter: SequenceCounter, packet_octets: int, tiles: int) -> None:
        self._telemetry, self._counter, self._packet_octets = telemetry, counter, packet_octets
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
        yield from segment(pack_housekeeping(self._telemetry.housekeeping()), self._counter, self._packet_octets)
