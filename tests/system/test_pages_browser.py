"""Every page of the house in a real browser: one design, readable at 400 px, in light and in dark."""

import json
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest import mock

import numpy as np
import pytest
from chromium import CLIPPED, CONTRAST, Page
from made_up_scenes import made_up_scenes

from hil.profiles import campaign_page, sweep_page
from hil.profiles import page as profile_page
from hil.profiles.campaign_file import AWAY, DONE, StepRecord
from hil.profiles.demand import Demand, margins
from hil.profiles.findings import Accuracy, CloudAgreement, LayerTime, Soak, SoakPoint
from hil.profiles.profile_file import (
    FORMAT,
    BenchProfile,
    Energy,
    Performance,
    ProfiledDevice,
    Roofline,
    Spread,
    StageSpan,
)
from hil.profiles.sweep_file import NETWORKS, PAYLOAD, Sweep, SweepPoint, with_front
from sim.campaign import table as campaign_table
from sim.clouds import page as clouds_page
from sim.clouds.evaluate import Material
from sim.compare import page as rd_page
from sim.compare.report import document
from sim.compare.summary import METRICS
from sim.compare.tiles import BenchTile
from sim.faults import page as faults_page
from sim.faults.outcomes import Outcome, row_of
from sim.faults.rates import environment
from sim.mission import passes_page
from sim.mission.passes import plan_passes
from sim.mission.spec import load_mission
from sim.planning import mission_plan
from sim.planning import page as planning_page
from sim.planning.mission_plan import PlanRequest, plan_mission
from sim.planning.report import compose
from sim.report import side_by_side
from sim.report.files import write_report

pytestmark = [pytest.mark.browser, pytest.mark.slow]

PAGES = ("report", "rd", "clouds", "profile", "passes", "mission", "faults", "campaign", "compare", "sweep", "day")
SHA = "a8745130e85fd2ed8c6a8197212bb4a48bb8eb26338b3d9c14f255bec048e48d"

#: Of every row of a table of requirements: whether requirement, state, measured and limit lie inside the window.
REQUIREMENTS = """[...document.querySelectorAll('tr.row-held, tr.row-failed')].map((row) =>
  [row.querySelector('th'), row.querySelector('.state'), ...row.querySelectorAll('td.num')].map((cell) => {
    const box = cell.getBoundingClientRect();
    return box.width > 0 && box.left >= 0 && box.right <= innerWidth && cell.textContent.trim() !== '';
  }))"""
#: Of every chart with axes: how many numbers stand at its foot, and how many at its side.
NUMBERED = """[...document.querySelectorAll('svg.chart')].map((chart) => {
  const texts = [...chart.querySelectorAll('text')].filter((t) => /^[−+]?[\\d.,e]+( %)?$/.test(t.textContent));
  return [texts.filter((t) => t.getAttribute('text-anchor') === 'middle').length,
          texts.filter((t) => t.getAttribute('text-anchor') === 'end').length];
})"""


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("pages")


@pytest.fixture(params=PAGES)
def opened(
    request: pytest.FixtureRequest, browser: Page, folder: Path,
    example_report: dict[str, Any], example_pictures: dict[str, Path],
) -> Iterator[Page]:  # fmt: skip
    path = folder / f"{request.param}.html"
    if not path.is_file():
        if request.param == "report":
            write_report(example_report, example_pictures, folder)
        elif request.param == "compare":
            metrics = {"metrics": [{"key": metric.key, "value": 12.345} for metric in side_by_side.REPORTED]}
            runs = [example_report | {"quality": metrics, "folder": f"runs/of/a/{'long' * n}/name"} for n in (1, 9, 2)]
            side_by_side.write_page(side_by_side.compare(runs), path)
        else:
            texts = {"rd": rd_text, "clouds": clouds_text, "profile": profile_text}
            texts |= {"passes": passes_text, "mission": mission_text, "faults": faults_text, "campaign": campaign_text}
            texts |= {"sweep": sweep_text, "day": day_text}
            path.write_text(texts[request.param](), encoding="utf-8")
    browser.events.clear()
    browser.open(path.as_uri())
    yield browser
    browser.call("Emulation.setEmulatedMedia", features=[])


def reopen(page: Page, width_px: int) -> None:
    page.open(page.value("location.href"), width_px=width_px)


def test_a_page_opens_from_disk_without_errors_or_requests(opened: Page) -> None:
    opened.value("new Promise(done => requestAnimationFrame(() => setTimeout(done, 100)))")
    assert opened.complaints() == []


