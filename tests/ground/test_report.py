"""The report: whole or refused, the same octets for the same figures, safe to open, and honest about its counts."""

import copy
import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from sim.design.charts import Axis, Series, bars, histogram, linear_ticks, lines, log_ticks, loss_strip, strips
from sim.design.figures import at_most, figure, octets, percent
from sim.design.maps import kind_map, value_map
from sim.design.names import CLOUDS, LINK, RATE, grouped, label, requirement
from sim.report.files import (
    BASES,
    REQUIRED,
    ReportError,
    all_held,
    arrange,
    canonical_json,
    validate_report,
    write_report,
)
from sim.report.terminal import as_text

Report = dict[str, Any]


def written(report: Report, pictures: dict[str, Path], where: Path) -> tuple[dict[str, Any], str]:
    where.mkdir()
    as_json, as_html = write_report(report, pictures, where)
    return json.loads(as_json.read_text(encoding="utf-8")), as_html.read_text(encoding="utf-8")


def test_an_example_is_whole(example_report: Report) -> None:
    assert validate_report(example_report) == []


@pytest.mark.parametrize("section", list(REQUIRED))
def test_a_missing_section_is_named(example_report: Report, section: str) -> None:
    del example_report[section]
    assert validate_report(example_report) == [section]


@pytest.mark.parametrize(
    ("path", "said"),
    [
        (("rate", "bpp"), "rate.bpp"),
        (("inputs", "scene", "gsd_m"), "inputs.scene.gsd_m"),
        (("quality", "metrics", 1, "convention"), "quality.metrics[1].convention"),
        (("checks", 3, "held"), "checks[3].held"),
        (("tiles", "list", 7, "psnr_db"), "tiles.list[7].psnr_db"),
        (("measured_on_host", "stages", 0, "seconds"), "measured_on_host.stages[0].seconds"),
    ],
)
def test_a_missing_key_is_named_by_its_place(example_report: Report, path: tuple[Any, ...], said: str) -> None:
    inner: Any = example_report
    for step in path[:-1]:
        inner = inner[step]
    del inner[path[-1]]
    assert validate_report(example_report) == [said]


def test_a_basis_is_one_of_five(example_report: Report) -> None:
    example_report["checks"][0]["basis"] = "guessed"
    [said] = validate_report(example_report)
    assert "checks[0].basis is 'guessed'" in said and "measured on host" in said


def test_a_tile_that_disappears_is_noticed(example_report: Report) -> None:
    example_report["tiles"]["list"].pop(0)
    assert validate_report(example_report) == ["tiles.coded is 30, its list holds 29"]
    example_report["tiles"]["coded"] = 29
    assert validate_report(example_report) == ["tiles: kinds add up to 35, total is 36, grid 6 x 6"]


