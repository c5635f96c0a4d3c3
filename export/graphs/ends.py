"""What the host does at a float twin's ends, where the INT8 network has quantisers: bounds in, integers out.

A VPU runs neither; a blob therefore gives floats, and whoever runs it needs this table (it is in a variant's manifest).
"""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import onnx

from export.graphs.graph import Graph


@dataclass(frozen=True)
class Input:
    """`low` and `high`: what the network's first quantiser lets through."""

    name: str
    low: float
    high: float


@dataclass(frozen=True)
class Output:
    """`dtype`: of what comes out. An integer is the float rounded half to even and bounded by its type."""

    name: str
    dtype: str


@dataclass(frozen=True)
class Ends:
    """Both ends of a network, in the order of its inputs and outputs."""

    inputs: tuple[Input, ...]
    outputs: tuple[Output, ...]

    def to_table(self) -> dict[str, Any]:
        return asdict(self)


def ends_of(graph: Graph) -> Ends:
    """The ends of an INT8 network."""
    kinds = {v.name: v.type.tensor_type.elem_type for v in graph.model.graph.output}
    types = {name: onnx.helper.tensor_dtype_to_np_dtype(kind).name for name, kind in kinds.items()}
    inputs = tuple(Input(name, *_range(graph, name)) for name in graph.inputs)
    return Ends(inputs, tuple(Output(name, types[name]) for name in graph.outputs))


def _range(graph: Graph, name: str) -> tuple[float, float]:
    """Of an input's type where it is integers, of its quantiser where it has one, of FP16 elsewhere."""
    kind = graph.input_type(name)
    if kind.kind in "iu":
        return float(np.iinfo(kind).min), float(np.iinfo(kind).max)
    for node in graph.consumers().get(name, []):
        if node.op_type == "QuantizeLinear":
            info, step = np.iinfo(graph.constants[node.input[2]].dtype), float(graph.constants[node.input[1]])
            return info.min * step, info.max * step
    return float(np.finfo(np.float16).min), float(np.finfo(np.float16).max)
