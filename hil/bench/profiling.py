"""`hil profile`: performance mode and energy mode, apart from each other as MLPerf Tiny does it.

Performance: every tile alone on the line, then streamed; times are the device's own. Energy: a fixed window at rest,
then a fixed window of work over tiles the device holds, with nothing on the line but a report twice a second.
"""

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from hil.bench.energy import PowerTrace, Window, complaints, spread_complaint, too_few_tiles
from hil.bench.meters import HostSampler, ModelMeter, PowerMeter, SysfsMeter
from hil.host.client import ClockOffset, DeviceSession
from hil.line.channels import ChannelClosedError
from hil.line.code_id import code_id
from hil.line.messages import DeviceReply
from hil.line.protocol import Type
from hil.profiles.profile_file import FORMAT, Device, DeviceProfile, Energy, Performance, Roofline, Spread, StageSpan
from payload.bundle import Bundle
from payload.errors import InputError
from payload.tiles import Tile

METHOD = "measured by the device's own monotonic clock"
TRACE_POINTS = 600
STREAM_TRIES = 3
SHOWN_TILES = 3


@dataclass(frozen=True)
class Plan:
    """How much to measure."""

    repeats: int = 3
    window_s: float = 12.0
    sample_s: float = 0.02  # between two readings of the power meter
    threads: int = 1
    peak_gmac_s: float | None = None  # the device's published peak, if the roofline is to have one
    peak_source: str = ""


@dataclass(frozen=True)
class EnergyRepeat:
    """One window at rest and one of work."""

    trace: PowerTrace
    idle: Window
    busy: Window
    stages_s: dict[str, float]  # sums over the busy window
    first: tuple[StageSpan, ...]  # stages of the first tiles, on the device's clock
    idle_w: float
    busy_w: float
    peak_w: float


def profile(
    session: DeviceSession,
    tiles: Sequence[Tile],
    bundle: Bundle,
    meter: PowerMeter | SysfsMeter | ModelMeter | None,
    plan: Plan,
) -> DeviceProfile:
    """The profile of a device on these tiles. An emulated device is refused: its times mean nothing."""
    if session.info.emulated is not None:
        raise InputError(
            f"device {session.name} is emulated ({session.info.emulated}): its times and power mean nothing; "
            "use `hil run --reference` to show that its octets are right"
        )
    if not tiles:
        raise InputError("there are no tiles to measure with; give a scene or --tiles with at least one")
    doubts: list[str] = []
    performance, codes = measure_performance(session, tiles, plan)
    energy = measure_energy(session, tiles, meter, plan, doubts) if meter else None
    digest = hashlib.sha256(b"".join(coded.octets for coded in codes)).hexdigest()
    if session.incidents.reconnects:
        doubts.append(
            f"the line was lost {session.incidents.reconnects} times while measuring; measure again on a quiet line"
        )
    info = session.info
    device = Device(
        session.name,
        info.machine,
        info.cpu,
        info.cores,
        info.memory_mib,
        info.system,
        info.python,
        info.engine,
        plan.threads,
    )
    return DeviceProfile(
        format=FORMAT,
        made_at=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        code_id=code_id(),
        bundle=bundle.name,
        bundle_id=bundle.bundle_id,
        tile_px=bundle.tile_px,
        device=device,
        tiles=len(codes),
        sha256=digest,
        performance=performance,
        energy=energy,
        roofline=measure_roofline(session, performance, bundle, plan),
        complaints=tuple(doubts),
    )


def measure_performance(
    session: DeviceSession, tiles: Sequence[Tile], plan: Plan
) -> tuple[Performance, list[DeviceReply]]:
    """Figures, and the codes of the first pass over the tiles."""
    cold_s = [_cold_start_s(session, tiles[0]) for _ in range(plan.repeats)]
    alone = [list(session.encode_tiles(tiles, window=1)) for _ in range(plan.repeats)]
    streamed = [_streamed(session, tiles) for _ in range(plan.repeats)]
    stats = session.call(Type.STATS, {})
    flat = [coded for codes in alone for coded in codes]
    tile_mpx = tiles[0].dn[0].size / 1e6
    stages = {name: [coded.stages_s.get(name, 0.0) for coded in flat] for name in _stage_names(flat)}
    latencies = [coded.latency_s for coded in flat]
    return Performance(
        basis=METHOD,
        repeats=plan.repeats,
        tile_s=Spread.of(latencies),
        stages_s={name: Spread.of(seconds) for name, seconds in stages.items()},
        cold_start_s=median(cold_s),
        tile_mpx_s=tile_mpx * len(flat) / sum(latencies),
        streamed_mpx_s=tile_mpx * len(tiles) / median(wall for wall, _ in streamed),
        line_overhead_percent=100 * median(wall / compute - 1 for wall, compute in streamed),
        peak_memory_mib=float(stats["peak_memory_mib"]),
        temperatures_c={str(name): float(value) for name, value in stats["temperatures_c"].items()},
        latencies_s=tuple(latencies),
    ), alone[0]


