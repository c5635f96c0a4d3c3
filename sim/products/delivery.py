"""The output folder of a run: it appears whole when the run went well, or not at all."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from payload.errors import InputError


@contextmanager
def whole_or_nothing(out: Path, overwrite: bool) -> Iterator[Path]:
    """A folder that becomes `out` when all went well, and vanishes when not. InputError if `out` is in the way."""
    if out.exists() and not out.is_dir():
        raise InputError(f"{out} is a file, wanted a folder; choose another --out")
    if out.exists() and not overwrite:
        raise InputError(f"{out} is already there; choose another --out or allow --overwrite")
    if out.is_dir() and any(out.iterdir()) and not (out / "report.json").is_file():
        raise InputError(f"{out} holds files that are no downlink's; choose another --out")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    except OSError as error:
        raise InputError(f"{out}: cannot be written ({error.strerror}), wanted a writable folder") from None
    try:
        yield folder
        folder.chmod(0o755)
        if out.exists():
            shutil.rmtree(out)
        folder.replace(out)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
