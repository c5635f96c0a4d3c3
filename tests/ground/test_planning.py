"""The planner: takes, units in order, the satellite's day, the store and the windows, and what is down at the end."""

import json
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_up_scenes import made_up_scenes, table
from typer.testing import CliRunner

from hil.devices.states import States
from payload.errors import InputError
from sim.cli import app, main
from sim.link.contacts import Pass, Share
from sim.link.link_budget import Profile
from sim.link.propagation import points_below, satellite_of
from sim.link.sunlight import sun_elevation_deg
from sim.mission.power import Power
from sim.mission.spec import load_mission, mission_file, mission_from_table
from sim.mission.windows import Window
from sim.planning import coded, figures, mission_plan, onboard, schedule, units
from sim.planning import report as planning_report
from sim.planning.catalogue import Take, as_json, read_takes
from sim.planning.delivered import Delivered, delivered, pooled_psnr_db
from sim.planning.mission_plan import PlanRequest, plan_mission
from sim.planning.report import compose
from sim.toml_tables import read_toml

MISSION = load_mission("phisat2")
START = datetime(2026, 6, 21, tzinfo=UTC)
DAY = 86400.0


def take(at_s=0.0, **fields):
    return Take("demo:0", START + timedelta(seconds=at_s), 1.0, (0.0, 0.0), **fields)


def window(begin_s, seconds, rate_bps, lost=0.0):
    at_s = np.arange(0.5, seconds)
    flat = np.ones(len(at_s))
    profile = Profile(at_s, 1.0, flat, flat, flat, flat, flat.astype(np.int64), ("x",), rate_bps * flat, lost * flat)
    contact = Pass("A", START + timedelta(seconds=begin_s), seconds, 45.0)
    return Window(Share(contact, 0.0, seconds), profile, int(profile.octets[-1]), 1.0, 0.0)


def built(takes, tiles, of, gated=True, order="coarse-first", **more):
    scenes = [0] * len(takes)
    return units.build(takes, units.contents(takes, scenes, tiles, of), scenes, of, gated, order, **more)


# --- takes ------------------------------------------------------------------------------------------------------------


def test_generated_takes_lie_in_daylight_and_do_not_overlap():
    takes = read_takes("demo:200", MISSION, START, 2, None, 0, 3)
    seconds = np.array([(t.sensed_at - START).total_seconds() for t in takes])
    latitude, longitude = points_below(satellite_of(MISSION.orbit), START, seconds)
    assert len(takes) == 200 and {t.scene for t in takes} == {"demo:0", "demo:1", "demo:2"}
    assert (sun_elevation_deg(START, seconds, latitude, longitude) > 9.5).all()
    assert np.diff(seconds).min() >= 20.0 - 1e-6
    assert np.array([t.footprint for t in takes]) == pytest.approx(np.stack([longitude, latitude], axis=1), abs=1e-6)
    assert takes == read_takes("demo:200", MISSION, START, 2, None, 0, 3)


@pytest.mark.parametrize(("count", "wanted_s"), [(1000, 113.0 * 7 * 86400 / 5689.363 / 1000), (100, 20.0)])
def test_generated_takes_are_together_no_more_than_the_mission_images(count, wanted_s):
    """113 s in each of the 106 orbits of a week; few takes are 20 s long."""
    takes = read_takes(f"demo:{count}", MISSION, START, 7, None, 0, 3)
    assert {round(take.take_s, 3) for take in takes} == {round(wanted_s, 3)}
    assert read_takes(f"demo:{count}", MISSION, START, 7, 3.0, 0, 3)[0].take_s == 3.0



