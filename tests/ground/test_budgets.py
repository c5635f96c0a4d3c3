"""Budgets and devices: every figure worked by hand, modelled ones labelled with their source."""

import math
from dataclasses import replace
from pathlib import Path

import pytest

from hil.devices.latency import Work
from hil.profiles import profile_file as bench
from payload.errors import InputError
from sim.link.orbit import ground_speed_m_s, period_s
from sim.mission.budgets import Budget, SceneRun, assess, binding, energy, scenes_per_orbit, throughput, volume
from sim.mission.devices import device_names, estimate, load_device
from sim.mission.spec import SHIPPED, Budgets, Imager, load_mission

PHISAT2 = load_mission("phisat2")
#: 4 Mpx, 1 Mbit down, 4 kMAC/px, 0.5 s on the host, 300 MiB.
RUN = SceneRun(4_000_000, 125_000, Work(macs=16e9), onboard_s=0.5, peak_memory_mib=300.0)


def rows(run=RUN, mission=PHISAT2):
    return {budget.name: budget for budget in assess(run, mission)}


RATE = load_device("myriad2").figure("rate_gmac_per_s")


def test_throughput_against_the_imager():
    rates = throughput(RUN, PHISAT2)
    assert rates.imager_mpx_s == pytest.approx(4096 * ground_speed_m_s(PHISAT2.orbit) / 4.75 / 1e6)
    assert rates.host_mpx_s == pytest.approx(8.0)
    assert rates.host_realtime_factor == pytest.approx(8.0 / rates.imager_mpx_s)
    assert rates.device_mpx_s == pytest.approx(RATE.mid * 1e9 / 4000 / 1e6)  # over 4 kMAC/px


def test_volume_against_the_pass():
    load = volume(RUN, PHISAT2)
    assert load.downlinked_bits == 1_000_000
    assert load.pass_capacity_bits == 4_400_000_000
    assert load.bits_per_px == 0.25
    assert load.pass_px == pytest.approx(4.4e9 / 0.25)


def test_energy_on_the_device():
    load = energy(RUN, PHISAT2)
    assert load.scene_s == pytest.approx(16 / RATE.mid)  # 16 GMAC
    assert load.scene_s_range == pytest.approx((16 / RATE.high, 16 / RATE.low))
    assert load.scene_j == pytest.approx(1.8 * 16 / RATE.mid)  # W
    scenes = 113 * PHISAT2.imager.rate_px_s(PHISAT2.orbit) / 4e6
    assert scenes_per_orbit(RUN, PHISAT2) == pytest.approx(scenes)
    boot_j = 20.0  # 1 W for 20 s, once an orbit, and nothing while it is off
    assert load.orbit_j == pytest.approx(scenes * 1.8 * 16 / RATE.mid + boot_j)
    assert load.source.startswith("modelled: counted are the flight networks") and "lower bounds" in load.source
    assert "(calibrated: `python -m export calibrate`" in load.source


def test_every_budget_of_the_reference_mission():
    found = rows()
    assert set(found) == {
        "volume of a pass",
        "volume of an orbit",
        "raw store",
        "processing time of an orbit",
        "power",
        "energy of an orbit",
        "memory",
        "throughput",
    }
    assert (found["memory"].used, found["memory"].available, found["memory"].margin) == (300.0, 512.0, 1 - 300 / 512)
    assert found["volume of a pass"].used == 1.0  # Mbit
    assert found["volume of a pass"].available == 4400.0
    assert found["processing time of an orbit"].available == pytest.approx(period_s(PHISAT2.orbit))
    assert found["power"].used == 1.8
    assert all(budget.held for budget in found.values())


def test_measured_and_modelled_are_told_apart():
    basis = {name: budget.basis for name, budget in rows().items()}
    assert basis == {
        "volume of a pass": "measured",
        "volume of an orbit": "modelled",
        "raw store": "modelled",
        "processing time of an orbit": "modelled",
        "power": "modelled",
        "energy of an orbit": "modelled",
        "memory": "measured on host",
        "throughput": "measured on host",
    }


def test_budgets_that_a_mission_leaves_out_are_not_judged():
    assert set(rows(mission=replace(PHISAT2, budgets=Budgets()))) == {"volume of a pass"}
    assert energy(RUN, replace(PHISAT2, budgets=Budgets())).orbit_j is None


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"downlinked_octets": 600_000_000}, "volume of a pass"),
        ({"downlinked_octets": 5_000_000}, "volume of an orbit"),
        ({"work": Work(macs=16e12)}, "processing time of an orbit"),
        ({"peak_memory_mib": 512.1}, "memory"),
        ({"onboard_s": 40.0}, "throughput"),
    ],
)
def test_each_budget_can_be_overdrawn(change, name):
    assert not rows(replace(RUN, **change))[name].held


