"""Post-training quantisation with NNCF: the alternative to training with the rounding in the loop, as a baseline row.

Takes the float twin of a network and calibration tiles, gives an OpenVINO IR that NNCF quantised (8-bit weights, float
scales), and what that costs: distance to the float outputs, and how many elements change between two instruction sets
of the same CPU. Heavy: `pip install 'nadir-payload[ptq]'`.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from export.feeders import Feeder
from export.graph import load_graph
from export.to_openvino import Execution, execution, write_model
from payload.engine import OpenVinoEngine
from payload.errors import InputError

Run = Callable[..., list[NDArray[Any]]]
#: Tiles that NNCF takes its activation ranges from, and tiles that quality is measured on, after those.
CALIBRATION_TILES = 100
OTHER_ISA = "AVX2"


@dataclass(frozen=True)
class Baseline:
    """One row: NNCF PTQ, or the trained INT8 build, against the float outputs of the same weights."""

    what: str
    tiles: int
    snr_db: float
    elements: int
    differing_between_isas: int
    in_int8: int
    convolutions: int

    @property
    def differing_percent(self) -> float:
        return 100.0 * self.differing_between_isas / self.elements if self.elements else 0.0


def require_nncf() -> Any:
    """The nncf module. InputError that says how to get it."""
    try:
        import nncf
    except ImportError:
        raise InputError("post-training quantisation needs NNCF; pip install 'nadir-payload[ptq]'") from None
    return nncf


def quantise_after_training(
    float_model: onnx.ModelProto, feeder: Feeder, xml: Path, tiles: int = CALIBRATION_TILES
) -> Execution:
    """Writes NNCF's INT8 version of `float_model`, calibrated on the feeder's first tiles, as IR."""
    if tiles < 1:
        raise InputError("calibration needs at least 1 tile; give --tiles with real data")
    nncf = require_nncf()
    import openvino

    with tempfile.TemporaryDirectory(prefix="nadir-ptq-") as folder:
        path = Path(folder) / "float.onnx"
        onnx.save(float_model, str(path))
        model = openvino.convert_model(str(path))
    calibration = [tuple(np.asarray(a, np.float32) for a in feeder.arrays(i)) for i in range(tiles)]
    dataset = nncf.Dataset(calibration, lambda arrays: dict(enumerate(arrays)))
    quantised = nncf.quantize(model, dataset, subset_size=tiles, target_device=nncf.TargetDevice.CPU)
    write_model(quantised, xml)
    return execution(xml)


def baselines(
    float_model: onnx.ModelProto, trained: Path, feeder: Feeder, calibration_tiles: int, tiles: int, folder: Path
) -> list[Baseline]:
    """The NNCF row and the trained row, measured on `tiles` tiles that follow the calibration tiles."""
    xml = folder / "ptq.xml"
    quantise_after_training(float_model, feeder, xml, calibration_tiles)
    float_path = folder / "float.onnx"
    onnx.save(float_model, str(float_path))
    chosen = range(calibration_tiles, calibration_tiles + tiles)
    return [
        _measure("NNCF post-training, float scales", xml, float_path, feeder, chosen, folder),
        _measure("trained with rounding in the loop (int8-po2w7)", trained, float_path, feeder, chosen, folder),
    ]


def as_text(rows: list[Baseline]) -> str:
    lines = [f"{'':48} {'SNR to float':>12} {'differ between ISAs':>20} {'INT8 convs':>10}"]
    for row in rows:
        lines.append(
            f"{row.what:48} {row.snr_db:>9.2f} dB {row.differing_between_isas:>10} ({row.differing_percent:.3f} %) "
            f"{row.in_int8:>4}/{row.convolutions}"
        )
    return "\n".join(
        [*lines, f"over {rows[0].tiles} tiles that were not used to calibrate; ISAs: default and {OTHER_ISA}"]
    )


def _measure(what: str, network: Path, float_path: Path, feeder: Feeder, chosen: range, folder: Path) -> Baseline:
    here, exact = OpenVinoEngine(1).load(network), OpenVinoEngine(1).load(float_path)
    types = _input_types(network, float_path)
    noise = power = 0.0
    stored: list[list[NDArray[Any]]] = []
    for tile in chosen:
        arrays = feeder.arrays(tile)
        wanted = exact.run(*(np.asarray(a, np.float32) for a in arrays))
        found = here.run(*(np.asarray(a, t) for a, t in zip(arrays, types, strict=True)))
        noise += sum(float(np.square(f.astype(np.float64) - w).sum()) for f, w in zip(found, wanted, strict=True))
        power += sum(float(np.square(w.astype(np.float64)).sum()) for w in wanted)
        stored.append([*(np.asarray(a, t) for a, t in zip(arrays, types, strict=True)), *found])
    inputs = len(types)
    for i in range(len(stored[0])):
        kind = f"input{i}" if i < inputs else f"reference{i - inputs}"
        np.save(folder / f"{kind}.npy", np.stack([s[i] for s in stored]))
    other = _in_other_isa(network, folder)
    how = execution(network)
    snr = 10 * float(np.log10(power / noise)) if noise and power else float("inf")
    return Baseline(what, len(chosen), snr, other["elements"], other["mismatches"], how.in_int8, len(how.precisions))


def _input_types(network: Path, float_path: Path) -> list[np.dtype[Any]]:
    """Input types of the network, which are f32 for an IR made from the float model."""
    graph = load_graph(network if network.suffix == ".onnx" else float_path)
    return [graph.input_type(n) for n in graph.inputs]


def _in_other_isa(network: Path, folder: Path) -> dict[str, Any]:
    environment = dict(os.environ, ONEDNN_MAX_CPU_ISA=OTHER_ISA, PYTHONPATH=str(Path(__file__).resolve().parents[1]))
    command = [sys.executable, "-m", "export.check_runtime", str(network), str(folder), "openvino", "1"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=3600)
    if done.returncode != 0:
        raise InputError(f"{network}: did not run under {OTHER_ISA}: {done.stderr.strip().splitlines()[-1]}")
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found
