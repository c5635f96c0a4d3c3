"""The pass plan: when which station sees the satellite, what each pass carries, and when a volume is down."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np

from payload.errors import InputError
from sim.link.link_budget import Profile
from sim.link.orbit import Orbit, Station
from sim.link.propagation import elements_epoch, propagation_error, satellite_of
from sim.link.rate_steps import NOT_CODED
from sim.link.sunlight import beta_deg, lit
from sim.mission.spec import Mission
from sim.mission.windows import Window, at, windows

SCHEMA = "nadir-passes/2"
#: Element sets older than this at the start of a plan are named.
FRESH_DAYS = 7.0


@dataclass(frozen=True, eq=False)
class Sent:
    """A window, and what goes down in it of the plan's volume."""

    window: Window
    sent_octets: int
    waiting_octets: int


@dataclass(frozen=True, eq=False)
class PassPlan:
    """Windows in time order, over `days` days from `start`, for a volume of `volume_octets`.

    `sunlit_share`: of the whole plan's time; `beta_deg`: at its start and its end.
    """

    mission: Mission
    stations: tuple[Station, ...]
    start: datetime
    days: float
    volume_octets: int
    windows: tuple[Sent, ...]
    sunlit_share: float
    beta_deg: tuple[float, float]
    notes: tuple[str, ...] = ()  # what is to be known about the orbit behind it

    @property
    def waiting_octets(self) -> int:
        """What the plan leaves on board."""
        return self.windows[-1].waiting_octets if self.windows else self.volume_octets

    @property
    def down_at(self) -> datetime | None:
        """When the last octet is down; None if some wait, or there were none to send."""
        for sent in self.windows:
            if sent.sent_octets and not sent.waiting_octets:
                return at(sent.window, float(sent.window.sent_s(np.array([float(sent.sent_octets)]))[0]))
        return None


def plan_passes(
    mission: Mission,
    station_names: Sequence[str] = (),
    start: datetime | None = None,
    days: float = 1.0,
    volume_octets: int = 0,
) -> PassPlan:
    """The plan over the named stations (none named: all of the mission's), from `start` (else the orbit's epoch)."""
    if not 0 < days <= 366:
        raise InputError(f"days is {days:g}, wanted more than 0 and at most 366")
    if volume_octets < 0:
        raise InputError(f"the volume is {volume_octets} octets, wanted 0 or more")
    begin = (start or mission.orbit.epoch).astimezone(UTC)
    stations = chosen_stations(mission, station_names)
    notes = orbit_notes(mission.orbit, begin, days)
    sent = tuple(fill(windows(mission, stations, begin, days), volume_octets))
    satellite, ends = satellite_of(mission.orbit), np.array([0.0, days * 86400])
    minutes = np.arange(0.0, days * 86400, 60.0)
    sunlit = float(lit(satellite, begin, minutes).mean())
    beta = beta_deg(satellite, begin, ends)
    return PassPlan(
        mission, tuple(stations), begin, days, volume_octets, sent, sunlit, (float(beta[0]), float(beta[1])), notes
    )  # fmt: skip


def fill(found: Sequence[Window], volume_octets: int) -> Iterator[Sent]:
    """Sends a volume over windows in time order; what one cannot carry resumes in the next."""
    for window in found:
        sent = min(volume_octets, window.capacity_octets)
        volume_octets -= sent
        yield Sent(window, sent, volume_octets)


def as_json(plan: PassPlan) -> dict[str, Any]:
    """The plan for machines. Times are UTC, ISO 8601."""
    return {
        "schema": SCHEMA,
        "not_coded": NOT_CODED,
        "mission": plan.mission.name,
        "rate_bps": plan.mission.link.rate_bps,
        "link_budget": plan.mission.radio is not None,
        "start": iso(plan.start),
        "days": plan.days,
        "volume_octets": plan.volume_octets,
        "waiting_octets": plan.waiting_octets,
        "down_at": iso(plan.down_at) if plan.down_at else None,
        "transmittable_octets": sum(sent.window.capacity_octets for sent in plan.windows),
        "sunlit_share": round(plan.sunlit_share, 4),
        "beta_deg": [round(beta, 2) for beta in plan.beta_deg],
        "stations": [_station_row(station.name, plan) for station in plan.stations],
        "notes": list(plan.notes),
        "passes": [_window_row(sent) for sent in plan.windows],
    }


