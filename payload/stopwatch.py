"""Seconds per stage of the payload, and the memory that its process has taken."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(eq=False)
class Stopwatch:
    """Seconds spent per stage of the payload, by `clock`: of the wall, or of the processor where a host is shared."""

    seconds: dict[str, float] = field(default_factory=dict)
    clock: Callable[[], float] = time.perf_counter

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        start = self.clock()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + self.clock() - start


def peak_memory_mib() -> float:
    """Most resident memory of this program up to now. Linux tells it in /proc/self/status (proc(5), VmHWM); getrusage
    there counts whoever started the program, too, whose size fork hands down and exec keeps."""
    try:
        told = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
        return int(told.partition("VmHWM:")[2].split(maxsplit=1)[0]) / 2**10
    except (OSError, ValueError, IndexError):
        import resource  # not every system has it

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak / 2**20 if sys.platform == "darwin" else peak / 2**10
