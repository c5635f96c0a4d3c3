"""Geoservices: figures agree with sums made another way, states with those by hand, and nothing is left out mute."""

import email
import hashlib
import json
import re
import shutil
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from email import policy
from pathlib import Path
from typing import Any

import made_up_service as made_up
import numpy as np
import pytest
import rasterio
from hypothesis import given
from hypothesis import strategies as st
from rasterio.features import geometry_mask
from rasterio.warp import transform_geom

from payload.apps.formula import Quotient, parse_any
from payload.errors import InputError
from sim.cli import main
from sim.geoservice import pixels
from sim.geoservice.figures import combined, groups_of, last_state, period_of, turned
from sim.geoservice.produce import GeoserviceRequest, counted, geoservice
from sim.geoservice.runs import find_runs
from sim.geoservice.service import Indicator, load_service
from sim.geoservice.sites import read_sites
from sim.progress import silent


@pytest.fixture(scope="module")
def year(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A service and twelve runs, which no test writes to."""
    folder = tmp_path_factory.mktemp("year")
    made_up.write_service(folder)
    for month, flood in enumerate(made_up.FLOOD, 1):
        made_up.write_run(folder / "runs" / f"2026-{month:02d}", month, flood, cloud=month == 9)
    return folder


@pytest.fixture
def work(year: Path, tmp_path: Path) -> Path:
    """The same service to work with; its runs are the year's."""
    for name in ("service.toml", "sites.geojson"):
        shutil.copy(year / name, tmp_path / name)
    return tmp_path


def produced(work: Path, year: Path, out: str = "out", text: str | None = None) -> dict[str, Any]:
    if text is not None:
        (work / "service.toml").write_text(text)
    return geoservice(GeoserviceRequest(work / "service.toml", year / "runs", work / out), silent)


def of(record: dict[str, Any], indicator: str, site: str = "Reservoir") -> list[dict[str, Any]]:
    return [one for one in record["figures"] if (one["indicator"], one["site"]) == (indicator, site)]


# --- figures ---------------------------------------------------------------------------------------------------------


def by_numpy(run: Path, site: str) -> tuple[float, float]:
    """Water's share and the mean of nir / red over a site, with nothing of the room's own."""
    features = json.loads((run.parents[1] / "sites.geojson").read_text())["features"]
    geometry = next(one["geometry"] for one in features if one["properties"]["name"] == site)
    with rasterio.open(run / "reconstruction.tif") as file:
        there = transform_geom("EPSG:4326", file.crs, geometry)
        inside = geometry_mask([there], file.shape, file.transform, invert=True)
        _, green, red, nir = file.read().astype(float)[:, inside]
    wet = ((green - nir) / (green + nir) > -0.1) & (nir < 1500)
    return float(wet.mean()), float((nir / red).mean())


def test_figures_are_what_numpy_finds_in_the_site(work: Path, year: Path) -> None:
    record = produced(work, year)
    for site in made_up.SITES:
        flood, ratio = of(record, "flood", site), of(record, "dry", site)
        for month in (1, 4, 5, 12):
            share, mean = by_numpy(year / "runs" / f"2026-{month:02d}", site)
            assert flood[month - 1]["value"] == pytest.approx(share, abs=1e-12)
            assert ratio[month - 1]["value"] == pytest.approx(mean, rel=1e-12)


def test_narrow_strips_give_the_same_sums(work: Path, year: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = produced(work, year, "whole", YEARLY)
    monkeypatch.setattr(pixels, "STRIP_PX", 100)
    parts = produced(work, year, "parts")
    for one, other in zip(whole["figures"], parts["figures"], strict=True):
        assert one["value"] == (None if other["value"] is None else pytest.approx(other["value"], rel=1e-12))


def test_shares_are_drawn_from_0_to_1_and_a_year_has_dates_where_months_begin(work: Path, year: Path) -> None:
    produced(work, year)
    page = (work / "out" / "dashboard.html").read_text()
    dates = re.findall(r">(\d{4}-\d\d-\d\d)</text>", page)
    assert len(dates) >= 3 and all(date.endswith("-01") for date in dates)
    (forest,) = re.findall(r'<svg[^>]*aria-label="Cloud-free share of Forest over time".*?</svg>', page, re.DOTALL)
    numbers = [float(one) for one in re.findall(r">([\d.]+)</text>", forest)]
    assert (min(numbers), max(numbers)) == (0, 1)


def test_a_clouded_site_is_not_seen_and_keeps_its_state(work: Path, year: Path) -> None:
    record = produced(work, year)
    september = of(record, "flood")[8]
    assert (september["value"], september["state"], september["runs"]) == (None, "not seen", [9])
    assert september["readings"][0]["cause"] == "0 % of the site clear"
    assert of(record, "clear")[8]["value"] == 0


def test_a_site_beyond_the_picture_counts_with_its_whole_area(work: Path, year: Path) -> None:
    half = made_up.site("Edge", None, (0, 142, 128, 242))  # half of it is on the picture of 192 columns
    (work / "sites.geojson").write_text(json.dumps({"type": "FeatureCollection", "features": [half]}))
    assert of(produced(work, year, text=PLAIN), "clear", "Edge")[0]["value"] == pytest.approx(0.5, abs=0.01)


def test_a_hole_and_a_second_polygon_are_of_the_site(work: Path, year: Path) -> None:
    outer, hole, other = (made_up.ring(box) for box in ((0, 0, 60, 60), (10, 10, 50, 50), (70, 0, 80, 60)))
    geometry = {"type": "MultiPolygon", "coordinates": [[outer, hole], [other]]}
    feature = {"type": "Feature", "properties": {"name": "Ring"}, "geometry": geometry}
    (work / "sites.geojson").write_text(json.dumps({"type": "FeatureCollection", "features": [feature]}))
    (site,) = read_sites(work / "sites.geojson")
    places = [made_up.ring((row, col, row, col))[0] for row, col in ((5, 5), (75, 30), (30, 30))]
    assert [site.holds((x, y)) for x, y in places] == [True, True, False]
    run = year / "runs" / "2026-01"
    with rasterio.open(run / "reconstruction.tif") as picture, rasterio.open(run / "cloud.tif") as cloud:
        sums = pixels.sums_of({}, site, picture, cloud)
    assert sums is not None and abs(sums.inside - (3600 - 1600 + 600)) <= 130  # an edge's pixels either way
    assert sums.area_px == pytest.approx(2600, rel=0.001)


@given(st.lists(st.integers(-50, 50), min_size=1, max_size=9))
def test_a_number_formula_is_the_mean_over_pixels_that_have_one(below: list[int]) -> None:
    red = np.array(below, np.int32)
    formula = parse_any("nir / red")
    assert isinstance(formula, Quotient)
    total, over = pixels.over(formula, {"nir": np.full(len(below), 7, np.int32), "red": red})
    assert over == sum(b != 0 for b in below) and total == pytest.approx(sum(7 / b for b in below if b))


YEARLY = made_up.SERVICE.replace('"month"', '"year"')
PLAIN = 'title = "T"\nsites = "sites.geojson"\n[indicators.clear]\nmeasure = "clear"\n'


# --- periods and states ----------------------------------------------------------------------------------------------


def test_periods_are_named_by_hand() -> None:
    at = datetime(2026, 4, 18, 10, 51, 7, tzinfo=UTC)
    named = [period_of(at, period) for period in ("pass", "month", "quarter", "year")]  # type: ignore[arg-type]
    assert named == ["2026-04-18T10:51:07Z", "2026-04", "2026-Q2", "2026"]
    assert period_of(datetime(2026, 12, 31, tzinfo=UTC), "quarter") == "2026-Q4"


def test_a_quarter_is_the_mean_of_its_passes_and_names_them(work: Path, year: Path) -> None:
    record = produced(work, year, text=made_up.SERVICE.replace('"month"', '"quarter"'))
    months = of(produced(work, year, "months", made_up.SERVICE), "flood")
    second = of(record, "flood")[1]
    assert second["period"] == "2026-Q2" and second["runs"] == [4, 5, 6]
    assert second["value"] == pytest.approx(sum(one["value"] for one in months[3:6]) / 3)
    assert of(record, "flood")[2]["runs"] == [7, 8, 9]  # the clouded one is named, and not counted
    assert sorted(record["bulletins"]) == ["2026-Q1", "2026-Q2", "2026-Q3", "2026-Q4"]


def test_combinations_over_passes_by_hand() -> None:
    values = [3.0, 1.0, 2.0]
    hows = {"mean": 2.0, "sum": 6.0, "max": 3.0, "min": 1.0, "last": 2.0}
    assert {how: combined(values, how) for how in hows} == hows  # type: ignore[arg-type]
    assert combined([], "sum") is None


@pytest.mark.parametrize(
    ("when", "clear", "values", "wanted"),
    [
        ("above", 0.4, (0.3, 0.5, 0.45, 0.41, 0.4, 0.45), "-!!!--"),
        ("above", None, (0.5, 0.49, 0.5), "!-!"),
        ("below", 0.6, (0.7, 0.5, 0.55, 0.6, 0.55), "-!!--"),
    ],
)
def test_hysteresis_by_hand(when: Any, clear: float | None, values: tuple[float, ...], wanted: str) -> None:
    indicator, alert, found = Indicator(measure="ndvi", when=when, alert=0.5, clear=clear), False, ""
    for value in values:
        alert = turned(alert, value, indicator)
        found += "!" if alert else "-"
    assert found == wanted


def test_groups_and_their_means(work: Path, year: Path) -> None:
    record = produced(work, year)
    assert groups_of({"a": ["x"], "b": ["x", "y"]}) == {"all sites": ["a", "b"], "x": ["a", "b"], "y": ["b"]}
    rows = [row for row in record["aggregates"] if (row["indicator"], row["period"]) == ("flood", "2026-05")]
    values = {site: of(record, "flood", site)[4]["value"] for site in made_up.SITES}
    assert [row["group"] for row in rows] == ["all sites", "water", "land"]
    assert rows[0]["value"] == pytest.approx(sum(values.values()) / 3) and rows[0]["in_alert"] == 1
    assert rows[1]["value"] == values["Reservoir"] and rows[0]["runs"] == (5,)


# --- the moderator ---------------------------------------------------------------------------------------------------


def sim(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *words: str | Path
) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of a command."""
    monkeypatch.setattr(sys, "argv", ["sim", *map(str, words)])
    with pytest.raises(SystemExit) as stop:
        main()
    said = capsys.readouterr()
    return int(stop.value.code or 0), said.out, said.err


def test_an_accepted_alert_is_confirmed_as_long_as_it_lasts_and_a_rejected_one_is_none(
    work: Path, year: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    flood = of(produced(work, year), "flood")
    states = [one["state"] for one in flood]
    assert states[3:6] == ["unconfirmed"] * 3 and states[6] == "calm" and states[10] == "unconfirmed"
    for figure, word in ((flood[3], "accept"), (flood[10], "reject")):
        code, said, _ = sim(
            capsys, monkeypatch, "moderate", work / "service.toml", figure["name"], word, "--by", "A. Person",
            "--comment", "seen on the ground", "--out", work / "out",
        )  # fmt: skip
        assert code == 0 and figure["name"] in said
    again = produced(work, year, "again")
    after = of(again, "flood")
    assert [one["state"] for one in after[3:7]] == ["alert", "alert", "alert", "calm"]
    assert (after[10]["state"], after[10]["verdict"]) == ("not seen", "reject")
    assert "A. Person" in after[3]["comments"][0] and "accept: seen on the ground" in after[3]["comments"][0]
    assert not after[3]["waits"] and not after[10]["waits"]
    alerts = [mail for mail in again["mails"] if "alert" in mail]
    assert alerts == [f"outbox/alert-{flood[3]['name']}.eml"]  # one mail an alert, and none of what was rejected


def test_a_verdict_says_nothing_of_other_octets(work: Path, year: Path) -> None:
    name = of(produced(work, year), "flood")[3]["name"]
    line = {"figure": name, "verdict": "accept", "by": "A", "at": "2026-06-01T00:00:00Z", "comment": ""}
    (work / "service.verdicts.jsonl").write_text(json.dumps(line) + "\n")
    shutil.copytree(year / "runs", work / "runs")
    with rasterio.open(work / "runs" / "2026-04" / "cloud.tif", "r+") as cloud:
        cloud.write(np.where(np.arange(192) < 20, 1, cloud.read(1)).astype(np.uint8), 1)
    record = geoservice(GeoserviceRequest(work / "service.toml", work / "runs", work / "other"), silent)
    assert of(record, "flood")[3]["state"] == "unconfirmed"
    assert [note for note in record["notes"] if name in note]


def test_without_a_moderator_alerts_stand_at_once(work: Path, year: Path) -> None:
    record = produced(work, year, text=made_up.SERVICE.replace('"month"', '"month"\nmoderated = false'))
    assert [one["state"] for one in of(record, "flood")[3:6]] == ["alert"] * 3
    assert not any(one["waits"] for one in record["figures"])


def test_a_site_has_the_worst_of_its_newest_states(work: Path, year: Path) -> None:
    record = produced(work, year)
    assert {site["name"]: site["state"] for site in record["sites"]} == dict.fromkeys(made_up.SITES, "calm")
    assert last_state([]) == "not seen"


# --- octets on disk --------------------------------------------------------------------------------------------------


def octets_in(folder: Path) -> dict[Path, bytes]:
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_same_runs_give_the_same_octets_and_every_file_s_digest_is_right(work: Path, year: Path) -> None:
    record, _ = produced(work, year, "one"), produced(work, year, "two")
    one, two = (octets_in(work / name) for name in ("one", "two"))
    assert one == two and len(one) == 2 + 12 + 12
    for run in record["runs"]:
        for name, digest in run["files"].items():
            assert hashlib.sha256((year / "runs" / run["name"] / name).read_bytes()).hexdigest() == digest
        lines = "\n".join(f"{digest}  {name}" for name, digest in run["files"].items())
        assert hashlib.sha256(lines.encode()).hexdigest() == run["digest"]


def test_a_mail_is_one_to_another_s_parser_and_bears_the_page(work: Path, year: Path) -> None:
    record = produced(work, year)
    octets = (work / "out" / "outbox" / "bulletin-2026-05.eml").read_bytes()
    mail = email.message_from_bytes(octets, policy=policy.default)
    assert mail["To"] == "Water board <water.board@example.org>" and mail["X-Unsent"] == "1"
    (page,) = mail.iter_attachments()
    sent = page.get_content().replace("\r\n", "\n").strip()
    assert sent == (work / "out" / record["bulletins"]["2026-05"]).read_text().strip()
    assert "Reservoir: Water extent 0.8077" in mail.get_body().get_content()


def test_a_rerun_needs_leave_and_deletes_no_file_of_others(work: Path, year: Path) -> None:
    produced(work, year)
    with pytest.raises(InputError, match="already there"):
        produced(work, year)
    geoservice(GeoserviceRequest(work / "service.toml", year / "runs", work / "out", overwrite=True), silent)
    (work / "out" / "outbox" / "letter.txt").write_text("mine")
    with pytest.raises(InputError, match=r"outbox/letter\.txt"):
        geoservice(GeoserviceRequest(work / "service.toml", year / "runs", work / "out", overwrite=True), silent)


def test_a_template_of_one_s_own_is_filled_and_cannot_reach_python(work: Path, year: Path) -> None:
    text = YEARLY + 'template = "mine.html"\n'
    (work / "mine.html").write_text("{{ period }}: {% for row in rows %}{{ row.site }} {{ row.value }}; {% endfor %}")
    record = produced(work, year, text=text)
    assert (work / "out" / record["bulletins"]["2026"]).read_text().startswith("2026: Reservoir 0.3")
    for wicked in ("{{ service.__class__.__mro__ }}", "{{ nothing }}", "{% for %}", "{{ 1 / 0 }}"):
        (work / "mine.html").write_text(wicked)
        with pytest.raises(InputError, match=r"mine\.html: cannot be filled"):
            produced(work, year, "wicked", text)
    assert not (work / "wicked").exists()


# --- answers, campaigns, plans ---------------------------------------------------------------------------------------

VESSELS = PLAIN + '[indicators.vessels]\nanswer = "vessel candidate"\n'


def answer(box: tuple[int, int, int, int], **further: Any) -> dict[str, Any]:
    said = {"name": "vessel candidate", "value": 0.1, "alert": True, "cut_off": None, "site_name": None}
    place = {"type": "Polygon", "coordinates": [made_up.ring(box)]}
    return {"type": "Feature", "geometry": place, "properties": said | further}


def answered(work: Path, answers: list[dict[str, Any]], missing: int = 0, cloud: bool = False) -> dict[str, Any]:
    run = made_up.write_run(work / "ships" / "a", 1, 0.5, cloud)
    (run / "answers.geojson").write_text(json.dumps({"type": "FeatureCollection", "features": answers}))
    apps = {"list": [{"indicator": "vessel candidate"}], "answers_missing": missing}
    (run / "report.json").write_text(json.dumps({"apps": apps}))
    (work / "service.toml").write_text(VESSELS)
    record = geoservice(GeoserviceRequest(work / "service.toml", work / "ships", work / "out"), silent)
    return of(record, "vessels")[0]


def test_answers_are_counted_where_they_lie_or_by_the_site_they_name(work: Path) -> None:
    there, elsewhere = answer((10, 10, 12, 12)), answer((100, 80, 102, 82))
    named = answer((100, 80, 102, 82), site_name="Reservoir")
    assert answered(work, [there, elsewhere, named, answer((9, 9, 11, 11), alert=False)])["value"] == 2


@pytest.mark.parametrize(
    ("answers", "missing", "cloud", "value", "cause"),
    [
        ([], 0, False, 0.0, ""),
        ([], 3, False, None, "3 answers were lost on the link"),
        ([], 0, True, None, "0 % of the site clear"),
        ([answer((100, 80, 102, 82), value=None, alert=False, cut_off="time")], 0, False, None, "cut off: time"),
    ],
)
def test_that_nothing_is_there_is_said_of_what_was_seen_whole_alone(
    work: Path, answers: list[dict[str, Any]], missing: int, cloud: bool, value: float | None, cause: str
) -> None:
    found = answered(work, answers, missing, cloud)
    assert found["value"] == value and cause in found["readings"][0]["cause"]


def test_a_campaign_is_read_by_its_parquet_and_what_lacks_is_noted(work: Path) -> None:
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    campaign = work / "runs" / "c"
    for name, month in (("aa", 1), ("bb", 2), ("not-listed", 3)):
        made_up.write_run(campaign / "scenes" / name, month, 0.5)
    rows = [{"digest": n, "folder": n, "state": "done"} for n in ("aa", "bb", "gone")]
    rows += [{"digest": "x", "folder": None, "state": "done"}]
    parquet.write_table(arrow.Table.from_pylist(rows), campaign / "results.parquet")
    (work / "service.toml").write_text(PLAIN)
    record = geoservice(GeoserviceRequest(work / "service.toml", work / "runs", work / "out"), silent)
    assert [run["name"] for run in record["runs"]] == ["c/scenes/aa", "c/scenes/bb"]
    assert {run["kind"] for run in record["runs"]} == {"campaign"}
    told = " ".join(record["notes"])
    assert "1 of 4 rows have no picture" in told and "products are gone" in told and "no row yet" in told


def test_takes_of_a_plan_are_counted_over_the_site_and_within_reach(work: Path) -> None:
    inside, near, far = (made_up.ring((row, col, row, col))[0] for row, col in ((20, 20), (20, -150), (20, -900)))
    placed = enumerate((inside, near, far), 1)
    takes = [{"sensed_at": f"2026-0{month}-01T10:00:00Z", "footprint": place} for month, place in placed]
    folder = work / "runs" / "plan"
    folder.mkdir(parents=True)
    catalogue = {"takes": [*takes, {"sensed_at": "2026-01-01T00:00:00Z"}]}
    plan = {"schema": "nadir-mission/1", "mission": "m", "catalogue": catalogue}
    (folder / "mission.json").write_text(json.dumps(plan))
    text = 'title = "T"\nsites = "sites.geojson"\nreach_km = 2.0\n[indicators.takes]\nmeasure = "takes"\n'
    (work / "service.toml").write_text(text)
    record = geoservice(GeoserviceRequest(work / "service.toml", work / "runs", work / "out"), silent)
    assert [(one["period"], one["value"]) for one in of(record, "takes")] == [("2026-01", 1.0), ("2026-02", 1.0)]
    assert "1 of 4 takes have no place" in " ".join(record["notes"])
    assert "modelled" in (work / "out" / "dashboard.html").read_text().split("<body>")[1]


def test_runs_that_cannot_be_used_are_noted_each(year: Path, tmp_path: Path) -> None:
    shutil.copytree(year / "runs" / "2026-01", tmp_path / "good")
    shutil.copytree(year / "runs" / "2026-01", tmp_path / "twice")
    shutil.copytree(year / "runs" / "2026-01", tmp_path / ".half.part")
    shutil.copytree(year / "runs" / "2026-02", tmp_path / "no-mask")
    (tmp_path / "no-mask" / "cloud.tif").unlink()
    shutil.copytree(year / "runs" / "2026-03", tmp_path / "broken")
    (tmp_path / "broken" / "reconstruction.tif").write_bytes(b"II*\0")
    made_up.write_run(tmp_path / "timeless", 4, 0.1, ACQUISITIONDATETIME="")
    notes: list[str] = []
    assert [run.name for run in find_runs(tmp_path, notes)] == ["good"]
    told = " | ".join(notes)
    assert "no-mask: no cloud.tif" in told and "broken: cannot be read" in told
    assert "timeless: no time" in told and "twice: the same files as run 1" in told
    assert len(notes) == 4


# --- bad input -------------------------------------------------------------------------------------------------------


def in_service(old: str, new: str) -> Callable[[Path], None]:
    def change(work: Path) -> None:
        text = (work / "service.toml").read_text()
        assert old in text
        (work / "service.toml").write_text(text.replace(old, new))

    return change


def in_sites(old: str, new: str) -> Callable[[Path], None]:
    def change(work: Path) -> None:
        text = (work / "sites.geojson").read_text()
        assert old in text
        (work / "sites.geojson").write_text(text.replace(old, new))

    return change


def no_sites(work: Path) -> None:
    (work / "sites.geojson").unlink()


def open_ring(work: Path) -> None:
    collection = json.loads((work / "sites.geojson").read_text())
    collection["features"][1]["geometry"]["coordinates"][0].pop()
    (work / "sites.geojson").write_text(json.dumps(collection))


def sites_elsewhere(work: Path) -> None:
    far = {"type": "Polygon", "coordinates": [[[100, 10], [101, 10], [101, 11], [100, 10]]]}
    feature = {"type": "Feature", "properties": {"name": "Far", "group": "water"}, "geometry": far}
    (work / "sites.geojson").write_text(json.dumps({"type": "FeatureCollection", "features": [feature]}))


def verdicts(text: str) -> Callable[[Path], None]:
    return lambda work: (work / "service.verdicts.jsonl").write_text(text) and None


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (in_service('period = "month"', 'period = "week"'), "wanted one of 'pass', 'month', 'quarter', 'year'"),
        (in_service('measure = "ndvi"', 'measure = "nvdi"'), "indicators.ndvi.measure"),
        (in_service('measure = "ndvi"', ""), "wanted one of measure, formula, answer"),
        (in_service('measure = "ndvi"', 'formula = "__import__(1)"'), "is no number, band or operator"),
        (in_service('measure = "ndvi"', 'formula = "1 + 2"'), "names no band"),
        (in_service('measure = "ndvi"', 'formula = "swir > 1"'), "names 'swir', which its picture lacks"),
        (in_service("clear = 0.4", "clear = 0.6"), "wanted at most alert (0.5)"),
        (in_service("water.board@example.org", "water.board@example.org\\nBcc: a@b"), "wanted an address like"),
        (in_service('groups = ["water"]', 'groups = ["sea"]'), "no site is in group 'sea'; there are water, land"),
        (in_service('visa = "Duty hydrologist"', 'template = "none.html"'), "none.html is no file"),
        (in_service('title = "Floods of the made-up valley"', 'title = ""'), "title is ''"),
        (no_sites, "sites.geojson: cannot be read (No such file or directory)"),
        (in_sites('"type": "Polygon"', '"type": "Point"'), "feature 0: geometry is Point"),
        (in_sites("Forest", "Reservoir"), "another site is called 'Reservoir'"),
        (in_sites('"name": "Forest"', '"name": 7'), "feature 2: has no properties.name"),
        (open_ring, "feature 1: a ring is open"),
        (sites_elsewhere, "no run covers any of the 1 sites"),
        (verdicts("{"), "line 1: is no JSON object"),
        (verdicts('{"figure": "zz", "verdict": "accept", "by": "A", "at": "2026-01-01"}'), "figure is 'zz'"),
    ],
)
def test_a_bad_input_is_one_line_and_leaves_nothing(
    change: Callable[[Path], None], said: str, work: Path, year: Path,
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    change(work)
    words = ("geoservice", work / "service.toml", "--runs", year / "runs", "--out", work / "out")
    code, _, told = sim(capsys, monkeypatch, *words)
    assert code == 2 and said in told and len(told.splitlines()) == 1, told
    assert not (work / "out").exists() and not list(work.glob(".out*"))


def test_a_folder_without_runs_is_one_line(
    work: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for runs, said in ((work, "holds no run that can be used"), (work / "nowhere", "is no folder")):
        code, _, told = sim(capsys, monkeypatch, "geoservice", work / "service.toml", "--runs", runs)
        assert code == 2 and said in told and len(told.splitlines()) == 1, told


def test_a_verdict_on_no_figure_is_refused_and_names_those_that_wait(
    work: Path, year: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting = next(one["name"] for one in produced(work, year)["figures"] if one["waits"])
    words = ("moderate", work / "service.toml", "0123456789ab", "accept", "--by", "A", "--out", work / "out")
    code, _, told = sim(capsys, monkeypatch, *words)
    assert code == 2 and waiting in told and not (work / "service.verdicts.jsonl").exists()
    code, _, told = sim(capsys, monkeypatch, *words[:2], waiting, "comment", "--by", "A", "--out", work / "out")
    assert code == 2 and "comment is ''" in told


def test_a_service_reads_with_all_its_defaults(work: Path) -> None:
    (work / "service.toml").write_text(PLAIN)
    service = load_service(work / "service.toml")
    assert (service.period, service.moderated, service.recipients) == ("month", True, ())


@pytest.mark.parametrize(
    ("file", "text", "said"),
    [
        ("answers.geojson", '{"features": [{"properties": 3}]}', "holds no features with properties"),
        ("answers.geojson", '{"features": [{"properties": {"value": "x"}}]}', "a value is no number"),
        (
            "answers.geojson",
            '{"features": [{"properties": {"name": "vessel candidate"}, "geometry": {"type": "Polygon"}}]}',
            "run a: an answer's place",
        ),
        ("report.json", '{"apps": {"list": 3}}', "its section apps cannot be read"),
        ("report.json", "{", "is not valid JSON"),
        (
            "mission.json",
            '{"schema": "nadir-mission/1", "catalogue": {"takes": [{"footprint": ["x", 1]}]}}',
            "a take has",
        ),
    ],
)
def test_a_run_s_file_that_cannot_be_read_is_one_line(
    file: str, text: str, said: str, work: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (made_up.write_run(work / "ships" / "a", 1, 0.5) / file).write_text(text)
    (work / "service.toml").write_text(VESSELS)
    words = ("geoservice", work / "service.toml", "--runs", work / "ships", "--out", work / "out")
    code, _, told = sim(capsys, monkeypatch, *words)
    assert code == 2 and said in told and len(told.splitlines()) == 1, told


def test_a_plan_of_another_shape_is_noted(work: Path, year: Path) -> None:
    made_up.write_run(work / "runs" / "a", 1, 0.5)
    (work / "runs" / "a" / "mission.json").write_text('{"schema": "nadir-mission/1", "catalogue": []}')
    notes: list[str] = []
    assert len(find_runs(work / "runs", notes)) == 1 and "no plan of schema" in notes[0]


def test_one_is_told_as_one() -> None:
    assert [counted(n, "bulletins") for n in (0, 1, 12)] == ["0 bulletins", "1 bulletin", "12 bulletins"]
