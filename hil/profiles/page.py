"""A profile as one HTML page that opens anywhere, offline."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from hil.profiles.demand import Margin
from hil.profiles.findings import LayerTime
from hil.profiles.headline import headline
from hil.profiles.profile_file import BenchProfile, Roofline
from payload.errors import InputError

TEMPLATE = Path(__file__).parent / "templates" / "profile.html"
SHOWN_LAYERS, LONGEST_NAME = 20, 32
#: Figure of the ground -> its words and unit.
DISTORTION = (
    ("psnr_10k_pooled_db", "PSNR, pooled, peak 10 000", "dB"),
    ("psnr_10k_mean_db", "PSNR, mean of the tiles", "dB"),
    ("psnr_10k_worst_db", "PSNR, worst tile", "dB"),
    ("sam_deg", "spectral angle, mean", "°"),
    ("ndvi_mae", "NDVI error, mean", ""),
)
#: (name, value, unit, note, class of the style sheet)
Tile = tuple[str, str, str, str, str]


def render(profile: BenchProfile, mission: str = "", judged: Sequence[Margin] = ()) -> str:
    """The page's text, with the budgets of a mission where one was given."""
    context = {"profile": profile, "mission": mission, "judged": judged, "short": _short}
    rows = {"state_rows": _state_rows(profile), "accuracy_rows": _accuracy_rows(profile)}
    return render_template(
        TEMPLATE, lambda: context | rows | {"plots": _plots(profile), "key_figures": _key_figures(profile)}
    )


def render_template(template: Path, context: Callable[[], dict[str, Any]]) -> str:
    """A page of the house's design. `context` is asked for once the design is known to be there."""
    try:
        from sim.design import page  # here, so that the agent's machine needs no jinja2
    except ImportError:
        raise InputError("the page needs jinja2; pip install 'nadir-payload[ground]'") from None
    return page.render(template, context())


def write_page(profile: BenchProfile, path: Path, mission: str = "", judged: Sequence[Margin] = ()) -> None:
    """Whole or not at all."""
    write_whole(path, render(profile, mission, judged))


def write_whole(path: Path, text: str) -> None:
    """Under another name first: whoever reads `path` finds all of it, or what was there before."""
    fresh = path.with_suffix(".part")
    fresh.write_text(text, encoding="utf-8")
    fresh.rename(path)


def _key_figures(profile: BenchProfile) -> list[Tile]:
    """The headline as the design's tiles; each says whether it is measured or modelled."""
    return [
        (f.name[0].upper() + f.name[1:], f.value, f.unit, f"{f.note}; {f.basis}" if f.note else f.basis, "")
        for f in headline(profile)
    ]


def _state_rows(profile: BenchProfile) -> list[tuple[str, str, str]]:
    return [(name, f"{watts:.4g}", "W") for name, watts in profile.energy.states_w.items()] if profile.energy else []


def _accuracy_rows(profile: BenchProfile) -> list[tuple[str, str, str]]:
    """(name, value, unit); what is not known is left out, and the profile's doubts say why."""
    found = profile.accuracy
    if found is None:
        return []
    known = [("rate, all tiles", found.bpp, "bit/px"), ("rate, coded tiles", found.coded_bpp, "bit/px")]
    known += [(words, found.distortion.get(key), unit) for key, words, unit in DISTORTION]
    rows = [(words, f"{value:.4g}", unit) for words, value, unit in known if value is not None]
    if clouds := found.clouds:
        shares = (("IoU", clouds.iou), ("precision", clouds.precision), ("recall", clouds.recall))
        rows += [(f"clouds: {words}", "no cloud" if share is None else f"{share:.3f}", "") for words, share in shares]
    return rows


def _short(name: str) -> str:
    """A runtime's name of a layer without what every name has; its end tells more than its start."""
    plain = name.strip("/").replace("/export_handler", "").replace("/WithoutBiases", "")
    return plain if len(plain) <= LONGEST_NAME else f"…{plain[-LONGEST_NAME:]}"


def _layers(found: Roofline) -> list[tuple[LayerTime, float, float | None]]:
    """The layers that take longest: (layer, share of the networks' time, share of its ceiling)."""
    total_s = sum(layer.seconds for layer in found.layers) or 1.0
    longest = sorted(found.layers, key=lambda layer: -layer.seconds)[:SHOWN_LAYERS]
    return [(layer, layer.seconds / total_s, found.share_of(layer)) for layer in longest]


def _precisions(found: Roofline) -> list[tuple[str, str]]:
    """(css, words) of the kinds of points in the roofline."""
    from hil.profiles.plots import PRECISION_CSS

    there = dict.fromkeys(layer.precision for layer in found.layers if layer.macs)
    return [(f"box {PRECISION_CSS.get(name, 's8')}", f"layers in {name}") for name in there]


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
        found["layers"] = _layers(profile.roofline)
        found["precisions"] = _precisions(profile.roofline)
    if profile.soak:
        found["soak"] = plots.soak(profile.soak)
    return found
