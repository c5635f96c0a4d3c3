"""`sim sweep` and `sim compare`: settings and runs beside each other."""

import csv
import json

import pytest

from payload.errors import InputError
from sim.campaign.sweep import budgets, numbers, sweep, write_csv
from sim.downlink import Request
from sim.progress import silent
from sim.report.side_by_side import as_text, compare, read_reports, write_page


@pytest.fixture
def swept(write_scene, write_mission, ground_of, toy_bundle_with_gate, toy_engine, monkeypatch, tmp_path):
    """Two steps, with a loss and without: four runs, and their rows."""
    monkeypatch.setattr("sim.onboard.engine_choice.open_engine", lambda name: toy_engine)
    scene, mission = write_scene(tmp_path / "a.tif", ground_of(2, 2)), write_mission(tmp_path / "m.toml")
    request = Request(str(scene), tmp_path / "out", str(mission), str(toy_bundle_with_gate))
    return tmp_path / "out", sweep(request, [100.0, 400.0], [None], [0.0, 1.0], silent)


def test_a_sweep_has_a_row_for_every_combination_and_runs_tell_apart(swept) -> None:
    out, rows = swept
    assert [(row["step_dn"], row["packet_loss"]) for row in rows] == [(100, 0), (100, 1), (400, 0), (400, 1)]
    assert rows[0]["octets"] > rows[2]["octets"] and rows[0]["psnr_10k_db"] > rows[2]["psnr_10k_db"]
    assert (rows[0]["lost"], rows[1]["lost"]) == (0, 4) and rows[1]["psnr_10k_db"] is None
    write_csv(rows, out / "sweep.csv")
    with (out / "sweep.csv").open() as stream:
        read = list(csv.DictReader(stream))
    assert [row["folder"] for row in read] == ["run000", "run001", "run002", "run003"]

    table = compare(read_reports([out / "run000", out / "run002" / "report.json"]))
    figures = {row["key"]: row for row in table["figures"]}
    psnr = figures["psnr_10k_db"]
    assert psnr["values"] == pytest.approx([rows[0]["psnr_10k_db"], rows[2]["psnr_10k_db"]])
    assert psnr["differences"] == pytest.approx([0, rows[2]["psnr_10k_db"] - rows[0]["psnr_10k_db"]])
    assert figures["lost_fraction"]["values"] == [0, 0] and "run 2" in as_text(table)
    write_page(table, out / "side.html")
    assert (out / "side.html").read_text().count("data:image/png") == 2


def test_what_is_no_report_is_refused(tmp_path) -> None:
    (tmp_path / "report.json").write_text(json.dumps({"schema": "other"}))
    for wrong, told in ((tmp_path, "no report of sim downlink"), (tmp_path / "none.json", "cannot be read")):
        with pytest.raises(InputError, match=told):
            read_reports([wrong])


def test_values_are_numbers_with_commas() -> None:
    assert numbers("100,2e2", "--step") == [100.0, 200.0] and numbers(None, "--step") == [None]
    with pytest.raises(InputError, match="--step is '1,x'"):
        numbers("1,x", "--step")


@pytest.mark.parametrize("rate", ["0.5", "1000,0", "-3", "nan"])
def test_a_rate_is_octets_of_a_scene(rate: str) -> None:
    assert budgets("100,2e5") == [100.0, 2e5] and budgets(None) == [None]
    with pytest.raises(InputError, match=f"--rate is '{rate}', wanted octets"):
        budgets(rate)