def test_a_catalogue_is_read_back_as_it_was_written(tmp_path):
    takes = [take(3600.0), replace(take(7200.0, priority=2, alert=True), take_s=None)]
    path = tmp_path / "takes.json"
    path.write_text(json.dumps(as_json(takes)))
    assert read_takes(str(path), MISSION, START, 1, None, 0, 3) == takes


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"scene": "demo:0"}, r"takes\[0\].sensed_at is no time"),
        ({"scene": "demo:0", "sensed_at": "2026-06-21T01:00:00Z", "prio": 1}, "unknown key 'prio'"),
        ({"scene": "demo:0", "sensed_at": "2026-06-21T01:00:00Z", "take_s": -1}, "take_s is -1"),
        ({"scene": "demo:0", "sensed_at": "2026-06-21T01:00:00Z", "footprint": [0, 95]}, "footprint is"),
        ({"scene": "demo:0", "sensed_at": "2031-06-21T01:00:00Z"}, "no take between"),
        (3, r"takes\[0\] is '3', wanted a table"),
    ],
)
def test_a_catalogue_that_cannot_be_used_is_named(tmp_path, row, message):
    path = tmp_path / "takes.json"
    path.write_text(json.dumps({"schema": "nadir-catalogue/1", "takes": [row]}))
    with pytest.raises(InputError, match=message):
        read_takes(str(path), MISSION, START, 1, None, 0, 3)


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("demo:0", "wanted demo:N"),
        ("demo:many", "wanted demo:N"),
        ("demo:20000", "do not fit into .* h of daylight"),
        ("nowhere.json", "cannot be read"),
    ],
)
def test_scenes_that_cannot_be_are_named(where, message):
    with pytest.raises(InputError, match=message):
        read_takes(where, MISSION, START, 0.1, None, 0, 3)


# --- units ------------------------------------------------------------------------------------------------------------


@given(st.integers(1, 5000), st.integers(1, 9), st.integers(1, 4))
def test_a_takes_tiles_are_spread_evenly_over_the_coded_ones(count, kinds, takes):
    of = table([[10, 20]] * kinds)
    for content in units.contents([take()] * takes, [0] * takes, [count] * takes, of):
        assert content.copies.sum() == count
        assert content.copies.max() - content.copies.min() <= 1


def test_headers_and_alerts_go_first_then_thumbnails_regions_and_coarse_layers_of_everything():
    of = table([[10, 20], [30, 40], [10, 20]], withheld=[2], records=7.0)
    takes = [take(), take(priority=1), take(alert=True)]
    found = built(takes, [3, 3, 3], of, audit_count=1)
    assert (np.diff(found.kind) >= 0).all()
    alerts = [(t, k) for t, k, kind in zip(found.take, found.tile, found.kind, strict=True) if kind == units.ALERT]
    assert sorted(alerts) == [(0, -1), (1, -1), (2, -1), (2, 0), (2, 1)]
    assert set(found.take[found.kind == units.REGION]) == {1}
    assert list(found.tile[found.kind == units.THUMBNAIL]) == [2, 2, 2]
    assert 2 not in found.tile[found.kind > units.THUMBNAIL]  # withheld


def test_of_fine_layers_the_cheapest_clear_area_goes_first_and_a_tile_goes_whole():
    of = table([[10, 200, 300], [10, 20, 30], [10, 20, 30]], clear_px=[60_000, 60_000, 100], errors=(0.05, 0.02, 0.01))
    found = built([take()], [3], of)
    fine = found.kind == units.FINE
    assert list(zip(found.tile[fine], found.layer[fine], strict=True)) == [
        (1, 1), (1, 2), (0, 1), (0, 2), (2, 1), (2, 2),
    ]  # fmt: skip


def test_by_least_error_the_steepest_fall_of_error_goes_first_whatever_layer_it_is_of():
    of = table([[10, 20, 40], [100, 200, 400]], errors=(0.3, 0.02, 0.01))
    found = built([take()], [2], of, order="least-error")
    places = list(zip(found.tile, found.layer, strict=True))
    assert places == [(0, 0), (0, 1), (1, 0), (1, 1), (0, 2), (1, 2)]  # one's second before the other's first
    assert list(found.kind) == [units.COARSE, units.FINE] * 2 + [units.FINE] * 2


def test_whole_tiles_go_one_after_the_other_those_first_that_bring_most_clear_area_per_octet():
    rows, clear_px = [[10, 200, 300], [10, 20, 30], [10, 20, 30], [1, 1, 1]], [60_000, 60_000, 100, 60_000]
    of = table(rows, [3], clear_px, (0.05, 0.02, 0.01))
    found = built([take()], [4], of, order="whole-tiles")
    assert list(zip(found.tile, found.layer, strict=True)) == [(k, n) for k in (1, 0, 2) for n in range(3)]
    cut = built([take()], [4], replace(of, keep=np.array([1, 3, 3, 3])), order="whole-tiles")
    places = list(zip(cut.tile, cut.layer, strict=True))  # the gate lets one layer of the first through: it is whole
    assert places == [(0, 0), *((k, n) for k in (1, 2) for n in range(3))]


