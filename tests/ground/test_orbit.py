"""Orbit: closed forms, published figures, and skyfield as an independent judge of every pass."""

import math
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from payload.errors import InputError
from sim.link.contacts import Pass, passes, shares
from sim.link.orbit import (
    EARTH_RADIUS_KM,
    Orbit,
    Station,
    ground_speed_m_s,
    inclination_deg,
    period_s,
    sun_synchronous_inclination_deg,
)
from sim.link.propagation import satellite_of
from sim.mission.spec import load_mission

EPOCH = datetime(2026, 6, 21, tzinfo=UTC)
PHISAT2 = Orbit(altitude_km=510.0, epoch=EPOCH, ltan_h=22.5)
SVALBARD = Station("Svalbard", 78.2297, 15.4078)
# The International Space Station, from the documentation of the sgp4 library.
#: The same line of the next number: its checksum is one more, 9991 -> 9992.
OTHERS_FIRST_LINE = "1 25545U 98067A   19343.69339541  .00001764  00000-0  38792-4 0  9992"
ISS = Orbit(
    altitude_km=420.0,
    epoch=EPOCH,
    tle_1="1 25544U 98067A   19343.69339541  .00001764  00000-0  38792-4 0  9991",
    tle_2="2 25544  51.6439 211.2001 0007417  17.6667  85.6398 15.50103472202482",
)


def longest_pass_s(orbit: Orbit, mask_deg: float) -> float:
    """Pass straight overhead, Earth standing still: no pass over a circular polar orbit is much longer."""
    mask = math.radians(mask_deg)
    half_angle = math.acos(EARTH_RADIUS_KM * math.cos(mask) / orbit.radius_km) - mask
    return period_s(orbit) * half_angle / math.pi


def test_period_and_ground_speed_by_hand():
    # a = 6378.137 + 510 km; T = 2 pi sqrt(6888.137^3 / 398600.4418) = 5689.4 s; 2 pi 6378.137 km / T = 7043.8 m/s
    assert period_s(PHISAT2) == pytest.approx(5689.4, abs=0.1)
    assert ground_speed_m_s(PHISAT2) == pytest.approx(7043.8, abs=0.5)


def test_the_imager_of_the_reference_mission_makes_the_published_rate():
    mission = load_mission("phisat2")
    samples_s = 8 * mission.imager.rate_px_s(mission.orbit)  # its 8 bands
    assert samples_s / 1e6 == pytest.approx(48.6, abs=0.1)  # Msample/s
    assert 12 * samples_s / 1e6 == pytest.approx(583, abs=1)  # Mb/s
    assert mission.imager.line_rate_hz(mission.orbit) == pytest.approx(7043.8 / 4.75, rel=1e-4)


@pytest.mark.parametrize(("altitude_km", "published_deg"), [(786, 98.62), (705, 98.2), (832, 98.7)])
def test_sun_synchronous_inclinations_of_real_satellites(altitude_km, published_deg):
    """Sentinel-2 (786 km), Landsat 8 (705 km), SPOT (832 km); their altitudes are means over an oblate Earth."""
    assert sun_synchronous_inclination_deg(altitude_km) == pytest.approx(published_deg, abs=0.1)


def test_sgp4_turns_the_plane_with_the_sun():
    """The closed form for the inclination against SGP4's own perturbations: the node must gain 360 deg a year."""
    satellite = satellite_of(PHISAT2)
    nodes = []
    for day in (0, 100):
        error, position, velocity = satellite.sgp4(satellite.jdsatepoch, satellite.jdsatepochF + day)
        assert error == 0
        nodes.append(math.degrees(math.atan2(*_node(position, velocity))))
    gained = (nodes[1] - nodes[0]) % 360
    assert gained == pytest.approx(100 * 360 / 365.2422, abs=1.0)
    assert satellite.inclo == pytest.approx(math.radians(inclination_deg(PHISAT2)))


def _node(position, velocity):
    """Direction (y, x) of the ascending node: z axis x angular momentum."""
    momentum = [
        position[(i + 1) % 3] * velocity[(i + 2) % 3] - position[(i + 2) % 3] * velocity[(i + 1) % 3] for i in range(3)
    ]
    return momentum[0], -momentum[1]


