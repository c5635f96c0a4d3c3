"""What a sweep found: a point for each setting, which of them none other beats, and the table of them."""

import csv
import io
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

PAYLOAD, NETWORKS = "payload", "networks alone"


@dataclass(frozen=True)
class SweepPoint:
    """One setting. `call_s`: the median time of a tile (payload) or of all networks on `batch` tiles (networks alone).

    `why`: what the device said where the setting cannot be run; then there are no figures.
    """

    what: str
    engine: str
    threads: int
    batch: int
    tile_px: int
    call_s: float | None = None
    mpx_s: float | None = None
    n: int = 0
    why: str = ""
    front: bool = False  # no other point of its kind is both sooner done and faster


@dataclass(frozen=True)
class Sweep:
    """All of it."""

    made_at: str
    device: str
    cpu: str
    bundle: str
    bundle_id: int
    software: str
    points: tuple[SweepPoint, ...]


def with_front(points: Sequence[SweepPoint]) -> tuple[SweepPoint, ...]:
    """The points, those on the Pareto front of their kind marked: nothing is sooner done and of higher throughput."""
    return tuple(
        SweepPoint(**asdict(point) | {"front": _known(point) and not any(_beats(other, point) for other in points)})
        for point in points
    )


def as_csv(sweep: Sweep) -> str:
    """A line a point, in the order they were measured."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    names = [field.name for field in fields(SweepPoint)]
    table.writerow(names)
    for point in sweep.points:
        table.writerow(["" if value is None else value for value in asdict(point).values()])
    return text.getvalue()


def as_json(sweep: Sweep) -> dict[str, Any]:
    return asdict(sweep)


def _known(point: SweepPoint) -> bool:
    return point.call_s is not None and point.mpx_s is not None


def _beats(other: SweepPoint, point: SweepPoint) -> bool:
    """Whether `other`, of the same kind, is no worse in both figures and better in one."""
    if other.what != point.what or other.call_s is None or other.mpx_s is None:
        return False
    slower, less = other.call_s - (point.call_s or 0.0), (point.mpx_s or 0.0) - other.mpx_s
    return slower <= 0 and less <= 0 and (slower < 0 or less < 0)
