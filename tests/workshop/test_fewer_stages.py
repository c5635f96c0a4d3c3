"""Fewer stages for a VPU: bounds behind ReLUs and a scale on the input go, what comes out stays."""

import numpy as np
import onnx
import onnxruntime

from export.devices.to_myriad import float_twin
from export.graphs.fewer_stages import fewer_stages
from payload.bundle import load_bundle


def run(model: onnx.ModelProto, array: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {session.get_inputs()[0].name: array})[0])


def test_the_cloud_network_loses_its_inner_clips_and_its_input_scale() -> None:
    bundle = load_bundle("edge")
    twin = float_twin(bundle.file("flight/clouds.onnx"), bundle.tile_px, bundle.tile_px)
    short = fewer_stages(twin)
    relus = sum(node.op_type == "Relu" for node in twin.graph.node)
    left = [node.op_type for node in short.graph.node]
    assert left.count("Clip") == sum(n.op_type == "Clip" for n in twin.graph.node) - relus
    assert len(left) <= len(twin.graph.node) - relus
    assert {t.name for t in short.graph.initializer} <= {i for n in short.graph.node for i in n.input}


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


def test_a_bound_below_or_at_an_output_stays(qcdq, tmp_path) -> None:
    """A Clip that is the output, and one that is not behind a ReLU."""
    b = qcdq()
    inner = b.node("Clip", "x", b.constant(np.float32(-1)), b.constant(np.float32(1)))
    last = b.node("Clip", b.node("Relu", inner), b.constant(np.float32(0)), b.constant(np.float32(0.5)))
    path = b.save(tmp_path / "n.onnx", {"x": (1, 1, 2, 2)}, {last: (1, 1, 2, 2)}, opset=13)
    assert [n.op_type for n in fewer_stages(onnx.load(str(path))).graph.node] == ["Clip", "Relu", "Clip"]
