"""mission.html: what came down, beside the other ways to fly; the timeline; what binds; a map of what is down."""

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sim.design import charts, world
from sim.design.charts import Axis, Plot, Series, Svg
from sim.design.page import TEMPLATES, render
from sim.design.standalone import standalone
from sim.mission.passes_page import PASS_COLOURS, name_of, pass_panels
from sim.planning import figures
from sim.planning.mission_plan import MissionPlan, Run
from sim.planning.report import queue_classes
from sim.products.delivery import whole_or_nothing

#: A line a strategy.
COLOURS = {
    "nadir": "s0 ours", "coarse-first": "s3", "whole-tiles": "s7", "least-error": "s6", "random": "s2", "no_gate": "s4",
    "jpeg2000": "s1", "lossless": "s8",
}  # fmt: skip
LEVELS = 7
MAP_KEYS = (("none of its clear area is down with all layers", 0), ("half", 3), ("all", 6))


def render_page(plan: MissionPlan, report: Mapping[str, Any]) -> str:
    """The text of mission.html."""
    used = sorted(plan.flight.windows, key=lambda w: (bool(w.share.yields_to), -w.contact.max_elevation_deg))
    shown = list(dict.fromkeys([used[0], used[len(used) // 2]])) if used else []
    return render(
        TEMPLATES / "mission.html",
        {
            "report": report,
            "key_figures": figures.key_figures(report),
            "rows": figures.strategy_rows(report),
            "levers": figures.lever_rows(report),
            "fate": figures.fate_rows(report),
            "timeline": timeline(plan),
            "area": area_lines(plan, report),
            "line_keys": [(css, run.strategy.name) for run in plan.runs for css in [COLOURS[run.strategy.key]]],
            "map": down_map(plan),
            "map_keys": MAP_KEYS,
            "panels": pass_panels(shown),
            "shown": [(css, name_of(window)) for css, window in zip(PASS_COLOURS, shown, strict=False)],
            "classes": charts.parts({k: v / 1e9 for k, v in queue_classes(plan.run("nadir")).items()}, "GB"),
        },
    )


def write(plan: MissionPlan, report: Mapping[str, Any], out: Path, overwrite: bool) -> None:
    """The folder: mission.json, mission.html and the drawings, all of them or none. InputError where it cannot be."""
    with whole_or_nothing(out, overwrite) as folder:
        (folder / "mission.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
        (folder / "mission.html").write_text(render_page(plan, report), encoding="utf-8")
        for name, text in drawings(plan).items():
            (folder / name).write_text(text, encoding="utf-8")


def drawings(plan: MissionPlan) -> dict[str, str]:
    """File name -> SVG text."""
    return {"map.svg": standalone(down_map(plan)), "timeline.svg": standalone(timeline(plan)[0][1])}


def timeline(plan: MissionPlan) -> list[tuple[str, Svg]]:
    """Passes, stores, battery and queue over one axis of days."""
    run = plan.run("nadir")
    drawn = [("Passes: what each could carry, and what was sent", _passes(plan, run)), ("Stores", _stores(plan, run))]
    if len(run.onboard.battery_share):
        drawn.append(("Battery", _battery(plan, run)))
    return [*drawn, ("Queue after each pass", _queue(plan, run))]


def area_lines(plan: MissionPlan, report: Mapping[str, Any]) -> Svg:
    """Clear area down over the days, one line a strategy, at the wanted quality."""
    from sim.planning.delivered import delivered

    limit = plan.flight.request.ndvi_mae
    ends = np.linspace(0.0, plan.flight.request.days, 15)
    series = []
    for run in reversed(plan.runs):
        table = run.strategy.table
        points = [
            (d, delivered(run.offered, run.outcome, table, plan.px_km2, d * 86400).at_quality(limit) / 1e3)
            for d in ends
        ]
        series.append(Series(COLOURS[run.strategy.key], points))
    return charts.lines(series, _days(plan), "days", "clear area down, 1000 km²", "Clear area down over the days")


def down_map(plan: MissionPlan) -> Svg:
    """Every take where it was taken, coloured by the share of its clear area that is down with all its layers."""
    run, drawn = plan.run("nadir"), world.World()
    whole = np.where(run.down.whole, run.down.clear_km2, 0.0)
    down = np.bincount(run.down.take, whole, minlength=len(plan.flight.takes))
    table = run.strategy.table
    clear = np.array([float((c.copies * table.clear_px[c.tiles]).sum()) for c in run.contents]) * plan.px_km2
    share = np.divide(down, clear, out=np.zeros_like(down), where=clear > 0)
    places: dict[int, list[world.Place]] = defaultdict(list)
    for take, part in zip(plan.flight.takes, share.tolist(), strict=True):
        if take.footprint:
            longitude = (take.footprint[0] + 180) % 360 - 180
            places[min(LEVELS - 1, int(part * (LEVELS - 1) + 0.5))].append((longitude, take.footprint[1]))
    for level in sorted(places):
        drawn.dots(places[level], f"take q{level}")
    mission = plan.flight.request.mission
    for station in mission.stations:
        if station.name in {w.contact.station for w in plan.flight.windows}:
            reach = world.reach_deg(mission.orbit.altitude_km, station.mask_deg)
            drawn.station((station.longitude_deg, station.latitude_deg), station.name, reach)
    return drawn.svg("Where was imaged, and how much of it is down")


def _days(plan: MissionPlan) -> Axis:
    return Axis(0, plan.flight.request.days)


def _passes(plan: MissionPlan, run: Run) -> Svg:
    rows = run.outcome.passes
    plot = Plot(_days(plan), Axis(0, max((r.capacity_octets for r in rows), default=1e6) / 1e6), "days", "MB")
    width = plan.flight.request.days / 180
    for row in rows:
        begin = row.begin_s / 86400
        plot.bar(begin, min(begin + width, plot.across.high), row.capacity_octets / 1e6, "bar s8")
        plot.bar(begin, min(begin + width, plot.across.high), row.sent_octets / 1e6, "bar s1")
    return plot.svg("What each pass could carry and what was sent")


def _stores(plan: MissionPlan, run: Run) -> Svg:
    raw = _thinned(run.onboard.times_s / 86400, run.onboard.raw_octets / 1e9)
    coded = [(row.begin_s / 86400, row.stored_octets / 1e9) for row in run.outcome.passes]
    series = [Series("s6", raw), Series("s1", coded)]
    return charts.lines(series, _days(plan), "days", "GB on board", "Fill of the stores")


def _battery(plan: MissionPlan, run: Run) -> Svg:
    points = _thinned(run.onboard.times_s / 86400, 100 * run.onboard.battery_share)
    power = plan.flight.request.mission.power
    floor = 100 * (1 - power.deepest_discharge) if power else 0.0
    plot = Plot(_days(plan), Axis(min(floor, *(y for _, y in points)) - 2, 100), "days", "% of the battery")
    plot.line(points, "s3")
    plot.rule_at_y(floor, "floor")
    return plot.svg("Charge of the battery")


def _queue(plan: MissionPlan, run: Run) -> Svg:
    points = [(row.end_s / 86400, row.waiting_octets / 1e9) for row in run.outcome.passes]
    if not points:
        return Svg()
    plot = Plot(_days(plan), Axis(0, max(y for _, y in points) or 1.0), "days", "GB waiting")
    plot.line(points, "s1")
    return plot.svg("Queue after each pass")


def _thinned(x: np.ndarray, y: np.ndarray, most: int = 400) -> list[tuple[float, float]]:
    """At most so many points: the lowest and the highest of each stretch, so that no peak is cut."""
    if len(x) <= most:
        return list(zip(x.tolist(), y.tolist(), strict=True))
    found: list[tuple[float, float]] = []
    for piece in np.array_split(np.arange(len(x)), most // 2):
        ends: Sequence[int] = sorted({int(piece[np.argmin(y[piece])]), int(piece[np.argmax(y[piece])])})
        found += [(float(x[n]), float(y[n])) for n in ends]
    return found