def test_where_a_pass_is_short_whole_tiles_bring_more_area_at_quality_and_least_error_leaves_less_error():
    of = table([[10, 90], [10, 90], [10, 90], [10, 90]], errors=(0.05, 0.01))
    found = {}
    for order in ("coarse-first", "whole-tiles", "least-error"):
        offered = built([take()], [4], of, order=order)
        outcome = schedule.run(offered, np.zeros(1), [window(60, 20, 80)], [60.0], np.inf, 1000, 0)  # 200 octets
        down = delivered(offered, outcome, of, 1.0)
        content = units.contents([take()], [0], [4], of)
        found[order] = down.at_quality(0.02), pooled_psnr_db(offered, outcome, of, content, True)
    assert found["whole-tiles"][0] > found["coarse-first"][0] == found["least-error"][0]
    assert found["least-error"][1] > found["whole-tiles"][1]
    assert found["least-error"][1] == pytest.approx(10 * np.log10(1e8 / ((3 * 2500 + 100) / 4)))


def test_a_mission_says_in_which_order_its_passes_are_filled(made_up_codec):
    asked = replace(slow_link(), pass_order="whole-tiles")
    plan = plan_mission(PlanRequest(asked, "demo:40", 1, ("Svalbard",), take_s=20.0))
    assert [run.strategy.order for run in plan.runs][:3] == ["whole-tiles", "coarse-first", "least-error"]
    assert plan.run("no_gate").strategy.order == "whole-tiles"
    report = compose(plan)
    assert report["pass_order"] == "whole-tiles" and report["strategies"][0]["psnr_10k_db_of_all_imaged"] > 0
    told = read_toml(mission_file("phisat2"))
    assert mission_from_table(told | {"pass_order": "least-error"}).pass_order == "least-error"
    with pytest.raises(InputError, match="pass_order"):
        mission_from_table(told | {"pass_order": "fine-first"})


@pytest.mark.parametrize("order", ["coarse-first", "whole-tiles", "least-error", "fifo", "random"])
def test_every_order_holds_the_same_units_and_coarse_layers_come_before_finer_ones(order):
    of = table([[10, 20], [30, 5], [7, 8]])
    found = built([take(), take(10.0)], [5, 7], of, order=order)
    assert found.total_octets == built([take(), take(10.0)], [5, 7], of).total_octets
    place = {(t, k, n): at for at, (t, k, n) in enumerate(zip(found.take, found.tile, found.layer, strict=True))}
    assert all(place[t, k, 0] < place[t, k, 1] for t, k, n in place if n == 0)


# --- on board ---------------------------------------------------------------------------------------------------------


def aboard(coding_s, sensed_s=(0.0, 60.0), power=None, states=None, store=np.inf, raw=100.0, lit=True, days=0.05):
    steps = len(np.arange(0.0, days * DAY, onboard.STEP_S))
    count = len(sensed_s)
    work = onboard.Work(np.array(sensed_s), np.full(count, 10.0), np.full(count, coding_s), np.full(count, raw))
    supply = onboard.Supply(power, states, 2.0, store)
    return onboard.run(work, supply, days, np.full(steps, lit), np.zeros(steps))


def test_takes_are_coded_one_after_the_other_after_the_boot():
    found = aboard(100.0, states=States(idle_w=0.5, boot_s=20.0, boot_w=1.0))
    assert found.coded_s.tolist() == [120.0, 220.0]  # 20 s of boot, then 100 s each
    assert found.joules["payload busy"] == pytest.approx(400.0)
    assert found.joules["payload boot"] == pytest.approx(20.0)


def test_a_take_that_the_raw_store_cannot_hold_is_lost_and_named():
    found = aboard(100.0, store=150.0)
    assert found.lost == {1: onboard.RAW_STORE}
    assert np.isinf(found.coded_s[1])


def test_a_battery_in_the_dark_by_hand():
    """10 W of platform for 0.05 days is 43 200 J of 360 000: 88 % are left; the floor at 80 % is not reached."""
    power = Power(solar_w=30.0, battery_wh=100.0, platform_w=10.0, deepest_discharge=0.2)
    found = aboard(0.0, power=power, lit=False)
    assert found.battery_share[-1] == pytest.approx(1 - 43_200 / 360_000, abs=0.001)
    assert found.lost == {}


def test_at_the_batterys_floor_nothing_is_imaged_and_nothing_coded():
    power = Power(solar_w=0.0, battery_wh=1.0, platform_w=10.0, deepest_discharge=0.1)  # 36 s of light
    found = aboard(100.0, sensed_s=(0.0, 600.0), power=power, lit=False)
    assert found.lost == {1: onboard.ENERGY}
    assert np.isinf(found.coded_s[0]) and found.waited_s > 0


