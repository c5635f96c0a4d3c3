"""The old toolkit on this machine: where it lies, and its compiler run as a process of its own.

The toolkit (wheel openvino 2021.4.2, Intel's licence, end of life) is installed by the user and never part of this
project. The compiler is the judge of what is short: a network is handed to it in every form that computes the same, and
the blob with the fewest stages is kept.
"""

import ctypes.util
import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import onnx

from export.devices.myriad_blob import BlobHeader, Stage, parse_stages, parse_used_memory, read_blob
from export.graphs.fewer_stages import forms
from export.graphs.graph import load_graph
from hil.devices.targets import Target
from payload.errors import InputError

VERSION = "2021.4.2"
PLUGIN = "libmyriadPlugin.so"
TIMEOUT_S = 600.0
HOW_TO_INSTALL = (
    "pip download --no-deps --only-binary=:all: --python-version 3.9 openvino==2021.4.2 && "
    "unzip openvino-2021.4.2-*.whl -d TOOLKIT; libusb-1.0 as a system package, or the libusb-package wheel unzipped "
    "there too; then --toolkit TOOLKIT"
)
#: How a network's ends are compiled: f32 as they are, or FP16 in one of two orders.
PLAIN, ENDS = "plain", ("NCHW", "NHWC")


@dataclass(frozen=True)
class Toolkit:
    """Where the old toolkit's libraries lie."""

    libs: Path
    libusb: Path


@dataclass(frozen=True)
class Compiled:
    """What the compiler made of a network. `form`: which of the forms that compute the same; `ends`: what goes in."""

    model: onnx.ModelProto
    form: str
    ends: str
    blob: bytes
    header: BlobHeader
    stages: tuple[Stage, ...]
    used_memory: dict[str, int]


def find_toolkit(folder: Path) -> Toolkit:
    """The toolkit under `folder` (an unpacked wheel). InputError that says what to install."""
    places = [folder / "openvino" / "libs", folder / "libs", folder]
    libs = next((p for p in places if (p / PLUGIN).is_file()), None)
    if libs is None:
        raise InputError(f"{folder}: no {PLUGIN} there; install the toolkit: {HOW_TO_INSTALL}")
    bundled = folder / "libusb_package" / "libusb-1.0.so"
    libusb = str(bundled.resolve()) if bundled.is_file() else ctypes.util.find_library("usb-1.0")
    if libusb is None:
        raise InputError(
            f"libusb-1.0 was not found; install it as a system package, or unzip libusb-package into {folder}"
        )
    return Toolkit(libs.resolve(), Path(libusb))


def compile_shortest(model: onnx.ModelProto, target: Target, toolkit: Toolkit) -> Compiled:
    """The form with the fewest stages. InputError in the compiler's words where it refuses every one."""
    shapes = load_graph(model).shapes
    flat = any(len(shapes[v.name]) != 4 for v in [*model.graph.input, *model.graph.output])
    tries = [(form, made, ends) for form, made in forms(model).items() for ends in ((PLAIN,) if flat else ENDS)]
    with ThreadPoolExecutor(len(tries)) as pool:  # most of a compile is waiting for a device that is not there
        found = list(pool.map(lambda one: _tried(one[0], one[1], one[2], target, toolkit), tries))
    made = [one for one in found if isinstance(one, Compiled)]
    if not made:
        raise next(one for one in found if isinstance(one, InputError))
    return min(made, key=lambda one: one.header.stages)


def compile_form(
    model: onnx.ModelProto, target: Target, toolkit: Toolkit, form: str = "as it is", ends: str = PLAIN
) -> Compiled:
    """A real compile, in a process of its own. InputError with the compiler's own words where it fails."""
    with tempfile.TemporaryDirectory(prefix="nadir-myriad-") as scratch:
        folder = Path(scratch).resolve()
        network, made, dump = folder / "network.onnx", folder / "network.blob", folder / "graph.dot"
        onnx.save(model, str(network))
        arguments = [toolkit.libs, toolkit.libusb, target.platform, network, made, dump, ends]
        command = [sys.executable, "-m", "export.devices.myriad_compiler", *(str(a) for a in arguments)]
        environment = dict(os.environ, PYTHONPATH=str(Path(__file__).resolve().parents[2]))
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
        if done.returncode != 0 or not made.is_file():
            raise InputError(
                f"{target.name}: the toolkit's compiler refused the network: {compiler_words(done.stderr)}"
            )
        text = dump.read_text(encoding="utf-8", errors="replace") if dump.is_file() else ""
        blob = made.read_bytes()
    return Compiled(model, form, ends, blob, read_blob(blob), parse_stages(text), parse_used_memory(text))


def compiler_words(stderr: str) -> str:
    """The exception's own text, without the colours and warnings around it."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip() and "[Warning]" not in line]
    start = next((i for i, line in enumerate(lines) if "what():" in line), 0)
    told = " ".join(line.split("what():", 1)[-1].strip() for line in lines[start:])
    return told[:300] or "no message"


def _tried(form: str, model: onnx.ModelProto, ends: str, target: Target, toolkit: Toolkit) -> Compiled | InputError:
    try:
        return compile_form(model, target, toolkit, form, ends)
    except InputError as error:
        return error
