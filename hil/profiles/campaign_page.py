"""A campaign as one HTML page: verdict, devices side by side, trends over the day, every step; and the same as CSV."""

import csv
import io
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from hil.profiles.campaign_file import AWAY, DONE, FAILED, StepRecord, checks, codes_of_work
from hil.profiles.page import render_template, write_whole

TEMPLATE = Path(__file__).parent / "templates" / "campaign.html"
#: Figure of a step -> its words and unit, in the order of the page; those with a trend have a chart.
SHOWN = {
    "p50": ("coded tile, p50", "ms"),
    "mean": ("coded tile, mean", "ms"),
    "p95": ("coded tile, p95", "ms"),
    "coded_mpx_s": ("throughput, coded tiles", "Mpx/s"),
    "net_mj": ("energy of a tile, idle subtracted", "mJ"),
    "busy_w": ("power at work", "W"),
    "memory": ("peak memory", "MiB"),
    "hottest_c": ("hottest part", "°C"),
    "soak_slowdown": ("end of the sustained run over its start", "x"),
}
TRENDS = ("p50", "mean", "net_mj", "hottest_c")
MARKS = {DONE: "✓", AWAY: "away", FAILED: "✕"}
COLUMNS = ("round", "device", "work", "state", "at_s", "seconds", "tries", "codes_sha256", "held", "why")


@dataclass(frozen=True)
class Row:
    """One figure of one work: for every device its median over the rounds, and its least and most."""

    words: str
    unit: str
    cells: tuple[tuple[str, str], ...]  # (median, range) as text, "" where it is not known


def render(name: str, records: Sequence[StepRecord], rounds: int, planned: int) -> str:
    """The page's text."""
    return render_template(TEMPLATE, lambda: _context(name, records, rounds, planned))


def write_page(name: str, records: Sequence[StepRecord], rounds: int, planned: int, path: Path) -> None:
    """Whole or not at all."""
    write_whole(path, render(name, records, rounds, planned))


def as_csv(records: Sequence[StepRecord]) -> str:
    """A line a step, with every figure that any step has."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    figures = sorted({figure for record in records for figure in record.figures})
    table.writerow([*COLUMNS, *figures])
    for record in records:
        fields = asdict(record)
        table.writerow([*(fields[column] for column in COLUMNS), *(record.figures.get(name, "") for name in figures)])
    return text.getvalue()


def _context(name: str, records: Sequence[StepRecord], rounds: int, planned: int) -> dict[str, Any]:
    devices, works = (list(dict.fromkeys(getattr(r, key) for r in records)) for key in ("device", "work"))
    judged = list(checks(records, planned))
    return {
        "name": name,
        "devices": [(device, next((r.cpu for r in records if r.device == device and r.cpu), "")) for device in devices],
        "judged": judged,
        "failed": [check.asked for check in judged if not check.held],
        "key_figures": _key_figures(records, planned, devices),
        "works": [(work, _rows(records, devices, work), _trends(records, devices, work)) for work in works],
        "keys": [(f"box s{1 + n % 9}", device) for n, device in enumerate(devices)],
        "codes": codes_of_work(records),
        "steps": _steps(records, devices, works, rounds),
        "troubles": [r for r in records if r.state != DONE],
        "rounds": rounds,
    }


def _key_figures(records: Sequence[StepRecord], planned: int, devices: Sequence[str]) -> list[tuple[str, ...]]:
    """(name, value, unit, note, class) of the design's tiles."""
    states = [record.state for record in records]
    begun, ended = [record.at_s - record.seconds for record in records], [record.at_s for record in records]
    hours = (max(ended, default=0.0) - min(begun, default=0.0)) / 3600
    return [
        ("Steps done", str(states.count(DONE)), f"of {planned}", f"{len(devices)} devices", ""),
        ("Away", str(states.count(AWAY)), "", "did not answer", "warn" if AWAY in states else ""),
        ("Refused", str(states.count(FAILED)), "", "by the device, or its work", "bad" if FAILED in states else ""),
        ("From first to last", f"{hours:.3g}", "h", "measured", ""),
    ]


def _rows(records: Sequence[StepRecord], devices: Sequence[str], work: str) -> list[Row]:
    rows = []
    for figure, (words, unit) in SHOWN.items():
        each = [[r.figures[figure] for r in _of(records, d, work) if figure in r.figures] for d in devices]
        cells = [_cell(values) for values in each]
        if any(middle for middle, _ in cells):
            rows.append(Row(words, unit, tuple(cells)))
    return rows


def _of(records: Sequence[StepRecord], device: str, work: str) -> list[StepRecord]:
    return [r for r in records if (r.device, r.work) == (device, work) and r.state == DONE]


def _cell(values: Sequence[float]) -> tuple[str, str]:
    if not values:
        return "", ""
    between = f"{min(values):.4g} to {max(values):.4g}, {len(values)} rounds" if len(values) > 1 else ""
    return f"{median(values):.4g}", between


def _trends(records: Sequence[StepRecord], devices: Sequence[str], work: str) -> list[tuple[str, Any]]:
    """(title, chart over the hours): a line a device, where a figure was measured more than once."""
    from sim.design.charts import Axis, Plot

    start_s, charts = min((r.at_s for r in records), default=0.0), []
    for figure in TRENDS:
        words, unit = SHOWN[figure]
        lines = [
            [((r.at_s - start_s) / 3600, r.figures[figure]) for r in _of(records, device, work) if figure in r.figures]
            for device in devices
        ]
        points = [point for line in lines for point in line]
        if len(points) < 2 or max(map(len, lines)) < 2:
            continue
        plot = Plot(Axis(0, max(x for x, _ in points)), Axis(0, 1.1 * max(y for _, y in points)), "hours", unit)
        for n, line in enumerate(lines):
            plot.line(line, f"s{1 + n % 9}")
            for x, y in line:
                plot.dot(x, y, f"s{1 + n % 9}", 2.6)
        charts.append((words[0].upper() + words[1:], plot.svg(f"{words} over the day")))
    return charts


def _steps(
    records: Sequence[StepRecord], devices: Sequence[str], works: Sequence[str], rounds: int
) -> list[tuple[str, list[str]]]:
    """(device and work, what became of it in every round)."""
    known = {r.key: MARKS[r.state] for r in records}
    return [
        (f"{device}, {work}", [known.get((n, device, work), "–") for n in range(1, rounds + 1)])
        for device in devices
        for work in works
    ]
