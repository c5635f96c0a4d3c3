"""What became of one trial, and of all trials of a row."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Outcome:
    """One trial. `right`: everything that left is right. `hole`: something is missing and declared, nothing is wrong.

    `detected`: the payload, the store or the ground told of it. `window_wrong`: tiles that had been coded wrong before
    anything was found, and were held back. `quality_db`: PSNR (peak 10 000) of the worst wrong tile beside the one it
    should be. `octets` of telemetry, and `seconds` more than without a fault.
    """

    right: bool
    detected: bool
    hole: bool = False
    crashed: bool = False
    window_wrong: int = 0
    quality_db: float | None = None
    octets: int = 0
    seconds: float = 0.0
    note: str = ""

    @property
    def silent(self) -> bool:
        """Something wrong left, and nobody was told."""
        return not (self.right or self.hole or self.detected or self.crashed)


@dataclass(frozen=True)
class Row:
    """All trials of one row. trials = recovered + holes + unharmed + told + silent + crashed."""

    name: str
    trials: int
    detected: int
    recovered: int  # detected, and everything that left is right
    holes: int  # missing and declared
    unharmed: int  # right, and there was nothing to detect
    told: int  # wrong, and detected
    silent: int
    crashed: int
    window: int  # trials in which a wrong tile was held back
    worst_db: float | None
    mean_octets: float
    mean_seconds: float
    mean_joules: float | None
    notes: dict[str, int]
    requires_none_silent: bool
    upsets_a_day: float | None = None

    @property
    def held(self) -> bool:
        return not self.crashed and not (self.requires_none_silent and (self.silent or self.told))

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "held": self.held}


def row_of(
    name: str, outcomes: Iterable[Outcome], strict: bool, power_w: float | None, upsets_a_day: float | None
) -> Row:
    """The row of these outcomes. `power_w` of the modelled device turns time into energy."""
    every = list(outcomes)
    qualities = [o.quality_db for o in every if o.quality_db is not None]
    notes: dict[str, int] = {}
    for outcome in every:
        if outcome.note:
            notes[outcome.note] = notes.get(outcome.note, 0) + 1
    crashed = [o for o in every if o.crashed]
    alive = [o for o in every if not o.crashed]
    seconds = sum(o.seconds for o in every) / max(1, len(every))
    return Row(
        name, len(every), sum(o.detected for o in alive), sum(o.detected and o.right for o in alive),
        sum(o.hole and not o.right for o in alive), sum(o.right and not o.detected for o in alive),
        sum(o.detected and not o.right and not o.hole for o in alive), sum(o.silent for o in alive), len(crashed),
        sum(o.window_wrong > 0 for o in alive), min(qualities, default=None),
        sum(o.octets for o in every) / max(1, len(every)), seconds, None if power_w is None else seconds * power_w,
        notes, strict, upsets_a_day,
    )  # fmt: skip
