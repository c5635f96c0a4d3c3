"""What a run used of what the satellite gives, and which budget binds.

Throughput and memory are measured on the machine that simulates; time, power and energy on the mission's device are
modelled (sim/mission/devices.py); volume is counted in octets. A scene is scaled to an orbit by the imager's pixels per
orbit.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from hil.devices.latency import Work
from hil.devices.states import OrbitEnergy, assumption, orbit_energy
from sim.link.orbit import period_s
from sim.mission.devices import estimate, load_device, power_of
from sim.mission.spec import Mission

#: On host, on device: times and memory, which no other run repeats.
Basis = Literal["measured", "measured on host", "measured on device", "modelled"]


@dataclass(frozen=True)
class SceneRun:
    """What one scene cost. Pixels count once, not per band."""

    scene_px: int
    downlinked_octets: int  # every octet of every packet sent
    work: Work  # of all tiles on board, gated ones at what they cost
    onboard_s: float | None = None  # measured time of the payload, scene to packets
    peak_memory_mib: float | None = None  # measured, of the whole process
    timed_on: Literal["host", "device", "emulated"] = "host"  # an emulated device's time and memory say nothing


@dataclass(frozen=True)
class Budget:
    """Used of available, in `unit`. Held while used <= available; what is unknown is not held."""

    name: str
    used: float | None
    available: float
    unit: str
    basis: Basis
    how: str  # how `used` came about
    #: Which of the two the run found; the other one is the limit. A rate is available, and the imager uses of it.
    found: Literal["used", "available"] = "used"
    not_judged: str | None = None  # why nothing could be measured

    @property
    def margin(self) -> float:
        """Share of the budget that is left; negative when it is overdrawn; minus infinity when unknown."""
        if self.used is None or not math.isfinite(self.used):
            return -math.inf
        if self.available <= 0:
            return 1.0 if self.used <= 0 else -math.inf
        return 1.0 - self.used / self.available

    @property
    def held(self) -> bool:
        return self.margin >= 0.0


@dataclass(frozen=True)
class Throughput:
    """Rates of the payload against the imager."""

    imager_mpx_s: float
    host_mpx_s: float | None  # measured
    host_realtime_factor: float | None  # measured rate over the imager's
    device_mpx_s: float  # modelled
    device_realtime_factor: float  # modelled


@dataclass(frozen=True)
class Volume:
    """What goes down against what a pass carries."""

    downlinked_bits: int
    pass_capacity_bits: int
    bits_per_px: float  # all bands, every octet
    pass_px: float  # pixels at this rate that one pass carries


@dataclass(frozen=True)
class Energy:
    """Modelled energy of the payload on the mission's device, with its range over the profile's rates."""

    device: str
    scene_s: float
    scene_s_range: tuple[float, float]  # best, worst
    scene_j: float | None  # None where the device's power is not known
    scene_j_range: tuple[float | None, float | None]
    orbit_s: float | None  # None where the mission does not say how long it images
    orbit_j: float | None  # with what the mission's [states] add to the work
    orbit_states: OrbitEnergy | None  # the same by state; None without [states]
    orbit_assumption: str
    source: str
    whole_payload: bool  # of the device's time, or the networks only


def throughput(run: SceneRun, mission: Mission) -> Throughput:
    imager = mission.imager.rate_px_s(mission.orbit) / 1e6
    host = run.scene_px / run.onboard_s / 1e6 if run.onboard_s else None
    latency_s = estimate(mission.device, run.work, run.scene_px).latency_s
    device = run.scene_px / latency_s / 1e6 if latency_s else math.inf
    return Throughput(imager, host, host / imager if host is not None else None, device, device / imager)


def volume(run: SceneRun, mission: Mission) -> Volume:
    bits, capacity = 8 * run.downlinked_octets, mission.link.capacity_bits
    bits_per_px = bits / run.scene_px
    return Volume(bits, capacity, bits_per_px, capacity / bits_per_px if bits else math.inf)


def energy(run: SceneRun, mission: Mission) -> Energy:
    scene = estimate(mission.device, run.work, run.scene_px)
    scenes = scenes_per_orbit(run, mission)
    work_j = None if scenes is None or scene.energy_j is None else scenes * scene.energy_j
    states = None
    if mission.states is not None and work_j is not None and scenes is not None:
        states = orbit_energy(mission.states, work_j, scenes * scene.latency_s, period_s(mission.orbit))
    return Energy(
        device=mission.device,
        scene_s=scene.latency_s,
        scene_s_range=(scene.latency_best_s, scene.latency_worst_s),
        scene_j=scene.energy_j,
        scene_j_range=(scene.energy_best_j, scene.energy_worst_j),
        orbit_s=None if scenes is None else scenes * scene.latency_s,
        orbit_j=work_j if states is None else states.total_j,
        orbit_states=states,
        orbit_assumption=assumption(mission.states),
        source=scene.source,
        whole_payload=scene.whole_payload,
    )


def scenes_per_orbit(run: SceneRun, mission: Mission) -> float | None:
    """How many scenes of this size the imager takes in an orbit; None where the mission does not say."""
    imaging_s = mission.budgets.imaging_s_per_orbit
    return None if imaging_s is None else imaging_s * mission.imager.rate_px_s(mission.orbit) / run.scene_px


def assess(run: SceneRun, mission: Mission) -> list[Budget]:
    """Every budget that the mission sets, with what this run uses of it."""
    modelled = [*_orbit_volume(run, mission), *_raw_store(run, mission), *_device(run, mission)]
    return [_pass_volume(run, mission), *modelled, *_memory(run, mission), *_throughput(run, mission)]


def raw_store_mib(run: SceneRun, mission: Mission) -> float | None:
    """What waits uncoded when the imaging of an orbit ends: (imager's rate - payload's rate) x imaging time, at the
    imager's bits. The payload's rate is its device's slowest: a store that overflows loses lines."""
    imaging_s, imager = mission.budgets.imaging_s_per_orbit, mission.imager
    if imaging_s is None:
        return None
    slowest_s = estimate(mission.device, run.work, run.scene_px).latency_worst_s
    payload_px_s = run.scene_px / slowest_s if slowest_s else math.inf
    waiting_px = max(0.0, imager.rate_px_s(mission.orbit) - payload_px_s) * imaging_s
    return waiting_px * imager.bands * imager.bits / 8 / 2**20


