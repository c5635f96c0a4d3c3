"""Throw-away quantised networks, built node by node so that the exporters are tested without training anything."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper


class QcdqBuilder:
    """Writes a QCDQ graph the way the exporter does: int8 weights, power-of-two scales, u8 activations."""

    def __init__(self, bits: int = 7, folded: bool = True, seed: int = 1) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self.rng = np.random.default_rng(seed)
        self.limit, self.folded = 2 ** (bits - 1) - 1, folded

    def constant(self, array: np.ndarray) -> str:
        name = f"k{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def node(self, op: str, *inputs: str, **attributes: object) -> str:
        name = f"{op.lower()}{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, list(inputs), [name], name=name, **attributes))
        return name

    def quantised(self, x: str, log2_scale: int, signed: bool = False) -> str:
        zero = np.int8(0) if signed else np.uint8(0)
        scale, zero_point = self.constant(np.float32(2.0**log2_scale)), self.constant(zero)
        return self.node("DequantizeLinear", self.node("QuantizeLinear", x, scale, zero_point), scale, zero_point)

    def weights(self, shape: tuple[int, ...]) -> tuple[str, np.ndarray]:
        w = self.rng.integers(-self.limit, self.limit, shape, endpoint=True).astype(np.int8)
        w.reshape(-1)[:2] = self.limit, -self.limit
        scale = 2.0 ** -self.rng.integers(8, 11, shape[0]).astype(np.float32)
        name = self.constant(w)
        if not self.folded:
            name = self.node("Clip", name, self.constant(np.int8(-self.limit)), self.constant(np.int8(self.limit)))
        arguments = name, self.constant(scale.astype(np.float32)), self.constant(np.zeros(shape[0], np.int8))
        return self.node("DequantizeLinear", *arguments, axis=0), scale

    def conv(self, x: str, w: tuple[str, np.ndarray], log2_in: int, kernel: int, stride: int = 1, group: int = 1,
             pad: int | None = None) -> str:  # fmt: skip
        out = w[1].size
        bias = self.rng.integers(-2000, 2000, out).astype(np.int32)
        arguments = self.constant(bias), self.constant((w[1] * 2.0**log2_in).astype(np.float32))
        b = self.node("DequantizeLinear", *arguments, self.constant(np.zeros(out, np.int32)), axis=0)
        p = (kernel - 1) // 2 if pad is None else pad
        return self.node("Conv", x, w[0], b, kernel_shape=[kernel] * 2, strides=[stride] * 2, pads=[p] * 4, group=group)

    def save(self, path: Path, inputs: dict[str, tuple], outputs: dict[str, tuple],
             opset: int = 17, kind: int = TensorProto.FLOAT) -> Path:  # fmt: skip
        takes = [helper.make_tensor_value_info(n, kind, list(s)) for n, s in inputs.items()]
        gives = [helper.make_tensor_value_info(n, TensorProto.FLOAT, list(s)) for n, s in outputs.items()]
        graph = helper.make_graph(self.nodes, "throw-away", takes, gives, self.constants)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
        onnx.checker.check_model(model, full_check=True)
        onnx.save(model, str(path))
        return path


def small_cnn(path: Path, bits: int = 7, folded: bool = True, size: int = 32) -> Path:
    """Four-band input, strided 3x3, depthwise 3x3, 1x1, a residual, a pooled branch scaled up again; two outputs."""
    b = QcdqBuilder(bits, folded)
    x = b.quantised("tile", 0)  # u8 as it comes
    a = b.quantised(b.node("Relu", b.conv(x, b.weights((16, 4, 3, 3)), 0, 3, stride=2)), -1)
    d = b.quantised(b.node("Relu", b.conv(a, b.weights((16, 1, 3, 3)), -1, 3, group=16)), -1)
    e = b.conv(d, b.weights((16, 16, 1, 1)), -1, 1)
    r = b.quantised(b.node("Relu", b.node("Add", e, a)), 0)
    pooled = b.node("MaxPool", r, kernel_shape=[2, 2], strides=[2, 2])
    low = b.conv(pooled, b.weights((8, 16, 3, 3)), 0, 3)
    up = b.node("Resize", b.quantised(b.node("Relu", low), 0), "", b.constant(np.float32([1, 1, 2, 2])),
                mode="nearest", nearest_mode="floor", coordinate_transformation_mode="asymmetric")  # fmt: skip
    high = b.conv(up, b.weights((8, 8, 3, 3)), 0, 3)
    half = size // 2
    return b.save(path, {"tile": (1, 4, size, size)}, {low: (1, 8, half // 2, half // 2), high: (1, 8, half, half)})


def two_planes(path: Path, bits: int = 7, folded: bool = True, blocks: int = 9) -> Path:
    """The codec's shape: a high and a low int8 plane through the same 2x2 weights, weighed and added."""
    b = QcdqBuilder(bits, folded)
    w = b.weights((64, 64, 2, 2))
    parts = [b.conv(b.quantised(name, 0, signed=True), w, 0, 2, pad=0) for name in ("hi", "lo")]
    latents = b.node("Add", b.node("Mul", parts[0], b.constant(np.float32(128))), parts[1])
    shape = (4, 64, blocks, blocks)
    return b.save(path, {"hi": shape, "lo": shape}, {latents: (4, 64, blocks - 1, blocks - 1)})


@pytest.fixture
def build_cnn() -> Callable[..., Path]:
    return small_cnn


@pytest.fixture
def build_two_planes() -> Callable[..., Path]:
    return two_planes


@pytest.fixture
def qcdq() -> type[QcdqBuilder]:
    return QcdqBuilder
