"""The pass plan: when which station sees the satellite, what each pass carries, and when a volume is down."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from payload.errors import InputError
from sim.link.orbit import Orbit, Station, Window, elements_epoch, fill, passes, propagation_error
from sim.mission.spec import Mission

SCHEMA = "nadir-passes/1"
#: Element sets older than this at the start of a plan are named.
FRESH_DAYS = 7.0


@dataclass(frozen=True)
class PassPlan:
    """Windows in time order, over `days` days from `start`, for a volume of `volume_octets`."""

    mission: str
    stations: tuple[str, ...]
    rate_bps: float
    start: datetime
    days: float
    volume_octets: int
    windows: tuple[Window, ...]
    notes: tuple[str, ...] = ()  # what is to be known about the orbit behind it

    @property
    def waiting_octets(self) -> int:
        """What the plan leaves on board."""
        return self.windows[-1].waiting_octets if self.windows else self.volume_octets

    @property
    def down_at(self) -> datetime | None:
        """When the last octet is down; None if some wait, or there were none to send."""
        for window in self.windows:
            if window.sent_octets and not window.waiting_octets:
                began = window.contact.set_at - timedelta(seconds=window.usable_s)
                return began + timedelta(seconds=8 * window.sent_octets / self.rate_bps)
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
    stations = _stations(mission, station_names)
    notes = _notes(mission.orbit, begin, days)
    contacts = [contact for station in stations for contact in passes(mission.orbit, station, begin, days)]
    rate_bps = mission.link.packet_rate_bps
    windows = fill(contacts, rate_bps, volume_octets)
    names = tuple(station.name for station in stations)
    return PassPlan(mission.name, names, rate_bps, begin, days, volume_octets, tuple(windows), notes)


def as_json(plan: PassPlan) -> dict[str, Any]:
    """The plan for machines. Times are UTC, ISO 8601."""
    return {
        "schema": SCHEMA,
        "mission": plan.mission,
        "rate_bps": plan.rate_bps,
        "start": _iso(plan.start),
        "days": plan.days,
        "volume_octets": plan.volume_octets,
        "waiting_octets": plan.waiting_octets,
        "down_at": _iso(plan.down_at) if plan.down_at else None,
        "stations": [_station_row(name, plan) for name in plan.stations],
        "notes": list(plan.notes),
        "passes": [_window_row(window) for window in plan.windows],
    }


def as_text(plan: PassPlan) -> str:
    """The plan for people, one pass a line."""
    titles = ("rise (UTC)", "s", "usable", "max deg", "Mbit", "sent MB", "left MB")
    lines = ["{:<12} {:<19} {:>6} {:>6} {:>7} {:>8} {:>9} {:>9}".format("station", *titles)]
    for window in plan.windows:
        contact = window.contact
        when = f"{contact.station:<12} {contact.rise_at:%Y-%m-%d %H:%M:%S} {contact.duration_s:6.0f}"
        carried = f"{8 * window.capacity_octets / 1e6:8.0f} {window.sent_octets / 1e6:9.3f}"
        left = f"{window.waiting_octets / 1e6:9.3f}"
        lines.append(f"{when} {window.usable_s:6.0f} {contact.max_elevation_deg:7.1f} {carried} {left}")
    for name in plan.stations:
        row = _station_row(name, plan)
        lines.append(f"{name}: {row['passes_per_day']:.1f} passes a day of {row['mean_duration_s']:.0f} s")
    if plan.volume_octets:
        down = (
            f"down at {plan.down_at:%Y-%m-%d %H:%M:%S}" if plan.down_at else f"{plan.waiting_octets} octets still wait"
        )
        lines.append(f"{plan.volume_octets} octets: {down}")
    return "\n".join([*lines, *(f"note: {note}" for note in plan.notes)])


def _notes(orbit: Orbit, begin: datetime, days: float) -> tuple[str, ...]:
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


def _stations(mission: Mission, names: Sequence[str]) -> list[Station]:
    chosen = [mission.station(name) for name in names] or list(mission.stations)
    if not chosen:
        raise InputError(f"mission {mission.name} has no stations; add [[stations]] to its file")
    return list(dict.fromkeys(chosen))


def _station_row(name: str, plan: PassPlan) -> dict[str, Any]:
    durations = [window.contact.duration_s for window in plan.windows if window.contact.station == name]
    mean_s = round(sum(durations) / len(durations), 1) if durations else 0.0
    return {"station": name, "passes_per_day": len(durations) / plan.days, "mean_duration_s": mean_s}


def _window_row(window: Window) -> dict[str, Any]:
    contact = window.contact
    return {
        "station": contact.station,
        "rise_at": _iso(contact.rise_at),
        "set_at": _iso(contact.set_at),
        "duration_s": round(contact.duration_s, 2),
        "usable_s": round(window.usable_s, 2),
        "max_elevation_deg": round(contact.max_elevation_deg, 2),
        "capacity_octets": window.capacity_octets,
        "sent_octets": window.sent_octets,
        "waiting_octets": window.waiting_octets,
    }


def _iso(at: datetime) -> str:
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
