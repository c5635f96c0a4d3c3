"""Which software this is: the version that is installed, and the commit where it runs from a checkout."""

from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGE = "nadir-payload"
ROOT = Path(__file__).resolve().parents[1]

try:
    VERSION = version(PACKAGE)
except PackageNotFoundError:  # a copy without its metadata, as in the agent's zip
    VERSION = "unknown"


@cache
def software() -> dict[str, str | None]:
    """Name, version and commit, for reports. The commit is None where nothing says it."""
    return {"name": PACKAGE, "version": VERSION, "commit": commit(ROOT)}


def described() -> str:
    """Version and commit in one line."""
    found = commit(ROOT)
    return f"{VERSION} ({found[:12]})" if found else VERSION


def commit(root: Path) -> str | None:
    """The commit that is checked out at `root`, read from git's own files; None where there are none."""
    try:
        folder = _git_folder(root / ".git")
        head = (folder / "HEAD").read_text(encoding="ascii").strip()
        if not head.startswith("ref: "):
            return head
        return _of_reference(folder, head.removeprefix("ref: "))
    except (OSError, ValueError):
        return None


def _git_folder(path: Path) -> Path:
    if path.is_dir():
        return path
    words = path.read_text(encoding="utf-8").strip()  # a work tree: "gitdir: PATH"
    return (path.parent / words.removeprefix("gitdir: ")).resolve()


def _of_reference(folder: Path, name: str) -> str | None:
    common = folder / "commondir"
    shared = (folder / common.read_text(encoding="utf-8").strip()).resolve() if common.is_file() else folder
    for place in (folder, shared):
        if (place / name).is_file():
            return (place / name).read_text(encoding="ascii").strip()
    packed = (shared / "packed-refs").read_text(encoding="utf-8").splitlines()
    return next((line.split()[0] for line in packed if line.endswith(f" {name}")), None)
