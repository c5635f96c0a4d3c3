"""What the device reaches at best: multiply-accumulates a second by the runtime itself, octets a second of its memory.

The runtime is given one large convolution (OpenVINO) or matrix product (ONNX Runtime), in INT8 and in FP32: a ceiling
that the networks' own layers share with it. Where the runtime has no INT8 of its own, there is no INT8 ceiling.
"""

import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from hil.agent.kernel_files import SYS, text
from hil.agent.layers import Layer, NetworkTimes, onnxruntime_times, openvino_times
from payload.engine import NATIVE

LEAST_COPIED_OCTETS, MOST_COPIED_OCTETS = 64 * 2**20, 1024 * 2**20
RUNS = 100
CHANNELS, SIDE_PX, KERNEL = 128, 16, 3  # 38 MMAC: weights and planes lie in the second cache
MATRIX = 384
#: ONNX numbers of element types.
FLOAT, UINT8, INT8, INT32 = 1, 2, 3, 6


def ceilings(engine: str, threads: int) -> dict[str, Any]:
    """As JSON values. `int8_gmac_s`, `f32_gmac_s`: None where this runtime has none; `by`: what was run."""
    try:
        compute = _of_runtime(engine, threads)
    except (ImportError, RuntimeError):
        compute = _of_numpy()
    return compute | memory(threads)


