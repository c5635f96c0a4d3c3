"""ONNX -> OpenVINO IR, with the proof that it runs in INT8.

The IR is what boots fastest on an OpenVINO device; the ONNX file stays the reference. Weights are never compressed to
FP16 on the way out (the runtime's default), and the saved file is loaded again and its convolutions inspected.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from payload.engine import OpenVinoEngine, convolution_precisions
from payload.errors import InputError

INT8 = ("i8", "u8")


@dataclass(frozen=True)
class Execution:
    """How the runtime executes each convolution: precision and primitive (kernel) by layer."""

    precisions: dict[str, str]
    primitives: dict[str, str]

    @property
    def in_int8(self) -> int:
        return sum(p in INT8 for p in self.precisions.values())

    @property
    def all_int8(self) -> bool:
        return bool(self.precisions) and self.in_int8 == len(self.precisions)


def write_ir(onnx_path: Path, xml_path: Path) -> Execution:
    """Writes xml_path and its .bin from an ONNX network; InputError if OpenVINO cannot read it."""
    import openvino

    try:
        model = openvino.convert_model(str(onnx_path))
    except Exception as error:  # the front end raises its own family
        raise InputError(f"{onnx_path}: OpenVINO cannot read it ({first_line(error)}); export it again") from None
    write_model(model, xml_path)
    return execution(xml_path)


def write_model(model: Any, xml_path: Path) -> None:
    """Writes an OpenVINO model as .xml and .bin: full precision, the same file for the same model."""
    import openvino

    _name_by_position(model)
    partial = xml_path.with_name("partial-" + xml_path.name)
    openvino.save_model(model, str(partial), compress_to_fp16=False)
    partial.with_suffix(".bin").replace(xml_path.with_suffix(".bin"))
    partial.replace(xml_path)


def _name_by_position(model: Any) -> None:
    """Replaces the process-wide counter in generated layer names, so that the same network gives the same file."""
    for index, node in enumerate(model.get_ordered_ops()):
        generated = re.fullmatch(r"([A-Z][A-Za-z]+)_\d+", node.get_friendly_name())
        if generated and node.get_type_name() not in ("Parameter", "Result"):
            node.set_friendly_name(f"{generated[1]}_at_{index}")


def execution(network: Path, threads: int = 1) -> Execution:
    """How OpenVINO would run a network file (.onnx or .xml) on this CPU."""
    return execution_of(OpenVinoEngine(threads).load(network).compiled)


def execution_of(compiled: Any) -> Execution:
    """The same of a compiled model."""
    precisions, primitives = convolution_precisions(compiled), {}
    for node in compiled.get_runtime_model().get_ordered_ops():
        if node.get_friendly_name() in precisions:
            primitives[node.get_friendly_name()] = str(node.get_rt_info()["primitiveType"].astype(str))
    return Execution(precisions, primitives)


def first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1][:200] if lines else type(error).__name__
