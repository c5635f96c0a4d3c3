"""An ONNX network as the exporters see it: nodes in order, constants, concrete shapes, and what each layer costs.

Takes a `.onnx` file or model, gives a `Graph`. Everything here is read from the file; nothing is run.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from payload.errors import InputError

Shape = tuple[int, ...]
CONVOLUTIONS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
#: Metadata key of a network that sees averages: pixels of the tile along one of its input samples.
PX_PER_SAMPLE = "px_per_sample"


@dataclass(frozen=True, eq=False)
class Graph:
    """A checked network with every shape known."""

    name: str
    model: onnx.ModelProto
    constants: dict[str, NDArray[Any]]
    shapes: dict[str, Shape]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

    @property
    def nodes(self) -> list[onnx.NodeProto]:
        return list(self.model.graph.node)

    @property
    def opset(self) -> int:
        return max(o.version for o in self.model.opset_import if o.domain in ("", "ai.onnx"))

    def input_type(self, name: str) -> np.dtype[Any]:
        """What an input's array must be: f32, or u8 / s8 where the quantiser sits before the network."""
        value = next(v for v in self.model.graph.input if v.name == name)
        return np.dtype(onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type))

    def consumers(self) -> dict[str, list[onnx.NodeProto]]:
        """Nodes that read each tensor."""
        found: dict[str, list[onnx.NodeProto]] = {}
        for node in self.nodes:
            for name in node.input:
                found.setdefault(name, []).append(node)
        return found

    def producers(self) -> dict[str, onnx.NodeProto]:
        """The node that writes each tensor."""
        return {name: node for node in self.nodes for name in node.output}


@dataclass(frozen=True)
class LayerCost:
    """What one convolution or matrix product costs for one run of the network."""

    name: str
    op: str
    macs: int
    parameters: int


def load_graph(
    source: str | Path | onnx.ModelProto, input_shapes: Mapping[str, Shape] | None = None, free_px: int | None = None
) -> Graph:
    """The network in `source`, its sizes set from `input_shapes` (by input name), symbolic ones from `free_px`.

    A network that sees averages of several pixels says so in its metadata (PX_PER_SAMPLE); its sizes are smaller by
    that factor. InputError if the file is corrupt, or an input's size is still unknown.
    """
    name = "network" if isinstance(source, onnx.ModelProto) else str(source)
    model = _read(source)
    _set_input_shapes(name, model, input_shapes or {}, free_px)
    constants = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Constant":
            constants[node.output[0]] = _constant(node)
    inputs = tuple(v.name for v in model.graph.input if v.name not in constants)
    return Graph(name, model, constants, _shapes(name, model), inputs, tuple(v.name for v in model.graph.output))


def load_for_tile(path: Path, built_for_px: int, tile_px: int) -> Graph:
    """A network of a bundle of tile size `built_for_px`, with the shapes it has for tiles of `tile_px`."""
    graph = load_graph(path, free_px=built_for_px)
    if tile_px == built_for_px:
        return graph
    return load_graph(path, tile_input_shapes(graph, built_for_px, tile_px))


def input_names(source: str | Path) -> list[str]:
    """Names of a network file's inputs, in order. InputError if the file is corrupt."""
    model = _read(source)
    initial = {t.name for t in model.graph.initializer}
    return [v.name for v in model.graph.input if v.name not in initial]


def input_types(source: str | Path) -> list[np.dtype[Any]]:
    """Element types of a network file's inputs, in order."""
    model = _read(source)
    initial = {t.name for t in model.graph.initializer}
    chosen = (v for v in model.graph.input if v.name not in initial)
    return [np.dtype(onnx.helper.tensor_dtype_to_np_dtype(v.type.tensor_type.elem_type)) for v in chosen]


def attributes(node: onnx.NodeProto) -> dict[str, Any]:
    return {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}


def label(node: onnx.NodeProto) -> str:
    """How messages call a node: its name, or its first output where it has none."""
    return str(node.name or node.output[0])


def layer_costs(graph: Graph) -> list[LayerCost]:
    """Multiply-accumulates and weights of every layer that multiplies by weights."""
    costs: list[LayerCost] = []
    seen: set[str] = set()
    for node in graph.nodes:
        if node.op_type not in CONVOLUTIONS:
            continue
        weight, out = graph.shapes[node.input[1]], graph.shapes[node.output[0]]
        if node.op_type == "Conv":
            macs = int(np.prod(out)) * int(np.prod(weight[1:]))
        elif node.op_type == "ConvTranspose":
            macs = int(np.prod(graph.shapes[node.input[0]])) * int(np.prod(weight[1:]))
        else:
            macs = int(np.prod(out)) * graph.shapes[node.input[0]][-1]
        bias = int(np.prod(graph.shapes[node.input[2]])) if len(node.input) > 2 and node.input[2] else 0
        parameters = bias + (0 if node.input[1] in seen else int(np.prod(weight)))
        seen.add(node.input[1])
        costs.append(LayerCost(label(node), node.op_type, macs, parameters))
    return costs


def total_macs(graph: Graph) -> int:
    return sum(c.macs for c in layer_costs(graph))


def total_parameters(graph: Graph) -> int:
    """Weights and biases of convolutions and matrix products; shared weights count once."""
    return sum(c.parameters for c in layer_costs(graph))