def _raw_store(run: SceneRun, mission: Mission) -> list[Budget]:
    """Lines that the imager has taken and the payload has not yet coded."""
    limit, imaging_s = mission.budgets.raw_store_mib, mission.budgets.imaging_s_per_orbit
    if limit is None:
        return []
    how = (
        f"(imager's rate - payload's on {mission.device}, slowest) x {imaging_s or 0:g} s of imaging, "
        f"{mission.imager.bands} bands of {mission.imager.bits} bit"
    )
    return [Budget("raw store", raw_store_mib(run, mission), limit, "MiB", "modelled", how)]


_MEASURED_ON: dict[str, Basis] = {
    "host": "measured on host", "device": "measured on device", "emulated": "measured on device",
}  # fmt: skip
_EMULATED = "an emulated device's time and memory say nothing of a real one"


def _memory(run: SceneRun, mission: Mission) -> list[Budget]:
    """Memory of the process that ran the payload."""
    limit, emulated = mission.budgets.memory_mib, run.timed_on == "emulated"
    if limit is None:
        return []
    how = f"peak resident memory of {_PROCESS if run.timed_on == 'host' else 'the agent'}"
    used, cause = (None, _EMULATED) if emulated else (run.peak_memory_mib, None)
    return [Budget("memory", used, limit, "MiB", _MEASURED_ON[run.timed_on], how, not_judged=cause)]


_PROCESS = "the simulating process when the last packet was sent: interpreter, libraries and payload, not the ground"


def _throughput(run: SceneRun, mission: Mission) -> list[Budget]:
    """Speed of the machine that ran the payload: what is needed is used of what there is."""
    factor, emulated = mission.budgets.realtime_factor, run.timed_on == "emulated"
    if factor is None:
        return []
    rates = throughput(run, mission)
    counted = "in processor time on this host" if run.timed_on == "host" else "by the device's clock, without the line"
    how = f"imager's rate x {factor:g}, against the payload's rate {counted}: gate, codec and packets"
    known = rates.host_mpx_s is not None and math.isfinite(rates.host_mpx_s) and not emulated
    available = rates.host_mpx_s if known and rates.host_mpx_s else 0.0
    cause = _EMULATED if emulated else None
    basis = _MEASURED_ON[run.timed_on]
    return [Budget("throughput", factor * rates.imager_mpx_s, available, "Mpx/s", basis, how, "available", cause)]


def binding(budgets: Sequence[Budget]) -> Budget | None:
    """The budget with the least margin: the one to look at first. None if there is none."""
    return min(budgets, key=lambda budget: budget.margin, default=None)


def _pass_volume(run: SceneRun, mission: Mission) -> Budget:
    load = volume(run, mission)
    how = "octets of this scene on the air, against rate x time of one pass"
    return Budget(
        "volume of a pass", load.downlinked_bits / 1e6, load.pass_capacity_bits / 1e6, "Mbit", "measured", how
    )


def _orbit_volume(run: SceneRun, mission: Mission) -> list[Budget]:
    scenes, passes = scenes_per_orbit(run, mission), mission.budgets.passes_per_orbit
    if scenes is None or passes is None:
        return []
    load = volume(run, mission)
    used, available = scenes * load.downlinked_bits / 1e6, passes * load.pass_capacity_bits / 1e6
    how = f"{scenes:.3g} scenes like this an orbit, against {passes:g} passes an orbit"
    return [Budget("volume of an orbit", used, available, "Mbit", "modelled", how)]


def _device(run: SceneRun, mission: Mission) -> list[Budget]:
    """Time, power and energy on the mission's device."""
    limits, load, power = mission.budgets, energy(run, mission), power_of(load_device(mission.device))
    what = f"{'the payload' if load.whole_payload else 'networks and context model, a lower bound,'} on {load.device}"
    rows = []
    if load.orbit_s is not None:
        how = f"an orbit's imaging through {what}, against the orbit's period; {load.source}"
        rows.append(Budget("processing time of an orbit", load.orbit_s, period_s(mission.orbit), "s", "modelled", how))
    if limits.power_w is not None:
        known = "not known" if power is None else f"{power.status}: {power.source}"
        used_w = None if power is None else power.value
        rows.append(Budget("power", used_w, limits.power_w, "W", "modelled", f"{load.device} while it works ({known})"))
    if limits.energy_per_orbit_j is not None and load.orbit_s is not None:
        how = f"an orbit's imaging through {what}; {load.orbit_assumption}; {load.source}"
        rows.append(Budget("energy of an orbit", load.orbit_j, limits.energy_per_orbit_j, "J", "modelled", how))
    return rows
