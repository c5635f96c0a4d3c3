"""The store and the windows: what is sent in each pass, what of it arrives, what has to make room.

Before each window the store takes in what has been coded since, and the units that wait are sent in their order. What
was not acknowledged at the end of a pass waits again, so every pass is planned anew. Where the store is full, units
of the least value are dropped. All of that are the rules of the payload's own store (payload/store/ledger.py).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from payload.store.ledger import Ledger
from sim.mission.windows import Window
from sim.planning.units import Units

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]


@dataclass(eq=False)
class Pass:
    """One window as it was used. Times in s after the start."""

    begin_s: float
    end_s: float
    station: str
    capacity_octets: float
    sent_octets: float = 0.0
    lost_octets: float = 0.0
    waiting_octets: float = 0.0  # at its end
    stored_octets: float = 0.0  # at its beginning


@dataclass(eq=False)
class Outcome:
    """What arrived. `arrived` [U] copies; `arrived_s` [U]: when the last of them did, NaN where none did."""

    passes: list[Pass]
    arrived: I64
    arrived_s: F64
    dropped: I64  # copies that made room
    waiting: I64  # copies still on board at the end
    lost_units: int = 0  # copies that were sent in vain, and again
    events: list[tuple[float, I64, I64]] = field(default_factory=list)  # (s, units, copies that arrived)


def run(
    units: Units, coded_s: F64, windows: Sequence[Window], start_s: Sequence[float], store_octets: float,
    frame_octets: int, seed: int, rate: float = 1.0,
) -> Outcome:  # fmt: skip
    """Sends over the windows in order. `coded_s` [T]: when a take is in the store; `start_s`: when each window begins,
    in s after the start; `rate`: what windows carry, in units of what they do."""
    ready_s = coded_s[units.take]
    ledger = Ledger(units.octets, units.copies)
    found = Outcome([], 0 * units.copies, np.full(len(ready_s), np.nan), 0 * units.copies, ledger.waiting)
    frames = np.ceil(units.octets / frame_octets) + 1  # a unit lies in so many frames
    random = np.random.default_rng(seed)
    since = -np.inf
    for window, begin_s in zip(windows, start_s, strict=True):
        coded = (ready_s > since) & (ready_s <= begin_s)
        if coded.any():
            ledger.enter(coded)
            found.dropped += ledger.make_room(store_octets)
        since = begin_s
        row = Pass(begin_s, begin_s + window.usable_s, window.contact.station, window.capacity_octets * rate)
        row.stored_octets = ledger.held_octets
        _send(ledger, found, window, row, frames, random)
        row.waiting_octets = ledger.held_octets
        found.passes.append(row)
    ledger.enter(np.isfinite(ready_s))
    found.dropped += ledger.make_room(store_octets)
    return found


def _send(
    ledger: Ledger, found: Outcome, window: Window, row: Pass, frames: F64, random: np.random.Generator
) -> None:
    """Fills the window with what waits, in order."""
    queue, copies = ledger.draw(row.capacity_octets)
    octets = ledger.octets[queue]
    sent = np.cumsum(copies * octets)
    gone = 1 - (1 - window.profile.lost_share) ** frames[queue]
    lost = random.binomial(copies, np.clip(gone, 0.0, 1.0))
    scale = window.capacity_octets / row.capacity_octets if row.capacity_octets else 1.0
    when = row.begin_s + window.sent_s(sent * scale) - window.share.begin_s
    ledger.acknowledge(queue, copies - lost)
    found.arrived[queue] += copies - lost
    got = lost < copies
    found.arrived_s[queue[got]] = when[got]
    found.lost_units += int(lost.sum())
    found.events.append((row.end_s, queue[got], (copies - lost)[got]))
    row.sent_octets, row.lost_octets = float(sent[-1]) if len(sent) else 0.0, float((lost * octets).sum())
