"""Plots of a profile as SVG text: no script, no font, no file beside the page."""

import math
from collections.abc import Sequence
from html import escape

import numpy as np

from hil.profiles.profile_file import Energy, Performance, Roofline

WIDTH, HEIGHT = 560, 240
LEFT, RIGHT, TOP, BOTTOM = 58, 14, 14, 40
INK, FAINT, BLUE, RUST, SAND = "#1d2530", "#d5dae0", "#2b6cb0", "#b7472a", "#e9eef5"
STAGES = ("#2b6cb0", "#b7472a", "#6b8e23", "#8059a5", "#c08a1e", "#3a8f8f", "#777777")


class Axes:
    """A frame with linear or logarithmic axes and round ticks."""

    def __init__(
        self, x: tuple[float, float], y: tuple[float, float], labels: tuple[str, str], log: bool = False
    ) -> None:
        self._log = log
        self._x, self._y = x, y
        self.parts = [
            f'<rect x="{LEFT}" y="{TOP}" width="{WIDTH - LEFT - RIGHT}" height="{HEIGHT - TOP - BOTTOM}" '
            f'fill="#fff" stroke="{FAINT}"/>'
        ]
        for value in ticks(*x, log):
            at = self.x(value)
            self.line(at, TOP, at, HEIGHT - BOTTOM, FAINT)
            self.text(at, HEIGHT - BOTTOM + 15, short(value), "middle")
        for value in ticks(*y, log):
            at = self.y(value)
            self.line(LEFT, at, WIDTH - RIGHT, at, FAINT)
            self.text(LEFT - 6, at + 4, short(value), "end")
        self.text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 6, labels[0], "middle")
        middle = (TOP + HEIGHT - BOTTOM) / 2
        self.parts.append(
            f'<text x="13" y="{middle:.1f}" text-anchor="middle" transform="rotate(-90 13 {middle:.1f})">'
            f"{escape(labels[1])}</text>"
        )

    def x(self, value: float) -> float:
        return LEFT + self._share(value, self._x) * (WIDTH - LEFT - RIGHT)

    def y(self, value: float) -> float:
        return HEIGHT - BOTTOM - self._share(value, self._y) * (HEIGHT - TOP - BOTTOM)

    def line(self, x1: float, y1: float, x2: float, y2: float, colour: str, width: float = 1, dash: str = "") -> None:
        extra = f' stroke-dasharray="{dash}"' if dash else ""
        self.parts.append(
            f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" '
            f'stroke="{colour}" stroke-width="{width}"{extra}/>'
        )

    def path(self, xs: Sequence[float], ys: Sequence[float], colour: str, width: float = 1.5) -> None:
        points = " ".join(f"{self.x(a):.1f},{self.y(b):.1f}" for a, b in zip(xs, ys, strict=True))
        self.parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="{width}"/>')

    def bar(self, x1: float, x2: float, y2: float, colour: str, y1: float = 0.0) -> None:
        left, right, low, high = self.x(x1), self.x(x2), self.y(y1), self.y(y2)
        width, height = max(right - left, 0.5), max(low - high, 0)
        self.parts.append(
            f'<rect x="{left:.1f}" y="{high:.1f}" width="{width:.1f}" height="{height:.1f}" fill="{colour}"/>'
        )

    def dot(self, x: float, y: float, colour: str, radius: float = 2) -> None:
        self.parts.append(f'<circle cx="{self.x(x):.1f}" cy="{self.y(y):.1f}" r="{radius}" fill="{colour}"/>')

    def text(self, x: float, y: float, words: str, anchor: str = "start", colour: str = INK) -> None:
        self.parts.append(
            f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}">{escape(words)}</text>'
        )

    def svg(self, title: str) -> str:
        return (
            f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}" font-size="11" fill="{INK}">'
            f"<title>{escape(title)}</title>{''.join(self.parts)}</svg>"
        )

    def _share(self, value: float, ends: tuple[float, float]) -> float:
        low, high, value = (math.log10(v) for v in (*ends, value)) if self._log else (*ends, value)
        return min(1.0, max(0.0, (value - low) / (high - low)))


