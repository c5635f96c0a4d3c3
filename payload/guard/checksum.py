"""What copies and answers are known again by: CRC-32 (ISO-HDLC, zlib's), and comparing octet by octet."""

import ctypes
from typing import Any
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

#: memcmp of the C library: two addresses and a count of octets; 0 where they hold the same. It keeps the interpreter,
#: which takes less than to hand it over and back for some microseconds.
memcmp = ctypes.PyDLL(None).memcmp
memcmp.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)


def crc_of(array: NDArray[Any]) -> int:
    """CRC-32 over the octets of an array."""
    return crc32(np.ascontiguousarray(array).data.cast("B"))


def same(one: NDArray[Any], other: NDArray[Any]) -> bool:
    """Whether two arrays have the same shape, type and octets; NaNs are octets like any other."""
    if (one.shape, one.dtype) != (other.shape, other.dtype):
        return False
    left, right = np.ascontiguousarray(one), np.ascontiguousarray(other)
    return bool(memcmp(left.ctypes.data, right.ctypes.data, left.nbytes) == 0)
