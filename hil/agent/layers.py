"""What a runtime tells of a network from inside: time, precision, work and traffic of every layer it made of it.

OpenVINO's performance counters and ONNX Runtime's profiler. Layers bear the runtime's own names: it fuses and reorders,
so they are not those of the file. Multiply-accumulates follow from the shapes that the runtime reports; octets are what
goes in and out of a layer, the least that it must move.
"""

import json
import math
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from payload.engine import NATIVE

Inputs = Sequence[NDArray[Any]]
Choose = Callable[[Sequence[float]], float]
#: Runs before those that count: memory is touched for the first time, caches fill.
WARM_UP = 2
MOST_LAYERS, LONGEST_NAME = 400, 80
#: Convolutions -> which of their inputs has the weights. A matrix product sums over the last axis of its first input.
ONNX_WEIGHTS = {"Conv": 1, "FusedConv": 1, "NhwcFusedConv": 1, "ConvInteger": 1, "QLinearConv": 3}
ONNX_PRODUCTS = ("MatMul", "Gemm", "FusedMatMul", "MatMulInteger", "QLinearMatMul", "QGemm")
KERNEL_TIME = "_kernel_time"  # how the profiler's events of nodes end
PRECISIONS = {"i8": "INT8", "u8": "INT8", "int8": "INT8", "uint8": "INT8", "f32": "FP32", "float": "FP32",
              "f16": "FP16", "float16": "FP16", "bf16": "BF16"}  # fmt: skip


@dataclass(frozen=True)
class Layer:
    """One layer as the runtime runs it."""

    name: str
    kind: str
    precision: str  # INT8, FP32, ...: of its arithmetic
    macs: float
    octets: float
    seconds: float


@dataclass(frozen=True)
class NetworkTimes:
    """Seconds of every run of a network, and its layers where they were asked for."""

    run_s: tuple[float, ...]
    layers: tuple[Layer, ...]

    def fields(self) -> dict[str, Any]:
        """As JSON values."""
        return {"run_s": list(self.run_s), "layers": [list(astuple(layer)) for layer in self.layers[:MOST_LAYERS]]}


def network_times(
    path: Path, inputs: Inputs, engine: str, threads: int, runs: int, layers: bool, choose: Choose = median
) -> NetworkTimes:
    """The network of a file with these inputs by the runtime called `engine`. RuntimeError if it does not take them."""
    if engine in ("openvino", NATIVE):
        import openvino

        model = openvino.Core().read_model(str(path))
        model.reshape({port: list(array.shape) for port, array in zip(model.inputs, inputs, strict=True)})
        return openvino_times(model, inputs, threads, runs, layers, choose)
    if engine == "onnxruntime":
        return onnxruntime_times(str(path), inputs, threads, runs, layers, choose)
    raise RuntimeError(f"engine {engine} does not tell of its layers")


def openvino_times(
    model: Any, inputs: Inputs, threads: int, runs: int, layers: bool, choose: Choose = median
) -> NetworkTimes:
    """As `network_times`, of a model that OpenVINO has read or that was made with it."""
    import openvino

    config = {
        "INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": str(threads), "NUM_STREAMS": "1",
        "ENABLE_CPU_PINNING": "NO", "PERF_COUNT": "YES" if layers else "NO",
    }  # fmt: skip
    compiled = openvino.Core().compile_model(model, "CPU", config)
    request = compiled.create_infer_request()
    taken: dict[str, list[float]] = defaultdict(list)

    def note() -> None:
        for told in request.get_profiling_info():
            taken[told.node_name].append(told.real_time.total_seconds())

    run_s = _runs(lambda: request.infer(dict(enumerate(inputs)), share_inputs=True), runs, note if layers else None)
    return NetworkTimes(run_s, tuple(_openvino_layers(compiled, taken, choose)) if layers else ())


def onnxruntime_times(
    model: str | bytes, inputs: Inputs, threads: int, runs: int, layers: bool, choose: Choose = median
) -> NetworkTimes:
    """As `network_times`, of a file or the octets of one."""
    run_s, events = _onnx_session(model, inputs, threads, runs, layers)
    if not layers:
        return NetworkTimes(run_s, ())
    # Weights that were packed anew have no shape in the profile: another session that packs none tells it.
    _, plain = _onnx_session(model, inputs, threads, 1, True, packed=False)
    shapes = {event["name"]: event["args"] for event in plain}
    return NetworkTimes(run_s, tuple(_onnx_layers(events, shapes, runs, choose)))


