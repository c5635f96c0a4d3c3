"""Where the satellite is: SGP4 (Vallado et al. 2006, AIAA 2006-6753), seen from the Earth and from a station.

Takes an orbit, a start and seconds after it [N]; gives positions [N, 3] in km, elevations, ranges, points below.
"""

import math
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np
from numpy.typing import NDArray
from sgp4.api import SGP4_ERRORS, WGS72, Satrec, jday

from sim.link.orbit import EARTH_FLATTENING, EARTH_RADIUS_KM, J2000, Orbit, Station, inclination_deg, period_s

Vectors = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Look:
    """A satellite as a station sees it, each [N]. `off_nadir_deg`: the station as seen from the satellite."""

    elevation_deg: Vectors
    range_km: Vectors
    off_nadir_deg: Vectors


def look(satellite: Satrec, station: Station, start: datetime, seconds: Vectors) -> Look:
    """Elevation (-90 where SGP4 gives up: decayed), range and off-nadir angle at `seconds` [N] after `start`."""
    position, failed = earth_fixed_km(satellite, start, seconds)
    ground, up = _station_vectors(station)
    line = position - ground  # [N, 3] km
    range_km = np.linalg.norm(line, axis=1)
    elevation = np.degrees(np.arcsin(np.clip(line @ up / range_km, -1, 1)))
    down = np.einsum("nk,nk->n", position, line) / (np.linalg.norm(position, axis=1) * range_km)
    return Look(np.where(failed, -90.0, elevation), range_km, np.degrees(np.arccos(np.clip(down, -1, 1))))


def earth_fixed_km(satellite: Satrec, start: datetime, seconds: Vectors) -> tuple[Vectors, NDArray[np.bool_]]:
    """Positions [N, 3] that turn with the Earth, and where SGP4 failed [N]."""
    position, failed, day, fractions = _teme(satellite, start, seconds)
    return _earth_fixed(position, day, fractions), failed


def inertial_km(satellite: Satrec, start: datetime, seconds: Vectors) -> Vectors:
    """Positions [N, 3] in SGP4's own frame (TEME), which stands still among the stars."""
    return _teme(satellite, start, seconds)[0]


def points_below(satellite: Satrec, start: datetime, seconds: Vectors) -> tuple[Vectors, Vectors]:
    """Latitude (geodetic) and longitude in degrees [N] of the points under the satellite."""
    (x, y, z), _ = earth_fixed_km(satellite, start, seconds)[0].T, None
    flat = (1 - EARTH_FLATTENING) ** 2
    geocentric = np.arctan2(z, np.hypot(x, y))
    # of the surface point right below; the satellite's height turns that by 0.03 degrees at most
    return np.degrees(np.arctan2(np.tan(geocentric), flat)), np.degrees(np.arctan2(y, x))


def elements_epoch(orbit: Orbit) -> datetime | None:
    """When the element set was true; None for a circular orbit."""
    if orbit.tle_1 is None:
        return None
    satellite = satellite_of(orbit)
    days = satellite.jdsatepoch - jday(2000, 1, 1, 12, 0, 0)[0] + satellite.jdsatepochF
    return J2000 + timedelta(days=days - jday(2000, 1, 1, 12, 0, 0)[1])


def propagation_error(orbit: Orbit, start: datetime, days: float) -> tuple[str, datetime] | None:
    """SGP4's first complaint within `days` days from `start`, with its number, and when; None where it has none."""
    at = start.astimezone(UTC)
    day, fraction = jday(at.year, at.month, at.day, at.hour, at.minute, at.second + at.microsecond * 1e-6)
    ahead = np.linspace(0.0, days, max(2, math.ceil(24 * days)))
    errors, _, _ = satellite_of(orbit).sgp4_array(np.full(len(ahead), day), fraction + ahead)
    bad = np.flatnonzero(errors)
    if not len(bad):
        return None
    code = int(errors[bad[0]])
    return f"error {code}: {SGP4_ERRORS.get(code, 'unknown')}", at + timedelta(days=float(ahead[bad[0]]))


def satellite_of(orbit: Orbit) -> Satrec:
    """SGP4's own record of the orbit: its element set, or the circular orbit's elements at the epoch."""
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


def _teme(
    satellite: Satrec, start: datetime, seconds: Vectors
) -> tuple[Vectors, NDArray[np.bool_], float, Vectors]:
    at = start.astimezone(UTC)
    day, fraction = jday(at.year, at.month, at.day, at.hour, at.minute, at.second + at.microsecond * 1e-6)
    fractions = fraction + seconds / 86400
    errors, position, _ = satellite.sgp4_array(np.full(len(seconds), day), fractions)  # [N], [N, 3] km
    return position, errors != 0, day, fractions


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
