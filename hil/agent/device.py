"""What a device says about itself: machine, engines, memory, temperature, power."""

import importlib.util
import os
import platform
import resource
import stat
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from hil.agent import myriad
from payload.engine import ENGINES
from payload.errors import InputError
from payload.native import library

SYS = "/sys"
LEAST_COPIED_OCTETS, MOST_COPIED_OCTETS = 64 * 2**20, 1024 * 2**20
LONGEST_TEXT = 65536  # /proc/cpuinfo begins with what we look for


def describe(emulated: str | None) -> dict[str, Any]:
    """The device's identity as JSON values. `emulated` names the emulated processor, None on real hardware."""
    cpu = _cpu_model()
    mismatch = platform.machine() == "aarch64" and any(maker in cpu for maker in ("Intel", "AMD"))
    return {
        "machine": platform.machine(),
        "cpu": cpu,
        "cores": os.cpu_count() or 1,
        "memory_mib": _memory_octets() // 2**20,
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "engines": _engines(),
        "kernel": "compiled" if library.available else "numpy",
        "emulated": emulated or ("unknown processor on x86" if mismatch else None),
    }


def peak_memory_mib() -> float:
    """Most memory this process has held, as the kernel counts it."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def ceilings() -> dict[str, float]:
    """What this machine reaches at best, by numpy: f32 multiply-accumulates a second, octets moved a second."""
    a = np.ones((768, 768), np.float32)
    octets = copied_octets(_largest_cache_octets(), _memory_octets())
    block = np.ones(octets, np.uint8)  # ones: pages that were never written would all be the same one
    half = octets // 2
    seconds = _fastest_s(lambda: np.copyto(block[:half], block[half : 2 * half]), times=5)
    return {
        "gmac_s": a.shape[0] ** 3 / _fastest_s(lambda: a @ a) / 1e9,
        "memory_gb_s": 2 * half / seconds / 1e9,  # read and written
        "copied_mib": octets / 2**20,
    }


def copied_octets(cache_octets: int, memory_octets: int) -> int:
    """How much has to move to come from the memory itself: four times the largest cache, within an eighth of it all."""
    return min(max(4 * cache_octets, LEAST_COPIED_OCTETS), MOST_COPIED_OCTETS, memory_octets // 8)


def _largest_cache_octets(root: str = SYS) -> int:
    """Of the caches that the kernel tells of; 0 where it tells of none."""
    units = {"K": 1024, "M": 1024**2}
    found = [_text(path) or "" for path in Path(root).glob("devices/system/cpu/cpu0/cache/index*/size")]
    return max((int(text[:-1]) * units.get(text[-1], 1) for text in found if text[:-1].isdigit()), default=0)


def _memory_octets() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _fastest_s(work: Callable[[], object], times: int = 12) -> float:
    taken = []
    for _ in range(times):
        before_s = time.perf_counter()
        work()
        taken.append(time.perf_counter() - before_s)
    return min(taken)


def temperatures_c(root: str = SYS) -> dict[str, float]:
    """Every temperature the kernel tells, by its name: thermal zones, then hwmon."""
    found: dict[str, float] = {}
    for zone in sorted(Path(root).glob("class/thermal/thermal_zone*")):
        _keep(found, _text(zone / "type") or zone.name, _number(zone / "temp"), 1e-3)
    for path in sorted(Path(root).glob("class/hwmon/hwmon*/temp*_input")):
        label = _text(path.with_name(path.name.replace("_input", "_label"))) or path.name.removesuffix("_input")
        _keep(found, f"{_text(path.parent / 'name') or path.parent.name} {label}", _number(path), 1e-3)
    return found


def _keep(found: dict[str, float], name: str, value: float | None, scale: float) -> None:
    if value is not None:
        found[name] = value * scale


class SysfsPower:
    """Power in watts from a file of the kernel: hwmon `power1_input` in uW, or powercap `energy_uj` in uJ.

    An energy counter gives the mean power since the last reading. A reading that does not parse is None: torn or gone.
    InputError where `path` is not a regular file of one of these names below `root`.
    """

    def __init__(self, path: str, root: Path = Path(SYS)) -> None:
        self._path = _power_file(path, root)
        self._counter = self._path.name == "energy_uj"
        self._wraps_at = _number(self._path.with_name("max_energy_range_uj"))
        self._last: tuple[float, float] | None = None

    def read_w(self) -> float | None:
        value, now_s = _number(self._path), time.monotonic()
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
    text = _text(Path("/proc/cpuinfo")) or ""
    for key in ("model name", "Model", "Hardware"):
        for line in text.splitlines():
            if line.startswith(key):
                return line.partition(":")[2].strip()
    return _text(Path("/proc/device-tree/model")) or platform.processor() or "unknown"


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


def _text(path: Path) -> str | None:
    """A short file of the kernel's. Opened so that no file whatever can make us wait: None where it would."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except (OSError, ValueError):
        return None
    try:
        return os.read(fd, LONGEST_TEXT).decode(errors="replace").strip("\0\n ")
    except OSError:
        return None
    finally:
        os.close(fd)


def _number(path: Path) -> float | None:
    try:
        return float(_text(path) or "")
    except ValueError:
        return None
