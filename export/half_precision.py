"""FP16 in simulation: what a VPU does to the latents, and what that costs, before any device is at hand.

Takes a float network, gives the same network with every tensor and weight rounded to FP16 (storage in FP16, sums in
f32: the kinder of the two things a VPU may do). Index agreement and PSNR cost compare it with the INT8 reference.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from export.feeders import Feeder
from payload.errors import InputError

#: Latents to integer indices, and back to latents: what the codec's quantiser does at one step.
ToIndices = Callable[[list[NDArray[Any]]], NDArray[np.int64]]
FromIndices = Callable[[NDArray[np.int64]], NDArray[np.float64]]


@dataclass(frozen=True)
class Agreement:
    """FP16 against the INT8 reference over some tiles. `psnr_cost_db`: how much worse the FP16 indices rebuild the
    reference's own latents than the reference's indices do."""

    tiles: int
    indices: int
    differing: int
    largest_index_difference: int
    psnr_cost_db: float
    latent_snr_db: float

    @property
    def agreement_percent(self) -> float:
        return 100.0 * (1 - self.differing / self.indices) if self.indices else 100.0


def in_half_precision(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with f32 weights rounded to FP16 and every float result passed through FP16."""
    half = onnx.ModelProto()
    half.CopyFrom(model)
    for tensor in half.graph.initializer:
        array = numpy_helper.to_array(tensor)
        if array.dtype == np.float32:
            tensor.CopyFrom(numpy_helper.from_array(_rounded(tensor.name, array), tensor.name))
    rounded: dict[str, str] = {}
    nodes = []
    for value in half.graph.input:
        nodes += _through_half(value.name, rounded)
    outputs = {value.name for value in half.graph.output}
    for node in half.graph.node:
        node.input[:] = [rounded.get(n, n) for n in node.input]
        exact = node.output[0]
        if exact in outputs:  # the name stays with the rounded value
            node.output[0] = f"{exact}_exact"
        nodes.append(node)
        nodes += _through_half(node.output[0], rounded, exact if exact in outputs else None)
        rounded[exact] = rounded.pop(node.output[0])
    del half.graph.node[:]
    half.graph.node.extend(nodes)
    del half.graph.value_info[:]
    onnx.checker.check_model(half, full_check=True)
    return half


def open_half(model: onnx.ModelProto) -> Callable[..., list[NDArray[Any]]]:
    """A function that runs the FP16 simulation. Graph optimisation is off: it would cancel the casts."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    octets = in_half_precision(model).SerializeToString()
    session = onnxruntime.InferenceSession(octets, options, providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_inputs()]

    def run(*arrays: NDArray[Any]) -> list[NDArray[Any]]:
        feeds = {n: np.asarray(a, np.float32) for n, a in zip(names, arrays, strict=True)}
        return list(session.run(None, feeds))

    return run


def compare(
    reference: Callable[..., list[NDArray[Any]]],
    half: Callable[..., list[NDArray[Any]]],
    feeder: Feeder,
    tiles: int,
    to_indices: ToIndices,
    from_indices: FromIndices,
    to_latents: Callable[[list[NDArray[Any]]], NDArray[Any]],
) -> Agreement:
    """Index agreement and PSNR cost of `half` over the feeder's first tiles."""
    if tiles < 1:
        raise InputError(f"comparing over {tiles} tiles; give at least 1")
    count = differing = largest = 0
    error_reference = error_half = noise = power = 0.0
    for tile in range(tiles):
        arrays = feeder.arrays(tile)
        exact, rounded = reference(*arrays), half(*arrays)
        latents, approximate = to_latents(exact).astype(np.float64), to_latents(rounded).astype(np.float64)
        wanted, found = to_indices(exact), to_indices(rounded)
        difference = np.abs(wanted - found)
        count, differing = count + difference.size, differing + int(np.count_nonzero(difference))
        largest = max(largest, int(difference.max(initial=0)))
        error_reference += float(np.square(from_indices(wanted) - latents).sum())
        error_half += float(np.square(from_indices(found) - latents).sum())
        noise, power = noise + float(np.square(approximate - latents).sum()), power + float(np.square(latents).sum())
    cost = 10 * np.log10(error_half / error_reference) if error_reference > 0 else 0.0
    snr = 10 * np.log10(power / noise) if noise > 0 else float("inf")
    return Agreement(tiles, count, differing, largest, float(cost), float(snr))


def uniform_quantiser(step: float) -> tuple[ToIndices, FromIndices, Callable[[list[NDArray[Any]]], NDArray[Any]]]:
    """Every output divided by `step` and rounded half to even: to indices, back, and the latents themselves."""

    def latents(outputs: list[NDArray[Any]]) -> NDArray[Any]:
        return np.concatenate([np.asarray(o).ravel() for o in outputs])

    def to_indices(outputs: list[NDArray[Any]]) -> NDArray[np.int64]:
        return np.rint(latents(outputs).astype(np.float64) / step).astype(np.int64)

    return to_indices, lambda indices: indices * step, latents


def _rounded(name: str, array: NDArray[np.float32]) -> NDArray[np.float32]:
    half = array.astype(np.float16).astype(np.float32)
    if not np.all(np.isfinite(half)):
        raise InputError(f"constant {name} reaches {np.abs(array).max():g}, FP16 ends at 65504; scale the network down")
    return half


def _through_half(name: str, rounded: dict[str, str], keep: str | None = None) -> list[onnx.NodeProto]:
    half, back = f"{name}_half", keep or f"{name}_rounded"
    rounded[name] = back
    return [
        helper.make_node("Cast", [name], [half], to=TensorProto.FLOAT16, name=half),
        helper.make_node("Cast", [half], [back], to=TensorProto.FLOAT, name=f"{name}_cast_back"),
    ]
