"""Devices as data: what each runs, holds and draws, with the source and status of every number.

Takes `hil/devices/data/*.toml`, gives `Target`s. `hil.devices.latency` makes estimates of them: one model, for the
simulation, the workshop and the bench alike. This room knows the payload's bundle and nothing else of the project.
"""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from payload.errors import InputError

FOLDER = Path(__file__).parent / "data"
STATUSES = ("measured", "published", "assumed")
FIGURES = (
    "rate_gmac_per_s",
    "stage_overhead_us",
    "bandwidth_gb_per_s",
    "power_w",
    "on_chip_mib",
    "memory_mib",
    "uplink_limit_mb",
    "shaves",
    "cmx_slices",
)
TEXTS = ("name", "title", "build", "engine", "runs", "equality", "shown_by")
KEYS = {*TEXTS, "max_opset", "refused_operators", "platform", "notes", "figures", "anchors"}
#: Whether a device gives the integer reference's octets: shown by a command, or not to be counted on.
EQUALITY = ("shown", "not promised")


@dataclass(frozen=True)
class Figure:
    """One number of a device: low, mid and high where it is a range, its unit in the table's key."""

    low: float
    mid: float
    high: float
    source: str
    status: str

    def __str__(self) -> str:
        return f"{self.mid:g}" if self.low == self.high else f"{self.low:g}/{self.mid:g}/{self.high:g}"


@dataclass(frozen=True)
class Anchor:
    """A published run on this device, to hold estimates against. `macs` is None where nobody published it."""

    what: str
    latency_ms: float
    pixels: int
    macs: int | None
    source: str
    status: str


@dataclass(frozen=True)
class Target:
    """One device. `refused_operators`: ONNX operators its compiler or runtime fails on."""

    name: str
    title: str
    build: str
    engine: str
    runs: str  # what of a bundle it can run, and in which precision
    equality: str
    shown_by: str  # the check or converter that shows it, or why nothing here does
    max_opset: int
    refused_operators: tuple[str, ...]
    platform: str
    notes: str
    figures: Mapping[str, Figure]
    anchors: tuple[Anchor, ...]

    def figure(self, key: str) -> Figure:
        if key not in self.figures:
            raise InputError(f"target {self.name} has no figure {key}; add it to hil/devices/data/{self.name}.toml")
        return self.figures[key]


def target_names() -> list[str]:
    return sorted(path.stem for path in FOLDER.glob("*.toml"))


def load_targets() -> dict[str, Target]:
    return {name: load_target(name) for name in target_names()}


@cache
def load_target(name: str) -> Target:
    """The target called `name`. InputError if it is unknown or its file is not sound."""
    path = FOLDER / f"{name}.toml"
    if not path.is_file():
        raise InputError(f"target {name!r} is unknown; choose one of {', '.join(target_names())}")
    return parse_target(path.name, tomllib.loads(path.read_text(encoding="utf-8")))


def parse_target(file: str, table: Mapping[str, Any]) -> Target:
    """A target from its parsed table; unknown keys, figures and statuses are errors that name key and file."""
    _refuse_unknown(file, "key", table, KEYS)
    _refuse_unknown(file, "figure", table.get("figures", {}), set(FIGURES))
    for key in TEXTS:
        if not isinstance(table.get(key), str) or not table[key]:
            raise InputError(f"{file}: {key} is missing; wanted a text")
    if table["equality"] not in EQUALITY:
        raise InputError(f"{file}: equality is {table['equality']!r}, wanted one of {', '.join(EQUALITY)}")
    figures = {key: _figure(file, key, value) for key, value in table["figures"].items()}
    anchors = tuple(_anchor(file, value) for value in table.get("anchors", []))
    return Target(
        table["name"], table["title"], table["build"], table["engine"], table["runs"], table["equality"],
        table["shown_by"], int(table["max_opset"]),
        tuple(table.get("refused_operators", [])), table.get("platform", ""), table.get("notes", ""), figures, anchors,
    )  # fmt: skip


def _refuse_unknown(file: str, what: str, table: Mapping[str, Any], known: set[str]) -> None:
    unknown = sorted(set(table) - known)
    if unknown:
        raise InputError(f"{file}: {what} {unknown[0]!r} is unknown; known are {', '.join(sorted(known))}")


def _figure(file: str, key: str, value: Mapping[str, Any]) -> Figure:
    if value.get("status") not in STATUSES or not value.get("source"):
        raise InputError(f"{file}: figure {key} needs a source and a status, one of {', '.join(STATUSES)}")
    if "value" in value:
        low = mid = high = float(value["value"])
    else:
        low, mid, high = (float(value[k]) for k in ("low", "mid", "high"))
    if not 0 <= low <= mid <= high:
        raise InputError(f"{file}: figure {key} is {low:g}/{mid:g}/{high:g}, wanted low <= mid <= high, none negative")
    return Figure(low, mid, high, value["source"], value["status"])


def _anchor(file: str, value: Mapping[str, Any]) -> Anchor:
    if value.get("status") not in STATUSES or not value.get("source"):
        raise InputError(
            f"{file}: anchor {value.get('what')!r} needs a source and a status, one of {', '.join(STATUSES)}"
        )
    macs = int(value["macs"]) if "macs" in value else None
    return Anchor(
        value["what"], float(value["latency_ms"]), int(value["pixels"]), macs, value["source"], value["status"]
    )
