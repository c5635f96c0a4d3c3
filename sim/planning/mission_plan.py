"""A mission over days, scene by scene: what is imaged, coded, stored, sent, and what is down at the end.

    catalogue -> coded sample -> takes on board -> units in order -> windows -> area, latency, what was dropped and why

Read `plan_mission` first. Figures of the link, the orbit and the satellite are modelled; octets and quality of
tiles are measured on the distinct scenes that were really coded.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from payload.bundle import DEFAULT, Bundle, load_bundle
from payload.engine import open_engine
from payload.errors import InputError
from payload.tiles import grid
from sim.link.propagation import satellite_of
from sim.link.sunlight import lit
from sim.mission.devices import estimate, load_device, power_of, scene_work
from sim.mission.passes import chosen_stations, orbit_notes
from sim.mission.spec import Mission
from sim.mission.windows import Window, windows
from sim.planning import onboard, schedule, units
from sim.planning.catalogue import Take, length_s, read_takes
from sim.planning.coded import CodedScenes, code_scenes
from sim.planning.delivered import Delivered, delivered
from sim.planning.strategies import Strategy, strategies
from sim.progress import Progress

MIB = 2**20
#: Changes that are tried: each thing that may bind, a tenth more of it.
MORE = 1.1
LEVERS = ("downlink", "compute", "energy", "raw store", "coded store", "imaging")


@dataclass(frozen=True)
class PlanRequest:
    """What the user asked for."""

    mission: Mission
    scenes: str
    days: float
    stations: tuple[str, ...] = ()
    start: datetime | None = None
    take_s: float | None = None
    sample: int = 3
    ndvi_mae: float = 0.02
    bundle: str = DEFAULT
    engine: str = "openvino"
    seed: int = 0


@dataclass(frozen=True, eq=False)
class Flight:
    """The mission without the payload's part: what every strategy is given."""

    request: PlanRequest
    start: datetime
    takes: tuple[Take, ...]
    imaging_s: NDArray[np.float64]  # [T]
    windows: tuple[Window, ...]
    begins_s: tuple[float, ...]
    lit: NDArray[np.bool_]  # of each step
    sending_s: NDArray[np.float64]  # of each step
    notes: tuple[str, ...] = ()

    @property
    def sensed_s(self) -> NDArray[np.float64]:
        return np.array([(take.sensed_at - self.start).total_seconds() for take in self.takes])


@dataclass(frozen=True, eq=False)
class Run:
    """One strategy flown."""

    strategy: Strategy
    offered: units.Units
    contents: tuple[units.Content, ...]
    onboard: onboard.Onboard
    outcome: schedule.Outcome
    down: Delivered
    scheduled_s: float  # what planning it took on this host


@dataclass(eq=False)
class MissionPlan:
    """All of it."""

    flight: Flight
    coded: CodedScenes
    bundle: Bundle
    scene_of: list[int]  # of each take: the coded scene that stands for it
    tiles_of: list[int]  # of each take
    px_km2: float
    tile_km2: float
    runs: list[Run] = field(default_factory=list)
    gains: dict[str, float] = field(default_factory=dict)  # lever -> km2 at quality that a tenth more of it adds

    def run(self, key: str) -> Run:
        return next(run for run in self.runs if run.strategy.key == key)


def plan_mission(request: PlanRequest, progress: Progress = lambda *_: None) -> MissionPlan:
    """The mission flown with every strategy. InputError where an input cannot be used."""
    flight = prepare(request)
    bundle, engine = load_bundle(request.bundle, trusted_keys=_keys(request.mission)), open_engine(request.engine)
    request.mission.require_bundle(bundle)
    names, scene_of = _represented(flight.takes, request.sample)
    coded = code_scenes(names, bundle, engine, request.mission, request.ndvi_mae, progress)
    plan = _sized(flight, coded, bundle, scene_of)
    flown = strategies(coded, request.mission.pass_order)
    for strategy in flown:
        plan.runs.append(fly(plan, strategy))
        progress("planned", len(LEVERS) + len(flown))
    base = plan.run("nadir").down.at_quality(request.ndvi_mae)
    for lever in LEVERS:
        more = fly(plan, plan.run("nadir").strategy, lever).down.at_quality(request.ndvi_mae)
        plan.gains[lever] = more - base
        progress("planned", len(LEVERS) + len(flown))
    return plan


def prepare(request: PlanRequest) -> Flight:
    """Takes, windows and sun: what the payload has no say in."""
    mission = request.mission
    if not 0 < request.days <= 366:
        raise InputError(f"days is {request.days:g}, wanted more than 0 and at most 366")
    if not 0 < request.ndvi_mae <= 0.5:
        raise InputError(f"the NDVI error is {request.ndvi_mae:g}, wanted more than 0 and at most 0.5")
    if request.sample < 1:
        raise InputError(f"--sample is {request.sample}, wanted 1 distinct scene or more")
    start = (request.start or mission.orbit.epoch).astimezone(UTC)
    notes = orbit_notes(mission.orbit, start, request.days)
    takes = read_takes(
        request.scenes, mission, start, request.days, request.take_s, request.seed, request.sample
    )  # fmt: skip
    stations = chosen_stations(mission, request.stations)
    found = tuple(w for w in windows(mission, stations, start, request.days) if w.usable_s)
    begins = tuple((w.share.begin_at - start).total_seconds() for w in found)
    ends = [begin + w.usable_s for begin, w in zip(begins, found, strict=True)]
    steps = np.arange(0.0, request.days * 86400, onboard.STEP_S)
    sun = lit(satellite_of(mission.orbit), start, steps)
    sending = onboard.sending_seconds(begins, ends, request.days)[: len(steps)]
    imaging = np.array([take.take_s or 0.0 for take in takes])
    return Flight(request, start, tuple(takes), imaging, found, begins, sun, sending, notes)


