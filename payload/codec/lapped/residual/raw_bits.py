"""Numbers as plain bits, most significant first, one behind the other."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from payload.errors import StreamError

Bits = NDArray[np.uint8]


def digits(values: NDArray[np.integer[Any]], width: int) -> Bits:
    """The bits of values below 2^width."""
    return ((values[:, None] >> np.arange(width - 1, -1, -1)) & 1).astype(np.uint8).ravel()


def packed(parts: Sequence[Bits]) -> bytes:
    """Bits as octets, padded with zero bits."""
    return np.packbits(np.concatenate(parts)).tobytes() if parts else b""


class BitReader:
    """Takes numbers back in the order in which they were written."""

    def __init__(self, octets: bytes) -> None:
        self._bits, self._at = np.unpackbits(np.frombuffer(octets, np.uint8)), 0

    def take(self, count: int, width: int) -> NDArray[np.int64]:
        """So many numbers. StreamError where there are fewer."""
        end = self._at + count * width
        if end > len(self._bits):
            raise StreamError(f"{len(self._bits)} raw bits, wanted {end}")
        part = self._bits[self._at : end].reshape(count, width).astype(np.int64)
        self._at = end
        return part @ (1 << np.arange(width - 1, -1, -1, dtype=np.int64))

    def close(self) -> None:
        """StreamError where more follows than the zero bits that fill the last octet."""
        rest = self._bits[self._at :]
        if len(rest) >= 8 or rest.any():
            raise StreamError(f"{len(rest)} raw bits too many")
