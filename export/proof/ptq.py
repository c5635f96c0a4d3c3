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

from export.graphs.graph import input_types
from export.graphs.to_openvino import Execution, execution, write_model
from export.proof.inputs import Feeder
from payload.codec.interface import LatentQuantiser
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
    agreement_percent: float | None  # of indices or classes with the float network's; None where nothing quantises
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
    float_model: onnx.ModelProto,
    trained: Path,
    feeder: Feeder,
    chosen: tuple[int, int],
    folder: Path,
    quantiser: LatentQuantiser | None = None,
) -> list[Baseline]:
    """The NNCF row and the trained row. `chosen`: tiles to calibrate on, and tiles after them to measure on."""
    calibration_tiles, tiles = chosen
    xml = folder / "ptq.xml"
    quantise_after_training(float_model, feeder, xml, calibration_tiles)
    float_path = folder / "float.onnx"
    onnx.save(float_model, str(float_path))
    unseen = range(calibration_tiles, calibration_tiles + tiles)
    what = {"NNCF post-training, float scales": xml, "trained with rounding in the loop (int8-po2w7)": trained}
    return [_measure(w, n, float_path, feeder, unseen, folder, quantiser) for w, n in what.items()]


def as_text(rows: list[Baseline]) -> str:
    head = f"{'SNR to float':>12} {'indices agree':>13} {'elements differ between ISAs':>28} {'INT8 convs':>10}"
    lines = [f"{'':48} {head}"]
    for row in rows:
        agree = "" if row.agreement_percent is None else f"{row.agreement_percent:.3f} %"
        differ = f"{row.differing_between_isas} ({row.differing_percent:.3f} %)"
        lines.append(
            f"{row.what:48} {row.snr_db:>9.2f} dB {agree:>13} {differ:>28} {row.in_int8:>7}/{row.convolutions}"
        )
    return "\n".join(
        [*lines, f"over {rows[0].tiles} tiles that were not used to calibrate; ISAs: default and {OTHER_ISA}"]
    )


def _measure(
    what: str,
    network: Path,
    float_path: Path,
    feeder: Feeder,
    chosen: range,
    folder: Path,
    quantiser: LatentQuantiser | None,
) -> Baseline:
    here, exact = OpenVinoEngine(1).load(network), OpenVinoEngine(1).load(float_path)
    types = _input_types(network, len(feeder.arrays(0)))
    noise = power = 0.0
    alike: list[float] = []
    stored: list[list[NDArray[Any]]] = []
    for tile in chosen:
        arrays = feeder.arrays(tile)
        wanted = exact.run(*(np.asarray(a, np.float32) for a in arrays))
        found = here.run(*(np.asarray(a, t) for a, t in zip(arrays, types, strict=True)))
        noise += sum(float(np.square(f.astype(np.float64) - w).sum()) for f, w in zip(found, wanted, strict=True))
        power += sum(float(np.square(w.astype(np.float64)).sum()) for w in wanted)
        if quantiser is not None:
            indices = [quantiser.indices(quantiser.latents(o)) for o in (found, wanted)]
            alike.append(float(np.mean(indices[0] == indices[1])))
        stored.append([*(np.asarray(a, t) for a, t in zip(arrays, types, strict=True)), *found])
    inputs = len(types)
    for i in range(len(stored[0])):
        kind = f"input{i}" if i < inputs else f"reference{i - inputs}"
        np.save(folder / f"{kind}.npy", np.stack([s[i] for s in stored]))
    other = _in_other_isa(network, folder)
    how = execution(network)
    snr = 10 * float(np.log10(power / noise)) if noise and power else float("inf")
    agreement = 100 * float(np.mean(alike)) if alike else None
    return Baseline(
        what, len(chosen), snr, agreement, other["elements"], other["mismatches"], how.in_int8, len(how.precisions)
    )


def _input_types(network: Path, inputs: int) -> list[np.dtype[Any]]:
    """Input types of the network, which are f32 for an IR made from the float model."""
    return input_types(network) if network.suffix == ".onnx" else [np.dtype(np.float32)] * inputs


def _in_other_isa(network: Path, folder: Path) -> dict[str, Any]:
    environment = dict(os.environ, ONEDNN_MAX_CPU_ISA=OTHER_ISA, PYTHONPATH=str(Path(__file__).resolve().parents[2]))
    command = [sys.executable, "-m", "export.proof.check_runtime", str(network), str(folder), "openvino", "1"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=3600)
    if done.returncode != 0:
        raise InputError(f"{network}: did not run under {OTHER_ISA}: {done.stderr.strip().splitlines()[-1]}")
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found
