"""Work on one scene spread over threads: results come in the order of what they were made of, whoever was first.

The kernel, BLAS, the runtimes and numpy's loops let other threads run meanwhile; two of them are nearly twice as fast
where two cores are free. Nothing of what is computed depends on how many there are.
"""

import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice
from typing import Any, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from payload.engine import Network
from payload.errors import InputError
from payload.scene import Dn, Mask, Scene, SceneInfo

Given = TypeVar("Given")
Made = TypeVar("Made")
#: A window of a scene, and its pixels once they are there.
Reading = tuple[tuple[int, int, int, int], Future[tuple[Dn, Mask]]]
MOST_JOBS = 256
#: Where nobody says how many: each thread holds a decoder and a row's share of pixels.
USUAL_JOBS = 8
#: With one, who reads waits for who works, and the other way round, whichever takes longer at a strip.
STRIPS_AHEAD = 2


def cores() -> int:
    """The cores that this process may use, USUAL_JOBS at most."""
    return min(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1, USUAL_JOBS)


class Spread:
    """So many threads, or none at all for one job. Used as a context."""

    def __init__(self, jobs: int = 1) -> None:
        if not 1 <= jobs <= MOST_JOBS:
            raise InputError(f"--jobs is {jobs}, wanted 1 to {MOST_JOBS}; there are {os.cpu_count()} cores here")
        self.jobs = jobs
        self._pool = ThreadPoolExecutor(jobs) if jobs > 1 else None

    def map(self, work: Callable[[Given], Made], given: Iterable[Given]) -> Iterator[Made]:
        """What `work` makes of each, in order. `given` is taken at once where there are several threads."""
        return map(work, given) if self._pool is None else self._pool.map(work, given)

    def few(self, work: Callable[[Given], Made], given: Iterable[Given]) -> Iterator[Made]:
        """As `map`, but no more are made ahead of who takes them than there are threads, and two: they are large."""
        if self._pool is None:
            return map(work, given)
        pool, rest = self._pool, iter(given)
        begun = deque(pool.submit(work, one) for one in islice(rest, self.jobs + 2))

        def made() -> Iterator[Made]:
            while begun:
                found = begun.popleft().result()
                begun.extend(pool.submit(work, one) for one in islice(rest, 1))
                yield found

        return made()

    def aside(self, work: Callable[[], Made]) -> Callable[[], Made]:
        """Begins work that is not waited for; what is given back waits for it. At once where there is one thread."""
        if self._pool is None:
            made = work()
            return lambda: made
        return self._pool.submit(work).result

    @contextmanager
    def ahead(self, scene: Scene) -> Iterator[Scene]:
        """The scene, read ahead where there are several threads."""
        if self._pool is None:
            yield scene
            return
        with ThreadPoolExecutor(1) as reader, ThreadPoolExecutor(self.jobs) as drawers:
            yield ReadAhead(SideBySide(scene, drawers, self.jobs), reader)

    def __enter__(self) -> "Spread":
        return self

    def __exit__(self, *failure: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)


class OneLate:
    """What waits for threads is done once the next work has begun for them, so that they are never without. Used as a
    context, which does the last."""

    def __init__(self) -> None:
        self._last: Callable[[], None] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *details: object) -> None:
        if kind is None:
            self.then(None)

    def then(self, work: Callable[[], None] | None) -> None:
        """`work` is the next; the last is done now."""
        last, self._last = self._last, work
        if last is not None:
            last()


class OneAtATime:
    """A network that several threads, or several owners, ask: it has one place each for a question and an answer."""

    def __init__(self, network: Network) -> None:
        self._network, self._lock = network, threading.Lock()

    def run(self, *inputs: NDArray[Any]) -> list[NDArray[Any]]:
        """As `Network.run`."""
        with self._lock:
            return self._network.run(*inputs)


class SideBySide:
    """A scene whose windows are read in parts by several threads, where it says of itself that they may be."""

    def __init__(self, scene: Scene, pool: ThreadPoolExecutor, parts: int) -> None:
        self._scene, self._pool, self._parts = scene, pool, parts
        self._step_px = getattr(scene, "side_by_side_px", None)

    @property
    def info(self) -> SceneInfo:
        return self._scene.info

    def read(self, row_px: int, col_px: int, height_px: int, width_px: int) -> tuple[Dn, Mask]:
        """As `Scene.read`."""
        if self._step_px is None:
            return self._scene.read(row_px, col_px, height_px, width_px)
        part_px = -(-width_px // (self._parts * self._step_px)) * self._step_px
        starts = range(col_px, col_px + width_px, part_px)
        widths = [min(part_px, col_px + width_px - start) for start in starts]
        parts = self._pool.map(lambda start, width: self._scene.read(row_px, start, height_px, width), starts, widths)
        dn, valid = zip(*parts, strict=True)
        return np.concatenate(dn, axis=2), np.concatenate(valid, axis=1)


class ReadAhead:
    """A scene whose next strips are read while one is worked on. Strips in order, as the payload takes them."""

    def __init__(self, scene: Scene, reader: ThreadPoolExecutor) -> None:
        self._scene, self._pool = scene, reader
        self._under_way: deque[Reading] = deque()

    @property
    def info(self) -> SceneInfo:
        return self._scene.info

    def read(self, row_px: int, col_px: int, height_px: int, width_px: int) -> tuple[Dn, Mask]:
        """As `Scene.read`."""
        wanted = row_px, col_px, height_px, width_px
        if not self._under_way or self._under_way[0][0] != wanted:
            self._under_way.clear()
            self._begin(wanted)
        found = self._under_way.popleft()[1]
        self._go_on(wanted)
        return found.result()

    def _go_on(self, window: tuple[int, int, int, int]) -> None:
        """Begins what is read after a window, STRIPS_AHEAD strips at most."""
        last = self._under_way[-1][0] if self._under_way else window
        while len(self._under_way) < STRIPS_AHEAD:
            row_px, col_px, height_px, width_px = last
            below = min(height_px, self.info.height_px - row_px - height_px)
            if below <= 0:
                return
            last = row_px + height_px, col_px, below, width_px
            self._begin(last)

    def _begin(self, window: tuple[int, int, int, int]) -> None:
        self._under_way.append((window, self._pool.submit(self._scene.read, *window)))
