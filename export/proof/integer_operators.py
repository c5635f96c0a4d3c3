"""ONNX operators on exact integers: the table the integer reference runs from.

Each operator takes (attributes, arguments, where, watch): arguments are `Fixed`, plain integers (between a quantiser
and its inverse) or float constants (scales, bounds); `where` names the node; `watch` sees every accumulator.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from export.proof.exact import (
    Fixed,
    Integers,
    align,
    exponent_of,
    fixed,
    matrix_product,
    product,
    shift_half_even,
    shift_left,
)
from payload.errors import InputError

Attributes = dict[str, Any]
Watch = Callable[[Integers], Integers]
Operator = Callable[[Attributes, list[Any], str, Watch], Any]


def quantize(a: Attributes, args: list[Any], where: str, watch: Watch) -> Integers:
    """QuantizeLinear: round half to even, saturate to the zero point's type."""
    x, zero = fixed(args[0], where), args[2] if len(args) > 2 else np.zeros((), np.uint8)
    rank, axis = x.q.ndim, a.get("axis", 1)
    step = _per_axis(exponent_of(args[1], where), rank, axis)
    q = shift_half_even(x.q, step - x.exponent) + _per_axis(zero.astype(np.int64), rank, axis)
    low, high = np.iinfo(zero.dtype).min, np.iinfo(zero.dtype).max
    return np.clip(q, low, high)


def dequantize(a: Attributes, args: list[Any], where: str, watch: Watch) -> Fixed:
    q = np.asarray(args[0]).astype(np.int64)
    rank, axis = q.ndim, a.get("axis", 1)
    exponent = _per_axis(exponent_of(args[1], where), rank, axis)
    if len(args) > 2 and args[2] is not None:
        q = q - _per_axis(np.asarray(args[2]).astype(np.int64), rank, axis)
    return Fixed(q, exponent)


def conv(a: Attributes, args: list[Any], where: str, watch: Watch) -> Fixed:
    """Convolution by lowering to matrix products, group by group; depthwise as shifted products."""
    x, w = _uniform(fixed(args[0], where), where), fixed(args[1], where)
    strides, dilations = a.get("strides", [1, 1]), a.get("dilations", [1, 1])
    groups, kernel = int(a.get("group", 1)), w.q.shape[2:]
    if w.q.ndim != 4:
        raise InputError(f"{where}: {w.q.ndim - 2}-D convolution; the integer reference does 2-D")
    padded = _pad(x.q, _pads(a, where), 0)
    windows = _windows(padded, kernel, strides, dilations)  # [N, C, oh, ow, kh, kw]
    if groups == x.q.shape[1] and w.q.shape[1] == 1:
        acc = _depthwise(windows, w.q, groups)
    else:
        acc = _lowered(windows, w.q, groups)
    exponent = x.exponent + _out_channels(w.exponent)
    result = Fixed(watch(acc), np.asarray(exponent))
    return _biased(result, args[2] if len(args) > 2 else None, where, watch)


def relu(a: Attributes, args: list[Any], where: str, watch: Watch) -> Fixed:
    x = fixed(args[0], where)
    return Fixed(np.maximum(x.q, 0), x.exponent)


def add(a: Attributes, args: list[Any], where: str, watch: Watch) -> Any:
    if _both_plain(args):
        return args[0] + args[1]
    qa, qb, exponent = align(*_broadcast(args, where))
    return Fixed(qa + qb, exponent)


def sub(a: Attributes, args: list[Any], where: str, watch: Watch) -> Any:
    if _both_plain(args):
        return args[0] - args[1]
    qa, qb, exponent = align(*_broadcast(args, where))
    return Fixed(qa - qb, exponent)


def mul(a: Attributes, args: list[Any], where: str, watch: Watch) -> Any:
    if _both_plain(args):
        return args[0] * args[1]
    x, y = _broadcast(args, where)
    return Fixed(product(x.q, y.q), x.exponent + y.exponent)


def div(a: Attributes, args: list[Any], where: str, watch: Watch) -> Fixed:
    """By a power of two only: anything else is not exact."""
    x = fixed(args[0], where)
    return Fixed(x.q, x.exponent - exponent_of(np.asarray(args[1]), f"{where} (division)"))


def clip(a: Attributes, args: list[Any], where: str, watch: Watch) -> Any:
    low = args[1] if len(args) > 1 else a.get("min")
    high = args[2] if len(args) > 2 else a.get("max")
    if not isinstance(args[0], Fixed):
        return np.clip(args[0], low, high)
    x = args[0]
    if low is not None:
        q, bound, exponent = align(x, fixed(low, where))
        x = Fixed(np.maximum(q, bound), exponent)
    if high is not None:
        q, bound, exponent = align(x, fixed(high, where))
        x = Fixed(np.minimum(q, bound), exponent)
    return x


