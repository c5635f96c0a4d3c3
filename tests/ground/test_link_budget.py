"""The link budget against a hand-worked example, its tables against their sources, and the rate along a pass."""

import math
from dataclasses import replace
from datetime import UTC, datetime
from itertools import pairwise
from typing import get_args

import numpy as np
import pytest

from payload.errors import InputError
from payload.link.frames.stack import Stack
from sim.link.atmosphere import loss_db
from sim.link.ldpc_curves import frame_error_rate
from sim.link.ldpc_curves import limit_db as ldpc_limit_db
from sim.link.link import Link
from sim.link.link_budget import FADES, WEIGHTS, Radio, budget, profile
from sim.link.orbit import Station
from sim.link.propagation import Look
from sim.link.rate_steps import HOLDS_AT, Family, source, steps
from sim.mission.spec import load_mission
from sim.mission.windows import windows

EPOCH = datetime(2026, 6, 21, tzinfo=UTC)
RADIO = Radio(
    frequency_hz=8.2e9, power_w=2.0, antenna_dbi=6.0, symbol_rate_baud=5e6, feeder_loss_db=1.0,
    polarisation_loss_db=0.3, implementation_loss_db=1.0, pointing="nadir", beamwidth_deg=80.0, atmosphere="gases",
)  # fmt: skip
DISH = Station("Dish", 78.0, 15.0, g_over_t_db_k=25.0, pointing_loss_db=0.5)


def seen(elevation_deg=10.0, altitude_km=510.0, radius_km=6378.137):
    """The triangle of station, satellite and centre of a spherical Earth (Wertz, SMAD 3rd ed., eq. 5-24 to 5-28)."""
    elevation = math.radians(elevation_deg)
    off_nadir = math.asin(radius_km * math.cos(elevation) / (radius_km + altitude_km))
    centre = math.pi / 2 - elevation - off_nadir
    range_km = radius_km * math.sin(centre) / math.sin(off_nadir)
    return Look(*(np.array([v]) for v in (elevation_deg, range_km, math.degrees(off_nadir))))


def test_a_budget_worked_by_hand_agrees_within_a_tenth_of_a_decibel():
    """510 km, 10 degrees, 8.2 GHz. Every line by the formula of its source, with a pocket calculator:

    range 6378.137 (sqrt(1.079961^2 - cos^2 10) - sin 10) = 1 719.5 km (Maral and Bousquet, eq. 2.62);
    free space 92.45 + 20 log 8.2 + 20 log 1719.5 = 92.45 + 18.28 + 64.71 = 175.43 dB (ITU-R P.525, eq. 4);
    gases 0.045 / sin 10 = 0.26 dB (ITU-R P.676); pointing 12 (65.77 / 80)^2 = 8.11 dB (Maral and Bousquet, eq. 5.5);
    EIRP 3.01 + 6 - 1 = 8.01 dBW; k = -228.60 dBW/K/Hz (SI 2019).
    C/N0 = 8.01 - 175.43 - 0.26 - 8.11 - 0.5 - 0.3 + 25 + 228.60 = 77.01 dBHz; Es/N0 = 77.01 - 66.99 - 1 = 9.02 dB.
    """
    view = seen()
    assert float(view.range_km[0]) == pytest.approx(1719.5, abs=0.2)
    assert float(view.off_nadir_deg[0]) == pytest.approx(65.77, abs=0.05)
    found = budget(RADIO, DISH, view)
    lines = {"eirp_dbw": 8.01, "free_space_db": 175.43, "atmosphere_db": 0.26, "pointing_db": 8.61,
             "c_n0_dbhz": 77.01, "es_n0_db": 9.02}  # fmt: skip
    a_tenth_db = 0.1
    for name, by_hand in lines.items():
        assert float(np.atleast_1d(getattr(found, name))[0]) == pytest.approx(by_hand, abs=a_tenth_db), name