def tile_input_shapes(graph: Graph, tile_px: int, other_px: int) -> dict[str, Shape]:
    """Input shapes for tiles of `other_px`, from a graph made for tiles of `tile_px`.

    A spatial size is either tile / k or tile / k + 1 (a halo of one block); both are recognised. InputError if neither.
    """
    shapes = {}
    for name in graph.inputs:
        *lead, height, width = graph.shapes[name]
        shapes[name] = (*lead, *(_scaled(graph, name, s, tile_px, other_px) for s in (height, width)))
    return shapes


def _scaled(graph: Graph, name: str, size: int, tile_px: int, other_px: int) -> int:
    for halo in (0, 1):
        core = size - halo
        if core > 0 and tile_px % core == 0 and other_px % (tile_px // core) == 0:
            return other_px // (tile_px // core) + halo
    raise InputError(
        f"{graph.name}: input {name} is {size} wide for tiles of {tile_px} px, which does not scale to {other_px} px; "
        "choose a tile size that is a multiple of the network's stride"
    )


def _read(source: str | Path | onnx.ModelProto) -> onnx.ModelProto:
    if isinstance(source, onnx.ModelProto):
        model = onnx.ModelProto()
        model.CopyFrom(source)
        return model
    path = Path(source)
    if not path.is_file():
        raise InputError(f"{path}: no such file; give an .onnx network, or rebuild the bundle")
    try:
        model = onnx.load(str(path))
        onnx.checker.check_model(model)
    except Exception as error:  # protobuf, checker and file errors share no base class
        raise InputError(f"{path}: not a valid ONNX network ({_first_line(error)}); restore or re-export it") from None
    return model


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:160] if lines else type(error).__name__


def _constant(node: onnx.NodeProto) -> NDArray[Any]:
    value = next(iter(attributes(node).values()))
    return numpy_helper.to_array(value) if isinstance(value, onnx.TensorProto) else np.asarray(value)


def _set_input_shapes(
    name: str, model: onnx.ModelProto, input_shapes: Mapping[str, Shape], free_px: int | None
) -> None:
    initial = {t.name for t in model.graph.initializer}
    inputs = [v for v in model.graph.input if v.name not in initial]
    samples = next((int(p.value) for p in model.metadata_props if p.key == PX_PER_SAMPLE), 1)
    unknown = set(input_shapes) - {v.name for v in inputs}
    if unknown:
        raise InputError(f"{name}: no input called {sorted(unknown)[0]}; it has {', '.join(v.name for v in inputs)}")
    changed = False
    for value in inputs:
        dims = value.type.tensor_type.shape.dim
        wanted = input_shapes.get(value.name)
        if wanted is None and free_px is not None:
            side = free_px // samples
            wanted = tuple(d.dim_value if d.dim_value > 0 else (side if axis else 1) for axis, d in enumerate(dims))
        if wanted is not None:
            if len(wanted) != len(dims):
                raise InputError(f"{name}: input {value.name} has {len(dims)} axes, {len(wanted)} sizes given")
            changed |= any(d.dim_value != s for d, s in zip(dims, wanted, strict=True))
            for dim, size in zip(dims, wanted, strict=True):
                dim.dim_value = int(size)
        elif any(d.dim_value <= 0 for d in dims):
            raise InputError(f"{name}: the size of input {value.name} is symbolic; give its shape")
    if changed:  # stale inferred sizes would contradict the new ones
        del model.graph.value_info[:]
        for value in model.graph.output:
            value.type.tensor_type.ClearField("shape")


def _shapes(name: str, model: onnx.ModelProto) -> dict[str, Shape]:
    try:
        inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
    except Exception as error:  # the checker raises plain C++ exceptions
        raise InputError(f"{name}: shapes do not fit together ({_first_line(error)}); check the tile size") from None
    shapes = {t.name: tuple(t.dims) for t in model.graph.initializer}
    values = [*inferred.graph.input, *inferred.graph.value_info, *inferred.graph.output]
    for value in values:
        shapes[value.name] = tuple(d.dim_value for d in value.type.tensor_type.shape.dim)
    for node in model.graph.node:
        if node.op_type == "Constant":
            shapes[node.output[0]] = tuple(_constant(node).shape)
    known = all(o in shapes and 0 not in shapes[o] for node in model.graph.node for o in node.output if o)
    return shapes if known else shapes | _shapes_by_running(name, model)


def _shapes_by_running(name: str, model: onnx.ModelProto) -> dict[str, Shape]:
    """Shapes that inference cannot know (sizes computed inside the graph), read off one run on zeros."""
    import onnxruntime

    exposed = onnx.ModelProto()
    exposed.CopyFrom(model)
    outputs = {v.name for v in model.graph.output}
    names = [o for node in model.graph.node for o in node.output if o and o not in outputs]
    exposed.graph.output.extend(onnx.ValueInfoProto(name=n) for n in names)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads, options.log_severity_level = 1, 4
    try:
        session = onnxruntime.InferenceSession(exposed.SerializeToString(), options, providers=["CPUExecutionProvider"])
        feeds = {v.name: np.zeros(v.shape, _ORT_TYPES.get(v.type, np.float32)) for v in session.get_inputs()}
        found = session.run(None, feeds)
    except Exception as error:  # the runtime raises its own family of C++ exceptions
        raise InputError(f"{name}: shapes do not fit together ({_first_line(error)}); check the tile size") from None
    return {v.name: tuple(a.shape) for v, a in zip(session.get_outputs(), found, strict=True)}


_ORT_TYPES = {"tensor(uint8)": np.uint8, "tensor(int8)": np.int8, "tensor(float)": np.float32}
