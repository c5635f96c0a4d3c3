"""Verification: a requirement is held only by a number that meets it."""

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.mission.budgets import Budget
from sim.mission.spec import Requirements, load_mission
from sim.mission.verification import all_held, verify

MISSION = replace(load_mission(), requirements=Requirements(min_psnr_10k_db=38.0, max_ndvi_mae=0.05))
GOOD = {"psnr_10k_db": 41.0, "ndvi_mae": 0.01}


def check(figures, name="min_psnr_10k_db"):
    return next(c for c in verify(figures, MISSION) if c.requirement == name)


def test_a_run_that_meets_everything():
    checks = verify(GOOD, MISSION)
    assert [c.requirement for c in checks] == ["min_psnr_10k_db", "max_ndvi_mae"]
    assert all_held(checks)
    first = checks[0]
    assert (first.measured, first.limit, first.unit, first.basis, first.cause) == (41.0, 38.0, "dB", "measured", None)


@given(st.floats(allow_nan=False), st.floats(0, 200))
def test_min_and_max_are_inclusive_bounds(value, limit):
    mission = replace(MISSION, requirements=Requirements(min_psnr_10k_db=limit, max_bpp=limit))
    low, high = verify({"psnr_10k_db": value, "bpp": value}, mission)
    assert low.held == (value >= limit)
    assert high.held == (value <= limit)


@pytest.mark.parametrize(
    ("figures", "cause"),
    [
        (GOOD | {"psnr_10k_db": math.nan}, "psnr_10k_db is not a number"),
        (GOOD | {"psnr_10k_db": None}, "psnr_10k_db was not measured"),
        ({"ndvi_mae": 0.01}, "psnr_10k_db was not measured"),
    ],
)
def test_what_was_not_measured_is_not_held(figures, cause):
    found = check(figures)
    assert not found.held
    assert found.cause == cause
    assert not all_held(verify(figures, MISSION))


def test_a_lossless_scene_has_infinite_psnr_and_holds():
    assert check(GOOD | {"psnr_10k_db": math.inf}).held


def test_figures_nobody_asked_for_are_ignored():
    assert verify(GOOD | {"sam_deg": math.nan}, MISSION) == verify(GOOD, MISSION)


def test_budgets_become_checks_with_their_basis():
    budgets = [
        Budget("memory", 600.0, 512.0, "MiB", "measured", ""),
        Budget("power", 1.8, 2.5, "W", "modelled", ""),
        Budget("throughput", None, 0.0, "Mpx/s", "measured", ""),
    ]
    memory, power, throughput = verify(GOOD, MISSION, budgets)[2:]
    assert (memory.requirement, memory.held, memory.limit) == ("budget: memory", False, 512.0)
    assert (power.held, power.basis) == (True, "modelled")
    assert (throughput.held, throughput.cause) == (False, "throughput was not measured")
    assert [check.judged for check in (memory, power, throughput)] == [True, True, False]


def test_what_was_measured_stands_under_measured_also_where_more_is_better():
    needed = Budget("throughput", 0.12, 8.0, "Mpx/s", "measured on host", "", "available")
    (check,) = verify({}, replace(MISSION, requirements=Requirements()), [needed])
    assert (check.measured, check.relation, check.limit, check.held) == (8.0, ">=", 0.12, True)


def test_why_a_budget_was_not_judged_is_said_and_it_is_not_held():
    emulated = Budget("memory", None, 512.0, "MiB", "measured on device", "", not_judged="emulated")
    (check,) = verify({}, replace(MISSION, requirements=Requirements()), [emulated])
    assert (check.measured, check.held, check.judged, check.cause) == (None, False, False, "emulated")


def test_of_a_rate_the_measured_one_is_measured_and_what_the_imager_asks_for_is_the_limit():
    budget = Budget("throughput", 0.12, 3.7, "Mpx/s", "measured on host", "", "available")
    (check,) = [c for c in verify({}, load_mission("phisat2"), [budget]) if c.requirement == "budget: throughput"]
    assert (check.measured, check.relation, check.limit, check.held) == (3.7, ">=", 0.12, True)
    slow = replace(budget, available=0.1)
    assert not verify({}, load_mission("phisat2"), [slow])[-1].held
    unknown = verify({}, load_mission("phisat2"), [replace(budget, available=0.0)])[-1]
    assert (unknown.measured, unknown.held, unknown.cause) == (None, False, "throughput was not measured")
