"""The kernel built under AddressSanitizer and UndefinedBehaviorSanitizer, run with hostile cases in its own process.

python tests/hostile/sanitized.py --decode 100000 --encode 100000        (make fuzz-kernel)
"""

import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT)]

from payload.native import sources  # noqa: E402

SOURCE = ROOT / "payload" / "native" / "kernel.c"
FLAGS = ("-O2", "-g", "-std=c11", "-fno-wrapv", "-fno-omit-frame-pointer", "-fsanitize=address,undefined",
         "-fno-sanitize-recover=all", "-shared", "-fPIC")  # fmt: skip
OPTIONS = {
    "ASAN_OPTIONS": "detect_leaks=0:abort_on_error=0:exitcode=99:allocator_may_return_null=1",
    "UBSAN_OPTIONS": "print_stacktrace=1:halt_on_error=1:exitcode=99",
    "OMP_NUM_THREADS": "1",
}


def missing() -> str | None:
    """Why it cannot be done here; None where it can."""
    if shutil.which("gcc") is None:
        return "no gcc"
    for name in ("libasan.so", "libubsan.so"):
        if not Path(preloaded(name)).is_absolute():
            return f"gcc here has no {name}"
    return None


def preloaded(name: str) -> str:
    """Where gcc keeps one of its libraries; the bare name where it has none."""
    asked = subprocess.run(["gcc", f"-print-file-name={name}"], capture_output=True, text=True, check=True)
    return asked.stdout.strip()


def build(folder: Path, source: Path) -> Path:
    target = folder / "_kernel.so"
    include, ours = sysconfig.get_paths()["include"], sources.digest()  # of those installed, whatever `source` is
    command = ["gcc", *FLAGS, f"-I{include}", f'-DNADIR_SOURCES="{ours}"', str(source), "-o", str(target)]
    subprocess.run(command, check=True)
    return target


def run(arguments: list[str], folder: Path, source: Path = SOURCE) -> subprocess.CompletedProcess[str]:
    """tests/hostile/run.py with the sanitized kernel. 0: no report; 99: one, on stderr."""
    program, library = ROOT / "tests" / "hostile" / "run.py", build(folder, source)
    command = [sys.executable, str(program), "--library", str(library), *arguments]
    libraries = " ".join(map(preloaded, ("libasan.so", "libubsan.so")))
    environment = {**os.environ, **OPTIONS, "LD_PRELOAD": libraries, "PYTHONMALLOC": "malloc"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


if __name__ == "__main__":
    if reason := missing():
        sys.exit(f"no sanitizers: {reason}; install gcc with libasan and libubsan")
    with tempfile.TemporaryDirectory() as folder:
        done = run(sys.argv[1:], Path(folder))
    print(done.stdout + done.stderr[-8000:], end="")
    print("0 reports" if done.returncode == 0 else f"ended with {done.returncode}")
    sys.exit(done.returncode)
