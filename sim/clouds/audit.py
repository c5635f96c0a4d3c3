"""The audit channel on the ground: thumbnails of withheld tiles -> what share of the gate's discards was good data.

Every pass sends a few withheld tiles, drawn with a seed, as thumbnails (payload/pipeline.py). Somebody, a person or a
rule that does not share the gate's network, says of each whether it was clear. From that follows an exact binomial
interval (Clopper and Pearson 1934): no normal approximation, right also where not one false discard was seen.

    q = false discards / withheld tiles              what the audits estimate, unbiased because the draw is uniform
    q x withheld / all tiles                         what the gate destroys, as a share of everything imaged
"""

import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil, log
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import beta

from payload.errors import InputError
from sim.clouds.rules import braaten_cohen_yang
from sim.toml_tables import read_json

VERDICTS = ("clear", "cloudy", "unknown")
#: A withheld tile is a false discard when at most this share of it is cloud; the gate's own line, drawn by the judge.
CLEAR_UP_TO = 0.7
LIMIT, CONFIDENCE = 0.02, 0.95


@dataclass(frozen=True)
class Audit:
    """The verdict on one audited tile. `scene` tells tiles of several reports apart."""

    scene: str
    row: int
    col: int
    cloud_percent: int
    verdict: str

    def __post_init__(self) -> None:
        if self.verdict not in VERDICTS:
            known = ", ".join(VERDICTS)
            raise InputError(f"verdict {self.verdict!r} on tile {self.row}, {self.col}; choose one of {known}")


@dataclass(frozen=True)
class Estimate:
    """What a number of audits says about the gate. Rates are of withheld tiles unless the name says otherwise."""

    audited: int
    false_discards: int  # unknown verdicts count as false: the bound must not profit from doubt
    unknown: int
    withheld: int
    tiles: int
    lower: float  # two-sided interval at CONFIDENCE
    upper: float
    upper_one_sided: float  # the claim: no more than this, at CONFIDENCE
    audits_needed: int | None  # in all, for the claim "<= LIMIT", if no further false discard turns up

    @property
    def rate(self) -> float | None:
        return self.false_discards / self.audited if self.audited else None

    @property
    def destroyed_share_of_all_tiles(self) -> float:
        """Upper bound on the share of all imaged tiles that was good and is gone."""
        return self.upper_one_sided * self.withheld / self.tiles if self.tiles else 0.0

    @property
    def claim_held(self) -> bool:
        return self.upper_one_sided <= LIMIT


