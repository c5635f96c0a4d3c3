"""The Myriad build: float twin, compiled blob where the old toolkit is installed, and what the device must hold.

Without the toolkit (export/devices/myriad_toolkit.py) the report holds what the model alone can tell.
"""

import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import onnx

from export.builds import flight_networks
from export.devices.estimates import against_anchors, refuse_operators, work_of
from export.devices.myriad_blob import BlobHeader, Stage
from export.devices.myriad_toolkit import HOW_TO_INSTALL, PLAIN, Compiled, Toolkit, compile_shortest
from export.graphs.graph import load_for_tile, load_graph, total_parameters
from export.graphs.memory_plan import plan
from export.graphs.to_float import to_float_model
from hil.devices.latency import Estimate, Work, compiled_work, estimate, keep_compiled
from hil.devices.targets import Target
from payload.bundle import Bundle
from payload.errors import InputError


@dataclass(frozen=True)
class Limit:
    """One limit of the device. `held` is None where the figure needs the compiler."""

    what: str
    needed: float | None
    limit: float
    unit: str
    status: str

    @property
    def held(self) -> bool | None:
        return None if self.needed is None else self.needed <= self.limit


@dataclass(frozen=True)
class MyriadReport:
    """One network at one tile size for one device."""

    network: str
    target: str
    tile_px: int
    macs: int
    parameters: int
    weight_octets: int
    peak_activation_octets: int
    form: str
    ends: str
    header: BlobHeader | None
    used_memory: dict[str, int]
    stages: tuple[Stage, ...]
    limits: tuple[Limit, ...]
    work: Work
    estimate: Estimate
    anchors: tuple[str, ...]
    blob: str

    @property
    def held(self) -> bool:
        return all(limit.held is not False for limit in self.limits)


def compile_bundle(
    bundle: Bundle,
    target: Target,
    toolkit: Toolkit | None,
    tile_sizes_px: tuple[int, ...],
    out: Path,
    say: Callable[[str], None] = lambda line: None,
) -> list[MyriadReport]:
    """Every network of the flight part at every tile size; blobs and report.json go into `out`."""
    if not target.platform:
        raise InputError(f"target {target.name} is not compiled ahead of time; choose myriad2 or myriadx")
    out.mkdir(parents=True, exist_ok=True)
    reports = []
    for name in flight_networks(bundle):
        for tile_px in tile_sizes_px:
            say(f"{name}, tiles of {tile_px} px, for {target.name}")
            blob = out / f"{Path(name).stem}-{target.name}-{tile_px}.blob"
            model = float_twin(bundle.file(name), bundle.tile_px, tile_px)
            known = compiled_work(bundle, name, target.name, tile_px)
            reports.append(report_network(name, model, target, tile_px, toolkit, blob, known))
    keep_work(bundle, target, reports)
    text = json.dumps([to_table(r) for r in reports], indent=1) + "\n"
    (out / f"report-{target.name}.json").write_text(text, encoding="utf-8")
    return reports


def float_twin(path: Path, built_for_px: int, tile_px: int) -> onnx.ModelProto:
    """The network as floats at opset 13, for tiles of tile_px. InputError where the size does not fit the network."""
    return to_float_model(load_for_tile(path, built_for_px, tile_px), for_vpu=True)


def report_network(
    name: str, model: onnx.ModelProto, target: Target, tile_px: int, toolkit: Toolkit | None, blob: Path,
    known: Work | None = None,
) -> MyriadReport:  # fmt: skip
    """Compiles one float network where there is a toolkit, and holds it against the device's limits.

    `known`: what an earlier compile made, used where there is no toolkit."""
    refuse_operators(load_graph(model), target)
    made = compile_shortest(model, target, toolkit) if toolkit else None
    if made:
        blob.parent.mkdir(parents=True, exist_ok=True)
        blob.write_bytes(made.blob)
    graph = load_graph(made.model if made else model)
    planned = plan(graph, float_octets=2)
    header, memory = (made.header, made.used_memory) if made else (None, {})
    work = asked_of(made) if made else known or work_of(graph, 2)
    modelled = estimate(target, work)
    return MyriadReport(
        name, target.name, tile_px, int(work.macs), total_parameters(graph), planned.weight_octets,
        planned.peak_octets, made.form if made else "", made.ends if made else "", header, memory,
        made.stages if made else (), _limits(target, header, memory, planned.weight_octets, planned.peak_octets), work,
        modelled, tuple(against_anchors(target, modelled.latency_ms[1], tile_px**2)), blob.name if made else "",
    )  # fmt: skip