def latency_histogram(performance: Performance) -> str:
    ms = 1e3 * np.array(performance.latencies_s)
    counts, edges = np.histogram(ms, bins=min(40, max(8, len(ms) // 4)))
    axes = Axes(
        (float(edges[0]), float(edges[-1])), (0, float(counts.max()) * 1.08), ("latency of a tile, ms", "tiles")
    )
    for count, left, right in zip(counts, edges, edges[1:], strict=False):
        axes.bar(float(left), float(right), float(count), BLUE)
    spread = performance.tile_s
    known = [(name, s) for name, s in (("p50", spread.p50_s), ("p95", spread.p95_s), ("p99", spread.p99_s)) if s]
    for step, (name, seconds) in enumerate(known):
        at = axes.x(1e3 * seconds)
        axes.line(at, TOP, at, HEIGHT - BOTTOM, RUST, 1.5, "4 3")
        late = at > WIDTH - 130
        axes.text(
            at - 3 if late else at + 3,
            TOP + 12 + 13 * step,
            f"{name} {1e3 * seconds:.3g} ms",
            "end" if late else "start",
            RUST,
        )
    return axes.svg("Histogram of tile latencies")


def latency_timeline(performance: Performance) -> str:
    ms = [1e3 * seconds for seconds in performance.latencies_s]
    axes = Axes((0, max(len(ms), 2)), (0, max(ms) * 1.08), (f"tile, over {performance.repeats} repeats", "latency, ms"))
    for n, value in enumerate(ms):
        axes.dot(n + 0.5, value, BLUE)
    each = len(ms) // performance.repeats
    for repeat in range(1, performance.repeats):
        axes.line(axes.x(repeat * each), TOP, axes.x(repeat * each), HEIGHT - BOTTOM, RUST, 1, "2 4")
    return axes.svg("Latency of each tile in order")


def power_trace(energy: Energy) -> str:
    high = max(*energy.trace_w, energy.peak_w) * 1.15
    axes = Axes((0, energy.trace_t_s[-1]), (0, high), ("time, s", "power, W"))
    axes.bar(energy.busy_from_s, energy.busy_to_s, high, SAND)
    axes.path(energy.trace_t_s, energy.trace_w, BLUE)
    for words, watts, left in (("idle", energy.idle_w, 0.0), ("busy", energy.busy_w, energy.busy_from_s)):
        right = energy.busy_from_s if words == "idle" else energy.busy_to_s
        axes.line(axes.x(left), axes.y(watts), axes.x(right), axes.y(watts), RUST, 1.5, "4 3")
        axes.text(axes.x(left) + 6, axes.y(watts) - 6, f"{words} {watts:.3g} W", colour=RUST)
    return axes.svg("Power at rest and at work")


def first_tiles(energy: Energy) -> str:
    """The trace over the first tiles at work, each stage on its own ground."""
    high = max(*energy.first_w, energy.peak_w) * 1.15
    axes = Axes((energy.first_t_s[0], energy.first_t_s[-1]), (0, high), ("time, s", "power, W"))
    names = list(dict.fromkeys(span.name for span in energy.first_tiles))
    for span in energy.first_tiles:
        axes.bar(span.start_s, span.end_s, high, STAGES[names.index(span.name) % len(STAGES)] + "55")
    axes.path(energy.first_t_s, energy.first_w, INK)
    return axes.svg("Power over the first tiles by stage")


def shares(parts: dict[str, float], unit: str, title: str) -> str:
    """One bar cut into the parts' shares, with a legend."""
    total = sum(parts.values()) or 1.0
    height = 52 + 18 * len(parts)
    drawn, at = [], 0.0
    for k, (name, value) in enumerate(parts.items()):
        colour, width = STAGES[k % len(STAGES)], WIDTH * value / total
        drawn.append(f'<rect x="{at:.1f}" y="6" width="{width:.1f}" height="26" fill="{colour}"/>')
        drawn.append(f'<rect x="0" y="{44 + 18 * k}" width="11" height="11" fill="{colour}"/>')
        drawn.append(f'<text x="18" y="{54 + 18 * k}">{escape(name)}</text>')
        drawn.append(f'<text x="240" y="{54 + 18 * k}" text-anchor="end">{value:.4g} {escape(unit)}</text>')
        drawn.append(f'<text x="310" y="{54 + 18 * k}" text-anchor="end">{100 * value / total:.1f} %</text>')
        at += width
    return (
        f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(title)}" font-size="12" fill="{INK}">'
        f"<title>{escape(title)}</title>{''.join(drawn)}</svg>"
    )


def roofline(found: Roofline) -> str:
    corner = found.peak_gmac_s / found.memory_gb_s  # MAC per octet where both ceilings meet
    low_x, high_x = min(corner, found.macs_per_octet) / 20, max(corner, found.macs_per_octet) * 20
    high_y = max(found.peak_gmac_s, found.achieved_gmac_s) * 3
    low_y = min(found.achieved_gmac_s, low_x * found.memory_gb_s) / 3
    axes = Axes((low_x, high_x), (low_y, high_y), ("multiply-accumulates per octet moved", "GMAC/s"), log=True)
    axes.path([low_x, corner, high_x], [low_x * found.memory_gb_s, found.peak_gmac_s, found.peak_gmac_s], INK)
    axes.dot(found.macs_per_octet, found.achieved_gmac_s, RUST, 5)
    label = f"achieved {found.achieved_gmac_s:.3g} GMAC/s"
    axes.text(axes.x(found.macs_per_octet) + 9, axes.y(found.achieved_gmac_s) + 4, label, colour=RUST)
    axes.text(WIDTH - RIGHT - 6, axes.y(found.peak_gmac_s) - 6, f"peak {found.peak_gmac_s:.3g} GMAC/s", "end")
    middle = math.sqrt(low_x * corner)  # of the slope, on its logarithmic axis; the words stand to its right
    axes.text(axes.x(middle) + 12, axes.y(middle * found.memory_gb_s) + 10, f"memory {found.memory_gb_s:.3g} GB/s")
    return axes.svg("Roofline of the networks")


def ticks(low: float, high: float, log: bool = False) -> list[float]:
    """Round values inside low..high: about five, or the powers of ten."""
    if log:
        return [10.0**k for k in range(math.ceil(math.log10(low)), math.floor(math.log10(high)) + 1)]
    raw = (high - low) / 5 or 1.0
    unit = 10.0 ** math.floor(math.log10(raw))
    step = next(unit * m for m in (1, 2, 5, 10) if unit * m >= raw)
    first = math.ceil(low / step)
    return [step * k for k in range(first, math.floor(high / step + 1e-9) + 1)]


def short(value: float) -> str:
    return f"{value:.4g}" if abs(value) < 1e5 else f"{value:.0e}"