def test_at_that_place_the_step_and_its_margin_are_those_of_the_standard():
    """Es/N0 9.02 dB less a margin of 3 dB carries 8PSK 3/5 (5.50 dB, 1.779991 bit a symbol; EN 302 307-1 Table 13)."""
    row = profile(RADIO, 1e9, 1.0, DISH, seen(), np.array([1.0]))
    assert row.names[row.step[0]] == "8PSK 3/5"
    assert float(row.rate_bps[0]) == pytest.approx(5e6 * 1.779991)
    assert float(row.margin_db[0]) == pytest.approx(9.02 - 5.50, abs=0.1)
    assert float(row.eb_n0_db[0]) == pytest.approx(9.02 - 10 * math.log10(1.779991), abs=0.1)


def test_gases_follow_the_cosecant_law_and_rain_takes_more():
    elevations = np.array([5.0, 10.0, 30.0, 90.0])
    clear, wet = (loss_db(kind, 8.2e9, elevations) for kind in ("gases", "one_percent"))
    assert clear * np.sin(np.radians(elevations)) == pytest.approx(0.045 * np.ones(4))
    assert (wet > clear).all() and (np.diff(wet) < 0).all()
    assert loss_db("one_percent", 8.2e9, np.array([10.0]))[0] == pytest.approx(1.26, abs=1e-3)


def test_every_curve_falls_and_holds_where_it_says():
    for family in get_args(Family):
        ladder = steps(family)
        assert all(a.needed_es_n0_db < b.needed_es_n0_db for a, b in pairwise(ladder))
        for step in ladder:
            places = np.arange(-10, 20, 0.05)
            rates = step.frame_error_rate(places)
            assert (np.diff(rates) <= 0).all() and rates[0] > 0.9
            assert step.frame_error_rate(np.array([step.needed_es_n0_db]))[0] == pytest.approx(HOLDS_AT, rel=1e-6)


LDPC = ("ccsds_ldpc_1024", "ccsds_ldpc_4096", "ccsds_ldpc_16384")