def round_even(a: Attributes, args: list[Any], where: str, watch: Watch) -> Fixed:
    x = fixed(args[0], where)
    return Fixed(shift_half_even(x.q, -np.asarray(x.exponent)), np.int64(0))


def concat(a: Attributes, args: list[Any], where: str, watch: Watch) -> Any:
    if not any(isinstance(v, Fixed) for v in args):
        return np.concatenate(args, axis=a["axis"])
    parts = [fixed(v, where) for v in args]
    exponent = np.int64(min(int(np.min(p.exponent)) for p in parts))
    return Fixed(np.concatenate([shift_left(p.q, p.exponent - exponent) for p in parts], axis=a["axis"]), exponent)


def max_pool(a: Attributes, args: list[Any], where: str, watch: Watch) -> Any:
    x = args[0] if isinstance(args[0], Fixed) else Fixed(args[0], np.int64(0))
    padded = _pad(x.q, _pads(a, where), np.iinfo(np.int64).min)
    windows = _windows(padded, a["kernel_shape"], a.get("strides", [1, 1]), a.get("dilations", [1, 1]))
    q = windows.max(axis=(-2, -1))
    return Fixed(q, x.exponent) if isinstance(args[0], Fixed) else q


def average_pool(a: Attributes, args: list[Any], where: str, watch: Watch) -> Fixed:
    """Exact for windows whose size is a power of two, without padding."""
    x = fixed(args[0], where)
    if any(_pads(a, where)):
        raise InputError(f"{where}: padded AveragePool is not exact; pool without padding")
    windows = _windows(x.q, a["kernel_shape"], a.get("strides", [1, 1]), [1, 1])
    return Fixed(watch(windows.sum(axis=(-2, -1))), x.exponent - _log2(int(np.prod(a["kernel_shape"])), where))


def global_average_pool(a: Attributes, args: list[Any], where: str, watch: Watch) -> Fixed:
    x = fixed(args[0], where)
    return Fixed(watch(x.q.sum(axis=(2, 3), keepdims=True)), x.exponent - _log2(x.q.shape[2] * x.q.shape[3], where))


def resize(a: Attributes, args: list[Any], where: str, watch: Watch) -> Any:
    """Nearest neighbour by whole factors (repetition)."""
    if a.get("mode", b"nearest") != b"nearest":
        raise InputError(f"{where}: Resize mode {a['mode'].decode()} is not exact; use nearest")
    shape = _shape_of(args[0])
    if len(args) > 2 and args[2] is not None and np.size(args[2]):
        factors = [float(f) for f in np.asarray(args[2])]
    else:
        factors = [float(s) / t for s, t in zip(np.asarray(args[3]), shape, strict=True)]
    if any(f != int(f) or f < 1 for f in factors):
        raise InputError(f"{where}: Resize by {factors}; the integer reference repeats by whole factors")
    return _reshaping(args[0], lambda q: _repeat(q, [int(f) for f in factors]))


def pad(a: Attributes, args: list[Any], where: str, watch: Watch) -> Any:
    pads = [int(p) for p in np.asarray(args[1] if len(args) > 1 else a["pads"])]
    half = len(pads) // 2
    widths = list(zip(pads[:half], pads[half:], strict=True))
    mode = {b"constant": "constant", b"edge": "edge", b"reflect": "reflect"}[a.get("mode", b"constant")]
    if mode == "constant" and len(args) > 2 and args[2] is not None and np.any(np.asarray(args[2])):
        raise InputError(f"{where}: Pad with a value other than 0 is not supported by the integer reference")
    return _reshaping(args[0], lambda q: np.pad(q, widths, mode=mode))  # type: ignore[call-overload]


def gemm(a: Attributes, args: list[Any], where: str, watch: Watch) -> Fixed:
    if a.get("alpha", 1.0) != 1.0 or a.get("beta", 1.0) != 1.0 or a.get("transA", 0):
        raise InputError(f"{where}: Gemm with alpha, beta or transA is not supported by the integer reference")
    x, w = _uniform(fixed(args[0], where), where), fixed(args[1], where)
    matrix = w.q.T if a.get("transB", 0) else w.q  # [k, n]
    exponent = np.asarray(w.exponent)
    exponent = exponent.reshape(1, -1) if exponent.size > 1 else exponent.reshape(())
    result = Fixed(watch(matrix_product(x.q, matrix)), x.exponent + exponent)
    if len(args) < 3 or args[2] is None:
        return result
    qa, qb, finest = align(result, fixed(args[2], where))
    return Fixed(watch(qa + qb), finest)


