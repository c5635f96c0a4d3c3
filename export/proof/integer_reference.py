"""The normative oracle: a quantised network evaluated in numpy integers, with int32 accumulators and no float rounding.

Takes a power-of-two-scaled QCDQ graph (QuantizeLinear, Clip, DequantizeLinear around ordinary operators) and integer
inputs, gives what every runtime must give, to the last bit. Every tensor between two nodes is integers times a power of
two. Rounding is half to even, saturation is the quantiser's, and an accumulator that leaves int32 is an error.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from export.graphs.graph import Graph, attributes, label
from export.proof.exact import Fixed, Integers
from export.proof.integer_operators import OPERATORS
from payload.errors import InputError

INT32_MAX = 2**31 - 1


@dataclass(eq=False)
class IntegerNetwork:
    """A graph ready to run in integers. `peak_accumulator` holds the largest |accumulator| seen, by layer."""

    graph: Graph
    peak_accumulator: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        refuse_unsupported(self.graph)

    def run(self, *inputs: NDArray[Any]) -> list[NDArray[np.float32]]:
        """Integer-valued arrays in the order of the network's inputs; f32 outputs, exact while below 2^24 steps."""
        values: dict[str, Any] = dict(self.graph.constants)
        for name, array in zip(self.graph.inputs, inputs, strict=True):
            values[name] = _from_input(self.graph, name, array)
        for node in self.graph.nodes:
            if node.op_type == "Constant":
                continue
            arguments = [values[n] if n else None for n in node.input]
            where, operator = f"{self.graph.name}: {node.op_type} {label(node)}", OPERATORS[node.op_type]
            values[node.output[0]] = operator(attributes(node), arguments, where, self._watch(label(node)))
        return [_as_float32(values[name]) for name in self.graph.outputs]

    def _watch(self, layer: str) -> Any:
        def watch(q: Integers) -> Integers:
            peak = int(np.abs(q).max(initial=0))
            if peak > INT32_MAX:
                raise InputError(f"{self.graph.name}: the accumulator of {layer} reaches {peak}, more than int32 holds")
            self.peak_accumulator[layer] = max(peak, self.peak_accumulator.get(layer, 0))
            return q

        return watch


def refuse_unsupported(graph: Graph) -> None:
    """InputError naming the first operator that has no integer meaning here."""
    for node in graph.nodes:
        if node.op_type not in OPERATORS and node.op_type != "Constant":
            raise InputError(
                f"{graph.name}: operator {node.op_type} ({label(node)}) has no exact integer meaning; "
                f"the integer reference knows {', '.join(sorted(OPERATORS))}"
            )


def weight_bits(graph: Graph) -> dict[str, int]:
    """Bits that the integer weights of every convolution really use, by layer: 7 for -64..63, 8 beyond; 0 if float."""
    producers, bits = graph.producers(), {}
    for node in graph.nodes:
        if node.op_type not in ("Conv", "ConvTranspose", "Gemm"):
            continue
        dequantize = producers.get(node.input[1])
        if dequantize is None or dequantize.op_type != "DequantizeLinear":
            bits[label(node)] = 0
            continue
        source = dequantize.input[0]
        while source not in graph.constants:
            source = producers[source].input[0]
        w = graph.constants[source].astype(np.int64)
        bits[label(node)] = 1 + max(int(w.max(initial=0)).bit_length(), int((-w - 1).max(initial=0)).bit_length())
    return bits


def unfolded_weights(graph: Graph) -> list[str]:
    """Layers whose integer weights pass through another node (Clip) before DequantizeLinear: these run in float."""
    producers, found = graph.producers(), []
    for node in graph.nodes:
        if node.op_type in ("Conv", "ConvTranspose", "Gemm"):
            source = producers.get(node.input[1])
            if source is not None and source.op_type == "DequantizeLinear" and source.input[0] not in graph.constants:
                found.append(label(node))
    return found


def _from_input(graph: Graph, name: str, array: NDArray[Any]) -> Any:
    whole = np.rint(array).astype(np.int64)
    if not np.array_equal(whole, array):
        raise InputError(f"{graph.name}: input {name} holds fractions; the integer reference takes whole numbers")
    # An integer input is what a quantiser has written already: plain integers, not values.
    return whole if graph.input_type(name).kind in "iu" else Fixed(whole, np.int64(0))


def _as_float32(value: Any) -> NDArray[np.float32]:
    return value.to_float32() if isinstance(value, Fixed) else np.asarray(value).astype(np.float32)
