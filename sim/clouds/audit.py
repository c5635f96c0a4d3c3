"""The audit channel on the ground: thumbnails of withheld tiles -> what share of the gate's discards was good data.

Every pass sends a few withheld tiles, drawn with a seed, as thumbnails (payload/pipeline.py). Of each somebody says
whether it was clear:

- a rule on the colours. It does not share the gate's network, yet both look at colours and can err together. What it
  finds clear bounds the false discards from below; what it finds cloudy proves nothing.
- a person, in a file of verdicts (`sim audit --verdicts`). Only persons' verdicts bound them from above: a tile that no
  person has judged counts as a false discard there.

The passes are strata with a draw of their own (sim/metrics/intervals.py):

    q = false discards / withheld tiles              what the audits estimate, each pass by its share of withheld tiles
    q x withheld / all tiles                         what the gate destroys, as a share of everything imaged
"""

import csv
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil, log
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from payload.errors import InputError
from sim.clouds.other_detectors import braaten_cohen_yang
from sim.metrics.intervals import CONFIDENCE, Draw, binomial_upper, lower_bound, share, upper_bound
from sim.toml_tables import read_json

VERDICTS = ("clear", "cloudy", "unknown")
RULE, PERSON = "rule", "person"
#: A withheld tile is a false discard when at most this share of it is cloud; the gate's own line, drawn by the judge.
CLEAR_UP_TO = 0.7
LIMIT = 0.02


@dataclass(frozen=True)
class Audit:
    """The verdict on one audited tile. `scene` tells tiles of several reports apart."""

    scene: str
    row: int
    col: int
    cloud_percent: int
    verdict: str
    by: str = RULE  # who judged it

    def __post_init__(self) -> None:
        if self.verdict not in VERDICTS:
            known = ", ".join(VERDICTS)
            raise InputError(f"verdict {self.verdict!r} on tile {self.row}, {self.col}; choose one of {known}")


@dataclass(frozen=True)
class Pass:
    """The audits of one report, out of its withheld tiles; `tiles` are all that were imaged."""

    audits: tuple[Audit, ...]
    withheld: int
    tiles: int

    def draw(self, counts: Callable[[Audit], bool]) -> Draw:
        """The pass as a sample in which the audits that `counts` names were found."""
        return Draw(max(self.withheld, len(self.audits)), len(self.audits), sum(map(counts, self.audits)))


@dataclass(frozen=True)
class Estimate:
    """What a number of audits says about the gate. Rates are of withheld tiles unless the name says otherwise."""

    audited: int
    false_discards: int  # unknown verdicts count as false: nothing may profit from doubt
    unknown: int
    by_persons: int  # audits that a person judged
    withheld: int
    tiles: int
    rate: float | None
    lower: float  # two-sided interval at CONFIDENCE; only what was found clear counts here
    upper: float  # what no person found cloudy counts as a false discard
    upper_one_sided: float  # the claim: no more than this, at CONFIDENCE
    audits_needed: int | None  # in all, in proportion, for the claim "<= LIMIT" without a further false discard

    @property
    def destroyed_share_of_all_tiles(self) -> float:
        """Upper bound on the share of all imaged tiles that was good and is gone."""
        return self.upper_one_sided * self.withheld / self.tiles if self.tiles else 0.0

    @property
    def claim_held(self) -> bool:
        return self.upper_one_sided <= LIMIT


def audits_needed(limit: float = LIMIT, confidence: float = CONFIDENCE, failures: int = 0) -> int:
    """Least number of audits with `failures` false discards among them that bears the claim "rate <= limit"."""
    if not 0.0 < limit < 1.0 or not 0.0 < confidence < 1.0:
        raise InputError(f"limit {limit}, confidence {confidence}; wanted both between 0 and 1")
    low, high = failures, max(failures + 1, ceil(log(1.0 - confidence) / log(1.0 - limit)))
    while binomial_upper(failures, high, 1.0 - confidence) > limit:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if binomial_upper(failures, middle, 1.0 - confidence) <= limit else (middle, high)
    return high


def estimate(passes: Sequence[Pass]) -> Estimate:
    """From verdicts to bounds."""
    audits = [audit for one in passes for audit in one.audits]
    doubtful = [one.draw(lambda a: a.verdict != "cloudy") for one in passes]
    clear = [one.draw(lambda a: a.verdict == "clear") for one in passes]
    unproven = [one.draw(lambda a: a.verdict != "cloudy" or a.by != PERSON) for one in passes]
    false, one_tail = sum(draw.found for draw in doubtful), (1.0 + CONFIDENCE) / 2.0
    return Estimate(
        len(audits), false, sum(a.verdict == "unknown" for a in audits), sum(a.by == PERSON for a in audits),
        sum(one.withheld for one in passes), sum(one.tiles for one in passes), share(doubtful),
        lower_bound(clear, one_tail), upper_bound(unproven, one_tail), upper_bound(unproven),
        audits_needed(failures=false),
    )  # fmt: skip


def judge_thumbnail(dn: NDArray[np.uint16], known: NDArray[np.bool_]) -> str:
    """A verdict without the gate's network: a published rule on the colours, 'unknown' where little arrived.

    dn [4, T, T] as decoded on the ground; known [T, T].
    """
    if known.mean() < 0.5:
        return "unknown"
    cloudy = braaten_cohen_yang(dn)[known].mean()
    return "cloudy" if cloudy > CLEAR_UP_TO else "clear"


