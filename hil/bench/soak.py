"""Sustained run: the device works without a pause for minutes, and says how it fares meanwhile.

Short runs flatter: a board that gets hot lowers its clock. Windows of WINDOW_S follow each other; between two of them
lies one exchange over the line.
"""

import re
from collections.abc import Sequence
from statistics import mean
from typing import Any

from hil.bench.energy_mode import stream_windows
from hil.bench.performance import DISAGREEMENT, Tell
from hil.host.client import DeviceSession
from hil.profiles.findings import Soak, SoakPoint
from payload.errors import InputError
from payload.tiles import Tile

WINDOW_S = 20.0
MOST_POINTS = 240
ASKED: dict[str, Any] = {"work": True, "power": None, "period_s": 1.0, "health": True}
SHORTEST_S, LONGEST_S = 1.0, 7 * 86400.0
UNITS = {"": 1.0, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}


def duration_s(text: str) -> float:
    """`90s`, `10m`, `1.5h`, `1d`, or seconds. InputError says what is wrong with it."""
    match = re.fullmatch(r"\s*([0-9]*\.?[0-9]+)\s*([a-z]*)\s*", text)
    if match is None or match[2] not in UNITS:
        raise InputError(f"time {text!r}: wanted a number and s, m, h or d, e.g. 90s or 10m")
    return float(match[1]) * UNITS[match[2]]


def require_length(seconds: float) -> None:
    """InputError unless a sustained run can be of this length."""
    if not SHORTEST_S <= seconds <= LONGEST_S:
        raise InputError(f"--soak {seconds:g} s: wanted {SHORTEST_S:g} s to {LONGEST_S / 86400:g} days")


def measure_soak(session: DeviceSession, tiles: Sequence[Tile], seconds: float, tell: Tell) -> tuple[Soak, list[str]]:
    """The run, and what it makes doubtful."""
    if not session.hold(tiles):
        raise InputError(f"device {session.name}: has no room for a single tile; use a smaller tile size")
    stretches: list[_Stretch] = []
    looks: list[dict[str, Any]] = []
    start_s: float | None = None
    while start_s is None or stretches[-1].end_s - start_s < seconds:
        done_s = stretches[-1].end_s - start_s if start_s is not None else 0.0
        tell("sustained run, s", round(done_s), round(seconds))
        window_s = max(0.1, min(WINDOW_S, seconds - done_s))
        parts = stream_windows(session, ASKED | {"seconds": window_s})
        looks += [look for part in parts for look in part["health"]]
        stretches += _stretches(parts)
        if not stretches:
            raise InputError(
                f"device {session.name}: no tile was done in {window_s:g} s; use a longer run (--soak)"
            )
        start_s = parts[0]["start_s"] if start_s is None else start_s
    return _soak(stretches, looks, start_s), _doubts(stretches, looks, start_s)


class _Stretch:
    """The tiles that one part of the device's report tells of, and how the device fared at its end."""

    def __init__(self, tiles: Sequence[Any], look: dict[str, Any]) -> None:
        self.start_s, self.end_s, self.tiles = float(tiles[0][0]), float(tiles[-1][1]), len(tiles)
        self.busy_s = sum(float(end) - float(start) for start, end, *_ in tiles)
        self.slowest_s = max(float(end) - float(start) for start, end, *_ in tiles)
        self.clock_mhz = look["clock_mhz"]
        self.hottest_c = max(look["temperatures_c"].values(), default=None)


def _stretches(parts: Sequence[dict[str, Any]]) -> list[_Stretch]:
    return [_Stretch(part["tiles"], part["health"][-1]) for part in parts if part["tiles"]]


def _soak(stretches: Sequence[_Stretch], looks: Sequence[dict[str, Any]], start_s: float) -> Soak:
    seconds = stretches[-1].end_s - start_s
    tenth_s = seconds / 10
    step = -(-len(stretches) // MOST_POINTS)
    return Soak(
        seconds=seconds,
        tiles=sum(one.tiles for one in stretches),
        first_tile_s=_tile_s([one for one in stretches if one.start_s - start_s <= tenth_s]),
        last_tile_s=_tile_s([one for one in stretches if one.end_s - start_s >= seconds - tenth_s]),
        slowest_tile_s=max(one.slowest_s for one in stretches),
        points=tuple(_point(stretches[n : n + step], start_s) for n in range(0, len(stretches), step)),
        governors=tuple(dict.fromkeys(look["governor"] for look in looks if look["governor"])),
        throttling=_rises([look["throttling"] for look in looks]),
        missing=_missing(looks),
    )


def _tile_s(stretches: Sequence[_Stretch]) -> float:
    return sum(one.busy_s for one in stretches) / sum(one.tiles for one in stretches)


def _point(stretches: Sequence[_Stretch], start_s: float) -> SoakPoint:
    clocks = [one.clock_mhz for one in stretches if one.clock_mhz is not None]
    heats = [one.hottest_c for one in stretches if one.hottest_c is not None]
    middle_s = (stretches[0].start_s + stretches[-1].end_s) / 2 - start_s
    tiles = sum(one.tiles for one in stretches)
    return SoakPoint(
        round(middle_s, 3), tiles, _tile_s(stretches), mean(clocks) if clocks else None, max(heats, default=None)
    )  # fmt: skip


def _rises(told: Sequence[dict[str, float]]) -> dict[str, float]:
    """Counter or state -> how far above its first value it came; those that did not rise, too."""
    return {name: max(one.get(name, first) for one in told) - first for name, first in told[0].items()} if told else {}


def _missing(looks: Sequence[dict[str, Any]]) -> tuple[str, ...]:
    names = {"temperatures_c": "temperature", "clock_mhz": "clock", "governor": "governor", "throttling": "throttling"}
    return tuple(words for key, words in names.items() if not any(look[key] for look in looks))


def _doubts(stretches: Sequence[_Stretch], looks: Sequence[dict[str, Any]], start_s: float) -> list[str]:
    found, doubts = _soak(stretches, looks, start_s), []
    if found.slowdown > 1 + DISAGREEMENT:
        doubts.append(
            f"sustained run: a tile takes {100 * (found.slowdown - 1):.0f} % longer at the end of "
            f"{found.seconds:.0f} s than at its start: plan with {1e3 * found.last_tile_s:.3g} ms, not with the mean"
        )
    rising = [f"{name} by {rise:g}" for name, rise in found.throttling.items() if rise > 0]
    if rising:
        doubts.append(f"sustained run: the device held itself back ({', '.join(rising)})")
    return doubts