def test_windows_share_out_the_seconds_of_the_steps():
    spent = onboard.sending_seconds([10.0, 100.0], [50.0, 130.0], 0.01)
    assert spent[:5].tolist() == [20.0, 20.0, 0.0, 20.0, 10.0]
    assert spent.sum() == 70.0


# --- store and windows ------------------------------------------------------------------------------------------------


def run(offered, windows, store=np.inf, coded=0.0, seed=0):
    ready = np.full(1 + int(offered.take.max()), coded)
    begins = [(w.contact.rise_at - START).total_seconds() for w in windows]
    return schedule.run(offered, ready, windows, begins, store, 1109, seed)


@given(st.lists(st.integers(1, 60), min_size=1, max_size=6), st.integers(1, 40), st.floats(0.0, 0.3))
def test_no_window_carries_more_than_it_can_and_nothing_is_sent_twice_without_need(seconds, tiles, lost):
    of = table([[100, 250], [70, 20]])
    offered = built([take()], [tiles], of)
    rows = [window(1000.0 * n, s, 8000.0, lost) for n, s in enumerate(seconds)]
    found = run(offered, rows)
    assert all(row.sent_octets <= row.capacity_octets for row in found.passes)
    assert (found.arrived + found.waiting + found.dropped == offered.copies).all()
    sent = sum(row.sent_octets - row.lost_octets for row in found.passes)
    assert sent == pytest.approx((found.arrived * offered.octets).sum())


def test_what_was_lost_goes_again_in_the_next_pass():
    offered = built([take()], [400], table([[1000, 2000]]))
    found = run(offered, [window(0.0, 60, 8e6, 0.2), *(window(1000.0 * n, 60, 8e6) for n in (1, 2))])
    assert found.passes[0].lost_octets > 0 and found.lost_units > 0
    assert (found.arrived == offered.copies).all()
    assert found.passes[1].sent_octets == found.passes[0].lost_octets


def test_units_go_in_their_order_and_arrive_when_their_octets_are_out():
    offered = built([take()], [1], table([[1000, 2000]]))
    found = run(offered, [window(100.0, 60, 800.0)])  # 100 octets a second
    assert found.arrived.tolist() == [1, 1]
    assert found.arrived_s == pytest.approx([100 + 10, 100 + 30])


def test_a_full_store_drops_the_units_of_least_value():
    offered = built([take()], [10], table([[100, 1000]]))
    found = run(offered, [window(0.0, 60, 8.0)], store=3500.0)
    assert found.dropped.tolist() == [0, 8]  # ten coarse layers and two fine ones are 3 000 octets
    assert found.passes[0].stored_octets == 3000.0


def test_a_take_that_is_coded_after_a_window_begins_waits_for_the_next():
    offered = built([take()], [1], table([[100, 100]]))
    found = run(offered, [window(0.0, 60, 8e6), window(5000.0, 60, 8e6)], coded=10.0)
    assert [row.sent_octets for row in found.passes] == [0.0, 200.0]


# --- what is down -----------------------------------------------------------------------------------------------------


def test_a_layer_without_the_coarser_ones_is_worth_nothing():
    of = table([[100, 1000]])
    offered = built([take()], [4], of)
    outcome = run(offered, [window(0.0, 60, 8.0)])
    outcome.arrived = np.array([3, 4])
    found = delivered(offered, outcome, of, px_km2=1e-4)
    assert found.total_km2 == pytest.approx(3 * 6.0)
    assert found.whole.all()


def test_the_area_at_a_quality_is_the_largest_whose_mean_error_holds():
    found = Delivered(np.zeros(3, int), np.array([10.0, 10.0, 10.0]), np.array([0.01, 0.06, 0.03]), np.ones(3, bool))
    assert found.at_quality(0.02) == 20.0  # 0.01 and 0.03; with 0.06 the mean would be 0.033
    assert found.each_at_quality(0.02) == 10.0
    assert found.at_quality(0.001) == 0.0


# --- the whole --------------------------------------------------------------------------------------------------------


@pytest.fixture
def made_up_codec(monkeypatch):
    monkeypatch.setattr(mission_plan, "code_scenes", made_up_scenes)


def slow_link(rate_bps=2e6):
    return replace(MISSION, link=replace(MISSION.link, rate_bps=rate_bps))