def best_of(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """The higher of every two figures: what disturbs the device can only lower them."""
    return one | {key: max(one[key], other[key]) for key in one if key.endswith("_s") and one[key] and other[key]}


def memory(threads: int) -> dict[str, float]:
    """Octets a second of a copy that no cache holds, read and written, by so many threads."""
    octets = copied_octets(_largest_cache_octets(), os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    block = np.ones(octets, np.uint8)  # ones: pages that were never written would all be the same one
    half = octets // 2
    cuts = np.linspace(0, half, threads + 1).astype(int)

    def copy(n: int) -> None:
        np.copyto(block[cuts[n] : cuts[n + 1]], block[half + cuts[n] : half + cuts[n + 1]])

    with ThreadPoolExecutor(threads) as workers:
        seconds = _fastest_s(lambda: list(workers.map(copy, range(threads))), times=5)
    return {"memory_gb_s": 2 * half / seconds / 1e9, "copied_mib": octets / 2**20}


def copied_octets(cache_octets: int, memory_octets: int) -> int:
    """How much has to move to come from the memory itself: four times the largest cache, within an eighth of it all."""
    return min(max(4 * cache_octets, LEAST_COPIED_OCTETS), MOST_COPIED_OCTETS, memory_octets // 8)


def _largest_cache_octets(root: str = SYS) -> int:
    """Of the caches that the kernel tells of; 0 where it tells of none."""
    units = {"K": 1024, "M": 1024**2}
    found = [text(path) or "" for path in Path(root).glob("devices/system/cpu/cpu0/cache/index*/size")]
    return max((int(size[:-1]) * units.get(size[-1], 1) for size in found if size[:-1].isdigit()), default=0)


def _of_runtime(engine: str, threads: int) -> dict[str, Any]:
    if engine in ("openvino", NATIVE):
        made = {name: _convolution(name, threads) for name in ("INT8", "FP32")}
        by = f"OpenVINO: {KERNEL} x {KERNEL} convolution, {CHANNELS} to {CHANNELS} channels, {SIDE_PX} x {SIDE_PX} px"
    elif engine == "onnxruntime":
        made = {name: _matrix_product(name, threads) for name in ("INT8", "FP32")}
        by = f"ONNX Runtime: a product of matrices of {MATRIX} x {MATRIX}"
    else:
        raise RuntimeError(f"engine {engine} runs no network of ours")
    return {"int8_gmac_s": _fastest(made["INT8"], "INT8"), "f32_gmac_s": _fastest(made["FP32"], "FP32"), "by": by}


def _fastest(times: NetworkTimes, precision: str) -> float | None:
    """GMAC/s of the layer that works; None where the runtime ran it in another precision."""
    worked: Layer = max(times.layers, key=lambda layer: layer.macs)
    return worked.macs / worked.seconds / 1e9 if worked.precision == precision and worked.macs else None


def _convolution(precision: str, threads: int) -> NetworkTimes:
    import openvino
    from openvino import opset13 as op

    random = np.random.default_rng(0)
    planes = op.parameter([1, CHANNELS, SIDE_PX, SIDE_PX], np.float32)
    weights = random.integers(-63, 64, (CHANNELS, CHANNELS, KERNEL, KERNEL))
    pads = [KERNEL // 2] * 2
    if precision == "INT8":
        scaled = op.multiply(op.convert(op.constant(weights.astype(np.int8)), np.float32), np.float32(2**-10))
        made = op.convolution(_to_u8(planes), scaled, [1, 1], pads, pads, [1, 1])
        made = _to_u8(op.relu(made))
    else:
        made = op.convolution(planes, op.constant(weights.astype(np.float32)), [1, 1], pads, pads, [1, 1])
    model = openvino.Model([op.result(made)], [planes], "ceiling")
    values = random.integers(0, 256, (1, CHANNELS, SIDE_PX, SIDE_PX)).astype(np.float32)
    return openvino_times(model, [values], threads, RUNS, True, min)


def _to_u8(values: Any) -> Any:
    from openvino import opset13 as op

    low, high = np.float32(0), np.float32(255)
    return op.fake_quantize(values, low, high, low, high, 256)


def _matrix_product(precision: str, threads: int) -> NetworkTimes:
    random = np.random.default_rng(0)
    a, b = random.integers(0, 256, (MATRIX, MATRIX)), random.integers(-63, 64, (MATRIX, MATRIX))
    if precision == "INT8":
        model, given = product_model("MatMulInteger", UINT8, INT8, INT32), [a.astype(np.uint8), b.astype(np.int8)]
    else:
        model, given = product_model("MatMul", FLOAT, FLOAT, FLOAT), [a.astype(np.float32), b.astype(np.float32)]
    return onnxruntime_times(model, given, threads, RUNS, True, min)


def product_model(operator: str, left: int, right: int, made: int) -> bytes:
    """An ONNX model of one matrix product, octet by octet: no library that writes ONNX is on a device."""
    node = _field(1, b"a") + _field(1, b"b") + _field(2, b"c") + _field(3, b"product") + _field(4, operator.encode())
    values = _field(11, _value(b"a", left)) + _field(11, _value(b"b", right)) + _field(12, _value(b"c", made))
    graph = _field(1, node) + _field(2, b"ceiling") + values
    return _field(1, 8) + _field(7, graph) + _field(8, _field(1, b"") + _field(2, 13))  # IR version 8, opset 13


def _value(name: bytes, element: int) -> bytes:
    shape = _field(1, _field(1, MATRIX)) * 2
    return _field(1, name) + _field(2, _field(1, _field(1, element) + _field(2, shape)))


def _field(number: int, value: int | bytes) -> bytes:
    """One field of a protobuf message: a number, or octets with their length."""
    if isinstance(value, int):
        return _varint(number << 3) + _varint(value)
    return _varint(number << 3 | 2) + _varint(len(value)) + value


def _varint(value: int) -> bytes:
    """Seven bits an octet, the least significant first; the top bit says that more follow."""
    return bytes([value & 127 | 128]) + _varint(value >> 7) if value > 127 else bytes([value])


def _of_numpy() -> dict[str, Any]:
    a = np.ones((768, 768), np.float32)
    gmac_s = a.shape[0] ** 3 / _fastest_s(lambda: a @ a) / 1e9
    return {"int8_gmac_s": None, "f32_gmac_s": gmac_s, "by": "numpy: a product of matrices of 768 x 768"}


def _fastest_s(work: Callable[[], object], times: int = 12) -> float:
    taken = []
    for _ in range(times):
        before_s = time.perf_counter()
        work()
        taken.append(time.perf_counter() - before_s)
    return min(taken)