@pytest.mark.parametrize("ltan_h", [6.0, 10.5, 22.5])
def test_the_ascending_node_has_its_local_time(ltan_h):
    skyfield = pytest.importorskip(
        "skyfield.api", reason="skyfield is the oracle here: pip install 'nadir-payload[test]'"
    )
    time = skyfield.load.timescale(builtin=True)
    satellite = skyfield.EarthSatellite.from_satrec(satellite_of(Orbit(510.0, EPOCH, ltan_h=ltan_h)), time)
    below = skyfield.wgs84.subpoint(satellite.at(time.from_datetime(EPOCH)))
    assert below.latitude.degrees == pytest.approx(0.0, abs=0.3)
    local_h = (EPOCH.hour + EPOCH.minute / 60 + below.longitude.degrees / 15) % 24
    assert local_h == pytest.approx(ltan_h, abs=1 / 60)  # a minute of mean solar time


@pytest.mark.parametrize(
    ("name", "latitude", "longitude", "a_day", "mean_s"),
    [
        ("Svalbard", 78.2297, 15.4078, 13.0, 465),
        ("Kiruna", 67.8571, 20.9643, 10.1, 443),
        ("Redu", 50.0015, 5.1453, 5.1, 424),
        ("Matera", 40.6486, 16.7046, 4.1, 437),
    ],
)
def test_passes_at_510_km_agree_with_an_earlier_study(name, latitude, longitude, a_day, mean_s):
    """Four weeks, mask 5 deg; the study's own plane and its one week are unknown, hence a few per cent."""
    found = passes(PHISAT2, Station(name, latitude, longitude), EPOCH, 28)
    assert len(found) / 28 == pytest.approx(a_day, abs=0.3)
    assert sum(p.duration_s for p in found) / len(found) == pytest.approx(mean_s, rel=0.04)


@pytest.mark.parametrize("orbit", [PHISAT2, ISS], ids=["circular", "tle"])
@pytest.mark.parametrize(
    "station",
    [
        Station("Redu", 50.0015, 5.1453, 386, 5),
        Station("Quito", -0.2, -78.5, 2800, 10),
        Station("Troll", -72.0, 2.5, 1270, 0),
    ],
    ids=lambda station: station.name,
)
def test_skyfield_finds_the_same_passes(orbit, station):
    skyfield = pytest.importorskip(
        "skyfield.api", reason="skyfield is the oracle here: pip install 'nadir-payload[test]'"
    )
    start = EPOCH if orbit is PHISAT2 else datetime(2019, 12, 10, tzinfo=UTC)
    ours = passes(orbit, station, start, 7)
    time = skyfield.load.timescale(builtin=True)
    satellite = skyfield.EarthSatellite.from_satrec(satellite_of(orbit), time)
    ground = skyfield.wgs84.latlon(station.latitude_deg, station.longitude_deg, station.altitude_m)
    span = time.from_datetime(start), time.from_datetime(start + timedelta(days=7, minutes=20))
    times, events = satellite.find_events(ground, *span, altitude_degrees=station.mask_deg)
    theirs = []
    for at, event in zip(times, events, strict=True):
        if event == 0:
            theirs.append([at.utc_datetime(), 0.0, 0.0])
        elif event == 1 and theirs:
            theirs[-1][1] = (satellite - ground).at(at).altaz()[0].degrees
        elif theirs:
            theirs[-1][2] = (at.utc_datetime() - theirs[-1][0]).total_seconds()
    theirs = [row for row in theirs if row[0] < start + timedelta(days=7)]
    assert len(ours) == len(theirs)
    assert ours
    for mine, (rise_at, top, duration_s) in zip(ours, theirs, strict=True):
        half_a_second = 0.5  # to which find_events searches
        assert abs((mine.rise_at - rise_at).total_seconds()) < half_a_second
        assert mine.duration_s == pytest.approx(duration_s, abs=2 * half_a_second)
        at = time.from_datetimes([mine.rise_at, mine.set_at])
        elevations = (satellite - ground).at(at).altaz()[0].degrees
        assert elevations == pytest.approx([station.mask_deg] * 2, abs=0.002)
        assert mine.max_elevation_deg == pytest.approx(top, abs=0.1)


