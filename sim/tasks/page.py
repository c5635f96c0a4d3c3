"""tasks.json -> tasks.html, tasks.csv and the table for a terminal."""

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

from sim.design import charts
from sim.design.page import TEMPLATES, render
from sim.tasks.summary import ORIGINALS

STYLES = {"original": "s0", "reconstruction": "s5", "features": "s2"}
#: What figures are called where people read them.
FIGURES = {"f1": "F1", "miou": "mean IoU", "object_f1": "F1 by object", "boundary_f1": "boundary F1",
           "micro_f1": "micro F1", "map": "mean average precision", "iou": "IoU", "parcel_iou": "IoU of parcels",
           "psnr_10k_db": "PSNR, dB", "cubic_psnr_10k_db": "PSNR of cubic interpolation, dB"}  # fmt: skip
Line = Mapping[str, Any]


def render_page(result: Mapping[str, Any]) -> str:
    """The text of tasks.html."""
    sections = [_section(result["tasks"][name], lines) for name, lines in result["summary"]["tables"].items()]
    bars = result["summary"]["bars"]
    failed = [bar["bar"] for bar in bars if not bar["held"]]
    figures = [_key_figure(bar, result["tasks"][bar["task"]]["metric"]) for bar in bars]
    return render(
        TEMPLATES / "tasks.html",
        {"result": result, "sections": sections, "failed": failed, "bars": bars, "key_figures": figures},
    )


def _section(about: Mapping[str, Any], lines: Sequence[Line]) -> dict[str, Any]:
    whole = [_shown(line, about["classes"]) for line in lines if line["share"] == 1.0]
    return {"about": about, "metric": called(about["metric"]), "lines": whole, "few": _few(lines, about["title"])}


def _key_figure(bar: Mapping[str, Any], metric: str) -> tuple[str, str, str, str, str]:
    spread = f"of {called(metric)}, spread {bar['spread'] or 0:.2f}"
    return bar["bar"].split(",")[0], f"{-bar['points_below']:+.2f}", "points", spread, "" if bar["held"] else "bad"


def called(figure: str, classes: Sequence[str] = ()) -> str:
    """A figure's name in words: iou_3 is the IoU of the fourth class."""
    name, _, number = figure.partition("_")
    return f"IoU of {classes[int(number)]}" if name == "iou" and number else FIGURES.get(figure, figure)


def named(line: Line) -> str:
    """What a head saw, in words."""
    if line["input"] == "original":
        return "original pixels"
    words = "decoded pixels" if line["input"] == "reconstruction" else "features"
    whose = ", a head of originals" if line["learnt_from"] == ORIGINALS else ""
    return f"{words}, {line['bundle']}, CR {line['cr16']:.0f}{whose}"


def _shown(line: Line, classes: Sequence[str]) -> dict[str, Any]:
    others = {called(name, classes): value for name, value in line["others"].items()}
    return {"name": named(line), "ours": line["input"] == "features", **line, "others": others}


def _few(lines: Sequence[Line], title: str) -> dict[str, Any] | None:
    """Label efficiency: one line an input that was run with few labels; None where none was."""
    few = {named(line): line for line in lines if line["share"] < 1.0}
    if not few:
        return None
    series = [
        (name, STYLES[one["input"]], sorted((100 * ln["share"], ln["mean"]) for ln in lines if named(ln) == name))
        for name, one in few.items()
    ]
    shares = sorted({share for _, _, points in series for share, _ in points})
    across = charts.Axis(shares[0], 100.0, log=True, ticks=shares)
    drawn = charts.lines([charts.Series(css, points) for _, css, points in series], across,
                         "labels, %, logarithmic", "points", f"{title}: by share of labels")  # fmt: skip
    return {"chart": drawn, "keys": [(css, name) for name, css, _ in series]}


def as_csv(result: Mapping[str, Any]) -> str:
    """Every run, a row each."""
    names = list(dict.fromkeys(name for row in result["rows"] for name in row))
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, names, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(result["rows"])
    return text.getvalue()


def as_text(result: Mapping[str, Any]) -> str:
    """The tables for a terminal."""
    out = []
    for name, lines in result["summary"]["tables"].items():
        about = result["tasks"][name]
        out.append(f"{about['title']} ({called(about['metric'])}, points; spread over seeds)")
        out += [_told(line) for line in lines if line["share"] == 1.0]
    for bar in result["summary"]["bars"]:
        out.append(f"{'held  ' if bar['held'] else 'MISSED'} {bar['bar']}: {-bar['points_below']:+.2f} points")
    return "\n".join(out) + "\n"


def _told(line: Line) -> str:
    spread = "" if line["spread"] is None else f" +- {line['spread']:.2f}"
    macs = "" if line["macs_per_px"] is None else f", {line['macs_per_px']:.0f} MAC/px"
    return f"  {named(line):44} {line['mean']:6.2f}{spread}  ({line['difference']:+.2f}{macs})"
