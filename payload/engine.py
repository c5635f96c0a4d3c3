"""The inference runtime behind a one-method protocol. The only module of the payload that imports a runtime.

Traps measured on real runtimes, held here so that nobody falls into them again: the default inference precision of
recent CPUs is bf16 (changes 6-10 % of indices), threads change float sums, and model caching hides rebuilt files.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from payload.errors import BundleError, InputError

#: `native`: the compiled kernel computes the encoder and the cloud network, OpenVINO what else there is to compute.
ENGINES = ("openvino", "onnxruntime", "native")
NATIVE = "native"


class Network(Protocol):
    """One loaded network."""

    def run(self, *inputs: NDArray[Any]) -> list[NDArray[Any]]:
        """Arrays in the order of the network's inputs; arrays in the order of its outputs."""
        ...


class Engine(Protocol):
    """Loads networks; `name` says which runtime it is, `version` its release. A network may be loaded for the one
    `shape` of its only input that it will be given: some runtimes are the faster for it. One that `reshapes` takes
    another first axis than the file's, too."""

    name: str
    version: str

    def load(self, path: Path, require_int8: bool = False, shape: tuple[int, ...] | None = None) -> Network: ...


class OpenVinoEngine:
    """OpenVINO on the CPU, f32 where it is not INT8, a fixed number of threads."""

    name = "openvino"
    reshapes = True

    def __init__(self, threads: int = 1) -> None:
        import openvino

        self.version = str(openvino.__version__)
        self._core = openvino.Core()
        self._config = {
            "INFERENCE_PRECISION_HINT": "f32",
            "INFERENCE_NUM_THREADS": str(threads),
            "NUM_STREAMS": "1",
            "PERFORMANCE_HINT": "LATENCY",
            "ENABLE_CPU_PINNING": "NO",  # a pinned thread waits for its core when another process has it
        }

    def load(self, path: Path, require_int8: bool = False, shape: tuple[int, ...] | None = None) -> "OpenVinoNetwork":
        try:
            model = self._core.read_model(str(path))
            if shape is not None:
                _reshape(model, path, shape)
            compiled = self._core.compile_model(model, "CPU", self._config)
        except RuntimeError as error:
            _raise_if_out_of_memory(path, error)
            raise BundleError(
                f"{path}: OpenVINO cannot load this network: {_first_line(error)}; rebuild the bundle"
            ) from None
        if require_int8:
            _refuse_float_convolutions(path, compiled)
        return OpenVinoNetwork(compiled) if shape is None else OneShapeNetwork(compiled)


class NativeEngine(OpenVinoEngine):
    """The codec's encoder and the cloud network run in the compiled kernel, every other network in OpenVINO.

    The kernel works in 16-bit integers and folds by symmetry: on a processor without 8-bit dot products that is ten
    times as fast as a general convolution."""

    name = NATIVE


class OpenVinoNetwork:
    def __init__(self, compiled: Any) -> None:
        self.compiled = compiled
        self._request = compiled.create_infer_request()
        self._outputs = list(compiled.outputs)

    def run(self, *inputs: NDArray[Any]) -> list[NDArray[Any]]:
        try:
            results = self._request.infer(dict(enumerate(inputs)), share_inputs=True)
        except RuntimeError as error:
            raise _misfit(inputs, error) from None
        return [np.array(results[output]) for output in self._outputs]


class OneShapeNetwork(OpenVinoNetwork):
    """A network with one input of one shape. Its memory is bound once: to have the runtime look for it at every run
    costs a small network more than a tenth of its time."""

    def __init__(self, compiled: Any) -> None:
        super().__init__(compiled)
        self._given = self._request.get_input_tensor().data
        self._found = [self._request.get_output_tensor(i).data for i in range(len(self._outputs))]

    def run(self, *inputs: NDArray[Any]) -> list[NDArray[Any]]:
        if [(a.shape, a.dtype) for a in inputs] != [(self._given.shape, self._given.dtype)]:
            raise _misfit(inputs, ValueError(f"it was loaded for {self._given.dtype} {list(self._given.shape)}"))
        np.copyto(self._given, inputs[0])
        self._request.infer(share_outputs=True)
        return [array.copy() for array in self._found]


class OnnxRuntimeEngine:
    """ONNX Runtime on the CPU."""

    name = "onnxruntime"

    def __init__(self, threads: int = 1) -> None:
        import onnxruntime

        self.version = str(onnxruntime.__version__)
        self._runtime = onnxruntime
        self._options = onnxruntime.SessionOptions()
        self._options.intra_op_num_threads = threads
        self._options.inter_op_num_threads = 1
        self._options.log_severity_level = 3

    def load(
        self, path: Path, require_int8: bool = False, shape: tuple[int, ...] | None = None
    ) -> "OnnxRuntimeNetwork":
        try:
            session = self._runtime.InferenceSession(str(path), self._options, providers=["CPUExecutionProvider"])
        except Exception as error:  # the runtime raises its own family of C++ exceptions
            _raise_if_out_of_memory(path, error)
            raise BundleError(
                f"{path}: ONNX Runtime cannot load this network: {_first_line(error)}; rebuild the bundle"
            ) from None
        return OnnxRuntimeNetwork(session)


