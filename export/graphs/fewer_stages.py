"""A float twin with fewer steps for a VPU to start: what costs a stage and changes no class of a cell is left out.

The Myriad's compiler makes a stage of its own of every Clip behind a ReLU and of a scale on the input. The upper bound
of a ReLU's quantiser is hardly ever reached, and the scale goes into the weights of the first convolution.
"""

import numpy as np
import onnx
from onnx import numpy_helper


def fewer_stages(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model without upper bounds behind its ReLUs and without a scale on its inputs; outputs keep their range."""
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    _drop_upper_bounds(changed.graph)
    _fold_input_scales(changed.graph)
    used = {name for node in changed.graph.node for name in node.input}
    kept = [tensor for tensor in changed.graph.initializer if tensor.name in used]
    del changed.graph.initializer[:], changed.graph.value_info[:]
    changed.graph.initializer.extend(kept)
    onnx.checker.check_model(changed, full_check=True)
    return changed


def _drop_upper_bounds(graph: onnx.GraphProto) -> None:
    """relu -> Clip(0, high): the ReLU alone."""
    relus = {node.output[0] for node in graph.node if node.op_type == "Relu"}
    outputs, constants = {value.name for value in graph.output}, _constants(graph)
    kept = []
    for node in graph.node:
        lower = constants.get(node.input[1]) if len(node.input) > 1 else None
        behind = node.op_type == "Clip" and node.input[0] in relus and node.output[0] not in outputs
        if behind and lower is not None and (lower <= 0).all():
            _read_instead(graph, node.output[0], node.input[0])
        else:
            kept.append(node)
    del graph.node[:]
    graph.node.extend(kept)


def _fold_input_scales(graph: onnx.GraphProto) -> None:
    """input x constant -> convolutions: the constant goes into their weights."""
    constants, inputs = _constants(graph), {value.name for value in graph.input}
    for node in [n for n in graph.node if n.op_type == "Mul" and n.input[0] in inputs]:
        factor = constants.get(node.input[1])
        readers = [n for n in graph.node if node.output[0] in n.input]
        if factor is None or factor.size != 1 or any(n.op_type != "Conv" for n in readers):
            continue
        for reader in readers:
            scaled = f"{reader.input[1]}_scaled"
            weights = np.ascontiguousarray(constants[reader.input[1]] * factor.reshape(()))
            graph.initializer.append(numpy_helper.from_array(weights.astype(np.float32), scaled))
            reader.input[1] = scaled
        _read_instead(graph, node.output[0], node.input[0])
        graph.node.remove(node)


def _read_instead(graph: onnx.GraphProto, former: str, name: str) -> None:
    for node in graph.node:
        node.input[:] = [name if i == former else i for i in node.input]


def _constants(graph: onnx.GraphProto) -> dict[str, np.ndarray]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