def test_ldpc_codes_are_those_of_the_standard_and_cost_what_frames_and_markers_take():
    """CCSDS 131.0-B-3: codeblocks of table 7-5, 64 bits of marker before them; (8160, 7136) with 32."""
    for family, k in zip(LDPC, (1024, 4096, 16384), strict=True):
        ladder = {step.name: step.efficiency for step in steps(family)}
        for rate, n in (("1/2", 2 * k), ("2/3", 3 * k // 2), ("4/5", 5 * k // 4)):
            assert ladder[f"QPSK LDPC {rate} k {k}"] == pytest.approx(2 * k / (n + 64))
    assert [step.efficiency for step in steps("ccsds_ldpc_7_8")] == pytest.approx([7136 / 8192, 2 * 7136 / 8192])


def test_an_ldpc_curve_lies_between_the_codes_threshold_and_what_published_simulations_reach():
    """No code does better than its threshold (rate 1/2: 0.628 dB, Divsalar et al. 2009); longer ones come nearer."""
    needed = {}
    for family in LDPC:
        step = next(step for step in steps(family) if step.name.startswith("BPSK LDPC 1/2"))
        k = int(step.name.split()[-1])
        needed[k] = step.needed_es_n0_db - 10 * math.log10(0.5)
        assert step.frame_error_rate(np.array([0.628 - 0.1 + 10 * math.log10(0.5)]))[0] > 0.5
    assert 0.628 < needed[16384] < needed[4096] < needed[1024] < 2.5
    assert needed[16384] - 0.628 < 0.5 < 1.4 < needed[1024] - 0.628 + 0.5


@pytest.mark.parametrize(("rate", "limit_db"), [(1 / 2, 0.187), (2 / 3, 1.059), (4 / 5, 2.040)])
def test_the_limit_that_no_code_passes_is_the_published_one(rate, limit_db):
    """Capacity of BPSK in white noise (table I of Divsalar et al. 2009): half of long codewords are lost there."""
    a_very_long_code = frame_error_rate(np.array([limit_db]), int(rate * 1e9), int(1e9), limit_db, 0.0)
    assert 0 < ldpc_limit_db(rate) - limit_db + 0.002 < 0.004 and 0.01 < a_very_long_code[0] < 0.99


def test_a_mission_that_names_ldpc_gets_its_steps_along_the_pass():
    """At the worked example's 9.02 dB less 3, QPSK carries the fastest code that holds there: LDPC 4/5."""
    row = profile(replace(RADIO, steps="ccsds_ldpc_4096"), 1e9, 1.0, DISH, seen(), np.array([1.0]))
    assert row.names[row.step[0]] == "QPSK LDPC 4/5 k 4096"
    assert float(row.rate_bps[0]) == pytest.approx(5e6 * 2 * 4096 / 5184)
    assert "modelled" in source("ccsds_ldpc_4096") and "assumed" in source("ccsds_ldpc_4096")


def test_reed_solomon_curve_by_hand():
    """QPSK at Es/N0 9 dB: a bit is wrong with Q(sqrt(10^0.9)) = 2.41e-3, an octet with 1 - (1 - p)^8 = 1.911e-2."""
    bit = 0.5 * math.erfc(math.sqrt(10**0.9 / 2))
    octet = 1 - (1 - bit) ** 8
    lost = sum(math.comb(255, k) * octet**k * (1 - octet) ** (255 - k) for k in range(17, 60))
    qpsk = steps("ccsds_rs")[-1]
    assert bit == pytest.approx(2.41e-3, rel=0.01)
    assert qpsk.frame_error_rate(np.array([9.0]))[0] == pytest.approx(1 - (1 - lost) ** 5, rel=0.05)


def test_fading_that_is_not_foreseen_loses_frames_and_a_wider_margin_saves_them():
    narrow, wide, still = (
        profile(replace(RADIO, fading_db=f, margin_db=m), 1e9, 1.0, DISH, seen(), np.array([1.0]))
        for f, m in ((1.5, 1.0), (1.5, 6.0), (0.0, 1.0))
    )
    assert narrow.frame_error_rate[0] > 1e-2 > wide.frame_error_rate[0]
    assert still.frame_error_rate[0] <= HOLDS_AT
    assert narrow.rate_bps[0] > wide.rate_bps[0]


def test_a_modem_that_follows_the_fading_loses_fewer_frames():
    planned, following = (
        profile(replace(RADIO, fading_db=1.5, margin_db=1.0, adaptation=a), 1e9, 1.0, DISH, seen(), np.array([1.0]))
        for a in ("vcm", "acm")
    )
    assert following.frame_error_rate[0] < planned.frame_error_rate[0] / 100


def test_one_step_a_pass_carries_less_than_steps_along_it():
    mission = load_mission("phisat2")
    carried = {}
    for adaptation in ("ccm", "vcm"):
        changed = replace(mission, radio=replace(mission.radio, adaptation=adaptation))
        found = windows(changed, [changed.station("Svalbard")], EPOCH, 1)
        carried[adaptation] = sum(window.capacity_octets for window in found)
    assert 0 < carried["ccm"] < carried["vcm"]


def test_no_more_goes_out_than_the_missions_rate_and_at_2_mbps_the_link_always_carries_it():
    mission = load_mission("phisat2")
    slow = replace(mission, link=replace(mission.link, rate_bps=2e6))
    for window in windows(slow, [slow.station("Svalbard")], EPOCH, 1):
        packets_bps = 2e6 * 1107 / 1279  # what frames, parity and markers leave
        assert window.profile.rate_bps == pytest.approx(packets_bps * np.ones(len(window.profile.rate_bps)))
        assert window.capacity_octets == pytest.approx(packets_bps * window.usable_s / 8, abs=1)
    for window in windows(mission, [mission.station("Svalbard")], EPOCH, 1):
        assert window.profile.rate_bps.max() <= 10e6


def test_framing_takes_the_header_of_the_frame():
    assert Link(1e6, 100, frame_octets=1109).packet_share == pytest.approx(1109 / 1115)
    assert Link(1e6, 100, stack=Stack()).packet_share == pytest.approx(1107 / 1115)


def test_a_station_without_g_over_t_is_named():
    with pytest.raises(InputError, match="station Dish has no g_over_t_db_k"):
        budget(RADIO, replace(DISH, g_over_t_db_k=None), seen())


def test_fades_are_a_normal_distribution_by_points():
    assert WEIGHTS.sum() == pytest.approx(1) and FADES.tolist() == pytest.approx((-FADES[::-1]).tolist())
    assert (WEIGHTS * FADES**2).sum() == pytest.approx(1, abs=1e-4) and FADES[-1] == 5
