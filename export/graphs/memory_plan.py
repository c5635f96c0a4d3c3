"""Peak activation memory of a network: liveness over the graph, so that "does it fit" has an answer per tile size.

A tensor is stored from the node that writes it to the last node that reads it. Operators that run inside their
neighbour's loop store nothing of their own: DequantizeLinear on the way in, and Relu, Clip, Mul, Add and QuantizeLinear
on the way out of an operator whose result nobody else reads. Weights are counted apart. No workspace of a particular
runtime (im2col, reordering) is included: this is the floor that any runtime needs.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx

from export.graphs.graph import Graph, label, load_for_tile, load_graph
from export.graphs.to_float import to_float_model
from payload.errors import InputError

#: Run in place behind the operator that feeds them.
FUSED_BEHIND = ("Relu", "Clip", "Mul", "Add", "Sub", "QuantizeLinear", "Round", "Identity", "Cast")
#: Change how octets are read, not the octets.
VIEWS = ("DequantizeLinear", "Reshape", "Flatten", "Identity", "Squeeze", "Unsqueeze")


@dataclass(frozen=True)
class Step:
    """One node that stores something, and what lies in memory while it runs."""

    name: str
    op: str
    live_octets: int
    written_octets: int


@dataclass(frozen=True)
class MemoryPlan:
    """The plan of one network at one size."""

    network: str
    steps: tuple[Step, ...]
    weight_octets: int

    @property
    def peak_octets(self) -> int:
        return max((s.live_octets for s in self.steps), default=0)

    @property
    def peak_step(self) -> Step:
        return max(self.steps, key=lambda s: s.live_octets)


@dataclass(frozen=True)
class _Storage:
    """A tensor that occupies memory: its size and the nodes between which it lives."""

    octets: int
    first: int
    last: int


def plan(graph: Graph, float_octets: int = 4) -> MemoryPlan:
    """Liveness of one network. `float_octets`: what an unquantised sample takes (4 in f32, 2 on a VPU)."""
    root = _storage_roots(graph)
    lives: dict[str, _Storage] = {}
    for name in graph.inputs:
        octets = int(np.prod(graph.shapes[name])) * min(float_octets, graph.input_type(name).itemsize)
        lives[name] = _Storage(octets, 0, 0)
    members: dict[str, list[str]] = {}
    for name, owner in root.items():
        members.setdefault(owner, []).append(name)
    for index, node in enumerate(graph.nodes):
        for name in node.input:
            read = lives.get(root.get(name, ""))
            if read is not None:
                lives[root[name]] = _Storage(read.octets, read.first, index)
        written = root.get(node.output[0], "")
        if written and written not in lives:
            lives[written] = _Storage(_octets(graph, written, members[written], float_octets), index, index)
    for name in graph.outputs:
        if root.get(name) in lives:
            kept = lives[root[name]]
            lives[root[name]] = _Storage(kept.octets, kept.first, len(graph.nodes))
    return MemoryPlan(graph.name, tuple(_steps(graph, root, lives)), _weight_octets(graph, float_octets))


def plan_for_tiles(path: Path, tile_px: int, sizes_px: tuple[int, ...], in_fp16: bool = False) -> dict[int, MemoryPlan]:
    """Plans for several tile sizes of an INT8 network that was exported for tiles of `tile_px`, or of its FP16 twin."""
    plans = {}
    for size in sizes_px:
        graph = load_for_tile(path, tile_px, size)
        plans[size] = plan(load_graph(to_float_model(graph, for_vpu=True)), 2) if in_fp16 else plan(graph)
    return plans


def fits(peak_octets: int, limit_octets: int) -> str:
    """'fits' or by how much it does not, for a table."""
    return "fits" if peak_octets <= limit_octets else f"{peak_octets / limit_octets:.1f} x too large"


def chart(plans: dict[int, MemoryPlan], limits: dict[str, int], path: Path) -> None:
    """Draws live octets over the steps, one line per tile size, and the limits by name. PNG or SVG by suffix."""
    if path.suffix not in (".png", ".svg"):
        raise InputError(f"{path}: a chart is written as .png or .svg")
    try:
        import matplotlib

        matplotlib.use("agg")
        matplotlib.rcParams["svg.hashsalt"] = "nadir"  # the same plan gives the same file
        from matplotlib import pyplot
    except ImportError:
        raise InputError("charts need matplotlib; pip install 'nadir-payload[ground]'") from None
    figure, axes = pyplot.subplots(figsize=(8, 4.5), layout="constrained")
    for size, one in sorted(plans.items()):
        mib = [s.live_octets / 2**20 for s in one.steps]
        axes.step(range(len(mib)), mib, where="mid", label=f"tile {size} px: peak {max(mib):.2f} MiB")
    for name, octets in limits.items():
        axes.axhline(octets / 2**20, color="0.4", linestyle="--", linewidth=0.8)
        axes.annotate(name, (0, octets / 2**20), textcoords="offset points", xytext=(2, 2), fontsize=8)
    title = Path(next(iter(plans.values())).network).name if plans else ""
    axes.set(title=title, xlabel="step of the network", ylabel="live activations, MiB", yscale="log")
    axes.legend(fontsize=8)
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)
    pyplot.close(figure)


def _storage_roots(graph: Graph) -> dict[str, str]:
    """The tensor whose memory each tensor lives in."""
    consumers, root = graph.consumers(), {name: name for name in graph.inputs}
    for node in graph.nodes:
        source = next((n for n in node.input if n in root), None)
        for name in node.output:
            if source is None:
                if node.op_type not in ("DequantizeLinear", "Clip", "Constant"):
                    root[name] = name  # computed from constants alone, yet stored
            elif node.op_type in VIEWS or _runs_behind(graph, node, source, consumers):
                root[name] = root[source]
            else:
                root[name] = name
    return root


def _runs_behind(graph: Graph, node: onnx.NodeProto, source: str, consumers: dict[str, list[onnx.NodeProto]]) -> bool:
    return (
        node.op_type in FUSED_BEHIND
        and source not in graph.inputs
        and source not in graph.outputs
        and len(consumers[source]) == 1
        and graph.shapes[source] == graph.shapes[node.output[0]]
    )


def _octets(graph: Graph, owner: str, members: list[str], float_octets: int) -> int:
    """A stored tensor's size: one octet a sample where a quantiser ends its chain."""
    quantised = any(node.op_type == "QuantizeLinear" and node.output[0] in members for node in graph.nodes)
    return int(np.prod(graph.shapes[owner])) * (1 if quantised else float_octets)


def _steps(graph: Graph, root: dict[str, str], lives: dict[str, _Storage]) -> list[Step]:
    steps = []
    for index, node in enumerate(graph.nodes):
        storage = lives.get(node.output[0]) if root.get(node.output[0]) == node.output[0] else None
        if storage is not None:
            live = sum(s.octets for s in lives.values() if s.first <= index <= s.last)
            steps.append(Step(label(node), node.op_type, live, storage.octets))
    return steps


def _weight_octets(graph: Graph, float_octets: int) -> int:
    integers = (np.int8, np.uint8, np.int32)
    return sum(a.nbytes if a.dtype in integers else a.size * float_octets for a in graph.constants.values() if a.ndim)
