"""The command line of the ground: runs a command, and turns whatever goes wrong into one line.

Exit 0: all held; 1: a requirement failed; 2: bad input, or an error that nobody foresaw.
"""

import errno
import logging
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

from payload.errors import InputError
from payload.version import described
from sim.commands.console import stop_on_signals

log = logging.getLogger(__name__)

OWN = ("payload", "sim", "hil", "devices")
OUT_OF_MEMORY = (
    "bad_alloc",
    "bad alloc",
    "cannot allocate",
    "could not allocate",
    "out of memory",
    "failed to allocate",
)

MISSING: str | None = None
try:
    from sim.commands.root import app
except ModuleNotFoundError as error:  # the base install, which flies: it lacks what the ground needs
    MISSING = error.name or ""
    if MISSING.partition(".")[0] in OWN:
        raise


def main() -> None:
    """Entry point of the console script `sim`."""
    if MISSING is not None:
        sys.exit(_without_the_ground(MISSING))
    stop_on_signals("sim")
    sys.unraisablehook, sys.excepthook = _ignored, _printed
    sys.exit(_guarded(app))


def _ignored(event: "sys.UnraisableHookArgs") -> None:
    """What a library raised where nobody could catch it, such as a message of GDAL that is no UTF-8: no traceback."""
    log.debug("ignored in %r: %s", event.object, event.exc_value)


def _printed(kind: type[BaseException], error: BaseException, trace: object) -> None:
    """What a compiled library would print and go on: ours are caught below."""
    log.debug("printed by a library: %s: %s", kind.__name__, error)


def _without_the_ground(missing: str) -> int:
    if sys.argv[1:] == ["--version"]:
        print(f"sim {described()}")
        return 0
    print(f"sim: {missing} is not installed; pip install 'nadir-payload[ground]'", file=sys.stderr)
    return 2


def _guarded(run: Callable[[], object]) -> int:
    """Exit code of a command; every error becomes one line on stderr."""
    try:
        run()
    except InputError as error:
        return _said(str(error))
    except BrokenPipeError:  # whoever read our output has gone: nothing is wrong
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + 13
    except MemoryError as error:
        return _said(_out_of_memory(error))
    except OSError as error:
        return _said(_system_error(error))
    except Exception as error:
        return _said(_unforeseen(error))
    return 0


def _said(line: str) -> int:
    print("sim: " + " ".join(line.split()), file=sys.stderr)
    return 2


def _out_of_memory(error: BaseException) -> str:
    return f"out of memory ({str(error)[:120] or 'no more to be had'}); free some, or take a smaller scene"


def _system_error(error: OSError) -> str:
    if error.errno == errno.ENOMEM:
        return _out_of_memory(error)
    where = f"{str(error.filename)[:200]}: " if error.filename else ""
    remedy = {
        errno.ENOSPC: "; make room on the disk, or choose another --out",
        errno.EDQUOT: "; make room in your quota, or choose another --out",
    }
    return f"{where}{error.strerror or error}{remedy.get(error.errno or 0, '')}"


def _unforeseen(error: Exception) -> str:
    if any(words in str(error).lower() for words in OUT_OF_MEMORY):
        return _out_of_memory(error)
    if logging.getLogger().level <= logging.DEBUG:
        traceback.print_exception(error)
    last = traceback.extract_tb(error.__traceback__)[-1]
    return (
        f"{type(error).__name__}: {str(error)[:200]} (at {Path(last.filename).name}:{last.lineno}); "
        "an input that was not foreseen: -v shows where, please report it"
    )


if __name__ == "__main__":
    main()