def test_a_thousand_takes_over_a_week_and_every_km2_is_accounted_for(made_up_codec):
    plan = plan_mission(PlanRequest(slow_link(), "demo:1000", 7, ("Svalbard",), take_s=20.0))
    report = compose(plan)
    assert sum(row["km2"] for row in report["fate"]) == pytest.approx(report["imaged"]["km2"], rel=1e-9)
    assert sum(row["clear_km2"] for row in report["fate"]) == pytest.approx(report["imaged"]["clear_km2"], rel=1e-9)
    assert report["times_lossless"]["nadir"] > report["times_lossless"]["jpeg2000"] > 1
    assert report["binding"]["constraint"] == "downlink"
    assert sum(row["clear_km2"] for row in report["passes"]) == pytest.approx(report["strategies"][0]["clear_km2"])
    first, p95 = report["strategies"][0]["first_picture_s"]
    assert 0 < first < p95 < 7 * DAY
    assert all(0 < row["usable_s"] < 900 for row in report["passes"])  # no pass of a low orbit is longer


def test_of_nothing_there_is_no_share():
    report = {
        "strategies": [{"clear_km2": 0.0}],
        "a_tenth_more_km2": {"energy": 3.0},
        "imaged": {"clear_km2": 0.0},
        "fate": [{"cause": "down", "km2": 2.0, "clear_km2": 0.0}],
    }
    assert figures.lever_rows(report) == [("energy", "3", "–")]
    assert figures.fate_rows(report) == [("down", "2", "0", "–")]


def test_the_first_guess_looks_at_tiles_all_over_what_is_sent(monkeypatch):
    tiles = [SimpleNamespace(at=at, withheld=at % 2 == 0) for at in range(8 * coded.PROBED)]
    seen = []
    monkeypatch.setattr(coded, "_first_guess", lambda samples, *_: seen.append([s.at for s in samples]) or 10.0)
    monkeypatch.setattr(coded, "_coded", lambda *_: None)
    monkeypatch.setattr(coded, "_mean", lambda _: 0.0)
    for some in (tiles, [tile for tile in tiles if tile.withheld]):
        coded._at_quality(some, SimpleNamespace(policy=MISSION.policy), None, 0.01, lambda *_: None)
    sent, withheld = seen
    assert len(sent) >= coded.PROBED / 2 and sent[-1] >= 6 * coded.PROBED and all(at % 2 for at in sent)
    assert len(withheld) == coded.PROBED


def test_the_first_guess_follows_the_power_of_the_error(monkeypatch):
    """Twice the error at four times the step is a power of 1/2: 1.97 times the error is 1.97^2 times the step."""
    errors = iter([0.01, 0.02])
    monkeypatch.setattr(coded, "_coded", lambda *_, **__: None)
    monkeypatch.setattr(coded, "_mean", lambda _: next(errors))
    found = coded._first_guess([], SimpleNamespace(policy=MISSION.policy), None, 0.02)
    assert found == pytest.approx(100 * 1.97**2)


def test_a_table_holds_octets_ndvi_error_and_squared_error_of_every_layer():
    def sample(scene, keep):
        tile = SimpleNamespace(dn=np.array([[[1, 3]]] * 4, np.uint16), valid=np.ones((1, 2), bool))
        return coded.Sample(scene, None, tile, np.array([[True, False]]), scene == 1, keep)

    rows = [[(10, 4.0, 0.5, 7.0), (20, 2.0, 0.25, 3.0)], [(5, 1.0, 0.75, 9.0)]]
    made = coded._table([sample(0, None), sample(1, 1)], rows)
    assert made.octets.tolist() == [[10, 20], [5, 0]] and made.value.tolist() == [[4, 2], [1, 0]]
    assert made.ndvi_mae[0].tolist() == [0.5, 0.25] and made.ndvi_mae[1, 0] == 0.75
    assert made.mse[0].tolist() == [7, 3] and made.mse[1, 0] == 9 and np.isnan(made.mse[1, 1])
    assert made.spread.tolist() == [1, 1] and made.keep.tolist() == [2, 1]  # variance of 1 and 3
    assert made.clear_px.tolist() == [1, 1] and made.valid_px.tolist() == [2, 2]
    assert made.withheld.tolist() == [False, True] and len(made.record_octets) == 2


def test_errors_removed_are_those_of_clear_pixels():
    """Errors of the table: 1e5 before anything, then 1e6 x 0.05^2 = 2500 and 1e6 x 0.01^2 = 100, of 65 536 pixels."""
    found = units.errors_removed(table([(10, 20)], clear_px=[2.0]), gated=True)
    assert found[0].tolist() == pytest.approx([(1e5 - 2500) * 2 / 10, (2500 - 100) * 2 / 20])
    assert found[1].tolist() == [0, 0]  # headers


