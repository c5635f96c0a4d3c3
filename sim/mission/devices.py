"""Device profiles as data, and what they let one model: the time and the energy of the networks on a device.

Each number says whether it was measured, published or assumed, and where. What comes out is a model: multiply-
accumulates over an effective rate, times a power. It knows nothing of the entropy coder, of memory traffic, or of heat.

A device can also be a profile.json of the bench (`hil profile`). Then speed and power are those of the whole payload on
that very device, and a scene takes its pixels over that speed.
"""

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

from hil.profiles.profile_file import CODED, BenchProfile, load_profile
from payload.errors import InputError
from sim.toml_tables import from_table, nearest, read_toml

TABLE = Path(__file__).parents[1] / "tables" / "devices.toml"

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
class MeasuredDevice:
    """What the bench measured on a device: the whole payload, tile by tile."""

    title: str
    worst_mpx_s: float  # at the 95th percentile of the tiles
    mean_mpx_s: float
    best_mpx_s: float
    power_w: Sourced | None  # None: profiled without a meter


@dataclass(frozen=True)
class DeviceEstimate:
    """Modelled time and energy of some work on a device, at the three rates of its profile."""

    device: str
    gmac: float
    latency_s: float  # at the middle rate
    latency_best_s: float
    latency_worst_s: float
    energy_j: float | None  # at the middle rate; None where the device's power is not known
    energy_best_j: float | None
    energy_worst_j: float | None
    source: str
    whole_payload: bool  # or its networks only


def device_names() -> list[str]:
    return sorted(_profiles())


def load_device(name: str) -> DeviceProfile | MeasuredDevice:
    """The profile called `name`, or the bench's in the file `name`.json; InputError if there is none."""
    if is_profile_file(name):
        return _measured(load_profile(Path(name)), name)
    if name not in _profiles():
        raise InputError(f"device '{name}' is unknown; {nearest(name, device_names())}")
    return _profiles()[name]


def is_profile_file(name: str) -> bool:
    return name.endswith(".json")


def estimate(name: str, macs: float, px: int) -> DeviceEstimate:
    """Modelled latency and energy of `px` pixels, `macs` multiply-accumulates of networks, on the device `name`."""
    profile, gmac, mpx = load_device(name), macs / 1e9, px / 1e6
    if isinstance(profile, MeasuredDevice):
        seconds = mpx / profile.mean_mpx_s, mpx / profile.best_mpx_s, mpx / profile.worst_mpx_s
        rates = f"{profile.worst_mpx_s:.3g} / {profile.mean_mpx_s:.3g} / {profile.best_mpx_s:.3g} Mpx/s"
        how = f"whole payload, {rates} at p95, mean and fastest coded tile (measured: {profile.title})"
    else:
        rate = profile.gmac_s
        seconds = gmac / rate.mid, gmac / rate.high, gmac / rate.low
        how = f"networks only, {rate.low:g} / {rate.mid:g} / {rate.high:g} GMAC/s ({rate.status}: {rate.source})"
    power = profile.power_w
    drawn = "power not measured" if power is None else f"{power.value:.4g} W ({power.status}: {power.source})"
    mid_j, best_j, worst_j = (None if power is None else power.value * s for s in seconds)
    return DeviceEstimate(
        name, gmac, *seconds, mid_j, best_j, worst_j, f"modelled: {how}, {drawn}", isinstance(profile, MeasuredDevice)
    )


def _measured(found: BenchProfile, name: str) -> MeasuredDevice:
    speed, energy, mpx = found.performance, found.energy, found.tile_px**2 / 1e6
    if speed is None:
        raise InputError(f"{name}: the profile holds no performance; make one with `hil profile` on real hardware")
    modelled = energy is not None and energy.basis.startswith("modelled")
    power = Sourced(energy.busy_w, "assumed" if modelled else "measured", energy.basis) if energy else None
    title = f"{found.device.cpu} with {found.device.engine}, bundle {found.bundle}, {found.made_at}"
    coded = speed.kinds.get(CODED)  # a withheld tile costs the gate alone: the profile's clouds are not this scene's
    tile_s, mean_mpx_s = (coded.tile_s, speed.coded_mpx_s) if coded else (speed.tile_s, None)
    kinds = speed.latency_kinds or (CODED,) * len(speed.latencies_s)
    of_coded = [s for s, kind in zip(speed.latencies_s, kinds, strict=True) if kind == CODED]
    fastest_s = min(of_coded, default=tile_s.p50_s)
    worst_mpx_s = mpx / (tile_s.p95_s or tile_s.max_s)
    return MeasuredDevice(title, worst_mpx_s, mean_mpx_s or speed.tile_mpx_s, mpx / fastest_s, power)


@cache
def _profiles() -> dict[str, DeviceProfile]:
    tables = read_toml(TABLE)
    return {name: from_table(DeviceProfile, table, TABLE.name, name) for name, table in tables.items()}
