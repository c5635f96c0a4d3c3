"""How the device fares while it works: temperatures, clock, governor, and what its kernel tells of throttling.

Every figure is the kernel's own. What a kernel does not tell is left out, and the profile says so.
"""

import re
import time
from pathlib import Path
from statistics import mean
from typing import Any

from hil.agent.kernel_files import SYS, number, text

CPUINFO = "/proc/cpuinfo"
#: Where a Raspberry Pi's firmware tells of under-voltage and throttling: bits in hex.
RASPBERRY = "devices/platform/soc/soc:firmware/get_throttled"


def health(root: str = SYS, cpuinfo: str = CPUINFO) -> dict[str, Any]:
    """One look, as JSON values: `t_s` on the device's clock, and what is known at that time."""
    return {
        "t_s": time.monotonic(),
        "temperatures_c": temperatures_c(root),
        "clock_mhz": clock_mhz(root, cpuinfo),
        "governor": text(Path(root) / "devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        "throttling": throttling(root),
    }


def temperatures_c(root: str = SYS) -> dict[str, float]:
    """Every temperature the kernel tells, by its name: thermal zones, then hwmon."""
    found: dict[str, float] = {}
    for zone in sorted(Path(root).glob("class/thermal/thermal_zone*")):
        _keep(found, text(zone / "type") or zone.name, number(zone / "temp"), 1e-3)
    for path in sorted(Path(root).glob("class/hwmon/hwmon*/temp*_input")):
        label = text(path.with_name(path.name.replace("_input", "_label"))) or path.name.removesuffix("_input")
        _keep(found, f"{text(path.parent / 'name') or path.parent.name} {label}", number(path), 1e-3)
    return found


def clock_mhz(root: str = SYS, cpuinfo: str = CPUINFO) -> float | None:
    """Mean clock of the processors: cpufreq's, else what /proc/cpuinfo says (x86 only); None where neither tells."""
    paths = Path(root).glob("devices/system/cpu/cpu[0-9]*/cpufreq/scaling_cur_freq")
    khz = [value for path in paths if (value := number(path)) is not None]
    if khz:
        return mean(khz) / 1e3
    told = re.findall(r"^cpu MHz\s*:\s*([0-9.]+)$", text(Path(cpuinfo)) or "", re.MULTILINE)
    return mean(float(mhz) for mhz in told) if told else None


def throttling(root: str = SYS) -> dict[str, float]:
    """Counters and states that rise when the device holds itself back, by name; empty where the kernel tells none."""
    found: dict[str, float] = {}
    for kind in ("core", "package"):
        paths = Path(root).glob(f"devices/system/cpu/cpu[0-9]*/thermal_throttle/{kind}_throttle_count")
        counts = [value for path in paths if (value := number(path)) is not None]
        if counts:
            found[f"{kind} throttle count"] = sum(counts)
    for device in sorted(Path(root).glob("class/thermal/cooling_device*")):
        _keep(found, f"{device.name} {text(device / 'type') or ''}".strip(), number(device / "cur_state"), 1.0)
    bits = text(Path(root) / RASPBERRY)
    if bits and re.fullmatch("[0-9a-fA-Fx]{1,10}", bits):
        found["firmware throttled bits"] = float(int(bits, 16))
    return found


def _keep(found: dict[str, float], name: str, value: float | None, scale: float) -> None:
    if value is not None:
        found[name] = value * scale
