"""The Myriad build: float twin, compiled blob where the old toolkit is installed, and what the device must hold.

The toolkit (wheel openvino 2021.4.2, Intel's licence, end of life) is installed by the user and never part of this
project; without it the report holds what the model alone can tell.
"""

import ctypes.util
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import onnx

from export.builds import flight_networks
from export.devices.estimates import against_anchors, refuse_operators, work_of
from export.devices.myriad_blob import BlobHeader, Stage, parse_stages, parse_used_memory, read_blob
from export.graphs.fewer_stages import fewer_stages
from export.graphs.graph import load_for_tile, load_graph, total_macs, total_parameters
from export.graphs.memory_plan import plan
from export.graphs.to_float import to_float_model
from hil.devices.latency import Estimate, compiled_stages, estimate, keep_compiled
from hil.devices.targets import Target
from payload.bundle import Bundle
from payload.errors import InputError

PLUGIN = "libmyriadPlugin.so"
COMPILE_TIMEOUT_S = 600.0
HOW_TO_INSTALL = (
    "pip download --no-deps --only-binary=:all: --python-version 3.9 openvino==2021.4.2 && "
    "unzip openvino-2021.4.2-*.whl -d TOOLKIT; libusb-1.0 as a system package, or the libusb-package wheel unzipped "
    "there too; then --toolkit TOOLKIT"
)


@dataclass(frozen=True)
class Toolkit:
    """Where the old toolkit's libraries lie."""

    libs: Path
    libusb: Path


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
    header: BlobHeader | None
    used_memory: dict[str, int]
    stages: tuple[Stage, ...]
    limits: tuple[Limit, ...]
    estimate: Estimate
    anchors: tuple[str, ...]
    blob: str

    @property
    def held(self) -> bool:
        return all(limit.held is not False for limit in self.limits)


def find_toolkit(folder: Path) -> Toolkit:
    """The toolkit under `folder` (an unpacked wheel). InputError that says what to install."""
    places = [folder / "openvino" / "libs", folder / "libs", folder]
    libs = next((p for p in places if (p / PLUGIN).is_file()), None)
    if libs is None:
        raise InputError(f"{folder}: no {PLUGIN} there; install the toolkit: {HOW_TO_INSTALL}")
    bundled = folder / "libusb_package" / "libusb-1.0.so"
    libusb = str(bundled.resolve()) if bundled.is_file() else ctypes.util.find_library("usb-1.0")
    if libusb is None:
        raise InputError(
            f"libusb-1.0 was not found; install it as a system package, or unzip libusb-package into {folder}"
        )
    return Toolkit(libs.resolve(), Path(libusb))


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
            known = compiled_stages(bundle, name, target.name, tile_px)
            reports.append(report_network(name, model, target, tile_px, toolkit, blob, known))
    keep_stages(bundle, target, reports)
    text = json.dumps([to_table(r) for r in reports], indent=1) + "\n"
    (out / f"report-{target.name}.json").write_text(text, encoding="utf-8")
    return reports


def float_twin(path: Path, built_for_px: int, tile_px: int) -> onnx.ModelProto:
    """The network as floats at opset 13, for tiles of tile_px. InputError where the size does not fit the network."""
    return to_float_model(load_for_tile(path, built_for_px, tile_px), for_vpu=True)


def report_network(
    name: str,
    model: onnx.ModelProto,
    target: Target,
    tile_px: int,
    toolkit: Toolkit | None,
    blob: Path,
    known_stages: int | None = None,
) -> MyriadReport:
    """Compiles one float network where there is a toolkit, and holds it against the device's limits.

    `known_stages`: what an earlier compile made, used where there is no toolkit."""
    graph = load_graph(model)
    refuse_operators(graph, target)
    header: BlobHeader | None = None
    stages: tuple[Stage, ...] = ()
    memory: dict[str, int] = {}
    if toolkit is not None:
        header, stages, memory = compile_network(fewer_stages(model), target, toolkit, blob)
    planned = plan(graph, float_octets=2)
    macs = total_macs(graph)
    modelled = estimate(target, work_of(graph, 2, _stages(header) if header else known_stages))
    return MyriadReport(
        name, target.name, tile_px, macs, total_parameters(graph), planned.weight_octets, planned.peak_octets,
        header, memory, stages, _limits(target, header, memory, planned.weight_octets, planned.peak_octets),
        modelled, tuple(against_anchors(target, modelled.latency_ms[1], tile_px**2)), blob.name if header else "",
    )  # fmt: skip


def _stages(header: BlobHeader) -> int:
    """The device runs the compiled stages once per image of the batch."""
    return header.stages * header.batch


def keep_stages(bundle: Bundle, target: Target, reports: list[MyriadReport]) -> None:
    """What was compiled stays beside the bundle's manifest, for every estimate that follows."""
    made = {(r.network, r.tile_px): _stages(r.header) for r in reports if r.header}
    if made and os.access(bundle.directory, os.W_OK):
        keep_compiled(bundle, target.name, made)


def compile_network(
    model: onnx.ModelProto, target: Target, toolkit: Toolkit, blob: Path
) -> tuple[BlobHeader, tuple[Stage, ...], dict[str, int]]:
    """A real compile, in a process of its own. InputError with the compiler's own words where it fails."""
    with tempfile.TemporaryDirectory(prefix="nadir-myriad-") as scratch:
        folder = Path(scratch).resolve()
        network, made, dump = folder / "network.onnx", folder / "network.blob", folder / "graph.dot"
        onnx.save(model, str(network))
        arguments = [toolkit.libs, toolkit.libusb, target.platform, network, made, dump]
        command = [sys.executable, "-m", "export.devices.myriad_compiler", *(str(a) for a in arguments)]
        environment = dict(os.environ, PYTHONPATH=str(Path(__file__).resolve().parents[2]))
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=COMPILE_TIMEOUT_S, check=False
        )
        if done.returncode != 0 or not made.is_file():
            raise InputError(
                f"{target.name}: the toolkit's compiler refused the network: {_compiler_words(done.stderr)}"
            )
        text = dump.read_text(encoding="utf-8", errors="replace") if dump.is_file() else ""
        header = read_blob(made.read_bytes())
        blob.parent.mkdir(parents=True, exist_ok=True)
        blob.write_bytes(made.read_bytes())
    return header, parse_stages(text), parse_used_memory(text)


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


def _compiler_words(stderr: str) -> str:
    """The exception's own text, without the colours and warnings around it."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip() and "[Warning]" not in line]
    start = next((i for i, line in enumerate(lines) if "what():" in line), 0)
    told = " ".join(line.split("what():", 1)[-1].strip() for line in lines[start:])
    return told[:300] or "no message"
