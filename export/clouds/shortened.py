"""The teacher's file -> the ground's network (ground_network.py).

Its batch normalisation is folded into the convolutions. Where the lowest levels were taken away, a convolution gives
what they gave, as well as one can: by least squares over training windows. Nothing else is fitted or taught.
"""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray
from onnx import numpy_helper
from torch import Tensor, nn
from torch.nn import functional

from export.clouds.ground_network import BRIDGE, STAGES, UP, GroundUnet, as_seen
from payload.clouds.mask import CLASSES, CLEAR, SHADOW, THICK, THIN
from payload.errors import InputError

F32 = NDArray[np.float32]
#: Where the teacher's file has what its lowest levels give, as the bridge must.
LOWEST = "/model/decoder/blocks.0/conv2/conv2.2/Relu_output_0"
#: Parts of a block, ours and theirs.
PARTS = {
    "expand": "_expand_conv", "depthwise": "_depthwise_conv", "squeeze": "_se_reduce", "excite": "_se_expand",
    "project": "_project_conv",
}  # fmt: skip
#: Place in payload.clouds.mask.CLASSES -> the teacher's clear, cloud, shadow; it tells no thin cloud.
THEIRS = {CLEAR: 0, THICK: 1, THIN: 1, SHADOW: 2}
#: By how much less likely thin cloud is at first, in logits.
THIN_LESS = 3.0


def shorten(path: Path, windows: NDArray[np.uint16], recipe: dict[str, Any]) -> GroundUnet:
    """The network out of the teacher's file. `windows`: DN of cells [N, 4, 128, 128], what the bridge may be fitted to;
    `recipe`: export/recipes/ground-clouds.toml. InputError where the file holds another network."""
    model, network = onnx.load(str(path)), GroundUnet()
    bridge = {name: value for name, value in network.state_dict().items() if name.startswith("bridge")}
    try:
        network.load_state_dict(_as_ours(_folded(model)) | bridge)
    except (KeyError, RuntimeError) as error:
        raise InputError(f"{path}: not the network of ukis-csmask 1.0.0 for four bands ({str(error)[:80]})") from None
    _fit_bridge(network, model, windows, recipe)
    return network


def _folded(model: onnx.ModelProto) -> dict[str, tuple[F32, F32]]:
    """Every convolution's weights and bias with the normalisation that follows it."""
    values = {t.name: numpy_helper.to_array(t).astype(np.float32) for t in model.graph.initializer}
    given = {node.output[0]: node for node in model.graph.node}
    found = {}
    for node in model.graph.node:
        if node.op_type == "Conv" and len(node.input) == 3:
            found[node.input[1]] = values[node.input[1]], values[node.input[2]]
        if node.op_type == "BatchNormalization":
            gain, shift, mean, variance = (values[name] for name in node.input[1:5])
            (epsilon,) = (a.f for a in node.attribute if a.name == "epsilon")
            name, scale = given[node.input[0]].input[1], gain / np.sqrt(variance + epsilon)
            found[name] = values[name] * scale[:, None, None, None], shift - mean * scale
    return {name.removeprefix("model.").removesuffix(".weight"): both for name, both in found.items()}


def _as_ours(theirs: dict[str, tuple[F32, F32]]) -> dict[str, Tensor]:
    """State of the network but for its bridge."""
    ours = {"stem": theirs["encoder._conv_stem"]}
    places = [(i, j) for i, stage in enumerate(STAGES) for j in range(stage.blocks)]
    for number, (i, j) in enumerate(places):
        for part, name in PARTS.items():
            if part != "expand" or STAGES[i].wider > 1:
                ours[f"stages.{i}.{j}.{part}"] = theirs[f"encoder._blocks.{number}.{name}"]
    for i in range(len(UP)):
        for part, name in (("first", "conv1.0"), ("second", "conv2.0")):
            ours[f"up.{i}.{part}"] = theirs[f"decoder.blocks.{i + 1}.{name}"]
    weights, bias = theirs["segmentation_head.0"]
    places_of = [THEIRS[place] for place in range(len(CLASSES))]
    ours["head"] = weights[places_of], bias[places_of] - THIN_LESS * (np.arange(len(CLASSES)) == THIN)
    named = {"weight": 0, "bias": 1}
    return {
        f"{name}.{kind}": torch.from_numpy(np.array(both[place], np.float32))
        for name, both in ours.items() for kind, place in named.items()
    }  # fmt: skip


def _fit_bridge(network: GroundUnet, model: onnx.ModelProto, windows: NDArray[Any], recipe: dict[str, Any]) -> None:
    """The bridge gives of the network's lowest level what the teacher's lowest levels give, by least squares."""
    model.graph.output.append(onnx.helper.make_empty_tensor_value_info(LOWEST))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    teacher = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    terms = network.bridge.weight[0].numel() + 1
    squares, products = (torch.zeros(terms, n, dtype=torch.float64) for n in (terms, BRIDGE))
    rng = np.random.default_rng(recipe["seed"])
    for _ in range(recipe["pictures"]):
        a, b, c, d = windows[rng.choice(len(windows), 4)].astype(np.float32)
        seen = as_seen(torch.from_numpy(np.block([[a, b], [c, d]]))[None])
        (wanted,) = teacher.run([LOWEST], {"input": seen.numpy()})
        with torch.no_grad():
            lowest, _ = network.down(seen)
        columns = functional.pad(functional.unfold(lowest, 3, padding=1)[0], (0, 0, 0, 1), value=1.0).double()
        squares += columns @ columns.T
        products += columns @ torch.from_numpy(wanted[0]).double().flatten(1).T
    held = recipe["ridge"] * squares.diagonal().mean() * torch.eye(terms)
    solved = torch.linalg.solve(squares + held, products).T.float()
    _put(network.bridge, solved[:, :-1].reshape(BRIDGE, -1, 3, 3), solved[:, -1])


def _put(layer: nn.Conv2d, weights: Tensor, bias: Tensor) -> None:
    with torch.no_grad():
        layer.weight.copy_(weights)
        layer.bias.copy_(bias)  # type: ignore[union-attr]
