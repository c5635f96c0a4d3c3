"""Energy mode: a window at rest, then a window of work over tiles that the device holds.

The line is quiet but for a report twice a second. The device works until every held tile was coded equally often, so
that a window stands for the same tiles as performance mode. Where not all tiles fit into the device, a sample is held
whose times are spread as theirs are.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import mean, median
from typing import Any

import numpy as np

from hil.bench.energy import PowerTrace, Window, complaints, spread_complaint, too_few_tiles
from hil.bench.meters import HostSampler, ModelMeter, PowerMeter, SysfsMeter
from hil.bench.performance import DISAGREEMENT, Tell
from hil.host.client import DeviceSession
from hil.host.session_values import ClockOffset
from hil.line.channels import ChannelClosedError
from hil.line.messages import DeviceReply
from hil.line.protocol import Type
from hil.profiles.findings import MeterNote
from hil.profiles.profile_file import Energy, StageSpan
from payload.errors import InputError
from payload.tiles import Tile

Meter = PowerMeter | SysfsMeter | ModelMeter
TRACE_POINTS = 600
STREAM_TRIES = 3
SHOWN_TILES = 3


@dataclass(frozen=True)
class DoneTile:
    """A tile that was coded in a window, on the device's clock."""

    start_s: float
    end_s: float
    stages_s: dict[str, float]
    kind: str


@dataclass(frozen=True)
class EnergyRepeat:
    """One window at rest and one of work."""

    trace: PowerTrace
    idle: Window
    busy: Window
    done: tuple[DoneTile, ...]
    idle_w: float
    busy_w: float
    peak_w: float

    @property
    def tile_s(self) -> float:
        return self.busy.seconds / self.busy.tiles


def measure_energy(
    session: DeviceSession, tiles: Sequence[Tile], alone: Sequence[Sequence[DeviceReply]], meter: Meter,
    repeats: int, window_s: float, sample_s: float, tell: Tell, calibration: str = "",
) -> tuple[Energy, list[str]]:  # fmt: skip
    """Medians over the repeats, and what makes them doubtful. `alone`: performance mode's replies, pass by pass."""
    seconds = [mean(replies[n].latency_s for replies in alone) for n in range(len(tiles))]
    clock = session.clock()
    bare_w = None if isinstance(meter, ModelMeter) else _bare_w(session, meter, window_s, sample_s, clock)
    held = hold_tiles(session, tiles, seconds)
    found = []
    for repeat in range(repeats):
        tell("energy windows", repeat, repeats)
        found.append(energy_repeat(session, meter, window_s, sample_s, clock))
    drift_s = abs(session.clock().offset_s - clock.offset_s)
    energy = replace(
        _energy(found, held, meter, window_s, tiles[0].dn[0].size / 1e6, _clock_note(meter, clock, drift_s)),
        states_w=_states_w(bare_w, found),
        meter=_meter_note(meter, found, calibration, clock.uncertainty_s + drift_s),
    )
    return energy, _doubts(found, mean(seconds[n] for n in held), len(held), len(tiles))


def hold_tiles(session: DeviceSession, tiles: Sequence[Tile], seconds: Sequence[float]) -> tuple[int, ...]:
    """Numbers of the tiles that the device now holds: all, or as many as fit, spread over the times as all are."""
    room = session.hold(tiles)
    if room == len(tiles):
        return tuple(range(len(tiles)))
    chosen = representative(seconds, room)
    session.hold([tiles[n] for n in chosen])
    return chosen


def representative(seconds: Sequence[float], count: int) -> tuple[int, ...]:
    """Numbers of `count` values from the middles of `count` equal parts of the sorted values; in order."""
    order = np.argsort(np.array(seconds), kind="stable")
    middles = ((np.arange(count) + 0.5) * len(order) / count).astype(int)
    return tuple(sorted(int(n) for n in order[middles]))


def energy_repeat(
    session: DeviceSession, meter: Meter, window_s: float, sample_s: float, clock: ClockOffset
) -> EnergyRepeat:
    """Rest, then work, with the meter running."""
    (rest, work), measured = _metered(session, meter, window_s, sample_s, clock, (False, True))
    idle = Window(rest[0]["start_s"], rest[-1]["end_s"])
    done = tuple(DoneTile(*tile) for part in work for tile in part["tiles"])
    if not done:
        raise InputError("no tile was finished in the window; use a longer one (--window-s)")
    busy = Window(done[0].start_s, done[-1].end_s, len(done))
    trace = _modelled(meter, idle, busy) if isinstance(meter, ModelMeter) else measured
    _require_samples(trace, meter)
    peak_w = float(trace.between(busy.start_s, busy.end_s).power_w.max())
    idle_w, busy_w = trace.mean_w(idle.start_s, idle.end_s), trace.mean_w(busy.start_s, busy.end_s)
    return EnergyRepeat(trace, idle, busy, done, idle_w, busy_w, peak_w)


