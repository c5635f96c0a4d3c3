"""A geoservice of three sites over twelve runs of the whole line, in a real browser: offline, readable, and every
figure on dashboard and bulletin leads to its run."""

import base64
import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import made_up_service as made_up
import pytest
from chromium import CLIPPED, CONTRAST, Page

from sim import downlink
from sim.design.figures import figure as shown
from sim.geoservice.produce import GeoserviceRequest, geoservice
from sim.progress import silent

pytestmark = [pytest.mark.browser, pytest.mark.slow]

PAGES = ("dashboard.html", "bulletins/2026-05.html")
TABLES = "document.querySelectorAll('details').forEach((one) => one.open = true)"
#: Rows of numbers that name no run, and are none themselves.
UNTRACED = """[...document.querySelectorAll('table tr')].filter((row) => row.querySelector('td.num'))
  .filter((row) => !/^[0-9]+( [0-9]+)*$/.test(row.dataset.runs || '')).map((row) => row.textContent)"""
ROWS = """[...document.querySelectorAll('tr[data-figure]')].map((row) =>
  [row.dataset.figure, row.dataset.runs, row.querySelector('td.num').textContent.trim()])"""
LINKS = "[...document.querySelectorAll('tr[data-runs] a')].map((a) => [a.hash.slice(1), a.textContent])"
RUNS = """[...document.querySelectorAll('tr[data-run]')].map((row) =>
  [row.id, row.dataset.run, row.querySelector('a').href, row.querySelector('[data-digest]').textContent])"""
