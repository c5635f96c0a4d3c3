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
#: calibrated: found from published latencies by a model (export/devices/calibrate.py)
STATUSES = ("measured", "published", "calibrated", "assumed")
FIGURES = (
    "call_overhead_us",
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
KEYS = {*TEXTS, "max_opset", "refused_operators", "platform", "notes", "figures", "anchors", "published"}
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


NOTHING = Figure(0.0, 0.0, 0.0, "not counted for this device", "assumed")


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
class Published:
    """A published run of a known network on this device. `latency_ms` of a batch; or `fps`, with several requests.

    `requests`: how many were under way at once, 0 where a stream of them was.
    `timed`: by the device (the sum of its layers) or by the host (the way there and back included). `calibrates`:
    whether the model's figures are found from it. Watts are of what was metered, which `source` says.
    """

    network: str
    batch: int
    requests: int
    precision: str
    timed: str
    date: str
    source: str
    latency_ms: float | None
    fps: float | None
    mmacs: float | None
    power_w: float | None
    calibrates: bool

    def __str__(self) -> str:
        speed = f"{self.fps:g} fps" if self.latency_ms is None else f"{self.latency_ms:g} ms"
        watts = "" if self.power_w is None else f", {self.power_w:g} W"
        requests = f"{self.requests} in flight" if self.requests else "streaming"
        how = f"{self.precision}, batch {self.batch}, {requests}, timed by the {self.timed}"
        return f"{self.network}: {speed}{watts} ({how}, {self.date})"


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
    published: tuple[Published, ...] = ()

    @property
    def call_overhead(self) -> Figure:
        """What starting one network costs, in us; nothing where the device has no such figure."""
        return self.figures.get("call_overhead_us", NOTHING)

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
    published = tuple(_published(file, value) for value in table.get("published", []))
    return Target(
        table["name"], table["title"], table["build"], table["engine"], table["runs"], table["equality"],
        table["shown_by"], int(table["max_opset"]),
        tuple(table.get("refused_operators", [])), table.get("platform", ""), table.get("notes", ""), figures, anchors,
        published,
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


#: Texts of a published run, and its numbers with the least they may be.
RUN_TEXTS = ("network", "precision", "timed", "date", "source")
RUN_NUMBERS = {"latency_ms": 1e-3, "fps": 1e-3, "mmacs": 1e-3, "power_w": 1e-3, "batch": 1.0, "requests": 0.0}


def _published(file: str, value: Mapping[str, Any]) -> Published:
    what = f"{file}: published run of {value.get('network')!r}"
    _refuse_unknown(file, "key of a published run", value, {*RUN_TEXTS, *RUN_NUMBERS, "calibrates"})
    for key in RUN_TEXTS:
        if not isinstance(value.get(key), str) or not value[key]:
            raise InputError(f"{what}: {key} is missing; wanted a text")
    for key, least in RUN_NUMBERS.items():
        if key in value and not (isinstance(value[key], (int, float)) and value[key] >= least):
            raise InputError(f"{what}: {key} is {value[key]!r}, wanted a number from {least:g} up")
    if ("latency_ms" in value) == ("fps" in value):
        raise InputError(f"{what}: wanted latency_ms or fps, one of them")
    if value["timed"] not in ("device", "host"):
        raise InputError(f"{what}: timed is {value['timed']!r}, wanted device or host")
    latency_ms, fps, mmacs, power_w = (
        float(value[key]) if key in value else None for key in ("latency_ms", "fps", "mmacs", "power_w")
    )
    return Published(
        value["network"], int(value.get("batch", 1)), int(value.get("requests", 1)), value["precision"], value["timed"],
        value["date"], value["source"], latency_ms, fps, mmacs, power_w, bool(value.get("calibrates", False)),
    )  # fmt: skip
