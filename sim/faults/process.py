"""The payload's process: killed, without power, without room, with a clock that jumps, in a runtime that hangs."""

import contextlib
import os
import select
import signal
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from payload.guard.telemetry import Count, EventId, Telemetry
from payload.guard.watchdog import Watchdog
from payload.link.tile_code import TileCode
from payload.store.files import Files, FolderFiles
from payload.store.recorder import record_scene, send_scene, stored
from payload.store.store import Store
from sim.faults.outcomes import Outcome
from sim.faults.volatile import PowerCutError, VolatileFiles
from sim.faults.world import World, world

Random = np.random.Generator
TILES = 3
WATCHDOG_S = 0.3
ROOM = 1 << 26


def here() -> World:
    return world("edge", TILES, forked=True)


def by_kill(random: Random) -> Outcome:
    """kill -9 at a random moment of a scene: some time of a tile behind a random word of the payload's, so that a slow
    machine is not killed before it begins, nor a fast one when it is done."""
    words, seconds = int(random.integers(2 * TILES)), random.random() * here().clean_s / TILES
    return _killed(lambda pid, pipe: _kill_after(pid, pipe, words, seconds), lambda: None)


def by_hang(random: Random) -> Outcome:
    """The encoder hangs in a random tile: the watchdog ends the process."""
    hung = int(random.integers(TILES))

    def hang() -> None:
        time.sleep(3600)

    return _killed(lambda pid, pipe: b"", hang, hung)


def _killed(end: Callable[[int, int], bytes], hang: Callable[[], None], hung: int = -1) -> Outcome:
    """Forks a payload that stores a scene, ends it, starts again, and looks at what is there. `end` is handed its id
    and what it tells, and gives back what it has read of that."""
    with tempfile.TemporaryDirectory(prefix="nadir-faults-") as folder:
        started = time.perf_counter()
        read, write = os.pipe()
        pid = os.fork()
        if pid == 0:
            _child(Path(folder), write, hang, hung)
        os.close(write)
        told = end(pid, read)
        _, status = os.waitpid(pid, 0)
        told += _told(read)
        died = os.WIFSIGNALED(status)
        barked = died and os.WTERMSIG(status) == signal.SIGALRM
        return _resumed(FolderFiles(Path(folder), ROOM), told, died, time.perf_counter() - started, barked)


def _child(folder: Path, pipe: int, hang: Callable[[], None], hung: int) -> None:
    """The payload, in a process of its own: 'b' and a row when a tile is begun, 'a' when it is acknowledged."""
    scene = here()
    encode, watchdog = scene.payload.codec.encode, Watchdog(WATCHDOG_S if hung >= 0 else None)

    def begun(tile: Any, *arguments: Any) -> Any:
        watchdog.reset()
        os.write(pipe, b"b" + bytes([tile.row]))
        if tile.row == hung:
            hang()
        return encode(tile, *arguments)

    def acknowledged(address: tuple[int, int]) -> None:
        os.write(pipe, b"a" + bytes([address[0]]))

    scene.payload.codec.encode = begun  # type: ignore[method-assign,assignment]
    store = Store(FolderFiles(folder, ROOM))
    with watchdog:
        record_scene(scene.payload, store, scene.scene, acknowledged)
    store.leave()
    os._exit(0)


def _kill_after(pid: int, pipe: int, words: int, seconds: float) -> bytes:
    told = b""
    while len(told) < 2 * words and (word := os.read(pipe, 2)):
        told += word
    time.sleep(seconds)
    os.kill(pid, signal.SIGKILL)
    return told


def _told(pipe: int) -> bytes:
    found = b""
    while select.select([pipe], [], [], 5.0)[0] and (piece := os.read(pipe, 4096)):
        found += piece
    os.close(pipe)
    return found


def _resumed(files: Files, told: bytes, died: bool, seconds: float, by_watchdog: bool = False) -> Outcome:
    """Opens the store again: what was acknowledged is there, one tile at most is coded twice, all octets are right."""
    scene = here()
    words = [(told[i : i + 1], told[i + 1]) for i in range(0, len(told), 2)]
    begun, acknowledged = ({row for word, row in words if word == kind} for kind in (b"b", b"a"))
    store = Store(files, by_watchdog=by_watchdog)
    at_first = {row for log in store.scenes.values() for row, _ in log.tiles}
    intact = all(_right(code) for log in store.scenes.values() for code in (c.code for c in stored(log)))
    again = 0
    if not any(log.complete for log in store.scenes.values()):
        done = record_scene(scene.payload, store, scene.scene)
        again = len(begun - at_first) if done.complete else TILES
    codes = [c.code for log in store.waiting() for c in stored(log)]
    packets = sum(1 for log in list(store.waiting()) for _ in send_scene(scene.payload, store, log))
    lost = acknowledged - at_first
    right = not lost and intact and again <= 1 and len(codes) == TILES and all(map(_right, codes)) and packets > 0
    note = "acknowledged and lost" if lost else "coded again: more than one" if again > 1 else f"coded again: {again}"
    return Outcome(right, died or store.telemetry.counts[Count.UNCLEAN_STARTS] > 0, seconds=seconds, note=note)


def _right(code: TileCode) -> bool:
    wanted = here().clean[code.row]
    return (code.kind, code.side, code.layers) == (wanted.kind, wanted.side, wanted.layers)


def by_power_cut(random: Random) -> Outcome:
    """The power is cut at a random operation of the disk; what was not synced is lost, kept or torn."""
    scene = here()
    whole = VolatileFiles()
    record_scene(scene.payload, Store(whole), scene.scene)
    files, told = VolatileFiles(operations=int(random.integers(1, whole.done + 1))), bytearray()
    with contextlib.suppress(PowerCutError):
        record_scene(scene.payload, Store(files), scene.scene, lambda address: told.extend(b"a" + bytes([address[0]])))
    # every tile up to the last acknowledged one was begun, and the next one
    rows = {told[i + 1] for i in range(0, len(told), 2)}
    begun = b"".join(b"b" + bytes([row]) for row in {*rows, min(TILES - 1, len(rows))})
    return _resumed(files.after_cut(random), begun + bytes(told), True, 0.0)


def by_full_store(random: Random) -> Outcome:
    """A random write finds no room, and writes a part; later there is room again."""
    scene = here()
    files = VolatileFiles(full_at=int(random.integers(2, 2 + 3 + 2 * TILES)))
    store, told = Store(files), bytearray()
    done = record_scene(scene.payload, store, scene.scene, lambda address: told.extend(b"a" + bytes([address[0]])))
    full = store.telemetry.counts[Count.STORE_FULL] > 0
    if done.complete:
        codes = [c.code for log in store.waiting() for c in stored(log)]
        return Outcome(all(map(_right, codes)) and len(codes) == TILES, full)
    return _resumed(files, bytes(told), full, 0.0)


def by_clock(random: Random) -> Outcome:
    """The spacecraft's clock jumps both ways while a scene is coded: order comes from numbers, octets from neither."""
    scene = here()
    jumps = iter(random.integers(-(10**9), 4 * 10**9, 64).tolist())
    telemetry = Telemetry(clock=lambda: float(next(jumps, 0)))
    store = Store(VolatileFiles(), telemetry)
    record_scene(scene.payload, store, scene.scene)
    for event in (EventId.LATE_TILE, EventId.STARTED):
        telemetry.tell(event)
    codes = [c.code for log in store.waiting() for c in stored(log)]
    numbers = [event.number for event in telemetry.take()]
    return Outcome(all(map(_right, codes)) and numbers == sorted(numbers) and len(codes) == TILES, False)
