"""Octets of a file by range, wherever it lies: a path, or any address that fsspec opens (http, s3, memory, ...)."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import fsspec

from payload.errors import InputError

#: Ranges nearer to each other than this are read as one where a request costs more than octets.
REMOTE_GAP_OCTETS = 4096
NOT_FOUND = "not found, wanted a .nadir scene file"


class Octets:
    """A file that is read in ranges. `read_octets` counts what was asked of it."""

    def __init__(self, where: str, options: dict[str, Any] | None = None) -> None:
        self.where, self.options, self.read_octets, self.requests = str(where), dict(options or {}), 0, 0
        try:
            self._files, self._path = fsspec.core.url_to_fs(self.where, **self.options)
        except (ImportError, ValueError) as error:
            raise InputError(f"{self.where}: cannot be opened ({error}); install what it asks for") from None
        self._local = "file" in protocols(self._files)

    def read(self, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        """The octets of each range (first, end). InputError where the file cannot be read or is shorter."""
        joined = _joined(ranges, 0 if self._local else REMOTE_GAP_OCTETS)
        pieces = self._fetch(joined)
        self.requests += len(joined)
        self.read_octets += sum(map(len, pieces))
        found = []
        for begin, end in ranges:
            at = next(k for k, (first, last) in enumerate(joined) if first <= begin and end <= last)
            piece = pieces[at][begin - joined[at][0] : end - joined[at][0]]
            if len(piece) < end - begin:
                raise InputError(f"{self.where}: ends before octet {end}; it was cut short: copy it again")
            found.append(piece)
        return found

    def size(self) -> int:
        """Octets of the whole file. InputError where it is not there."""
        with told(self.where, NOT_FOUND):
            return int(self._files.size(self._path))

    def _fetch(self, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        with told(self.where, NOT_FOUND):
            if self._local:
                with Path(self._path).open("rb") as file:
                    return [_at(file, begin, end) for begin, end in ranges]
            begins, ends = [begin for begin, _ in ranges], [end for _, end in ranges]
            found: list[bytes] = self._files.cat_ranges([self._path] * len(ranges), begins, ends, on_error="raise")
            return found


@contextmanager
def told(where: str, missing: str) -> Iterator[None]:
    """Whatever a place raises, as an InputError that names it. Each library behind fsspec has errors of its own."""
    try:
        yield
    except InputError:
        raise
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(f"{where}: {missing}") from None
    except Exception as error:  # s3fs lets those of botocore through, which are no OSErrors
        said = getattr(error, "strerror", None) or " ".join(str(error).split())[:300] or type(error).__name__
        raise InputError(f"{where}: cannot be read or written ({said})") from None


def _at(file: Any, begin: int, end: int) -> bytes:
    file.seek(begin)
    octets: bytes = file.read(end - begin)
    return octets


def _joined(ranges: Sequence[tuple[int, int]], gap: int) -> list[tuple[int, int]]:
    """Ranges in order, those that touch or lie within a gap of each other made one."""
    found: list[tuple[int, int]] = []
    for begin, end in sorted(ranges):
        if found and begin <= found[-1][1] + gap:
            found[-1] = (found[-1][0], max(end, found[-1][1]))
        else:
            found.append((begin, end))
    return found


def protocols(files: Any) -> tuple[str, ...]:
    """The names that a file system goes by."""
    return (files.protocol,) if isinstance(files.protocol, str) else tuple(files.protocol)
