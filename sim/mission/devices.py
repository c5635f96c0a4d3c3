"""The device that a mission names, and what one lets one model of it: time and energy of a scene's work.

By name, a device of `hil/devices/data`: each number says whether it was measured, published or assumed, and where. The
model is that of hil/devices/latency.py, which the workshop uses, too. By file, a profile.json of the bench
(`hil profile`): then speed and power are those of the whole payload on that very device.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from hil.devices.latency import STATEMENT, Work, coding_work, gate_work
from hil.devices.latency import estimate as model
from hil.devices.targets import Target, load_target, target_names
from hil.profiles.profile_file import CODED, BenchProfile, load_profile
from payload.bundle import Bundle
from payload.errors import InputError
from sim.toml_tables import nearest

Status = Literal["measured", "published", "assumed"]


@dataclass(frozen=True)
class Sourced:
    """A number, and how far to trust it."""

    value: float
    status: str
    source: str


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
    """Modelled time and energy of some work on a device: in the middle, at best, at worst."""

    device: str
    latency_s: float
    latency_best_s: float
    latency_worst_s: float
    energy_j: float | None  # None where the device's power is not known
    energy_best_j: float | None
    energy_worst_j: float | None
    source: str
    whole_payload: bool  # or networks and context model only: a lower bound


def device_names() -> list[str]:
    return target_names()


def load_device(name: str) -> Target | MeasuredDevice:
    """The device called `name`, or the bench's profile in the file `name`.json; InputError if there is none."""
    if is_profile_file(name):
        return _measured(load_profile(Path(name)), name)
    if name not in target_names():
        raise InputError(f"device '{name}' is unknown; {nearest(name, device_names())}")
    return load_target(name)


def is_profile_file(name: str) -> bool:
    return name.endswith(".json")


def power_of(device: Target | MeasuredDevice) -> Sourced | None:
    """What it draws at work, in W: the middle of a range."""
    if isinstance(device, MeasuredDevice):
        return device.power_w
    figure = device.figure("power_w")
    return Sourced(figure.mid, figure.status, figure.source)


def estimate(name: str, work: Work, px: int) -> DeviceEstimate:
    """Modelled latency and energy of `px` pixels that ask for `work`, on the device `name`."""
    device = load_device(name)
    if isinstance(device, MeasuredDevice):
        return _from_profile(name, device, px)
    modelled = model(device, work)
    best_s, mid_s, worst_s = (ms / 1e3 for ms in modelled.latency_ms)
    best_j, mid_j, worst_j = (mj / 1e3 for mj in modelled.energy_mj)
    figures = ", ".join(
        f"{device.figure(key)} {unit} ({device.figure(key).status}: {device.figure(key).source})"
        for key, unit in (("rate_gmac_per_s", "GMAC/s"), ("power_w", "W"))
    )
    stages = "; stages are not known and count nothing" if work.stages is None else ""
    source = f"modelled: {STATEMENT}{stages}; {figures}"
    return DeviceEstimate(name, mid_s, best_s, worst_s, mid_j, best_j, worst_j, source, whole_payload=False)


def _from_profile(name: str, device: MeasuredDevice, px: int) -> DeviceEstimate:
    mpx, power = px / 1e6, device.power_w
    seconds = mpx / device.mean_mpx_s, mpx / device.best_mpx_s, mpx / device.worst_mpx_s
    rates = f"{device.worst_mpx_s:.3g} / {device.mean_mpx_s:.3g} / {device.best_mpx_s:.3g} Mpx/s"
    drawn = "power not measured" if power is None else f"{power.value:.4g} W ({power.status}: {power.source})"
    source = f"modelled: whole payload, {rates} at p95, mean and fastest coded tile (measured: {device.title}), {drawn}"
    mid_j, best_j, worst_j = (None if power is None else power.value * s for s in seconds)
    return DeviceEstimate(name, *seconds, mid_j, best_j, worst_j, source, whole_payload=True)


def _measured(profile: BenchProfile, name: str) -> MeasuredDevice:
    speed, energy, mpx = profile.performance, profile.energy, profile.tile_px**2 / 1e6
    if speed is None:
        raise InputError(f"{name}: the profile holds no performance; make one with `hil profile` on real hardware")
    modelled = energy is not None and energy.basis.startswith("modelled")
    power = Sourced(energy.busy_w, "assumed" if modelled else "measured", energy.basis) if energy else None
    title = f"{profile.device.cpu} with {profile.device.engine}, bundle {profile.bundle}, {profile.made_at}"
    coded = speed.kinds.get(CODED)  # a withheld tile costs the gate alone: the profile's clouds are not this scene's
    tile_s, mean_mpx_s = (coded.tile_s, speed.coded_mpx_s) if coded else (speed.tile_s, None)
    kinds = speed.latency_kinds or (CODED,) * len(speed.latencies_s)
    of_coded = [s for s, kind in zip(speed.latencies_s, kinds, strict=True) if kind == CODED]
    fastest_s = min(of_coded, default=tile_s.p50_s)
    worst_mpx_s = mpx / (tile_s.p95_s or tile_s.max_s)
    return MeasuredDevice(title, worst_mpx_s, mean_mpx_s or speed.tile_mpx_s, mpx / fastest_s, power)


def scene_work(bundle: Bundle, name: str, looked_at: int, coded: int) -> Work:
    """What a scene asks of the device `name`: so many tiles that the gate looked at, so many of them coded.

    A bench's profile needs no such count: the multiply-accumulates are then told, and time nothing.
    """
    device = load_device(name)
    target = load_target("x86-vnni") if isinstance(device, MeasuredDevice) else device
    return gate_work(bundle, target).times(looked_at) + coding_work(bundle, target).times(coded)
