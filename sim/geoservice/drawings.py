"""Sites and figures -> inline SVG: the map of sites by state, a time series a site, the mean of groups over time."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from html import escape

from sim.design.charts import CHAR, WIDTH, Axis, Plot, Svg
from sim.design.figures import figure as told
from sim.design.world import World
from sim.geoservice.figures import Aggregate, Figure, State
from sim.geoservice.service import Indicator
from sim.geoservice.sites import Site

#: The style sheet's class of each state. States are named in words wherever they are drawn.
COLOURS: Mapping[State, str] = {"alert": "s0", "unconfirmed": "s6", "calm": "s3", "not seen": "s8"}
#: Of the map's plot, in the drawing's units.
PLOT_WIDTH, LOWEST, HIGHEST = 300, 120, 380
MOST_NAMES, NAME_HEIGHT = 30, 12
SMALLEST_SITE = 7.0
DAY_S = 86_400.0
LEAST_DAYS = 4.0
#: A longer axis has its dates at the beginnings of months: none is moved before the axis begins.
LONG_DAYS = 190.0
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def site_map(sites: Sequence[Site], states: Mapping[str, State]) -> Svg:
    """Every site at its place, filled by its state and called by its name; an angle is as long both ways."""
    across, up, height = _frame(sites)
    plot = Plot(across, up, "longitude, degrees east", "latitude, degrees north", height)
    for site in sites:
        css, title = COLOURS[states[site.name]], f"{site.name}: {states[site.name]}"
        if _size(plot, site) < SMALLEST_SITE:
            plot.dot(*site.middle, css, 4, title)
        drawn = f'<path class="bar {css}" fill-rule="evenodd" d="{_outline(plot, site)}">'
        plot.parts.append(f"{drawn}<title>{escape(title)}</title></path>")
    if len(sites) <= MOST_NAMES:
        for site, x, y in _named(plot, sites):
            plot.text(x, y, site.name, "middle", "over name")
    return plot.svg("Map of the sites by state")


def world_map(sites: Sequence[Site], states: Mapping[str, State]) -> Svg:
    """Where on the Earth the sites are."""
    world = World()
    for state, css in reversed(list(COLOURS.items())):
        world.dots([site.middle for site in sites if states[site.name] == state], f"place {css}", 2.2)
    return world.svg("Where the sites lie on the Earth")


def series(figures: Sequence[Figure], indicator: Indicator, name: str, site: str) -> Svg:
    """Passes as dots, periods as a line; rules where alert begins and ends."""
    points = [(day(r.at), r.value, r.run) for one in figures for r in one.readings if r.value is not None]
    values = [(day(one.readings[-1].at), one.value, one) for one in figures if one.value is not None]
    heights = [value for _, value, _ in points] + [value for _, value, _ in values]
    if not heights:
        return Svg()
    limits = [limit for limit in (indicator.alert, indicator.clear) if limit is not None]
    plot = Plot(_dates([x for x, *_ in points]), _heights([*heights, *limits], indicator), "", indicator.shown_unit)
    plot.line([(x, value) for x, value, _ in values], "s1")
    for x, value, run in points:
        plot.dot(x, value, "s1", 1.8, f"{_date(x)}: {told(value)}, run {run}")
    for x, value, one in values:
        runs = ", ".join(map(str, one.runs))
        plot.dot(
            x,
            value,
            css_of(one, indicator),
            3.6,
            f"{one.period}: {told(value)}, {one.state}, figure {one.name}, runs {runs}",
        )
    for words, limit in (("alert", indicator.alert), ("clear", indicator.clear)):
        if limit is not None:
            plot.rule_at_y(limit, words)
    return plot.svg(f"{name} of {site} over time")


def over_groups(rows: Sequence[Aggregate], dates: Mapping[str, float], indicator: Indicator, name: str) -> Svg:
    """The value of each group over time, a line each, in the series' colours."""
    groups = list(dict.fromkeys(row.group for row in rows))
    seen = [(row, dates[row.period], row.value) for row in rows if row.value is not None]
    if not seen:
        return Svg()
    plot = Plot(_dates([x for _, x, _ in seen]), _heights([v for *_, v in seen], indicator), "", indicator.shown_unit)
    for n, group in enumerate(groups):
        points = [(x, value, row) for row, x, value in seen if row.group == group]
        plot.line([(x, value) for x, value, _ in points], group_css(n))
        for x, value, row in points:
            runs = ", ".join(map(str, row.runs))
            plot.dot(x, value, group_css(n), 2.6, f"{group}, {row.period}: {told(value)}, runs {runs}")
    return plot.svg(f"{name} of groups of sites over time")


