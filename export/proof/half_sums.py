"""FP16 in simulation, the unkind way: every product and every partial sum of a convolution is rounded to FP16.

A VPU may sum in FP16 or wider, nobody publishes in which order; here the taps of a kernel are added one after the
other. Everything else is as in export/proof/half_precision.py.
"""

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

from export.proof.half_precision import Run, in_half_precision
from payload.errors import InputError

Halves = NDArray[np.float32]  # values that FP16 holds


def open_half_sums(model: onnx.ModelProto) -> Run:
    """A function that runs the simulation, operator by operator."""
    evaluator = ReferenceEvaluator(in_half_precision(model), new_ops=[Conv, Resize])
    names = [value.name for value in model.graph.input]

    def run(*arrays: NDArray[Any]) -> list[NDArray[Any]]:
        feeds = {n: np.asarray(a, np.float32) for n, a in zip(names, arrays, strict=True)}
        return list(evaluator.run(None, feeds))

    return run


class Conv(OpRun):
    """Convolution whose products and partial sums are FP16."""

    op_domain = ""

    def _run(
        self, x: Halves, w: Halves, b: Halves | None = None, auto_pad: Any = None, dilations: Any = None,
        group: int = 1, kernel_shape: Any = None, pads: Any = None, strides: Any = None,
    ) -> tuple[Halves]:  # fmt: skip
        if auto_pad not in (None, "NOTSET") or any(d != 1 for d in dilations or ()):
            raise InputError("FP16 sums are simulated for convolutions with explicit pads and no dilation only")
        top, left, bottom, right = pads or (0, 0, 0, 0)
        padded = np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)))
        windows = np.lib.stride_tricks.sliding_window_view(padded, w.shape[2:], axis=(2, 3))
        windows = windows[:, :, :: (strides or (1, 1))[0], :: (strides or (1, 1))[1]]
        sums = summed(windows, w, group)
        return (sums if b is None else rounded(sums + b[:, None, None]),)


def summed(windows: Halves, w: Halves, group: int) -> Halves:
    """Windows [N, C, oh, ow, kh, kw] and weights [O, C/g, kh, kw] -> [N, O, oh, ow], tap after tap."""
    n, c, oh, ow = windows.shape[:4]
    grouped = windows.reshape(n, group, 1, c // group, oh, ow, *w.shape[2:])
    kernels = w.reshape(group, w.shape[0] // group, *w.shape[1:])
    total = np.zeros((n, group, kernels.shape[1], oh, ow), np.float32)
    for tap in np.ndindex(*w.shape[1:]):
        product = grouped[:, :, :, tap[0], :, :, tap[1], tap[2]] * kernels[:, :, tap[0], tap[1], tap[2], None, None]
        total = rounded(total + rounded(product))
    return total.reshape(n, -1, oh, ow)


def rounded(values: Halves) -> Halves:
    return values.astype(np.float16).astype(np.float32)


class Resize(OpRun):
    """Up-sampling by whole factors; the library's own goes pixel by pixel."""

    op_domain = ""

    def _run(
        self, x: Halves, roi: Any = None, scales: Any = None, sizes: Any = None, mode: str = "nearest", **_: Any
    ) -> tuple[Halves]:
        factors = scales if sizes is None else np.divide(sizes, x.shape)
        if mode not in ("nearest", b"nearest") or any(f != int(f) for f in factors):
            raise InputError("FP16 sums are simulated for up-sampling by whole factors, nearest neighbour, only")
        for axis, factor in enumerate(factors):
            x = np.repeat(x, int(factor), axis)
        return (x,)
