"""Profiles: JSON there and back, hostile files, margins against a mission, the page, the comparison."""

import dataclasses
import json
import re

import numpy as np
import pytest

from hil.bench.profiling import Plan, profile
from hil.host.client import DeviceSession
from hil.host.tiles_in import npz_tiles
from hil.host.transports import connector
from hil.profiles.comparison import comparison
from hil.profiles.demand import Demand, margins, read_demand
from hil.profiles.page import render
from hil.profiles.profile_file import (
    FORMAT,
    BenchProfile,
    Energy,
    Performance,
    ProfiledDevice,
    Roofline,
    Spread,
    StageSpan,
    load_profile,
    save_profile,
)
from payload.errors import InputError
from payload.policy import Policy

SECONDS = [0.010, 0.011, 0.012, 0.010, 0.030, 0.011]
STAGES = {"clouds": 0.002, "encode": 0.005, "entropy": 0.003}


@pytest.fixture
def sample():
    """Made-up figures of a made-up board."""
    performance = Performance(
        "measured by the device's own monotonic clock",
        2,
        Spread.of(SECONDS),
        {n: Spread.of([s] * 6) for n, s in STAGES.items()},
        0.8,
        6.0,
        5.9,
        2.5,
        210.0,
        {"cpu": 61.0},
        tuple(SECONDS),
    )
    spans = tuple(StageSpan(name, 10 + k, 11 + k) for k, name in enumerate(STAGES))
    energy = Energy(
        "measured by sysfs /sys/x",
        3,
        12.0,
        2.0,
        5.0,
        6.1,
        0.05,
        0.03,
        0.76,
        0.46,
        dict(STAGES),
        "one clock",
        (0.0, 10.0, 10.1, 20.0),
        (2.0, 2.0, 5.0, 5.0),
        10.0,
        20.0,
        spans,
        (10.0, 11.0, 13.0),
        (5.0, 5.1, 5.0),
    )
    machine = ("tcp://board <1>", "aarch64", "Cortex & co", 4, 1024, "Linux 6", "3.11.2", "openvino 2026.4", 1)
    device = ProfiledDevice(*machine)
    roofline = Roofline("counted", 0.2, 0.007, 28.0, 120.0, 65.0, 8.0)
    return BenchProfile(
        FORMAT,
        "2026-01-01T00:00:00Z",
        "c0de",
        "edge",
        77,
        256,
        device,
        6,
        "ab" * 32,
        performance,
        energy,
        roofline,
        ("doubt",),
    )


def test_a_profile_comes_back_as_it_was(sample, tmp_path):
    for written in (sample, dataclasses.replace(sample, energy=None, roofline=None, complaints=())):
        save_profile(written, tmp_path / "profile.json")
        assert load_profile(tmp_path / "profile.json") == written
    assert [path.name for path in tmp_path.iterdir()] == ["profile.json"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda f: f | {"format": 9}, "profile format 9"),
        (lambda f: f | {"colour": 1}, "colour has no place"),
        (lambda f: {k: v for k, v in f.items() if k != "device"}, "device"),
        (lambda f: f | {"tiles": "six"}, "tiles is 'six'"),
        (lambda f: f | {"performance": []}, "has no place"),
        (lambda f: [f], "profile format 'list'"),
    ],
)
def test_a_profile_that_was_meddled_with_is_refused(change, words, sample, tmp_path):
    path = tmp_path / "profile.json"
    path.write_text(json.dumps(change(dataclasses.asdict(sample))))
    with pytest.raises(InputError, match=re.escape(words)):
        load_profile(path)


def test_a_profile_that_is_none_is_refused(tmp_path):
    for octets in (b"", b"\xff\xfe", b"[1"):
        (tmp_path / "x").write_bytes(octets)
        with pytest.raises(InputError, match="hil profile"):
            load_profile(tmp_path / "x")


def test_a_spread_by_hand():
    spread = Spread.of([1.0, 2.0, 3.0, 4.0, 5.0])
    assert (spread.n, spread.mean_s, spread.p50_s, spread.max_s) == (5, 3.0, 3.0, 5.0)
    assert spread.jitter_s == pytest.approx(2**0.5)
    assert (spread.p95_s, spread.p99_s) == (None, None)  # of five samples
    hundred = Spread.of([float(k) for k in range(1, 101)])
    assert (hundred.p95_s, hundred.p99_s) == (pytest.approx(95.05), pytest.approx(99.01))
    assert Spread.of([1.0] * 99).p99_s is None and Spread.of([1.0] * 20).p95_s == 1.0
    assert hundred.p50_range_s[0] < 50.5 < hundred.p50_range_s[1]


