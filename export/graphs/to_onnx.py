"""A trained po2w7 network -> an ONNX file every runtime computes bit for bit alike.

Takes a Brevitas network (export/graphs/qat_layers.py), gives a QCDQ `.onnx`: QuantizeLinear / DequantizeLinear round
integer weights. Two passes follow the exporter, because left alone the result runs in FP32 with equal results, so that
nothing reveals it: the Clip that narrow-range weights carry is folded into the constant, and an integer input replaces
the float input and its quantiser. `check_po2w7` then refuses whatever would not be exact.
"""

import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from export.graphs.graph import PX_PER_SAMPLE
from payload.errors import InputError

OPSET = 17
WEIGHT_LIMIT = 63  # 7 bits, narrow range
#: Initialisers larger than this are stored in fewer octets and widened when the network is loaded.
SHORTER_ABOVE = 1024


def export_qcdq(
    model: torch.nn.Module,
    example: torch.Tensor | Sequence[torch.Tensor],
    path: Path,
    names: tuple[Sequence[str], Sequence[str]] = (("tile",), ("logits",)),
    free_axes: Sequence[int] = (),
    integer_inputs: bool = False,
    integer_outputs: bool = False,
    px_per_sample: int = 1,
) -> onnx.ModelProto:
    """Writes `model` to `path` as QCDQ and returns it. InputError if it breaks the recipe or its results differ.

    `example`: input(s) the traced shapes come from; axes in `free_axes` stay symbolic. `names`: inputs, outputs.
    `integer_inputs`, `integer_outputs`: the file takes, gives u8 / s8 arrays instead of floats. `px_per_sample`: pixels
    of the tile along one sample of the input, kept in the file's metadata.
    """
    examples = (example,) if isinstance(example, torch.Tensor) else tuple(example)
    exported = fold_weight_clip(_trace(model, examples, names, free_axes))
    check_po2w7(exported)
    _compare(model, examples, exported)
    if integer_inputs:
        exported = take_integers(exported)
    if integer_outputs:
        exported = give_integers(exported)
    if px_per_sample > 1:
        exported.metadata_props.add(key=PX_PER_SAMPLE, value=str(px_per_sample))
    onnx.checker.check_model(exported, full_check=True)
    partial = path.with_suffix(".partial")
    onnx.save(exported, str(partial))
    partial.replace(path)
    return exported


def _trace(
    model: torch.nn.Module,
    examples: tuple[torch.Tensor, ...],
    names: tuple[Sequence[str], Sequence[str]],
    free: Sequence[int],
) -> onnx.ModelProto:
    from brevitas.export import export_onnx_qcdq

    axes = {name: {a: f"{name}_{a}" for a in free} for group in names for name in group} if free else None
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # tracer chatter about constants; the results are compared below
        file = Path(folder) / "network.onnx"
        export_onnx_qcdq(
            model.eval(), args=examples, export_path=str(file), opset_version=OPSET, dynamo=False,
            input_names=list(names[0]), output_names=list(names[1]), dynamic_axes=axes,
        )  # fmt: skip
        return onnx.load(str(file))