def as_text(plan: PassPlan) -> str:
    """The plan for people, one pass a line."""
    titles = ("rise (UTC)", "s", "usable", "max deg", "Mbit", "sent MB", "left MB")
    lines = ["{:<12} {:<19} {:>6} {:>6} {:>7} {:>8} {:>9} {:>9}".format("station", *titles)]
    lines += [_line(sent) for sent in plan.windows]
    for station in plan.stations:
        row = _station_row(station.name, plan)
        lines.append(f"{station.name}: {row['passes_per_day']:.1f} passes a day of {row['mean_duration_s']:.0f} s")
    lines.append(f"sunlit {100 * plan.sunlit_share:.0f} % of the time, beta angle {plan.beta_deg[0]:.1f} deg")
    if plan.volume_octets:
        down = (
            f"down at {plan.down_at:%Y-%m-%d %H:%M:%S}" if plan.down_at else f"{plan.waiting_octets} octets still wait"
        )
        lines.append(f"{plan.volume_octets} octets: {down}")
    return "\n".join([*lines, *(f"note: {note}" for note in plan.notes)])


def orbit_notes(orbit: Orbit, begin: datetime, days: float) -> tuple[str, ...]:
    """How old the elements are where that matters. InputError where SGP4 cannot carry the orbit over the plan."""
    epoch = elements_epoch(orbit)
    of = f"the elements of {epoch:%Y-%m-%d}" if epoch else f"the orbit of {orbit.epoch:%Y-%m-%d}"
    if failed := propagation_error(orbit, begin, days):
        why, when = failed
        raise InputError(
            f"SGP4 cannot carry {of} to {when:%Y-%m-%d %H:%M} ({why}); give newer elements or another --start"
        )
    if epoch is None:
        return ()
    age_days = (begin - epoch) / timedelta(days=1)
    if abs(age_days) <= FRESH_DAYS:
        return ()
    side = "before" if age_days < 0 else "after"
    return (
        f"the plan starts {abs(age_days):.0f} days {side} {of}: SGP4 errs by 1 to 3 km a day (Vallado 2006), "
        "so passes may be off by minutes and more; give newer elements",
    )


def chosen_stations(mission: Mission, names: Sequence[str]) -> list[Station]:
    chosen = [mission.station(name) for name in names] or list(mission.stations)
    if not chosen:
        raise InputError(f"mission {mission.name} has no stations; add [[stations]] to its file")
    return list(dict.fromkeys(chosen))


def iso(when: datetime) -> str:
    return when.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _line(sent: Sent) -> str:
    window, contact = sent.window, sent.window.contact
    when = f"{contact.station:<12} {contact.rise_at:%Y-%m-%d %H:%M:%S} {contact.duration_s:6.0f}"
    carried = f"{8 * window.capacity_octets / 1e6:8.0f} {sent.sent_octets / 1e6:9.3f}"
    shared = f"  shared with {', '.join(window.share.yields_to)}" if window.share.yields_to else ""
    left = f"{sent.waiting_octets / 1e6:9.3f}{shared}"
    return f"{when} {window.usable_s:6.0f} {contact.max_elevation_deg:7.1f} {carried} {left}"


def _station_row(name: str, plan: PassPlan) -> dict[str, Any]:
    contacts = dict.fromkeys(s.window.contact for s in plan.windows if s.window.contact.station == name)
    durations = [contact.duration_s for contact in contacts]
    mean_s = round(sum(durations) / len(durations), 1) if durations else 0.0
    return {"station": name, "passes_per_day": len(durations) / plan.days, "mean_duration_s": mean_s}


def _window_row(sent: Sent) -> dict[str, Any]:
    window, contact = sent.window, sent.window.contact
    return {
        "station": contact.station,
        "rise_at": iso(contact.rise_at),
        "set_at": iso(contact.set_at),
        "duration_s": round(contact.duration_s, 2),
        "begin_at": iso(window.share.begin_at),
        "usable_s": round(window.usable_s, 2),
        "max_elevation_deg": round(contact.max_elevation_deg, 2),
        "capacity_octets": window.capacity_octets,
        "sent_octets": sent.sent_octets,
        "waiting_octets": sent.waiting_octets,
        "yields_to": list(window.share.yields_to),
        "sunlit_share": round(window.lit_share, 3),
        "beta_deg": round(window.beta_deg, 2),
        "frames_lost_share": float(f"{window.profile.lost_share:.3g}"),
        "rate_profile": rate_steps(window.profile),
    }


def rate_steps(profile: Profile) -> list[dict[str, Any]]:
    """The rate along a window, one row for each stretch of one step: from when (s after the rise), step and rate."""
    if not len(profile.at_s):
        return []
    begins = np.flatnonzero(np.r_[True, np.diff(profile.step) != 0])
    return [
        {
            "from_s": round(float(profile.at_s[n] - profile.step_s / 2), 1),
            "step": profile.names[profile.step[n]] if profile.step[n] >= 0 else None,
            "rate_bps": round(float(profile.rate_bps[n])),
        }
        for n in begins
    ]
