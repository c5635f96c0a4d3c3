"""What devices make of a bundle's networks: refused operators, work counted from the graph, tables of estimates."""

from collections.abc import Mapping

from export.builds import FLOAT_OCTETS, NORMATIVE, VPU, flight_networks
from export.graphs.graph import Graph, label, load_graph, total_macs
from export.graphs.memory_plan import plan
from export.graphs.to_float import to_float_model
from hil.devices.latency import PRECISIONS, STATEMENT, Work, coding_work, estimate, gate_work, network_work
from hil.devices.targets import Target
from payload.bundle import Bundle
from payload.errors import InputError


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
        lines.append(f"  runs: {target.runs}")
        lines.append(f"  equality with the reference: {target.equality} ({target.shown_by})")
        for key, figure in target.figures.items():
            lines.append(f"  {key:20} {figure!s:>16}  {figure.status:9}  {figure.source}")
        for anchor in target.anchors:
            lines.append(f"  anchor: {anchor.what}, {anchor.latency_ms:g} ms  {anchor.status:9}  {anchor.source}")
        lines += [f"  published: {run}  {run.source}" for run in target.published]
        if target.refused_operators:
            lines.append(f"  does not run: {', '.join(target.refused_operators)}")
        if target.notes:
            lines.append(f"  note: {target.notes}")
    return "\n".join(lines)


def estimates_table(targets: Mapping[str, Target], bundle: Bundle) -> str:
    """Modelled latency and energy of a bundle's networks and of the whole tile on every target, low / mid / high."""
    lines = [f"modelled, one tile of {bundle.tile_px} px (low/mid/high assumptions): {STATEMENT}"]
    for target in targets.values():
        rows = {name: network_work(bundle, name, target) for name in flight_networks(bundle)}
        whole = gate_work(bundle, target) + coding_work(bundle, target)
        for name, work in (rows | {"a coded tile": whole}).items():
            modelled = estimate(target, work)
            ms, mj = (" / ".join(f"{v:.3g}" for v in e) for e in (modelled.latency_ms, modelled.energy_mj))
            stages = "stages not known" if work.stages is None else f"{work.stages:g} stages"
            lines.append(f"  {target.name:12} {name:22} {stages:>16} {ms:>22} ms  {mj:>22} mJ")
        lines += [f"    {line}" for line in against_anchors(target, modelled.latency_ms[1], bundle.tile_px**2)]
    return "\n".join(lines)


def runs_of(graph: Graph) -> dict[str, dict[str, int]]:
    """What one run asks for besides multiply-accumulates, by precision: of an INT8 network also as its FP16 twin."""
    quantised = any(node.op_type == "QuantizeLinear" for node in graph.nodes)
    if not quantised:
        return {PRECISIONS[build]: _run(graph, octets) for build, octets in FLOAT_OCTETS.items() if build != NORMATIVE}
    runs = {"int8": _run(graph, FLOAT_OCTETS[NORMATIVE])}
    try:
        twin = load_graph(to_float_model(graph, for_vpu=True))
    except InputError:  # an operator that has no float twin runs in INT8 alone
        return runs
    return runs | {"fp16": _run(twin, FLOAT_OCTETS[VPU])}


def _run(graph: Graph, float_octets: int) -> dict[str, int]:
    work = work_of(graph, float_octets)
    return {"stages": int(work.stages or 0), "octets_moved": int(work.octets_moved)}


def work_of(graph: Graph, float_octets: int, stages: int | None = None) -> Work:
    """What one run asks for. Every stored tensor is written once and read once; weights are read once.

    `stages`: of the device's own compiler; without them each step that stores a tensor counts as one."""
    planned = plan(graph, float_octets)
    moved = sum(s.written_octets for s in planned.steps) * 2 + planned.weight_octets
    return Work(total_macs(graph), stages if stages is not None else len(planned.steps), moved, calls=1)


def runs_here(target: Target) -> str:
    """Whether this machine can run the target's build: 'yes', 'no', or how it is stood in for."""
    if target.name == "npu":
        import openvino

        return "yes" if any(d.startswith("NPU") for d in openvino.Core().available_devices) else "no NPU found"
    return "compile only" if target.platform else "through this CPU"
