"""`hil compare`: thresholds, equality of the tile codes, exit codes, JUnit and CSV."""

import csv
import dataclasses
import io
from xml.etree import ElementTree

import pytest
from typer.testing import CliRunner

from hil.cli import app
from hil.profiles.comparison import as_csv, as_junit, judge, read_threshold
from hil.profiles.profile_file import (
    FORMAT,
    BenchProfile,
    KindTimes,
    Performance,
    ProfiledDevice,
    Spread,
    load_profile,
    save_profile,
)
from payload.errors import InputError


def made_up(p50_s=0.010, sha256="ab" * 32, **changes):
    """A profile of twenty coded tiles and five withheld ones."""
    coded, withheld = Spread.of([p50_s] * 20), Spread.of([0.001] * 5)
    performance = Performance(
        "measured", 1, Spread.of([p50_s] * 20 + [0.001] * 5), {"encode": coded}, 0.5, 6.0, 5.9, 2.0, 200.0, {},
        (p50_s,) * 20 + (0.001,) * 5, ("coded",) * 20 + ("withheld",) * 5,
        {"coded": KindTimes(20, coded, {}), "withheld": KindTimes(5, withheld, {})}, 0.065536 / p50_s,
    )  # fmt: skip
    device = ProfiledDevice("host:", "x86_64", "cpu", 2, 1000, "Linux", "3.11", "openvino 1", 1)
    made = BenchProfile(FORMAT, "2026-01-01T00:00:00Z", "c0de", "edge", 7, 256, device, 25, sha256, performance)
    return dataclasses.replace(made, **changes)


@pytest.fixture
def files(tmp_path):
    def write(*profiles):
        paths = [tmp_path / f"{k}.json" for k in range(len(profiles))]
        for profile, path in zip(profiles, paths, strict=True):
            save_profile(profile, path)
        return [str(path) for path in paths]

    return write


def compare(*arguments):
    return CliRunner().invoke(app, ["compare", *arguments], catch_exceptions=False)


def test_unequal_tile_codes_fail_and_are_said(files):
    """The tree before showed them side by side, said nothing and exited 0."""
    equal, other = compare(*files(made_up(), made_up())), compare(*files(made_up(), made_up(sha256="cd" * 32)))
    assert (equal.exit_code, other.exit_code) == (0, 1)
    assert "FAILED" in other.output and "tile codes equal the first's" in other.output


def test_codes_of_other_tiles_or_another_bundle_are_not_held_against_each_other(files):
    assert compare(*files(made_up(), made_up(sha256="cd" * 32, bundle_id=8))).exit_code == 0
    assert compare(*files(made_up(), made_up(sha256="cd" * 32, tiles=24))).exit_code == 0


@pytest.mark.parametrize(
    ("threshold", "code"),
    [("p50<=1.1", 1), ("p50<=1.3", 0), ("coded_mpx_s>=0.9", 1), ("coded_mpx_s>=0.8", 0), ("net_mj<=2", 1)],
)
def test_a_threshold_decides_the_exit_code(threshold, code, files):
    """The second device takes 12 ms a coded tile, the first 10; neither has energy, and what is missing is not held."""
    assert compare(*files(made_up(), made_up(0.012)), "--threshold", threshold).exit_code == code


@pytest.mark.parametrize("text", ["", "p50", "p50<1", "p51<=1", "p50<=x", "p50<=0", "p50<=inf", "p50<=-1"])
def test_a_threshold_that_is_none_is_refused(text):
    with pytest.raises(InputError, match="wanted FIGURE<=FACTOR"):
        read_threshold(text)


def test_junit_has_a_case_for_each_verdict_and_a_failure_where_it_failed(files, tmp_path):
    out = tmp_path / "found.xml"
    done = compare(*files(made_up(), made_up(0.012)), "--threshold", "p50<=1.1", "--junit", str(out))
    suite = ElementTree.parse(out).getroot()
    assert done.exit_code == 1
    assert (suite.tag, suite.get("tests"), suite.get("failures")) == ("testsuite", "2", "1")
    failed = [case for case in suite if case.find("failure") is not None]
    assert [case.get("name") for case in failed] == ["p50 <= 1.1 x the first"]
    assert "1.2 x the first" in failed[0].find("failure").get("message")


def test_csv_has_a_column_for_each_profile_in_full_precision():
    profiles = [made_up(1 / 3), made_up(0.5)]
    rows = {row[0]: row[1:] for row in csv.reader(io.StringIO(as_csv(profiles, ["a", "b,c"])))}
    assert rows["figure"] == ["a", "b,c"]
    assert [float(cell) for cell in rows["coded tile p50, ms"]] == [1e3 / 3, 500.0]
    assert rows["net mJ/tile"] == ["", ""]


def test_names_with_markup_stay_inside_the_xml():
    found = as_junit(judge([made_up(), made_up()], ["a", '<b> & "c"'], []))
    assert ElementTree.fromstring(found.partition("\n")[2])[0].get("classname") == '<b> & "c"'


def test_a_profile_of_format_1_is_still_read(tmp_path):
    """As the tree before wrote it: no kinds, percentiles of however few tiles."""
    path = tmp_path / "old.json"
    save_profile(made_up(), path)
    text = path.read_text().replace('"format": 3', '"format": 1')
    path.write_text(text)
    assert load_profile(path).format == 1
