"""A profile as one HTML page that opens anywhere, offline."""

from collections.abc import Sequence
from pathlib import Path

from hil.profiles import plots
from hil.profiles.demand import Margin
from hil.profiles.profile_file import BenchProfile
from payload.errors import InputError

TEMPLATES = Path(__file__).parent / "templates"


def render(profile: BenchProfile, mission: str = "", judged: Sequence[Margin] = ()) -> str:
    """The page's text, with the budgets of a mission where one was given."""
    try:
        import jinja2
    except ImportError:
        raise InputError("the page needs jinja2; pip install 'nadir-payload[ground]'") from None
    loader = jinja2.FileSystemLoader(TEMPLATES)
    environment = jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined)
    environment.filters["ms"] = lambda seconds: "-" if seconds is None else f"{1e3 * seconds:.4g}"
    environment.filters["g"] = lambda value: f"{value:.4g}"
    return environment.get_template("profile.html").render(
        profile=profile, plots=_plots(profile), mission=mission, judged=judged
    )


def write_page(profile: BenchProfile, path: Path, mission: str = "", judged: Sequence[Margin] = ()) -> None:
    """Whole or not at all."""
    text = render(profile, mission, judged)
    fresh = path.with_suffix(".part")
    fresh.write_text(text, encoding="utf-8")
    fresh.rename(path)


def _plots(profile: BenchProfile) -> dict[str, str]:
    found = {}
    if profile.performance:
        found["histogram"] = plots.latency_histogram(profile.performance)
        found["timeline"] = plots.latency_timeline(profile.performance)
        stages = {name: 1e3 * spread.mean_s for name, spread in profile.performance.stages_s.items()}
        found["stages"] = plots.shares(stages, "ms", "Time of a tile by stage")
    if profile.energy:
        if len(profile.energy.trace_t_s) > 1:
            found["power"] = plots.power_trace(profile.energy)
        if len(profile.energy.first_t_s) > 1:
            found["first_tiles"] = plots.first_tiles(profile.energy)
        if sum(profile.energy.stage_net_j.values()) > 0:
            found["energy"] = plots.shares(
                {name: 1e3 * joules for name, joules in profile.energy.stage_net_j.items()},
                "mJ",
                "Net energy of a tile by stage",
            )
    if profile.roofline:
        found["roofline"] = plots.roofline(profile.roofline)
    return found
