"""A float twin with fewer steps for a VPU to start: what costs a stage and changes no class of a cell is left out.

The Myriad's compiler makes a stage of its own of every Clip behind a ReLU, of a scale on the input, and of every bias
that no ReLU follows. The upper bound of a ReLU's quantiser is hardly ever reached; the scale goes into the weights of
the first convolution, that of the output into the last; the bounds at both ends are the host's, which makes the
integers that go in and rounds what comes out; a bias can be a column of weights.
"""

import numpy as np
import onnx
from onnx import helper, numpy_helper

from export.graphs.graph import attributes

#: What may lie between the convolutions of a network whose biases become a channel.
THROUGH = ("Conv", "Relu", "Add", "Resize")


def forms(model: onnx.ModelProto) -> dict[str, onnx.ModelProto]:
    """A float twin in the forms that compute the same, but for bounds that the host keeps."""
    short = fewer_stages(model)
    channel = bias_as_channel(short)
    return {"bounds left out": short} | ({"bounds left out, biases as a channel": channel} if channel else {})


def fewer_stages(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model without bounds behind its ReLUs and at its ends, and without scales at its ends."""
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    _drop_bounds(changed.graph)
    _fold_input_scales(changed.graph)
    _fold_output_scales(changed.graph)
    return _tidied(changed)


def bias_as_channel(model: onnx.ModelProto) -> onnx.ModelProto | None:
    """The model with one more channel that is 1 everywhere, and biases that no ReLU follows as its weights.

    None where that saves nothing or the network does not let it: it must be convolutions, ReLUs, sums and up-sampling
    from one input to one output, and a sum must add the result of a convolution to what a ReLU gave.
    """
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    graph = changed.graph
    if len(graph.input) != 1 or len(graph.output) != 1 or any(n.op_type not in THROUGH for n in graph.node):
        return None
    if not any(_bias_alone(graph, node) for node in graph.node) or not _sums_fit(graph):
        return None
    for node in [n for n in graph.node if n.op_type == "Conv"]:
        _widen(graph, node)
    return _tidied(changed)


def _tidied(model: onnx.ModelProto) -> onnx.ModelProto:
    graph = model.graph
    used = {name for node in graph.node for name in node.input}
    kept = [tensor for tensor in graph.initializer if tensor.name in used]
    del graph.initializer[:], graph.value_info[:]
    graph.initializer.extend(kept)
    onnx.checker.check_model(model, full_check=True)
    return model


def _drop_bounds(graph: onnx.GraphProto) -> None:
    """relu -> Clip(0, high): the ReLU alone. A Clip that is the first or the last step goes, too."""
    relus = {node.output[0] for node in graph.node if node.op_type == "Relu"}
    inputs, constants = {value.name for value in graph.input}, _constants(graph)
    for node in [n for n in graph.node if n.op_type == "Clip"]:
        lower = constants.get(node.input[1]) if len(node.input) > 1 else None
        behind = node.input[0] in relus and lower is not None and (lower <= 0).all()
        if behind or node.input[0] in inputs or _is_output(graph, node.output[0]):
            _leave_out(graph, node)


def _fold_input_scales(graph: onnx.GraphProto) -> None:
    """input x constant -> convolutions: the constant goes into their weights."""
    constants, inputs = _constants(graph), {value.name for value in graph.input}
    for node in [n for n in graph.node if n.op_type == "Mul" and n.input[0] in inputs]:
        factor = constants.get(node.input[1])
        readers = [n for n in graph.node if node.output[0] in n.input]
        if factor is None or factor.size != 1 or any(n.op_type != "Conv" for n in readers):
            continue
        for reader in readers:
            _set(graph, reader, 1, constants[reader.input[1]] * factor.reshape(()))
        _leave_out(graph, node)


def _fold_output_scales(graph: onnx.GraphProto) -> None:
    """convolution -> x constant = output: the constant goes into its weights and its bias."""
    constants, makers = _constants(graph), {node.output[0]: node for node in graph.node}
    for node in [n for n in graph.node if n.op_type == "Mul" and _is_output(graph, n.output[0])]:
        factor, maker = constants.get(node.input[1]), makers.get(node.input[0])
        if factor is None or factor.size != 1 or maker is None or maker.op_type != "Conv":
            continue
        for place in range(1, len(maker.input)):
            _set(graph, maker, place, constants[maker.input[place]] * factor.reshape(()))
        _leave_out(graph, node)


def _bias_alone(graph: onnx.GraphProto, node: onnx.NodeProto) -> bool:
    return node.op_type == "Conv" and len(node.input) > 2 and not _into_relu(graph, node)


def _into_relu(graph: onnx.GraphProto, node: onnx.NodeProto) -> bool:
    return any(n.op_type == "Relu" and n.input[0] == node.output[0] for n in graph.node)


def _sums_fit(graph: onnx.GraphProto) -> bool:
    """Whether each sum adds a 0 of the new channel, a convolution's, to a 1, a ReLU's: the 1 then goes on."""
    makers = {node.output[0]: node for node in graph.node}

    def one(name: str) -> bool:
        maker = makers[name]
        return one(maker.input[0]) if maker.op_type == "Resize" else maker.op_type == "Relu"

    sums = [node for node in graph.node if node.op_type == "Add"]
    known = all(name in makers for node in sums for name in node.input)
    return known and all(sorted(map(one, node.input)) == [False, True] for node in sums)


def _widen(graph: onnx.GraphProto, node: onnx.NodeProto) -> None:
    """One more channel through a convolution: 1 where a ReLU follows, else 0 with the bias as its column."""
    constants, into_relu = _constants(graph), _into_relu(graph, node)
    weights = constants[node.input[1]]
    bias = constants[node.input[2]] if len(node.input) > 2 else np.zeros(len(weights), np.float32)
    first, last = node.input[0] == graph.input[0].name, _is_output(graph, node.output[0])
    if attributes(node).get("group", 1) > 1:
        weights, bias = np.concatenate([weights, np.zeros_like(weights[:1])]), np.append(bias, np.float32(1))
        next(a for a in node.attribute if a.name == "group").i += 1
    else:
        if not first:
            column = np.zeros_like(weights[:, :1])
            middle = tuple(side // 2 for side in weights.shape[2:])
            column[(slice(None), 0, *middle)] = 0 if into_relu else bias
            weights = np.concatenate([weights, column], axis=1)
        if not last:
            weights, bias = (
                np.concatenate([weights, np.zeros_like(weights[:1])]),
                np.append(bias, np.float32(into_relu)),
            )
    _set(graph, node, 1, weights)
    if into_relu or first:
        _set(graph, node, 2, bias)
    else:
        del node.input[2:]


def _is_output(graph: onnx.GraphProto, name: str) -> bool:
    return name in {value.name for value in graph.output}


def _set(graph: onnx.GraphProto, node: onnx.NodeProto, place: int, array: np.ndarray) -> None:
    """A constant of its own for one input of a node."""
    name = f"{node.name or node.output[0]}_constant{place}"
    for former in [t for t in graph.initializer if t.name == name]:
        graph.initializer.remove(former)
    graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(array, np.float32), name))
    if place < len(node.input):
        node.input[place] = name
    else:
        node.input.append(name)


def _leave_out(graph: onnx.GraphProto, node: onnx.NodeProto) -> None:
    """Whoever read the node reads its input; an output keeps its name."""
    source, made = node.input[0], node.output[0]
    graph.node.remove(node)
    if not _is_output(graph, made):
        _read_instead(graph, made, source)
        return
    maker = next((n for n in graph.node if source in n.output), None)
    if maker is None:  # nothing else lies between input and output
        graph.node.append(helper.make_node("Identity", [source], [made], name=f"{made}_out"))
        return
    _read_instead(graph, source, made)
    maker.output[0] = made


def _read_instead(graph: onnx.GraphProto, former: str, name: str) -> None:
    for node in graph.node:
        node.input[:] = [name if i == former else i for i in node.input]


def _constants(graph: onnx.GraphProto) -> dict[str, np.ndarray]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
