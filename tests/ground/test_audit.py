"""The audit channel: exact intervals against closed forms and enumeration, reports in, one estimate out."""

import json
from math import comb
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from payload.errors import InputError
from sim.clouds import audit
from sim.clouds.audit import Audit


def binomial_cdf(k: int, n: int, p: float) -> float:
    return sum(comb(n, i) * p**i * (1 - p) ** (n - i) for i in range(k + 1))


def verdicts(clear: int, cloudy: int, unknown: int = 0) -> list[Audit]:
    names = ["clear"] * clear + ["cloudy"] * cloudy + ["unknown"] * unknown
    return [Audit("s", 0, i, 90, name) for i, name in enumerate(names)]


def write(path: Path, audits: list[Audit], withheld: int, tiles: int, scene: str = "s") -> Path:
    report = {"inputs": {"scene": {"name": scene}}, "clouds": {"audit": audit.section(audits, withheld, tiles)}}
    path.write_text(json.dumps(report), encoding="utf-8")
    return path


@settings(deadline=None)  # a shared machine may stall any example
@given(st.integers(1, 120).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_the_bounds_are_where_the_binomial_tails_are_two_and_a_half_percent(counts: tuple[int, int]) -> None:
    failures, trials = counts
    lower, upper = audit.clopper_pearson(failures, trials)
    assert 0.0 <= lower <= failures / trials <= upper <= 1.0
    if failures < trials:
        assert binomial_cdf(failures, trials, upper) == pytest.approx(0.025, rel=1e-6)
    if failures > 0:
        assert 1.0 - binomial_cdf(failures - 1, trials, lower) == pytest.approx(0.025, rel=1e-6)


def test_published_values() -> None:
    # none in 10: 1 - .025^(1/10) = .3085; the rule of three's exact form
    assert audit.clopper_pearson(0, 10) == pytest.approx((0.0, 0.30850), abs=1e-5)
    # 4 of 20, a table value of Clopper and Pearson: .0573 to .4366
    assert audit.clopper_pearson(4, 20) == pytest.approx((0.0573, 0.4366), abs=1e-4)


def test_how_many_audits_a_claim_needs() -> None:
    # none false: .98^n <= .05 -> n >= ln .05 / ln .98 = 148.3
    assert audit.audits_needed(0.02, 0.95) == 149
    for failures in (0, 1, 2, 5):
        needed = audit.audits_needed(0.02, 0.95, failures)
        assert audit.upper_bound(failures, needed) <= 0.02 < audit.upper_bound(failures, needed - 1)


def test_without_audits_nothing_is_claimed() -> None:
    found = audit.estimate([], withheld=40, tiles=100)
    assert (found.rate, found.lower, found.upper, found.claim_held) == (None, 0.0, 1.0, False)
    assert found.destroyed_share_of_all_tiles == pytest.approx(0.4)


def test_doubt_counts_against_the_gate() -> None:
    found = audit.estimate(verdicts(clear=1, cloudy=96, unknown=3), withheld=500, tiles=2000)
    assert (found.audited, found.false_discards, found.unknown) == (100, 4, 3)
    assert found.destroyed_share_of_all_tiles == pytest.approx(found.upper_one_sided * 0.25)


def test_the_interval_covers_as_often_as_it_says() -> None:
    rng = np.random.default_rng(11)
    true_rate, draws = 0.05, rng.binomial(60, 0.05, 2000)
    covered = [lo <= true_rate <= hi for lo, hi in (audit.clopper_pearson(int(k), 60) for k in draws)]
    assert np.mean(covered) >= 0.95


def test_many_reports_make_one_estimate(tmp_path: Path) -> None:
    one = write(tmp_path / "a.json", verdicts(0, 3), 10, 30, "one")
    two = write(tmp_path / "b.json", verdicts(1, 2), 20, 50, "two")
    result = audit.audit([one, two])
    assert (result["audited"], result["false_discards"], result["withheld"], result["tiles"]) == (6, 1, 30, 80)
    assert result["upper"] == audit.clopper_pearson(1, 6)[1]
    assert [r["report"] for r in result["reports"]] == ["a.json", "b.json"]
    assert "6 audits of 30 withheld tiles" in audit.as_text(result)


def test_a_person_overrules_the_rule(tmp_path: Path) -> None:
    report = write(tmp_path / "a.json", verdicts(1, 2), 10, 30)
    sheet = tmp_path / "verdicts.csv"
    sheet.write_text("scene,row,col,verdict\ns,0,0,cloudy\n", encoding="utf-8")
    assert audit.audit([report])["false_discards"] == 1
    assert audit.audit([report], sheet)["false_discards"] == 0
    sheet.write_text("scene,row,col,verdict\ns,0,0,maybe\n", encoding="utf-8")
    with pytest.raises(InputError, match="'maybe'"):
        audit.audit([report], sheet)


@pytest.mark.parametrize(("text", "cause"), [("{}", "no audit"), ("[", "not readable"), ("[1]", "no audit")])
def test_what_is_no_report_is_refused_in_a_line(tmp_path: Path, text: str, cause: str) -> None:
    path = tmp_path / "report.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=cause):
        audit.audit([path])


def test_no_report_at_all_is_refused() -> None:
    with pytest.raises(InputError, match="at least one"):
        audit.audit([])


def test_a_thumbnail_is_judged_by_a_rule_that_is_not_the_gate() -> None:
    known = np.ones((8, 8), bool)
    white = np.full((4, 8, 8), 6000, np.uint16)
    field = np.broadcast_to(np.array([500, 800, 700, 3000], np.uint16)[:, None, None], (4, 8, 8))
    assert audit.judge_thumbnail(white, known) == "cloudy"
    assert audit.judge_thumbnail(field, known) == "clear"
    assert audit.judge_thumbnail(white, np.zeros((8, 8), bool)) == "unknown"
