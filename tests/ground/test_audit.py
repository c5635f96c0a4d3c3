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
from sim.clouds.audit import Audit, Pass
from sim.metrics import intervals
from sim.metrics.intervals import Draw, binomial_upper, lower_bound, upper_bound


def binomial_cdf(k: int, n: int, p: float) -> float:
    return sum(comb(n, i) * p**i * (1 - p) ** (n - i) for i in range(k + 1))


def verdicts(clear: int, cloudy: int, unknown: int = 0, by: str = audit.PERSON) -> list[Audit]:
    names = ["clear"] * clear + ["cloudy"] * cloudy + ["unknown"] * unknown
    return [Audit("s", 0, i, 90, name, by) for i, name in enumerate(names)]


def estimate(audits: list[Audit], withheld: int, tiles: int) -> audit.Estimate:
    return audit.estimate([Pass(tuple(audits), withheld, tiles)])


def write(path: Path, audits: list[Audit], withheld: int, tiles: int, scene: str = "s") -> Path:
    report = {"inputs": {"scene": {"name": scene}}, "clouds": {"audit": audit.section(audits, withheld, tiles)}}
    path.write_text(json.dumps(report), encoding="utf-8")
    return path


@settings(deadline=None)  # a shared machine may stall any example
@given(st.integers(1, 120).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_the_bounds_are_where_the_binomial_tails_are_two_and_a_half_percent(counts: tuple[int, int]) -> None:
    failures, trials = counts
    lower, upper = intervals.clopper_pearson(failures, trials)
    assert 0.0 <= lower <= failures / trials <= upper <= 1.0
    if failures < trials:
        assert binomial_cdf(failures, trials, upper) == pytest.approx(0.025, rel=1e-6)
    if failures > 0:
        assert 1.0 - binomial_cdf(failures - 1, trials, lower) == pytest.approx(0.025, rel=1e-6)


def test_published_values() -> None:
    # none in 10: 1 - .025^(1/10) = .3085; the rule of three's exact form
    assert intervals.clopper_pearson(0, 10) == pytest.approx((0.0, 0.30850), abs=1e-5)
    # 4 of 20, a table value of Clopper and Pearson: .0573 to .4366
    assert intervals.clopper_pearson(4, 20) == pytest.approx((0.0573, 0.4366), abs=1e-4)


def test_how_many_audits_a_claim_needs() -> None:
    # none false: .98^n <= .05 -> n >= ln .05 / ln .98 = 148.3
    assert audit.audits_needed(0.02, 0.95) == 149
    for failures in (0, 1, 2, 5):
        needed = audit.audits_needed(0.02, 0.95, failures)
        assert binomial_upper(failures, needed, 0.05) <= 0.02 < binomial_upper(failures, needed - 1, 0.05)


def test_without_audits_nothing_is_claimed() -> None:
    found = estimate([], withheld=40, tiles=100)
    assert (found.rate, found.lower, found.upper, found.claim_held) == (None, 0.0, 1.0, False)
    assert found.destroyed_share_of_all_tiles == pytest.approx(0.4)


def test_doubt_counts_against_the_gate() -> None:
    found = estimate(verdicts(clear=1, cloudy=96, unknown=3), withheld=500, tiles=2000)
    assert (found.audited, found.false_discards, found.unknown) == (100, 4, 3)
    assert found.destroyed_share_of_all_tiles == pytest.approx(found.upper_one_sided * 0.25)


def test_the_interval_covers_as_often_as_it_says() -> None:
    rng = np.random.default_rng(11)
    true_rate, draws = 0.05, rng.binomial(60, 0.05, 2000)
    covered = [lo <= true_rate <= hi for lo, hi in (intervals.clopper_pearson(int(k), 60) for k in draws)]
    assert np.mean(covered) >= 0.95


def test_many_reports_make_one_estimate(tmp_path: Path) -> None:
    one = write(tmp_path / "a.json", verdicts(0, 3), 10, 30, "one")
    two = write(tmp_path / "b.json", verdicts(1, 2), 20, 50, "two")
    result = audit.audit([one, two])
    assert (result["audited"], result["false_discards"], result["withheld"], result["tiles"]) == (6, 1, 30, 80)
    assert result["upper"] == upper_bound([Draw(10, 3, 0), Draw(20, 3, 1)], 0.975)
    assert result["rate"] == pytest.approx(20 / 30 / 3)  # of the larger pass one in three, of the smaller none
    assert [r["report"] for r in result["reports"]] == ["a.json", "b.json"]
    assert "6 audits of 30 withheld tiles" in audit.as_text(result)


def test_a_rules_verdicts_bound_from_below_only(tmp_path: Path) -> None:
    """149 tiles that a rule finds cloudy prove nothing; a person's do. Three that it finds clear count at least so."""
    by_rule = estimate(verdicts(0, 149, by=audit.RULE), withheld=1000, tiles=2000)
    assert (by_rule.upper_one_sided, by_rule.claim_held, by_rule.lower) == (1.0, False, 0.0)
    assert estimate(verdicts(0, 149), withheld=1000, tiles=2000).claim_held
    assert estimate(verdicts(3, 7, by=audit.RULE), 100, 200).lower == intervals.clopper_pearson(3, 10)[0]
    report = write(tmp_path / "a.json", verdicts(0, 3, by=audit.RULE), 10, 30)
    assert "none from above" in audit.as_text(audit.audit([report]))


def test_doubt_does_not_raise_the_lower_bound() -> None:
    assert estimate(verdicts(0, 5, unknown=5), 100, 200).lower == 0.0


def test_what_only_some_persons_judged_counts_as_false_where_none_did() -> None:
    half = [*verdicts(0, 5), *verdicts(0, 5, by=audit.RULE)]
    found = estimate(half, 100, 200)
    assert found.by_persons == 5 and found.upper_one_sided == binomial_upper(5, 10, 0.05)


def world(kind: str, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Withheld tiles and false discards of 60 passes."""
    if kind == "alike":
        withheld, rate = np.full(60, 40), np.full(60, 0.05)
    elif kind == "ten per cent snow":
        snow = rng.random(60) < 0.1
        withheld, rate = np.where(snow, 400, rng.integers(5, 30, 60)), np.where(snow, 0.5, 0.005)
    elif kind == "few withheld":
        withheld, rate = rng.integers(0, 6, 60), np.full(60, 0.1)
    elif kind == "hardly ever":
        withheld, rate = rng.integers(50, 300, 60), np.full(60, 0.002)
    else:
        withheld, rate = rng.integers(1, 500, 60), rng.beta(0.2, 2.0, 60)
    return withheld, rng.binomial(withheld, rate)


KINDS = ("alike", "ten per cent snow", "few withheld", "hardly ever", "every pass another")


def coverage(kind: str, worlds: int) -> tuple[float, float]:
    """Shares of worlds in which the upper and the lower bound held, three thumbnails a pass whatever was withheld."""
    rng, above, below = np.random.default_rng(26), 0, 0
    for _ in range(worlds):
        withheld, false = world(kind, rng)
        drawn = np.minimum(3, withheld)
        seen = rng.hypergeometric(false, withheld - false, drawn)
        draws = [Draw(*map(int, row)) for row in zip(withheld, drawn, seen, strict=True)]
        truth = false.sum() / withheld.sum()
        above, below = above + (upper_bound(draws) >= truth), below + (lower_bound(draws) <= truth)
    return above / worlds, below / worlds


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_the_bounds_cover_the_truth_in_ninety_five_of_a_hundred_worlds(kind: str) -> None:
    above, below = coverage(kind, 400)
    assert above >= 0.95 and below >= 0.95


def test_passes_full_of_snow_do_not_hide_behind_many_small_ones() -> None:
    """Pooled as one sample, the bound lay below the truth in 395 of 400 such worlds."""
    assert min(coverage("ten per cent snow", 20)) >= 0.95


def test_passes_that_lie_in_proportion_give_the_exact_bound() -> None:
    even = [Draw(40, 4, 1), Draw(20, 2, 0), Draw(60, 6, 0)]
    assert upper_bound(even) == binomial_upper(1, 12, 0.05)
    assert lower_bound(even) == pytest.approx(1 - binomial_upper(11, 12, 0.05))


def test_a_stratified_bound_is_wider_and_a_pass_without_a_draw_counts_in_full() -> None:
    assert upper_bound([Draw(40, 3, 0), Draw(41, 3, 0)]) > binomial_upper(0, 6, 0.05)
    assert upper_bound([Draw(50, 49, 0), Draw(50, 0, 0)]) == pytest.approx(0.5 + 0.5 * (1 - 0.05 ** (1 / 49)), abs=0.01)
    assert lower_bound([Draw(50, 0, 0), Draw(50, 3, 0)]) == pytest.approx(0.0, abs=1e-9)
    assert upper_bound([]) == upper_bound([Draw(9, 0, 0)]) == 1.0


def test_more_found_than_drawn_is_refused() -> None:
    with pytest.raises(InputError, match="3 found of 2 drawn"):
        Draw(9, 2, 3)


def test_a_person_overrules_the_rule(tmp_path: Path) -> None:
    report = write(tmp_path / "a.json", verdicts(1, 2), 10, 30)
    sheet = tmp_path / "verdicts.csv"
    sheet.write_text("scene,row,col,verdict\ns,0,0,cloudy\n", encoding="utf-8")
    assert audit.audit([report])["false_discards"] == 1
    assert audit.audit([report], sheet)["false_discards"] == 0
    sheet.write_text("scene,row,col,verdict\ns,0,0,maybe\n", encoding="utf-8")
    with pytest.raises(InputError, match="'maybe'"):
        audit.audit([report], sheet)


@pytest.mark.parametrize(("text", "cause"), [("{}", "no audit"), ("[", "not valid JSON"), ("[1]", "no audit")])
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
