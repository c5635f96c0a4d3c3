"""Rows of figures -> small inline SVG drawings. Colours are CSS classes: one drawing serves light, dark and paper."""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from markupsafe import Markup

LEVELS = 7  # classes q0..q6 of the style sheet, weakest first
KINDS = ("coded", "fallback", "withheld", "empty", "lost", "refused")
GAP = 0.08  # share of a tile's side left free between tiles
WIDTH = 420  # of every chart, in the drawing's own units; a chart with axes spans LEFT..RIGHT and TOP..BOTTOM
LEFT, RIGHT, TOP, BOTTOM, PLOT_HEIGHT = 40, 412, 16, 140, 172


@dataclass(frozen=True)
class Legend:
    """One key of a map's legend: the class that colours it and what it means."""

    css: str
    text: str


@dataclass(frozen=True)
class Bar:
    name: str
    width_percent: float
    text: str


@dataclass(frozen=True)
class TileMap:
    title: str
    unit: str
    svg: Markup
    legend: tuple[Legend, ...]


def kind_map(tiles: Sequence[Mapping[str, Any]], rows: int, cols: int) -> TileMap:
    """What became of each tile: colour, and a mark for what never arrived, so that it reads without colour too."""
    cells = defaultdict(list)
    for tile in tiles:
        cells[f"kind-{tile['kind']}"].append((tile["col"], tile["row"]))
    drawn = [_squares(css, places) for css, places in cells.items()]
    drawn += [_crosses(cells["kind-lost"]), _strokes(cells["kind-refused"])]
    legend = tuple(Legend(f"kind-{k}", f"{k} {len(cells[f'kind-{k}'])}") for k in KINDS if cells[f"kind-{k}"])
    return TileMap("What became of it", "", _map(drawn, rows, cols, "Map of the tiles by what became of them"), legend)


def value_map(tiles: Sequence[Mapping[str, Any]], rows: int, cols: int, key: str, title: str, unit: str) -> TileMap:
    """tiles[key] in LEVELS equal steps between its extremes; tiles without a value are outlined."""
    known = [(t["col"], t["row"], float(t[key])) for t in tiles if _finite(t.get(key))]
    blank = [(t["col"], t["row"]) for t in tiles if not _finite(t.get(key))]
    low, high = (min(v for *_, v in known), max(v for *_, v in known)) if known else (0.0, 0.0)
    cells = defaultdict(list)
    for col, row, value in known:
        level = min(LEVELS - 1, int((value - low) / (high - low) * LEVELS)) if high > low else 0
        cells[f"q{level}"].append((col, row))
    drawn = [_squares(css, places) for css, places in sorted(cells.items())] + [_squares("kind-empty", blank)]
    svg = _map(drawn, rows, cols, f"Map of the tiles by {title.lower()}")
    return TileMap(title, unit, svg, _scale(low, high) if known else (Legend("kind-empty", "no figures"),))


def bars(rows: Sequence[tuple[str, float, str]]) -> tuple[Bar, ...]:
    """Rows (name, value, text) as bars, the longest filling the width."""
    top = max((value for _, value, _ in rows), default=0.0) or 1.0
    return tuple(Bar(name, round(100 * value / top, 2), text) for name, value, text in rows)


def histogram(values: Sequence[float], unit: str, caption: str, bins: int = 24) -> Markup:
    """How often each range of values occurs; a rule marks the mean."""
    finite = [v for v in values if _finite(v)]
    if not finite:
        return Markup("")
    axis = _Axis(min(finite), max(finite), LEFT, RIGHT)
    counts = [0] * bins
    for value in finite:
        counts[min(bins - 1, int((value - axis.low) / (axis.high - axis.low) * bins))] += 1
    side = _Axis(0, max(counts), BOTTOM, TOP, whole=True)
    step = (axis.end - axis.start) / bins
    parts = _frame(axis, side, unit, "tiles")
    for number, count in enumerate(counts):
        if count:
            y = side.at(count)
            parts.append(
                f'<rect class="bar" x="{axis.start + number * step + 0.5:.1f}" y="{y:.1f}" '
                f'width="{step - 1:.1f}" height="{BOTTOM - y:.1f}"/>'
            )
    mean = sum(finite) / len(finite)
    x = axis.at(mean)
    parts.append(
        f'<path class="rule" d="M{x:.1f} {TOP}V{BOTTOM}"/><text x="{x + 4:.1f}" y="{TOP - 3}">mean {mean:.3g}</text>'
    )
    return _svg(parts, PLOT_HEIGHT, caption)


def scatter(points: Sequence[tuple[float, float, str]], x_title: str, y_title: str, caption: str) -> Markup:
    """Points (x, y, css class)."""
    finite = [(x, y, css) for x, y, css in points if _finite(x) and _finite(y)]
    if not finite:
        return Markup("")
    across = _Axis(min(x for x, *_ in finite), max(x for x, *_ in finite), LEFT, RIGHT)
    up = _Axis(min(y for _, y, _ in finite), max(y for _, y, _ in finite), BOTTOM, TOP)
    parts = _frame(across, up, x_title, y_title)
    radius = 3 if len(finite) < 300 else 1.6
    parts += [
        f'<circle class="{css}" cx="{across.at(x):.1f}" cy="{up.at(y):.1f}" r="{radius}"/>' for x, y, css in finite
    ]
    return _svg(parts, PLOT_HEIGHT, caption)


