"""A simulated week of the payload in one run: orbits, scenes, passes, and all faults at a hundred times their rates.

Memory is hit as the orbit exposes it, inside and outside the South Atlantic Anomaly; the power is cut; the store is
full at times; packets are damaged on the link. The week is held if nothing wrong left, nothing that was acknowledged is
lost, and neither the process's memory nor its open files grow.
"""

import resource
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from payload.guard.telemetry import Count, named
from payload.guard.twins import octets_of
from payload.link.space_packet import read_packets
from payload.link.tile_code import Kind, TileCode
from payload.pipeline import Payload
from payload.policy import Protection
from payload.store.recorder import record_scene, send_scene, stored
from payload.store.store import Store
from sim.faults import channel
from sim.faults.rates import Environment, environment
from sim.faults.volatile import PowerCutError, VolatileFiles
from sim.faults.world import World, world
from sim.ground.reception import by_id, receive
from sim.progress import Progress

ORBITS_A_DAY, SCENES_AN_ORBIT, TILES = 15.2, 3, 3
#: Of the real rates: assumed, one unclean power cut a fortnight and one full store a month.
CUTS_A_DAY, FULL_A_DAY = 1 / 14, 1 / 30
#: Memory may grow by this much between the end of the first day and of the last.
MOST_GROWTH_MIB, MOST_MORE_FILES = 8.0, 0


@dataclass
class Week:
    """What happened. `wrong`: tiles that left or were stored and are no beginning of what they should be."""

    days: float
    factor: float
    scenes: int = 0
    tiles: int = 0
    flips: int = 0
    flips_in_saa: int = 0
    power_cuts: int = 0
    stores_full: int = 0
    packets: int = 0
    wrong: int = 0
    acknowledged_lost: int = 0
    tiles_lost_on_link: int = 0
    counters: dict[str, int] = field(default_factory=dict)
    memory_mib: list[float] = field(default_factory=list)  # at the end of every day
    files: list[int] = field(default_factory=list)

    @property
    def growth_mib(self) -> float:
        return self.memory_mib[-1] - self.memory_mib[0] if self.memory_mib else 0.0

    @property
    def held(self) -> bool:
        flat = self.growth_mib <= MOST_GROWTH_MIB and self.files[-1] - self.files[0] <= MOST_MORE_FILES
        return not self.wrong and not self.acknowledged_lost and flat

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "growth_mib": self.growth_mib, "held": self.held}


@dataclass(eq=False)
class _Satellite:
    """The payload, its store on a disk that may fail, and the ground that hears it."""

    here: World
    payload: Payload
    files: VolatileFiles
    random: np.random.Generator
    week: Week
    totals: dict[Count, int] = field(default_factory=dict)

    def start(self) -> Store:
        """After a cut, or at first: the store is opened again."""
        self.files = self.files.after_cut(self.random) if self.files.done else self.files
        store = Store(self.files, self.payload.telemetry)
        self.payload.telemetry.take()
        return store


def soak(days: float, factor: float, seed: int, advance: Progress) -> Week:
    """A simulated week; the same seed, the same week but for its memory."""
    random, where, week = np.random.default_rng(seed), environment(), Week(days, factor)
    here = world("edge", TILES)
    satellite = _Satellite(here, here.fresh(Protection(network_tiles=8)), VolatileFiles(), random, week)
    store, orbits = satellite.start(), round(days * ORBITS_A_DAY)
    for orbit in range(orbits):
        for _ in range(SCENES_AN_ORBIT):
            store = _scene(satellite, store, _flips(satellite, where, days / orbits / SCENES_AN_ORBIT), days / orbits)
        store = _pass(satellite, store)
        if int((orbit + 1) * days / orbits) > int(orbit * days / orbits) or orbit == orbits - 1:
            week.memory_mib.append(_resident_mib())
            week.files.append(len(list(Path("/proc/self/fd").iterdir())))
        advance("orbits", orbits)
    week.counters = named(satellite.payload.telemetry.status().counts)
    return week


def _flips(satellite: _Satellite, where: Environment, days: float) -> int:
    """How often held memory is hit in a part of an orbit: over the anomaly in so many of them."""
    guard, week = satellite.payload.guard, satellite.week
    assert guard is not None
    inside = satellite.random.random() < where.saa_share_of_time
    rate = where.upsets_a_day(guard.held_octets) * (where.saa_factor if inside else where.quiet_factor)
    flips = int(satellite.random.poisson(rate * days * week.factor))
    week.flips += flips
    week.flips_in_saa += flips * inside
    return flips


