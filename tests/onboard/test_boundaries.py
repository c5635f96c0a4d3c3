"""What flies stands alone: what importing the payload loads, who may import what, and that names point at this tree."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import payload

ROOT = Path(__file__).resolve().parents[2]
PAYLOAD_FILES = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "payload").rglob("*.py"))
NEVER_ON_BOARD = {"torch", "brevitas", "onnx", "rasterio", "sim", "hil", "export"}
ALLOWED_ON_BOARD = {"numpy", "constriction", "spacepackets", "payload"}
#: What one file alone may import on top: the runtimes; optional: signatures, the security of frames, JPEG 2000.
ALLOWED_IN = {
    "payload/engine.py": {"openvino", "onnxruntime"},
    "payload/signature.py": {"cryptography"},
    "payload/link/frames/security.py": {"cryptography"},
    "payload/codec/jpeg2000.py": {"imagecodecs"},
}
SAYS_NOTHING = {"utils", "util", "helpers", "common", "misc", "manager"}


def loaded_by(statement: str) -> set[str]:
    """Top-level names of every module that a fresh interpreter holds after `statement`, run in the repository."""
    script = f"{statement}; import sys; print(*sorted({{name.partition('.')[0] for name in sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


def imported_by(path: Path) -> set[str]:
    """Top-level names that a source file imports, wherever in it."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        if isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names.add(node.module.partition(".")[0])
    return names - set(sys.stdlib_module_names)


def of_the_ground(path: Path) -> set[str]:
    """Rooms of `sim` that a source file imports: the bench may know the design of pages, and no other."""
    nodes = [n for n in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(n, ast.ImportFrom)]
    return {n.module.split(".")[1] if "." in n.module else "" for n in nodes if (n.module or "").startswith("sim")}


def test_payload_is_the_one_of_this_tree() -> None:
    assert payload.__file__ is not None
    assert Path(payload.__file__).resolve() == ROOT / "payload" / "__init__.py"


def test_the_pipeline_loads_nothing_of_the_ground() -> None:
    assert loaded_by("import payload.pipeline") & NEVER_ON_BOARD == set()


def test_the_listener_hears_a_forbidden_import() -> None:
    assert "sim" in loaded_by("import payload.scene, sim")


@pytest.mark.parametrize("file", PAYLOAD_FILES)
def test_each_file_of_the_payload_imports_only_what_flies(file: str) -> None:
    names = imported_by(ROOT / file)
    allowed = ALLOWED_ON_BOARD | ALLOWED_IN.get(file, set())
    assert names <= allowed, f"{file} imports {sorted(names - allowed)}"


def test_the_ground_and_the_bench_keep_their_distance() -> None:
    for folder, never in (
        ("sim", {"export", "torch"}),
        ("hil", {"export", "sim", "torch"}),
        ("export", {"sim"}),  # of hil, what is known of devices: the import contracts say so
    ):
        for path in (ROOT / folder).rglob("*.py"):
            found = imported_by(path) - ({"sim"} if of_the_ground(path) == {"design"} else set())
            assert found & never == set(), path


def test_tests_do_not_shadow_packages_or_each_other() -> None:
    assert list((ROOT / "tests").rglob("__init__.py")) == []
    names = [path.name for path in (ROOT / "tests").rglob("test_*.py")]
    assert sorted(set(names)) == sorted(names)


def test_no_file_is_named_like_somebody_elses_module_or_like_nothing() -> None:
    taken = set(sys.stdlib_module_names) | {"onnx", "torch", "numpy", "openvino", "rasterio"} | SAYS_NOTHING
    for folder in ("payload", "sim", "hil", "export"):
        for path in (ROOT / folder).rglob("*.py"):
            assert path.stem not in taken - {"__init__", "__main__"}, path