DOTS = "[...document.querySelectorAll('svg.chart circle')].map((dot) => dot.querySelector('title')?.textContent || '')"
KEY_FIGURES = """[...document.querySelectorAll('.key-figures > div')].map((one) =>
  [parseInt(one.querySelector('dd').textContent), one.querySelector('.note').textContent])"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("service")


@pytest.fixture
def service(
    folder: Path, toy_bundle_with_gate: Path, toy_engine: Any, write_mission: Any, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """Twelve runs of `sim downlink` with the toy codec, and the service over them: made once."""
    if not (folder / "out").is_dir():
        monkeypatch.setattr("sim.onboard.engine_choice.open_engine", lambda name: toy_engine)
        mission = str(write_mission(folder / "mission.toml"))

        def run(scene: Path, out: Path) -> None:
            request = downlink.Request(str(scene), out, mission, str(toy_bundle_with_gate))
            downlink.downlink(request, silent)

        runs = made_up.downlink_runs(folder, run)
        geoservice(GeoserviceRequest(made_up.write_service(folder), runs, folder / "out"), silent)
    return folder


@pytest.fixture(params=PAGES)
def opened(request: pytest.FixtureRequest, browser: Page, service: Path) -> Iterator[Page]:
    browser.open((service / "out" / request.param).as_uri())
    yield browser
    browser.call("Emulation.setEmulatedMedia", media="", features=[])


def record(service: Path) -> dict[str, Any]:
    return json.loads((service / "out" / "geoservice.json").read_text())


def test_a_page_opens_offline_without_errors_or_requests(opened: Page) -> None:
    opened.value("new Promise(done => requestAnimationFrame(() => setTimeout(done, 100)))")
    assert opened.complaints() == []
    assert opened.value("document.querySelectorAll('svg.chart').length") >= 5


@pytest.mark.parametrize("width_px", [1280, 400])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_a_page_is_readable_wide_and_on_a_telephone_in_both_schemes(opened: Page, width_px: int, theme: str) -> None:
    opened.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": theme}])
    opened.open(opened.value("location.href"), width_px=width_px)
    opened.value(TABLES)
    assert opened.value("document.scrollingElement.scrollWidth") <= width_px
    assert opened.value(CLIPPED) == []
    for selector in ("body", ".facts", ".quiet", "thead th", "tr[data-runs] a", "code"):
        assert opened.value(CONTRAST.replace("SELECTOR", selector)) >= 4.5, selector


def test_twelve_runs_of_three_sites_are_on_the_dashboard(browser: Page, service: Path) -> None:
    browser.open((service / "out" / "dashboard.html").as_uri())
    assert len(browser.value(RUNS)) == 12
    told = record(service)
    assert [site["name"] for site in told["sites"]] == list(made_up.SITES)
    assert sorted(row[0] for row in browser.value(ROWS)) == sorted(
        [one["name"] for one in told["figures"]] + [one["name"] for one in told["figures"] if one["waits"]]
    )


def test_every_figure_on_a_page_leads_to_its_run(opened: Page, service: Path) -> None:
    told = record(service)
    figures = {one["name"]: one for one in told["figures"]}
    listed = {row[0]: row for row in opened.value(RUNS)}
    assert opened.value(UNTRACED.replace("'table tr'", "'table tr:not([data-run])'")) == []
    rows = opened.value(ROWS)
    assert rows
    for name, runs, text in rows:
        assert text == shown(figures[name]["value"], "not seen")
        assert runs.split() == [str(run) for run in figures[name]["runs"]]
    links = opened.value(LINKS)
    assert links and all(target == f"run-{text}" and target in listed for target, text in links)


def test_every_dot_names_its_runs_and_every_count_its_sites(opened: Page) -> None:
    listed = {row[1] for row in opened.value(RUNS)}
    dots = opened.value(DOTS)
    assert len(dots) >= 12
    for told in dots:
        runs = re.search(r"runs? ([\d, ]+)$", told)
        assert runs is not None and set(runs[1].strip(", ").split(", ")) <= listed, told
    for count, note in opened.value(KEY_FIGURES):
        assert count == len([name for name in note.split(", ") if name])


def test_a_run_on_a_page_is_the_one_on_disk(opened: Page, service: Path) -> None:
    told = {run["number"]: run for run in record(service)["runs"]}
    rows = opened.value(RUNS)
    assert rows
    for _, number, address, digest in rows:
        report = Path(unquote(urlsplit(address).path))
        assert report.is_file() and report.name == "report.html"
        run = told[int(number)]
        files = [name for name in run["files"] if (report.parent / name).is_file()]
        assert {"reconstruction.tif", "cloud.tif"} <= set(files)
        for name in files:
            assert hashlib.sha256((report.parent / name).read_bytes()).hexdigest() == run["files"][name]
        lines = "\n".join(f"{one}  {name}" for name, one in sorted(run["files"].items()))
        assert hashlib.sha256(lines.encode()).hexdigest() == digest


def test_the_flood_is_seen_through_the_line_and_the_clouded_month_is_not(service: Path) -> None:
    flood = [one for one in record(service)["figures"] if (one["site"], one["indicator"]) == ("Reservoir", "flood")]
    for one, share in zip(flood, made_up.FLOOD, strict=True):
        assert one["value"] is None if one["period"] == "2026-09" else abs(one["value"] - share) < 0.05
    assert [one["state"] for one in flood][3:7] == ["unconfirmed"] * 3 + ["calm"]


def test_a_bulletin_prints_with_its_visa_and_nothing_cut(browser: Page, service: Path) -> None:
    browser.open((service / "out" / PAGES[1]).as_uri(), width_px=700)
    browser.call("Emulation.setEmulatedMedia", media="print")
    assert browser.value(CLIPPED) == []
    assert "Duty hydrologist" in browser.value("document.querySelector('.visa').innerText")
    assert browser.value("getComputedStyle(document.body).color") == "rgb(0, 0, 0)"
    printed = base64.b64decode(browser.call("Page.printToPDF", preferCSSPageSize=True, printBackground=True)["data"])
    browser.call("Emulation.setEmulatedMedia", media="")
    assert printed.startswith(b"%PDF-") and 1 <= len(re.findall(rb"/Type /Page\b", printed)) <= 8