def _onnx_session(
    model: str | bytes, inputs: Inputs, threads: int, runs: int, profiled: bool, packed: bool = True
) -> tuple[tuple[float, ...], list[dict[str, Any]]]:
    """Seconds of the runs, and the profiler's events of kernels."""
    import onnxruntime

    with tempfile.TemporaryDirectory() as folder:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads, options.log_severity_level = threads, 1, 4
        options.enable_profiling, options.profile_file_prefix = profiled, f"{folder}/profile"
        options.add_session_config_entry("session.disable_prepacking", "0" if packed else "1")
        session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        given = dict(zip([value.name for value in session.get_inputs()], inputs, strict=True))
        run_s = _runs(lambda: session.run(None, given), runs)
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8")) if profiled else []
    return run_s, [e for e in events if e.get("cat") == "Node" and e["name"].endswith(KERNEL_TIME)]


def _runs(run: Callable[[], object], runs: int, after: Callable[[], None] | None = None) -> tuple[float, ...]:
    for _ in range(WARM_UP):
        run()
    taken = []
    for _ in range(runs):
        before_s = time.perf_counter()
        run()
        taken.append(time.perf_counter() - before_s)
        if after:
            after()
    return tuple(taken)


def _openvino_layers(compiled: Any, taken: dict[str, list[float]], choose: Choose) -> list[Layer]:
    """Layers that took time, in the order they run."""
    layers = []
    for node in compiled.get_runtime_model().get_ordered_ops():
        told, name = node.get_rt_info(), node.get_friendly_name()
        seconds = choose(taken[name]) if name in taken else 0.0
        if seconds <= 0.0:
            continue
        kind, precision = (str(told[key].astype(str)) for key in ("layerType", "runtimePrecision"))
        ports = [*node.inputs(), *node.outputs()]
        shapes = [tuple(port.get_shape()) for port in ports]
        octets = sum(math.prod(s) * port.get_element_type().size for s, port in zip(shapes, ports, strict=True))
        macs = _openvino_macs(kind, shapes, len(node.inputs()))
        layers.append(Layer(name[-LONGEST_NAME:], kind, _precision(precision), macs, float(octets), seconds))
    return layers


def _openvino_macs(kind: str, shapes: Sequence[tuple[int, ...]], inputs: int) -> float:
    out = shapes[inputs] if len(shapes) > inputs else ()
    if "onvolution" in kind and inputs > 1 and len(out) > 1:
        return _convolution_macs(out, shapes[1], out[1])
    if kind in ("FullyConnected", "MatMul") and inputs > 1 and shapes[0]:
        return float(math.prod(out) * shapes[0][-1])
    return 0.0


def _convolution_macs(out: Sequence[int], weights: Sequence[int], channels: int) -> float:
    """Every output pixel meets every weight once. `out` in any order of its axes."""
    return math.prod(out) / channels * math.prod(weights)


def _onnx_layers(
    events: Sequence[dict[str, Any]], shapes: dict[str, dict[str, Any]], runs: int, choose: Choose
) -> list[Layer]:
    """Nodes in the order they run; the last `runs` times of each."""
    taken: dict[str, list[float]] = defaultdict(list)
    args: dict[str, dict[str, Any]] = {}
    for event in events:
        taken[event["name"]].append(1e-6 * event["dur"])
        args[event["name"]] = shapes.get(event["name"], event["args"])
    return [
        _onnx_layer(name.removesuffix(KERNEL_TIME), args[name], choose(seconds[-runs:]))
        for name, seconds in taken.items()
    ]


def _onnx_layer(name: str, args: dict[str, Any], seconds: float) -> Layer:
    kind = str(args.get("op_name", ""))
    given, made = (_shapes(args.get(f"{way}_type_shape", ())) for way in ("input", "output"))
    octets = sum(float(args.get(f"{part}_size", 0)) for part in ("activation", "parameter", "output"))
    precision = _precision(given[0][0] if given else "")
    return Layer(name[-LONGEST_NAME:], kind, precision, _onnx_macs(kind, given, made), octets, seconds)


def _shapes(told: Sequence[dict[str, list[int]]]) -> list[tuple[str, list[int]]]:
    """(element type, shape) of each, as the profiler writes them."""
    return [next(iter(one.items())) for one in told if one]


def _onnx_macs(kind: str, given: Sequence[tuple[str, list[int]]], made: Sequence[tuple[str, list[int]]]) -> float:
    if kind in ONNX_WEIGHTS and len(given) > ONNX_WEIGHTS[kind] and made:
        weights = given[ONNX_WEIGHTS[kind]][1]
        return _convolution_macs(made[0][1], weights, weights[0])
    if kind in ONNX_PRODUCTS and given and made:
        return float(math.prod(made[0][1]) * given[0][1][-1])
    return 0.0


def _precision(name: str) -> str:
    return PRECISIONS.get(name, name.upper() or "unknown")


def batched(inputs: Inputs, batch: int) -> list[NDArray[Any]]:
    """The inputs of so many tiles at once: every array repeated along its first axis."""
    return [np.concatenate([array] * batch) if batch > 1 else array for array in inputs]