class OnnxRuntimeNetwork:
    def __init__(self, session: Any) -> None:
        self._session = session
        self._names = [value.name for value in session.get_inputs()]

    def run(self, *inputs: NDArray[Any]) -> list[NDArray[Any]]:
        try:
            return list(self._session.run(None, dict(zip(self._names, inputs, strict=True))))
        except Exception as error:  # the runtime raises its own family of C++ exceptions
            raise _misfit(inputs, error) from None


def open_engine(name: str = "openvino", threads: int = 1) -> Engine:
    """The engine called `name`, one of ENGINES. InputError if it is unknown or not installed."""
    if name not in ENGINES:
        raise InputError(f"engine {name!r} is unknown; choose one of {', '.join(ENGINES)}")
    try:
        makers: dict[str, Callable[[int], Engine]] = {
            "openvino": OpenVinoEngine,
            "onnxruntime": OnnxRuntimeEngine,
            NATIVE: NativeEngine,
        }
        return makers[name](threads)
    except ImportError as error:
        raise InputError(f"engine {name!r} is not installed here; pip install {error.name}") from None


def as_integers(values: NDArray[Any], dtype: str) -> NDArray[Any]:
    """What a device that runs floats gave, as the payload takes it: rounded half to even and bounded by an integer
    type, or the floats themselves."""
    if np.dtype(dtype).kind not in "iu":
        return np.asarray(values, dtype)
    return np.clip(np.rint(values), np.iinfo(dtype).min, np.iinfo(dtype).max).astype(dtype)


def convolution_precisions(compiled: Any) -> dict[str, str]:
    """Runtime precision of every convolution in a compiled OpenVINO model, by layer name."""
    found = {}
    for node in compiled.get_runtime_model().get_ordered_ops():
        info = node.get_rt_info()
        if "onvolution" in str(info["layerType"].astype(str) if "layerType" in info else ""):
            found[node.get_friendly_name()] = str(info["runtimePrecision"].astype(str))
    return found


def constants_of(path: Path) -> tuple[dict[str, NDArray[Any]], dict[str, int]]:
    """The constants of a network's file by their names, as they are stored, and how often each operator is in it."""
    operators = _read(path).get_ordered_ops()
    constants = {op.get_friendly_name(): op.data for op in operators if op.get_type_name() == "Constant"}
    return constants, dict(Counter(op.get_type_name() for op in operators))


def _read(path: Path) -> Any:
    import openvino

    try:
        return openvino.Core().read_model(str(path))
    except RuntimeError as error:
        raise BundleError(
            f"{path}: OpenVINO cannot read this network: {_first_line(error)}; rebuild the bundle"
        ) from None


@dataclass(frozen=True, eq=False)
class Operator:
    """An operator of a network: where its inputs stand in the list, the value of a constant, and its own settings."""

    kind: str
    inputs: tuple[int, ...]
    constant: NDArray[Any] | None
    attributes: dict[str, Any]


def operators_of(path: Path) -> list[Operator]:
    """A network's operators in an order to compute them in; what can be computed without its input is a constant."""
    from openvino.passes import ConstantFolding, Manager

    model = _read(path)
    fold = Manager()
    fold.register_pass(ConstantFolding())
    fold.run_passes(model)
    ordered = model.get_ordered_ops()
    places = {operator.get_friendly_name(): place for place, operator in enumerate(ordered)}
    return [
        Operator(
            operator.get_type_name(), tuple(places[i.get_node().get_friendly_name()] for i in operator.input_values()),
            np.array(operator.data) if operator.get_type_name() == "Constant" else None, operator.get_attributes(),
        )
        for operator in ordered
    ]  # fmt: skip


def _refuse_float_convolutions(path: Path, compiled: Any) -> None:
    slow = sorted(n for n, p in convolution_precisions(compiled).items() if p not in ("u8", "i8"))
    if slow:
        raise BundleError(
            f"{path}: {len(slow)} convolutions run in float ({slow[0]}, ...), all must run in INT8; "
            "rebuild with `python -m export build --target int8-po2w7`"
        )


def _reshape(model: Any, path: Path, shape: tuple[int, ...]) -> None:
    """The first axis as it is wanted; the others, too, where the file leaves them open."""
    made_for = model.input(0).partial_shape
    others = list(zip(made_for, shape, strict=False))[1:]
    if len(made_for) != len(shape) or any(axis.is_static and axis.get_length() != n for axis, n in others):
        raise BundleError(
            f"{path}: this network is made for {made_for}, the manifest's tiles want {list(shape)}; its manifest and "
            "its networks do not fit together: restore the bundle or rebuild it"
        )
    model.reshape(list(shape))


def _misfit(inputs: tuple[NDArray[Any], ...], error: Exception) -> BundleError:
    given = ", ".join(f"{array.dtype} {list(array.shape)}" for array in inputs)
    return BundleError(
        f"a network of the bundle does not take {given} ({_first_line(error)}); "
        "its manifest and its networks do not fit together: restore the bundle or rebuild it"
    )


def _raise_if_out_of_memory(path: Path, error: Exception) -> None:
    """MemoryError where a runtime's own error means that: no rebuilt bundle would mend it."""
    text = str(error).lower()
    if any(words in text for words in ("bad_alloc", "bad alloc", "allocate", "out of memory")):
        raise MemoryError(f"loading {path.name}: {_first_line(error)}") from None


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1][:200] if lines else type(error).__name__
