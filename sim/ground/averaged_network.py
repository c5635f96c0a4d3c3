"""Decoder `best`: the bundle's own decoder network, asked about a tile in all its turns, the answers averaged.

    plain, levels -> eight turns of both -> the network, one by one -> turned back -> their mean

Turned by any of the eight symmetries of the square a tile is as likely as it was, and so the network was trained. Its
errors are not alike each time, and part of them averages out.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from payload.codec.lapped.transform import BLOCK, COEFFICIENTS
from payload.engine import Network

Turn = tuple[bool, bool, bool]
#: Rows mirrored, columns mirrored, then rows and columns exchanged.
TURNS: tuple[Turn, ...] = tuple((bool(n & 1), bool(n & 2), bool(n & 4)) for n in range(8))


class AveragedNetwork:
    """The mean of a decoder network's answers over TURNS."""

    def __init__(self, network: Network) -> None:
        self._network = network

    def run(self, *inputs: NDArray[Any]) -> list[NDArray[Any]]:
        """As the network: a picture [1, B, T, T] f32 in steps, its levels [1, B * 64, T / 8, T / 8], depth
        [1, 1, 1, 1] -> a better picture, in a list."""
        plain, levels, depth = inputs
        total = np.zeros_like(plain)
        for turn in TURNS:
            (answer,) = self._network.run(turned(plain, turn), turned_levels(levels, turn), depth)
            total += turned_back(answer, turn)
        return [total / np.float32(len(TURNS))]


def turned(x: NDArray[Any], turn: Turn) -> NDArray[Any]:
    """[..., h, w] -> [..., w, h] where rows and columns are exchanged, else [..., h, w]."""
    mirrored = _mirrored(x, turn)
    return np.ascontiguousarray(mirrored.swapaxes(-1, -2) if turn[2] else mirrored)


def turned_back(x: NDArray[Any], turn: Turn) -> NDArray[Any]:
    """Inverse of `turned`."""
    return _mirrored(x.swapaxes(-1, -2) if turn[2] else x, turn)


def turned_levels(levels: NDArray[Any], turn: Turn) -> NDArray[Any]:
    """Levels [1, B * 64, h, w] of the turned picture. Its functions are even or odd: mirrored rows negate the levels of
    those that are odd down, an exchange of rows and columns exchanges the functions' own."""
    rows, columns, exchanged = turn
    down, across = np.divmod(np.arange(COEFFICIENTS), BLOCK)
    signs = (1 - 2 * ((down * rows + across * columns) % 2)).astype(levels.dtype)
    functions = levels.reshape(-1, COEFFICIENTS, *levels.shape[2:]) * signs[:, None, None]
    if exchanged:
        functions = functions[:, across * BLOCK + down]
    return turned(functions.reshape(levels.shape), turn)


def _mirrored(x: NDArray[Any], turn: Turn) -> NDArray[Any]:
    axes = tuple(axis for axis, asked in ((-2, turn[0]), (-1, turn[1])) if asked)
    return np.flip(x, axes)
