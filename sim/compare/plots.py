"""Comparisons of the bench -> figures: curves of every metric, BD-rate of every tile, speed. PNG and SVG octets."""

import io
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from sim.compare.page import CURVE_CR, PANELS, RATIOS, TICKS_CR
from sim.compare.summary import REFERENCES, Bench
from sim.ground.decoder import DECODERS
from sim.metrics.bd_rate import CR_COARSE, CR_FINE

INK, SOFT, LINE = "#16191d", "#59616b", "#d9dcdf"
#: Bundles: the profile by its shade, dashes for a decoder that is not the first.
NADIR, NADIR_DENSE = "#e0533f", "#86190f"
#: Opponents: one hue per family, dashes for the variant.
STYLES: dict[str, tuple[str, str]] = {
    "klt-jpeg2000": ("#16191d", "-"),
    "klt-jpeg2000-joint": ("#16191d", "--"),
    "jpeg2000": ("#1d5c8a", "-"),
    "jpeg2000-joint": ("#1d5c8a", "--"),
    "htj2k": ("#2a9d8f", "-"),
    "jpegxl-e7": ("#8a5a00", "-"),
    "jpegxl-e3": ("#8a5a00", "--"),
    "klt-diff-jpeg2000": ("#59616b", "-."),
    "klt-diff-jpeg2000-joint": ("#59616b", "--"),
    "klt-hevc": ("#5e4a9c", "-"),
    "klt-av1": ("#b0578d", "-"),
    "klt-vvc": ("#b0578d", "--"),
    "jpeg": ("#8d959e", "-"),
    "ccsds121": ("#8d959e", "--"),
}
HOUSE: Any = {
    "font.family": "sans-serif",
    "font.size": 9.5,
    "axes.edgecolor": SOFT,
    "axes.labelcolor": INK,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e8eaec",
    "grid.linewidth": 0.8,
    "axes.axisbelow": True,
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "legend.frameon": False,
    "svg.fonttype": "path",
    "svg.hashsalt": "nadir",
}


def plots(bench: Bench, speeds: Mapping[str, Mapping[str, float]]) -> dict[str, Figure]:
    """Figures by file name."""
    with matplotlib.rc_context(HOUSE):
        drawn = {"rd_curves": _curves(bench), "speed": _speed(speeds)}
        for reference in REFERENCES[:2]:
            others = [c for c in bench.codecs if c != reference]
            if reference in bench.codecs and others:
                drawn[f"bd_rate_{reference}"] = _bd_rates(bench, reference, others)
        return drawn


def png(figure: Figure) -> bytes:
    return _saved(figure, "png")


def svg(figure: Figure) -> bytes:
    return _saved(figure, "svg")


def _saved(figure: Figure, kind: str) -> bytes:
    out = io.BytesIO()
    stamp = {"Date": None} if kind == "svg" else {"Software": None}  # the same picture is the same file
    with matplotlib.rc_context(HOUSE):
        figure.savefig(out, format=kind, dpi=150, metadata=stamp)
    return out.getvalue()


def _style(codec: str) -> dict[str, Any]:
    if codec.startswith("nadir"):
        color, named = NADIR_DENSE if "-dense" in codec else NADIR, codec.endswith(DECODERS)
        return {"color": color, "linestyle": "--" if named else "-", "linewidth": 1.9, "zorder": 5}
    color, dashes = STYLES.get(codec, (SOFT, ":"))
    return {"color": color, "linestyle": dashes, "linewidth": 1.5}


