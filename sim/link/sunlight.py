"""Sun and shadow: when the satellite is lit, and how its orbit stands to the sun.

The sun's place is the Astronomical Almanac's low-precision formula (0.01 degrees), the Earth's shadow a cylinder: it
leaves out the 8 s of half-light on either side in a low orbit.
"""

from datetime import UTC, datetime, timedelta

import numpy as np
from numpy.typing import NDArray
from sgp4.api import Satrec

from sim.link.orbit import EARTH_RADIUS_KM, J2000
from sim.link.propagation import Vectors, inertial_km


def sun_direction(start: datetime, seconds: Vectors) -> Vectors:
    """Unit vectors [N, 3] towards the sun, equator and equinox of date."""
    days = (start.astimezone(UTC) - J2000) / timedelta(days=1) + seconds / 86400
    anomaly = np.radians(357.528 + 0.9856003 * days)
    longitude = np.radians(280.460 + 0.9856474 * days + 1.915 * np.sin(anomaly) + 0.020 * np.sin(2 * anomaly))
    tilt = np.radians(23.439 - 4e-7 * days)
    return np.stack(
        [np.cos(longitude), np.cos(tilt) * np.sin(longitude), np.sin(tilt) * np.sin(longitude)], axis=1
    )


def lit(satellite: Satrec, start: datetime, seconds: Vectors) -> NDArray[np.bool_]:
    """Whether the sun shines on the satellite [N]."""
    position, sun = inertial_km(satellite, start, seconds), sun_direction(start, seconds)
    along = np.einsum("nk,nk->n", position, sun)
    across = np.linalg.norm(position - along[:, None] * sun, axis=1)
    return (along > 0) | (across > EARTH_RADIUS_KM)


def beta_deg(satellite: Satrec, start: datetime, seconds: Vectors) -> Vectors:
    """Angle [N] between the sun and the plane of the orbit, positive on the side of its angular momentum."""
    here, soon = (inertial_km(satellite, start, seconds + late) for late in (0.0, 60.0))
    normal = np.cross(here, soon)
    normal /= np.linalg.norm(normal, axis=1)[:, None]
    return np.degrees(np.arcsin(np.einsum("nk,nk->n", normal, sun_direction(start, seconds))))


def sun_elevation_deg(
    start: datetime, seconds: Vectors, latitude_deg: Vectors, longitude_deg: Vectors
) -> Vectors:
    """How high the sun stands [N] over points on the ground [N]. Mean solar time: the equation of time is in it."""
    sun = sun_direction(start, seconds)
    days = (start.astimezone(UTC) - J2000) / timedelta(days=1) + seconds / 86400
    sidereal = np.radians((280.46062 + 360.98564737 * days + longitude_deg) % 360.0)
    latitude = np.radians(latitude_deg)
    up = np.stack([np.cos(latitude) * np.cos(sidereal), np.cos(latitude) * np.sin(sidereal), np.sin(latitude)], axis=1)
    return np.degrees(np.arcsin(np.clip(np.einsum("nk,nk->n", up, sun), -1, 1)))
