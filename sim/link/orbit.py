"""Orbit and stations: how fast the ground goes by, when a station sees the satellite, what a pass can carry.

Closed forms for a circular orbit over a spherical Earth (period, ground speed, the longest pass), SGP4 for the passes
themselves (Vallado et al. 2006, AIAA 2006-6753). Mean local time fixes the plane; no drag: circular mission orbits are
kept by the satellite. Good to seconds, which is what a budget needs; it is no ephemeris.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np
from numpy.typing import NDArray
from sgp4.api import SGP4_ERRORS, WGS72, Satrec, jday

from payload.errors import InputError
from sim.toml_tables import check_range

EARTH_RADIUS_KM = 6378.137  # equatorial, WGS 84
EARTH_FLATTENING = 1 / 298.257223563  # WGS 84
EARTH_GM_KM3_S2 = 398600.4418  # WGS 84
EARTH_J2 = 1.08262668e-3  # EGM96
TROPICAL_YEAR_S = 365.2421897 * 86400
J2000 = datetime(2000, 1, 1, 12, tzinfo=UTC)
#: Elevation is sampled this often before crossings are refined: a pass shorter than this may be missed.
STEP_S = 20.0

Vectors = NDArray[np.float64]


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
    """A ground station; `mask_deg` is the elevation below which it does not receive."""

    name: str
    latitude_deg: float
    longitude_deg: float
    altitude_m: float = 0.0
    mask_deg: float = 5.0

    def __post_init__(self) -> None:
        check_range("latitude_deg", self.latitude_deg, -90, 90)
        check_range("longitude_deg", self.longitude_deg, -180, 180)
        check_range("altitude_m", self.altitude_m, -500, 9000)
        check_range("mask_deg", self.mask_deg, 0, 89)


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
class Window:
    """What one pass carries of a volume: the part of the pass used, and what waits for the next one."""

    contact: Pass
    usable_s: float  # without the part in which another station is already served
    capacity_octets: int
    sent_octets: int
    waiting_octets: int


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


def passes(orbit: Orbit, station: Station, start: datetime, days: float) -> list[Pass]:
    """Passes that rise in the `days` days after `start`, in order."""
    satellite = _satellite(orbit)
    margin_s = period_s(orbit) / 2  # a pass may set after the last rise that counts
    seconds = np.arange(-margin_s, days * 86400 + margin_s, STEP_S)  # [N] s after start
    above = _elevation_deg(satellite, station, start, seconds) > station.mask_deg  # [N]
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


def capacity_bits(contact_s: float, rate_bps: float) -> int:
    """Whole bits that a contact carries."""
    return math.floor(contact_s * rate_bps)


def fill(contacts: Iterable[Pass], rate_bps: float, volume_octets: int) -> Iterator[Window]:
    """Sends a volume over passes in time order; what a pass cannot carry resumes in the next.

    The satellite has one transmitter: where passes overlap, the one that rose first keeps it.
    """
    free_at = None
    for contact in sorted(contacts, key=lambda contact: contact.rise_at):
        begin = contact.rise_at if free_at is None else max(contact.rise_at, free_at)
        usable_s = max(0.0, (contact.set_at - begin).total_seconds())
        free_at = max(begin, contact.set_at)
        capacity_octets = capacity_bits(usable_s, rate_bps) // 8
        sent = min(volume_octets, capacity_octets)
        volume_octets -= sent
        yield Window(contact, usable_s, capacity_octets, sent, volume_octets)


def elements_epoch(orbit: Orbit) -> datetime | None:
    """When the element set was true; None for a circular orbit."""
    if orbit.tle_1 is None:
        return None
    satellite = _satellite(orbit)
    days = satellite.jdsatepoch - jday(2000, 1, 1, 12, 0, 0)[0] + satellite.jdsatepochF
    return J2000 + timedelta(days=days - jday(2000, 1, 1, 12, 0, 0)[1])


def propagation_error(orbit: Orbit, start: datetime, days: float) -> tuple[str, datetime] | None:
    """SGP4's first complaint within `days` days from `start`, with its number, and when; None where it has none."""
    at = start.astimezone(UTC)
    day, fraction = jday(at.year, at.month, at.day, at.hour, at.minute, at.second + at.microsecond * 1e-6)
    ahead = np.linspace(0.0, days, max(2, math.ceil(24 * days)))
    errors, _, _ = _satellite(orbit).sgp4_array(np.full(len(ahead), day), fraction + ahead)
    bad = np.flatnonzero(errors)
    if not len(bad):
        return None
    code = int(errors[bad[0]])
    return f"error {code}: {SGP4_ERRORS.get(code, 'unknown')}", at + timedelta(days=float(ahead[bad[0]]))


def _check_tle(line_1: str, line_2: str) -> None:
    for number, line in ((1, line_1), (2, line_2)):
        if len(line) != 69 or line[0] != str(number) or not line.isascii():
            raise InputError(f"tle_{number} has {len(line)} characters, wanted 69 that begin with {number}, in ASCII")
        digits = sum(int(c) if c.isdigit() else c == "-" for c in line[:68])
        if str(digits % 10) != line[68]:
            raise InputError(f"tle_{number} ends in checksum {line[68]}, its digits give {digits % 10}; copy it again")


