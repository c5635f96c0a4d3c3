"""A profile as one HTML page that opens anywhere, offline."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hil.profiles.demand import Margin
from hil.profiles.profile_file import DeviceProfile
from payload.errors import InputError

TEMPLATE = Path(__file__).parent / "templates" / "profile.html"
#: (name, value, unit, note, class of the style sheet)
KeyFigure = tuple[str, str, str, str, str]


def render(profile: DeviceProfile, mission: str = "", judged: Sequence[Margin] = ()) -> str:
    """The page's text, with the budgets of a mission where one was given."""
    try:
        from sim.design import page  # here, so that the agent's machine needs no jinja2
    except ImportError:
        raise InputError("the page needs jinja2; pip install 'nadir-payload[ground]'") from None
    context = {"profile": profile, "mission": mission, "judged": judged}
    return page.render(TEMPLATE, context | {"plots": _plots(profile), "key_figures": _key_figures(profile)})


def write_page(profile: DeviceProfile, path: Path, mission: str = "", judged: Sequence[Margin] = ()) -> None:
    """Whole or not at all."""
    text = render(profile, mission, judged)
    fresh = path.with_suffix(".part")
    fresh.write_text(text, encoding="utf-8")
    fresh.rename(path)


def basis_of(text: str) -> str:
    """The basis that a profile's sentence begins with: 'modelled: 0.6 W idle ...' -> 'modelled'."""
    return "modelled" if text.startswith("modelled") else "measured on device"


def _key_figures(profile: DeviceProfile) -> list[KeyFigure]:
    rows: list[KeyFigure] = []
    if p := profile.performance:
        word = basis_of(p.basis)
        rows += [
            ("A tile, p50", _ms(p.tile_s.p50_s), "ms", f"p99 {_ms(p.tile_s.p99_s)} ms; {word}", ""),
            ("Throughput", f"{p.tile_mpx_s:.4g}", "Mpx/s", f"streamed {p.streamed_mpx_s:.4g}; {word}", ""),
            ("Memory, peak", f"{p.peak_memory_mib:.4g}", "MiB", f"whole agent; {word}", ""),
        ]
    if e := profile.energy:
        word = basis_of(e.basis)
        net = f"{e.mpx_net_j:.4g} J/Mpx, idle subtracted; {word}"
        rows += [
            ("Energy of a tile", f"{1e3 * e.tile_net_j:.4g}", "mJ", net, ""),
            ("Power at work", f"{e.busy_w:.4g}", "W", f"{e.idle_w:.4g} W at rest; {word}", ""),
        ]
    return rows


def _ms(seconds: float) -> str:
    return f"{1e3 * seconds:.4g}"


def _plots(profile: DeviceProfile) -> dict[str, Any]:
    from hil.profiles import plots
    from sim.design.charts import parts

    found: dict[str, Any] = {}
    if profile.performance:
        found["histogram"] = plots.latency_histogram(profile.performance)
        found["timeline"] = plots.latency_timeline(profile.performance)
        found["stages"] = parts({n: 1e3 * s.mean_s for n, s in profile.performance.stages_s.items()}, "ms")
    if profile.energy:
        if len(profile.energy.trace_t_s) > 1:
            found["power"] = plots.power_trace(profile.energy)
        if len(profile.energy.first_t_s) > 1:
            found["first_tiles"] = plots.first_tiles(profile.energy)
            found["first_keys"] = list(dict.fromkeys(span.name for span in profile.energy.first_tiles))
        if sum(profile.energy.stage_net_j.values()) > 0:
            found["energy"] = parts({n: 1e3 * j for n, j in profile.energy.stage_net_j.items()}, "mJ")
    if profile.roofline:
        found["roofline"] = plots.roofline(profile.roofline)
    return found
