"""The compiled kernel (kernel.c) where it was built: loaded, and how arrays are handed to it.

The numpy code of the payload defines what it computes; its twins stand beside each (`compiled.py`).

`available` is False where no compiler was at hand when the package was installed, on a board that runs from a zipapp,
with NADIR_KERNEL=0 in the environment, or where the kernel was built from other sources than those beside it: then
everything runs in numpy and gives the same octets.
"""

import ctypes
import logging
import os
from typing import Any

import numpy as np
from numpy.typing import NDArray

from payload.errors import BundleError, InputError
from payload.native import sources

log = logging.getLogger(__name__)

#: What the kernel says of arguments that would lead it astray.
_REFUSALS: dict[int, tuple[type[InputError], str]] = {
    -1: (InputError, "a buffer is too small for the kernel; hand over tiles of the bundle's size and bands"),
    -2: (InputError, "a number is out of range for the kernel; hand over tiles of the bundle's size and bands"),
    -3: (BundleError, "the bundle's tables in memory are not those that were loaded; load the bundle again"),
}
STALE = (
    "the compiled kernel was built from other sources than those installed, so the payload runs in numpy: the same "
    "octets, many times slower; install Nadir again (pip install --no-deps --editable . in a checkout)"
)


def _load() -> tuple[Any, ctypes.CDLL | None]:
    """The module, and the library that it is."""
    if os.environ.get("NADIR_KERNEL") == "0":
        return None, None
    try:
        from payload.native import _kernel  # type: ignore[attr-defined]

        return _kernel, ctypes.CDLL(_kernel.__file__)
    except (ImportError, OSError):
        return None, None


def _is_ours(library: ctypes.CDLL) -> bool:
    """Whether the kernel was built from the sources beside it: Python calls an older one with other arguments.

    A kernel that does not say is older than this check. Where the sources were left out of an installation, whatever
    the kernel says has come with it.
    """
    try:
        built_from = library.nadir_sources
    except AttributeError:
        return False
    built_from.restype, built_from.argtypes = ctypes.c_char_p, ()
    return sources.digest() in (None, built_from().decode("ascii", "replace"))


_module, _library = _load()
#: Whether a kernel is there and was refused. Told once, when this is imported.
stale = _library is not None and not _is_ours(_library)
if stale:
    log.warning(STALE)
    _library = None
available = _library is not None
if _library is not None:
    for sized in (_library.nadir_scratch_octets, _library.nadir_dense_octets, _library.nadir_mixture_octets):
        sized.restype = ctypes.c_size_t


def loaded() -> ctypes.CDLL:
    """The library itself."""
    if _library is None:
        raise RuntimeError("the kernel was not built; check payload.native.library.available first")
    return _library


def plain_only(on: bool) -> None:
    """For tests and comparisons: leave the vector loops out."""
    loaded().nadir_take_loops(int(on))


def older_loops(on: bool) -> None:
    """For tests: the vector loops as processors have them whose pext and pdep are slow, and that have no AVX-512."""
    loaded().nadir_take_loops(2 * on)


class Span(ctypes.Structure):
    """A contiguous array as the kernel sees it: where it begins and how many octets it has."""

    _fields_ = (("at", ctypes.c_void_p), ("octets", ctypes.c_size_t))
    __slots__ = ("array",)  # lives as long as the span does


def span(array: NDArray[Any], dtype: "np.dtype[Any]") -> Span:
    """The array must be of this dtype."""
    if array.dtype != dtype or not array.flags.c_contiguous:
        raise TypeError(f"the kernel was handed {array.dtype} {list(array.shape)}, wanted {dtype}, contiguous")
    found = Span(_module.address(array), array.nbytes)
    found.array = array
    return found


NONE = Span(None, 0)
U8, U16, U32, U64, I8, I16, I32, I64, F32, F64, BOOL = map(
    np.dtype, ("u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8", "f4", "f8", "?")
)


def call(entry: str, *arguments: Any) -> int:
    """What an entry of the kernel gives back; InputError or BundleError where it refuses its arguments."""
    code: int = getattr(loaded(), f"nadir_{entry}")(*arguments)
    if code < 0:
        error, text = _REFUSALS[code]
        raise error(text)
    return code
