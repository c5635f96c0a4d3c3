"""The dashboard, and a bulletin for each period: what their templates show, and their text.

Every figure on them bears its name and the numbers of its runs, which lead to the table of runs: place, digest, report.
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import TemplateError

from payload.errors import InputError
from sim.design import page
from sim.design.charts import number
from sim.geoservice import drawings
from sim.geoservice.figures import STATES, Aggregate, Figure, State, last_state
from sim.geoservice.runs import Run
from sim.geoservice.service import Service
from sim.geoservice.sites import Site

DASHBOARD, BULLETINS = "dashboard.html", "bulletins"


@dataclass(frozen=True)
class Told:
    """All that pages are made of."""

    service: Service
    sites: Sequence[Site]
    runs: Sequence[Run]
    figures: Sequence[Figure]
    aggregates: Sequence[Aggregate]
    notes: Sequence[str]

    @property
    def periods(self) -> list[str]:
        return sorted({figure.period for figure in self.figures})

    @cached_property
    def states(self) -> dict[str, State]:
        """The state of each site after all figures: by the indicators that have a threshold, where any has."""
        watched = {name for name, indicator in self.service.indicators.items() if indicator.alert is not None}
        by_site: dict[str, list[Figure]] = {site.name: [] for site in self.sites}
        for one in self.figures:
            if one.indicator in watched or not watched:
                by_site[one.site].append(one)
        return {name: last_state(figures) for name, figures in by_site.items()}

    def until(self, period: str) -> "Told":
        """What was known at the end of a period."""
        figures = [one for one in self.figures if one.period <= period]
        rows = [one for one in self.aggregates if one.period <= period]
        return Told(self.service, self.sites, self.runs, figures, rows, self.notes)


def file_name(period: str) -> str:
    """A period as part of a file's name."""
    return period.replace(":", "")


def dashboard(told: Told, out: Path, bulletins: Mapping[str, str]) -> str:
    """The page's text; `out`: where it will lie, `bulletins`: address of each by period."""
    context = _shared(told, out) | {
        "sites": [_site(told, site) for site in told.sites],
        "waiting": [_row(told, one) for one in told.figures if one.waits],
        "bulletins": [(period, quote(bulletins[period])) for period in reversed(told.periods)],
        "notes": told.notes,
    }
    return page.render(page.TEMPLATES / "geoservice.html", context)


def bulletin(told: Told, period: str, out: Path, template: Path | None) -> str:
    """The bulletin of a period, with what was known at its end. InputError where the user's own template fails."""
    known = told.until(period)
    mine = [one for one in known.figures if one.period == period]
    cited = {run for one in known.figures for run in one.runs}
    settings = told.service.bulletin
    shared = _shared(known, out / BULLETINS, cited)
    context = shared | {
        "period": period, "number": told.periods.index(period) + 1, "bulletin": settings,
        "title": settings.title or f"Bulletin of {told.service.title}",
        "rows": [_row(known, one) for one in mine],
        "alerts": [_row(known, one) for one in mine if one.state in ("alert", "unconfirmed")],
        "distribution": [one for one in told.service.recipients if "bulletin" in one.receives],
    }  # fmt: skip
    if template is None:
        return page.render(page.TEMPLATES / "bulletin.html", context)
    try:
        return page.render(template, context)
    except (TemplateError, TypeError, ValueError, ArithmeticError, LookupError, RecursionError, OSError) as error:
        told_why = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise InputError(f"{template}: cannot be filled ({told_why}); mend it, or take template out") from None


def _shared(told: Told, out: Path, cited: Iterable[int] | None = None) -> dict[str, Any]:
    """What both pages show. `cited`: the runs to list, all if left out."""
    states = told.states
    numbers = {run.number for run in told.runs} if cited is None else set(cited)
    return {
        "service": told.service,
        "key_figures": [_key_figure(state, states) for state in STATES],
        "map": drawings.site_map(told.sites, states), "world": drawings.world_map(told.sites, states),
        "legend": [(drawings.COLOURS[state], state) for state in STATES],
        "indicators": [_indicator(told, name) for name in told.service.indicators],
        "runs": [_run(run, out) for run in told.runs if run.number in numbers],
        "periods": told.periods,
    }  # fmt: skip


