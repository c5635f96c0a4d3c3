"""Networks whose latency others published, built from their public definitions with random weights.

A compiler and a latency do not look at the weights, so none are downloaded: what counts is the shape of every layer.
Batch normalisation is folded into the convolutions, as every compiler does. Each builder names its source.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from export.graphs.to_float import VPU_IR_VERSION, VPU_OPSET


class _Builder:
    """Writes a graph layer by layer; `shape` is [channels, height, width] of what a name stands for."""

    def __init__(self, name: str, channels: int, size: int) -> None:
        self.name = name
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self.channels = {"image": channels}
        self._input = [1, channels, size, size]
        self._rng = np.random.default_rng(0)

    def conv(
        self, x: str, out: int, kernel: int, stride: int = 1, pad: int | None = None, group: int = 1,
        active: bool = True, most: float | None = None,
    ) -> str:  # fmt: skip
        """A convolution with bias, then ReLU (or ReLU6: `most` = 6) unless it is not `active`."""
        shape = (out, self.channels[x] // group, kernel, kernel)
        pads = [(kernel // 2 if pad is None else pad)] * 4
        constants = [self._constant(self._weights(shape)), self._constant(self._weights((out,)))]
        size = [kernel, kernel]
        y = self._node("Conv", [x, *constants], out, kernel_shape=size, strides=[stride] * 2, pads=pads, group=group)
        return self._active(y, most) if active else y

    def depthwise(self, x: str, stride: int = 1, most: float | None = None) -> str:
        return self.conv(x, self.channels[x], 3, stride, group=self.channels[x], most=most)

    def pool(self, x: str, kernel: int, stride: int, pad: int = 0, how: str = "MaxPool", ceil: bool = False) -> str:
        more = {"ceil_mode": 1} if ceil else {}
        return self._node(
            how, [x], self.channels[x], kernel_shape=[kernel] * 2, strides=[stride] * 2, pads=[pad] * 4, **more
        )

    def lrn(self, x: str) -> str:
        return self._node("LRN", [x], self.channels[x], size=5)

    def sum(self, a: str, b: str, active: bool) -> str:
        y = self._node("Add", [a, b], self.channels[a])
        return self._active(y, None) if active else y

    def join(self, parts: Sequence[str]) -> str:
        return self._node("Concat", list(parts), sum(self.channels[p] for p in parts), axis=1)

    def global_average(self, x: str) -> str:
        return self._node("GlobalAveragePool", [x], self.channels[x])

    def flat(self, x: str, size: int) -> str:
        """As a vector: `size` positions of what x has channels."""
        return self._node("Flatten", [x], self.channels[x] * size)

    def dense(self, x: str, out: int, active: bool = False) -> str:
        weights = self._constant(self._weights((self.channels[x], out)))
        y = self._node("Gemm", [x, weights, self._constant(self._weights((out,)))], out)
        return self._active(y, None) if active else y

    def model(self, x: str, classes: bool = True) -> onnx.ModelProto:
        """The graph up to `x`, with a softmax over it where it gives classes."""
        y = self._node("Softmax", [x], self.channels[x], axis=1) if classes else x
        given = helper.make_tensor_value_info("image", TensorProto.FLOAT, self._input)
        made = helper.make_tensor_value_info(y, TensorProto.FLOAT, None)
        graph = helper.make_graph(self.nodes, self.name, [given], [made], self.constants)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", VPU_OPSET)], ir_version=VPU_IR_VERSION)
        return onnx.shape_inference.infer_shapes(model, strict_mode=True)

    def _weights(self, shape: tuple[int, ...]) -> np.ndarray:
        return self._rng.normal(0, (2 / np.prod(shape[1:] or (1,))) ** 0.5, shape).astype(np.float32)

    def _constant(self, array: np.ndarray) -> str:
        name = f"w{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(array, name))
        return name

    def _active(self, x: str, most: float | None) -> str:
        y = self._node("Relu", [x], self.channels[x])
        if most is None:
            return y
        bounds = [self._constant(np.array(b, np.float32)) for b in (0, most)]
        return self._node("Clip", [y, *bounds], self.channels[x])

    def _node(self, op: str, inputs: list[str], channels: int, **attributes: Any) -> str:
        name = f"{op.lower()}{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [name], name=name, **attributes))
        self.channels[name] = channels
        return name


def googlenet() -> onnx.ModelProto:
    """GoogLeNet, 224 px (Szegedy et al. 2014, table 1; BVLC's deploy.prototxt)."""
    b = _Builder("googlenet", 3, 224)
    x = b.lrn(b.pool(b.conv("image", 64, 7, 2), 3, 2, ceil=True))
    x = b.pool(b.lrn(b.conv(b.conv(x, 64, 1), 192, 3)), 3, 2, ceil=True)
    for widths in ((64, 96, 128, 16, 32, 32), (128, 128, 192, 32, 96, 64)):
        x = _inception(b, x, widths)
    x = b.pool(x, 3, 2, ceil=True)
    for widths in (
        (192, 96, 208, 16, 48, 64), (160, 112, 224, 24, 64, 64), (128, 128, 256, 24, 64, 64),
        (112, 144, 288, 32, 64, 64), (256, 160, 320, 32, 128, 128),
    ):  # fmt: skip
        x = _inception(b, x, widths)
    x = b.pool(x, 3, 2, ceil=True)
    for widths in ((256, 160, 320, 32, 128, 128), (384, 192, 384, 48, 128, 128)):
        x = _inception(b, x, widths)
    return b.model(b.dense(b.flat(b.global_average(x), 1), 1000))


def _inception(b: _Builder, x: str, widths: tuple[int, ...]) -> str:
    one, reduce3, three, reduce5, five, pooled = widths
    pool = b.conv(b.pool(x, 3, 1, 1), pooled, 1)
    by3, by5 = b.conv(b.conv(x, reduce3, 1), three, 3), b.conv(b.conv(x, reduce5, 1), five, 5)
    return b.join([b.conv(x, one, 1), by3, by5, pool])


def mobilenet_v1() -> onnx.ModelProto:
    """MobileNet v1, width 1.0, 224 px (Howard et al. 2017, table 1)."""
    b = _Builder("mobilenet_v1", 3, 224)
    x = b.conv("image", 32, 3, 2, most=6)
    for out, stride in (
        (64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *[(512, 1)] * 5, (1024, 2), (1024, 1)
    ):  # fmt: skip
        x = b.conv(b.depthwise(x, stride, most=6), out, 1, most=6)
    return b.model(b.flat(b.conv(b.global_average(x), 1001, 1, active=False), 1))


def mobilenet_v2() -> onnx.ModelProto:
    """MobileNet v2, width 1.0, 224 px (Sandler et al. 2018, table 2)."""
    b = _Builder("mobilenet_v2", 3, 224)
    x = b.conv("image", 32, 3, 2, most=6)
    for expand, out, times, stride in (
        (1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)
    ):  # fmt: skip
        for step in range(times):
            x = _inverted(b, x, expand, out, stride if step == 0 else 1)
    x = b.global_average(b.conv(x, 1280, 1, most=6))
    return b.model(b.flat(b.conv(x, 1000, 1, active=False), 1))


def _inverted(b: _Builder, x: str, expand: int, out: int, stride: int) -> str:
    wide = x if expand == 1 else b.conv(x, b.channels[x] * expand, 1, most=6)
    y = b.conv(b.depthwise(wide, stride, most=6), out, 1, active=False)
    return b.sum(x, y, active=False) if stride == 1 and b.channels[x] == out else y


def vgg16_features() -> onnx.ModelProto:
    """VGG16's convolutions and pools, 224 px (Simonyan and Zisserman 2014, configuration D), without its three dense
    layers: 400 MB of weights that only measure the memory."""
    b = _Builder("vgg16_features", 3, 224)
    x = "image"
    for width, times in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
        for _ in range(times):
            x = b.conv(x, width, 3)
        x = b.pool(x, 2, 2)
    return b.model(x, classes=False)


def squeezenet() -> onnx.ModelProto:
    """SqueezeNet 1.1, 227 px (Iandola et al. 2016; its authors' release 1.1)."""
    b = _Builder("squeezenet_1_1", 3, 227)
    x = b.pool(b.conv("image", 64, 3, 2, pad=0), 3, 2, ceil=True)
    for squeeze, times in ((16, 2), (32, 2), (48, 2), (64, 2)):
        for _ in range(times):
            y = b.conv(x, squeeze, 1)
            x = b.join([b.conv(y, 4 * squeeze, 1), b.conv(y, 4 * squeeze, 3)])
        x = b.pool(x, 3, 2, ceil=True) if squeeze < 48 else x
    return b.model(b.flat(b.global_average(b.conv(x, 1000, 1)), 1))


def resnet18() -> onnx.ModelProto:
    """ResNet-18, 224 px (He et al. 2015, table 1)."""
    b, x = _resnet_stem("resnet18")
    for stage, width in enumerate((64, 128, 256, 512)):
        for step in range(2):
            stride = 2 if stage and not step else 1
            short = b.conv(x, width, 1, 2, pad=0, active=False) if stride == 2 else x
            x = b.sum(b.conv(b.conv(x, width, 3, stride), width, 3, active=False), short, active=True)
    return b.model(b.dense(b.flat(b.global_average(x), 1), 1000))


def resnet50() -> onnx.ModelProto:
    """ResNet-50 v1, 224 px (He et al. 2015, table 1; strides in the first 1x1 convolution)."""
    b, x = _resnet_stem("resnet50")
    for stage, (width, times) in enumerate(((64, 3), (128, 4), (256, 6), (512, 3))):
        for step in range(times):
            stride = 2 if stage and not step else 1
            short = x if step else b.conv(x, 4 * width, 1, stride, pad=0, active=False)
            y = b.conv(b.conv(x, width, 1, stride, pad=0), width, 3)
            x = b.sum(b.conv(y, 4 * width, 1, active=False), short, active=True)
    return b.model(b.dense(b.flat(b.global_average(x), 1), 1000))


def _resnet_stem(name: str) -> tuple[_Builder, str]:
    b = _Builder(name, 3, 224)
    return b, b.pool(b.conv("image", 64, 7, 2), 3, 2, 1)


def mobileone_s0() -> onnx.ModelProto:
    """MobileOne S0 as it runs, its branches folded, 224 px (Vasu et al. 2022, tables 2 and 3)."""
    b = _Builder("mobileone_s0", 3, 224)
    x = b.conv("image", 48, 3, 2)
    for width, times in ((48, 2), (128, 8), (256, 10), (1024, 1)):
        for step in range(times):
            x = b.conv(b.depthwise(x, 1 if step else 2), width, 1)
    return b.model(b.dense(b.flat(b.global_average(x), 1), 1000), classes=False)


def cnv(width: int) -> onnx.ModelProto:
    """CNV, 32 px (Umuroglu et al. 2016, FINN): convolutions of width, 2 width and 4 width, three dense layers."""
    b = _Builder(f"cnv_{width}", 3, 32)
    x = "image"
    for factor in (1, 2, 4):
        x = b.conv(b.conv(x, factor * width, 3, pad=0), factor * width, 3, pad=0)
        x = b.pool(x, 2, 2) if factor < 4 else x
    x = b.dense(b.dense(b.flat(x, 1), 8 * width, active=True), 8 * width, active=True)
    return b.model(b.dense(x, 10), classes=False)


def mlp(width: int) -> onnx.ModelProto:
    """MLP, 28 px digits (Umuroglu et al. 2016, FINN's LFC): three hidden layers of `width`."""
    b = _Builder(f"mlp_{width}", 1, 28)
    x = b.flat("image", 28 * 28)
    for _ in range(3):
        x = b.dense(x, width, active=True)
    return b.model(b.dense(x, 10), classes=False)


REFERENCES: dict[str, Callable[[], onnx.ModelProto]] = {
    "googlenet": googlenet,
    "mobilenet_v1": mobilenet_v1,
    "mobilenet_v2": mobilenet_v2,
    "vgg16_features": vgg16_features,
    "squeezenet_1_1": squeezenet,
    "resnet18": resnet18,
    "resnet50": resnet50,
    "mobileone_s0": mobileone_s0,
    "cnv_128": lambda: cnv(128),
    "cnv_64": lambda: cnv(64),
    "cnv_32": lambda: cnv(32),
    "cnv_16": lambda: cnv(16),
    "mlp_2048": lambda: mlp(2048),
    "mlp_1024": lambda: mlp(1024),
    "mlp_512": lambda: mlp(512),
    "mlp_256": lambda: mlp(256),
}
