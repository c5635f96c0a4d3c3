"""The payload's networks on a Myriad: a variant's blobs, run by the old toolkit in a process of its own.

The toolkit (OpenVINO 2021.4.2) has bindings for Python 3.6 to 3.9 only, so a second Python runs it: NADIR_MYRIAD_PYTHON
names one in whose environment `pip install openvino==2021.4.2` was done. A variant of a bundle
(`python -m export compile BUNDLE --target myriadx --variant DIR`) holds the blobs, and says what the host does at their
ends: bounds going in, rounding to integers coming out.
"""

import json
import os
import subprocess
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
from numpy.typing import NDArray

from payload.bundle import Bundle
from payload.engine import Network, as_integers
from payload.errors import BundleError, InputError

NAME, VERSION = "myriad", "2021.4.2"
PYTHON = "NADIR_MYRIAD_PYTHON"
WORKER = "myriad_worker.py"
#: What an output of a network may stand for.
DTYPES = ("int8", "uint8", "float32")
LONGEST_LINE = 65536


def command_here() -> list[str] | None:
    """How the worker is started on this machine; None where no old Python is named."""
    python = os.environ.get(PYTHON)
    return [python, "-c", _source()] if python else None


def _source() -> str:
    """The worker's own text: in a zipapp it is no file that another Python could open."""
    return files("hil.agent.blobs").joinpath(WORKER).read_text(encoding="utf-8")


class MyriadEngine:
    """Loads a variant's blobs. InputError where no old Python is named."""

    name, version = NAME, VERSION

    def __init__(self, bundle: Bundle, command: Sequence[str] | None = None) -> None:
        started = command or command_here()
        if not started:
            raise InputError(
                f"engine {NAME!r} needs the old toolkit: install openvino=={VERSION} into a Python 3.9 and name that "
                f"interpreter in {PYTHON}"
            )
        self._bundle, self._command = bundle, list(started)

    def load(self, path: Path, require_int8: bool = False, shape: tuple[int, ...] | None = None) -> Network:
        """The blob of the network in `path`. BundleError where the bundle is no variant or holds no such blob."""
        name = path.relative_to(self._bundle.directory).as_posix()
        part = variant_part(self._bundle, name)
        return MyriadNetwork(part, [*self._command, str(self._bundle.file(part.blob))])


@dataclass(frozen=True)
class Part:
    """One network of a variant: its blob; (name, low, high) of its inputs, (name, dtype) of its outputs, in order."""

    blob: str
    inputs: tuple[tuple[str, float, float], ...]
    outputs: tuple[tuple[str, str], ...]


def variant_part(bundle: Bundle, name: str) -> Part:
    """What a variant says of one network. BundleError where it says nothing of the kind."""
    variant = bundle.manifest.get("variant")
    networks = variant.get("networks") if isinstance(variant, Mapping) else None
    if not isinstance(networks, Mapping) or name not in networks:
        raise BundleError(
            f"bundle {bundle.name}: no blob of {name}; make a variant for this device with "
            "`python -m export compile BUNDLE --target myriadx --variant DIR`"
        )
    try:
        table = networks[name]
        inputs = tuple((str(e["name"]), float(e["low"]), float(e["high"])) for e in table["inputs"])
        outputs = tuple((str(e["name"]), str(e["dtype"])) for e in table["outputs"])
        part = Part(str(table["blob"]), inputs, outputs)
    except (KeyError, TypeError, ValueError) as error:
        raise BundleError(f"bundle {bundle.name}: variant of {name} not readable ({error}); compile it again") from None
    if not part.blob.startswith("flight/") or any(dtype not in DTYPES for _, dtype in outputs):
        raise BundleError(
            f"bundle {bundle.name}: variant of {name} names {part.blob} and {', '.join(d for _, d in outputs)}, wanted "
            f"a file below flight/ and {', '.join(DTYPES)}; compile it again"
        )
    return part


class MyriadNetwork:
    """One blob in its worker. The worker ends with this object."""

    def __init__(self, part: Part, command: list[str]) -> None:
        self._part = part
        try:
            self._worker = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        except OSError as error:
            raise InputError(f"{command[0]}: does not start ({error.strerror}); set {PYTHON} to a Python 3.9") from None
        self._end = weakref.finalize(self, _end, self._worker)
        self._stdin, self._stdout = cast("tuple[IO[bytes], IO[bytes]]", (self._worker.stdin, self._worker.stdout))
        self._ends = self._told()

    def run(self, *inputs: NDArray[Any]) -> list[NDArray[Any]]:
        """Arrays as the payload has them, NCHW; floats from the device, integers where they stand for such."""
        given = {n: np.clip(a, low, high) for (n, low, high), a in zip(self._part.inputs, inputs, strict=True)}
        try:
            for end in self._ends["inputs"]:
                self._stdin.write(_to_device(given[end["name"]], end))
            self._stdin.flush()
            found = {end["name"]: _from_device(self._stdout, end) for end in self._ends["outputs"]}
        except (BrokenPipeError, EOFError):
            raise InputError("the Myriad's worker ended: was the device unplugged? start the agent again") from None
        return [as_integers(found[name], dtype) for name, dtype in self._part.outputs]

    def close(self) -> None:
        self._end()

    def _told(self) -> dict[str, Any]:
        """The blob's ends, in the worker's first line. InputError in the toolkit's words where there is no device."""
        try:
            told = json.loads(self._stdout.readline(LONGEST_LINE))
        except ValueError:
            raise InputError(
                f"the Myriad's worker did not start; is openvino=={VERSION} installed for the Python in {PYTHON}?"
            ) from None
        if "error" in told:
            raise InputError(f"the Myriad refused: {told['error']}; plug a device in, or look at the toolkit's words")
        for kind, ends in (("inputs", self._part.inputs), ("outputs", self._part.outputs)):
            names = [end["name"] for end in told[kind]]
            if sorted(names) != sorted(end[0] for end in ends):
                raise BundleError(f"{kind} of the blob are {', '.join(names)}; its variant was made for others")
        return dict(told)


def _end(worker: "subprocess.Popen[bytes]") -> None:
    worker.kill()
    worker.wait()


def _to_device(array: NDArray[Any], end: Mapping[str, Any]) -> bytes:
    if list(array.shape) != list(end["shape"]):
        raise BundleError(f"{end['name']} is {list(array.shape)}, the blob takes {end['shape']}; compile it again")
    ordered = array.transpose(0, 2, 3, 1) if end["layout"] == "NHWC" else array
    return np.ascontiguousarray(ordered, np.float16).tobytes()


def _from_device(stdout: IO[bytes], end: Mapping[str, Any]) -> NDArray[np.float32]:
    shape = tuple(end["shape"])
    octets = stdout.read(2 * int(np.prod(shape)))
    if len(octets) < 2 * int(np.prod(shape)):
        raise EOFError
    values = np.frombuffer(octets, np.float16).astype(np.float32)
    if end["layout"] != "NHWC":
        return values.reshape(shape)
    n, c, h, w = shape
    return np.ascontiguousarray(values.reshape(n, h, w, c).transpose(0, 3, 1, 2))
