"""A profile against a mission: which budget fails first on this very device.

Reads of the mission's TOML only what a device has to meet; the ground's own reader (`sim`) checks the rest of the file.
"""

import math
import tomllib
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from hil.devices.states import States, assumption, orbit_energy
from hil.profiles.profile_file import CODED, BenchProfile, Energy
from payload.errors import InputError

EARTH_RADIUS_KM = 6371.0
EARTH_MU_KM3_S2 = 398600.4418
KERNEL = "measured by the device's kernel"
NO_METER = "profiled without --power"
MISSIONS = "nadir.missions"


@dataclass(frozen=True)
class Demand:
    """What a mission asks of its device. None: not asked."""

    name: str
    imager_mpx_s: float
    orbit_s: float
    realtime_factor: float | None = None  # how fast the payload must be, in units of the imager
    imaging_s_per_orbit: float | None = None
    energy_per_orbit_j: float | None = None
    power_w: float | None = None
    memory_mib: float | None = None
    highest_c: float | None = None
    states: States | None = None  # of the payload when it does not work


@dataclass(frozen=True)
class Margin:
    """Used of available. `margin` is the share left, negative when overdrawn. `used` None: wanted, and not known."""

    name: str
    used: float | None
    available: float
    unit: str
    basis: str

    @property
    def margin(self) -> float:
        return -math.inf if self.used is None else 1.0 - self.used / self.available

    @property
    def held(self) -> bool:
        return self.margin >= 0.0

    @property
    def words(self) -> str:
        if self.used is None:
            return "not measured: not held"
        if self.held:
            return f"{100 * self.margin:.0f} % left"
        return f"{self.used / self.available:.3g} times what there is"


def read_demand(where: str | Path, highest_c: float | None = None) -> Demand:
    """The demand of a mission, a TOML file or the name of a shipped one. Missions do not say `highest_c`, the
    temperature that the device may reach."""
    path = mission_file(where)
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: not readable as a mission ({error}); give the path of a mission's TOML") from None
    imager, orbit, budgets = (_table(path, table, name) for name in ("imager", "orbit", "budgets"))
    radius_km = EARTH_RADIUS_KM + _number(path, orbit, "altitude_km")
    orbit_s = 2 * math.pi * math.sqrt(radius_km**3 / EARTH_MU_KM3_S2)
    ground_m_s = 2e3 * math.pi * EARTH_RADIUS_KM / orbit_s
    rate_mpx_s = _number(path, imager, "swath_px") * ground_m_s / _number(path, imager, "gsd_m") / 1e6
    optional = {
        name: _maybe(path, budgets, name)
        for name in ("realtime_factor", "imaging_s_per_orbit", "energy_per_orbit_j", "power_w", "memory_mib")
    }
    name, states = str(table.get("name", path.stem)), _states(path, table)
    return Demand(name, rate_mpx_s, orbit_s, highest_c=highest_c, states=states, **optional)


