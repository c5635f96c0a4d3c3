"""A quantised ONNX network without its quantisers: what a float-only device (the Myriad's VPU) runs.

Weights become plain f32 constants (7-bit integers times a power of two, which FP16 holds exactly); activation
quantisers become the Clip of their range, with the rounding kept only on request. The Myriad compiler reads opset 13
and refuses FakeQuantize and QDQ pairs.
"""

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from export.graphs.graph import Graph, attributes, label
from payload.errors import InputError

VPU_OPSET = 13
VPU_IR_VERSION = 7


def to_float_model(graph: Graph, for_vpu: bool, keep_rounding: bool = False) -> onnx.ModelProto:
    """The float twin of a QCDQ graph, with concrete shapes. InputError if a quantiser has no inverse in the graph."""
    builder = _Rebuild(graph, keep_rounding)
    for node in graph.nodes:
        builder.add(node)
    return builder.model(VPU_OPSET if for_vpu else graph.opset)


class _Rebuild:
    """Copies a graph node by node, leaving the quantisers out."""

    def __init__(self, graph: Graph, keep_rounding: bool) -> None:
        self.graph, self.keep_rounding = graph, keep_rounding
        self.nodes: list[onnx.NodeProto] = []
        self.constants = dict(graph.constants)
        self.renamed: dict[str, str] = {}
        self.bounds: dict[str, tuple[float, float]] = {}  # of integer tensors, in integers
        self.steps: dict[str, tuple[float, float]] = {}  # scale and zero point of integer tensors

    def add(self, node: onnx.NodeProto) -> None:
        inputs = [self.renamed.get(n, n) for n in node.input]
        if node.op_type == "QuantizeLinear":
            self._quantise(node, inputs)
        elif node.op_type == "Clip" and (node.input[0] in self.bounds or self._integer(node.input[0])):
            self._clip_integers(node, inputs)
        elif node.op_type == "DequantizeLinear":
            self._dequantise(node, inputs)
        elif node.op_type != "Constant":
            copy = onnx.NodeProto()
            copy.CopyFrom(node)
            copy.input[:] = inputs
            self.nodes.append(copy)

    def model(self, opset: int) -> onnx.ModelProto:
        outputs = []
        for value in self.graph.model.graph.output:
            source = self.renamed.get(value.name, value.name)
            if value.name in self.steps:  # a quantised output stays in steps of its quantiser
                self._in_steps(value.name, source)
            elif source != value.name:
                self.nodes.append(helper.make_node("Identity", [source], [value.name], name=f"{value.name}_out"))
            shape = list(self.graph.shapes[value.name])
            outputs.append(helper.make_tensor_value_info(value.name, onnx.TensorProto.FLOAT, shape))
        used = {n for node in self.nodes for n in node.input}
        constants = [
            numpy_helper.from_array(np.ascontiguousarray(a), n) for n, a in self.constants.items() if n in used
        ]
        inputs = [
            helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, list(self.graph.shapes[n]))
            for n in self.graph.inputs
        ]
        made = helper.make_graph(self.nodes, f"{self.graph.model.graph.name}-float", inputs, outputs, constants)
        model = helper.make_model(made, opset_imports=[helper.make_opsetid("", opset)], ir_version=VPU_IR_VERSION)
        try:
            onnx.checker.check_model(model, full_check=True)
        except Exception as error:  # the checker's exceptions share no base class
            raise InputError(
                f"{self.graph.name}: cannot be written for opset {opset}: {str(error).splitlines()[0]}"
            ) from None
        return model

    def _integer(self, name: str) -> bool:
        return name in self.constants and self.constants[name].dtype.kind in "iu"

    def _quantise(self, node: onnx.NodeProto, inputs: list[str]) -> None:
        info = np.iinfo(self.constants[node.input[2]].dtype)
        self.bounds[node.output[0]] = (float(info.min), float(info.max))
        scale, zero = self.constants[node.input[1]], self.constants[node.input[2]]
        if scale.size == 1:
            self.steps[node.output[0]] = (float(scale), float(zero))
        self.renamed[node.output[0]] = inputs[0]

    def _clip_integers(self, node: onnx.NodeProto, inputs: list[str]) -> None:
        low, high = (self.constants[n] for n in node.input[1:3])
        if self._integer(node.input[0]):
            self.constants[node.output[0]] = np.clip(self.constants[node.input[0]], low, high)
            return
        before = self.bounds[node.input[0]]
        self.bounds[node.output[0]] = (max(before[0], float(low)), min(before[1], float(high)))
        self.renamed[node.output[0]] = inputs[0]

    def _dequantise(self, node: onnx.NodeProto, inputs: list[str]) -> None:
        scale = self.constants[node.input[1]].astype(np.float64)
        zero = self.constants[node.input[2]].astype(np.float64) if len(node.input) > 2 else np.zeros(())
        if self._integer(node.input[0]):
            stored = self.constants[node.input[0]].astype(np.float64)
            axis = int(attributes(node).get("axis", 1))
            value = (stored - _along(zero, stored.ndim, axis)) * _along(scale, stored.ndim, axis)
            self.constants[node.output[0]] = value.astype(np.float32)
            return
        if node.input[0] in self.graph.inputs and scale.size == 1:
            self._from_integer_input(node, inputs[0], float(scale), float(zero))
            return
        if node.input[0] not in self.bounds or scale.size != 1:
            raise InputError(f"{self.graph.name}: {label(node)} dequantises what no QuantizeLinear in the graph wrote")
        low, high = ((b - float(zero)) * float(scale) for b in self.bounds[node.input[0]])
        self._activation(node.output[0], inputs[0], low, high, float(scale))

    def _from_integer_input(self, node: onnx.NodeProto, source: str, scale: float, zero: float) -> None:
        """An input that was integers arrives as floats of the same value."""
        for op, constant, neutral in (("Sub", zero, 0.0), ("Mul", scale, 1.0)):
            if constant != neutral:
                name = f"{node.output[0]}_{op.lower()}"
                self.nodes.append(
                    helper.make_node(op, [source, self._constant(f"{name}_by", constant)], [name], name=name)
                )
                source = name
        self.renamed[node.output[0]] = source

    def _activation(self, name: str, source: str, low: float, high: float, scale: float) -> None:
        if self.keep_rounding:
            step = self._constant(f"{name}_step", scale)
            steps, whole, back = f"{name}_steps", f"{name}_whole", f"{name}_rounded"
            self.nodes.append(helper.make_node("Div", [source, step], [steps], name=steps))
            self.nodes.append(helper.make_node("Round", [steps], [whole], name=whole))
            self.nodes.append(helper.make_node("Mul", [whole, step], [back], name=back))
            source = back
        bounds = [self._constant(f"{name}_low", low), self._constant(f"{name}_high", high)]
        self.nodes.append(helper.make_node("Clip", [source, *bounds], [name], name=f"{name}_clip"))

    def _in_steps(self, name: str, source: str) -> None:
        scale, zero = self.steps[name]
        low, high = self.bounds[name]
        scaled, shifted = f"{name}_scaled", f"{name}_shifted"
        self.nodes.append(
            helper.make_node("Mul", [source, self._constant(f"{name}_per", 1 / scale)], [scaled], name=scaled)
        )
        if zero:
            self.nodes.append(
                helper.make_node("Add", [scaled, self._constant(f"{name}_zero", zero)], [shifted], name=shifted)
            )
            scaled = shifted
        if self.keep_rounding:
            whole = f"{name}_whole"
            self.nodes.append(helper.make_node("Round", [scaled], [whole], name=whole))
            scaled = whole
        bounds = [self._constant(f"{name}_low", low), self._constant(f"{name}_high", high)]
        self.nodes.append(helper.make_node("Clip", [scaled, *bounds], [name], name=f"{name}_clip"))

    def _constant(self, name: str, value: float) -> str:
        self.constants[name] = np.float32(value) * np.ones((), np.float32)
        return name


def _along(values: NDArray[Any], rank: int, axis: int) -> NDArray[Any]:
    if values.size == 1:
        return values.reshape(())
    shape = [1] * rank
    shape[axis] = values.size
    return values.reshape(shape)
