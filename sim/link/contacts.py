"""Contacts: when a station sees the satellite, and which station is served where several do.

The satellite has one transmitter. Where passes overlap, the station of the higher priority is served, of equal ones
the one whose pass rose first; the other keeps what is left of its pass before and after.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np
from sgp4.api import Satrec

from sim.link.orbit import Orbit, Station, period_s
from sim.link.propagation import Vectors, look, satellite_of

#: Elevation is sampled this often before crossings are refined: a pass shorter than this may be missed.
STEP_S = 20.0
#: A piece of a pass shorter than this is not used: a receiver needs as long to lock.
SHORTEST_S = 10.0


@dataclass(frozen=True)
class Pass:
    """One time a station sees the satellite above its mask."""

    station: str
    rise_at: datetime
    duration_s: float
    max_elevation_deg: float

    @property
    def set_at(self) -> datetime:
        return self.rise_at + timedelta(seconds=self.duration_s)


@dataclass(frozen=True)
class Share:
    """A piece of a pass that the satellite gives to its station, in seconds after the rise."""

    contact: Pass
    begin_s: float
    end_s: float
    yields_to: tuple[str, ...] = ()  # stations that take the rest of the pass

    @property
    def begin_at(self) -> datetime:
        return self.contact.rise_at + timedelta(seconds=self.begin_s)

    @property
    def usable_s(self) -> float:
        return self.end_s - self.begin_s


def passes(orbit: Orbit, station: Station, start: datetime, days: float) -> list[Pass]:
    """Passes that rise in the `days` days after `start`, in order."""
    satellite = satellite_of(orbit)
    margin_s = period_s(orbit) / 2  # a pass may set after the last rise that counts
    seconds = np.arange(-margin_s, days * 86400 + margin_s, STEP_S)  # [N] s after start
    above = elevation_deg(satellite, station, start, seconds) > station.mask_deg  # [N]
    rises = np.flatnonzero(~above[:-1] & above[1:])  # index of the last sample below the mask
    sets = np.flatnonzero(above[:-1] & ~above[1:])
    if not len(rises) or not len(sets):
        return []
    sets = sets[sets > rises[0]]
    rises = rises[: len(sets)]
    rise_s = _crossing_s(satellite, station, start, seconds[rises], seconds[rises + 1])
    set_s = _crossing_s(satellite, station, start, seconds[sets + 1], seconds[sets])
    highest = _highest_deg(satellite, station, start, rise_s, set_s)
    found = zip(rise_s.tolist(), set_s.tolist(), highest.tolist(), strict=True)
    return [
        Pass(station.name, start + timedelta(seconds=begin), end - begin, top)
        for begin, end, top in found
        if 0 <= begin < days * 86400
    ]


def _crossing_s(satellite: Satrec, station: Station, start: datetime, below: Vectors, above: Vectors) -> Vectors:
    """Times [P] at which the elevation crosses the mask, by bisection between times below and above it [P]."""
    below, above = below.copy(), above.copy()
    for _ in range(12):  # 20 s / 2^12 = 5 ms
        middle = (below + above) / 2
        up = elevation_deg(satellite, station, start, middle) > station.mask_deg
        above, below = np.where(up, middle, above), np.where(up, below, middle)
    return (below + above) / 2


def _highest_deg(satellite: Satrec, station: Station, start: datetime, rise_s: Vectors, set_s: Vectors) -> Vectors:
    """Highest elevation [P] between rise and set [P], by ternary search: there is one summit in a pass."""
    low, high = rise_s.copy(), set_s.copy()
    for _ in range(24):  # 800 s x (2/3)^24 = 50 ms
        left, right = low + (high - low) / 3, high - (high - low) / 3
        later = elevation_deg(satellite, station, start, left) < elevation_deg(satellite, station, start, right)
        low, high = np.where(later, left, low), np.where(later, high, right)
    return elevation_deg(satellite, station, start, (low + high) / 2)


def elevation_deg(satellite: Satrec, station: Station, start: datetime, seconds: Vectors) -> Vectors:
    """Elevation [N] over the station's horizon at `seconds` [N] after `start`."""
    return look(satellite, station, start, seconds).elevation_deg


def shares(contacts: Iterable[Pass], priorities: dict[str, int]) -> list[Share]:
    """What each pass may use, in order of time. A pass that is taken away whole is there with no time at all."""
    taken: list[tuple[datetime, datetime, str]] = []
    found: list[Share] = []
    for contact in sorted(contacts, key=lambda c: (-priorities.get(c.station, 0), c.rise_at, c.station)):
        pieces = _free(contact, taken)
        winners = tuple(dict.fromkeys(s for a, b, s in taken if a < contact.set_at and b > contact.rise_at))
        found += [Share(contact, a, b, winners) for a, b in pieces if b - a >= SHORTEST_S or not winners]
        if not any(share.contact is contact for share in found):
            found.append(Share(contact, 0.0, 0.0, winners))
        taken += [
            (contact.rise_at + timedelta(seconds=a), contact.rise_at + timedelta(seconds=b), contact.station)
            for a, b in pieces
        ]
    return sorted(found, key=lambda share: (share.begin_at, share.contact.station))


def _free(contact: Pass, taken: Iterable[tuple[datetime, datetime, str]]) -> list[tuple[float, float]]:
    """Pieces of a pass, in seconds after its rise, that nobody has taken."""
    pieces = [(0.0, contact.duration_s)]
    for begin, end, _ in taken:
        a, b = ((at - contact.rise_at).total_seconds() for at in (begin, end))
        cut = [((x, min(y, a)), (max(x, b), y)) for x, y in pieces]
        pieces = [(x, y) for pair in cut for x, y in pair if y > x] if a < contact.duration_s and b > 0 else pieces
    return sorted(set(pieces))
