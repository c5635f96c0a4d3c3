"""Device profiles as data, and what they let one model: the time and the energy of the networks on a device.

Each number says whether it was measured, published or assumed, and where. What comes out is a model: multiply-
accumulates over an effective rate, times a power. It knows nothing of the entropy coder, of memory traffic, or of heat.
"""

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

from payload.errors import InputError
from sim.fields import from_table, nearest, read_toml

TABLE = Path(__file__).parent / "tables" / "devices.toml"

Status = Literal["measured", "published", "assumed"]


@dataclass(frozen=True)
class Sourced:
    """A number, and how far to trust it."""

    value: float
    status: Status
    source: str


@dataclass(frozen=True)
class Rate:
    """Effective rates in 10^9 multiply-accumulates a second: thin depthwise networks, mixed ones, dense wide ones."""

    low: float
    mid: float
    high: float
    status: Status
    source: str

    def __post_init__(self) -> None:
        if not 0 < self.low <= self.mid <= self.high:
            raise InputError(f"rates are {self.low:g}, {self.mid:g}, {self.high:g}, wanted low <= mid <= high above 0")


@dataclass(frozen=True)
class Anchor:
    """Something published about a device that the model can be held against."""

    what: str
    latency_s: float
    status: Status
    source: str


@dataclass(frozen=True)
class DeviceProfile:
    """What is known of a device."""

    title: str
    precision: Literal["int8", "fp16"]
    gmac_s: Rate
    power_w: Sourced
    dram_mib: Sourced | None = None
    cmx_mib: Sourced | None = None
    anchors: tuple[Anchor, ...] = ()


@dataclass(frozen=True)
class DeviceEstimate:
    """Modelled time and energy of some work on a device, at the three effective rates of its profile."""

    device: str
    gmac: float
    latency_s: float  # at the mid rate
    latency_best_s: float
    latency_worst_s: float
    energy_j: float  # at the mid rate
    energy_best_j: float
    energy_worst_j: float
    source: str


def device_names() -> list[str]:
    return sorted(_profiles())


def load_device(name: str) -> DeviceProfile:
    """The profile called `name`; InputError if there is none."""
    if name not in _profiles():
        raise InputError(f"device '{name}' is unknown; {nearest(name, device_names())}")
    return _profiles()[name]


def estimate(name: str, macs: float) -> DeviceEstimate:
    """Modelled latency and energy of `macs` multiply-accumulates of networks on the device called `name`."""
    profile = load_device(name)
    gmac = macs / 1e9
    rate, power = profile.gmac_s, profile.power_w
    worst, mid, best = gmac / rate.low, gmac / rate.mid, gmac / rate.high
    source = (
        f"modelled: networks only, {rate.low:g} / {rate.mid:g} / {rate.high:g} GMAC/s ({rate.status}: {rate.source}), "
        f"{power.value:g} W ({power.status}: {power.source})"
    )
    joules = (mid * power.value, best * power.value, worst * power.value)
    return DeviceEstimate(name, gmac, mid, best, worst, *joules, source)


@cache
def _profiles() -> dict[str, DeviceProfile]:
    tables = read_toml(TABLE)
    return {name: from_table(DeviceProfile, table, TABLE.name, name) for name, table in tables.items()}
