"""Figures of one downlink -> report.json and report.html. The schema is written down in docs/report.md.

`report.json` is the same, octet for octet, for the same inputs and seed, except for its section `measured_on_host`:
times and memory, which differ from host to host and run to run, live there and nowhere else. Where a device under test
coded the tiles, its own times and memory are in `measured_on_device`.
"""

import json
import math
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sim.report.page import render_page
from sim.spread import Spread

SCHEMA = "nadir-report/2"
#: Digits kept of every float: more than any figure here deserves, fewer than where two machines may part.
SIGNIFICANT_DIGITS = 9

TILE_KINDS = ("coded", "withheld", "omitted", "empty", "fallback", "lost", "refused")
#: "measured" figures follow from the octets and pixels of the run; those in TIMED are its times and memory.
BASES = ("measured", "measured on host", "measured on device", "modelled", "published", "assumed")
TIMED = ("measured on host", "measured on device")
PICTURES = ("original", "reconstruction", "error", "mask")

#: Keys every report must have, section by section. Further keys are welcome and are shown.
REQUIRED: dict[str, tuple[str, ...]] = {
    "inputs": ("scene", "bundle", "mission", "seed", "engine"),
    "tiles": (*TILE_KINDS, "incomplete", "total", "tile_px", "rows", "cols", "list"),
    "link": (),
    "rate": ("octets", "cr16", "cr_sensor", "bpp", "bpppb"),
    "quality": ("metrics",),
    "clouds": (),
    "budgets": (),
    "checks": (),
    "conventions": (),
    "attribution": (),
    "measured_on_host": ("stages",),
}
#: Tables that say what their figures rest on; the rows of a list say it each for itself.
WITH_BASIS = (
    "tiles", "link", "delivery", "rate", "quality", "clouds", "apps", "bound", "aided", "measured_on_host",
    "measured_on_device", "modelled",
)  # fmt: skip
LISTS = ("budgets", "checks", "conventions", "attribution")
REQUIRED_IN_INPUTS: dict[str, tuple[str, ...]] = {
    "scene": ("name", "height_px", "width_px", "bands", "gsd_m", "bits"),
    "bundle": ("name", "id"),
    "mission": ("name",),
}
#: Keys of the rows of each list.
ROWS: dict[str, tuple[str, ...]] = {
    "tiles.list": ("row", "col", "kind", "octets_sent", "octets_received", "incomplete", "cloud_percent", "psnr_db"),
    "quality.metrics": ("name", "value", "unit", "convention"),
    "budgets": ("name", "used", "limit", "unit", "basis"),
    "checks": ("requirement", "measured", "limit", "unit", "held", "basis"),
    "measured_on_host.stages": ("name", "seconds"),
}


class ReportError(ValueError):
    """A report that lacks something it must state. A mistake of the caller, never of the user."""


def write_report(
    report: Mapping[str, Any], pictures: Mapping[str, Path], out_dir: Path, spread: Spread | None = None
) -> tuple[Path, Path]:
    """Writes out_dir/report.json and out_dir/report.html; gives their paths.

    `report` follows docs/report.md; `pictures` maps each name of PICTURES to a quicklook PNG of the whole scene, all of
    one size. Both files are rendered before either is written. ReportError names everything that is missing.
    """
    missing = validate_report(report) + [f"pictures.{name}" for name in PICTURES if name not in pictures]
    if missing:
        raise ReportError(f"report lacks or misstates {len(missing)} things: {'; '.join(missing)}")
    arranged = arrange(report)
    page = render_page(arranged, pictures, spread or Spread())
    texts = {"report.json": canonical_json(arranged), "report.html": page}
    for name, text in texts.items():
        (out_dir / name).write_text(text, encoding="utf-8", newline="\n")
    return out_dir / "report.json", out_dir / "report.html"


def arrange(report: Mapping[str, Any]) -> dict[str, Any]:
    """The report as it is written: with its schema, and every row measured on the host moved to that section."""
    host = dict(report["measured_on_host"])
    arranged = {**report, "schema": SCHEMA}
    for name in ("checks", "budgets"):
        rows = list(report[name]) + list(host.get(name, ()))
        arranged[name] = [row for row in rows if row["basis"] not in TIMED]
        host[name] = [row for row in rows if row["basis"] in TIMED]
    arranged["held"] = all(check["held"] for check in arranged["checks"])
    host["held"] = all(check["held"] for check in host["checks"])
    arranged["measured_on_host"] = host
    return arranged


def all_held(report: Mapping[str, Any]) -> bool:
    """True when every check of a report held, those measured on the host included."""
    arranged = arrange(report)
    return bool(arranged["held"] and arranged["measured_on_host"]["held"])


def canonical_json(report: Mapping[str, Any]) -> str:
    """Sorted keys, floats of SIGNIFICANT_DIGITS, no NaN or infinity (they become null), one line feed at the end."""
    return json.dumps(_plain(report), sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _plain(value: Any) -> Any:
    """JSON's own types only; numpy scalars and paths are turned into what they stand for."""
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, float):
        return float(f"{value:.{SIGNIFICANT_DIGITS}g}") if math.isfinite(value) else None
    return value if value is None or isinstance(value, bool | int | str) else str(value)


def validate_report(report: Mapping[str, Any]) -> list[str]:
    """What the report lacks or contradicts, each as one short phrase; empty when it is whole."""
    missing = [section for section in REQUIRED if section not in report]
    present = [section for section in REQUIRED if section in report]
    wrong = [f"{s} (wanted a list)" for s in present if s in LISTS and not isinstance(report[s], list | tuple)]
    wrong += [f"{s} (wanted a table)" for s in present if s not in LISTS and not isinstance(report[s], Mapping)]
    if missing or wrong:
        return missing + wrong
    faults = [f"{s}.{key}" for s, keys in REQUIRED.items() for key in keys if key not in report[s]]
    for part, keys in REQUIRED_IN_INPUTS.items():
        faults += [f"inputs.{part}.{key}" for key in keys if key not in report["inputs"].get(part, {})]
    faults += [f"{s}.basis" for s in WITH_BASIS if s in report and "basis" not in report[s]]
    return faults or _faults_in_rows(report) or _faults_in_counts(report["tiles"])


def _faults_in_rows(report: Mapping[str, Any]) -> list[str]:
    faults = []
    for where, keys in ROWS.items():
        section, _, inner = where.partition(".")
        for number, row in enumerate(report[section][inner] if inner else report[section]):
            faults += [f"{where}[{number}].{key}" for key in keys if key not in row]
            if row.get("basis", BASES[0]) not in BASES:
                faults.append(f"{where}[{number}].basis is {row['basis']!r}, wanted one of {', '.join(BASES)}")
    return faults


def _faults_in_counts(tiles: Mapping[str, Any]) -> list[str]:
    """No tile disappears silently: the counts add up, and the list agrees with them."""
    counted = Counter(tile["kind"] for tile in tiles["list"])
    faults = [
        f"tiles.list: kind {kind!r} is none of {', '.join(TILE_KINDS)}" for kind in counted if kind not in TILE_KINDS
    ]
    for kind in TILE_KINDS:
        if counted[kind] != tiles[kind]:
            faults.append(f"tiles.{kind} is {tiles[kind]}, its list holds {counted[kind]}")
    together = sum(tiles[kind] for kind in TILE_KINDS)
    if not together == tiles["total"] == tiles["rows"] * tiles["cols"]:
        faults.append(
            f"tiles: kinds add up to {together}, total is {tiles['total']}, grid {tiles['rows']} x {tiles['cols']}"
        )
    return faults