@pytest.mark.parametrize("width_px", [1280, 400])
def test_a_page_fits_its_window_and_nothing_is_clipped(opened: Page, width_px: int) -> None:
    reopen(opened, width_px)
    assert opened.value("document.scrollingElement.scrollWidth") <= width_px
    assert opened.value(CLIPPED) == []


def test_measured_limit_and_held_are_in_sight_on_a_telephone(opened: Page) -> None:
    reopen(opened, 400)
    without = ("rd", "passes", "mission", "faults", "campaign", "compare", "sweep")  # comparisons and plans have none
    if not opened.value("location.href").removesuffix(".html").endswith(without):
        rows = opened.value(REQUIREMENTS)
        assert rows and all(all(row) and len(row) == 4 for row in rows)


def test_every_chart_has_numbers_on_its_axes(opened: Page) -> None:
    charts = opened.value(NUMBERED)
    assert charts or opened.value("location.href").endswith(("faults.html", "compare.html"))  # tables alone
    one_way = opened.value("location.href").endswith(("rd.html", "passes.html"))  # rows: names stand for the numbers
    assert all(foot >= 2 and (side >= 2 or one_way) for foot, side in charts), charts


def test_pages_follow_dark_mode_charts_and_all(opened: Page) -> None:
    """WCAG 2.1 asks for a contrast of 4.5 of text against its ground. Text of a chart is filled, not coloured."""
    ground = {}
    for theme in ("light", "dark"):
        opened.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": theme}])
        ground[theme] = opened.value("getComputedStyle(document.body).backgroundColor")
        for selector in ("body", ".facts", ".key-figures .note", "thead th", ".basis"):
            if not opened.value(f"document.querySelectorAll('{selector}').length"):
                continue
            assert opened.value(CONTRAST.replace("SELECTOR", selector)) >= 4.5, (theme, selector)
        filled = CONTRAST.replace("getComputedStyle(element).color", "getComputedStyle(element).fill")
        if opened.value("document.querySelectorAll('svg.chart text').length"):
            assert opened.value(filled.replace("SELECTOR", "svg.chart text")) >= 4.5, theme
    assert ground["light"] != ground["dark"]
    assert opened.value("[...document.images].filter(i => i.src.startsWith('data:image/svg')).length") == 0


def test_pages_have_the_parts_whose_contrast_is_measured(opened: Page) -> None:
    """Else the test above would measure nothing."""
    heads = "document.querySelectorAll('thead th').length"
    assert opened.value(heads) or opened.value("location.href").endswith("campaign.html")


# --- made-up pages ---------------------------------------------------------------------------------------------------


class MadeUpCodec:
    def __init__(self, name: str) -> None:
        self.name, self.note, self.settings = name, "made up, " * 12, (1.0,)


def rd_text() -> str:
    codecs = ("nadir-edge", "klt-jpeg2000", "jpeg2000", "klt-jpeg2000-joint", "jpeg")
    rows = [
        {
            "codec": codec, "tile": tile, "setting": 1.0, "octets": float(octets), "bpp": 8 * octets / 65536,
            "cr16": 524_288 / octets, **dict.fromkeys(METRICS, 1 / np.log(octets)),
            "psnr_10k_db": 20 * np.log10(octets / 100) + shift, "encode_s": 0.01, "decode_s": 0.1,
        }
        for shift, codec in enumerate(codecs)
        for tile in ("easy", "hard")
        for octets in np.geomspace(900, 60_000, 20)
    ]  # fmt: skip
    tiles = [BenchTile(name, np.zeros((4, 256, 256), np.uint16)) for name in ("easy", "hard")]
    made_up = [MadeUpCodec(name) for name in codecs]
    result = document(rows, tiles, made_up, {"hevc": "absent: ffmpeg not installed"}, [])  # type: ignore[arg-type]
    result["inputs"]["files"] = [{"name": "rd20.npz", "sha256": SHA}]
    size = {"parameters": 4_213_512, "decoder_kmac_px": 68.2}
    return rd_page.render_page(result | {"decoders": {"nadir-edge": size}})


def faults_text() -> str:
    outcomes = [Outcome(True, True)] * 90 + [Outcome(False, True, hole=True)] * 9 + [Outcome(False, False)]
    names = (
        "memory/all/during/on",
        "memory/all/during/off",
        "channel/ber-1e-4",
        "process/hung-runtime",
        "model/rollback",
    )
    rows = [row_of(name, outcomes, name.endswith("/on"), 2.5, 12.5).as_dict() for name in names]
    environment_told = {**vars(environment()), "saa_factor": environment().saa_factor}
    return faults_page.render_page(
        {
            "question": {"rows": list(names), "trials": 100, "seed": 0}, "environment": environment_told, "rows": rows,
            "device": {"name": "myriad2", "power_w": 2.5, "basis": "modelled"}, "seconds": 1.0, "failed": [names[0]],
            "window": {"flips": 1234, "spoilt_and_held_back": 5},
        }
    )  # fmt: skip


