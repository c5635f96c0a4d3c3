"""Blocks of the generated scene that were drawn before: the latest in memory, older ones in a file without a name."""

import tempfile
import threading
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from typing import BinaryIO, NamedTuple, cast

import numpy as np

from payload.scene import Dn, Mask

Place = tuple[int, int]


class Truth(NamedTuple):
    """What really is where, all bool [h, w]. A pixel under a cloud may be water, but is in no shadow."""

    cloud: Mask
    shadow: Mask
    water: Mask


class Block(NamedTuple):
    """A drawn block: dn uint16 [4, T, T] and its truth."""

    dn: Dn
    truth: Truth


class DrawnBlocks:
    """Drawing a block costs more than coding it, and a run reads its scene twice. A disk without room for the older
    ones costs time only: they are drawn again. Any thread may ask."""

    def __init__(self, draw: Callable[[int, int], Block], side: int, in_memory: int) -> None:
        self._draw, self._side, self._in_memory = draw, side, in_memory
        self._lock = threading.Lock()  # of what is kept; blocks are drawn side by side
        self._kept: OrderedDict[Place, Block] = OrderedDict()
        self._file: BinaryIO | None = None
        self._where: dict[Place, int] = {}

    def get(self, row: int, col: int) -> Block:
        """The block of a row and a column of blocks."""
        with self._lock:
            block = self._kept.pop((row, col), None) or self._read(row, col)
        block = block or self._draw(row, col)
        with self._lock:
            self._kept[row, col] = block
            if len(self._kept) > self._in_memory:
                self._write(*self._kept.popitem(last=False))
        return block

    def close(self) -> None:
        self._kept.clear()
        self._where.clear()
        if self._file is not None:
            self._file.close()
            self._file = None

    def _write(self, place: Place, block: Block) -> None:
        if place in self._where:
            return
        with suppress(OSError):
            self._file = self._file or cast(BinaryIO, tempfile.TemporaryFile(prefix="nadir-demo-"))  # noqa: SIM115
            at = self._file.seek(0, 2)
            self._file.write(block.dn.tobytes() + np.packbits(block.truth).tobytes())
            self._file.flush()
            self._where[place] = at

    def _read(self, row: int, col: int) -> Block | None:
        at, side = self._where.get((row, col)), self._side
        if at is None or self._file is None:
            return None
        self._file.seek(at)
        dn = np.frombuffer(self._file.read(8 * side * side), np.uint16).reshape(4, side, side)
        bits = np.frombuffer(self._file.read(3 * side * side // 8), np.uint8)
        return Block(dn, Truth(*np.unpackbits(bits).astype(bool).reshape(3, side, side)))
