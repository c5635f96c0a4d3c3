"""Reports of several runs -> one table: figures side by side and how far each is from the first; a page of pictures."""

import base64
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from payload.errors import InputError
from sim.design import page
from sim.metrics.catalogue import DELIVERY, RATE, REPORTED, Metric
from sim.report.files import SCHEMA

FILE = "report.json"
ROWS = (*REPORTED, *RATE, *DELIVERY)
LARGEST_OCTETS = 64 * 2**20


def read_reports(paths: Sequence[Path]) -> list[dict[str, Any]]:
    """Reports of `sim downlink`, given as files or as their folders. InputError for what is none."""
    return [_read(path / FILE if path.is_dir() else path) for path in paths]


def _read(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > LARGEST_OCTETS:
            raise InputError(f"{path}: is over {LARGEST_OCTETS} octets, wanted a report.json")
        report = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{str(path)[:200]}: cannot be read ({str(error)[:100]}), wanted a report.json") from None
    if not isinstance(report, dict) or report.get("schema") != SCHEMA:
        raise InputError(f"{path}: is no report of sim downlink ({SCHEMA}); give report.json or its folder")
    return report | {"folder": str(path.parent)}


def compare(reports: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """`runs`: what each was; `figures`: value of each run and its difference from the first, by the catalogue."""
    values = [_figures(report) for report in reports]
    rows = [_row(metric, [value.get(metric.key) for value in values]) for metric in ROWS]
    return {"runs": [_run(report) for report in reports], "figures": [row for row in rows if any(
        value is not None for value in row["values"])]}  # fmt: skip


def _run(report: dict[str, Any]) -> dict[str, Any]:
    inputs = report["inputs"]
    checks = report["checks"]
    return {
        "folder": report["folder"], "scene": inputs["scene"]["name"], "mission": inputs["mission"]["name"],
        "bundle": f"{inputs['bundle']['name']} {inputs['bundle']['id']}", "seed": inputs["seed"],
        "octets": report["rate"]["octets"], "failed": [c["requirement"] for c in checks if not c["held"]],
    }  # fmt: skip


def _figures(report: dict[str, Any]) -> dict[str, float | None]:
    tiles, rate = report["tiles"], report["rate"]
    full = tiles["total"] - tiles["empty"]
    sent = full - tiles["withheld"] - tiles["omitted"]
    shares = {
        "lost_fraction": (tiles["lost"] + tiles["refused"]) / sent if sent else None,
        "incomplete_fraction": tiles["incomplete"] / sent if sent else None,
        "withheld_fraction": tiles["withheld"] / full if full else None,
    }
    metrics = {row["key"]: row["value"] for row in report["quality"]["metrics"]}
    return {**metrics, **{metric.key: rate.get(metric.key) for metric in RATE}, **shares}


def _row(metric: Metric, values: list[float | None]) -> dict[str, Any]:
    first = values[0]
    apart = [None if value is None or first is None else value - first for value in values]
    named = {"key": metric.key, "name": metric.name, "unit": metric.unit, "decimals": metric.decimals}
    return named | {"values": values, "differences": apart}


def as_text(table: dict[str, Any]) -> str:
    """One column a run; differences from the first in brackets."""
    lines = [f"run {n}  {run['folder']}: {run['scene']}, {run['mission']}, {run['bundle']}, seed {run['seed']}, "
             f"{run['octets']} octets" for n, run in enumerate(table["runs"], 1)]  # fmt: skip
    lines.append("")
    for row in table["figures"]:
        told = [_cell(value, apart, row["decimals"]) for value, apart in zip(
            row["values"], row["differences"], strict=True)]  # fmt: skip
        told[0] = told[0].split(" (")[0]
        lines.append(f"{row['name']:<42}" + "".join(f"{text:>22}" for text in told) + f"  {row['unit']}")
    return "\n".join(lines) + "\n"


def _cell(value: float | None, apart: float | None, decimals: int) -> str:
    if value is None:
        return "-"
    return f"{value:.{decimals}f}" + (f" ({apart:+.{decimals}f})" if apart is not None else "")


def write_page(table: dict[str, Any], path: Path) -> None:
    """One HTML file with the pictures of each run, where they lie beside its report."""
    runs = [run | {"picture": _picture(Path(run["folder"]))} for run in table["runs"]]
    cells = [row | {"cells": [_cell(v, d if n else None, row["decimals"]) for n, (v, d) in enumerate(
        zip(row["values"], row["differences"], strict=True))]} for row in table["figures"]]  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page.render(page.TEMPLATES / "compare.html", {"runs": runs, "rows": cells}), encoding="utf-8")


def _picture(folder: Path) -> str | None:
    path = folder / "quicklook.png"
    return f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}" if path.is_file() else None
