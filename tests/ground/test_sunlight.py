"""Sun, shadow and the point below, beside skyfield where it is installed."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from sim.link.orbit import Orbit
from sim.link.propagation import points_below, satellite_of
from sim.link.sunlight import beta_deg, lit, sun_direction, sun_elevation_deg

EPOCH = datetime(2026, 6, 21, tzinfo=UTC)
ORBIT = Orbit(altitude_km=510.0, epoch=EPOCH, ltan_h=22.5)


def test_the_sun_stands_highest_at_the_solstice():
    south_to_north = sun_direction(EPOCH, np.arange(0, 365 * 86400.0, 86400.0))[:, 2]
    assert np.degrees(np.arcsin(south_to_north.max())) == pytest.approx(23.44, abs=0.01)
    assert int(np.argmin(south_to_north)) == pytest.approx(183, abs=2)  # 21 December


def test_a_dawn_orbit_stays_in_the_light_and_a_noon_orbit_does_not():
    seconds = np.arange(0, 86400.0, 30.0)
    dawn, noon = (satellite_of(Orbit(510.0, EPOCH, ltan_h=h)) for h in (6.0, 12.0))
    # a noon orbit crosses the middle of the shadow: asin(R / a) / pi of it is dark, 67.8 / 180
    assert 1 - lit(noon, EPOCH, seconds).mean() == pytest.approx(67.8 / 180, abs=0.02)
    assert lit(dawn, EPOCH, seconds).mean() > lit(noon, EPOCH, seconds).mean()
    assert abs(beta_deg(dawn, EPOCH, seconds[:1])[0]) > 60 > abs(beta_deg(noon, EPOCH, seconds[:1])[0])


def test_skyfield_sees_the_same_shadow_and_the_same_point_below():
    api = pytest.importorskip("skyfield.api", reason="skyfield is the oracle: pip install 'nadir-payload[test]'")
    time = api.load.timescale(builtin=True)
    seconds = np.arange(0, 6 * 3600.0, 60.0)
    when = time.from_datetimes([EPOCH + timedelta(seconds=float(s)) for s in seconds])
    theirs = api.EarthSatellite.from_satrec(satellite_of(ORBIT), time).at(when)
    latitude, longitude = points_below(satellite_of(ORBIT), EPOCH, seconds)
    below = api.wgs84.geographic_position_of(theirs)
    assert latitude == pytest.approx(below.latitude.degrees, abs=0.05)
    apart = (longitude - below.longitude.degrees + 180) % 360 - 180
    assert np.abs(apart * np.cos(np.radians(latitude))).max() < 0.02


def test_noon_and_midnight_on_the_ground():
    noon_s = np.array([12 * 3600.0, 0.0])
    height = sun_elevation_deg(EPOCH, noon_s, np.array([0.0, 0.0]), np.array([0.0, 0.0]))
    assert height[0] == pytest.approx(90 - 23.44, abs=0.1)
    assert height[1] == pytest.approx(-(90 - 23.44), abs=0.1)
