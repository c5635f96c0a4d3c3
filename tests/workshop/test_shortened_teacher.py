"""The teacher's file as where the ground's network begins: folding, places, and the bridge over what is left out."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from export.clouds import shortened
from export.clouds.ground_network import BRIDGE, STAGES, GroundUnet, as_seen
from export.clouds.teacher import teacher_file
from payload.clouds.mask import SHADOW, THICK, THIN
from payload.errors import InputError

RECIPE = {"pictures": 24, "ridge": 1e-2, "seed": 0}


def test_a_normalisation_is_folded_into_the_convolution_before_it() -> None:
    rng = np.random.default_rng(0)
    names = ("gain", "shift", "mean", "variance")
    values = {"model.a.weight": rng.normal(size=(3, 2, 3, 3))} | {n: rng.uniform(0.5, 2.0, 3) for n in names}
    norm = helper.make_node("BatchNormalization", ["middle", *names], ["y"], epsilon=1e-3)
    graph = helper.make_graph(
        [helper.make_node("Conv", ["x", "model.a.weight"], ["middle"]), norm], "toy",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 2, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 3, 6, 6])],
        [numpy_helper.from_array(v.astype(np.float32), n) for n, v in values.items()],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    folded = shortened._folded(model)
    assert list(folded) == ["a"]
    x = rng.normal(size=(1, 2, 8, 8)).astype(np.float32)
    (wanted,) = onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"x": x})
    found = torch.nn.functional.conv2d(*(torch.from_numpy(v) for v in (x, *folded["a"])))
    np.testing.assert_allclose(found.numpy(), wanted, atol=1e-5)


def test_another_network_is_refused_in_one_line(tmp_path: Path) -> None:
    graph = helper.make_graph([], "none", [], [])
    onnx.save(helper.make_model(graph), str(tmp_path / "other.onnx"))
    with pytest.raises(InputError, match="not the network of ukis-csmask"):
        shortened.shorten(tmp_path / "other.onnx", np.zeros((1, 4, 128, 128), np.uint16), RECIPE)


@pytest.fixture(scope="module")
def model() -> onnx.ModelProto:
    try:
        return onnx.load(str(teacher_file("L2A")))
    except InputError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def seen() -> torch.Tensor:
    rng = np.random.default_rng(3)
    ground = rng.uniform(300.0, 4000.0, (4, 16, 16)).repeat(16, 1).repeat(16, 2)
    return as_seen(torch.from_numpy(ground.astype(np.float32))[None])


def asked(model: onnx.ModelProto, seen: torch.Tensor, *names: str) -> list[np.ndarray]:
    with_more = onnx.ModelProto()
    with_more.CopyFrom(model)
    with_more.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in names)
    session = onnxruntime.InferenceSession(with_more.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(list(names) or None, {"input": seen.numpy()})  # type: ignore[no-any-return]


def test_the_way_down_and_up_are_the_teacher_s(model: onnx.ModelProto, seen: torch.Tensor) -> None:
    """Given what the teacher's lowest levels give, the network tells what the teacher tells, in its half precision."""
    network = GroundUnet()
    network.load_state_dict(shortened._as_ours(shortened._folded(model)), strict=False)
    lowest, level, told = asked(model, seen, "/model/encoder/_blocks.15/Add_output_0", shortened.LOWEST, "output")
    with torch.no_grad():
        x, passed = network.down(seen)
        np.testing.assert_allclose(x.numpy(), lowest, atol=0.01 * np.abs(lowest).max())
        x = torch.from_numpy(level).float()
        for step, beside in zip(network.up, passed, strict=True):
            x = step(x, beside)
        logits = network.head(x).numpy()
    np.testing.assert_allclose(logits[:, [0, THICK, SHADOW]], told, atol=0.01 * np.abs(told).max())
    np.testing.assert_allclose(logits[:, THIN], logits[:, THICK] - shortened.THIN_LESS, atol=1e-3)


def test_the_bridge_gives_about_what_it_stands_for(model: onnx.ModelProto, seen: torch.Tensor) -> None:
    rng = np.random.default_rng(4)
    windows = rng.uniform(300.0, 4000.0, (12, 4, 8, 8)).repeat(16, 2).repeat(16, 3).astype(np.uint16)
    network = shortened.shorten(teacher_file("L2A"), windows, RECIPE)
    assert network.bridge.weight.shape == (BRIDGE, STAGES[-1].given, 3, 3)
    (wanted,) = asked(model, seen, shortened.LOWEST)
    with torch.no_grad():
        found = torch.relu(network.bridge(network.down(seen)[0])).numpy()
    left = np.square(found - wanted).mean() / np.square(wanted - wanted.mean((0, 2, 3), keepdims=True)).mean()
    assert left < 1.0  # closer than every channel's own mean