def matmul(a: Attributes, args: list[Any], where: str, watch: Watch) -> Fixed:
    x, y = _uniform(fixed(args[0], where), where), _uniform(fixed(args[1], where), where)
    return Fixed(watch(matrix_product(x.q, y.q)), x.exponent + y.exponent)


def arg_max(a: Attributes, args: list[Any], where: str, watch: Watch) -> Integers:
    x = _uniform(fixed(args[0], where), where)
    found = np.argmax(x.q, axis=a.get("axis", 0))  # lowest index on ties, as ONNX asks
    return np.asarray(np.expand_dims(found, a.get("axis", 0)) if a.get("keepdims", 1) else found)


def reshape(a: Attributes, args: list[Any], where: str, watch: Watch) -> Any:
    shape = [int(s) for s in np.asarray(args[1])]
    old = _shape_of(args[0])
    if not a.get("allowzero", 0):
        shape = [old[i] if s == 0 else s for i, s in enumerate(shape)]
    return _reshaping(args[0], lambda q: q.reshape(shape))


def transpose(a: Attributes, args: list[Any], where: str, watch: Watch) -> Any:
    return _reshaping(args[0], lambda q: np.transpose(q, a.get("perm")))


def flatten(a: Attributes, args: list[Any], where: str, watch: Watch) -> Any:
    axis = a.get("axis", 1)
    return _reshaping(args[0], lambda q: q.reshape(int(np.prod(q.shape[:axis])), -1))


def slice_(a: Attributes, args: list[Any], where: str, watch: Watch) -> Any:
    starts, ends = np.asarray(args[1]), np.asarray(args[2])
    axes = np.asarray(args[3]) if len(args) > 3 and args[3] is not None else np.arange(len(starts))
    steps = np.asarray(args[4]) if len(args) > 4 and args[4] is not None else np.ones(len(starts), np.int64)
    index = [slice(None)] * len(_shape_of(args[0]))
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        index[int(axis)] = slice(int(start), int(end), int(step))
    return _reshaping(args[0], lambda q: q[tuple(index)])


