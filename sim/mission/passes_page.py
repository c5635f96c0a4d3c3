"""The pass plan as a page and as drawings: timeline, ground track, the link along a pass."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from sim.design import charts, world
from sim.design.charts import Axis, Plot, Series, Svg
from sim.design.figures import octets
from sim.design.page import TEMPLATES, render
from sim.design.standalone import standalone
from sim.link import atmosphere, rate_steps
from sim.link.propagation import points_below, satellite_of
from sim.link.sunlight import lit
from sim.mission.passes import PassPlan, as_json
from sim.mission.windows import Window

#: A ground track is drawn for so many days at most: more is a grey mat.
MOST_TRACK_DAYS = 1.0
#: How many passes are drawn one by one.
SHOWN = 2
PASS_COLOURS = ("s1", "s6")


def render_page(plan: PassPlan) -> str:
    """The text of passes.html."""
    found = as_json(plan)
    shown = telling_passes(plan)
    return render(
        TEMPLATES / "passes.html",
        {
            "plan": found,
            "key_figures": _key_figures(plan),
            "timeline": timeline(plan),
            "map": ground_track(plan),
            "capacity": capacities(plan),
            "panels": pass_panels(shown),
            "shown": [(css, name_of(window)) for css, window in zip(PASS_COLOURS, shown, strict=False)],
            "sources": _sources(plan),
        },
    )


def drawings(plan: PassPlan) -> dict[str, str]:
    """File name -> SVG text of the drawings that stand on their own."""
    return {"timeline.svg": standalone(timeline(plan)), "map.svg": standalone(ground_track(plan))}


def write(plan: PassPlan, folder: Path) -> None:
    """passes.html and the drawings into a folder."""
    (folder / "passes.html").write_text(render_page(plan), encoding="utf-8")
    for name, text in drawings(plan).items():
        (folder / name).write_text(text, encoding="utf-8")


def telling_passes(plan: PassPlan) -> list[Window]:
    """The highest pass that is used whole, and the one of median height."""
    found = [s.window for s in plan.windows if s.window.usable_s]
    whole = [window for window in found if not window.share.yields_to] or found
    used = sorted(whole, key=lambda window: window.contact.max_elevation_deg)
    return list(dict.fromkeys([used[-1], used[len(used) // 2]])) if used else []


def name_of(window: Window) -> str:
    contact = window.contact
    return f"{contact.station}, {contact.rise_at:%d %b %H:%M}, up to {contact.max_elevation_deg:.0f}°"


def timeline(plan: PassPlan) -> Svg:
    """A row for every station, a bar for every window, and below them when the satellite is in the sun."""
    across, rows = day_axis(plan.days), len(plan.stations) + 1
    up = Axis(0, rows, ticks=())
    plot = Plot(across, up, day_title(plan.days), "", charts.TOP + charts.BOTTOM + 24 * rows)
    for begin, end in dark_spans(plan):
        plot.bar(begin, end, rows, "band s8", 0)
    for n, station in enumerate(plan.stations):
        top = rows - n
        for sent in plan.windows:
            if sent.window.contact.station == station.name:
                _bar(plot, plan, sent.window, top)
        plot.text(plot.left, plot.y(top) + 9, station.name, css="name over")
    plot.text(plot.left, plot.y(1) + 9, "grey: in the Earth's shadow", css="over")
    return plot.svg("Timeline of the passes")


def ground_track(plan: PassPlan) -> Svg:
    """The track of the first day or less, stations with what they see, and the tracks of the windows."""
    satellite, drawn = satellite_of(plan.mission.orbit), world.World()
    days = min(plan.days, MOST_TRACK_DAYS)
    drawn.track(_track(satellite, plan, np.arange(0.0, days * 86400, 60.0)), "quiet-track")
    for sent in plan.windows:
        since = (sent.window.share.begin_at - plan.start).total_seconds()
        if since < days * 86400 and sent.window.usable_s:
            seconds = since + np.linspace(0, sent.window.usable_s, 12)
            drawn.track(_track(satellite, plan, seconds), "contact-track")
    for station in plan.stations:
        reach = world.reach_deg(plan.mission.orbit.altitude_km, station.mask_deg)
        drawn.station((station.longitude_deg, station.latitude_deg), station.name, reach)
    return drawn.svg("Ground track and stations")


def capacities(plan: PassPlan) -> Svg:
    """What each window carries, in MB, and what of it is used."""
    if not plan.windows:
        return Svg()
    most = max(s.window.capacity_octets for s in plan.windows) / 1e6
    plot = Plot(day_axis(plan.days), Axis(0, most or 1.0), day_title(plan.days), "MB in a window")
    for sent in plan.windows:
        begin = unit(plan, (sent.window.share.begin_at - plan.start).total_seconds())
        end = min(begin + plot.across.high / 150, plot.across.high)
        plot.bar(begin, end, sent.window.capacity_octets / 1e6, "bar s1")
        if sent.sent_octets:
            plot.bar(begin, end, sent.sent_octets / 1e6, "bar s6")
    return plot.svg("Octets that each window can carry")


def pass_panels(shown: Sequence[Window]) -> list[tuple[str, Svg]]:
    """Elevation, rate, margin and frames lost over the passes shown; without a link budget the first two."""
    if not shown:
        return []
    end = max(float(w.profile.at_s[-1]) for w in shown)
    panels = [
        ("Elevation", "degrees", [w.profile.elevation_deg for w in shown]),
        ("Rate of packets", "Mb/s", [w.profile.rate_bps / 1e6 for w in shown]),
        ("Eb/N0 above what the step needs", "dB", [w.profile.margin_db for w in shown]),
        ("Frames lost", "log10 of the share", [_log(w.profile.frame_error_rate) for w in shown]),
    ]
    drawn = []
    for title, unit, values in panels:
        series = [
            Series(css, list(zip(w.profile.at_s.tolist(), v.tolist(), strict=True)))
            for css, w, v in zip(PASS_COLOURS, shown, values, strict=False)
        ]
        drawn.append((title, charts.lines(series, Axis(0, end), "s after the rise", unit, f"{title} over a pass")))
    return [(title, svg) for title, svg in drawn if svg]


def day_axis(days: float) -> Axis:
    return Axis(0, days * 24) if days <= 2 else Axis(0, days)


def day_title(days: float) -> str:
    return "hours" if days <= 2 else "days"


def dark_spans(plan: PassPlan) -> list[tuple[float, float]]:
    """When the satellite is in shadow, in the timeline's own units."""
    minutes = np.arange(0.0, plan.days * 86400, 60.0)
    dark = np.r_[False, ~lit(satellite_of(plan.mission.orbit), plan.start, minutes), False]
    edges = np.flatnonzero(np.diff(dark.astype(np.int8)))
    return [(unit(plan, a * 60.0), unit(plan, b * 60.0)) for a, b in zip(edges[::2], edges[1::2], strict=True)]