def _metered(
    session: DeviceSession, meter: Meter, window_s: float, sample_s: float, clock: ClockOffset, works: Sequence[bool]
) -> tuple[list[list[dict[str, Any]]], PowerTrace]:
    """The device's reports of windows of work or rest, and the power meanwhile, on the device's clock."""
    path = meter.path if isinstance(meter, SysfsMeter) else None
    asked: dict[str, Any] = {"seconds": window_s, "power": path, "period_s": sample_s}
    sampler = None if isinstance(meter, (SysfsMeter, ModelMeter)) else HostSampler(meter, sample_s)
    try:
        windows = [stream_windows(session, asked | {"work": work}) for work in works]
    finally:
        on_host = sampler.stop() if sampler else []
    if path is None:
        return windows, PowerTrace.of(on_host, clock.offset_s)
    told = [part["power"] for parts in windows for part in parts]
    return windows, PowerTrace.of([(float(t), float(w)) for power in told for t, w in power])


def _require_samples(trace: PowerTrace, meter: Meter) -> None:
    if len(trace.t_s) < 2:
        raise InputError(f"the power meter gave {len(trace.t_s)} samples ({meter.label}); check its path or address")


def _bare_w(session: DeviceSession, meter: Meter, window_s: float, sample_s: float, clock: ClockOffset) -> float:
    """Mean power of the device with the agent up and nothing loaded; the bundle is loaded again afterwards."""
    session.call(Type.RESET, {})
    (parts,), trace = _metered(session, meter, window_s, sample_s, clock, (False,))
    session.reload()
    _require_samples(trace, meter)
    return trace.mean_w(parts[0]["start_s"], parts[-1]["end_s"])


def _states_w(bare_w: float | None, found: Sequence[EnergyRepeat]) -> dict[str, float]:
    """The baseline states, each with its mean power: what rest is subtracted, and what loading costs at rest."""
    states = {} if bare_w is None else {"agent up, nothing loaded": bare_w}
    states["bundle loaded, at rest"] = median(repeat.idle_w for repeat in found)
    return states | {"at work": median(repeat.busy_w for repeat in found)}


def _meter_note(meter: Meter, found: Sequence[EnergyRepeat], calibration: str, sync_s: float) -> MeterNote:
    """What clocks that disagree shift into the window of work is at most the step in power at both of its ends."""
    if isinstance(meter, ModelMeter):
        return MeterNote(meter.about)
    last = found[-1]
    inside = last.trace.between(last.busy.start_s, last.busy.end_s)
    uncertain_s = 0.0 if isinstance(meter, SysfsMeter) else sync_s
    shifted_j = 2 * uncertain_s * abs(last.busy_w - last.idle_w)
    return MeterNote(meter.about, (len(inside.t_s) - 2) / last.busy.seconds, calibration, uncertain_s, shifted_j)


def stream_windows(session: DeviceSession, fields: dict[str, Any]) -> list[dict[str, Any]]:
    """STREAM, repeated from the start where the line fails in the middle."""
    for _ in range(STREAM_TRIES):
        try:
            return session.stream(fields)
        except ChannelClosedError as error:
            session.mend(str(error))
    raise InputError(
        f"device {session.name}: the line failed in {STREAM_TRIES} windows one after the other; use a better line"
    )