def test_the_raw_store_holds_what_the_imager_is_ahead_of_the_payload():
    """113 s at 6.07 Mpx/s, 4 bands of 12 bit, against a payload of 8 Mpx / its slowest time for 4 Mpx."""
    slowest_s = estimate("myriad2", RUN.work, RUN.scene_px).latency_worst_s
    imager_px_s = 4096 * ground_speed_m_s(PHISAT2.orbit) / 4.75
    waiting_px = (imager_px_s - 4e6 / slowest_s) * 113
    found = rows()["raw store"]
    assert found.used == pytest.approx(waiting_px * 4 * 12 / 8 / 2**20) and found.used > 256
    assert (found.available, found.unit, found.basis, found.held) == (4096.0, "MiB", "modelled", True)
    small = replace(PHISAT2, budgets=replace(PHISAT2.budgets, raw_store_mib=256.0))
    assert not rows(mission=small)["raw store"].held
    assert binding(assess(RUN, small)).name == "raw store"


def test_a_payload_that_stands_still_leaves_all_of_the_imaging_raw_and_a_fast_one_nothing():
    all_of_it = 113 * PHISAT2.imager.rate_px_s(PHISAT2.orbit) * 4 * 12 / 8 / 2**20
    assert all_of_it == pytest.approx(3927, abs=1)
    assert rows(replace(RUN, work=Work(macs=1e30)))["raw store"].used == pytest.approx(all_of_it)
    assert rows(replace(RUN, work=Work(macs=1.0)))["raw store"].used == 0.0
    sixteen = replace(PHISAT2, imager=replace(PHISAT2.imager, bits=16, bands=8))
    stood_still = replace(RUN, work=Work(macs=1e30))
    assert rows(stood_still, sixteen)["raw store"].used == pytest.approx(all_of_it * 2 * 16 / 12)


def test_a_raw_store_without_imaging_time_is_refused():
    with pytest.raises(InputError, match="raw_store_mib is set without imaging_s_per_orbit"):
        Budgets(raw_store_mib=1.0)


def test_an_emulated_devices_memory_and_throughput_are_wanted_and_not_judged():
    emulated = rows(replace(RUN, timed_on="emulated"))
    for name in ("memory", "throughput"):
        assert not emulated[name].held and "emulated" in emulated[name].not_judged
        assert emulated[name].basis == "measured on device"


def test_memory_and_throughput_are_what_was_measured_and_nothing_less():
    found = rows()
    assert (found["memory"].used, found["throughput"].available) == (300.0, 8.0)
    assert "not the ground" in found["memory"].how and "gate, codec and packets" in found["throughput"].how


def test_power_and_energy_can_be_overdrawn():
    tight = replace(PHISAT2, budgets=replace(PHISAT2.budgets, power_w=1.7, energy_per_orbit_j=10.0))
    assert not rows(mission=tight)["power"].held
    assert not rows(mission=tight)["energy of an orbit"].held


def test_exactly_the_budget_is_held():
    assert rows(replace(RUN, peak_memory_mib=512.0))["memory"].held


@pytest.mark.parametrize("unknown", [None, math.nan, math.inf])
def test_what_is_unknown_is_not_held(unknown):
    assert not rows(replace(RUN, peak_memory_mib=unknown))["memory"].held
    if unknown is not math.inf:
        assert not rows(replace(RUN, onboard_s=unknown))["throughput"].held


def test_the_binding_budget_has_the_least_margin():
    assert binding(assess(replace(RUN, onboard_s=28.0), PHISAT2)).name == "throughput"  # 0.121 of 0.143 Mpx/s
    assert binding(assess(RUN, PHISAT2)).name == "power"  # 1.8 of 2.5 W
    assert binding(assess(replace(RUN, peak_memory_mib=None), PHISAT2)).name == "memory"  # unknown binds first
    assert binding([]) is None


def test_a_budget_of_nothing_is_held_by_using_nothing():
    assert Budget("x", 0.0, 0.0, "", "measured", "").held
    assert not Budget("x", 1.0, 0.0, "", "measured", "").held


def test_a_finer_imager_asks_for_more():
    finer = replace(PHISAT2, imager=Imager(4096, 4.75 / 2))
    assert throughput(RUN, finer).imager_mpx_s == pytest.approx(2 * throughput(RUN, PHISAT2).imager_mpx_s)


def test_every_device_of_the_workshop_can_fly_a_mission():
    assert {"myriad2", "myriadx", "x86-vnni", "cortex-a53"} <= set(device_names())