def unit(plan: PassPlan, seconds: float) -> float:
    """Seconds after the start in the timeline's own units."""
    return seconds / 3600 if plan.days <= 2 else seconds / 86400


def _bar(plot: Plot, plan: PassPlan, window: Window, top: int) -> None:
    begin = (window.share.begin_at - plan.start).total_seconds()
    end = min(begin + window.usable_s, plan.days * 86400)
    plot.bar(unit(plan, begin), unit(plan, end), top - 0.45, f"bar {colour(window)}", top - 0.95)


def colour(window: Window) -> str:
    """A stronger colour for a higher pass."""
    return f"q{min(6, 2 + int(window.contact.max_elevation_deg / 18))}"


def _track(satellite: object, plan: PassPlan, seconds: np.ndarray) -> list[world.Place]:
    latitude, longitude = points_below(satellite, plan.start, seconds)
    return list(zip(longitude.tolist(), latitude.tolist(), strict=True))


def _log(rate: np.ndarray) -> np.ndarray:
    return np.where(rate > 0, np.log10(np.maximum(rate, 1e-12)), np.nan)


def _key_figures(plan: PassPlan) -> list[tuple[str, str, str, str, str]]:
    carried = sum(s.window.capacity_octets for s in plan.windows)
    used_s = sum(s.window.usable_s for s in plan.windows)
    rate = 8 * carried / used_s / 1e6 if used_s else 0.0
    shared = sum(bool(s.window.share.yields_to) for s in plan.windows)
    rows = [
        ("Windows", str(len(plan.windows)), "", f"{used_s / 3600:.1f} h in {plan.days:g} days, {shared} shared", ""),
        ("Transmittable", octets(carried), "", f"{rate:.3g} Mb/s on average, packets", ""),
        ("In the sun", f"{100 * plan.sunlit_share:.0f}", "%", "of the time", ""),
        ("Beta angle", f"{plan.beta_deg[0]:.1f}", "°", f"{plan.beta_deg[1]:.1f}° at the end", ""),
    ]
    if plan.volume_octets:
        down = f"{plan.down_at:%d %b %H:%M}" if plan.down_at else "not in time"
        note = f"{octets(plan.volume_octets)}; {octets(plan.waiting_octets)} left"
        rows.append(("Volume is down", down, "", note, "" if plan.down_at else "bad"))
    return rows


def _sources(plan: PassPlan) -> list[tuple[str, str]]:
    radio = plan.mission.radio
    if radio is None:
        return [("Rate", "constant: the mission has no [radio], so no link budget")]
    return [
        ("Steps of rate", rate_steps.source(radio.steps)),
        ("Atmosphere", atmosphere.source(radio.atmosphere)),
        ("Free space", "ITU-R P.525; pointing: 12 (angle / beamwidth)² dB"),
        ("Frames lost", f"curves, averaged over fades of {radio.fading_db:g} dB; no bit is modulated or decoded here"),
    ]
