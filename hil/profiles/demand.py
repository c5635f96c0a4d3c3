"""A profile against a mission: which budget fails first on this very device.

Reads of the mission's TOML only what a device has to meet; the ground's own reader (`sim`) checks the rest of the file.
"""

import math
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hil.profiles.profile_file import DeviceProfile
from payload.errors import InputError

EARTH_RADIUS_KM = 6371.0
EARTH_MU_KM3_S2 = 398600.4418


@dataclass(frozen=True)
class Demand:
    """What a mission asks of its device. None: not asked."""

    name: str
    imager_mpx_s: float
    orbit_s: float
    imaging_s_per_orbit: float | None = None
    energy_per_orbit_j: float | None = None
    power_w: float | None = None
    memory_mib: float | None = None
    highest_c: float | None = None


@dataclass(frozen=True)
class Margin:
    """Used of available. `margin` is the share left, negative when overdrawn."""

    name: str
    used: float
    available: float
    unit: str
    basis: str

    @property
    def margin(self) -> float:
        return 1.0 - self.used / self.available

    @property
    def held(self) -> bool:
        return self.margin >= 0.0

    @property
    def words(self) -> str:
        if self.held:
            return f"{100 * self.margin:.0f} % left"
        return f"{self.used / self.available:.3g} times what there is"


def read_demand(path: Path, highest_c: float | None = None) -> Demand:
    """The demand of a mission file. `highest_c` is the temperature the device may reach; missions do not say."""
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
        for name in ("imaging_s_per_orbit", "energy_per_orbit_j", "power_w", "memory_mib")
    }
    return Demand(str(table.get("name", path.stem)), rate_mpx_s, orbit_s, highest_c=highest_c, **optional)


def margins(profile: DeviceProfile, demand: Demand) -> list[Margin]:
    """Every demand this profile can be held against, the tightest first."""
    speed, energy = profile.performance, profile.energy
    if speed is None:
        raise InputError("the profile holds no performance; profile the device first")
    factor = speed.tile_mpx_s / demand.imager_mpx_s
    name = f"imager's rate, real-time factor {factor:.3g}"
    found = [Margin(name, demand.imager_mpx_s, speed.tile_mpx_s, "Mpx/s", speed.basis)]
    if demand.imaging_s_per_orbit is not None:
        mpx = demand.imaging_s_per_orbit * demand.imager_mpx_s
        work_s = mpx / speed.tile_mpx_s
        name = f"work of an orbit, duty cycle {100 * work_s / demand.orbit_s:.3g} %"
        found.append(Margin(name, work_s, demand.orbit_s, "s", speed.basis))
        if energy is not None and demand.energy_per_orbit_j is not None:
            found.append(
                Margin("energy of an orbit", mpx * energy.mpx_gross_j, demand.energy_per_orbit_j, "J", energy.basis)
            )
    if energy is not None and demand.power_w is not None:
        found.append(Margin("peak power", energy.peak_w, demand.power_w, "W", energy.basis))
    if demand.memory_mib is not None:
        found.append(
            Margin("memory", speed.peak_memory_mib, demand.memory_mib, "MiB", "measured by the device's kernel")
        )
    if demand.highest_c is not None and speed.temperatures_c:
        hottest = max(speed.temperatures_c.values())
        found.append(Margin("temperature", hottest, demand.highest_c, "°C", "measured by the device's kernel"))
    return sorted(found, key=lambda margin: margin.margin)


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
