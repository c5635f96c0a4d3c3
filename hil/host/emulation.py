"""Another processor without a board: a small arm64 root for qemu, and the commands that run an agent in it.

    build/sysroot/aarch64/           Debian's files, python3, libstdc++: unpacked, nothing is installed
    build/sysroot/aarch64/opt/site/  aarch64 wheels, unzipped
    build/sysroot/aarch64/opt/agent/ zipapps

Emulation shows that the octets are the same; it is far too slow to say anything about time. Two runtimes, two ways in:
ONNX Runtime runs inside a chroot, OpenVINO under `qemu -L`; each fails the other way (measured with qemu 7.2).
"""

import shutil
import subprocess
import sys
import tempfile
import zipfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from hil.host.agent_zip import write_agent
from payload.bundle import load_bundle
from payload.errors import InputError

ROOT = Path("build/sysroot/aarch64")
CONSTRAINTS = Path(__file__).parents[2] / "constraints.txt"
DEBIAN = "bookworm"
PYTHON = "3.11"
PACKAGES = (
    "python3.11",
    "libstdc++6",
    "libgomp1",
    "libffi8",
    "zlib1g",
    "libexpat1",
    "libbz2-1.0",
    "liblzma5",
    "libssl3",
)
WHEELS = ("numpy", "openvino", "onnxruntime")
PLATFORMS = ("manylinux2014_aarch64", *(f"manylinux_2_{minor}_aarch64" for minor in (17, 27, 28, 31, 34, 35)))
ARM = ("cortex-a53", "cortex-a57", "cortex-a72", "cortex-a76")
#: No VNNI: INT8 runs through other instructions than on this machine. Without what qemu cannot do anyway: it would
#: warn of each of these in every process.
NOT_EMULATED = "-pcid,-x2apic,-tsc-deadline,-hle,-invpcid,-rtm"
X86 = {"Haswell": NOT_EMULATED, "Skylake-Client": f"{NOT_EMULATED},-rdseed,-3dnowprefetch,-xsavec"}
WATCHDOG_S = "3600"


def processors() -> list[str]:
    """What `emulated:` can be followed by."""
    return [*X86, *(f"{cpu}{end}" for cpu in ARM for end in ("", "+onnxruntime"))]


def make_sysroot(root: Path = ROOT) -> Path:
    """The arm64 root, made once and kept. InputError says which tool is missing."""
    if (root / "opt/site/numpy").is_dir():
        return root
    _need("debootstrap", "debootstrap")
    emulator = _need("qemu-aarch64-static", "qemu-user-static")
    _need("dpkg", "dpkg")
    root.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=root.parent, prefix="aarch64-part-") as scratch:
        fresh = Path(scratch) / "root"
        _run(
            [
                "debootstrap",
                "--foreign",
                "--arch=arm64",
                "--variant=minbase",
                f"--include={','.join(PACKAGES)}",
                DEBIAN,
                str(fresh),
            ]
        )
        for package in sorted((fresh / "var/cache/apt/archives").glob("*.deb")):
            _run(["dpkg", "-x", str(package), str(fresh)])
            package.unlink()
        _unzip_wheels(fresh, Path(scratch))
        shutil.copy(emulator, fresh / "qemu-aarch64-static")
        if root.exists():
            raise InputError(f"{root}: is there, but not whole; remove it and run `hil sysroot` again")
        fresh.rename(root)
    return root


def agent_command(processor: str, bundle: Path, root: Path = ROOT) -> list[str]:
    """Command of an agent on an emulated processor, speaking over stdin and stdout."""
    if processor in X86:
        emulator = _need("qemu-x86_64-static", "qemu-user-static")
        checkout = str(Path(__file__).parents[2])
        native = [emulator, "-cpu", f"{processor},{X86[processor]}", "-E", f"PYTHONPATH={checkout}", sys.executable]
        return [*native, "-m", "hil.agent.serve", *_options(processor), "--bundle", str(bundle.resolve())]
    cpu, _, runtime = processor.partition("+")
    if processor not in processors():
        raise InputError(f"emulated processor {processor!r} is unknown; choose one of {', '.join(processors())}")
    if not (root / "opt/site/numpy").is_dir():
        raise InputError(f"{root}: no arm64 root there; make one with `hil sysroot`")
    agent = write_agent(load_bundle(bundle, flight_only=True), root / "opt/agent")
    place = root.resolve()
    if runtime:
        inside = ["-E", "PYTHONPATH=/opt/site", f"/usr/bin/python{PYTHON}", f"/opt/agent/{agent.name}"]
        return [
            "unshare",
            "-r",
            "chroot",
            str(place),
            "/qemu-aarch64-static",
            "-cpu",
            cpu,
            *inside,
            *_options(processor),
        ]
    emulator = _need("qemu-aarch64-static", "qemu-user-static")
    environment = ["-E", f"PYTHONPATH={place}/opt/site", "-E", f"PYTHONHOME={place}/usr"]
    python = str(place / f"usr/bin/python{PYTHON}")
    return [emulator, "-L", str(place), "-cpu", cpu, *environment, python, str(agent.resolve()), *_options(processor)]


def engine_of(processor: str) -> str:
    """The runtime that works in this kind of emulation."""
    return "onnxruntime" if processor.endswith("+onnxruntime") else "openvino"


def _options(processor: str) -> list[str]:
    return ["--stdio", "--emulated", processor, "--watchdog-s", WATCHDOG_S]


def pinned_wheels(constraints: Path = CONSTRAINTS) -> list[str]:
    """NAME==VERSION of every wheel: the repository's pins; outside a checkout, what this host itself runs."""
    pins = dict(line.split("==") for line in _lines(constraints) if "==" in line)
    return [f"{name}=={pins.get(name) or _version_here(name)}" for name in WHEELS]


def _version_here(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        raise InputError(f"{name}: no pin in {CONSTRAINTS.name}, and not installed here; pip install {name}") from None


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").split() if path.is_file() else []


def _unzip_wheels(root: Path, scratch: Path) -> None:
    platforms = [option for platform in PLATFORMS for option in ("--platform", platform)]
    pip = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--quiet",
        "--no-deps",
        "--only-binary=:all:",
        "--python-version",
        PYTHON,
    ]
    _run([*pip, *platforms, "--dest", str(scratch / "wheels"), *pinned_wheels()])
    for wheel in (scratch / "wheels").glob("*.whl"):
        with zipfile.ZipFile(wheel) as packed:
            packed.extractall(root / "opt/site")


def _need(program: str, package: str) -> str:
    found = shutil.which(program) or shutil.which(program, path="/usr/sbin:/sbin")
    if found is None:
        raise InputError(f"{program} is not installed; apt-get install {package}")
    return found


def _run(command: list[str]) -> None:
    try:
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    except (OSError, subprocess.CalledProcessError) as error:
        said = (getattr(error, "stderr", None) or str(error)).strip().splitlines()
        raise InputError(
            f"{command[0]} failed ({said[-1] if said else error}); see to it and run `hil sysroot` again"
        ) from None