def test_a_report_that_is_not_whole_writes_nothing(
    example_report: Report, example_pictures: dict[str, Path], tmp_path: Path
) -> None:
    del example_report["rate"]["cr16"], example_pictures["mask"]
    (tmp_path / "out").mkdir()
    with pytest.raises(ReportError, match=r"2 things: rate\.cr16; pictures\.mask"):
        write_report(example_report, example_pictures, tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def test_same_figures_give_the_same_octets_but_for_the_host(
    example_report: Report, example_pictures: dict[str, Path], tmp_path: Path
) -> None:
    other = copy.deepcopy(example_report)
    other["measured_on_host"]["wall_s"] = 99.0
    other["checks"][2]["measured"] = 0.7
    other["checks"][2]["held"] = False
    other["budgets"][2]["used"] = 500.0
    other = dict(reversed(other.items()))
    first, second = (written(r, example_pictures, tmp_path / n)[0] for r, n in ((example_report, "a"), (other, "b")))
    assert first != second
    del first["measured_on_host"], second["measured_on_host"]
    assert canonical_json(first) == canonical_json(second)


def test_rows_measured_on_the_host_move_to_its_section(example_report: Report) -> None:
    arranged = arrange(example_report)
    assert [check["requirement"] for check in arranged["measured_on_host"]["checks"]] == ["real-time factor"]
    assert [budget["name"] for budget in arranged["measured_on_host"]["budgets"]] == ["peak memory"]
    assert all(row["basis"] != "measured on host" for row in arranged["checks"] + arranged["budgets"])
    assert arrange(arranged) == arranged


@pytest.mark.parametrize(("number", "section"), [(0, "top"), (2, "measured_on_host")])
def test_one_failed_check_fails_the_run(example_report: Report, number: int, section: str) -> None:
    assert all_held(example_report)
    example_report["checks"][number]["held"] = False
    arranged = arrange(example_report)
    assert arranged["held"] == (section != "top")
    assert arranged["measured_on_host"]["held"] == (section == "top")
    assert not all_held(example_report)


def test_the_page_names_what_failed(example_report: Report, example_pictures: dict[str, Path], tmp_path: Path) -> None:
    example_report["checks"][0]["held"] = False
    _, page = written(example_report, example_pictures, tmp_path / "out")
    assert "1 of 4 requirements failed: PSNR of coded tiles." in re.sub(r"\s+", " ", page)
    assert "All 4 requirements held" not in page


def test_the_page_holds_every_figure_and_nothing_from_outside(
    example_report: Report, example_pictures: dict[str, Path], tmp_path: Path
) -> None:
    _, page = written(example_report, example_pictures, tmp_path / "out")
    shown = page.replace("\u202f", " ")
    for metric in example_report["quality"]["metrics"]:
        assert metric["name"] in shown and metric["convention"] in shown.replace("&gt;", ">")
    assert "not computed" in shown and "4 400 000 000" in shown and "Contains modified Copernicus" in shown
    assert page.count("data:image/webp;base64,") == 4
    assert re.findall(r"(?:src|href)=\"(?!data:)[^\"]*", page) == []
    assert "http" not in page.replace("http-equiv", "")


def test_a_hostile_name_stays_text(example_report: Report, example_pictures: dict[str, Path], tmp_path: Path) -> None:
    hostile = "</script><script>alert(1)</script><img src=x onerror=alert(2)>"
    example_report["inputs"]["scene"]["name"] = hostile
    refused = next(tile for tile in example_report["tiles"]["list"] if tile["kind"] == "refused")
    refused["cause"] = hostile
    _, page = written(example_report, example_pictures, tmp_path / "out")
    assert hostile not in page and "<img src=x" not in page
    assert page.count("<script") == 2


def test_lossless_and_missing_figures_are_written_as_json(
    example_report: Report, example_pictures: dict[str, Path], tmp_path: Path
) -> None:
    example_report["quality"]["metrics"][0]["value"] = math.inf
    example_report["tiles"]["list"][-1]["psnr_db"] = math.inf
    example_report["rate"]["cr16"] = np.float64(21.25)
    example_report["tiles"]["rows"] = np.int64(6)
    report, page = written(example_report, example_pictures, tmp_path / "out")
    assert report["quality"]["metrics"][0]["value"] is None and report["rate"]["cr16"] == 21.25
    assert "∞" in page


def test_a_large_quicklook_is_shrunk(example_report: Report, example_pictures: dict[str, Path], tmp_path: Path) -> None:
    Image.new("L", (4000, 2000)).save(example_pictures["mask"])
    _, page = written(example_report, example_pictures, tmp_path / "out")
    assert len(page) < 12_000_000


@given(st.floats(allow_nan=True, allow_infinity=True) | st.integers() | st.booleans() | st.none())
def test_any_figure_can_be_read(value: Any) -> None:
    text = figure(value)
    assert text and "e+" not in figure(1234.5) and "None" not in text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (1234567, "1 234 567"), (0.98412, "0.9841"), (-3.5, "−3.5"), (True, "yes"), (None, "not computed"),
     (math.inf, "∞"), (123456.0, "123 456"), (1.5e-7, "1.500e−07"), (["B02", "B03"], "B02, B03")],
)  # fmt: skip
def test_figures_as_people_write_them(value: Any, text: str) -> None:
    assert figure(value).replace("\u202f", " ") == text