_VERDICT = ("row", "col", "cloud_percent", "verdict", "by")


def section(audits: Sequence[Audit], withheld: int, tiles: int) -> dict[str, Any]:
    """What a report holds under clouds.audit; `sim audit` reads it back."""
    return {
        "basis": "measured: verdicts of a rule or of persons on thumbnails; assumed: the claim",
        "withheld": withheld,
        "tiles": tiles,
        "verdicts": [{key: getattr(a, key) for key in _VERDICT} for a in audits],
        **_figures(estimate([Pass(tuple(audits), withheld, tiles)])),
    }


def _figures(found: Estimate) -> dict[str, Any]:
    return {
        "audited": found.audited,
        "false_discards": found.false_discards,
        "unknown": found.unknown,
        "judged_by_persons": found.by_persons,
        "rate": found.rate,
        "lower": found.lower,
        "upper": found.upper,
        "upper_one_sided": found.upper_one_sided,
        "destroyed_share_of_all_tiles": found.destroyed_share_of_all_tiles,
        "claim": f"<= {LIMIT:.0%} of withheld tiles at {CONFIDENCE:.0%}",
        "claim_held": found.claim_held,
        "audits_needed": found.audits_needed,
    }


def read_report(path: Path, verdicts: Mapping[tuple[str, int, int], str]) -> Pass:
    """The audits of one report.json; `verdicts` of persons, by (scene, row, col), overrule its own."""
    try:
        report = read_json(path, "a report.json of sim downlink")
        held = report["clouds"]["audit"]
        scene = str(report["inputs"]["scene"]["name"])
        audits = tuple(_audit(row, scene, verdicts) for row in held["verdicts"])
        return Pass(audits, int(held["withheld"]), int(held["tiles"]))
    except (OSError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: not readable as a report ({error}); give a report.json") from None
    except (KeyError, TypeError) as error:
        raise InputError(f"{path}: no audit in it ({error}); run again with gate.audit_count above 0") from None


def _audit(row: Mapping[str, Any], scene: str, verdicts: Mapping[tuple[str, int, int], str]) -> Audit:
    place = scene, int(row["row"]), int(row["col"])
    told, by = (verdicts[place], PERSON) if place in verdicts else (row["verdict"], row.get("by", RULE))
    return Audit(*place, int(row["cloud_percent"]), told, by)


def read_verdicts(path: Path) -> dict[tuple[str, int, int], str]:
    """Verdicts of a person: CSV with the columns scene, row, col, verdict."""
    try:
        with path.open(newline="", encoding="utf-8") as sheet:
            rows = list(csv.DictReader(sheet))
        found = {(r["scene"], int(r["row"]), int(r["col"])): r["verdict"] for r in rows}
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path}: no list of verdicts ({error}); wanted CSV with scene, row, col, verdict") from None
    wrong = sorted({v for v in found.values() if v not in VERDICTS})
    if wrong:
        raise InputError(f"{path}: verdict {wrong[0]!r}; choose one of {', '.join(VERDICTS)}")
    return found


def audit(reports: Iterable[Path], verdict_file: Path | None = None) -> dict[str, Any]:
    """`sim audit`: one estimate over many reports, and what each of them contributes. InputError if none is given."""
    verdicts = read_verdicts(verdict_file) if verdict_file else {}
    per_report, passes = [], []
    for path in reports:
        one = read_report(path, verdicts)
        name = path.parent.name if path.name == "report.json" else path.name
        per_report.append({"report": name} | section(one.audits, one.withheld, one.tiles))
        passes.append(one)
    if not per_report:
        raise InputError("no report given; wanted at least one report.json")
    found = estimate(passes)
    return {"reports": per_report, "withheld": found.withheld, "tiles": found.tiles} | _figures(found)


def as_text(result: Mapping[str, Any]) -> str:
    """A few lines for the terminal."""
    reports, needed = len(result["reports"]), result["audits_needed"]
    if result["audited"] == 0:
        return f"no audit in {reports} reports; {needed} audits without a false discard would bear the claim"
    audited = f"{result['audited']} audits of {result['withheld']} withheld tiles ({result['tiles']} imaged)"
    return "\n".join([
        f"{audited} in {reports} reports",
        f"{result['false_discards']} false discards, {result['unknown']} of them for want of a verdict; "
        f"{result['judged_by_persons']} judged by a person, the others by a rule",
        f"false-discard rate {result['rate']:.1%}, each report by its withheld tiles",
        *_bounds(result),
    ])  # fmt: skip


def _bounds(result: Mapping[str, Any]) -> list[str]:
    lower = f"at least {result['lower']:.1%}"
    if not result["judged_by_persons"]:
        return [
            f"bound at {CONFIDENCE:.0%}: {lower}; none from above, as no person has judged a thumbnail",
            f"claim {result['claim']}: not yet; give persons' verdicts with --verdicts",
        ]
    return [
        f"interval {lower} to at most {result['upper']:.1%} ({CONFIDENCE:.0%}); what no person judged counts as false",
        f"good data destroyed: at most {result['destroyed_share_of_all_tiles']:.2%} of all tiles at {CONFIDENCE:.0%}",
        f"claim {result['claim']}: {'held' if result['claim_held'] else 'not yet'}; needs {result['audits_needed']} "
        "audits in all, drawn in proportion, if no further false discard turns up",
    ]
