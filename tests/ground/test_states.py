"""Energy of an orbit by states: off, boot, idle, busy, beside an example worked by hand."""

from dataclasses import replace
from pathlib import Path

import pytest

from hil.devices.latency import Work
from hil.devices.states import States, assumption, orbit_energy
from hil.profiles.demand import Demand, read_demand
from payload.errors import InputError
from sim.link.orbit import period_s
from sim.mission.budgets import SceneRun, energy
from sim.mission.spec import load_mission

ORBIT_S = 5689.4
one_percent = 0.01


def test_a_payload_that_idles_between_takes_by_hand():
    """5 W for 35.7 s is 178.5 J; 2 W for the other 5 653.7 s is 11 307 J; together 11 486 J."""
    found = orbit_energy(States(idle_w=2.0, between_takes="idle"), 5.0 * 35.7, 35.7, ORBIT_S)
    assert found.joules["busy"] == pytest.approx(178.5, rel=one_percent)
    assert found.joules["idle"] == pytest.approx(11_307, rel=one_percent)
    assert found.total_j == pytest.approx(11_486, rel=one_percent)


def test_a_payload_that_is_switched_off_by_hand():
    """Two takes: two boots of 20 s at 1 W are 40 J; 0.05 W for the 5 613.7 s left are 280.7 J; with 178.5 J 499.2 J."""
    states = States(idle_w=2.0, off_w=0.05, boot_w=1.0, boot_s=20.0, takes_per_orbit=2)
    found = orbit_energy(states, 178.5, 35.7, ORBIT_S)
    assert found.total_j == pytest.approx(499.2, rel=one_percent)
    assert sum(found.seconds.values()) == pytest.approx(ORBIT_S)


def test_work_longer_than_the_orbit_leaves_no_rest():
    found = orbit_energy(States(idle_w=2.0, between_takes="idle"), 30_000.0, 6000.0, ORBIT_S)
    assert found.total_j == 30_000.0


def test_the_budget_of_a_downlink_counts_the_states_of_its_mission():
    mission = load_mission("phisat2")
    run = SceneRun(10**6, 10**5, Work(macs=1e9))
    alone = energy(run, replace(mission, states=None))
    idle = energy(run, replace(mission, states=States(idle_w=0.5, between_takes="idle")))
    rest_s = period_s(mission.orbit) - idle.orbit_s
    assert idle.orbit_j == pytest.approx(alone.orbit_j + 0.5 * rest_s, rel=1e-9)
    assert "idle and boot are not in it" in alone.orbit_assumption and "idle at 0.5 W" in idle.orbit_assumption


def test_the_bench_reads_the_same_states_of_the_mission(tmp_path: Path):
    assert read_demand("phisat2").states == load_mission("phisat2").states
    text = (Path(__file__).parents[2] / "sim/missions/phisat2.toml").read_text()
    bad = tmp_path / "bad.toml"
    bad.write_text(text.replace("idle_w = 0.5 ", 'idle_w = "half" '))
    with pytest.raises(InputError, match=r"\[states\] cannot be used"):
        read_demand(bad)
    bad.write_text(text.replace("idle_w = 0.5 ", "idle_v = 0.5 "))
    with pytest.raises(InputError, match=r"\[states\] cannot be used"):
        read_demand(bad)


def test_what_an_orbits_energy_rests_on_is_said():
    assert "idle and boot are not in it" in assumption(None)
    assert "2 boots of 20 s" in assumption(States(idle_w=1, boot_s=20, boot_w=1, takes_per_orbit=2))
    assert Demand("m", 1.0, 5700.0).states is None


@pytest.mark.parametrize(("key", "value"), [("idle_w", -1.0), ("boot_s", 1e9), ("takes_per_orbit", -1)])
def test_states_that_cannot_be_are_refused(key, value):
    with pytest.raises(InputError, match=key):
        States(**{"idle_w": 1.0} | {key: value})
