"""CRC-32 (ISO-HDLC, zlib's) over arrays: what copies, questions and answers are known again by."""

from collections.abc import Iterable
from typing import Any
from zlib import crc32

import numpy as np
from numpy.typing import NDArray


def crc_of(*arrays: NDArray[Any]) -> int:
    """CRC-32 over the octets of arrays, one behind the other."""
    return crc_of_all(arrays)


def crc_of_all(arrays: Iterable[NDArray[Any]]) -> int:
    """The same of arrays in a row."""
    crc = 0
    for array in arrays:
        crc = crc32(np.ascontiguousarray(array).data.cast("B"), crc)
    return crc