def _curves(bench: Bench) -> Figure:
    figure = Figure(figsize=(10.4, 6.6), layout=ConstrainedLayoutEngine(h_pad=0.08, w_pad=0.08))
    axes = figure.subplots(2, 3)
    lines = {}
    for ax, metric in zip(axes.flat, PANELS, strict=True):
        for codec in bench.codecs:
            values = bench.curve_points(codec, metric.key, CURVE_CR)
            if np.isfinite(values).any():
                (lines[codec],) = ax.plot(CURVE_CR, values, **_style(codec))
        if not ax.lines:  # these bands do not have the figure
            ax.set_axis_off()
            continue
        ax.set_title(f"{metric.name}, {metric.unit}" if metric.unit else metric.name)
        place, side = (0.98, "right") if metric.more_is_better else (0.03, "left")  # the corner the curves leave free
        hint = "better ↑" if metric.more_is_better else "better ↓"
        ax.annotate(hint, (place, 0.98), xycoords="axes fraction", ha=side, va="top", color=SOFT)
        _cr_axis(ax)
    for ax in axes[1]:
        ax.set_xlabel("compression ratio against 16 bit")
    if lines:
        figure.legend(lines.values(), lines.keys(), loc="outside lower center", ncols=min(len(lines), 5))
    return figure


def _cr_axis(ax: Axes) -> None:
    ax.set_xscale("log")
    ax.set_xlim(CR_FINE, CR_COARSE)
    ax.xaxis.set_major_locator(FixedLocator(TICKS_CR))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def _bd_rates(bench: Bench, reference: str, codecs: Sequence[str]) -> Figure:
    """Every tile a dot, the mean a bar, over the logarithm of the octets' ratio: left of zero needs fewer octets."""
    found = {codec: bench.bd_rate(codec, reference) for codec in codecs}
    shown = sorted((c for c in codecs if found[c]["tiles"]), key=lambda c: found[c]["mean_percent"], reverse=True)
    figure = Figure(figsize=(10.4, 1.2 + 0.42 * max(len(shown), 1)), layout="constrained")
    ax = figure.subplots()
    for place, codec in enumerate(shown):
        values = 1 + np.array([v for v in found[codec]["per_tile_percent"].values() if np.isfinite(v)]) / 100
        color, percent = _style(codec)["color"], found[codec]["mean_percent"]
        mean = 1 + percent / 100
        ax.plot(values, np.full(len(values), place), "o", ms=5, mfc="none", mec=color, alpha=0.65)
        ax.plot([mean, mean], [place - 0.32, place + 0.32], color=color, linewidth=2.6, solid_capstyle="butt")
        ax.annotate(
            f"{percent:+.1f} %", (1.01, place), xycoords=("axes fraction", "data"), va="center", annotation_clip=False
        )
    ax.axvline(1, color=INK, linewidth=1)
    ax.set_yticks(range(len(shown)), shown)
    ax.set_ylim(-0.6, max(len(shown), 1) - 0.4)
    ax.grid(axis="y", visible=False)
    ax.set_xscale("log")
    ax.xaxis.set_major_locator(FixedLocator(tuple(RATIOS)))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: RATIOS.get(round(value, 6), "")))
    ax.set_xlabel("octets against the reference's, logarithmic axis")
    ax.set_title(f"BD-rate against {reference}, CR 20 to 250: each circle a tile, each bar the mean")
    return figure


def _speed(speeds: Mapping[str, Mapping[str, float]]) -> Figure:
    order = sorted(speeds, key=lambda codec: speeds[codec]["encode_mpx_s"])
    figure = Figure(figsize=(10.4, 0.9 + 0.36 * len(order)), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True, sharex=True)
    for ax, key, title in ((left, "encode_mpx_s", "Encoding"), (right, "decode_mpx_s", "Decoding")):
        values = [speeds[codec][key] for codec in order]
        ax.barh(range(len(order)), values, color=[str(_style(c)["color"]) for c in order], height=0.6)
        for place, value in enumerate(values):
            ax.annotate(
                f"{value:.3g}", (value, place), xytext=(4, 0), textcoords="offset points", va="center", fontsize=8.5
            )
        ax.set_title(f"{title}, Mpx/s on one thread (four bands each)")
        ax.set_xscale("log")
        ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        ax.grid(axis="y", visible=False)
        ax.margins(x=0.12)
    left.set_yticks(range(len(order)), order)
    return figure