def test_keys_tell_their_unit() -> None:
    assert label("contact_s") == ("contact", "s")
    assert label("throughput_mpx_s") == ("throughput", "Mpx/s")
    assert label("peak_rss_mib") == ("peak memory when the last packet was sent", "MiB")
    assert label("margin_db") == ("margin", "dB")
    assert label("octets_sent") == ("octets sent", "")
    assert label("scene_s_range") == ("time of this scene, best and worst", "s")
    assert octets(634_000).replace("\u202f", " ") == "634 kB"


def test_modelled_figures_are_shown_under_their_device(
    example_report: Report, example_pictures: dict[str, Path], tmp_path: Path
) -> None:
    example_report["modelled"] = {"basis": "modelled", "device": "myriad2",
        "source": "a table",
        "scene_j": 1.8125,
        "scene_j_range": [0.9, 4.8],
    }
    _, page = written(example_report, example_pictures, tmp_path / "out")
    assert "Time and energy on myriad2" in page and "1.812" in page and "0.9, 4.8" in page


def test_the_budget_nearest_its_limit_binds(
    example_report: Report, example_pictures: dict[str, Path], tmp_path: Path
) -> None:
    _, page = written(example_report, example_pictures, tmp_path / "near")
    page = page.replace("\u202f", " ")
    assert "Binding constraint: peak memory, 74.5 % of its limit" in page
    example_report["budgets"][1]["used"] = 300.0
    _, page = written(example_report, example_pictures, tmp_path / "over")
    assert "Binding constraint: energy on board, 2.5 times its limit" in page


def test_a_map_gives_each_tile_one_square() -> None:
    tiles = [{"row": r, "col": c, "x": None if r == c else r * 10.0} for r in range(5) for c in range(7)]
    drawn = str(value_map(tiles, 5, 7, "x", "Figure", "dB").svg)
    assert sorted(re.findall(r"M([\d.]+) ([\d.]+)h", drawn)) == sorted(
        (f"{c + 0.04:g}", f"{r + 0.04:g}") for r in range(5) for c in range(7)
    )


def test_charts_bear_the_extremes() -> None:
    assert [bar.width_percent for bar in bars([("a", 2.0, ""), ("b", 0.5, "")])] == [100.0, 25.0]
    assert bars([]) == () and bars([("a", 0.0, "")])[0].width_percent == 0.0
    assert histogram([], "x", "none") == "" and "<rect" in histogram([3.0], "x", "one")
    assert len(re.findall("<rect", histogram([1.0, 2.0, 2.0, math.inf], "x", "two"))) == 2


def test_every_axis_bears_numbers() -> None:
    drawn = [
        histogram([1.0, 2.0, 4.0], "x", "c"),
        loss_strip([0.0, 0.5, 1.0], "c"),
        lines([Series("s1", [(20, 1.0), (250, 2.0)])], Axis(20, 250, log=True), "x", "y", "c"),
    ]
    for chart in drawn:
        texts = re.findall(r'text-anchor="(middle|end)">[\d.]+<', chart)
        assert texts.count("middle") >= 2 and texts.count("end") >= 2, chart


def test_a_logarithmic_axis_puts_equal_ratios_at_equal_lengths() -> None:
    axis = Axis(0.25, 4.0, log=True)
    assert axis.share(1.0) == pytest.approx(0.5)
    assert axis.share(2.0) - axis.share(1.0) == pytest.approx(axis.share(1.0) - axis.share(0.5))
    assert "line s2" in strips([("a", "s2", [0.5, 2.0], 1.0)], axis, "ratio, logarithmic axis", "c")


def test_ticks_are_round_and_inside() -> None:
    assert linear_ticks(0, 10) == [0, 2, 4, 6, 8, 10]
    assert linear_ticks(0, 3, whole=True) == [0, 1, 2, 3]
    assert log_ticks(20, 300) == [20, 50, 100, 200]
    assert log_ticks(0.5, 2e9) == [1, 100, 10_000, 1e6, 1e8]


@given(st.floats(1e-9, 1e9), st.floats(1.01, 1e6))
def test_no_axis_has_more_than_a_dozen_ticks(low: float, ratio: float) -> None:
    for ticks in (linear_ticks(low, low * ratio), log_ticks(low, low * ratio)):
        assert len(ticks) <= 12 and all(low * 0.999999 <= tick <= low * ratio * 1.000001 for tick in ticks)