def margins(profile: BenchProfile, demand: Demand) -> list[Margin]:
    """Every demand, the tightest first. What is asked and was not measured comes first, and is not held.

    Speed and energy are those of coded tiles: what the gate withheld from the profiled scene, it need not withhold
    from the next one.
    """
    speed, energy = profile.performance, profile.energy
    if speed is None:
        raise InputError("the profile holds no performance; profile the device first")
    mpx_s, tiles = speed.coded_mpx_s or speed.tile_mpx_s, "coded tiles" if speed.coded_mpx_s else "all tiles"
    basis = f"{tiles}, {speed.basis}"
    found = []
    if demand.realtime_factor is not None:
        used = demand.realtime_factor * demand.imager_mpx_s
        name = f"{demand.realtime_factor:g} x the imager's rate, real-time factor {mpx_s / demand.imager_mpx_s:.3g}"
        found.append(Margin(name, used, mpx_s, "Mpx/s", basis))
    if demand.imaging_s_per_orbit is not None:
        work_s = demand.imaging_s_per_orbit * demand.imager_mpx_s / mpx_s
        name = f"work of an orbit, duty cycle {100 * work_s / demand.orbit_s:.3g} %"
        found.append(Margin(name, work_s, demand.orbit_s, "s", basis))
    if demand.energy_per_orbit_j is not None:
        found.append(_orbit_energy(energy, demand, mpx_s, profile.tile_px))
    if demand.power_w is not None:
        peak_w = energy.peak_w if energy else None
        found.append(Margin("peak power", peak_w, demand.power_w, "W", energy.basis if energy else NO_METER))
    if demand.memory_mib is not None:
        found.append(Margin("memory", speed.peak_memory_mib, demand.memory_mib, "MiB", KERNEL))
    if demand.highest_c is not None:
        hottest = max(speed.temperatures_c.values(), default=None)
        basis = KERNEL if speed.temperatures_c else "the device tells no temperature"
        found.append(Margin("temperature", hottest, demand.highest_c, "°C", basis))
    return sorted(found, key=lambda margin: margin.margin)


def mission_file(where: str | Path) -> Path:
    """A file as it is; else a shipped mission of that name, found through the entry point `nadir.missions`."""
    if Path(where).is_file() or Path(where).suffix == ".toml":
        return Path(where)
    folders = [Path(point.load()) for point in entry_points(group=MISSIONS)]
    for folder in folders:
        if (folder / f"{where}.toml").is_file():
            return folder / f"{where}.toml"
    names = sorted(path.stem for folder in folders for path in folder.glob("*.toml"))
    raise InputError(
        f"mission {str(where)!r}: no such file, and none of that name; shipped: {', '.join(names) or 'none'}"
    )


def _orbit_energy(energy: Energy | None, demand: Demand, mpx_s: float, tile_px: int) -> Margin:
    """The work of an orbit as measured, and what the mission's states add between takes; the name says which."""
    name, available = f"energy of an orbit, {assumption(demand.states)}", demand.energy_per_orbit_j or 0.0
    if energy is None:
        return Margin(name, None, available, "J", NO_METER)
    if demand.imaging_s_per_orbit is None:
        return Margin(name, None, available, "J", "the mission does not say how long it images (imaging_s_per_orbit)")
    mpx = demand.imaging_s_per_orbit * demand.imager_mpx_s
    coded_j = energy.kind_gross_j.get(CODED)
    work_j = mpx * (energy.mpx_gross_j if coded_j is None else coded_j / (tile_px**2 / 1e6))
    if demand.states is None:
        return Margin(name, work_j, available, "J", energy.basis)
    spent = orbit_energy(demand.states, work_j, mpx / mpx_s, demand.orbit_s)
    return Margin(name, spent.total_j, available, "J", energy.basis)


def _states(path: Path, table: dict[str, Any]) -> States | None:
    """[states] of a mission; None where it has none."""
    found = _table(path, table, "states")
    try:
        numbers: dict[str, Any] = {key: v if key == "between_takes" else float(v) for key, v in found.items()}
        return States(**numbers) if found else None
    except (TypeError, ValueError) as error:
        raise InputError(f"{path}: [states] cannot be used ({error}); see docs/mission.md") from None


def _table(path: Path, table: dict[str, Any], name: str) -> dict[str, Any]:
    found = table.get(name, {})
    if not isinstance(found, dict):
        raise InputError(f"{path}: {name} is {found!r}, wanted a table [{name}]")
    return found


def _number(path: Path, table: dict[str, Any], name: str) -> float:
    value = _maybe(path, table, name)
    if value is None:
        raise InputError(f"{path}: {name} is missing; add it (a number above 0)")
    return value


def _maybe(path: Path, table: dict[str, Any], name: str) -> float | None:
    value = table.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value <= 0:
        raise InputError(f"{path}: {name} is {value!r}, wanted a number above 0")
    return float(value)
