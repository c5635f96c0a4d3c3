"""States of a payload and what an orbit of them takes: off, boot, idle, busy.

One place for it: the budgets of `sim downlink`, `hil budget` and the planner of `sim mission` all ask here. The mission
states what each state draws but busy, which is the device's own figure.
"""

from dataclasses import dataclass
from typing import Literal

from payload.errors import InputError


@dataclass(frozen=True)
class States:
    """What the payload draws when it does not work, and how it gets there.

    `between_takes`: between takes it is switched off, and boots before each, or idles. `takes_per_orbit`: how many
    separate takes an orbit's imaging is made of; each costs a boot where it is switched off.
    """

    idle_w: float
    off_w: float = 0.0
    boot_w: float = 0.0
    boot_s: float = 0.0
    between_takes: Literal["off", "idle"] = "off"
    takes_per_orbit: float = 1.0

    def __post_init__(self) -> None:
        for name, most in (("idle_w", 1e5), ("off_w", 1e5), ("boot_w", 1e5), ("boot_s", 86400.0)):
            if not 0 <= getattr(self, name) <= most:
                raise InputError(f"{name} is {getattr(self, name):g}, wanted 0 to {most:g}")
        if not 0 <= self.takes_per_orbit <= 10_000:
            raise InputError(f"takes_per_orbit is {self.takes_per_orbit:g}, wanted 0 to 10000")


@dataclass(frozen=True)
class OrbitEnergy:
    """Joules of an orbit, and its seconds, by state."""

    joules: dict[str, float]
    seconds: dict[str, float]

    @property
    def total_j(self) -> float:
        return sum(self.joules.values())


def orbit_energy(states: States, busy_j: float, busy_s: float, orbit_s: float) -> OrbitEnergy:
    """An orbit in which the payload works for `busy_s` and draws `busy_j` meanwhile. The rest of it is off or idle.

    Work that is longer than the orbit leaves no rest: the energy is then that of the work alone, and of its boots.
    """
    boots = states.takes_per_orbit if states.between_takes == "off" else 0.0
    boot_s = min(boots * states.boot_s, max(0.0, orbit_s - busy_s))
    rest_s = max(0.0, orbit_s - busy_s - boot_s)
    rest, rest_w = ("off", states.off_w) if states.between_takes == "off" else ("idle", states.idle_w)
    joules = {"busy": busy_j, "boot": boot_s * states.boot_w, rest: rest_s * rest_w}
    return OrbitEnergy(joules, {"busy": busy_s, "boot": boot_s, rest: rest_s})


def assumption(states: States | None) -> str:
    """What a figure of an orbit's energy rests on, in a few words."""
    if states is None:
        return "the work alone: the mission has no [states], so idle and boot are not in it"
    if states.between_takes == "idle":
        return f"idle at {states.idle_w:g} W for the rest of the orbit"
    return (
        f"switched off between takes ({states.off_w:g} W), {states.takes_per_orbit:g} boots of {states.boot_s:g} s at "
        f"{states.boot_w:g} W an orbit"
    )