def _satellite(orbit: Orbit) -> Satrec:
    if orbit.tle_1 and orbit.tle_2:
        return Satrec.twoline2rv(orbit.tle_1, orbit.tle_2)
    satellite = Satrec()
    epoch_days = (orbit.epoch - datetime(1949, 12, 31, tzinfo=UTC)) / timedelta(days=1)
    motion_rad_min = 2 * math.pi / (period_s(orbit) / 60)
    plane_rad, node_rad = math.radians(inclination_deg(orbit)), _node_rad(orbit)
    # identity, drag and its derivatives 0; eccentricity, argument of perigee and mean anomaly 0
    satellite.sgp4init(WGS72, "i", 0, epoch_days, 0.0, 0.0, 0.0, 0.0, 0.0, plane_rad, 0.0, motion_rad_min, node_rad)
    return satellite


def _node_rad(orbit: Orbit) -> float:
    """Right ascension of the ascending node: the mean sun's, turned by the node's local time after noon."""
    days = (orbit.epoch - J2000) / timedelta(days=1)
    mean_sun_deg = 280.460 + 0.9856474 * days  # Astronomical Almanac, low-precision sun
    return math.radians((mean_sun_deg + 15.0 * (orbit.ltan_h - 12.0)) % 360.0)


def _elevation_deg(satellite: Satrec, station: Station, start: datetime, seconds: Vectors) -> Vectors:
    """Elevation [N] over the station's horizon at `seconds` [N] after `start`; -90 where SGP4 gives up (decayed)."""
    at = start.astimezone(UTC)
    day, fraction = jday(at.year, at.month, at.day, at.hour, at.minute, at.second + at.microsecond * 1e-6)
    fractions = fraction + seconds / 86400
    errors, position, _ = satellite.sgp4_array(np.full(len(seconds), day), fractions)  # [N], [N, 3] km, TEME
    ground, up = _station_vectors(station)
    line_of_sight = _earth_fixed(position, day, fractions) - ground  # [N, 3] km
    sine = (line_of_sight @ up) / np.linalg.norm(line_of_sight, axis=1)
    return np.where(errors == 0, np.degrees(np.arcsin(np.clip(sine, -1, 1))), -90.0)


def _earth_fixed(position: Vectors, day: float, fractions: Vectors) -> Vectors:
    """TEME [N, 3] turned by Greenwich mean sidereal time (IAU 1982); polar motion and UT1 - UTC left out."""
    centuries = (day - 2451545.0 + fractions) / 36525.0
    sidereal_s = 67310.54841 + (876600 * 3600 + 8640184.812866) * centuries + 0.093104 * centuries**2
    angle = np.radians(sidereal_s / 240.0 % 360.0)
    c, s = np.cos(angle), np.sin(angle)
    x, y, z = position.T
    return np.stack([c * x + s * y, c * y - s * x, z], axis=1)


def _station_vectors(station: Station) -> tuple[Vectors, Vectors]:
    """Position [3] km and the unit vector [3] up, Earth-fixed, on the WGS 84 ellipsoid."""
    latitude, longitude = math.radians(station.latitude_deg), math.radians(station.longitude_deg)
    eccentricity_2 = EARTH_FLATTENING * (2 - EARTH_FLATTENING)
    across_km = EARTH_RADIUS_KM / math.sqrt(1 - eccentricity_2 * math.sin(latitude) ** 2)
    height_km = station.altitude_m / 1000
    horizontal = np.array([math.cos(longitude), math.sin(longitude), 0.0])
    north_pole = np.array([0.0, 0.0, 1.0])
    ground = (across_km + height_km) * math.cos(latitude) * horizontal
    ground += (across_km * (1 - eccentricity_2) + height_km) * math.sin(latitude) * north_pole
    return ground, math.cos(latitude) * horizontal + math.sin(latitude) * north_pole


def _crossing_s(satellite: Satrec, station: Station, start: datetime, below: Vectors, above: Vectors) -> Vectors:
    """Times [P] at which the elevation crosses the mask, by bisection between times below and above it [P]."""
    below, above = below.copy(), above.copy()
    for _ in range(12):  # 20 s / 2^12 = 5 ms
        middle = (below + above) / 2
        up = _elevation_deg(satellite, station, start, middle) > station.mask_deg
        above, below = np.where(up, middle, above), np.where(up, below, middle)
    return (below + above) / 2


def _highest_deg(satellite: Satrec, station: Station, start: datetime, rise_s: Vectors, set_s: Vectors) -> Vectors:
    """Highest elevation [P] between rise and set [P], by ternary search: there is one summit in a pass."""
    low, high = rise_s.copy(), set_s.copy()
    for _ in range(24):  # 800 s x (2/3)^24 = 50 ms
        left, right = low + (high - low) / 3, high - (high - low) / 3
        later = _elevation_deg(satellite, station, start, left) < _elevation_deg(satellite, station, start, right)
        low, high = np.where(later, left, low), np.where(later, high, right)
    return _elevation_deg(satellite, station, start, (low + high) / 2)