def css_of(one: Figure, indicator: Indicator) -> str:
    """The class of a figure: of its state, where its indicator has a threshold or it was not seen."""
    return "s1" if indicator.alert is None and one.value is not None else COLOURS[one.state]


def group_css(number: int) -> str:
    return f"s{(1, 4, 9, 7, 2, 5)[number % 6]}"


def day(at: datetime) -> float:
    return at.timestamp() / DAY_S


def _date(days: float) -> str:
    return (EPOCH + timedelta(days=days)).strftime("%Y-%m-%d")


def _dates(days: Iterable[float]) -> Axis:
    """An axis of days with three dates on it, whole days apart, or months where it is long."""
    known = list(days)
    low, high = min(known), max(known)
    spare = max(0.03 * (high - low), (LEAST_DAYS - (high - low)) / 2, 0.0)
    low, high = low - spare, high + spare
    ticks = [math.floor(low + share * (high - low)) + 0.0 for share in (1 / 6, 1 / 2, 5 / 6)]
    if high - low > LONG_DAYS:
        ticks = [tick + 1 - (EPOCH + timedelta(days=tick)).day for tick in ticks]
    inside = [max(tick, math.ceil(low)) for tick in ticks]
    return Axis(low, high, ticks=inside, texts={tick: _date(tick) for tick in inside})


def _heights(values: Sequence[float], indicator: Indicator) -> Axis:
    """An axis around the values; of shares the same one for every site."""
    low, high = min(values), max(values)
    if indicator.is_share:
        return Axis(0, max(high, 1))
    spare = 0.08 * (high - low)
    return Axis(0 if indicator.counts else low - spare, high + spare, whole=indicator.counts)


def _outline(plot: Plot, site: Site) -> str:
    """Path data of all rings."""
    rings = (ring for polygon in site.polygons for ring in polygon)
    return "".join("M" + "L".join(f"{plot.x(x):.1f} {plot.y(y):.1f}" for x, y in ring) + "z" for ring in rings)


def _size(plot: Plot, site: Site) -> float:
    xs, ys = zip(*((plot.x(x), plot.y(y)) for x, y in site.corners), strict=True)
    return max(max(xs) - min(xs), max(ys) - min(ys))


def _frame(sites: Sequence[Site]) -> tuple[Axis, Axis, int]:
    """Axes around all sites, and the height of the drawing at which a kilometre is as long both ways."""
    longitudes, latitudes = zip(*(corner for site in sites for corner in site.corners), strict=True)
    west, east, south, north = min(longitudes), max(longitudes), min(latitudes), max(latitudes)
    middle = (south + north) / 2
    squeeze = max(0.1, math.cos(math.radians(middle)))
    wide, tall = 1.25 * max(east - west, 1e-4) * squeeze, 1.25 * max(north - south, 1e-4)
    wide = max(wide, tall * PLOT_WIDTH / HIGHEST)
    tall = max(tall, wide * LOWEST / PLOT_WIDTH)
    half_x, half_y = wide / squeeze / 2, tall / 2
    centre = (west + east) / 2
    across, up = Axis(centre - half_x, centre + half_x), Axis(middle - half_y, middle + half_y)
    return across, up, round(PLOT_WIDTH * tall / wide) + 56


def _named(plot: Plot, sites: Sequence[Site]) -> Iterator[tuple[Site, float, float]]:
    """Where names stand: above their sites, pushed down past those that stand there already."""
    taken: list[tuple[float, float, float]] = []
    for site in sorted(sites, key=lambda one: -max(y for _, y in one.corners)):
        half = CHAR * len(site.name) / 2
        x = min(max(plot.x(site.middle[0]), plot.left + half), WIDTH - half)
        y = plot.y(max(latitude for _, latitude in site.corners)) - 4
        while any(abs(x - other) < half + width and abs(y - at) < NAME_HEIGHT for other, at, width in taken):
            y += NAME_HEIGHT
        taken.append((x, y, half))
        yield site, x, y
