"""What a device says about itself: machine, engines, memory, power."""

import importlib.util
import os
import platform
import stat
import threading
import time
from pathlib import Path
from typing import Any

from hil.agent.blobs import myriad
from hil.agent.kernel_files import SYS, number, text
from payload.engine import ENGINES
from payload.errors import InputError
from payload.native import library


def describe(emulated: str | None) -> dict[str, Any]:
    """The device's identity as JSON values. `emulated` names the emulated processor, None on real hardware."""
    cpu = _cpu_model()
    mismatch = platform.machine() == "aarch64" and any(maker in cpu for maker in ("Intel", "AMD"))
    return {
        "machine": platform.machine(),
        "cpu": cpu,
        "cores": os.cpu_count() or 1,
        "memory_mib": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20,
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "engines": _engines(),
        "kernel": "compiled" if library.available else "numpy",
        "emulated": emulated or ("unknown processor on x86" if mismatch else None),
    }


class SysfsPower:
    """Power in watts from a file of the kernel: hwmon `power1_input` in uW, or powercap `energy_uj` in uJ.

    An energy counter gives the mean power since the last reading. A reading that does not parse is None: torn or gone.
    InputError where `path` is not a regular file of one of these names below `root`.
    """

    def __init__(self, path: str, root: Path = Path(SYS)) -> None:
        self._path = _power_file(path, root)
        self._counter = self._path.name == "energy_uj"
        self._wraps_at = number(self._path.with_name("max_energy_range_uj"))
        self._last: tuple[float, float] | None = None

    def read_w(self) -> float | None:
        value, now_s = number(self._path), time.monotonic()
        if value is None or not self._counter:
            return None if value is None else value * 1e-6
        last, self._last = self._last, (now_s, value)
        if last is None or now_s <= last[0]:
            return None
        used = value - last[1]
        if used < 0:
            used += self._wraps_at or 0.0
        return used * 1e-6 / (now_s - last[0]) if used >= 0 else None


def _power_file(path: str, root: Path) -> Path:
    names = ("power1_input", "energy_uj")
    wanted = f"wanted a {' or '.join(names)} below {root}"
    try:
        found = Path(path).resolve(strict=True)
        regular = stat.S_ISREG(found.stat().st_mode)
    except (OSError, ValueError) as error:
        cause = getattr(error, "strerror", None) or "not a path"
        raise InputError(f"power {path[:200]}: {cause}; {wanted}") from None
    if not regular or found.name not in names or not found.is_relative_to(root.resolve()):
        raise InputError(f"power {path[:200]}: not a power meter's file; {wanted}")
    return found


class PowerSampler:
    """Reads a meter of the device at a fixed period in a thread of its own: (device time in s, W) pairs."""

    def __init__(self, power: SysfsPower, period_s: float) -> None:
        self._power, self._period_s = power, max(period_s, 0.001)
        self._samples: list[tuple[float, float]] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def take(self) -> list[tuple[float, float]]:
        """Samples since the last call."""
        taken, self._samples = self._samples, []
        return taken

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.is_set():
            before_s = time.monotonic()
            watts = self._power.read_w()
            if watts is not None:
                self._samples.append(((before_s + time.monotonic()) / 2, watts))
            self._stop.wait(self._period_s)


def _cpu_model() -> str:
    told = text(Path("/proc/cpuinfo")) or ""
    for key in ("model name", "Model", "Hardware"):
        for line in told.splitlines():
            if line.startswith(key):
                return line.partition(":")[2].strip()
    return text(Path("/proc/device-tree/model")) or platform.processor() or "unknown"


def _engines() -> dict[str, str]:
    """Runtimes that are here, by name: those of the payload, and the old toolkit for a Myriad where it is named."""
    here = {name: version for name in ENGINES if (version := _version(name))}
    return here | ({myriad.NAME: myriad.VERSION} if myriad.command_here() else {})


def _version(engine: str) -> str | None:
    """Release of an installed runtime, without importing it; None if it is not there."""
    if importlib.util.find_spec(engine) is None:
        return None
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(engine)
    except PackageNotFoundError:  # unzipped by hand
        return "unknown"