def fly(plan: MissionPlan, strategy: Strategy, lever: str = "") -> Run:
    """One strategy over the mission, with a tenth more of `lever`."""
    began = time.perf_counter()
    flight, request = plan.flight, plan.flight.request
    more = MORE if lever == "imaging" else 1.0
    tiles = [max(1, round(more * n)) for n in plan.tiles_of]
    contents = units.contents(flight.takes, plan.scene_of, tiles, strategy.table)
    audit = request.mission.policy.gate.audit_count
    offered = units.build(
        flight.takes, contents, plan.scene_of, strategy.table, strategy.gated, strategy.order, audit, request.seed
    )
    aboard = _aboard(plan, strategy, lever, more)
    limit = (request.mission.budgets.coded_store_mib or np.inf) * MIB * (MORE if lever == "coded store" else 1.0)
    rate = MORE if lever == "downlink" else 1.0
    frame = request.mission.link.frame_octets
    outcome = schedule.run(offered, aboard.coded_s, flight.windows, flight.begins_s, limit, frame, request.seed, rate)
    down = delivered(offered, outcome, strategy.table, plan.px_km2)
    return Run(strategy, offered, tuple(contents), aboard, outcome, down, time.perf_counter() - began)


def _aboard(plan: MissionPlan, strategy: Strategy, lever: str, more: float) -> onboard.Onboard:
    """The takes through the raw store and the payload."""
    flight, mission = plan.flight, plan.flight.request.mission
    power = mission.power
    if power and lever == "energy":
        power = replace(power, solar_w=power.solar_w * MORE, battery_wh=power.battery_wh * MORE)
    supply = onboard.Supply(
        power, mission.states, _busy_w(mission) if strategy.computes else 0.0,
        (mission.budgets.raw_store_mib or np.inf) * MIB * (MORE if lever == "raw store" else 1.0),
    )  # fmt: skip
    coding = _coding_s(plan, strategy) * more / (MORE if lever == "compute" else 1.0)
    raw = np.array(plan.tiles_of) * more * plan.bundle.tile_px**2 * mission.imager.bands * mission.imager.bits / 8
    if not strategy.computes:
        coding, raw = 0 * coding, 0 * raw
    work = onboard.Work(flight.sensed_s, flight.imaging_s * more, coding, raw)
    return onboard.run(work, supply, flight.request.days, flight.lit, flight.sending_s)


def _coding_s(plan: MissionPlan, strategy: Strategy) -> NDArray[np.float64]:
    """Modelled time of each take on the mission's device [T]: the gate for every tile, the codec for those sent."""
    table, device, px = strategy.table, plan.flight.request.mission.device, plan.bundle.tile_px**2
    spent = []
    for scene in range(len(plan.coded.infos)):
        kinds = table.tiles_of(scene)
        sent = int((~table.withheld[kinds]).sum()) if strategy.gated else len(kinds)
        looked = len(kinds) if strategy.gated else 0
        work = scene_work(plan.bundle, device, looked, sent)
        spent.append(estimate(device, work, len(kinds) * px).latency_s / len(kinds))
    return np.array([spent[scene] * count for scene, count in zip(plan.scene_of, plan.tiles_of, strict=True)])


def _busy_w(mission: Mission) -> float:
    power = power_of(load_device(mission.device))
    return power.value if power else 0.0


def _represented(takes: Sequence[Take], sample: int) -> tuple[list[str], list[int]]:
    """The scenes that are coded, evenly chosen, and of each take the one that is it or stands for it."""
    distinct = list(dict.fromkeys(take.scene for take in takes))
    every = -(-len(distinct) // sample)
    chosen = distinct[::every]
    number = {name: n // every for n, name in enumerate(distinct)}
    return chosen, [number[take.scene] for take in takes]


def _sized(flight: Flight, coded: CodedScenes, bundle: Bundle, scene_of: list[int]) -> MissionPlan:
    """How many tiles each take has, and how large they are: by the imager, or by the scene itself."""
    mission = flight.request.mission
    tiles, seconds = [], []
    for take, scene in zip(flight.takes, scene_of, strict=True):
        info = coded.infos[scene]
        rows, cols = grid(info, bundle.tile_px)
        seconds.append(length_s(take, mission, info.height_px, mission.imager.gsd_m))
        px = mission.imager.rate_px_s(mission.orbit) * seconds[-1]
        tiles.append(rows * cols if take.take_s is None else max(1, round(px / bundle.tile_px**2)))
    px_km2 = (mission.imager.gsd_m / 1000) ** 2
    sized = replace(flight, imaging_s=np.array(seconds))
    return MissionPlan(sized, coded, bundle, scene_of, tiles, px_km2, px_km2 * bundle.tile_px**2)


def _keys(mission: Mission) -> list[bytes] | None:
    return [bytes.fromhex(key) for key in mission.trusted_keys] or None
