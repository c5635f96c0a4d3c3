"""FP16 in simulation: what a VPU does to the latents, and what that costs, before any device is at hand.

Takes a float network, gives the same network with every tensor and weight rounded to FP16 (storage in FP16, sums in
f32: the kinder of the two things a VPU may do). Index agreement and PSNR cost compare it with the INT8 reference.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from export.proof.inputs import Feeder
from payload.codec.interface import LatentQuantiser
from payload.errors import InputError

Run = Callable[..., list[NDArray[Any]]]
#: PSNR is stated for this peak, in DN.
PEAK_DN = 10_000.0


@dataclass(frozen=True)
class Agreement:
    """FP16 against the INT8 reference over some tiles.

    PSNR (peak 10 000 DN) is of the latents that the indices rebuild, against the reference's own latents: the pixels'
    PSNR as far as the transform is orthonormal. None where latents have no unit in DN or classes are compared.
    """

    network: str
    quantiser: str
    tiles: int
    indices: int
    differing: int
    largest_difference: int
    psnr_reference_db: float | None
    psnr_half_db: float | None
    latent_snr_db: float

    @property
    def agreement_percent(self) -> float:
        return 100.0 * (1 - self.differing / self.indices) if self.indices else 100.0

    @property
    def psnr_cost_db(self) -> float | None:
        if self.psnr_reference_db is None or self.psnr_half_db is None:
            return None
        return self.psnr_reference_db - self.psnr_half_db


def in_half_precision(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with f32 weights rounded to FP16 and every float result passed through FP16."""
    half = onnx.ModelProto()
    half.CopyFrom(model)
    for tensor in half.graph.initializer:
        array = numpy_helper.to_array(tensor)
        if array.dtype == np.float32:
            tensor.CopyFrom(numpy_helper.from_array(_rounded(tensor.name, array), tensor.name))
    rounded: dict[str, str] = {}
    nodes = []
    for value in half.graph.input:
        nodes += _through_half(value.name, rounded)
    outputs = {value.name for value in half.graph.output}
    for node in half.graph.node:
        node.input[:] = [rounded.get(n, n) for n in node.input]
        exact = node.output[0]
        if exact in outputs:  # the name stays with the rounded value
            node.output[0] = f"{exact}_exact"
        nodes.append(node)
        nodes += _through_half(node.output[0], rounded, exact if exact in outputs else None)
        rounded[exact] = rounded.pop(node.output[0])
    del half.graph.node[:]
    half.graph.node.extend(nodes)
    del half.graph.value_info[:]
    onnx.checker.check_model(half, full_check=True)
    return half


def open_half(model: onnx.ModelProto) -> Run:
    """A function that runs the FP16 simulation. Graph optimisation is off: it would cancel the casts."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    octets = in_half_precision(model).SerializeToString()
    session = onnxruntime.InferenceSession(octets, options, providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_inputs()]

    def run(*arrays: NDArray[Any]) -> list[NDArray[Any]]:
        feeds = {n: np.asarray(a, np.float32) for n, a in zip(names, arrays, strict=True)}
        return list(session.run(None, feeds))

    return run


def compare(
    network: str,
    reference: Run,
    half: Run,
    feeder: Feeder,
    tiles: int,
    quantisers: Sequence[LatentQuantiser],
) -> list[Agreement]:
    """Index agreement and PSNR of `half` over the feeder's first tiles, one result per quantiser."""
    if tiles < 1:
        raise InputError(f"comparing over {tiles} tiles; give at least 1")
    tallies = [_Tally() for _ in quantisers]
    for tile in range(tiles):
        arrays = feeder.arrays(tile)
        exact, rounded = reference(*arrays), half(*arrays)
        for quantiser, tally in zip(quantisers, tallies, strict=True):
            tally.add(quantiser, quantiser.latents(exact), quantiser.latents(rounded))
    return [tally.result(network, q, tiles) for q, tally in zip(quantisers, tallies, strict=True)]


def as_text(found: Sequence[Agreement], sums: str = "f32") -> str:
    """The comparison as a table."""
    what = f"FP16 in simulation (storage FP16, sums {sums});"
    lines = [f"{what:60} {'indices':>10} {'agree %':>9} {'PSNR int8':>10} {'cost dB':>8}"]
    for a in found:
        psnr = "" if a.psnr_reference_db is None else f"{a.psnr_reference_db:.2f} dB"
        cost = "" if a.psnr_cost_db is None else f"{a.psnr_cost_db:.4f}"
        what = f"{a.network}, {a.quantiser}, {a.tiles} tiles"
        lines.append(f"{what:60} {a.indices:>10} {a.agreement_percent:>9.4f} {psnr:>10} {cost:>8}")
    return "\n".join(lines)


@dataclass(eq=False)
class _Tally:
    """Running sums of one comparison."""

    indices: int = 0
    differing: int = 0
    largest: int = 0
    samples: int = 0
    error_reference: float = 0.0
    error_half: float = 0.0
    noise: float = 0.0
    power: float = 0.0

    def add(self, quantiser: LatentQuantiser, exact: NDArray[Any], rounded: NDArray[Any]) -> None:
        wanted, found = quantiser.indices(exact), quantiser.indices(rounded)
        difference = np.abs(wanted.astype(np.int64) - found.astype(np.int64))
        self.indices += difference.size
        self.differing += int(np.count_nonzero(difference))
        self.largest = max(self.largest, int(difference.max(initial=0)))
        latents = exact.astype(np.float64)
        self.noise += float(np.square(rounded - latents).sum())
        self.power += float(np.square(latents).sum())
        self.samples += latents.size
        if quantiser.unit_dn is not None:
            self.error_reference += float(np.square(quantiser.rebuilt(wanted) - latents).sum())
            self.error_half += float(np.square(quantiser.rebuilt(found) - latents).sum())

    def result(self, network: str, quantiser: LatentQuantiser, tiles: int) -> Agreement:
        snr = 10 * float(np.log10(self.power / self.noise)) if self.noise and self.power else float("inf")
        psnr = [self._psnr_db(quantiser.unit_dn, error) for error in (self.error_reference, self.error_half)]
        return Agreement(
            network, quantiser.name, tiles, self.indices, self.differing, self.largest, psnr[0], psnr[1], snr
        )

    def _psnr_db(self, unit_dn: float | None, error: float) -> float | None:
        if unit_dn is None or error == 0:
            return None
        return 10 * float(np.log10(PEAK_DN**2 * self.samples / (error * unit_dn**2)))


def _rounded(name: str, array: NDArray[np.float32]) -> NDArray[np.float32]:
    half = array.astype(np.float16).astype(np.float32)
    if not np.all(np.isfinite(half)):
        raise InputError(f"constant {name} reaches {np.abs(array).max():g}, FP16 ends at 65504; scale the network down")
    return half


def _through_half(name: str, rounded: dict[str, str], keep: str | None = None) -> list[onnx.NodeProto]:
    half, back = f"{name}_half", keep or f"{name}_rounded"
    rounded[name] = back
    return [
        helper.make_node("Cast", [name], [half], to=TensorProto.FLOAT16, name=half),
        helper.make_node("Cast", [half], [back], to=TensorProto.FLOAT, name=f"{name}_cast_back"),
    ]
