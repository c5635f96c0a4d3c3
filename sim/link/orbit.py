"""Orbit and stations: the closed forms of a circular orbit over a spherical Earth: period, ground speed, inclination.

SGP4 carries the satellite itself (sim/link/propagation.py), passes are found in sim/link/contacts.py. Mean local time
fixes the plane; no drag: circular mission orbits are kept by the satellite. Good to seconds, which is what a budget
needs; it is no ephemeris.
"""

import math
from dataclasses import dataclass
from datetime import UTC, datetime

from payload.errors import InputError
from sim.toml_tables import check_range

EARTH_RADIUS_KM = 6378.137  # equatorial, WGS 84
EARTH_FLATTENING = 1 / 298.257223563  # WGS 84
EARTH_GM_KM3_S2 = 398600.4418  # WGS 84
EARTH_J2 = 1.08262668e-3  # EGM96
TROPICAL_YEAR_S = 365.2421897 * 86400
J2000 = datetime(2000, 1, 1, 12, tzinfo=UTC)


@dataclass(frozen=True)
class Orbit:
    """A circular orbit, or a two-line element set (`tle_1`, `tle_2`) for the passes.

    `inclination_deg` None means sun-synchronous. `ltan_h` is the mean local time of the ascending node. `epoch` is
    when the satellite crosses it, and where a plan starts that says nothing else.
    """

    altitude_km: float
    epoch: datetime
    inclination_deg: float | None = None
    ltan_h: float = 10.5
    tle_1: str | None = None
    tle_2: str | None = None

    def __post_init__(self) -> None:
        check_range("altitude_km", self.altitude_km, 160, 2000)
        check_range("inclination_deg", self.inclination_deg, 0, 180)
        check_range("ltan_h", self.ltan_h, 0, 24)
        if (self.tle_1 is None) != (self.tle_2 is None):
            raise InputError("one line of the element set is missing; give tle_1 and tle_2, or neither")
        if self.tle_1 and self.tle_2:
            _check_tle(self.tle_1, self.tle_2)

    @property
    def radius_km(self) -> float:
        return EARTH_RADIUS_KM + self.altitude_km


@dataclass(frozen=True)
class Station:
    """A ground station; `mask_deg` is the elevation below which it does not receive.

    `g_over_t_db_k` and `pointing_loss_db` are for the link budget (sim/link/link_budget.py). Where passes overlap, the
    station of the higher `priority` is served.
    """

    name: str
    latitude_deg: float
    longitude_deg: float
    altitude_m: float = 0.0
    mask_deg: float = 5.0
    g_over_t_db_k: float | None = None
    pointing_loss_db: float = 0.0
    priority: int = 0

    def __post_init__(self) -> None:
        check_range("latitude_deg", self.latitude_deg, -90, 90)
        check_range("longitude_deg", self.longitude_deg, -180, 180)
        check_range("altitude_m", self.altitude_m, -500, 9000)
        check_range("mask_deg", self.mask_deg, 0, 89)
        check_range("g_over_t_db_k", self.g_over_t_db_k, -60, 60)
        check_range("pointing_loss_db", self.pointing_loss_db, 0, 30)
        check_range("priority", self.priority, -1000, 1000)


def period_s(orbit: Orbit) -> float:
    """Time of one revolution, Keplerian: 2 pi sqrt(a^3 / GM)."""
    return 2 * math.pi * math.sqrt(orbit.radius_km**3 / EARTH_GM_KM3_S2)


def ground_speed_m_s(orbit: Orbit) -> float:
    """Speed of the point under the satellite; the turning of the Earth (about 1 % in a polar orbit) is left out."""
    return 2 * math.pi * EARTH_RADIUS_KM * 1e3 / period_s(orbit)


def sun_synchronous_inclination_deg(altitude_km: float) -> float:
    """Inclination at which J2 turns a circular orbit's plane once a tropical year (Vallado, 4th ed., eq. 11-12 ff.)."""
    a = EARTH_RADIUS_KM + altitude_km
    node_rate = 2 * math.pi / TROPICAL_YEAR_S
    motion = math.sqrt(EARTH_GM_KM3_S2 / a**3)
    return math.degrees(math.acos(-node_rate / (1.5 * EARTH_J2 * motion * (EARTH_RADIUS_KM / a) ** 2)))


def inclination_deg(orbit: Orbit) -> float:
    return (
        sun_synchronous_inclination_deg(orbit.altitude_km) if orbit.inclination_deg is None else orbit.inclination_deg
    )


def _check_tle(line_1: str, line_2: str) -> None:
    for number, line in ((1, line_1), (2, line_2)):
        if len(line) != 69 or line[0] != str(number) or not line.isascii():
            raise InputError(
                f"tle_{number} has {len(line)} characters and begins with {line[:1]!r}, wanted 69 that begin with "
                f"{number}, in ASCII"
            )
        digits = sum(int(c) if c.isdigit() else c == "-" for c in line[:68])
        if str(digits % 10) != line[68]:
            raise InputError(f"tle_{number} ends in checksum {line[68]}, its digits give {digits % 10}; copy it again")
    if line_1[2:7] != line_2[2:7]:
        raise InputError(f"tle_1 is of satellite {line_1[2:7]}, tle_2 of {line_2[2:7]}, wanted one satellite's")
