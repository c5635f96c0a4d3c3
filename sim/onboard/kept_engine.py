"""An engine that compiles a network once in a process, however many scenes are run with it.

A small scene spends a fifth of its time on having its bundle's networks compiled, which gives the same every time.
Networks are known by the octets of their files, not by their names: a bundle that was rebuilt in its place is compiled
anew. For runs in which nothing hits the runtime's memory: a guard that reloads a network gets the one that is kept.
"""

import hashlib
import threading
from functools import cache
from pathlib import Path

from payload.engine import Engine, Network, open_engine
from sim.spread import OneAtATime

#: So many networks are kept, the newest; a bundle has up to four.
MOST_KEPT = 8
Key = tuple[str, bool, tuple[int, ...] | None]


class KeptEngine:
    """Stands for `engine`. What it loads may be asked by several owners: they take turns."""

    def __init__(self, engine: Engine) -> None:
        self.name, self.version = engine.name, engine.version
        self.reshapes = getattr(engine, "reshapes", False)
        self._engine, self._lock = engine, threading.Lock()
        self._kept: dict[Key, OneAtATime] = {}

    def load(self, path: Path, require_int8: bool = False, shape: tuple[int, ...] | None = None) -> Network:
        key = _digest(path), require_int8, shape
        with self._lock:
            network = self._kept.pop(key, None) or OneAtATime(self._engine.load(path, require_int8, shape))
            self._kept[key] = network  # the newest stands last
            while len(self._kept) > MOST_KEPT:
                del self._kept[next(iter(self._kept))]
        return network


@cache
def kept_engine(name: str) -> KeptEngine:
    """The engine called `name` (payload.engine.ENGINES) of this process. InputError as `open_engine`."""
    return KeptEngine(open_engine(name))


def _digest(path: Path) -> str:
    """Of a network's file, and of the weights beside it that OpenVINO's own format has."""
    found = hashlib.sha256(path.suffix.encode())
    for file in (path, path.with_suffix(".bin")):
        if file.is_file():
            found.update(file.read_bytes())
    return found.hexdigest()