def space_to_depth(a: Attributes, args: list[Any], where: str, watch: Watch) -> Any:
    b = a["blocksize"]

    def fold(q: Integers) -> Integers:
        n, c, h, w = q.shape
        return q.reshape(n, c, h // b, b, w // b, b).transpose(0, 3, 5, 1, 2, 4).reshape(n, b * b * c, h // b, w // b)

    return _reshaping(args[0], fold)


def depth_to_space(a: Attributes, args: list[Any], where: str, watch: Watch) -> Any:
    b, crd = a["blocksize"], a.get("mode", b"DCR") == b"CRD"

    def unfold(q: Integers) -> Integers:
        n, c, h, w = q.shape
        cut = (n, c // b // b, b, b, h, w) if crd else (n, b, b, c // b // b, h, w)
        order = (0, 1, 4, 2, 5, 3) if crd else (0, 3, 4, 1, 5, 2)
        return q.reshape(cut).transpose(order).reshape(n, c // b // b, h * b, w * b)

    return _reshaping(args[0], unfold)


def same(a: Attributes, args: list[Any], where: str, watch: Watch) -> Any:
    return args[0]


def cast(a: Attributes, args: list[Any], where: str, watch: Watch) -> Any:
    """Between float types nothing changes; to an integer type only what is whole already."""
    if not isinstance(args[0], Fixed) or a["to"] in (1, 10, 11):
        return args[0]
    x = args[0]
    whole = shift_half_even(x.q, -np.asarray(x.exponent))
    if not np.array_equal(Fixed(whole, np.int64(0)).to_float32(), x.to_float32()):
        raise InputError(f"{where}: Cast to an integer type cuts fractions; round first")
    return whole


OPERATORS: dict[str, Operator] = {
    "Add": add, "ArgMax": arg_max, "AveragePool": average_pool, "Cast": cast, "Clip": clip, "Concat": concat,
    "Conv": conv, "DepthToSpace": depth_to_space, "DequantizeLinear": dequantize, "Div": div, "Flatten": flatten,
    "Gemm": gemm, "GlobalAveragePool": global_average_pool, "Identity": same, "MatMul": matmul, "MaxPool": max_pool,
    "Mul": mul, "Pad": pad, "QuantizeLinear": quantize, "Relu": relu, "Reshape": reshape, "Resize": resize,
    "Round": round_even, "Slice": slice_, "SpaceToDepth": space_to_depth, "Sub": sub, "Transpose": transpose,
}  # fmt: skip


def _per_axis(values: NDArray[Any], rank: int, axis: int) -> NDArray[Any]:
    """A vector laid along `axis` of a tensor of `rank`; a single number stays one."""
    if values.size == 1 or rank == 0:
        return values.reshape(())
    shape = [1] * rank
    shape[axis] = values.size
    return values.reshape(shape)


def _uniform(x: Fixed, where: str) -> Fixed:
    """One exponent for the whole tensor: the finest of its channels."""
    if np.ndim(x.exponent) == 0:
        return x
    exponent = np.int64(np.min(x.exponent))
    return Fixed(shift_left(x.q, x.exponent - exponent), exponent)


def _out_channels(exponent: Integers) -> Integers:
    """Exponents of weights [O, 1, 1, 1] as exponents of activations [1, O, 1, 1]."""
    return exponent if np.ndim(exponent) == 0 else np.asarray(exponent).reshape(1, -1, 1, 1)


def _biased(x: Fixed, bias: Any, where: str, watch: Watch) -> Fixed:
    if bias is None:
        return x
    b = fixed(bias, where)
    exponent = np.asarray(b.exponent).reshape(1, -1, 1, 1) if np.ndim(b.exponent) else b.exponent
    qa, qb, finest = align(x, Fixed(b.q.reshape(1, -1, 1, 1), exponent))
    return Fixed(watch(qa + qb), finest)


def _pads(a: Attributes, where: str) -> list[int]:
    if a.get("auto_pad", b"NOTSET") not in (b"NOTSET", b"VALID") or a.get("ceil_mode", 0):
        raise InputError(f"{where}: auto_pad and ceil_mode have no place in the integer reference; give explicit pads")
    return [int(p) for p in a.get("pads", [0, 0, 0, 0])]


def _pad(q: Integers, pads: list[int], value: int) -> Integers:
    top, left, bottom, right = pads
    return np.pad(q, ((0, 0), (0, 0), (top, bottom), (left, right)), constant_values=value) if any(pads) else q


def _windows(q: Integers, kernel: Any, strides: Any, dilations: Any) -> Integers:
    """Sliding windows [N, C, oh, ow, kh, kw], a view."""
    reach = [(int(k) - 1) * int(d) + 1 for k, d in zip(kernel, dilations, strict=True)]
    view = np.lib.stride_tricks.sliding_window_view(q, reach, axis=(2, 3))
    return view[:, :, :: strides[0], :: strides[1], :: dilations[0], :: dilations[1]]


def _lowered(windows: Integers, w: Integers, groups: int) -> Integers:
    """[N, C, oh, ow, kh, kw] and [O, C/g, kh, kw] -> [N, O, oh, ow]."""
    n, c, oh, ow = windows.shape[:4]
    per, out = c // groups, w.shape[0] // groups
    parts = []
    for g in range(groups):
        columns = windows[:, g * per : (g + 1) * per].transpose(0, 1, 4, 5, 2, 3).reshape(n, -1, oh * ow)
        matrix = w[g * out : (g + 1) * out].reshape(out, -1)
        parts.append(matrix_product(matrix, columns))
    return np.concatenate(parts, axis=1).reshape(n, -1, oh, ow)


def _depthwise(windows: Integers, w: Integers, channels: int) -> Integers:
    many = w.shape[0] // channels
    kernels = w.reshape(channels, many, 1, 1, *w.shape[2:])
    acc = np.zeros((windows.shape[0], channels, many, *windows.shape[2:4]), np.int64)
    for i in range(w.shape[2]):
        for j in range(w.shape[3]):
            acc += windows[:, :, None, :, :, i, j] * kernels[None, ..., i, j]
    return acc.reshape(windows.shape[0], channels * many, *windows.shape[2:4])


def _both_plain(args: list[Any]) -> bool:
    return all(not isinstance(v, Fixed) and np.asarray(v).dtype.kind in "iu" for v in args)


def _broadcast(args: list[Any], where: str) -> tuple[Fixed, Fixed]:
    return fixed(args[0], where), fixed(args[1], where)


def _log2(count: int, where: str) -> int:
    if count & (count - 1):
        raise InputError(f"{where}: averages over {count} values, which is not a power of two and so not exact")
    return count.bit_length() - 1


def _shape_of(value: Any) -> tuple[int, ...]:
    return tuple(value.q.shape if isinstance(value, Fixed) else np.shape(value))


def _reshaping(value: Any, change: Callable[[Integers], Integers]) -> Any:
    """Moves samples without computing; per-channel exponents are made uniform first, axes may move."""
    if not isinstance(value, Fixed):
        return change(np.asarray(value))
    x = _uniform(value, "")
    return Fixed(change(x.q), x.exponent)


def _repeat(q: Integers, factors: list[int]) -> Integers:
    for axis, factor in enumerate(factors):
        if factor > 1:
            q = np.repeat(q, factor, axis=axis)
    return q
