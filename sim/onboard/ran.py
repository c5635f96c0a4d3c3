"""What ran the payload on this host: the compiled kernel or numpy, and the instruction sets it could choose from."""

import logging
import platform
from functools import cache
from pathlib import Path

from payload.native import library

log = logging.getLogger(__name__)

NO_KERNEL = (
    "the compiled kernel is not there, so the payload runs in numpy: the same octets, many times slower; "
    "install a C compiler and then Nadir again"
)


def warn_of_numpy() -> None:
    """One line where numpy does the kernel's work, unless the kernel was refused: that was told when it was loaded."""
    if kernel() != "compiled" and not library.stale:
        log.warning(NO_KERNEL)


def kernel() -> str:
    """ "compiled" or "numpy": who computes what the networks do not."""
    return "compiled" if library.available else "numpy"


@cache
def instruction_set() -> str:
    """What a runtime chooses its routines by, widest last; the machine's name where that is not told."""
    try:
        with Path("/proc/cpuinfo").open(encoding="utf-8") as lines:
            told = (line.split(":")[1].split() for line in lines if line.startswith(("flags", "Features")))
            flags = next(told, [])
    except OSError:
        flags = []
    named = ("asimd", "asimddp", "i8mm", "sve", "avx", "avx2", "avx_vnni", "avx512f", "avx512_vnni", "amx_int8")
    found = [name for name in named if name in flags]
    return ", ".join(found) or platform.machine()
