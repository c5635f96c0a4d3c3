"""The pass plan and its command: what fits in which window, and exit codes that tell the truth."""

import json
import sys
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest
from typer.testing import CliRunner

from payload.errors import InputError
from sim.cli import app, main
from sim.mission.passes import as_json, as_text, plan_passes
from sim.mission.spec import Mission, load_mission

MISSION = load_mission("phisat2")
CONSTANT = replace(MISSION, radio=None)  # one rate, whatever the link


def test_a_volume_larger_than_one_pass_resumes_in_the_next():
    plan = plan_passes(CONSTANT, ["Svalbard"], days=1, volume_octets=600_000_000)
    first, second = plan.windows[:2]
    rate_bps = MISSION.link.packet_rate_bps
    assert first.sent_octets == first.window.capacity_octets == int(first.window.usable_s * rate_bps) // 8
    assert second.sent_octets == 600_000_000 - first.sent_octets
    assert plan.waiting_octets == 0
    on_air_s = (plan.down_at - second.window.contact.rise_at).total_seconds()
    assert on_air_s == pytest.approx(8 * second.sent_octets / rate_bps, abs=1e-3)


def test_a_plan_that_is_too_short_says_what_waits():
    plan = plan_passes(MISSION, ["Redu"], days=0.5, volume_octets=10**12)
    assert plan.down_at is None
    assert plan.waiting_octets == 10**12 - sum(sent.window.capacity_octets for sent in plan.windows)
    assert "octets still wait" in as_text(plan)


def test_json_and_text_tell_the_same():
    plan = plan_passes(MISSION, days=1, volume_octets=1000)
    table = as_json(plan)
    assert table["schema"] == "nadir-passes/2"
    assert len(table["passes"]) == len(plan.windows) > 20
    assert [row["station"] for row in table["stations"]] == ["Svalbard", "Kiruna", "Redu", "Matera"]
    assert as_text(plan).count("2026-06-21 ") == len(plan.windows) + 1  # and when the volume is down
    assert table["passes"] == sorted(table["passes"], key=lambda row: row["rise_at"])


def test_the_same_plan_for_the_same_arguments():
    start = datetime(2027, 3, 1, tzinfo=UTC)
    assert as_json(plan_passes(MISSION, start=start)) == as_json(plan_passes(MISSION, start=start))


def test_a_station_without_passes_still_has_its_row():
    plan = plan_passes(MISSION, ["Matera"], days=0.01)
    assert plan.windows == ()
    assert as_json(plan)["stations"] == [{"station": "Matera", "passes_per_day": 0.0, "mean_duration_s": 0.0}]


@pytest.mark.parametrize(
    ("days", "octets", "message"), [(0, 0, "days is 0"), (400, 0, "days is 400"), (1, -1, "-1 octets")]
)
def test_plans_that_cannot_be_are_refused(days, octets, message):
    with pytest.raises(InputError, match=message):
        plan_passes(MISSION, days=days, volume_octets=octets)


def test_the_command_prints_json_alone_on_stdout():
    result = CliRunner().invoke(app, ["passes", "--station", "redu", "--days", "2", "--json"])
    assert result.exit_code == 0
    assert json.loads(result.stdout)["stations"][0]["station"] == "Redu"


def test_the_exit_code_is_1_when_a_volume_does_not_get_down():
    arguments = ["passes", "--station", "redu", "--octets"]
    assert CliRunner().invoke(app, [*arguments, "1000"]).exit_code == 0
    assert CliRunner().invoke(app, [*arguments, str(10**12)]).exit_code == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--mission", "nowhere"], "mission 'nowhere': no such file"),
        (["--station", "Redo"], "did you mean 'Redu'"),
        (["--start", "soon"], "--start is 'soon', wanted a time"),
        (["--days", "0"], "days is 0"),
    ],
)
def test_bad_input_is_one_line_and_exit_2(arguments, message, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["sim", "passes", *arguments])
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert message in printed.err
    assert printed.err.count("\n") == 1


def tle(epoch: str = "24001.50000000") -> tuple[str, str]:
    """The elements of a satellite like the space station's, true at `epoch` (two digits of the year, day)."""
    lines = (
        f"1 25544U 98067A   {epoch}  .00016717  00000-0  10270-3 0  900",
        "2 25544  51.6400 200.0000 0005000  80.0000 280.0000 15.50000000000000",
    )
    return tuple(  # type: ignore[return-value]
        line + str(sum(int(c) if c.isdigit() else c == "-" for c in line) % 10)
        for line in (text[:68].ljust(68, "0") for text in lines)
    )


def mission_with(tle_1: str, tle_2: str) -> Mission:
    mission = load_mission("phisat2")
    return replace(mission, orbit=replace(mission.orbit, tle_1=tle_1, tle_2=tle_2))


def test_elements_that_sgp4_cannot_carry_so_far_are_refused() -> None:
    with pytest.raises(
        InputError, match=r"SGP4 cannot carry the elements of 2024-01-01 to 2034-06-21.*error \d: .*newer"
    ):
        plan_passes(mission_with(*tle()), start=datetime(2034, 6, 21, tzinfo=UTC))


def test_elements_that_decay_during_the_plan_are_refused_too() -> None:
    start = datetime(2024, 1, 2, tzinfo=UTC)
    mission = mission_with(*tle())
    good = plan_passes(mission, start=start, days=1)
    assert good.windows and good.notes == ()
    with pytest.raises(InputError, match="SGP4 cannot carry the elements of 2024-01-01 to 2033-08-31"):
        plan_passes(mission, start=datetime(2033, 8, 31, tzinfo=UTC), days=2)


def test_old_elements_are_named() -> None:
    plan = plan_passes(mission_with(*tle()), start=datetime(2024, 2, 20, 12, tzinfo=UTC))
    assert "starts 50 days after the elements of 2024-01-01" in plan.notes[0]
    assert "note: the plan starts 50 days" in as_text(plan) and as_json(plan)["notes"] == list(plan.notes)
    early = plan_passes(mission_with(*tle()), start=datetime(2023, 12, 2, 12, tzinfo=UTC))
    assert "30 days before" in early.notes[0]


def test_a_day_may_be_written_as_a_page_with_its_drawings(tmp_path):
    out = tmp_path / "plan"
    assert CliRunner().invoke(app, ["passes", "--station", "redu", "--out", str(out)]).exit_code == 0
    assert sorted(p.name for p in out.iterdir()) == ["map.svg", "passes.html", "passes.json", "timeline.svg"]
    page = (out / "passes.html").read_text()
    assert page.count("<svg") == 7 and "<script" not in page and "http" not in page.replace("http-equiv", "")
    for name in ("map.svg", "timeline.svg"):
        ElementTree.parse(out / name)
    again = CliRunner().invoke(app, ["passes", "--station", "redu", "--out", str(out), "--overwrite"])
    assert again.exit_code == 0


def test_the_rate_along_a_window_sums_to_what_it_carries():
    for sent in plan_passes(MISSION, ["Kiruna"], days=1).windows:
        row = sent.window.profile
        assert sent.window.capacity_octets == pytest.approx(row.rate_bps.sum() * row.step_s / 8, abs=1)
        assert sent.window.sent_s(np.array([0.0, sent.window.capacity_octets])) == pytest.approx(
            [sent.window.share.begin_s, sent.window.share.end_s], abs=0.1
        )
