"""The output folder of a run: it appears whole when the run went well, or not at all.

A run writes into a hidden folder beside `out`, which takes its place at the end. While it runs it holds a lock: a
second run into the same folder is refused. What a killed run left is removed by the next one into the same folder. Of
what lies at `out` only files of earlier runs are ever deleted.
"""

import fcntl
import logging
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from payload.errors import InputError
from sim.products.native import OTHER_FILE

#: Files that a run writes, in `out` itself or in the folder of one scene.
OUR_FILES = frozenset(
    {
        "packets.bin", "downlink.bin", "arrivals.json", "report.json", "report.html", "cloud.tif", "cloud-onboard.tif",
        "reconstruction.tif", "original.png", "reconstruction.png", "error.png", "mask.png", "provenance.tif",
        "aided.tif", "overruled.tif",
        "quicklook.png", "frames.bin", "telemetry.bin",
        "footprint.geojson", "reconstruction.kmz", "item.json", "collection.json", "original.tif",
        "passes.json", "passes.html", "mission.json", "mission.html", "timeline.svg", "map.svg",
        "features.json", "embeddings.parquet", "coefficients.tif", "activity.tif",
        "change.tif", "change.json", "change.html", "geoservice.json", "dashboard.html",
        *(f"codebook_{stride}px.tif" for stride in (2, 4, 8, 16, 32, 64)),
    }
)  # fmt: skip
#: Folders of files that a run writes: whatever lies in them is a run's.
OUR_TREES = frozenset({"features.zarr"})
#: Bulletins and mails of a geoservice, in folders of their own.
LETTER = re.compile(r"bulletins/[^/]+\.html|outbox/[^/]+\.eml")
SCENE_FOLDER = re.compile(r"[0-9a-f]{8}|no-id")
#: What a folder must hold, one of them, to be taken for an earlier run's.
REPORT = "report.json"
RECORDS = (REPORT, "passes.json", "mission.json", "features.json", "change.json", "geoservice.json")

log = logging.getLogger(__name__)


@contextmanager
def whole_or_nothing(out: Path, overwrite: bool) -> Iterator[Path]:
    """A folder that becomes `out` when all went well, and vanishes when not. InputError if `out` is in the way.

    If something else came to lie at `out` during the run, the result stays beside it, under the name in the error.
    """
    try:
        refuse_in_the_way(out, overwrite)
        made = _make_parents(out.parent)
    except OSError as error:
        raise InputError(f"{str(out)[:200]}: cannot be written ({error.strerror}), wanted a writable folder") from None
    try:
        with _locked(out):
            _remove_left_over(out)
            yield from _filled(out, overwrite)
    finally:
        _remove_empty(made)


def refuse_in_the_way(out: Path, overwrite: bool, known: frozenset[str] = OUR_FILES) -> None:
    """InputError unless `out` is free, empty, or holds nothing but an earlier run that may be replaced."""
    if not out.exists() and not out.is_symlink():
        return
    if not out.is_dir():
        raise InputError(f"{out} is a file, wanted a folder; choose another --out")
    held = sorted(path for path in out.rglob("*") if not path.is_dir() or path.is_symlink())
    if not held:
        return
    foreign = [path for path in held if not _is_ours(path.relative_to(out), known)]
    if foreign or not _has_report(out):
        named = f", {foreign[0].relative_to(out)} among them" if foreign else ""
        raise InputError(f"{out} holds files that no run wrote{named}; choose another --out")
    if not overwrite:
        raise InputError(f"{out} is already there; choose another --out or allow --overwrite")


def _filled(out: Path, overwrite: bool) -> Iterator[Path]:
    try:
        folder = Path(tempfile.mkdtemp(prefix=f".{out.name}.", suffix=".part", dir=out.parent))
    except OSError as error:
        raise InputError(f"{out}: cannot be written ({error.strerror}), wanted a writable folder") from None
    try:
        yield folder
        folder.chmod(0o755)
        _put_in_place(folder, out, overwrite)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _put_in_place(folder: Path, out: Path, overwrite: bool) -> None:
    written = frozenset(path.name for path in folder.rglob("*"))
    try:
        refuse_in_the_way(out, overwrite, OUR_FILES | written)
    except InputError as error:
        kept = _free_name(out)
        folder.replace(kept)
        raise InputError(f"{error} (it came there during the run, whose result is in {kept})") from None
    if not out.exists():
        folder.replace(out)
        return
    target = out.resolve()  # a link to a folder stays a link
    old = target.with_name(f"{folder.name.removesuffix('.part')}.old")
    target.replace(old)
    folder.replace(target)
    shutil.rmtree(old, ignore_errors=True)


def _free_name(out: Path) -> Path:
    number = 1
    while (kept := out.with_name(f"{out.name}-{number}")).exists():
        number += 1
    return kept


def _is_ours(path: Path, known: frozenset[str]) -> bool:
    """Whether a file in an output folder is one that runs write."""
    if path.parts[0] in OUR_TREES or LETTER.fullmatch(path.as_posix()):
        return True
    in_scene = len(path.parts) == 2 and SCENE_FOLDER.fullmatch(path.parts[0])
    return bool(path.name in known or OTHER_FILE.fullmatch(path.name)) and (len(path.parts) == 1 or bool(in_scene))


def _has_report(out: Path) -> bool:
    return any((out / name).is_file() for name in RECORDS) or any(
        (folder / REPORT).is_file() for folder in out.iterdir() if SCENE_FOLDER.fullmatch(folder.name)
    )


@contextmanager
def _locked(out: Path) -> Iterator[None]:
    """Holds `out` for this run. InputError while another one has it."""
    path = out.with_name(f".{out.name}.lock")
    descriptor = _lock(path, out)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)  # while it is held: whoever waits for it looks whether it is still there
        os.close(descriptor)


def _lock(path: Path, out: Path) -> int:
    while True:
        try:
            descriptor = os.open(path, os.O_CREAT | os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise InputError(f"{out}: cannot be written ({error.strerror}), wanted a writable folder") from None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise InputError(f"{out}: another run is writing there; wait for it, or choose another --out") from None
        except OSError:  # a file system without locks
            return descriptor
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(descriptor), path.stat()):
                return descriptor
        os.close(descriptor)  # the run that had it has just removed it


def _remove_left_over(out: Path) -> None:
    """Removes the hidden folders of runs into `out` that were killed: while the lock is held there is no living one."""
    pattern = re.compile(re.escape(f".{out.name}.") + r"[a-z0-9_]{8}\.(part|old)")
    for path in out.parent.iterdir():
        if pattern.fullmatch(path.name) and path.is_dir() and not path.is_symlink():
            log.warning("%s: left by a run that was killed, removed", path)
            shutil.rmtree(path, ignore_errors=True)


def _make_parents(parent: Path) -> list[Path]:
    """Makes the folders down to `parent`; those that are new, innermost first."""
    missing = [folder for folder in (parent, *parent.parents) if not folder.exists()]
    parent.mkdir(parents=True, exist_ok=True)
    return missing


def _remove_empty(folders: list[Path]) -> None:
    for folder in folders:
        with suppress(OSError):  # it holds something, and stays
            folder.rmdir()
