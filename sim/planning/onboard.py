"""On board over days: takes are stored raw, coded one after the other, and all of it draws on the battery.

A simulation in steps of STEP_S: sun, battery, states of the payload, the raw store. A take is lost when it begins while
the battery is at its floor or the raw store is full. The payload codes in the order of time, and waits while the
battery is at its floor.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from hil.devices.states import States
from sim.mission.power import Power

STEP_S = 30.0
ENERGY, RAW_STORE = "the battery was at its floor", "the raw store was full"


@dataclass(frozen=True, eq=False)
class Work:
    """What the takes ask for, each [T]: when (s after the start), how long the imager and the payload work, how much
    the raw store holds of it."""

    sensed_s: NDArray[np.float64]
    imaging_s: NDArray[np.float64]
    coding_s: NDArray[np.float64]
    raw_octets: NDArray[np.float64]


@dataclass(frozen=True)
class Supply:
    """What there is: power of the satellite (None: no limit), the payload's states and its power at work, the store."""

    power: Power | None
    states: States | None
    busy_w: float
    raw_store_octets: float = np.inf


@dataclass(eq=False)
class Onboard:
    """What became of it. `coded_s` [T]: when a take was coded, infinite where it never was; series over `times_s`."""

    coded_s: NDArray[np.float64]
    lost: dict[int, str]  # take -> cause
    times_s: NDArray[np.float64]
    battery_share: NDArray[np.float64]  # of its capacity; empty without a battery
    raw_octets: NDArray[np.float64]
    waited_s: float = 0.0  # that the payload had work and no energy for it
    joules: dict[str, float] = field(default_factory=dict)  # by consumer


@dataclass(eq=False)
class _Payload:
    """The payload's queue and its state."""

    states: States
    busy_w: float
    queue: deque[list[float]] = field(default_factory=deque)  # [take, seconds left]
    up: bool = False
    booting_s: float = 0.0

    def work(self, dt: float, allowed: bool) -> tuple[list[tuple[int, float]], dict[str, float]]:
        """(take, seconds into the step) of what is finished in `dt` seconds, and joules by state."""
        done: list[tuple[int, float]] = []
        joules: dict[str, float] = {}
        left = dt
        if self.queue and allowed and not self.up:
            self.up, self.booting_s = True, self.states.boot_s
        if self.up and allowed:
            boot_s = min(left, self.booting_s)
            self.booting_s -= boot_s
            left -= boot_s
            joules["payload boot"] = boot_s * self.states.boot_w
            while self.queue and left > 0:
                spent = min(left, self.queue[0][1])
                self.queue[0][1] -= spent
                left -= spent
                joules["payload busy"] = joules.get("payload busy", 0.0) + spent * self.busy_w
                if self.queue[0][1] <= 1e-9:
                    done.append((int(self.queue.popleft()[0]), dt - left))
        if self.states.between_takes == "off" and (not self.queue or not allowed):
            self.up = False
        rest_w = self.states.off_w if self.states.between_takes == "off" else self.states.idle_w
        joules["payload at rest"] = left * rest_w
        return done, joules


def run(work: Work, supply: Supply, days: float, lit: NDArray[np.bool_], sending_s: NDArray[np.float64]) -> Onboard:
    """Simulates `days` days. `lit` [N]: sun in each step; `sending_s` [N]: seconds of it that the transmitter works."""
    times = np.arange(0.0, days * 86400, STEP_S)
    power, payload = supply.power, _Payload(supply.states or States(0.0), supply.busy_w)
    full_j = power.battery_wh * 3600 if power else np.inf
    floor_j = full_j * (1 - power.deepest_discharge) if power else -np.inf
    found = Onboard(np.full(len(work.sensed_s), np.inf), {}, times, np.zeros(0), np.zeros(len(times)))
    battery, raw, following = full_j, 0.0, 0
    levels = np.zeros(len(times))
    order = np.argsort(work.sensed_s, kind="stable")
    for n, now in enumerate(times.tolist()):
        low, imaging_s = battery <= floor_j, 0.0
        while following < len(order) and work.sensed_s[order[following]] < now + STEP_S:
            take = int(order[following])
            following += 1
            cause = ENERGY if low else RAW_STORE if raw + work.raw_octets[take] > supply.raw_store_octets else None
            if cause:
                found.lost[take] = cause
                continue
            raw += work.raw_octets[take]
            imaging_s += work.imaging_s[take]
            payload.queue.append([take, work.coding_s[take]])
        done, joules = payload.work(STEP_S, not low)
        found.waited_s += STEP_S if low and payload.queue else 0.0
        for take, into_s in done:
            found.coded_s[take] = max(now + into_s, work.sensed_s[take] + work.imaging_s[take])
            raw -= work.raw_octets[take]
        if power:
            joules |= {"platform": power.platform_w * STEP_S, "imager": power.imager_w * imaging_s,
                       "transmitter": power.transmitter_w * sending_s[n]}  # fmt: skip
            battery = min(full_j, battery + (power.solar_w * STEP_S if lit[n] else 0.0) - sum(joules.values()))
            levels[n] = battery / full_j
        for name, value in joules.items():
            found.joules[name] = found.joules.get(name, 0.0) + value
        found.raw_octets[n] = raw
    found.battery_share = levels if power else np.zeros(0)
    return found


def sending_seconds(begins_s: Sequence[float], ends_s: Sequence[float], days: float) -> NDArray[np.float64]:
    """Seconds of each step in which a window is open. [N]"""
    edges = np.arange(0.0, days * 86400 + STEP_S / 2, STEP_S)
    spent = np.zeros(len(edges) - 1)
    for begin, end in zip(begins_s, ends_s, strict=True):
        spent += np.clip(np.minimum(end, edges[1:]) - np.maximum(begin, edges[:-1]), 0.0, None)
    return spent