def campaign_text() -> str:
    rng = np.random.default_rng(2)
    with TemporaryDirectory() as name:
        out = Path(name)
        (out / campaign_table.ROWS).mkdir(parents=True)
        for n in range(40):
            row = {
                "scene": f"S2B_MSIL2A_20210122T133229_N0214_R081_T43QCE_{n:012}.SAFE", "seed": n, "held": n % 3 > 0,
                "psnr_10k_db": 40 + rng.normal(), "cr16": 30 + rng.normal(), "sam_deg": 1.0, "folder": f"{n}",
                "state": "done", "digest": SHA,
            }  # fmt: skip
            (out / campaign_table.ROWS / f"{n}.json").write_text(json.dumps(row), encoding="utf-8")
        failed = [{"scene": "x" * 90 + ".tif", "seed": 1, "reason": "OSError: " + "y" * 200, "tries": 3}]
        return campaign_table.write_page(out, "forty made-up scenes", failed).read_text(encoding="utf-8")


def clouds_text() -> str:
    scores = dict.fromkeys(("accuracy", "balanced_accuracy", "precision", "recall", "f1", "iou"), 0.9876)
    scores |= {"iou_interval": (0.9, 0.99)}
    tiles = scores | {"tiles": 500, "clear_tiles": 387, "discarded_falsely": 0, "false_discards": 0.0}
    readings, methods = ("all", "firm"), ("nadir", "braaten-cohen-yang")
    settings = {"rotation": "shipped", "cloudy_above": 0.54, "sure_above": 0.7}
    gate = {"let_through": 0.1, "usable_lost": 0.0, "worst_site": "semarang", "usable_lost_there": 0.01}
    flat = dict.fromkeys(
        (
            "cloud_withheld", "cloud_flattened", "cloud_with_detail", "ground_flattened", "lost_either_way",
            "lost_either_way_there",
        ),
        0.3,
    ) | {"worst_site_either_way": "semarang", "withheld_above": 0.88}  # fmt: skip
    by_threshold = [{"withheld_above": 0.8, "ours": gate | flat, "knowing": gate}]
    check = {"requirement": "tile accuracy on left-out sites", "measured": 0.9356, "relation": ">=", "limit": 0.92}
    result = {
        "engine": "openvino 2026.4.1-22982-e213a147257-releases/2026/4",
        "methods": dict.fromkeys(methods, "made up"),
        "networks": [{"name": "edge", "test_sites": ["0000280849BAC91C", SHA], "settings": settings}],
        "checks": [check | {"held": True}, check | {"measured": None, "held": False}],
        "pixels": {r: dict.fromkeys(methods, scores) for r in readings},
        "tiles": {r: dict.fromkeys(methods, tiles | {"interval": [0.0, 0.0095]}) for r in readings},
        "classes": {"clear": scores, "thin": dict.fromkeys(scores)},
        "sites": [
            {"site": "0000280849BAC91C", "tiles": 9, "gsd_m": 10, "pixel_iou": 0.8, "tile_accuracy": 0.9,
             "false_discards": None},
            {"site": "montcalm", "tiles": 9, "gsd_m": 10, "cloud_called": 0.01, "withheld": 0},
        ],
        "tile_map": [[0.1, 0.2], [0.9, 0.95], [0.8, 0.3], [0.2, 0.9]],
        "slices": {"nadir": {"snow": {"tiles": 4, "sites": 1, "false_discards": 0.0, "pixels_called_cloud": 0.1}}},
        "reliability": {"bins": [{"said": 0.1, "seen": 0.2, "cells": 10}], "expected_error": 0.02},
        "thirteen_bands": [{"name": "l1c_13band_montcalm_20160112", "cloud": {"nadir": 0.5}}],
        "scene": None, "flattening": [], "human": [], "human_gate": [], "teacher": None,
        "gate": gate | flat,
        "gate_by_threshold": by_threshold, "gate_by_threshold_teacher": by_threshold,
        "light": [{"light": "gain 0.7", "human_iou": None, "human_precision": None, "human_recall": None,
                   "scl_iou": 0.8, "let_through": 0.1, "cloud_with_detail": 0.1, "lost_either_way": None,
                   "lost_either_way_there": None}],
        "measured_on_host": {"megapixels_per_s": 47.0, "gate": []},
    }  # fmt: skip
    return clouds_page.render(result, Material([], []))