def fold_weight_clip(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with every `constant -> Clip -> DequantizeLinear` turned into `clipped constant -> DequantizeLinear`.

    Constant nodes become initialisers on the way; what nobody reads is dropped.
    """
    folded = onnx.ModelProto()
    folded.CopyFrom(model)
    graph = folded.graph
    constants = _constants_to_initialisers(graph)
    kept = []
    for node in graph.node:
        if node.op_type != "Clip" or any(name and name not in constants for name in node.input):
            kept.append(node)
            continue
        low, high = (constants.get(name) for name in (*node.input[1:], "", "")[:2])
        value = np.clip(constants[node.input[0]], low, high)
        constants[node.output[0]] = value
        graph.initializer.append(numpy_helper.from_array(value, node.output[0]))
    _replace_nodes(graph, kept)
    return folded


def take_integers(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with `float input -> QuantizeLinear` replaced by an input of the quantised type."""
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    graph = changed.graph
    constants = _initialisers(graph)
    for value in graph.input:
        readers = [node for node in graph.node if value.name in node.input]
        if len(readers) != 1 or readers[0].op_type != "QuantizeLinear":
            raise InputError(f"input {value.name} feeds {[n.op_type for n in readers]}, wanted one QuantizeLinear")
        zero = constants[readers[0].input[2]]
        value.type.tensor_type.elem_type = helper.np_dtype_to_tensor_dtype(zero.dtype)
        for node in graph.node:
            for i, name in enumerate(node.input):
                if name == readers[0].output[0]:
                    node.input[i] = value.name
        graph.node.remove(readers[0])
    _replace_nodes(graph, list(graph.node))
    return changed


def give_integers(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with `DequantizeLinear -> float output` replaced by an output of the quantised type."""
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    graph = changed.graph
    constants = _initialisers(graph)
    for value in graph.output:
        maker = next(node for node in graph.node if value.name in node.output)
        if maker.op_type != "DequantizeLinear":
            raise InputError(f"output {value.name} comes from {maker.op_type}, wanted DequantizeLinear")
        zero, raw = constants[maker.input[2]], maker.input[0]
        value.type.tensor_type.elem_type = helper.np_dtype_to_tensor_dtype(zero.dtype)
        graph.node.remove(maker)
        for node in graph.node:
            node.output[:] = [value.name if name == raw else name for name in node.output]
    _replace_nodes(graph, list(graph.node))
    return changed


def check_po2w7(model: onnx.ModelProto) -> None:
    """InputError unless every convolution has 7-bit constant weights and every scale is a power of two."""
    constants = _initialisers(model.graph)
    makers = {name: node for node in model.graph.node for name in node.output}
    for node in model.graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            _check_scale(node, constants)
        if node.op_type in ("Conv", "ConvTranspose", "Gemm", "MatMul"):
            source = makers.get(node.input[1])
            weights = constants.get(source.input[0]) if source and source.op_type == "DequantizeLinear" else None
            if weights is None or weights.dtype != np.int8:
                raise InputError(f"{node.name}: weights are not an int8 constant; it would run in float")
            if np.abs(weights.astype(np.int16)).max() > WEIGHT_LIMIT:
                raise InputError(f"{node.name}: weights beyond +-{WEIGHT_LIMIT}; 8-bit weights need VNNI to be exact")


def _check_scale(node: onnx.NodeProto, constants: dict[str, NDArray[Any]]) -> None:
    scale = constants.get(node.input[1])
    if scale is None or not np.array_equal(np.exp2(np.round(np.log2(scale))), scale):
        raise InputError(f"{node.name}: its scale is not a constant power of two; runtimes would differ")


def _compare(model: torch.nn.Module, examples: tuple[torch.Tensor, ...], exported: onnx.ModelProto) -> None:
    """InputError unless ONNX Runtime gives exactly what torch gives on the examples."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(exported.SerializeToString(), options, providers=["CPUExecutionProvider"])
    feeds = {value.name: example.numpy() for value, example in zip(session.get_inputs(), examples, strict=True)}
    found = session.run(None, feeds)
    with torch.no_grad():
        wanted = model.eval()(*examples)
    wanted = (wanted,) if isinstance(wanted, torch.Tensor) else wanted
    for name, a, b in zip((v.name for v in exported.graph.output), found, wanted, strict=True):
        different = int((a != b.numpy()).sum())
        if different:
            raise InputError(f"output {name}: {different} of {a.size} values differ between torch and ONNX Runtime")


def _initialisers(graph: onnx.GraphProto) -> dict[str, NDArray[Any]]:
    return {t.name: numpy_helper.to_array(t) for t in graph.initializer}


def _constants_to_initialisers(graph: onnx.GraphProto) -> dict[str, NDArray[Any]]:
    for node in [n for n in graph.node if n.op_type == "Constant"]:
        value = next((a.t for a in node.attribute if a.name == "value"), None)
        if value is None:
            continue
        tensor = TensorProto()
        tensor.CopyFrom(value)
        tensor.name = node.output[0]
        graph.initializer.append(tensor)
        graph.node.remove(node)
    return _initialisers(graph)


def _replace_nodes(graph: onnx.GraphProto, nodes: list[onnx.NodeProto]) -> None:
    """Sets the node list, then drops initialisers nobody reads."""
    nodes = list(nodes)
    del graph.node[:]
    graph.node.extend(nodes)
    read = {name for node in nodes for name in node.input} | {v.name for v in graph.output}
    used = [t for t in graph.initializer if t.name in read]
    del graph.initializer[:]
    graph.initializer.extend(used)


def half_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with large f32 initialisers stored as f16 behind a Cast; runtimes fold it when they load."""
    graph = model.graph
    casts = []
    for tensor in [t for t in graph.initializer if t.data_type == TensorProto.FLOAT]:
        values = numpy_helper.to_array(tensor)
        if values.size <= SHORTER_ABOVE:
            continue
        half: NDArray[Any] = values.astype(np.float16)
        graph.initializer.remove(tensor)
        graph.initializer.append(numpy_helper.from_array(half, tensor.name + "_half"))
        casts.append(helper.make_node("Cast", [tensor.name + "_half"], [tensor.name], to=TensorProto.FLOAT))
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    onnx.checker.check_model(model)
    return model


def octet_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with large weights of convolutions stored as i8, with a scale for each channel that they give."""
    graph = model.graph
    scaled = []
    for tensor in [t for t in graph.initializer if t.data_type == TensorProto.FLOAT and len(t.dims) == 4]:
        values = numpy_helper.to_array(tensor)
        if values.size <= SHORTER_ABOVE:
            continue
        scales = (np.maximum(np.abs(values).max(axis=(1, 2, 3)), 1e-12) / 127.0).astype(np.float32)
        octets = np.round(values / scales[:, None, None, None]).astype(np.int8)
        parts = {"_octets": octets, "_scales": scales, "_zeros": np.zeros(len(scales), np.int8)}
        graph.initializer.remove(tensor)
        graph.initializer.extend(numpy_helper.from_array(part, tensor.name + name) for name, part in parts.items())
        given = [tensor.name + name for name in parts]
        scaled.append(helper.make_node("DequantizeLinear", given, [tensor.name], axis=0))
    nodes = [*scaled, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    onnx.checker.check_model(model)
    return model
