"""Performance mode: every tile alone on the line, then streamed; times are the device's own.

Coded and withheld tiles are kept apart: the gate spares a withheld tile the codec, and a mean over both says more about
the clouds of the scene than about the device.
"""

import time
from collections.abc import Callable, Sequence
from statistics import mean, median

from hil.host.client import DeviceSession
from hil.line.messages import DeviceReply
from hil.line.protocol import Type
from hil.profiles.profile_file import CODED, KindTimes, Performance, Spread
from payload.tiles import Tile

METHOD = "measured by the device's own monotonic clock"
#: Speeds of the same tiles that differ by more than this contradict each other.
DISAGREEMENT = 0.05

Tell = Callable[[str, int, int], None]  # what is measured, done, of how many


def measure_performance(
    session: DeviceSession, tiles: Sequence[Tile], repeats: int, tell: Tell
) -> tuple[Performance, list[list[DeviceReply]]]:
    """Figures, and the replies of every pass over the tiles, one tile at a time."""
    cold_s = [_cold_start_s(session, tiles[0]) for _ in range(repeats)]
    alone = [_alone(session, tiles, repeat, repeats, tell) for repeat in range(repeats)]
    streamed = [_streamed(session, tiles) for _ in range(repeats)]
    stats = session.call(Type.STATS, {})
    flat = [reply for replies in alone for reply in replies]
    tile_mpx = tiles[0].dn[0].size / 1e6
    latencies = [reply.latency_s for reply in flat]
    kinds = {kind: _kind_times(flat, kind, repeats) for kind in dict.fromkeys(reply.kind for reply in flat)}
    coded = kinds.get(CODED)
    return Performance(
        basis=METHOD,
        repeats=repeats,
        tile_s=_spread(flat),
        stages_s=_stages(flat),
        cold_start_s=median(cold_s),
        tile_mpx_s=tile_mpx / mean(latencies),
        streamed_mpx_s=tile_mpx * len(tiles) / median(wall_s for wall_s, _ in streamed),
        line_overhead_percent=100 * median(wall_s / device_s - 1 for wall_s, device_s in streamed),
        peak_memory_mib=float(stats["peak_memory_mib"]),
        temperatures_c={str(name): float(value) for name, value in stats["temperatures_c"].items()},
        latencies_s=tuple(latencies),
        latency_kinds=tuple(reply.kind for reply in flat),
        kinds=kinds,
        coded_mpx_s=tile_mpx / coded.tile_s.mean_s if coded else None,
        streamed_tile_s=median(device_s for _, device_s in streamed) / len(tiles),
    ), alone


def performance_doubts(found: Performance) -> list[str]:
    """Contradictions among the figures, each as a sentence."""
    doubts = []
    streamed_s, alone_s = found.streamed_tile_s, found.tile_s.mean_s
    if streamed_s is not None and abs(streamed_s / alone_s - 1) > DISAGREEMENT:
        doubts.append(
            f"a tile takes the device {1e3 * streamed_s:.3g} ms while tiles are streamed, {1e3 * alone_s:.3g} ms alone "
            f"({100 * (streamed_s / alone_s - 1):+.0f} %): something else runs there (on `host:`, this host's own "
            "work), or it throttles; the two throughputs contradict each other"
        )
    unknown = [f"p{q}" for q in (95, 99) if getattr(found.tile_s, f"p{q}_s") is None]
    if unknown:
        doubts.append(
            f"{found.tile_s.n} tiles timed: too few for {' and '.join(unknown)}; use more tiles (--limit) or --repeats"
        )
    return doubts


def _cold_start_s(session: DeviceSession, tile: Tile) -> float:
    """Load and first tile, from an agent that has forgotten everything (its Python stays up)."""
    session.call(Type.RESET, {})
    before = session.reload()
    return before + session.encode_tile(tile).latency_s


def _alone(session: DeviceSession, tiles: Sequence[Tile], repeat: int, repeats: int, tell: Tell) -> list[DeviceReply]:
    replies = []
    for reply in session.encode_tiles(tiles, window=1):
        replies.append(reply)
        tell("tiles one at a time", repeat * len(tiles) + len(replies), repeats * len(tiles))
    return replies


def _streamed(session: DeviceSession, tiles: Sequence[Tile]) -> tuple[float, float]:
    """(wall, device) seconds of streaming all tiles."""
    before_s = time.monotonic()
    replies = list(session.encode_tiles(tiles))
    return time.monotonic() - before_s, sum(reply.latency_s for reply in replies)


def _kind_times(replies: Sequence[DeviceReply], kind: str, repeats: int) -> KindTimes:
    of_kind = [reply for reply in replies if reply.kind == kind]
    return KindTimes(len(of_kind) // repeats, _spread(of_kind), _stages(of_kind))


def _spread(replies: Sequence[DeviceReply]) -> Spread:
    return Spread.of([reply.latency_s for reply in replies], [(reply.row, reply.col) for reply in replies])


def _stages(replies: Sequence[DeviceReply]) -> dict[str, Spread]:
    """Each stage over the tiles that went through it."""
    names = dict.fromkeys(name for reply in replies for name in reply.stages_s)
    taken = {name: [reply for reply in replies if reply.stages_s.get(name, 0.0) > 0.0] for name in names}
    return {
        name: Spread.of([reply.stages_s[name] for reply in those], [(reply.row, reply.col) for reply in those])
        for name, those in taken.items()
        if those
    }
