"""A sweep as one HTML page: time of a call against throughput, the front that no setting beats, and the table."""

import math
from collections.abc import Sequence
from pathlib import Path

from hil.profiles.page import render_template, write_whole
from hil.profiles.sweep_file import PAYLOAD, Sweep, SweepPoint

TEMPLATE = Path(__file__).parent / "templates" / "sweep.html"


def render(sweep: Sweep) -> str:
    """The page's text."""
    kinds = dict.fromkeys(point.what for point in sweep.points if point.call_s)
    return render_template(
        TEMPLATE,
        lambda: {
            "sweep": sweep, "keys": _keys(sweep.points), "key_figures": _key_figures(sweep.points),
            "panels": [(what, _pareto([point for point in sweep.points if point.what == what])) for what in kinds],
        },
    )  # fmt: skip


def write_page(sweep: Sweep, path: Path) -> None:
    """Whole or not at all."""
    write_whole(path, render(sweep))


def _key_figures(points: Sequence[SweepPoint]) -> list[tuple[str, ...]]:
    """(name, value, unit, note, class): what is soonest done and what gets most through, of the payload."""
    whole = [point for point in points if point.what == PAYLOAD]
    known = [(p, p.call_s, p.mpx_s) for p in whole if p.call_s is not None and p.mpx_s is not None]
    if not known:
        return []
    (soon, call_s, _), (most, _, mpx_s) = min(known, key=lambda row: row[1]), max(known, key=lambda row: row[2])
    return [
        ("Soonest done", f"{1e3 * call_s:.4g}", "ms a tile", f"{_setting(soon)}; measured", ""),
        ("Most through", f"{mpx_s:.4g}", "Mpx/s", f"{_setting(most)}; measured", ""),
        ("Settings", str(len(points)), "", f"{sum(1 for p in points if p.why)} cannot be run", ""),
    ]


def _setting(point: SweepPoint) -> str:
    return f"payload, {point.tile_px} px, {point.threads} thread{'s' if point.threads > 1 else ''}"


def _series(points: Sequence[SweepPoint]) -> dict[int, str]:
    """Threads -> series of the style sheet."""
    return {threads: f"s{1 + n % 4}" for n, threads in enumerate(sorted({point.threads for point in points}))}


def _keys(points: Sequence[SweepPoint]) -> list[tuple[str, str]]:
    return [(f"box {css}", f"{n} thread{'s' if n > 1 else ''}") for n, css in _series(points).items()]


def _pareto(points: Sequence[SweepPoint]) -> object:
    from sim.design.charts import Axis, Plot

    known = [(p, 1e3 * p.call_s, p.mpx_s) for p in points if p.call_s is not None and p.mpx_s is not None]
    times, speeds, series = [ms for _, ms, _ in known], [mpx for *_, mpx in known], _series(points)
    across = Axis(min(times) / 1.25, max(times) * 1.9, log=True)
    plot = Plot(across, Axis(0, max(speeds) * 1.15), "ms a call, logarithmic", "Mpx/s", 230)
    front = sorted((ms, mpx) for p, ms, mpx in known if p.front)
    plot.line(front, "s8")
    for point, ms, mpx in known:
        words = f"{point.tile_px} px" + (f" x {point.batch}" if point.batch > 1 else "")
        told = f"{words}, {point.threads} threads: {ms:.3g} ms, {mpx:.3g} Mpx/s"
        plot.dot(ms, mpx, series[point.threads], 5 if point.front else 3, told)
        if point.front and math.isfinite(mpx):
            plot.text(plot.x(ms) - 4, plot.y(mpx) - 9, words, css="over")
    return plot.svg("Time of a call against throughput; the line joins what no other setting beats")
