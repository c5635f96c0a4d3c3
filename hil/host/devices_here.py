"""Which devices this machine could use, and what is missing for the others: `hil devices`."""

import importlib.util
import shutil
from dataclasses import dataclass

from hil.host.emulation import ROOT, X86, processors
from hil.host.labgrid_place import CLIENT
from payload.engine import ENGINES


@dataclass(frozen=True)
class DeviceKind:
    """A kind of device URL; `missing` is what it needs and is not here, "" where it is ready."""

    url: str
    about: str
    missing: str = ""


def device_kinds() -> list[DeviceKind]:
    """Every kind of URL, the emulated processors one by one, the serial ports that are plugged in."""
    engines = [name for name in ENGINES if importlib.util.find_spec(name)]
    kinds = [
        DeviceKind("host:", f"this machine's own Python, with {', '.join(engines) or 'no runtime'}"),
        DeviceKind("tcp://HOST:PORT[?key=FILE]", "an agent that listens"),
        *_serial(),
        DeviceKind("ssh://USER@HOST/PATH/agent.pyz", "an agent started over ssh", _package("asyncssh")),
        DeviceKind("stdio:COMMAND", "any command that ends up in an agent"),
        DeviceKind("--place NAME", "a board in a labgrid lab", "" if shutil.which(CLIENT) else f"needs {CLIENT}"),
    ]
    return kinds + [DeviceKind(f"emulated:{name}", "octets only, no times", _emulator(name)) for name in processors()]


def _serial() -> list[DeviceKind]:
    missing = _package("serial", "pyserial")
    ports: list[str] = []
    if not missing:
        from serial.tools.list_ports import comports

        ports = [port.device for port in comports()]
    urls = [f"serial://{port}?baud=1000000" for port in ports] or ["serial:///dev/ttyUSB0?baud=1000000"]
    about = "an agent behind this port" if ports else "an agent behind a serial line; no port is plugged in"
    return [DeviceKind(url, about, missing) for url in urls]


def _package(module: str, name: str = "") -> str:
    return "" if importlib.util.find_spec(module) else f"needs {name or module}: pip install 'nadir-payload[bench]'"


def _emulator(processor: str) -> str:
    program = "qemu-x86_64-static" if processor in X86 else "qemu-aarch64-static"
    if not shutil.which(program):
        return f"needs {program}: apt-get install qemu-user-static"
    if processor not in X86 and not (ROOT / "opt/site/numpy").is_dir():
        return "needs the arm64 root: hil sysroot"
    return ""
