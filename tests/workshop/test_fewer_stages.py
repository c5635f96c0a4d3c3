"""Fewer stages for a VPU: bounds and scales that cost one go, biases become a channel, what comes out stays."""

import numpy as np
import onnx
import onnxruntime

from export.devices.to_myriad import float_twin
from export.graphs.fewer_stages import bias_as_channel, fewer_stages
from export.graphs.graph import load_graph, total_macs
from payload.bundle import load_bundle


def run(model: onnx.ModelProto, array: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {session.get_inputs()[0].name: array})[0])


def test_the_cloud_network_loses_its_clips_and_its_scales() -> None:
    bundle = load_bundle("edge")
    twin = float_twin(bundle.file("flight/clouds.onnx"), bundle.tile_px, bundle.tile_px)
    short = fewer_stages(twin)
    assert {node.op_type for node in short.graph.node} == {"Conv", "Relu", "Add", "Resize"}
    assert {t.name for t in short.graph.initializer} <= {i for n in short.graph.node for i in n.input}


def test_the_cloud_network_with_its_biases_as_a_channel_gives_the_same_for_3_percent_more() -> None:
    bundle = load_bundle("edge")
    twin = float_twin(bundle.file("flight/clouds.onnx"), bundle.tile_px, bundle.tile_px)
    short = fewer_stages(twin)
    channel = bias_as_channel(short)
    assert channel is not None
    x = np.random.default_rng(5).integers(0, 256, (1, 8, 128, 128)).astype(np.float32)
    wanted = run(short, x)
    np.testing.assert_allclose(run(channel, x), wanted, atol=1e-4 * np.abs(wanted).max())
    biases = [n for n in channel.graph.node if n.op_type == "Conv" and len(n.input) > 2]
    relus = {n.input[0] for n in channel.graph.node if n.op_type == "Relu"}
    assert all(n.output[0] in relus for n in biases)
    assert 1 < total_macs(load_graph(channel)) / total_macs(load_graph(short)) < 1.03


def test_sums_that_would_not_carry_the_one_are_left_alone(qcdq, tmp_path) -> None:
    """Two convolutions added: 0 + 0. And a network that is more than convolutions, ReLUs, sums and up-sampling."""
    b, rng = qcdq(), np.random.default_rng(3)
    w = [b.constant(rng.normal(size=(2, 2, 1, 1)).astype(np.float32)) for _ in range(2)]
    bias = b.constant(np.float32([1, 2]))
    total = b.node("Add", b.node("Conv", "x", w[0], bias), b.node("Conv", "x", w[1], bias))
    path = b.save(tmp_path / "n.onnx", {"x": (1, 2, 4, 4)}, {total: (1, 2, 4, 4)}, opset=13)
    assert bias_as_channel(onnx.load(str(path))) is None
    b = qcdq()
    y = b.node("MaxPool", b.node("Conv", "x", b.constant(np.ones((2, 2, 1, 1), np.float32))), kernel_shape=[2, 2])
    path = b.save(tmp_path / "p.onnx", {"x": (1, 2, 4, 4)}, {y: (1, 2, 3, 3)}, opset=13)
    assert bias_as_channel(onnx.load(str(path))) is None


def test_what_comes_out_is_the_same_where_no_bound_is_reached(qcdq, tmp_path) -> None:
    """x / 4 -> convolution -> ReLU -> Clip(0, 1000) -> convolution."""
    b, rng = qcdq(), np.random.default_rng(3)
    scaled = b.node("Mul", "x", b.constant(np.float32(0.25)))
    first = b.node("Conv", scaled, b.constant(rng.normal(size=(3, 2, 3, 3)).astype(np.float32)))
    bounded = b.node("Clip", b.node("Relu", first), b.constant(np.float32(0)), b.constant(np.float32(1000)))
    last = b.node("Conv", bounded, b.constant(rng.normal(size=(2, 3, 1, 1)).astype(np.float32)))
    path = b.save(tmp_path / "n.onnx", {"x": (1, 2, 8, 8)}, {last: (1, 2, 6, 6)}, opset=13)
    twin, x = onnx.load(str(path)), rng.normal(size=(1, 2, 8, 8)).astype(np.float32)
    short = fewer_stages(twin)
    assert [n.op_type for n in short.graph.node] == ["Conv", "Relu", "Conv"]
    np.testing.assert_allclose(run(short, x), run(twin, x), rtol=1e-5, atol=1e-6)


def test_bounds_at_the_ends_are_the_hosts_one_inside_stays(qcdq, tmp_path) -> None:
    b = qcdq()
    low, high = b.constant(np.float32(-1)), b.constant(np.float32(1))
    first = b.node("Conv", b.node("Clip", "x", low, high), b.constant(np.ones((1, 1, 1, 1), np.float32)))
    inner = b.node("Conv", b.node("Clip", first, low, high), b.constant(np.ones((1, 1, 1, 1), np.float32)))
    last = b.node("Clip", b.node("Mul", inner, b.constant(np.float32(8))), low, high)
    path = b.save(tmp_path / "n.onnx", {"x": (1, 1, 2, 2)}, {last: (1, 1, 2, 2)}, opset=13)
    short = fewer_stages(onnx.load(str(path)))
    assert [n.op_type for n in short.graph.node] == ["Conv", "Clip", "Conv"]
    x = np.float32([[[[0.25, 0.5], [-0.5, 1.0]]]])
    np.testing.assert_array_equal(run(short, x), 8 * x)
