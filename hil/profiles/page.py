"""A profile as one HTML page that opens anywhere, offline."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hil.profiles.demand import Margin
from hil.profiles.headline import headline
from hil.profiles.profile_file import BenchProfile
from payload.errors import InputError

TEMPLATE = Path(__file__).parent / "templates" / "profile.html"
#: (name, value, unit, note, class of the style sheet)
Tile = tuple[str, str, str, str, str]


def render(profile: BenchProfile, mission: str = "", judged: Sequence[Margin] = ()) -> str:
    """The page's text, with the budgets of a mission where one was given."""
    try:
        from sim.design import page  # here, so that the agent's machine needs no jinja2
    except ImportError:
        raise InputError("the page needs jinja2; pip install 'nadir-payload[ground]'") from None
    context = {"profile": profile, "mission": mission, "judged": judged}
    return page.render(TEMPLATE, context | {"plots": _plots(profile), "key_figures": _key_figures(profile)})


def write_page(profile: BenchProfile, path: Path, mission: str = "", judged: Sequence[Margin] = ()) -> None:
    """Whole or not at all."""
    text = render(profile, mission, judged)
    fresh = path.with_suffix(".part")
    fresh.write_text(text, encoding="utf-8")
    fresh.rename(path)


def _key_figures(profile: BenchProfile) -> list[Tile]:
    """The headline as the design's tiles; each says whether it is measured or modelled."""
    return [
        (f.name[0].upper() + f.name[1:], f.value, f.unit, f"{f.note}; {f.basis}" if f.note else f.basis, "")
        for f in headline(profile)
    ]


def _plots(profile: BenchProfile) -> dict[str, Any]:
    from hil.profiles import plots
    from sim.design.charts import parts

    found: dict[str, Any] = {}
    if profile.performance:
        found["histograms"] = plots.latency_histograms(profile.performance)
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