def _cold_start_s(session: DeviceSession, tile: Tile) -> float:
    """Load and first tile, from an agent that has forgotten everything (its Python stays up)."""
    session.call(Type.RESET, {})
    before = session.reload()
    return before + session.encode_tile(tile).latency_s


def _streamed(session: DeviceSession, tiles: Sequence[Tile]) -> tuple[float, float]:
    """(wall, compute) seconds of streaming all tiles."""
    before_s = time.monotonic()
    codes = list(session.encode_tiles(tiles))
    return time.monotonic() - before_s, sum(coded.latency_s for coded in codes)


def measure_energy(
    session: DeviceSession,
    tiles: Sequence[Tile],
    meter: PowerMeter | SysfsMeter | ModelMeter,
    plan: Plan,
    doubts: list[str],
) -> Energy:
    """Medians over the repeats; what makes them doubtful goes into `doubts`."""
    session.hold(tiles)
    clock = session.clock()
    repeats = [energy_repeat(session, meter, plan, clock) for _ in range(plan.repeats)]
    after = session.clock()
    drift_s = abs(after.offset_s - clock.offset_s)
    for repeat in repeats:
        doubts += complaints(repeat.trace, repeat.idle, "idle") + complaints(repeat.trace, repeat.busy, "busy")
        doubts += too_few_tiles(repeat.busy)
    doubts[:] = list(dict.fromkeys(doubts))
    tile_j = [repeat.busy_w * repeat.busy.seconds / repeat.busy.tiles for repeat in repeats]
    net_j = [(repeat.busy_w - repeat.idle_w) * repeat.busy.seconds / repeat.busy.tiles for repeat in repeats]
    doubts += spread_complaint("energy per tile", tile_j) + spread_complaint("idle power", [r.idle_w for r in repeats])
    mpx = tiles[0].dn[0].size / 1e6
    last = repeats[-1]
    work_s = sum(last.stages_s.values()) or 1.0
    trace_t_s, trace_w = _thinned(last)
    return Energy(
        basis=meter.label,
        repeats=plan.repeats,
        window_s=plan.window_s,
        idle_w=median(repeat.idle_w for repeat in repeats),
        busy_w=median(repeat.busy_w for repeat in repeats),
        peak_w=max(repeat.peak_w for repeat in repeats),
        tile_gross_j=median(tile_j),
        tile_net_j=median(net_j),
        mpx_gross_j=median(tile_j) / mpx,
        mpx_net_j=median(net_j) / mpx,
        stage_net_j={name: median(net_j) * seconds / work_s for name, seconds in last.stages_s.items()},
        clock=_clock_note(meter, clock, drift_s),
        **_first_tiles(last),
        trace_t_s=trace_t_s,
        trace_w=trace_w,
        busy_from_s=last.busy.start_s - last.idle.start_s,
        busy_to_s=last.busy.end_s - last.idle.start_s,
    )


def energy_repeat(
    session: DeviceSession, meter: PowerMeter | SysfsMeter | ModelMeter, plan: Plan, clock: ClockOffset
) -> EnergyRepeat:
    """Rest, then work, with the meter running."""
    path = meter.path if isinstance(meter, SysfsMeter) else None
    asked: dict[str, Any] = {"seconds": plan.window_s, "power": path, "period_s": plan.sample_s}
    sampler = None if isinstance(meter, (SysfsMeter, ModelMeter)) else HostSampler(meter, plan.sample_s)
    try:
        rest = stream_windows(session, asked | {"work": False})
        work = stream_windows(session, asked | {"work": True})
    finally:
        on_host = sampler.stop() if sampler else []
    idle = Window(rest[0]["start_s"], rest[-1]["end_s"])
    done = [tile for part in work for tile in part["tiles"]]
    if not done:
        raise InputError("no tile was finished in the window; use a longer one (--window-s)")
    busy = Window(done[0][0], done[-1][1], len(done))
    on_device = [(float(t), float(w)) for part in (*rest, *work) for t, w in part["power"]]
    if isinstance(meter, ModelMeter):
        trace = _modelled(meter, idle, busy)
    else:
        trace = PowerTrace.of(on_device) if path else PowerTrace.of(on_host, clock.offset_s)
    if len(trace.t_s) < 2:
        raise InputError(f"the power meter gave {len(trace.t_s)} samples ({meter.label}); check its path or address")
    stages = {name: sum(tile[2].get(name, 0.0) for tile in done) for name in done[0][2]}
    peak_w = float(trace.between(busy.start_s, busy.end_s).power_w.max())
    idle_w, busy_w = trace.mean_w(idle.start_s, idle.end_s), trace.mean_w(busy.start_s, busy.end_s)
    return EnergyRepeat(trace, idle, busy, stages, _spans(done[:SHOWN_TILES]), idle_w, busy_w, peak_w)


