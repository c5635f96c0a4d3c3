"""Arrays out of an .npz that may come from anywhere: never unpickled, and no word of it believed before it is checked.

numpy's own reader trusts the header: an array of a petabyte in ten octets takes all memory, and so does a zip that
inflates without end. Here the sizes in the zip, in the array's header and of the octets themselves must agree.
"""

import math
import stat
from collections.abc import Collection
from pathlib import Path
from typing import IO, Any
from zipfile import ZipFile, ZipInfo

import numpy as np
from numpy.lib.format import read_array_header_1_0, read_array_header_2_0, read_magic
from numpy.typing import NDArray

#: All arrays of a file, unpacked.
MOST_OCTETS = 2**32
#: A large array that was packed into so small a part of itself holds nearly nothing: made to exhaust its reader.
MOST_EXPANSION, FREE_OCTETS = 200, 2**28
CHUNK_OCTETS = 2**20


class ArrayFileError(ValueError):
    """An .npz that cannot be read; the text says why in a few words, its reader says how to mend it."""


def read_arrays(
    path: Path, names: Collection[str] | None = None, kinds: str = "iuf", most_octets: int = MOST_OCTETS
) -> dict[str, NDArray[Any]]:
    """The arrays called `names` (None: all) that an .npz holds, each of one of numpy's `kinds` of data.

    An array that is not there is not in the result. ArrayFileError for whatever else is wrong with the file.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise ValueError("no regular file")
        with ZipFile(path) as archive:
            return _read_entries(archive, names, kinds, most_octets)
    except Exception as error:  # zip, zlib and numpy have a dozen kinds of their own for a damaged file
        text = getattr(error, "strerror", None) or f"{type(error).__name__}: {error}".removeprefix("ValueError: ")
        raise ArrayFileError(" ".join(str(text).split())[:120]) from None


def _read_entries(
    archive: ZipFile, names: Collection[str] | None, kinds: str, most_octets: int
) -> dict[str, NDArray[Any]]:
    entries = {entry.filename.removesuffix(".npy"): entry for entry in archive.infolist()}
    if len(entries) < len(archive.infolist()):
        raise ValueError("an array is there twice")
    chosen = {name: entry for name, entry in entries.items() if names is None or name in names}
    if sum(entry.file_size for entry in chosen.values()) > most_octets:
        raise ValueError(f"more than {most_octets} octets unpacked")
    return {name: _read_entry(archive, entry, kinds) for name, entry in chosen.items()}


def _read_entry(archive: ZipFile, entry: ZipInfo, kinds: str) -> NDArray[Any]:
    if entry.file_size > max(FREE_OCTETS, MOST_EXPANSION * entry.compress_size):
        raise ValueError(f"{entry.filename} inflates {entry.compress_size} octets to {entry.file_size}")
    with archive.open(entry) as stream:
        return _read_array(stream, entry.file_size, kinds)


def _read_array(stream: IO[bytes], size: int, kinds: str) -> NDArray[Any]:
    """An .npy of `size` octets. Its header must say how long it is: none of its words is believed before."""
    readers = {(1, 0): read_array_header_1_0, (2, 0): read_array_header_2_0}
    shape, by_columns, dtype = readers[read_magic(stream)](stream)
    length = size - stream.tell()
    if dtype.kind not in kinds or min(shape, default=0) < 0 or math.prod(shape) * dtype.itemsize != length:
        raise ValueError(f"{dtype} {list(shape)} in {length} octets")
    octets = np.empty(length, np.uint8)
    begin = 0
    while chunk := stream.read(CHUNK_OCTETS):
        octets[begin : begin + len(chunk)] = np.frombuffer(chunk, np.uint8)
        begin += len(chunk)
    if begin != length:
        raise ValueError(f"{begin} of {length} octets")
    array: NDArray[Any] = octets.view(dtype).reshape(shape, order="F" if by_columns else "C")
    return np.ascontiguousarray(array, dtype.newbyteorder("=")).reshape(shape)
