"""How far long work is: a bar with the time left on a terminal, a line every ten seconds elsewhere, nothing with -q."""

import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

LINE_S = 10.0


class Told(Protocol):
    """Takes: what is done at the moment, how much of it is done, of how much (None: not known)."""

    def __call__(self, what: str, done: int, total: int | None) -> None: ...


@contextmanager
def progress() -> Iterator[Told]:
    """Something to tell progress to, for as long as the work takes."""
    if logging.getLogger().level >= logging.ERROR:
        yield lambda what, done, total: None
    elif sys.stderr.isatty():
        with _bar() as told:
            yield told
    else:
        yield _Lines()


@contextmanager
def _bar() -> Iterator[Told]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=None)

        def told(what: str, done: int, total: int | None) -> None:
            if bar.tasks[task].description != what:
                bar.reset(task, description=what, total=total)
            bar.update(task, completed=done, total=total)

        yield told


class _Lines:
    """One line every LINE_S."""

    def __init__(self) -> None:
        self._start_s = self._last_s = time.monotonic()
        self._what = ""

    def __call__(self, what: str, done: int, total: int | None) -> None:
        now_s = time.monotonic()
        if what != self._what:
            self._what, self._start_s = what, now_s
        if now_s - self._last_s < LINE_S:
            return
        self._last_s = now_s
        left = f", {(now_s - self._start_s) * (total / done - 1):.0f} s left" if total and done else ""
        sys.stderr.write(f"{what}: {done} of {total or '?'}{left}\n")
