"""What commands say besides their results, all of it on stderr: progress, notes, and the one line when they stop."""

import logging
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from sim.progress import Progress

#: Where nobody watches, a line now and then is enough.
FIRST_LINE_S, NEXT_LINE_S = 10.0, 30.0

log = logging.getLogger(__name__)


def stop_on_signals(program: str) -> None:
    """Ctrl-C, SIGTERM and SIGHUP end the program in one line, with its folders cleaned up. Exit code 128 + signal."""

    def stop(number: int, frame: FrameType | None) -> None:
        for other in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(other, signal.SIG_IGN)  # once is enough: cleaning up is not to be cut short
        print(f"{program}: stopped by {signal.Signals(number).name}; nothing half-written is left", file=sys.stderr)
        raise SystemExit(128 + number)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup and background jobs stay as they were asked to
            signal.signal(number, stop)


@contextmanager
def progress(what: str) -> Iterator[Progress]:
    """A bar with the time left where stderr is a terminal; elsewhere a line now and then once work gets long."""
    from rich.console import Console

    console = Console(stderr=True)
    if logging.getLogger().level >= logging.ERROR:
        yield lambda label, total: None
    elif console.is_terminal:
        yield from _bar(console, what)
    else:
        yield _Lines(what).advance


def _bar(console: object, what: str) -> Iterator[Progress]:
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Bar(*columns, console=console, transient=True) as bar:  # type: ignore[arg-type]
        task, stage = bar.add_task(what), _Stage()

        def advance(label: str, total: int) -> None:
            if stage.begins(total):
                bar.reset(task)
            bar.update(task, total=total, advance=1, description=label)

        yield advance


class _Stage:
    """Steps done of a stage of the work. Another begins where all are done, or there are to be more or fewer."""

    def __init__(self) -> None:
        self.done, self._total = 0, 0

    def begins(self, total: int) -> bool:
        """Counts a step; whether it is the first of a stage behind another."""
        another = self.done > 0 and (total != self._total or self.done >= total)
        self.done, self._total = 1 if another else self.done + 1, total
        return another


class _Lines:
    """Progress where nobody watches."""

    def __init__(self, what: str) -> None:
        self._what, self._stage = what, _Stage()
        self._start = self._last = time.monotonic()
        self._next = self._start + FIRST_LINE_S

    def advance(self, label: str, total: int) -> None:
        if self._stage.begins(total):
            self._start = self._last
        now = self._last = time.monotonic()
        if now < self._next:
            return
        self._next, done = now + NEXT_LINE_S, self._stage.done
        left_s = (now - self._start) / done * (total - done)
        log.warning("%s: %s, %d of %d, %.0f s left", self._what, label, done, total, left_s)