def stream_windows(session: DeviceSession, fields: dict[str, Any]) -> list[dict]:  # type: ignore[type-arg]
    """STREAM, repeated from the start where the line fails in the middle."""
    for _ in range(STREAM_TRIES):
        try:
            return session.stream(fields)
        except ChannelClosedError as error:
            session.mend(str(error))
    raise InputError(
        f"device {session.name}: the line failed in {STREAM_TRIES} windows one after the other; use a better line"
    )


def _modelled(meter: ModelMeter, idle: Window, busy: Window) -> PowerTrace:
    step = [
        (idle.start_s, meter.idle_w),
        (busy.start_s - 1e-6, meter.idle_w),
        (busy.start_s, meter.busy_w),
        (busy.end_s, meter.busy_w),
    ]
    samples = [(t, w) for (t, w) in step]
    fill = [(idle.start_s + k * (busy.end_s - idle.start_s) / 400, 0.0) for k in range(1, 400)]
    samples += [(t, meter.busy_w if t >= busy.start_s else meter.idle_w) for t, _ in fill]
    return PowerTrace.of(sorted(samples))


def _clock_note(meter: PowerMeter | SysfsMeter | ModelMeter, clock: ClockOffset, drift_s: float) -> str:
    if isinstance(meter, ModelMeter):
        return "no meter"
    if isinstance(meter, SysfsMeter):
        return "the agent reads the meter: one clock"
    bound = f"uncertain by {1e3 * clock.uncertainty_s:.3f} ms, drift {1e3 * drift_s:.3f} ms while measuring"
    return f"device minus host {clock.offset_s:+.6f} s, {bound}"


def _spans(tiles: list[Any]) -> tuple[StageSpan, ...]:
    """Stages of some tiles one after the other, as the encoder runs them."""
    found = []
    for start_s, _, stages, _ in tiles:
        at_s = start_s
        for name, seconds in stages.items():
            found.append(StageSpan(name, at_s, at_s + seconds))
            at_s += seconds
    return tuple(found)


def _first_tiles(repeat: EnergyRepeat) -> dict[str, Any]:
    """The trace over the first tiles at work, with their stages, counted from the start of the trace."""
    zero_s = repeat.idle.start_s
    if not repeat.first:
        return {}
    part = repeat.trace.between(repeat.first[0].start_s, repeat.first[-1].end_s)
    return {
        "first_tiles": tuple(StageSpan(s.name, s.start_s - zero_s, s.end_s - zero_s) for s in repeat.first),
        "first_t_s": tuple(round(float(t) - zero_s, 5) for t in part.t_s),
        "first_w": tuple(round(float(w), 5) for w in part.power_w),
    }


def _thinned(repeat: EnergyRepeat) -> tuple[tuple[float, ...], tuple[float, ...]]:
    trace = repeat.trace
    step = max(1, len(trace.t_s) // TRACE_POINTS)
    times = trace.t_s[::step] - repeat.idle.start_s
    return tuple(round(float(t), 4) for t in times), tuple(round(float(w), 5) for w in trace.power_w[::step])


def measure_roofline(session: DeviceSession, performance: Performance, bundle: Bundle, plan: Plan) -> Roofline | None:
    """None where the manifest does not say how many multiply-accumulates the networks take."""
    networks = {
        n: cost
        for n, cost in bundle.manifest.get("networks", {}).items()
        if n.startswith("flight/") and n.endswith(".onnx")
    }
    stages = [performance.stages_s[name].p50_s for name in ("encode", "clouds") if name in performance.stages_s]
    if not networks or not sum(stages):
        return None
    macs = float(sum(cost["macs"] for cost in networks.values()))
    octets = float(sum(cost["weight_octets"] + _edge_octets(cost) for cost in networks.values()))
    found = session.call(Type.STATS, {"ceilings": True})["ceilings"]
    peak = plan.peak_gmac_s or float(found["gmac_s"])
    source = (
        f"peak {plan.peak_source or 'as given'}" if plan.peak_gmac_s else "peak measured by numpy's f32 matrix product"
    )
    basis = (
        f"network stages, their numpy included, measured by {METHOD.partition('by ')[2]}; {source}; "
        "memory measured by numpy's copy; MACs and octets counted from the manifest"
    )
    return Roofline(
        basis, macs / 1e9, sum(stages), macs / sum(stages) / 1e9, macs / octets, peak, float(found["memory_gb_s"])
    )


def _edge_octets(cost: dict) -> int:  # type: ignore[type-arg]
    """Octets in and out of a network at one octet a value."""
    total = 0
    for shape in (*cost["inputs"].values(), *cost["outputs"].values()):
        size = 1
        for length in shape:
            size *= length if isinstance(length, int) else 1
        total += size
    return total


def _stage_names(codes: list[DeviceReply]) -> list[str]:
    return list(dict.fromkeys(name for coded in codes for name in coded.stages_s))
