"""The files of a Sentinel product, in a folder or in a zip, whatever the case of their names and their separators.

Products pass through Windows machines: zips made there separate folders by backslashes, and copies come back with names
in lower case. Names are therefore looked up without regard to case, with forward slashes.
"""

import os
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import IO, Protocol
from xml.etree import ElementTree

from payload.errors import InputError

#: Real products have some 150 files; a folder with more than this is no product.
FILES_LIMIT = 20_000
#: Images are compressed already; a zip that makes one this many times smaller is a bomb.
DEFLATE_LIMIT = 50
DEFLATE_FREE_OCTETS = 2**26
#: Real metadata has some 60 KB, noise tables 2 MB; this is what a hostile zip may make us inflate.
METADATA_LIMIT_OCTETS = 64 * 2**20


class ProductFiles(Protocol):
    """Files by names with forward slashes, counted from the folder or zip that was given."""

    def names(self) -> Iterable[str]: ...
    def find(self, name: str) -> str | None: ...
    def size(self, name: str) -> int: ...
    def open(self, name: str) -> IO[bytes]: ...
    def gdal_path(self, name: str) -> str: ...


@dataclass(frozen=True)
class FolderFiles:
    """A product in a folder."""

    root: Path
    _index: dict[str, str] = field(init=False)

    def __post_init__(self) -> None:
        found = islice(_walk(self.root), FILES_LIMIT)
        object.__setattr__(self, "_index", {name.casefold(): name for name in found})

    def names(self) -> Iterable[str]:
        return self._index.values()

    def find(self, name: str) -> str | None:
        """The name as it is stored; None if there is no such file."""
        return self._index.get(name.casefold())

    def size(self, name: str) -> int:
        return (self.root / name).stat().st_size

    def open(self, name: str) -> IO[bytes]:
        return (self.root / name).open("rb")

    def gdal_path(self, name: str) -> str:
        return str(self.root / name)


@dataclass(frozen=True)
class ZipFiles:
    """A product in a zip."""

    path: Path
    archive: zipfile.ZipFile
    _index: dict[str, zipfile.ZipInfo] = field(init=False)

    def __post_init__(self) -> None:
        entries = [entry for entry in self.archive.infolist() if entry.filename and not entry.is_dir()]
        object.__setattr__(self, "_index", {_slashed(entry.filename).casefold(): entry for entry in entries})

    def names(self) -> Iterable[str]:
        return [_slashed(entry.filename) for entry in self._index.values()]

    def find(self, name: str) -> str | None:
        """The name with forward slashes, otherwise as it is stored; None if there is no such file."""
        entry = self._index.get(name.casefold())
        return None if entry is None else _slashed(entry.filename)

    def size(self, name: str) -> int:
        return self._entry(name).file_size

    def open(self, name: str) -> IO[bytes]:
        """A file for reading. InputError where it would inflate without end."""
        entry = self._entry(name)
        if entry.file_size > max(DEFLATE_FREE_OCTETS, DEFLATE_LIMIT * entry.compress_size):
            raise InputError(
                f"{self.path}: {name} inflates {entry.compress_size} octets to {entry.file_size}, "
                "wanted an image; download the product again"
            )
        return self.archive.open(entry)

    def gdal_path(self, name: str) -> str:
        return f"/vsizip/{{{self.path.resolve()}}}/{name}"  # GDAL, too, takes backslashes in a zip for slashes

    def _entry(self, name: str) -> zipfile.ZipInfo:
        return self._index[name.casefold()]


def check_jp2_whole(path: Path, files: ProductFiles, name: str) -> None:
    """Walks the JP2 boxes (ISO/IEC 15444-1 annex I) to the codestream and sees that all of it is there."""
    size = files.size(name)
    with files.open(name) as stream:
        start = 0
        while start + 8 <= size:
            stream.seek(start)
            header = stream.read(16)
            length, kind = int.from_bytes(header[:4], "big"), header[4:8]
            if length == 1:  # the length did not fit in 32 bits
                length = int.from_bytes(header[8:16], "big")
            if kind == b"jp2c" and length == 0:  # to the end of the file, which is the end-of-codestream marker
                stream.seek(size - 2)
                if stream.read(2) == b"\xff\xd9":
                    return
                break
            if length < 8 or start + length > size:
                break
            if kind == b"jp2c":
                return
            start += length
    raise InputError(f"{path}: {PurePosixPath(name).name} is truncated ({size} octets); download the product again")


def parse_xml(path: Path, files: ProductFiles, metadata: str) -> ElementTree.Element:
    """A metadata file of a product. InputError where it is too large or not whole XML."""
    if files.size(metadata) > METADATA_LIMIT_OCTETS:
        raise InputError(
            f"{path}: {metadata} has {files.size(metadata)} octets, wanted product metadata of under 64 MiB"
        )
    try:
        with files.open(metadata) as stream:
            return ElementTree.fromstring(stream.read(METADATA_LIMIT_OCTETS))
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: {metadata} is not whole XML ({error}); download the product again") from error


def _walk(root: Path) -> Iterator[str]:
    for folder, folders, files in os.walk(root):
        folders.sort()
        inside = Path(folder).relative_to(root)
        if len(inside.parts) > 6:
            folders.clear()
        yield from ((inside / name).as_posix() for name in sorted(files))


def _slashed(name: str) -> str:
    return name.replace("\\", "/")