def profile_text() -> str:
    seconds = [0.010, 0.011, 0.012, 0.010, 0.030, 0.011]
    stages = {"clouds": 0.002, "encode": 0.005, "entropy": 0.003}
    performance = Performance(
        "measured by the device's own monotonic clock", 2, Spread.of(seconds),
        {n: Spread.of([s] * 6) for n, s in stages.items()}, 0.8, 6.0, 5.9, 2.5, 210.0, {"cpu": 61.0}, tuple(seconds),
    )  # fmt: skip
    spans = tuple(StageSpan(name, 10 + k, 11 + k) for k, name in enumerate(stages))
    energy = Energy(
        "modelled: 2 W idle, 5 W busy, as given", 3, 12.0, 2.0, 5.0, 6.1, 0.05, 0.03, 0.76, 0.46, stages, "one clock",
        (0.0, 10.0, 10.1, 20.0), (2.0, 2.0, 5.0, 5.0), 10.0, 20.0, spans, (10.0, 11.0, 13.0), (5.0, 5.1, 5.0),
    )  # fmt: skip
    machine = ("tcp://board:9000", "aarch64", "Cortex-A53", 4, 1024, "Linux 6", "3.11.2", "openvino 2026.4", 1)
    device = ProfiledDevice(*machine)
    layers = [LayerTime("clouds", f"/a/long/name/of/the/layer/{n}/Conv", "Convolution", kind, 6e6, 2e5, 1e-3 * (n + 1))
              for n, kind in enumerate(("INT8", "FP32", "INT8"))]  # fmt: skip
    roofline = Roofline(
        "counted", 0.2, 0.007, 28.0, 120.0, 65.0, 8.0, ceilings={"INT8": 65.0, "FP32": 20.0}, layers=tuple(layers)
    )
    profile = BenchProfile(
        FORMAT, "2026-01-01T00:00:00Z", SHA, "edge", 77, 256, device, 6, SHA, performance, energy, roofline, ("doubt",),
        accuracy=Accuracy(6, 5, 10_000, 1.5, 1.8, {"psnr_10k_pooled_db": 47.5}, CloudAgreement("drawn", 5, 1, 1, 9)),
        soak=Soak(60.0, 600, 0.1, 0.12, 0.2, (SoakPoint(5, 50, 0.1, 1500, 60), SoakPoint(55, 50, 0.12, 1200, 80))),
    )  # fmt: skip
    demand = Demand("m", 9.0, 5700.0, 60.0, 100.0, 6.1, 256.0, 85.0)
    return profile_page.render(profile, "m", margins(profile, demand))


def sweep_text() -> str:
    points = [SweepPoint(PAYLOAD, "e", n, 1, px, 0.01 * px / n, 5.0 + n, 9) for n in (1, 2) for px in (128, 256)]
    refused = SweepPoint(NETWORKS, "e", 1, 4, 256, why="invalid dimensions for input: planes, got 32, expected 8")
    return sweep_page.render(Sweep("now", "host:", "A processor", "edge", 7, "v", with_front([*points, refused])))


def day_text() -> str:
    def step(n: int, device: str, state: str = DONE) -> StepRecord:
        figures = {"p50": 10.0 + n, "net_mj": 20.0 - n, "hottest_c": 60.0 + n}
        return StepRecord(
            n, device, "demo", state, 3600.0 * n, 60.0, 1, "" if state == DONE else "lost after 3 attempts (refused)",
            codes_sha256=SHA, codes_of="bundle edge 00000007, 25 tiles", cpu="Cortex-A76", figures=figures,
        )  # fmt: skip

    steps = [step(n, device) for n in (1, 2, 3) for device in ("pi", "zynq")] + [step(4, "pi"), step(4, "zynq", AWAY)]
    return campaign_page.render("a day on the flatsat", steps, 4, 8)


def passes_text() -> str:
    mission = load_mission("phisat2")
    return passes_page.render_page(plan_passes(mission, ["Svalbard", "Redu"], days=1, volume_octets=10**9))


def mission_text() -> str:
    with mock.patch.object(mission_plan, "code_scenes", made_up_scenes):
        plan = plan_mission(PlanRequest(load_mission("phisat2"), "demo:60", 1))
    return planning_page.render_page(plan, compose(plan))