def test_no_pass_is_longer_than_the_closed_form_allows():
    """Straight overhead over a still Earth; its turning and its flattening change that by 2 % at most here."""
    longest = max(passes(PHISAT2, SVALBARD, EPOCH, 14), key=lambda contact: contact.duration_s)
    bound = longest_pass_s(PHISAT2, 5.0)
    assert bound == pytest.approx(560, abs=1)
    assert 0.97 * bound < longest.duration_s < 1.02 * bound
    assert longest.max_elevation_deg > 60


def test_a_higher_mask_makes_shorter_and_fewer_passes_inside_the_others():
    wide, narrow = (passes(PHISAT2, Station("x", 60, 10, mask_deg=mask), EPOCH, 3) for mask in (0, 20))
    assert len(narrow) < len(wide)
    for contact in narrow:
        assert contact.max_elevation_deg > 20
        assert any(w.rise_at < contact.rise_at and contact.set_at < w.set_at for w in wide)


def test_a_station_the_orbit_never_reaches_has_no_passes():
    assert passes(Orbit(400, EPOCH, inclination_deg=10), SVALBARD, EPOCH, 2) == []


def test_consecutive_spans_share_no_pass_and_miss_none():
    whole = passes(PHISAT2, SVALBARD, EPOCH, 2)
    halves = [p for day in (0, 1) for p in passes(PHISAT2, SVALBARD, EPOCH + timedelta(days=day), 1)]
    assert [p.rise_at.timestamp() for p in halves] == pytest.approx([p.rise_at.timestamp() for p in whole], abs=0.02)


def contact(start_s, duration_s, station="A"):
    return Pass(station, EPOCH + timedelta(seconds=start_s), duration_s, 45.0)


def test_one_transmitter_serves_one_station_at_a_time():
    contacts = [contact(0, 100), contact(50, 100, "B"), contact(60, 20, "C"), contact(120, 60, "D")]
    found = shares(contacts, {})
    assert [(s.contact.station, s.usable_s) for s in found] == [("A", 100), ("C", 0), ("B", 50), ("D", 30)]


def test_the_station_of_the_higher_priority_takes_its_pass_out_of_the_others():
    found = shares([contact(0, 400), contact(100, 50, "B")], {"B": 1})
    assert [(s.contact.station, s.begin_s, s.end_s) for s in found] == [("A", 0, 100), ("B", 0, 50), ("A", 150, 400)]
    assert [s.yields_to for s in found] == [("B",), (), ("B",)]


def test_a_piece_too_short_to_lock_on_is_not_used():
    found = shares([contact(0, 100), contact(5, 95, "B")], {"B": 1})
    assert [(s.contact.station, s.usable_s) for s in found] == [("A", 0), ("B", 95)]


@given(st.lists(st.tuples(st.integers(0, 5000), st.floats(1, 900), st.sampled_from("ABC")), max_size=20))
def test_no_time_is_given_twice_and_every_pass_is_accounted_for(rows):
    contacts = [contact(*row) for row in rows]
    found = shares(contacts, {"C": 2})
    spans = sorted((s.begin_at, s.usable_s) for s in found if s.usable_s)
    for (begin, usable_s), (next_begin, _) in pairwise(spans):
        assert begin + timedelta(seconds=usable_s) <= next_begin + timedelta(microseconds=2)
    assert {id(s.contact) for s in found} == {id(c) for c in contacts}
    assert all(0 <= s.begin_s <= s.end_s <= s.contact.duration_s for s in found)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"altitude_km": 50}, "altitude_km is 50, wanted 160 to 2000"),
        ({"ltan_h": 25}, "ltan_h is 25"),
        ({"tle_1": ISS.tle_1}, "one line of the element set is missing"),
        ({"tle_1": ISS.tle_2, "tle_2": ISS.tle_2}, "wanted 69 that begin with 1"),
        ({"tle_1": OTHERS_FIRST_LINE, "tle_2": ISS.tle_2}, "tle_1 is of satellite 25545, tle_2 of 25544"),
        ({"tle_1": ISS.tle_1[:-1] + "0", "tle_2": ISS.tle_2}, "checksum 0, its digits give 1"),
    ],
)
def test_an_orbit_that_cannot_be_is_refused(fields, message):
    with pytest.raises(InputError, match=message):
        Orbit(**{"altitude_km": 510.0, "epoch": EPOCH} | fields)
