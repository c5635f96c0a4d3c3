"""The applications' place in the payload: from a scene's first tile to their answers, first of all that goes down.

Without a plan nothing here does anything, so that a mission without applications sends what it always sent.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from payload.apps.apps import Apps
from payload.apps.collected import Collected
from payload.apps.settings import Alerts, AppPlan
from payload.bundle import Bundle
from payload.clouds.mask import CloudMask
from payload.engine import Engine
from payload.link.app_record import OCTETS
from payload.link.scene_header import SceneHeader
from payload.link.space_packet import octets_on_air
from payload.memory import Held, RunsInside
from payload.stopwatch import Stopwatch
from payload.tiles import Tile


class Applications:
    """The applications of a plan over the scenes of one payload. `found`: what they have found in the present one."""

    def __init__(self, plan: AppPlan | None, bundle: Bundle, engine: Engine) -> None:
        self.plan, self._bundle, self._engine = plan, bundle, engine
        self.found: Collected | None = None
        self.open()

    def open(self) -> None:
        """All of them from the bundle's files; what they have found stays."""
        self.apps = None if self.plan is None else Apps(self.plan, self._bundle, self._engine)

    def begin(self, header: SceneHeader) -> None:
        """A new scene."""
        self.found = None if self.plan is None else Collected(header, self.plan.corners)

    def look(
        self, watch: Stopwatch, tile: Tile, mask: CloudMask | None, features_of: Callable[[], Any] | None = None
    ) -> None:
        """Shows them a tile as the imager took it. Without `features_of` it is withheld."""
        if self.apps is not None and self.found is not None:
            with watch.stage("apps"):
                self.apps.look(self.found, tile, mask, features_of)

    def stop(self) -> None:
        """The payload goes on without its networks, and without applications: each is cut off, and says so."""
        if self.apps is not None and self.found is not None:
            self.apps.stop(self.found, "the payload fell back")

    def answers(self) -> list[bytes]:
        """Their records on the scene that was coded, alerts first."""
        return self.apps.records(self.found) if self.apps is not None and self.found is not None else []

    def first(self, records: Iterable[bytes]) -> tuple[list[bytes], Iterable[bytes]]:
        """What goes down before all else, and the other records of the scene with its copies among them."""
        if self.plan is None:
            return [], records
        rest = list(records)  # answers are there when the last tile is coded
        answers = self.answers()
        return answers, with_copies(rest, answers, self.plan.alerts)

    def on_air(self, packet_octets: int) -> int:
        """Octets of packets that the answers take in all their copies."""
        if self.plan is None:
            return 0
        return len(self.answers()) * self.plan.alerts.copies * octets_on_air(OCTETS, packet_octets)

    def held(self) -> Iterator[Held]:
        """Rules are constants of the code; weights lie inside the runtime."""
        return iter(())

    def runs_inside(self, tile: Tile) -> Iterator[RunsInside]:
        """The networks among them, for the guard."""
        return iter(()) if self.apps is None else self.apps.runs_inside(tile)


def with_copies(others: Sequence[bytes], answers: Sequence[bytes], alerts: Alerts) -> Iterator[bytes]:
    """The other records of a scene with every copy of the answers but the first among them, the last at their end."""
    left, since = alerts.copies - 1, 0
    every = min(alerts.spacing_octets, sum(map(len, others)) // max(left, 1))
    for record in others:
        yield record
        since += len(record)
        if left > 1 and since >= every:
            yield from answers
            left, since = left - 1, 0
    for _ in range(left):
        yield from answers