def test_the_budget_that_fails_first_comes_first(sample):
    demand = Demand(
        "m",
        imager_mpx_s=3.0,
        orbit_s=5700.0,
        realtime_factor=1.0,
        imaging_s_per_orbit=60.0,
        energy_per_orbit_j=100.0,
        power_w=6.1,
        memory_mib=256.0,
        highest_c=85.0,
    )
    found = margins(sample, demand)
    by_name = {margin.name.partition(",")[0]: margin for margin in found}
    assert found[0].name.startswith("energy of an orbit, the work alone: the mission has no [states]")
    assert found[0].used == pytest.approx(136.8, rel=0.01)  # 60 s x 3 Mpx/s x 0.76 J = 136.8 J of 100
    assert found[0].used == pytest.approx(136.8)
    assert not found[0].held
    assert by_name["1 x the imager's rate"].margin == pytest.approx(0.5)  # 6 Mpx/s against 3
    assert by_name["work of an orbit"].used == pytest.approx(30.0)
    assert by_name["peak power"].held and by_name["peak power"].margin == 0.0
    assert by_name["temperature"].margin == pytest.approx(1 - 61 / 85)


def test_a_missions_demand_by_hand(tmp_path):
    path = tmp_path / "m.toml"
    path.write_text(
        'name = "m"\n[imager]\nswath_px = 1000\ngsd_m = 10\n[orbit]\naltitude_km = 500.0\n[budgets]\npower_w = 2\n'
    )
    demand = read_demand(path)
    assert demand.orbit_s == pytest.approx(5668, abs=2)  # Kepler at 6871 km
    assert demand.imager_mpx_s == pytest.approx(1000 * 7062 / 10 / 1e6, rel=1e-3)  # 7.06 km/s over the ground
    assert (demand.power_w, demand.energy_per_orbit_j) == (2.0, None)


@pytest.mark.parametrize("text", ["", "[imager]\nswath_px = 'x'", "imager = 3", "\x00", "[imager]\nswath_px = -1"])
def test_a_mission_that_is_none_is_refused(text, tmp_path):
    path = tmp_path / "m.toml"
    path.write_text(text)
    with pytest.raises(InputError, match=re.escape(str(path))):
        read_demand(path)


def test_the_page_is_whole_safe_and_needs_nothing_from_outside(sample):
    page = render(sample, "m", margins(sample, Demand("m", 3.0, 5700.0, realtime_factor=1.0)))
    assert "tcp://board &lt;1&gt;" in page and "Cortex &amp; co" in page
    assert "<script" not in page and "http://" not in page and "https://" not in page and "url(" not in page
    assert page.count("<svg") == 5 and page.count('class="parts"') == 2
    for words in ("measured by sysfs", "doubt", "idle subtracted", "real-time factor 2"):
        assert words.lower() in page.lower()


def test_the_page_of_a_profile_without_power_or_roofline(sample):
    page = render(dataclasses.replace(sample, energy=None, roofline=None))
    assert page.count("<svg") == 2 and page.count('class="parts"') == 1
    assert "Energy" not in page


def test_profiles_side_by_side(sample):
    faster = dataclasses.replace(
        sample, performance=dataclasses.replace(sample.performance, tile_mpx_s=12.0), energy=None
    )
    lines = comparison([sample, faster])
    speed = next(line for line in lines if line.startswith("all tiles, Mpx/s"))
    assert speed.split() == ["all", "tiles,", "Mpx/s", "6", "12", "(x2.00)"]
    assert next(line for line in lines if line.startswith("net mJ")).split()[-1] == "-"


def test_tiles_of_an_npz(tmp_path):
    x = np.arange(2 * 3 * 40 * 40, dtype=np.uint16).reshape(2, 3, 40, 40)
    np.savez(tmp_path / "t.npz", x=x, bands=np.array(["B04", "B02", "B03"]))
    source = npz_tiles(tmp_path / "t.npz", 32, ("B02", "B04"))
    tiles = list(source.tiles)
    assert source.total == len(tiles)
    assert [(t.row, t.col) for t in tiles] == [(0, 0), (0, 1)]
    assert np.array_equal(tiles[1].dn, x[1][[1, 0], :32, :32])
    with pytest.raises(InputError, match="B08"):
        npz_tiles(tmp_path / "t.npz", 32, ("B08",))
    with pytest.raises(InputError, match="64 x 64"):
        npz_tiles(tmp_path / "t.npz", 64, ("B02",))


@pytest.mark.parametrize("octets", [b"", b"PK\x03\x04 no", b"\x93NUMPY"])
def test_an_npz_that_is_none_is_refused(octets, tmp_path):
    (tmp_path / "t.npz").write_bytes(octets)
    with pytest.raises(InputError, match="wanted x uint16"):
        npz_tiles(tmp_path / "t.npz", 32, ("B02",))


def test_an_emulated_device_has_no_profile(tiny_bundle, agent_command, make_tiles):
    url = "stdio:" + " ".join([*agent_command(0.0), "--stdio", "--emulated", "cortex-a53"])
    connect = connector(url, tiny_bundle.directory)
    with (
        DeviceSession(connect, "board", tiny_bundle, Policy(), "fake") as session,
        pytest.raises(InputError, match="its times and power mean nothing"),
    ):
        profile(session, make_tiles(2), tiny_bundle, None, Plan())
