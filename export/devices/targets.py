"""Targets as data: what each device runs, holds and draws, with the source and status of every number; and estimates.

Takes `export/targets/*.toml`, gives `Target`s. An estimate is MACs / effective rate + stages x overhead + octets /
bandwidth, from a low, a middle and a high assumption: a figure to plan with, never a measurement.
"""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from export.builds import flight_networks
from export.graphs.graph import Graph, label, load_graph, total_macs
from export.graphs.memory_plan import plan
from payload.bundle import Bundle
from payload.errors import InputError

FOLDER = Path(__file__).parents[1] / "targets"
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
KEYS = {"name", "title", "build", "engine", "max_opset", "refused_operators", "platform", "notes", "figures", "anchors"}


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
    max_opset: int
    refused_operators: tuple[str, ...]
    platform: str
    notes: str
    figures: Mapping[str, Figure]
    anchors: tuple[Anchor, ...]

    def figure(self, key: str) -> Figure:
        if key not in self.figures:
            raise InputError(f"target {self.name} has no figure {key}; add it to export/targets/{self.name}.toml")
        return self.figures[key]


@dataclass(frozen=True)
class Work:
    """What one tile asks of a device: counted from the graph, stages from the compiler where it ran."""

    macs: int
    stages: int
    octets_moved: int


@dataclass(frozen=True)
class Estimate:
    """Modelled latency and energy of one tile; low is the optimistic end."""

    latency_ms: tuple[float, float, float]
    energy_mj: tuple[float, float, float]


def load_targets() -> dict[str, Target]:
    return {path.stem: load_target(path.stem) for path in sorted(FOLDER.glob("*.toml"))}


def load_target(name: str) -> Target:
    """The target called `name`. InputError if it is unknown or its file is not sound."""
    path = FOLDER / f"{name}.toml"
    if not path.is_file():
        raise InputError(
            f"target {name!r} is unknown; choose one of {', '.join(sorted(p.stem for p in FOLDER.glob('*.toml')))}"
        )
    return parse_target(path.name, tomllib.loads(path.read_text(encoding="utf-8")))


def parse_target(file: str, table: Mapping[str, Any]) -> Target:
    """A target from its parsed table; unknown keys, figures and statuses are errors that name key and file."""
    _refuse_unknown(file, "key", table, KEYS)
    _refuse_unknown(file, "figure", table.get("figures", {}), set(FIGURES))
    figures = {key: _figure(file, key, value) for key, value in table["figures"].items()}
    anchors = tuple(_anchor(file, value) for value in table.get("anchors", []))
    return Target(
        table["name"], table["title"], table["build"], table["engine"], int(table["max_opset"]),
        tuple(table.get("refused_operators", [])), table.get("platform", ""), table.get("notes", ""), figures, anchors,
    )  # fmt: skip


def refuse_operators(graph: Graph, target: Target) -> None:
    """InputError naming the first operator that the target does not run, or an opset it does not read."""
    for node in graph.nodes:
        if node.op_type in target.refused_operators:
            raise InputError(
                f"{graph.name}: operator {node.op_type} ({label(node)}) does not run on {target.name}; "
                f"replace it or build for another target (its build is {target.build})"
            )
    if graph.opset > target.max_opset:
        raise InputError(
            f"{graph.name}: opset {graph.opset}, {target.name} reads up to {target.max_opset}; build {target.build}"
        )


def estimate(target: Target, work: Work) -> Estimate:
    """Modelled: MACs / rate + stages x overhead + octets / bandwidth; energy = latency x power, end by end."""
    rate, overhead = target.figure("rate_gmac_per_s"), target.figure("stage_overhead_us")
    bandwidth, power = target.figure("bandwidth_gb_per_s"), target.figure("power_w")

    def latency(r: float, o: float, b: float) -> float:
        return work.macs / (r * 1e6) + work.stages * o / 1e3 + work.octets_moved / (b * 1e6)

    ms = (
        latency(rate.high, overhead.low, bandwidth.high),
        latency(rate.mid, overhead.mid, bandwidth.mid),
        latency(rate.low, overhead.high, bandwidth.low),
    )
    return Estimate(ms, (ms[0] * power.low, ms[1] * power.mid, ms[2] * power.high))


def against_anchors(target: Target, latency_ms: float, pixels: int) -> list[str]:
    """How an estimate compares with what was published, per pixel: one line per anchor."""
    lines = []
    for anchor in target.anchors:
        ours, theirs = latency_ms * 1e6 / pixels, anchor.latency_ms * 1e6 / anchor.pixels
        ratio = f"{theirs / ours:.1f} x faster" if ours <= theirs else f"{ours / theirs:.1f} x slower"
        lines.append(f"{anchor.what}: {theirs:.0f} ns/px ({anchor.status}); here {ours:.0f} ns/px (modelled), {ratio}")
    return lines


def table(targets: Mapping[str, Target]) -> str:
    """Every figure of every target with its status, as text."""
    lines = []
    for target in targets.values():
        lines.append(
            f"{target.name}: {target.title}; build {target.build}, engine {target.engine}, "
            f"opset <= {target.max_opset}; runs here: {runs_here(target)}"
        )
        for key, figure in target.figures.items():
            lines.append(f"  {key:20} {figure!s:>16}  {figure.status:9}  {figure.source}")
        for anchor in target.anchors:
            lines.append(f"  anchor: {anchor.what}, {anchor.latency_ms:g} ms  {anchor.status:9}  {anchor.source}")
        if target.refused_operators:
            lines.append(f"  does not run: {', '.join(target.refused_operators)}")
        if target.notes:
            lines.append(f"  note: {target.notes}")
    return "\n".join(lines)


def estimates_table(targets: Mapping[str, Target], bundle: Bundle) -> str:
    """Modelled latency and energy of a bundle's networks on every target, low / mid / high."""
    lines = ["modelled, one tile (low/mid/high assumptions); stages counted from the graph, not compiled"]
    for name in flight_networks(bundle):
        graph = load_graph(bundle.file(name), free_px=bundle.tile_px)
        for target in targets.values():
            work = work_of(graph, 2 if target.build == "fp16-vpu" else 4)
            modelled = estimate(target, work)
            ms, mj = (" / ".join(f"{v:.3g}" for v in e) for e in (modelled.latency_ms, modelled.energy_mj))
            lines.append(f"  {name:22} {target.name:12} {ms:>22} ms  {mj:>22} mJ")
            lines += [f"    {line}" for line in against_anchors(target, modelled.latency_ms[1], bundle.tile_px**2)]
    return "\n".join(lines)


def work_of(graph: Graph, float_octets: int, stages: int | None = None) -> Work:
    """What one run asks for. Every stored tensor is written once and read once; weights are read once."""
    planned = plan(graph, float_octets)
    moved = sum(s.written_octets for s in planned.steps) * 2 + planned.weight_octets
    return Work(total_macs(graph), stages if stages is not None else len(planned.steps), moved)


def runs_here(target: Target) -> str:
    """Whether this machine can run the target's build: 'yes', 'no', or how it is stood in for."""
    if target.name == "npu":
        import openvino

        return "yes" if any(d.startswith("NPU") for d in openvino.Core().available_devices) else "no NPU found"
    return "compile only" if target.platform else "through this CPU"


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