def _key_figure(state: State, states: Mapping[str, State]) -> tuple[str, str, str, str, str]:
    named = [name for name, one in states.items() if one == state]
    css = {"alert": "bad", "unconfirmed": "warn"}.get(state, "") if named else ""
    note = ", ".join(named[:6]) + (f" and {len(named) - 6} more" if len(named) > 6 else "")
    return f"Sites: {state}", str(len(named)), f"of {len(states)}", note, css


def _indicator(told: Told, name: str) -> dict[str, Any]:
    """One indicator over all groups: a line each over time, and a row for each group in its newest period."""
    indicator = told.service.indicators[name]
    rows = [one for one in told.aggregates if one.indicator == name]
    groups = list(dict.fromkeys(one.group for one in rows))
    newest = [max((one for one in rows if one.group == group), key=lambda one: one.period) for group in groups]
    dates = {one.period: drawings.day(one.readings[-1].at) for one in told.figures if one.indicator == name}
    return {
        "name": name, "title": indicator.named(name), "unit": indicator.shown_unit, "rule": indicator.rule,
        "basis": "modelled" if _of_plans(told, name) else "measured", "limits": _limits(told, name),
        "combine": indicator.over_passes, "counts": indicator.counts,
        "chart": drawings.over_groups(rows, dates, indicator, indicator.named(name)),
        "keys": [(drawings.group_css(n), group) for n, group in enumerate(groups)],
        "rows": newest,
    }  # fmt: skip


def _of_plans(told: Told, name: str) -> bool:
    """Whether any of an indicator's figures is from a plan."""
    plans = {run.number for run in told.runs if run.kind == "mission"}
    return any(one.indicator == name and plans & set(one.runs) for one in told.figures)


def _limits(told: Told, name: str) -> str:
    """The thresholds in words."""
    indicator = told.service.indicators[name]
    if indicator.alert is None:
        return "no threshold"
    sides = (">=", "<=") if indicator.when == "above" else ("<=", ">=")
    clear = indicator.alert if indicator.clear is None else indicator.clear
    ends = sides[1] if clear != indicator.alert else sides[1][0]
    return f"alert at {sides[0]} {number(indicator.alert)}, ends at {ends} {number(clear)}"


def _site(told: Told, site: Site) -> dict[str, Any]:
    mine = [one for one in told.figures if one.site == site.name]
    parts = []
    for name, indicator in told.service.indicators.items():
        figures = [one for one in mine if one.indicator == name]
        title = indicator.named(name)
        parts.append({"title": title, "chart": drawings.series(figures, indicator, title, site.name),
                      "rows": [_row(told, one) for one in reversed(figures)]})  # fmt: skip
    state = told.states[site.name]
    return {"name": site.name, "groups": site.groups, "state": state, "css": drawings.COLOURS[state], "parts": parts}


def _row(told: Told, one: Figure) -> dict[str, Any]:
    """A figure as tables show it."""
    indicator = told.service.indicators[one.indicator]
    seen = [reading.seen_percent for reading in one.readings if reading.seen_percent is not None]
    causes = dict.fromkeys(reading.cause for reading in one.readings if reading.value is None)
    return {
        "name": one.name, "site": one.site, "indicator": indicator.named(one.indicator), "period": one.period,
        "value": one.value, "unit": indicator.shown_unit, "seen_percent": sum(seen) / len(seen) if seen else None,
        "state": "seen" if one.state == "calm" and indicator.alert is None else one.state,
        "css": drawings.css_of(one, indicator), "begins": one.begins, "verdict": one.verdict,
        "comments": one.comments, "runs": one.runs, "limits": _limits(told, one.indicator),
        "cause": "; ".join(causes) if one.value is None else "", "waits": one.waits,
        "passes": sum(reading.value is not None for reading in one.readings),
    }  # fmt: skip


def _run(run: Run, out: Path) -> dict[str, Any]:
    """A run with its address, counted from where the page will lie."""
    target = run.folder / run.page if run.page else run.folder
    address = quote(Path(os.path.relpath(target.resolve(), out.resolve())).as_posix())
    return {
        "number": run.number, "kind": run.kind, "name": run.name, "scene": run.scene, "digest": run.digest,
        "at": run.at.strftime("%Y-%m-%d %H:%M:%SZ") if run.at else f"{len(run.takes)} takes", "address": address,
        "files": sorted(run.files.items()),
    }  # fmt: skip
