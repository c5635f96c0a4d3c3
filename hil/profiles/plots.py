"""Charts of a profile, drawn by the house's one set (sim/design/charts.py): inline SVG, colours by CSS class."""

import math
from collections.abc import Sequence

from hil.profiles.profile_file import CODED, WITHHELD, Energy, Performance, Roofline, Spread
from sim.design.charts import Axis, Plot, Svg, histogram


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
    """Where the networks stand under the device's two ceilings; both axes are logarithmic."""
    corner = found.peak_gmac_s / found.memory_gb_s  # MAC per octet where both ceilings meet
    low_x, high_x = min(corner, found.macs_per_octet) / 20, max(corner, found.macs_per_octet) * 20
    high_y = max(found.peak_gmac_s, found.achieved_gmac_s) * 3
    low_y = min(found.achieved_gmac_s, low_x * found.memory_gb_s) / 3
    across, up = Axis(low_x, high_x, log=True), Axis(low_y, high_y, log=True)
    plot = Plot(across, up, "multiply-accumulates per octet moved, logarithmic", "GMAC/s, logarithmic")
    slope = [(low_x, low_x * found.memory_gb_s), (corner, found.peak_gmac_s), (high_x, found.peak_gmac_s)]
    plot.line(slope, "s5")
    plot.dot(found.macs_per_octet, found.achieved_gmac_s, "s0", 5)
    at = plot.x(found.macs_per_octet) + 9, plot.y(found.achieved_gmac_s) + 4
    plot.text(*at, f"achieved {found.achieved_gmac_s:.3g}", css="name")
    plot.text(plot.x(high_x) - 2, plot.y(found.peak_gmac_s) - 6, f"peak {found.peak_gmac_s:.3g} GMAC/s", "end")
    middle = math.sqrt(low_x * corner)  # of the slope, on its logarithmic axis; the words stand to its right
    beside = plot.x(middle) + 12, plot.y(middle * found.memory_gb_s) + 10
    plot.text(*beside, f"memory {found.memory_gb_s:.3g} GB/s")
    return plot.svg("Roofline of the networks, logarithmic axes")