def asked_of(made: Compiled) -> Work:
    """What a compiled network asks of the device: its stages run once per image of the batch."""
    return work_of(load_graph(made.model), 2, made.header.stages * made.header.batch)


def keep_work(bundle: Bundle, target: Target, reports: list[MyriadReport]) -> None:
    """What was compiled stays beside the bundle's manifest, for every estimate that follows."""
    made = {(r.network, r.tile_px): r.work for r in reports if r.header}
    if made and os.access(bundle.directory, os.W_OK):
        keep_compiled(bundle, target.name, made)


def to_table(report: MyriadReport) -> dict[str, Any]:
    """A report as JSON-ready tables, with what was held beside each limit."""
    table = asdict(report)
    table["limits"] = [asdict(limit) | {"held": limit.held} for limit in report.limits]
    return table | {"held": report.held}


def as_text(report: MyriadReport, stages: bool = False) -> str:
    """A report as text."""
    e = report.estimate
    lines = [
        f"{report.network} for {report.target}, tile {report.tile_px} px: {report.macs / report.tile_px**2:.1f} MAC/px"
        f", {report.parameters} parameters, weights {report.weight_octets} octets, "
        f"peak activations {report.peak_activation_octets / 2**20:.2f} MiB (liveness, FP16)",
    ]
    if report.header:
        h = report.header
        lines.append(
            f"  compiled: {h.stages} stages, {h.shaves} SHAVEs, {h.cmx_slices} CMX slices, blob {h.blob_octets} octets"
            f", batch {h.batch}, working memory {h.bss_octets} octets, in {h.input_octets}, out {h.output_octets}, "
            f"hardware stages {'yes' if h.has_hardware_stage else 'no'}"
        )
        lines.append(f"  form: {report.form}; ends: {'f32' if report.ends == PLAIN else f'FP16 {report.ends}'}")
    else:
        lines.append(f"  not compiled: no toolkit. {HOW_TO_INSTALL}")
    for limit in report.limits:
        needed = "unknown without the toolkit" if limit.needed is None else f"{limit.needed:.6g}"
        verdict = {True: "held", False: "NOT HELD", None: "open"}[limit.held]
        lines.append(f"  {limit.what}: {needed} of {limit.limit:g} {limit.unit} ({limit.status}): {verdict}")
    ms, mj = "/".join(f"{v:.1f}" for v in e.latency_ms), "/".join(f"{v:.1f}" for v in e.energy_mj)
    lines.append(f"  modelled: {ms} ms, {mj} mJ a tile (low/mid/high assumptions)")
    lines += [f"  {line}" for line in report.anchors]
    if stages:
        lines += [
            f"    {s.order:>4} {s.kind:14} {s.layer:24} {s.shaves:>2} SHAVEs  {s.name}"
            for s in report.stages
            if s.order >= 0
        ]
    return "\n".join(lines)


def _limits(
    target: Target, header: BlobHeader | None, memory: dict[str, int], weights: int, peak: int
) -> tuple[Limit, ...]:
    uplink, ddr = target.figure("uplink_limit_mb"), target.figure("memory_mib")
    slices, shaves, chip = target.figure("cmx_slices"), target.figure("shaves"), target.figure("on_chip_mib")
    total = (
        header.blob_octets + header.bss_octets + header.input_octets + header.output_octets
        if header
        else weights + peak
    )
    return (
        Limit("uplink", (header.blob_octets if header else weights) / 1e6, uplink.mid, "MB", uplink.status),
        Limit("DDR", total / 2**20, ddr.mid, "MiB", ddr.status),
        Limit("CMX slices", header.cmx_slices if header else None, slices.mid, "slices", slices.status),
        Limit("SHAVEs", header.shaves if header else None, shaves.mid, "SHAVEs", shaves.status),
        Limit("CMX data", memory.get("CMX", 0) / 2**20 if header else None, chip.mid, "MiB", chip.status),
    )