def _scene(satellite: _Satellite, store: Store, flips: int, days: float) -> Store:
    """One scene into the store, with what hits it."""
    here, random, week = satellite.here, satellite.random, satellite.week
    week.scenes += 1
    for row, count in zip(*np.unique(random.integers(TILES, size=flips), return_counts=True), strict=True):
        here.scene.before[int(row)] = partial(_hit, satellite, int(count))
    share = days * week.factor / SCENES_AN_ORBIT
    satellite.files.operations = None
    if random.random() < CUTS_A_DAY * share:
        satellite.files.operations = satellite.files.done + int(random.integers(1, 12))
    if random.random() < FULL_A_DAY * share:
        satellite.files.full_at = satellite.files.appends + int(random.integers(1, 8))
    acknowledged: set[tuple[int, int]] = set()
    try:
        done = record_scene(satellite.payload, store, here.scene, acknowledged.add, acknowledged.discard)
        if not done.complete:
            week.stores_full += 1
            done = record_scene(satellite.payload, store, here.scene, acknowledged.add, acknowledged.discard)
    except PowerCutError:
        week.power_cuts += 1
        store = satellite.start()
        open_or_last = [log for _, log in sorted(store.scenes.items())][-1:]
        kept = {place for log in open_or_last for place in log.tiles}
        week.acknowledged_lost += len(acknowledged - kept)
        record_scene(satellite.payload, store, here.scene)
    here.scene.before = {}
    return store


def _hit(satellite: _Satellite, flips: int) -> None:
    guard, random = satellite.payload.guard, satellite.random
    assert guard is not None
    for _ in range(flips):
        twin = guard.scrubber.twins[int(random.integers(len(guard.scrubber.twins)))]
        octets = octets_of(twin.held) if random.random() < 0.5 else twin.copy
        octets[int(random.integers(len(octets)))] ^= 1 << int(random.integers(8))


def _pass(satellite: _Satellite, store: Store) -> Store:
    """What waits goes down over a link that loses and damages; every tile that arrives is compared."""
    week, random = satellite.week, satellite.random
    satellite.files.operations = None
    packets: list[bytes] = []
    for log in list(store.waiting()):
        week.wrong += sum(not _begins(satellite.here, candidate.code) for candidate in stored(log))
        week.tiles += len(log.tiles)
        packets += send_scene(satellite.payload, store, log)
    week.packets += len(packets)
    damage = channel.bit_errors(1e-6) if random.random() < 0.5 else channel.loss(0.01)
    week.wrong += sum(not _begins(satellite.here, code) for code in _arrived(satellite, damage(packets, random)))
    satellite.payload.telemetry.take()
    return store


def _arrived(satellite: _Satellite, octets: bytes) -> Iterator[TileCode]:
    apid, bundle = satellite.payload.policy.apid, satellite.here.bundle
    reception = receive(read_packets(octets, [apid]), by_id([bundle]), apid)
    for scene in reception.scenes.values():
        satellite.week.tiles_lost_on_link += len(scene.missing) + len(scene.refused)
        yield from scene.codes.values()


def _begins(here: World, code: TileCode) -> bool:
    wanted = here.clean[code.row]
    if code.kind is Kind.OMITTED:
        return True
    return code.side == wanted.side and code.layers == wanted.layers[: len(code.layers)]


def _resident_mib() -> float:
    """Resident memory now; its peak where the system does not say."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
        return pages * resource.getpagesize() / 2**20
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def as_text(week: Week) -> str:
    """The week for a terminal."""
    told = {name: count for name, count in week.counters.items() if count}
    lines = [
        f"{week.days:g} days, faults at {week.factor:g} times their rates: {week.scenes} scenes, {week.tiles} tiles, "
        f"{week.packets} packets",
        f"{week.flips} flips ({week.flips_in_saa} over the South Atlantic Anomaly), {week.power_cuts} power cuts, "
        f"{week.stores_full} full stores, {week.tiles_lost_on_link} tiles lost on the link",
        "counters: " + ", ".join(f"{name} {count}" for name, count in told.items()),
        f"memory {week.memory_mib[0]:.1f} to {week.memory_mib[-1]:.1f} MiB (limit +{MOST_GROWTH_MIB:g}), open files "
        f"{week.files[0]} to {week.files[-1]}",
        f"wrong tiles {week.wrong}, acknowledged and lost {week.acknowledged_lost}: "
        + ("held" if week.held else "FAILED"),
    ]
    return "\n".join(lines)