def test_the_assumed_rates_stay_below_the_published_peak():
    """Myriad 2: 12 SHAVE x 8 FP16 MAC x 0.6 GHz; Myriad X: 1 TOPS is half as many multiply-accumulates."""
    assert load_device("myriad2").figure("rate_gmac_per_s").high < 12 * 8 * 0.6
    assert load_device("myriadx").figure("rate_gmac_per_s").high < 500


def test_an_estimate_is_work_over_rate_times_power():
    """120 GMAC at 6 / 3 / 1.5 GMAC/s, 0.3 / 0.6 / 1.5 W; then 1 000 stages of 30 us and 3 GB at 1.5 GB/s on top."""
    found = estimate("cortex-a53", Work(macs=100e9, entropy_macs=20e9), 10**6)
    assert (found.latency_best_s, found.latency_s, found.latency_worst_s) == pytest.approx((20.0, 40.0, 80.0))
    assert (found.energy_best_j, found.energy_j, found.energy_worst_j) == pytest.approx((6.0, 24.0, 120.0))
    assert estimate("cortex-a53", Work(120e9, 1000, 3e9), 10**6).latency_s == pytest.approx(40.0 + 0.03 + 2.0)


def test_stages_that_nobody_counted_are_said():
    assert "stages are not known" in estimate("myriadx", Work(1.0, None), 1).source


def test_unknown_devices_are_refused():
    with pytest.raises(InputError, match="device 'myriad' is unknown; did you mean"):
        load_device("myriad")


@pytest.fixture
def bench_profile(tmp_path):
    """A board that takes 20, 20, 30 and 130 ms for a tile of 256 px and draws 4 W, as `hil profile` writes it."""
    seconds = (0.02, 0.02, 0.03, 0.13)
    machine = ("tcp://board", "aarch64", "Cortex-A76", 4, 1024, "Linux", "3.11", "onnxruntime 1.31", 1)
    board = bench.ProfiledDevice(*machine)
    speed = bench.Performance(
        "measured",
        1,
        bench.Spread.of(list(seconds)),
        {},
        0.5,
        4 * 0.065536 / sum(seconds),
        1.3,
        1.0,
        200.0,
        {},
        seconds,
    )
    power = bench.Energy("measured by SCPI X", 3, 12.0, 1.5, 4.0, 4.4, 0.2, 0.1, 3.0, 2.0, {}, "one clock")
    made = ("2026-01-01T00:00:00Z", "c0de", "edge", 77, 256, board, 4, "ab" * 32)
    bench.save_profile(bench.BenchProfile(bench.FORMAT, *made, speed, power), tmp_path / "profile.json")
    bench.save_profile(bench.BenchProfile(bench.FORMAT, *made, speed, None), tmp_path / "no-meter.json")
    bench.save_profile(bench.BenchProfile(bench.FORMAT, *made, None, None), tmp_path / "emulated.json")
    return tmp_path


def mission_with(device: str, folder: Path):
    text = (SHIPPED / "phisat2.toml").read_text()
    (folder / "m.toml").write_text(text.replace('device = "myriad2"', f'device = "{device}"'))
    return load_mission(folder / "m.toml")


def test_a_profile_of_the_bench_is_a_missions_device(bench_profile):
    """One Mpx takes 0.2 s / (4 x 0.065536 Mpx), at 4 W; its networks' size does not matter."""
    mission = mission_with("profile.json", bench_profile)  # beside the mission
    second_per_mpx = 0.2 / (4 * 0.065536)
    found = energy(replace(RUN, scene_px=10**6, work=Work(macs=1.0)), mission)
    assert found.scene_s == pytest.approx(second_per_mpx) and found.scene_j == pytest.approx(4 * second_per_mpx)
    assert found.scene_s_range == (pytest.approx(0.02 / 0.065536), pytest.approx(0.13 / 0.065536))  # of 4: the longest
    assert "measured: Cortex-A76" in found.source and "4 W (measured: measured by SCPI X)" in found.source
    assert (rows(mission=mission)["power"].used, rows(mission=mission)["power"].held) == (4.0, False)


def test_what_a_profile_without_a_meter_leaves_open_is_not_held(bench_profile):
    found = rows(mission=mission_with("no-meter.json", bench_profile))
    for name in ("power", "energy of an orbit"):
        assert found[name].used is None and not found[name].held
    assert found["processing time of an orbit"].used is not None


@pytest.mark.parametrize(("name", "words"), [("emulated.json", "no performance"), ("nowhere.json", "hil profile")])
def test_a_profile_that_says_nothing_of_time_is_refused(name, words, bench_profile):
    with pytest.raises(InputError, match=words):
        energy(RUN, mission_with(name, bench_profile))