def clopper_pearson(failures: int, trials: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Exact two-sided interval for a binomial rate; (0, 1) without trials."""
    if not 0 <= failures <= trials:
        raise InputError(f"{failures} false discards among {trials} audits, wanted at most as many as audits")
    tail = (1.0 - confidence) / 2.0
    return _lower(failures, trials, tail), _upper(failures, trials, tail)


def upper_bound(failures: int, trials: int, confidence: float = CONFIDENCE) -> float:
    """Exact one-sided upper bound: at a higher rate so few failures would be rarer than 1 - confidence."""
    return _upper(failures, trials, 1.0 - confidence)


def _upper(failures: int, trials: int, tail: float) -> float:
    return 1.0 if failures == trials else float(beta.ppf(1.0 - tail, failures + 1, trials - failures))


def _lower(failures: int, trials: int, tail: float) -> float:
    return 0.0 if failures == 0 else float(beta.ppf(tail, failures, trials - failures + 1))


def audits_needed(limit: float = LIMIT, confidence: float = CONFIDENCE, failures: int = 0) -> int:
    """Least number of audits with `failures` false discards among them that bears the claim "rate <= limit"."""
    if not 0.0 < limit < 1.0 or not 0.0 < confidence < 1.0:
        raise InputError(f"limit {limit}, confidence {confidence}; wanted both between 0 and 1")
    low, high = failures, max(failures + 1, ceil(log(1.0 - confidence) / log(1.0 - limit)))
    while upper_bound(failures, high, confidence) > limit:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if upper_bound(failures, middle, confidence) <= limit else (middle, high)
    return high


def estimate(audits: Sequence[Audit], withheld: int, tiles: int) -> Estimate:
    """From verdicts to an interval."""
    false = sum(a.verdict != "cloudy" for a in audits)
    interval = clopper_pearson(false, len(audits))
    return Estimate(
        len(audits), false, sum(a.verdict == "unknown" for a in audits), withheld, tiles, *interval,
        upper_bound(false, len(audits)), audits_needed(failures=false),
    )  # fmt: skip


def judge_thumbnail(dn: NDArray[np.uint16], known: NDArray[np.bool_]) -> str:
    """A verdict without the gate's network: a published rule on the colours, 'unknown' where little arrived.

    dn [4, T, T] as decoded on the ground; known [T, T].
    """
    if known.mean() < 0.5:
        return "unknown"
    cloudy = braaten_cohen_yang(dn)[known].mean()
    return "cloudy" if cloudy > CLEAR_UP_TO else "clear"


def section(audits: Sequence[Audit], withheld: int, tiles: int) -> dict[str, Any]:
    """What a report holds under clouds.audit; `sim audit` reads it back."""
    return {
        "withheld": withheld,
        "tiles": tiles,
        "verdicts": [{key: getattr(a, key) for key in ("row", "col", "cloud_percent", "verdict")} for a in audits],
        **_figures(estimate(audits, withheld, tiles)),
    }


def _figures(found: Estimate) -> dict[str, Any]:
    return {
        "audited": found.audited,
        "false_discards": found.false_discards,
        "unknown": found.unknown,
        "rate": found.rate,
        "lower": found.lower,
        "upper": found.upper,
        "upper_one_sided": found.upper_one_sided,
        "destroyed_share_of_all_tiles": found.destroyed_share_of_all_tiles,
        "claim": f"<= {LIMIT:.0%} of withheld tiles at {CONFIDENCE:.0%}",
        "claim_held": found.claim_held,
        "audits_needed": found.audits_needed,
    }


def read_report(path: Path, verdicts: Mapping[tuple[str, int, int], str]) -> tuple[list[Audit], int, int]:
    """Audits, withheld tiles and all tiles of one report.json; `verdicts` by (scene, row, col) overrule its own."""
    try:
        report = read_json(path, "a report.json of sim downlink")
        held = report["clouds"]["audit"]
        scene = str(report["inputs"]["scene"]["name"])
        audits = []
        for row in held["verdicts"]:
            place = scene, int(row["row"]), int(row["col"])
            audits.append(Audit(*place, int(row["cloud_percent"]), verdicts.get(place, row["verdict"])))
        return audits, int(held["withheld"]), int(held["tiles"])
    except (OSError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: not readable as a report ({error}); give a report.json") from None
    except (KeyError, TypeError) as error:
        raise InputError(f"{path}: no audit in it ({error}); run again with gate.audit_count above 0") from None


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
    per_report, everything, withheld, tiles = [], [], 0, 0
    for path in reports:
        audits, held, total = read_report(path, verdicts)
        name = path.parent.name if path.name == "report.json" else path.name
        per_report.append({"report": name} | section(audits, held, total))
        everything += audits
        withheld, tiles = withheld + held, tiles + total
    if not per_report:
        raise InputError("no report given; wanted at least one report.json")
    found = estimate(everything, withheld, tiles)
    return {"reports": per_report, "withheld": withheld, "tiles": tiles} | _figures(found)


def as_text(result: Mapping[str, Any]) -> str:
    """A few lines for the terminal."""
    reports, needed = len(result["reports"]), result["audits_needed"]
    if result["audited"] == 0:
        return f"no audit in {reports} reports; {needed} audits without a false discard would bear the claim"
    audited = f"{result['audited']} audits of {result['withheld']} withheld tiles ({result['tiles']} imaged)"
    interval = f"{result['lower']:.1%} to {result['upper']:.1%} (Clopper-Pearson, {CONFIDENCE:.0%})"
    lines = [
        f"{audited} in {reports} reports",
        f"{result['false_discards']} false discards, {result['unknown']} of them for want of a verdict",
        f"false-discard rate {result['rate']:.1%}, interval {interval}",
        f"good data destroyed: at most {result['destroyed_share_of_all_tiles']:.2%} of all tiles at {CONFIDENCE:.0%}",
        f"claim {result['claim']}: {'held' if result['claim_held'] else 'not yet'}; "
        f"needs {needed} audits in all if no further false discard turns up",
    ]
    return "\n".join(lines)
