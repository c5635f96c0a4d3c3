"""A watchdog in the operating system: if nobody resets it, the process ends, whatever it hangs in.

The timer's signal is left at its default, so no line of Python has to run for it: a runtime that hangs in C while it
holds the interpreter is ended all the same. Whoever started the payload starts it again, and the store resumes.
"""

import signal
from types import TracebackType
from typing import Self


class Watchdog:
    """Used as a context; `seconds` None: there is none."""

    def __init__(self, seconds: float | None) -> None:
        self._seconds = seconds

    def __enter__(self) -> Self:
        if self._seconds is not None:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
        self.reset()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._seconds is not None:
            signal.setitimer(signal.ITIMER_REAL, 0.0)

    def reset(self) -> None:
        """The payload is alive: the time begins anew."""
        if self._seconds is not None:
            signal.setitimer(signal.ITIMER_REAL, self._seconds)