def test_a_copy_whose_first_layer_was_dropped_is_dropped_and_one_that_lacks_a_finer_layer_is_down_in_part():
    copies, arrived, dropped = (np.array(x) for x in ([5, 5], [4, 3], [1, 2]))
    offered = SimpleNamespace(
        tile=np.array([0, 0]), kind=np.array([units.RECORD, units.RECORD]), take=np.array([0, 0]),
        layer=np.array([0, 1]), copies=copies,
    )  # fmt: skip
    run = SimpleNamespace(
        offered=offered, contents=[None], outcome=SimpleNamespace(dropped=dropped),
        strategy=SimpleNamespace(table=SimpleNamespace(scene=[0], layers=2)),
    )  # fmt: skip
    assert [float(part[0, 0]) for part in planning_report._copies_with(run, arrived)] == [3, 1, 1]


def test_where_everything_comes_down_nothing_binds(made_up_codec):
    report = compose(plan_mission(PlanRequest(slow_link(10e6), "demo:20", 2)))
    waiting = sum(row["clear_km2"] for row in report["fate"] if "still on board" in row["cause"])
    assert waiting < 0.2 * report["imaged"]["clear_km2"]
    assert report["a_tenth_more_km2"]["energy"] == 0


def test_the_same_request_gives_the_same_report(made_up_codec):
    request = PlanRequest(slow_link(), "demo:50", 1, seed=3)
    first, second = (compose(plan_mission(request)) for _ in range(2))
    assert "NaN" not in json.dumps(first)
    assert first | {"measured_on_host": 0} == second | {"measured_on_host": 0}


def test_the_command_flies_and_writes_its_folder(made_up_codec, tmp_path):
    out = tmp_path / "out"
    words = ["mission", "--mission", "phisat2", "--scenes", "demo:30", "--days", "1", "--out", str(out)]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    assert sorted(p.name for p in out.iterdir()) == ["map.svg", "mission.html", "mission.json", "timeline.svg"]
    assert "binding:" in done.stdout and "x lossless" in done.stdout
    again = read_takes(_catalogue_of(out, tmp_path), MISSION, START, 1, None, 0, 3)
    assert len(again) == 30
    page = (out / "mission.html").read_text()
    assert page.count('class="chart"') == 9 and "NaN" not in page and "nan" not in page


def _catalogue_of(out, folder):
    path = folder / "again.json"
    path.write_text(json.dumps(json.loads((out / "mission.json").read_text())["catalogue"]))
    return str(path)


def test_mission_alone_still_shows_and_checks():
    assert "show" in CliRunner().invoke(app, ["mission"]).stdout
    assert "altitude_km" in CliRunner().invoke(app, ["mission", "show", "phisat2"]).stdout


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--scenes", "demo:3", "--days", "0"], "days is 0"),
        (["--scenes", "demo:3", "--ndvi-mae", "0"], "the NDVI error is 0"),
        (["--scenes", "demo:3", "--sample", "0"], "--sample is 0"),
        (["--scenes", "demo:3", "--station", "Redo"], "did you mean 'Redu'"),
        (["--scenes", "nowhere"], "nowhere: cannot be read"),
    ],
)
def test_bad_input_is_one_line_and_exit_2(words, message, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["sim", "mission", *words])
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 2
    printed = capsys.readouterr()
    assert message in printed.err and printed.err.count("\n") == 1


@pytest.mark.slow
def test_real_scenes_are_coded_at_the_quality_asked_for_and_lossless_is_lossless(monkeypatch):
    monkeypatch.setattr("sim.planning.coded.DEMO_PX", 512)
    report = compose(plan_mission(PlanRequest(slow_link(), "demo:40", 1, ("Svalbard",), sample=1, ndvi_mae=0.025)))
    rows = {row["key"]: row for row in report["strategies"]}
    assert rows["random"]["ndvi_mae_of_all_down"] <= 0.025
    assert rows["lossless"]["ndvi_mae_of_all_down"] == 0.0
    assert rows["jpeg2000"]["ndvi_mae_of_all_down"] <= 0.025
    sizes = report["coded"]
    assert sizes["octets_per_tile"] < sizes["octets_per_tile_jpeg2000"] < sizes["octets_per_tile_lossless"]
    assert sizes["tiles"] == 4