@pytest.mark.parametrize(
    ("share", "text"),
    [(0.63159685, "at most 63.2 %"), (0.075791622, "at most 7.58 %"), (1.0, "at most 100 %"), (0.0, "at most 0 %"),
     (0.07001, "at most 7.01 %"), (0.02, "at most 2 %"), (None, "no bound")],
)  # fmt: skip
def test_an_upper_bound_reads_at_most_and_is_never_understated(share: float | None, text: str) -> None:
    assert at_most(share).replace("\u202f", " ") == text


@given(st.floats(0.0, 1.0))
def test_a_bound_as_written_holds(share: float) -> None:
    assert float(at_most(share).split()[2].replace("\u202f%", "")) >= 100 * share - 1e-6


def test_names_are_peoples() -> None:
    assert requirement("min_psnr_10k_db") == "PSNR, peak 10 000"
    assert requirement("max_lost_fraction") == "share of tiles lost"
    assert requirement("budget: power") == "power"
    assert percent(0.000555752727).replace("\u202f", " ") == "0.0556 %"


def test_counters_at_zero_share_one_line_and_what_no_group_knows_is_still_shown() -> None:
    link = {"packets_lost": 3, "packets_lost_in_bursts": 0, "bits_flipped": 0, "storms": 7, "loss_profile": [0.1]}
    on_the_way, further = grouped(link, LINK, ["loss_profile"])
    assert on_the_way.rows == (("packets lost singly", "3", ""),)
    assert on_the_way.none == ("packets lost in fades", "bits flipped")
    assert (further.title, further.rows) == ("Further", (("storms", "7", ""),))


def test_every_table_of_the_report_states_its_basis() -> None:
    assert all(group.basis in BASES for groups in (RATE, LINK, CLOUDS) for group in groups)


def cut_short(report: Report) -> None:
    tiles = report["tiles"]
    for tile in [t for t in tiles["list"] if t["kind"] == "coded"][:7]:
        tile["incomplete"] = True
    for tile in tiles["list"]:
        tile["octets_sent"] = tile["octets_received"] + 1000
    tiles["incomplete"] = 7


def test_incomplete_tiles_stand_in_the_headline_and_on_the_map(
    example_report: Report, example_pictures: dict[str, Path], tmp_path: Path
) -> None:
    cut_short(example_report)
    _, page = written(example_report, example_pictures, tmp_path / "out")
    assert "31 of 36 tiles came down; 7 of them incomplete, cut short on the link; 2 withheld; 1 empty; 1 lost" in page
    assert "<dd>24<small> of 36</small></dd>" in page.replace("\u202f", " ") and "7 incomplete, 2 lost" in page
    assert ">incomplete 7<" in page.replace("</i>", ">") and "Octets sent" in page and "Octets received" in page


def test_what_no_figure_of_quality_counts_stands_under_the_headline(
    example_report: Report, example_pictures: dict[str, Path], tmp_path: Path
) -> None:
    example_report["clouds"]["flattened_percent"] = 11.34
    _, page = written(example_report, example_pictures, tmp_path / "out")
    assert "11.3 % of what came down is closed cloud, sent flattened: no figure of quality counts it." in page
    example_report["clouds"]["flattened_percent"] = 0.0
    _, page = written(example_report, example_pictures, tmp_path / "none")
    assert "sent flattened: no figure" not in page


