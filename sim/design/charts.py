"""Rows of figures -> inline SVG charts. Colours are CSS classes: one drawing serves light, dark and paper.

Classes of the style sheet: s0..s9 (series), q0..q6 (a scale from weak to strong), `line`, `dash`, `dot`, `bar`, `rule`,
`band`, `tick`, `name`. Every chart with axes bears numbers on both, and an axis that is not linear says so.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

WIDTH = 360  # of every chart, in the drawing's own units
HEIGHT = 190
TOP, BOTTOM, RIGHT = 20, 36, 12  # free space around the plot; the left follows the numbers of the axis
CHAR = 6.2  # width of a digit at the charts' font size


class Svg(str):
    """Text that a template shows as it is."""

    __slots__ = ()

    def __html__(self) -> str:
        return str(self)


@dataclass(frozen=True)
class Bar:
    name: str
    width_percent: float
    text: str


@dataclass(frozen=True)
class Part:
    """A share of a whole: its series class, its width in per cent, its name and figures."""

    css: str
    width_percent: float
    name: str
    text: str


@dataclass(frozen=True)
class Series:
    """One line of a chart."""

    css: str
    points: Sequence[tuple[float, float]]


class Axis:
    """From `low` to `high` (widened where they meet), linear or logarithmic, with round ticks."""

    def __init__(
        self, low: float, high: float, log: bool = False, whole: bool = False,
        ticks: Sequence[float] | None = None, texts: Mapping[float, str] | None = None,
    ) -> None:  # fmt: skip
        if high <= low:
            pad = abs(low) * 0.05 or 1.0
            low, high = (low if whole else low - pad), high + pad
        self.low, self.high, self.log, self.whole = low, high, log, whole
        self._ticks, self._texts = ticks, texts or {}

    def share(self, value: float) -> float:
        """Where a value lies between the ends: 0 to 1."""
        low, high, value = (math.log(v) for v in (self.low, self.high, value)) if self.log else (
            self.low, self.high, value,
        )  # fmt: skip
        return (value - low) / (high - low)

    @property
    def ticks(self) -> list[float]:
        """About five round numbers inside the axis; on a logarithmic one steps of 1, 2, 5 or whole powers of ten."""
        if self._ticks is not None:
            return [tick for tick in self._ticks if self.low <= tick <= self.high]
        return log_ticks(self.low, self.high) if self.log else linear_ticks(self.low, self.high, self.whole)

    def text(self, tick: float) -> str:
        return self._texts.get(tick, number(tick))


class Plot:
    """A frame with two numbered axes, and marks in it. y points up; marks take values, not places."""

    def __init__(self, across: Axis, up: Axis, x_title: str, y_title: str, height: int = HEIGHT) -> None:
        self.across, self.up, self.height = across, up, height
        self.left = 12 + CHAR * max((len(up.text(tick)) for tick in up.ticks), default=1)
        self.parts: list[str] = []
        self._frame(x_title, y_title)

    def x(self, value: float) -> float:
        return self.left + self.across.share(value) * (WIDTH - RIGHT - self.left)

    def y(self, value: float) -> float:
        return self.height - BOTTOM - self.up.share(value) * (self.height - BOTTOM - TOP)

    def line(self, points: Iterable[tuple[float, float]], css: str) -> None:
        path = "L".join(f"{self.x(a):.1f} {self.y(b):.1f}" for a, b in points)
        if path:
            self.parts.append(f'<path class="line {css}" d="M{path}"/>')

    def dot(self, x: float, y: float, css: str = "", radius: float = 3, title: str = "") -> None:
        told = f"<title>{escape(title)}</title>" if title else ""
        place = f'cx="{self.x(x):.1f}" cy="{self.y(y):.1f}" r="{radius:.1f}"'
        self.parts.append(f'<circle class="dot {css}" {place}>{told}</circle>')

    def cross(self, x: float, y: float, css: str = "") -> None:
        self.parts.append(f'<path class="cross {css}" d="M{self.x(x) - 4:.1f} {self.y(y) - 4:.1f}l8 8m0 -8l-8 8"/>')

    def bar(self, x1: float, x2: float, y2: float, css: str = "bar", y1: float | None = None, gap: float = 0.0) -> None:
        left, right = self.x(x1) + gap, self.x(x2) - gap
        top, bottom = self.y(y2), self.y(self.up.low if y1 is None else y1)
        box = f'width="{max(right - left, 0.5):.1f}" height="{max(bottom - top, 0):.1f}"'
        self.parts.append(f'<rect class="{css}" x="{left:.1f}" y="{top:.1f}" {box}/>')

    def rule_at_x(self, value: float, text: str = "", row: int = 0) -> None:
        """A line across the plot; its words stand beside it, on the side that has room."""
        at = self.x(value)
        self.parts.append(f'<path class="rule" d="M{at:.1f} {TOP}V{self.height - BOTTOM}"/>')
        late = at + 4 + CHAR * len(text) > WIDTH
        self.text(at - 4 if late else at + 4, TOP + 9 + 12 * row, text, "end" if late else "start", "over")

    def rule_at_y(self, value: float, text: str = "", x1: float | None = None, x2: float | None = None) -> None:
        left, right = (self.x(self.across.low if x1 is None else x1), self.x(self.across.high if x2 is None else x2))
        self.parts.append(f'<path class="rule" d="M{left:.1f} {self.y(value):.1f}H{right:.1f}"/>')
        self.text(left + 4, self.y(value) - 4, text, css="over")

    def text(self, x: float, y: float, words: str, anchor: str = "start", css: str = "") -> None:
        if words:
            self.parts.append(
                f'<text class="{css}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(words)}</text>'
            )

    def svg(self, caption: str) -> Svg:
        return svg(self.parts, self.height, caption)

    def _frame(self, x_title: str, y_title: str) -> None:
        floor = self.height - BOTTOM
        for tick in self.across.ticks:
            self.parts.append(f'<path class="tick" d="M{self.x(tick):.1f} {TOP}V{floor + 4}"/>')
            self.text(self.x(tick), floor + 15, self.across.text(tick), "middle")
        for tick in self.up.ticks:
            self.parts.append(f'<path class="tick" d="M{self.left - 4:.1f} {self.y(tick):.1f}H{WIDTH - RIGHT}"/>')
            self.text(self.left - 7, self.y(tick) + 3.5, self.up.text(tick), "end")
        self.text(WIDTH - RIGHT, self.height - 5, x_title, "end", "name")
        self.text(0, 10, y_title, css="name")


def bars(rows: Sequence[tuple[str, float, str]]) -> tuple[Bar, ...]:
    """Rows (name, value, text) as bars, the longest filling the width."""
    top = max((value for _, value, _ in rows), default=0.0) or 1.0
    return tuple(Bar(name, round(100 * value / top, 2), text) for name, value, text in rows)


def parts(shares: Mapping[str, float], unit: str) -> tuple[Part, ...]:
    """Parts of a whole, side by side in one bar, in the series' colours."""
    total = sum(shares.values()) or 1.0
    return tuple(
        Part(f"s{n % 9 + 1}", round(100 * v / total, 2), name, f"{v:.4g} {unit}, {100 * v / total:.1f} %")
        for n, (name, v) in enumerate(shares.items())
    )


