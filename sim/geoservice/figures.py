"""Readings -> one figure a site, indicator and period, and its state: alert or calm, with hysteresis and verdicts.

A figure's name is a digest of the site, the indicator's rule, the period, the value, and the digests of its runs.
"""

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Literal

from sim.geoservice.readings import Reading
from sim.geoservice.runs import Run
from sim.geoservice.service import Combine, Indicator, Period, Service
from sim.geoservice.verdicts import Verdict, standing

State = Literal["alert", "unconfirmed", "calm", "not seen"]
#: The worst first.
STATES: tuple[State, ...] = ("alert", "unconfirmed", "calm", "not seen")


@dataclass(frozen=True)
class Figure:
    """`value` None: not seen in the period. `begins`: the figure with which an alert begins. `verdict`: accept, reject,
    or nothing yet."""

    name: str
    site: str
    indicator: str
    period: str
    value: float | None
    readings: tuple[Reading, ...]
    state: State = "not seen"
    begins: bool = False
    verdict: str = ""
    comments: tuple[str, ...] = field(default=())

    @property
    def runs(self) -> list[int]:
        return sorted({reading.run for reading in self.readings})

    @property
    def waits(self) -> bool:
        """Whether it is for the moderator to say."""
        return self.state == "unconfirmed" and not self.verdict


def figures_of(
    service: Service, readings: Sequence[Reading], runs: Sequence[Run], verdicts: Sequence[Verdict]
) -> list[Figure]:
    """All of them by site, indicator and period, in the order of time."""
    digests = {run.number: run.digest for run in runs}
    lines: dict[tuple[str, str], dict[str, list[Reading]]] = defaultdict(lambda: defaultdict(list))
    for reading in sorted(readings, key=lambda one: (one.at, one.run)):
        lines[reading.site, reading.indicator][period_of(reading.at, service.period)].append(reading)
    found: list[Figure] = []
    for (site, name), periods in lines.items():
        indicator = service.indicators[name]
        bare = [_figure(site, name, indicator, period, said, digests) for period, said in periods.items()]
        found += _with_states(bare, indicator, service.moderated, verdicts)
    return found


def period_of(at: datetime, period: Period) -> str:
    """2026-04-18T10:51:07Z, 2026-04, 2026-Q2 or 2026."""
    if period == "pass":
        return at.strftime("%Y-%m-%dT%H:%M:%SZ")
    if period == "quarter":
        return f"{at.year:04d}-Q{(at.month + 2) // 3}"
    return at.strftime("%Y-%m" if period == "month" else "%Y")


def combined(values: Sequence[float], how: Combine) -> float | None:
    """The figure of a period from those of its passes, in the order of time; None where there are none."""
    if not values:
        return None
    if how == "last":
        return values[-1]
    total = sum(values)
    return {"mean": total / len(values), "sum": total, "max": max(values), "min": min(values)}[how]


def _figure(
    site: str, name: str, indicator: Indicator, period: str, said: Sequence[Reading], digests: Mapping[int, str]
) -> Figure:
    value = combined([one.value for one in said if one.value is not None], indicator.over_passes)
    told = [site, name, asdict(indicator), period, value, sorted({digests[one.run] for one in said})]
    digest = hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()
    return Figure(digest[:12], site, name, period, value, tuple(said))


def _with_states(
    figures: Sequence[Figure], indicator: Indicator, moderated: bool, verdicts: Sequence[Verdict]
) -> Iterator[Figure]:
    """States in the order of time. A figure that was not seen leaves the state; one that was rejected counts as not
    seen. An alert is confirmed from the first figure of it that was accepted."""
    words = standing(verdicts)
    alert = confirmed = False
    for figure in figures:
        word = words[figure.name].verdict if figure.name in words else ""
        before = alert
        if figure.value is not None and word != "reject":
            alert = turned(alert, figure.value, indicator)
        confirmed = alert and (confirmed or word == "accept" or not moderated)
        unseen = figure.value is None or word == "reject"
        state: State = ("alert" if confirmed else "unconfirmed") if alert else "not seen" if unseen else "calm"
        said = tuple(verdict.words for verdict in verdicts if verdict.figure == figure.name)
        yield Figure(
            figure.name, figure.site, figure.indicator, figure.period, figure.value, figure.readings, state,
            alert and not before, word, said,
        )  # fmt: skip


def turned(alert: bool, value: float, indicator: Indicator) -> bool:
    """The state after a value: alert from `alert` on, calm from `clear` on, and between them as before."""
    if indicator.alert is None:
        return False
    sign = 1 if indicator.when == "above" else -1
    if sign * value >= sign * indicator.alert:
        return True
    clear = indicator.alert if indicator.clear is None else indicator.clear
    return alert and sign * value > sign * clear


def last_state(figures: Sequence[Figure]) -> State:
    """Of one site: the worst of its indicators' newest; where the newest was not seen, the newest that was."""
    newest: dict[str, State] = {}
    for figure in figures:
        if figure.state != "not seen" or figure.indicator not in newest:
            newest[figure.indicator] = figure.state
    return min(newest.values(), key=STATES.index, default="not seen")


def groups_of(sites: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """Names of sites by group, all of them first."""
    found: dict[str, list[str]] = {"all sites": list(sites)}
    for site, groups in sites.items():
        for group in groups:
            found.setdefault(group, []).append(site)
    return found


@dataclass(frozen=True)
class Aggregate:
    """One indicator over a group of sites in one period: mean over the sites seen (of counts: the sum). `figures` and
    `runs`: all that were looked at, seen or not."""

    group: str
    indicator: str
    period: str
    value: float | None
    least: float | None
    greatest: float | None
    seen: int
    in_alert: int
    figures: tuple[str, ...]
    runs: tuple[int, ...]


def aggregates(service: Service, figures: Sequence[Figure], groups: Mapping[str, Sequence[str]]) -> list[Aggregate]:
    """By indicator, group and period."""
    found = []
    sets = {group: set(members) for group, members in groups.items()}
    for name, indicator in service.indicators.items():
        for group, members in sets.items():
            mine = [one for one in figures if one.indicator == name and one.site in members]
            for period in sorted({one.period for one in mine}):
                found.append(_aggregate(group, name, indicator, period, [one for one in mine if one.period == period]))
    return found


def _aggregate(group: str, name: str, indicator: Indicator, period: str, mine: Sequence[Figure]) -> Aggregate:
    seen = [one for one in mine if one.value is not None and one.verdict != "reject"]
    values = [one.value for one in seen if one.value is not None]
    return Aggregate(
        group, name, period, combined(values, "sum" if indicator.counts else "mean"), min(values, default=None),
        max(values, default=None), len(seen), sum(one.state in ("alert", "unconfirmed") for one in mine),
        tuple(one.name for one in mine), tuple(sorted({run for one in mine for run in one.runs})),
    )  # fmt: skip