def test_false_discards_and_their_bound_stand_under_the_headline(
    example_report: Report, example_pictures: dict[str, Path], tmp_path: Path
) -> None:
    audit = {
        "withheld": 2, "tiles": 36, "audited": 1, "false_discards": 1, "unknown": 0, "rate": 1.0, "lower": 0.025,
        "judged_by_persons": 1,
        "upper": 1.0, "upper_one_sided": 1.0, "destroyed_share_of_all_tiles": 0.0556, "claim": "<= 2%",
        "claim_held": False, "audits_needed": 236, "verdicts": [],
    }  # fmt: skip
    example_report["clouds"]["audit"] = audit
    _, page = written(example_report, example_pictures, tmp_path / "out")
    page = page.replace("\u202f", " ")
    said = "1 of 2 withheld tiles audited: 1 false discard; at 95 % confidence at most 100 % of withheld tiles, "
    assert said + "at most 5.56 % of all tiles, were good data." in page
    assert page.index(said) < page.index("Pictures")
    audit |= {"judged_by_persons": 0}
    _, page = written(example_report, example_pictures, tmp_path / "rule")
    assert "1 false discard, judged by a rule: no bound from above until a person has looked" in page
    assert "at most" not in page[: page.index("Pictures")]
    audit |= {"audited": 0, "false_discards": 0}
    _, page = written(example_report, example_pictures, tmp_path / "none")
    assert "None of the 2 withheld tiles was audited: false discards are unknown." in page


def test_a_table_without_its_basis_is_named(example_report: Report) -> None:
    for section in ("tiles", "link", "rate", "quality", "clouds", "measured_on_host"):
        spoilt = copy.deepcopy(example_report)
        del spoilt[section]["basis"]
        assert validate_report(spoilt) == [f"{section}.basis"]


def test_what_was_not_judged_is_called_so_and_fails_the_run(
    example_report: Report, example_pictures: dict[str, Path], tmp_path: Path
) -> None:
    example_report["checks"][0] |= {"held": False, "judged": False, "measured": None, "cause": "emulated"}
    _, page = written(example_report, example_pictures, tmp_path / "out")
    assert "✕ not judged" in page and "(not judged)" in page and not all_held(example_report)


def test_the_decoders_size_and_speed_are_on_the_page(
    example_report: Report, example_pictures: dict[str, Path], tmp_path: Path
) -> None:
    example_report["decoder"] = {"parameters": 4_213_512, "decoder_kmac_px": 68.2}
    example_report["measured_on_host"]["decoder_mpx_s"] = 0.553
    _, page = written(example_report, example_pictures, tmp_path / "out")
    for text in ("4 213 512", "68.2", "kMAC/px", "0.553"):
        assert text in page.replace("\u202f", " ")


def test_a_tile_that_was_cut_has_a_colour_and_a_mark_of_its_own() -> None:
    whole, cut = {"row": 0, "col": 0, "kind": "coded"}, {"row": 0, "col": 1, "kind": "coded", "incomplete": True}
    drawn = kind_map([whole, cut], 1, 2)
    assert [key.text for key in drawn.legend] == ["coded 1", "incomplete 1"]
    assert 'class="mark"' in drawn.svg


def test_the_terminal_tells_the_headline_first(example_report: Report, tmp_path: Path) -> None:
    report = example_report
    cut_short(report)
    keys = ("psnr_10k_db", "ssim_10k", "ndvi_mae", "sam_deg", "lpips")
    for metric, key in zip(report["quality"]["metrics"], keys, strict=True):
        metric["key"] = key
    report["measured_on_host"]["peak_rss_mib"] = 300.0
    report["inputs"]["engine"]["encoder"] = "kernel, AVX2"
    report["clouds"]["audit"] = {
        "withheld": 2, "audited": 2, "false_discards": 0, "upper_one_sided": 0.7764,
        "destroyed_share_of_all_tiles": 0.0431, "judged_by_persons": 2,
    }  # fmt: skip
    report["notes"] = ["the mission's GSD is 4.75 m, the scene's 10 m"]
    lines = as_text(report, tmp_path).splitlines()
    assert lines[0] == "held     all 4 requirements"
    text = "\n".join(lines)
    assert "2 lost" not in text and "1 lost, 1 refused = 36; 7 incomplete, cut short on the link" in text
    assert "audit    2 of 2 withheld tiles audited: 0 false discards; at 95 % confidence at most 77.7 % of" in text
    assert "ran      openvino 2026.4.1, encoder kernel, AVX2" in text
    assert "note     the mission's GSD" in text
    report["checks"][0]["held"] = False
    assert as_text(report, tmp_path).startswith("FAILED   1 of 4 requirements: PSNR of coded tiles\n")