def histogram(
    values: Sequence[float],
    x_title: str,
    caption: str,
    bins: int = 24,
    rules: Sequence[tuple[float, str]] | None = None,
) -> Svg:
    """How often each range of values occurs; rules at the values given, or at the mean."""
    finite = [v for v in values if math.isfinite(v)]
    if not finite:
        return Svg()
    across = Axis(min(finite), max(finite))
    counts = [0] * bins
    for value in finite:
        counts[min(bins - 1, int(across.share(value) * bins))] += 1
    marks = [(sum(finite) / len(finite), f"mean {sum(finite) / len(finite):.3g}")] if rules is None else rules
    top = max(counts) * (1 + 0.11 * len(marks))  # the words of the rules stand above the bars
    plot = Plot(across, Axis(0, top, whole=True), x_title, "tiles")
    step = (across.high - across.low) / bins
    for n, count in enumerate(counts):
        if count:
            plot.bar(across.low + n * step, across.low + (n + 1) * step, count, gap=0.5)
    for row, (value, text) in enumerate(marks):
        plot.rule_at_x(value, text, row)
    return plot.svg(caption)


def scatter(points: Sequence[tuple[float, float, str]], x_title: str, y_title: str, caption: str) -> Svg:
    """Points (x, y, css class)."""
    finite = [(x, y, css) for x, y, css in points if math.isfinite(x) and math.isfinite(y)]
    if not finite:
        return Svg()
    xs, ys = [x for x, *_ in finite], [y for _, y, _ in finite]
    across, up = Axis(min(xs), max(xs)), Axis(min(ys), max(ys))
    plot = Plot(across, up, x_title, y_title)
    for x, y, css in finite:
        plot.dot(x, y, css, 3 if len(finite) < 300 else 1.6)
    return plot.svg(caption)


