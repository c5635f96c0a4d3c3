"""What the commands of `hil` and `sim` say besides their results, on stderr: -q leaves errors, -v adds libraries."""

import errno
import logging
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

from payload.errors import InputError

NOISY = ("asyncssh", "pyvisa", "matplotlib", "PIL", "fontTools", "rasterio")
OUT_OF_MEMORY = (
    "bad_alloc",
    "bad alloc",
    "cannot allocate",
    "could not allocate",
    "out of memory",
    "failed to allocate",
)


def set_up_logging(program: str, verbose: bool, quiet: bool) -> None:
    """Notes and doubts on stderr, one a line; -v adds what libraries say, -q leaves only errors."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter(f"{program}: %(message)s"))
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.DEBUG if verbose else logging.ERROR if quiet else logging.WARNING)
    for name in NOISY:
        logging.getLogger(name).setLevel(logging.INFO if verbose else logging.CRITICAL)


def quiet() -> bool:
    return logging.getLogger().level >= logging.ERROR


def say(words: str) -> None:
    """A note beside the results."""
    if not quiet():
        sys.stderr.write(f"{words}\n")


def guarded(program: str, run: Callable[[], object]) -> int:
    """Exit code of a command; bad input, and whatever else goes wrong, becomes one line and 2."""
    try:
        run()
    except InputError as error:
        return _said(program, str(error))
    except BrokenPipeError:  # whoever read our output has gone: nothing is wrong
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + 13
    except MemoryError as error:
        return _said(program, _out_of_memory(error))
    except OSError as error:
        return _said(program, _system_error(error))
    except Exception as error:
        return _said(program, _unforeseen(error))
    return 0


def _said(program: str, line: str) -> int:
    sys.stderr.write(f"{program}: {' '.join(line.split())}\n")
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
