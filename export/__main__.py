"""The workshop's commands, python -m export COMMAND: from training to signed bundles.

Exit codes: 0 everything held, 1 something did not hold, 2 bad input.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import version

from export.commands import adapt, build, devices, prove, study, train, uplink
from export.commands.shared import BAD_INPUT
from payload.errors import InputError

#: Top-level module that may be missing -> the extra that installs it.
EXTRAS = {
    "torch": "train", "brevitas": "train", "onnx": "train", "onnxruntime": "train", "onnxoptimizer": "train",
    "safetensors": "train", "nncf": "ptq", "matplotlib": "ground", "cryptography": "ground",
}  # fmt: skip


def main(argv: Sequence[str] | None = None) -> int:
    """Parses, calls one function, and tells the truth by the exit code."""
    arguments = parser().parse_args(sys.argv[1:] if argv is None else argv)
    command: Callable[[argparse.Namespace], int] = arguments.command
    try:
        return command(arguments)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing not in EXTRAS:
            raise
        print(f"error: this needs {missing}; pip install 'nadir-payload[{EXTRAS[missing]}]'", file=sys.stderr)
    return BAD_INPUT


def parser() -> argparse.ArgumentParser:
    """All commands. Nothing is imported that only one of them needs."""
    made = argparse.ArgumentParser(prog="python -m export", description=(__doc__ or "").splitlines()[0])
    made.add_argument("--version", action="version", version=f"nadir-payload {version('nadir-payload')}")
    commands = made.add_subparsers(required=True, metavar="COMMAND")
    for module in (train, adapt, build, prove, study, devices, uplink):
        module.add_to(commands)
    return made


if __name__ == "__main__":
    sys.exit(main())