def lines(series: Sequence[Series], across: Axis, x_title: str, y_title: str, caption: str) -> Svg:
    """Lines over one axis; points that are not finite end a line. The y axis spans what is drawn."""
    finite = [Series(s.css, [p for p in s.points if math.isfinite(p[1])]) for s in series]
    heights = [y for s in finite for _, y in s.points]
    if not heights:
        return Svg()
    plot = Plot(across, Axis(min(heights), max(heights)), x_title, y_title)
    for one in finite:
        plot.line(one.points, one.css)
    return plot.svg(caption)


def strips(rows: Sequence[tuple[str, str, Sequence[float], float]], across: Axis, x_title: str, caption: str) -> Svg:
    """Rows (name, css, values, mean): every value a dot under the row's name, the mean a stroke."""
    height = TOP + BOTTOM + 30 * max(1, len(rows))
    plot = Plot(across, Axis(0, max(1, len(rows)), ticks=()), x_title, "", height)
    for n, (name, css, values, mean) in enumerate(rows):
        top = len(rows) - n
        for value in values:
            plot.dot(value, top - 0.75, css, 2.6)
        x, y = plot.x(mean), plot.y(top - 0.75)
        plot.parts.append(f'<path class="line {css}" d="M{x:.1f} {y - 6:.1f}v12"/>')
        plot.text(plot.left, plot.y(top - 0.4), name, css="name over")
    return plot.svg(caption)


def loss_strip(profile: Sequence[float], caption: str) -> Svg:
    """Share of packets lost in consecutive equal parts of the stream, left to right."""
    count = max(1, len(profile))
    plot = Plot(Axis(0, 100), Axis(0, 100, ticks=(0, 50, 100)), "% of the stream", "% of packets lost", 110)
    for n, share in enumerate(profile):
        if share > 0:
            plot.bar(100 * n / count, 100 * (n + 1) / count, max(3.0, 100 * min(1.0, share)), "loss")
    return plot.svg(caption)


def linear_ticks(low: float, high: float, whole: bool = False) -> list[float]:
    """About five round numbers inside low..high."""
    rough = (high - low) / 5
    decade = 10.0 ** math.floor(math.log10(rough))
    step = next(decade * m for m in (1, 2, 5, 10) if decade * m >= rough * 0.999)
    step = max(1.0, step) if whole else step
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [n * step for n in range(first, last + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """Powers of ten inside low..high, with 2 and 5 times them where they are few; never more than seven."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    inside = [m * 10.0**k for k in range(first, last + 1) for m in (1, 2, 5) if low <= m * 10.0**k <= high]
    powers = [tick for tick in inside if math.isclose(math.log10(tick) % 1, 0, abs_tol=1e-9)]
    return inside if len(inside) <= 7 else powers[:: -(-len(powers) // 7)]


def number(value: float) -> str:
    """A tick's number: no more digits than it needs."""
    text = f"{value:.6g}" if abs(value) < 1e5 else f"{value:.0e}".replace("e+0", "e")
    return text.replace("-", "−")


def svg(drawn: Iterable[str], height: float, caption: str) -> Svg:
    """A drawing WIDTH wide, named for those who do not see it."""
    view = f'viewBox="0 0 {WIDTH} {height:g}" role="img" aria-label="{escape(caption)}"'
    return Svg(f'<svg class="chart" {view}>{"".join(drawn)}</svg>')


def finite(value: Any) -> bool:
    return value is not None and math.isfinite(value)
