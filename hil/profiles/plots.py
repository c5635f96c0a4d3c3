"""Charts of a profile, drawn by the house's one set (sim/design/charts.py): inline SVG, colours by CSS class."""

import math
from collections.abc import Mapping, Sequence

from hil.profiles.findings import Soak
from hil.profiles.profile_file import CODED, WITHHELD, Energy, Performance, Roofline, Spread
from sim.design.charts import Axis, Plot, Svg, histogram

ROOFLINE_HEIGHT = 240
#: Precision of a layer or a ceiling -> series of the style sheet.
PRECISION_CSS = {"INT8": "s1", "FP32": "s2", "INT16": "s3", "FP16": "s4"}


def latency_histograms(performance: Performance) -> list[tuple[str, Svg]]:
    """(what became of the tiles, how often one takes how long), with the percentiles that are known."""
    if not performance.kinds:
        return [("a tile", _histogram("a tile", performance.latencies_s, performance.tile_s))]
    found = []
    for kind, times in performance.kinds.items():
        both = zip(performance.latencies_s, performance.latency_kinds, strict=True)
        of_kind, what = [s for s, of in both if of == kind], f"a {kind} tile"
        found.append((what, _histogram(what, of_kind, times.tile_s)))
    return found


def _histogram(what: str, seconds: Sequence[float], spread: Spread) -> Svg:
    ms = [1e3 * value for value in seconds]
    marks = [("p50", spread.p50_s), ("p95", spread.p95_s), ("p99", spread.p99_s)]
    rules = [(min(1e3 * s, max(ms)), f"{name} {1e3 * s:.3g} ms") for name, s in marks if s is not None]
    return histogram(ms, f"{what}, ms", f"Histogram of the time {what} takes", min(40, max(8, len(ms) // 4)), rules)


def latency_timeline(performance: Performance) -> Svg:
    """One dot a tile, in order, withheld tiles as crosses; a rule where a repeat begins."""
    ms = [1e3 * seconds for seconds in performance.latencies_s]
    title = f"tile, over {performance.repeats} repeat{'s' if performance.repeats > 1 else ''}"
    plot = Plot(Axis(0, max(len(ms), 2), whole=True), Axis(0, max(ms) * 1.08), title, "a tile, ms")
    kinds = performance.latency_kinds or (CODED,) * len(ms)
    for n, (value, kind) in enumerate(zip(ms, kinds, strict=True)):
        if kind == WITHHELD:
            plot.cross(n + 0.5, value)
        else:
            plot.dot(n + 0.5, value, radius=2.2)
    each = len(ms) // performance.repeats
    for repeat in range(1, performance.repeats):
        plot.rule_at_x(repeat * each)
    return plot.svg("Latency of each tile in order")


def power_trace(energy: Energy) -> Svg:
    """Power over the last repeat; the band is the time at work, the rules are the medians."""
    high = max(*energy.trace_w, energy.peak_w) * 1.15
    plot = Plot(Axis(0, energy.trace_t_s[-1]), Axis(0, high), "time, s", "power, W")
    plot.bar(energy.busy_from_s, energy.busy_to_s, high, "band")
    plot.line(zip(energy.trace_t_s, energy.trace_w, strict=True), "s1")
    plot.rule_at_y(energy.idle_w, f"idle {energy.idle_w:.3g} W", 0.0, energy.busy_from_s)
    plot.rule_at_y(energy.busy_w, f"at work {energy.busy_w:.3g} W", energy.busy_from_s, energy.busy_to_s)
    return plot.svg("Power at rest and at work")


def first_tiles(energy: Energy) -> Svg:
    """The trace over the first tiles at work, each stage on a band of its own colour."""
    high = max(*energy.first_w, energy.peak_w) * 1.15
    plot = Plot(Axis(energy.first_t_s[0], energy.first_t_s[-1]), Axis(0, high), "time, s", "power, W")
    names = list(dict.fromkeys(span.name for span in energy.first_tiles))
    for span in energy.first_tiles:
        plot.bar(span.start_s, span.end_s, high, f"band s{names.index(span.name) % 9 + 1}")
    plot.line(zip(energy.first_t_s, energy.first_w, strict=True), "s5")
    return plot.svg("Power over the first tiles by stage")


def roofline(found: Roofline) -> Svg:
    """The networks, and each layer by its precision, under the device's ceilings; both axes are logarithmic."""
    layers = [layer for layer in found.layers if layer.macs and layer.octets]
    peaks = found.ceilings or {found.peak_precision: found.peak_gmac_s}
    places = [(found.macs_per_octet, found.achieved_gmac_s), *((one.macs_per_octet, one.gmac_s) for one in layers)]
    corners = [peak / found.memory_gb_s for peak in peaks.values()]  # MAC per octet where both ceilings meet
    low_x, high_x = min(*corners, *(x for x, _ in places)) / 3, max(*corners, *(x for x, _ in places)) * 6
    low_y = min(low_x * found.memory_gb_s, *(y for _, y in places)) / 2
    high_y = max(found.peak_gmac_s, *peaks.values(), *(y for _, y in places)) * 3
    across, up = Axis(low_x, high_x, log=True), Axis(low_y, high_y, log=True)
    plot = Plot(across, up, "multiply-accumulates per octet moved, logarithmic", "GMAC/s, logarithmic", ROOFLINE_HEIGHT)
    for layer in layers:
        told = f"{layer.network}: {layer.name}, {layer.precision}, {layer.gmac_s:.3g} GMAC/s"
        plot.dot(layer.macs_per_octet, layer.gmac_s, PRECISION_CSS.get(layer.precision, "s8"), 3, told)
    if not any(math.isclose(found.peak_gmac_s, peak) for peak in peaks.values()):
        plot.rule_at_y(found.peak_gmac_s, f"published peak {found.peak_gmac_s:.3g}")
    _ceilings(plot, peaks, found.memory_gb_s, (low_x, high_x))
    plot.dot(found.macs_per_octet, found.achieved_gmac_s, "s0", 5)
    plot.text(plot.x(found.macs_per_octet) + 8, plot.y(found.achieved_gmac_s) + 4, "networks", css="name over")
    return plot.svg("Roofline of the networks and their layers, logarithmic axes")


def _ceilings(plot: Plot, peaks: Mapping[str, float], memory_gb_s: float, ends: tuple[float, float]) -> None:
    """The slope of the memory up to the highest peak, and a level for every precision."""
    low_x, high_x = ends
    for precision, peak in peaks.items():
        plot.line([(peak / memory_gb_s, peak), (high_x, peak)], PRECISION_CSS.get(precision, "s5"))
        plot.text(plot.x(high_x) - 2, plot.y(peak) - 4, f"{precision} {peak:.3g} GMAC/s", "end", "over")
    corner = max(peaks.values()) / memory_gb_s
    plot.line([(low_x, low_x * memory_gb_s), (corner, corner * memory_gb_s)], "s5")
    middle = math.sqrt(low_x * corner)  # of the slope, on its logarithmic axis; the words stand below it
    plot.text(plot.x(middle) + 8, plot.y(middle * memory_gb_s) + 12, f"memory {memory_gb_s:.3g} GB/s", css="over")


def soak(found: Soak) -> list[tuple[str, Svg]]:
    """(title, chart over time): time of a tile, and clock and temperature where the device tells them."""
    rows: list[tuple[str, str, str, list[tuple[float, float]]]] = [
        ("How long a tile takes", "ms", "s1", [(p.t_s, 1e3 * p.tile_s) for p in found.points]),
        ("Clock", "MHz", "s3", [(p.t_s, p.clock_mhz) for p in found.points if p.clock_mhz is not None]),
        ("Hottest part", "°C", "s0", [(p.t_s, p.hottest_c) for p in found.points if p.hottest_c is not None]),
    ]
    return [(what, _over_time(what, unit, css, points, found.seconds)) for what, unit, css, points in rows if points]


def _over_time(what: str, unit: str, css: str, points: Sequence[tuple[float, float]], seconds: float) -> Svg:
    values = [value for _, value in points]
    low = 0.0 if unit == "ms" else min(values) * 0.97
    plot = Plot(Axis(0, seconds), Axis(low, max(values) * 1.06), "time, s", unit)
    plot.line(points, css)
    if len(points) < 2:
        plot.dot(*points[0], css)
    return plot.svg(f"{what} over a sustained run")