def _energy(
    found: Sequence[EnergyRepeat], held: tuple[int, ...], meter: Meter, window_s: float, tile_mpx: float, clock: str
) -> Energy:
    idle_w, busy_w = median(repeat.idle_w for repeat in found), median(repeat.busy_w for repeat in found)
    gross = [repeat.busy_w * repeat.tile_s for repeat in found]
    net = [(repeat.busy_w - repeat.idle_w) * repeat.tile_s for repeat in found]
    tile_j, net_j = median(gross), median(net)
    last = found[-1]
    stages_s: dict[str, float] = {}
    kinds_s: dict[str, list[float]] = {}
    for tile in last.done:
        kinds_s.setdefault(tile.kind, []).append(tile.end_s - tile.start_s)
        for name, seconds in tile.stages_s.items():
            stages_s[name] = stages_s.get(name, 0.0) + seconds
    work_s = sum(stages_s.values()) or 1.0
    trace_t_s, trace_w = _thinned(last)
    return Energy(
        basis=meter.label,
        repeats=len(found),
        window_s=window_s,
        idle_w=idle_w,
        busy_w=busy_w,
        peak_w=max(repeat.peak_w for repeat in found),
        tile_gross_j=tile_j,
        tile_net_j=net_j,
        mpx_gross_j=tile_j / tile_mpx,
        mpx_net_j=net_j / tile_mpx,
        stage_net_j={name: net_j * seconds / work_s for name, seconds in stages_s.items()},
        clock=clock,
        **_first_tiles(last),
        trace_t_s=trace_t_s,
        trace_w=trace_w,
        busy_from_s=last.busy.start_s - last.idle.start_s,
        busy_to_s=last.busy.end_s - last.idle.start_s,
        held=held,
        tile_s=median(repeat.tile_s for repeat in found),
        kind_gross_j={kind: busy_w * mean(seconds) for kind, seconds in kinds_s.items()},
        kind_net_j={kind: (busy_w - idle_w) * mean(seconds) for kind, seconds in kinds_s.items()},
        tile_gross_range_j=(min(gross), max(gross)),
        tile_net_range_j=(min(net), max(net)),
    )


def _doubts(found: Sequence[EnergyRepeat], alone_s: float, held: int, tiles: int) -> list[str]:
    doubts: list[str] = []
    for repeat in found:
        doubts += complaints(repeat.trace, repeat.idle, "idle") + complaints(repeat.trace, repeat.busy, "busy")
        doubts += too_few_tiles(repeat.busy)
    doubts += spread_complaint("energy per tile", [repeat.busy_w * repeat.tile_s for repeat in found])
    doubts += spread_complaint("idle power", [repeat.idle_w for repeat in found])
    tile_s = median(repeat.tile_s for repeat in found)
    if abs(tile_s / alone_s - 1) > DISAGREEMENT:
        doubts.append(
            f"energy mode takes {1e3 * tile_s:.3g} ms a tile, performance mode {1e3 * alone_s:.3g} ms for the same "
            f"tiles ({100 * (tile_s / alone_s - 1):+.0f} %): energy per tile is off by as much; let the device settle"
        )
    if held < tiles:
        doubts.append(
            f"energy is of {held} of the {tiles} tiles: no more fit into the device; their times stand for all"
        )
    return list(dict.fromkeys(doubts))


def _modelled(meter: ModelMeter, idle: Window, busy: Window) -> PowerTrace:
    t_s = np.linspace(idle.start_s, busy.end_s, 400)
    t_s = np.sort(np.concatenate([t_s, [busy.start_s - 1e-6, busy.start_s]]))
    return PowerTrace(t_s, np.where(t_s >= busy.start_s, meter.busy_w, meter.idle_w))


def _clock_note(meter: Meter, clock: ClockOffset, drift_s: float) -> str:
    if isinstance(meter, ModelMeter):
        return "no meter"
    if isinstance(meter, SysfsMeter):
        return "the agent reads the meter: one clock"
    bound = f"uncertain by {1e3 * clock.uncertainty_s:.3f} ms, drift {1e3 * drift_s:.3f} ms while measuring"
    return f"device minus host {clock.offset_s:+.6f} s, {bound}"


def _spans(tiles: Sequence[DoneTile]) -> tuple[StageSpan, ...]:
    """Stages of some tiles one after the other, as the encoder runs them."""
    found = []
    for tile in tiles:
        at_s = tile.start_s
        for name, seconds in tile.stages_s.items():
            found.append(StageSpan(name, at_s, at_s + seconds))
            at_s += seconds
    return tuple(found)


def _first_tiles(repeat: EnergyRepeat) -> dict[str, Any]:
    """The trace over the first tiles at work, with their stages, counted from the start of the trace."""
    zero_s, spans = repeat.idle.start_s, _spans(repeat.done[:SHOWN_TILES])
    if not spans:
        return {}
    part = repeat.trace.between(spans[0].start_s, spans[-1].end_s)
    return {
        "first_tiles": tuple(StageSpan(s.name, s.start_s - zero_s, s.end_s - zero_s) for s in spans),
        "first_t_s": tuple(round(float(t) - zero_s, 5) for t in part.t_s),
        "first_w": tuple(round(float(w), 5) for w in part.power_w),
    }


def _thinned(repeat: EnergyRepeat) -> tuple[tuple[float, ...], tuple[float, ...]]:
    trace = repeat.trace
    step = max(1, len(trace.t_s) // TRACE_POINTS)
    times = trace.t_s[::step] - repeat.idle.start_s
    return tuple(round(float(t), 4) for t in times), tuple(round(float(w), 5) for w in trace.power_w[::step])