def loss_strip(profile: Sequence[float], caption: str) -> Markup:
    """Share of packets lost in consecutive equal parts of the stream, left to right; full height is everything lost."""
    step = WIDTH / max(1, len(profile))
    parts = [f'<rect class="ground" x="0" y="2" width="{WIDTH}" height="34"/>']
    for number, share in enumerate(profile):
        if share > 0:
            height = max(2.0, 34 * min(1.0, share))
            parts.append(
                f'<rect class="loss" x="{number * step:.2f}" y="{36 - height:.1f}" '
                f'width="{max(1.0, step):.2f}" height="{height:.1f}"/>'
            )
    return _svg(parts, 38, caption)


class _Axis:
    """A linear axis from `low` to `high` (widened where they meet), drawn between two places in pixels."""

    def __init__(self, low: float, high: float, start: float, end: float, whole: bool = False) -> None:
        if high <= low:
            pad = abs(low) * 0.05 or 1.0
            low, high = (low if whole else low - pad), high + pad
        self.low, self.high, self.start, self.end, self.whole = low, high, start, end, whole

    def at(self, value: float) -> float:
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)

    def ticks(self) -> list[float]:
        """About five round numbers inside the axis."""
        rough = (self.high - self.low) / 5
        decade = 10.0 ** math.floor(math.log10(rough))
        step = next(decade * m for m in (1, 2, 5, 10) if decade * m >= rough * 0.999)
        step = max(1.0, step) if self.whole else step
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [number * step for number in range(first, last + 1)]


def _frame(across: _Axis, up: _Axis, x_title: str, y_title: str) -> list[str]:
    parts = []
    for tick in across.ticks():
        x = across.at(tick)
        parts.append(f'<path class="tick" d="M{x:.1f} {TOP}V{BOTTOM + 4}"/>')
        parts.append(f'<text x="{x:.1f}" y="{BOTTOM + 14}" text-anchor="middle">{tick:.6g}</text>')
    for tick in up.ticks():
        y = up.at(tick)
        parts.append(f'<path class="tick" d="M{LEFT - 4} {y:.1f}H{RIGHT}"/>')
        parts.append(f'<text x="{LEFT - 7}" y="{y + 3.5:.1f}" text-anchor="end">{tick:.6g}</text>')
    parts.append(f'<text class="name" x="{RIGHT}" y="{BOTTOM + 28}" text-anchor="end">{escape(x_title)}</text>')
    parts.append(f'<text class="name" x="0" y="9">{escape(y_title)}</text>')
    return parts


def _svg(parts: Iterable[str], height: int, caption: str) -> Markup:
    body = "".join(parts)
    return Markup(
        f'<svg class="chart" viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(caption)}">{body}</svg>'
    )


def _map(parts: Iterable[str], rows: int, cols: int, caption: str) -> Markup:
    return Markup(
        f'<svg viewBox="0 0 {cols} {rows}" role="img" aria-label="{escape(caption)}">{"".join(parts)}'
        f'<rect class="cursor" x="0" y="0" width="1" height="1" visibility="hidden"/></svg>'
    )


def _squares(css: str, places: Sequence[tuple[int, int]]) -> str:
    side = 1 - GAP
    path = "".join(f"M{col + GAP / 2:g} {row + GAP / 2:g}h{side:g}v{side:g}h-{side:g}z" for col, row in places)
    return f'<path class="{css}" d="{path}"/>' if places else ""


def _crosses(places: Sequence[tuple[int, int]]) -> str:
    path = "".join(f"M{c + 0.25:g} {r + 0.25:g}l.5 .5M{c + 0.75:g} {r + 0.25:g}l-.5 .5" for c, r in places)
    return f'<path class="mark" d="{path}"/>' if places else ""


def _strokes(places: Sequence[tuple[int, int]]) -> str:
    path = "".join(f"M{c + 0.75:g} {r + 0.25:g}l-.5 .5" for c, r in places)
    return f'<path class="mark" d="{path}"/>' if places else ""


def _scale(low: float, high: float) -> tuple[Legend, ...]:
    """A ramp whose ends alone are told: the steps between are equal."""
    if high <= low:
        return (Legend("q0", _short(low)),)
    ends = {0: _short(low), LEVELS - 1: _short(high)}
    return tuple(Legend(f"q{level}", ends.get(level, "")) for level in range(LEVELS))


def _short(value: float) -> str:
    return f"{value / 1000:.1f} k" if abs(value) >= 10_000 else f"{value:.4g}"


def _finite(value: Any) -> bool:
    return value is not None and math.isfinite(value)
