"""BenchProfile: what was found out about one device with one bundle, as JSON. The ground reads it too.

Every part says how its numbers came about (`basis`: measured by ..., or modelled: ...). A device that is emulated has
no performance and no energy, only equality.
"""

import dataclasses
import json
import types
from collections import defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

import numpy as np
from numpy.typing import NDArray

from hil.profiles.findings import Accuracy, LayerTime, MeterNote, Soak
from payload.errors import InputError

FORMAT = 3
#: 1: tiles of every fate in one lump, percentiles of however few samples; 2: neither layers nor accuracy.
READABLE = (1, 2, 3)
#: The fewest samples of which a percentile is given: one of them is expected to lie beyond it.
FEWEST = {95: 20, 99: 100}
#: What becomes of a tile on board, as the agent names it. The gate's share is that of the withheld ones.
CODED, WITHHELD = "coded", "withheld"
RESAMPLES = 1000
FEWEST_GROUPS = 5
T = TypeVar("T")


@dataclass(frozen=True)
class Spread:
    """Seconds of something that was done n times. `jitter_s` is the standard deviation.

    A percentile of too few samples (FEWEST) is None. `..._range_s`: 95 % bootstrap interval, empty where there is no
    figure. The same tile timed again is no other tile: tiles are drawn whole, with all their repeats.
    """

    n: int
    mean_s: float
    p50_s: float
    p95_s: float | None
    p99_s: float | None
    max_s: float
    jitter_s: float
    p50_range_s: tuple[float, ...] = ()
    mean_range_s: tuple[float, ...] = ()
    p95_range_s: tuple[float, ...] = ()
    p99_range_s: tuple[float, ...] = ()

    @classmethod
    def of(cls, seconds: Sequence[float], groups: Sequence[Hashable] = ()) -> "Spread":
        """`groups`: which tile each value is of, where tiles were timed more than once."""
        x = np.array(seconds, np.float64)
        p95, p99 = (float(np.percentile(x, q)) if len(x) >= fewest else None for q, fewest in FEWEST.items())
        drawn = np.sort(_resampled(x, groups), axis=1)  # [RESAMPLES, n]
        ranges = [_range(np.median(drawn, axis=1)), _range(drawn.mean(axis=1))]
        ranges += [_range(np.percentile(drawn, q, axis=1)) if len(x) >= n else () for q, n in FEWEST.items()]
        return cls(len(x), float(x.mean()), float(np.median(x)), p95, p99, float(x.max()), float(x.std()), *ranges)


def _resampled(x: NDArray[np.float64], groups: Sequence[Hashable]) -> NDArray[np.float64]:
    """Draws with replacement: whole groups where there are FEWEST_GROUPS of one size, else single values."""
    random, members = np.random.default_rng(0), defaultdict(list)
    for place, group in enumerate(groups):
        members[group].append(place)
    if len(members) < FEWEST_GROUPS or len({len(places) for places in members.values()}) > 1:
        return random.choice(x, (RESAMPLES, len(x)))
    table = x[np.array(list(members.values()))]  # [groups, repeats]
    return table[random.integers(0, len(table), (RESAMPLES, len(table)))].reshape(RESAMPLES, -1)


def _range(values: NDArray[np.float64]) -> tuple[float, ...]:
    return tuple(float(q) for q in np.percentile(values, [2.5, 97.5]))


@dataclass(frozen=True)
class KindTimes:
    """Tiles that met the same fate on board: coded, withheld by the gate, empty, or coded by the fallback."""

    tiles: int  # of one pass
    tile_s: Spread
    stages_s: dict[str, Spread]


@dataclass(frozen=True)
class ProfiledDevice:
    """The machine, and what computed there."""

    name: str
    machine: str
    cpu: str
    cores: int
    memory_mib: int
    system: str
    python: str
    engine: str
    threads: int
    emulated: str | None = None
    ran: dict[str, str] = field(default_factory=dict)  # part of the payload -> compiled kernel, numpy or runtime


@dataclass(frozen=True)
class Performance:
    """Times on the device's own clock; a tile alone on the line, then tiles streamed.

    A withheld tile costs the gate alone, so that a figure over all tiles depends on the clouds of the scene: `kinds`
    has coded and withheld tiles apart, `gate_share` is the share of tiles that were withheld.
    """

    basis: str
    repeats: int
    tile_s: Spread  # all tiles, whatever became of them
    stages_s: dict[str, Spread]
    cold_start_s: float  # median of: load the bundle, and the first tile after it
    tile_mpx_s: float  # one tile after the other, line not counted; all tiles
    streamed_mpx_s: float  # as the host sees it, line counted
    line_overhead_percent: float  # streamed wall time over the device's compute time, minus 1
    peak_memory_mib: float
    temperatures_c: dict[str, float]
    latencies_s: tuple[float, ...]  # in order, for the plots
    latency_kinds: tuple[str, ...] = ()  # beside them
    kinds: dict[str, KindTimes] = field(default_factory=dict)
    coded_mpx_s: float | None = None  # coded tiles alone: a scene without clouds
    streamed_tile_s: float | None = None  # mean time of a tile on the device while tiles were streamed

    @property
    def gate_share(self) -> float | None:
        """Share of the tiles that the gate withheld; None in a profile that does not tell."""
        tiles = sum(kind.tiles for kind in self.kinds.values())
        withheld = self.kinds.get(WITHHELD)
        return (withheld.tiles if withheld else 0) / tiles if tiles else None


@dataclass(frozen=True)
class StageSpan:
    """When a stage ran, in seconds from the start of the trace."""

    name: str
    start_s: float
    end_s: float


@dataclass(frozen=True)
class Energy:
    """Medians over the repeats. Net: idle subtracted."""

    basis: str
    repeats: int
    window_s: float
    idle_w: float
    busy_w: float
    peak_w: float
    tile_gross_j: float
    tile_net_j: float
    mpx_gross_j: float
    mpx_net_j: float
    stage_net_j: dict[str, float]  # net energy of a tile by the stages' share of time
    clock: str  # how meter and device agree on time, and how well
    trace_t_s: tuple[float, ...] = ()  # of the last repeat, thinned, from its start
    trace_w: tuple[float, ...] = ()
    busy_from_s: float = 0.0
    busy_to_s: float = 0.0
    first_tiles: tuple[StageSpan, ...] = ()  # stages of the first tiles at work
    first_t_s: tuple[float, ...] = ()  # the trace over them, not thinned
    first_w: tuple[float, ...] = ()
    held: tuple[int, ...] = ()  # numbers of the tiles worked on; every one equally often
    tile_s: float | None = None  # the window's time over its tiles
    kind_gross_j: dict[str, float] = field(default_factory=dict)  # of a tile of each fate, by its share of the time
    kind_net_j: dict[str, float] = field(default_factory=dict)
    tile_gross_range_j: tuple[float, ...] = ()  # least and most of the repeats
    tile_net_range_j: tuple[float, ...] = ()
    states_w: dict[str, float] = field(default_factory=dict)  # baseline states -> mean power
    meter: MeterNote | None = None

    @property
    def modelled(self) -> bool:
        return self.basis.startswith("modelled")


@dataclass(frozen=True)
class Roofline:
    """The networks against the device's ceilings. Octets are the least that must move: inputs, outputs, weights.

    A share of the peak is given only where the peak is one of the networks' own precision.
    """

    basis: str
    gmac_per_tile: float
    network_s: float
    achieved_gmac_s: float
    macs_per_octet: float
    peak_gmac_s: float
    memory_gb_s: float
    peak_precision: str = "f32"
    network_precision: str = ""
    copied_mib: float | None = None  # moved at once to measure the memory: more than the caches hold
    ceilings: dict[str, float] = field(default_factory=dict)  # precision -> GMAC/s the runtime reached at best
    ceilings_by: str = ""  # what it was given to reach them
    layers: tuple[LayerTime, ...] = ()
    untold: dict[str, str] = field(default_factory=dict)  # network -> why its layers are not known

    @property
    def attainable_gmac_s(self) -> float:
        return min(self.peak_gmac_s, self.macs_per_octet * self.memory_gb_s)

    @property
    def share(self) -> float | None:
        """Of what the ceilings allow; None where they are of another precision."""
        same = self.network_precision == self.peak_precision
        return self.achieved_gmac_s / self.attainable_gmac_s if same else None

    def share_of(self, layer: LayerTime) -> float | None:
        """What a layer reaches of what its own precision's ceiling and the memory allow; None without such a one."""
        peak = self.ceilings.get(layer.precision)
        if peak is None or not layer.macs:
            return None
        return layer.gmac_s / min(peak, layer.macs_per_octet * self.memory_gb_s)


@dataclass(frozen=True)
class BenchProfile:
    """All of it."""

    format: int
    made_at: str
    code_id: str
    bundle: str
    bundle_id: int
    tile_px: int
    device: ProfiledDevice
    tiles: int
    sha256: str  # over the tile codes: equal on every device that computes the same
    performance: Performance | None = None
    energy: Energy | None = None
    roofline: Roofline | None = None
    complaints: tuple[str, ...] = field(default=())
    software: str = ""  # version and commit of the host's side
    accuracy: Accuracy | None = None
    soak: Soak | None = None


def save_profile(profile: BenchProfile, path: Path) -> None:
    """Writes profile.json, whole or not at all."""
    fresh = path.with_suffix(".part")
    fresh.write_text(json.dumps(asdict(profile), indent=1) + "\n", encoding="utf-8")
    fresh.rename(path)


def load_profile(path: Path) -> BenchProfile:
    """Reads profile.json. InputError names what is wrong with it."""
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: not readable as a profile ({error}); make one with `hil profile`") from None
    if not isinstance(fields, dict) or fields.get("format") not in READABLE:
        found = fields.get("format") if isinstance(fields, dict) else type(fields).__name__
        raise InputError(
            f"{path}: profile format {found!r}, this Nadir reads {READABLE[0]} to {FORMAT}; profile the device again"
        )
    return _build(BenchProfile, fields, str(path))


def _build(kind: type[T], fields: Any, where: str) -> T:
    hints = get_type_hints(kind)
    names = {f.name for f in dataclasses.fields(kind)}  # type: ignore[arg-type]
    if not isinstance(fields, dict) or not set(fields) <= names:
        strange = ", ".join(sorted(set(fields) - names)) if isinstance(fields, dict) else type(fields).__name__
        raise InputError(f"{where}: {strange} has no place here; profile the device again")
    try:
        return kind(**{name: _value(hints[name], value, f"{where}: {name}") for name, value in fields.items()})
    except TypeError as error:
        raise InputError(f"{where}: {error}; profile the device again") from None


def _value(hint: Any, value: Any, where: str) -> Any:
    if get_origin(hint) in (Union, types.UnionType):
        if value is None and type(None) in get_args(hint):
            return None
        hint = next(option for option in get_args(hint) if option is not type(None))
    if dataclasses.is_dataclass(hint):
        return _build(hint, value, where)  # type: ignore[arg-type]
    if get_origin(hint) is tuple and isinstance(value, list):
        return tuple(_value(get_args(hint)[0], item, where) for item in value)
    if get_origin(hint) is dict and isinstance(value, dict):
        return {str(key): _value(get_args(hint)[1], item, f"{where}.{key}") for key, item in value.items()}
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if get_origin(hint) is None and isinstance(value, hint) and not (hint is int and isinstance(value, bool)):
        return value
    raise InputError(f"{where} is {value!r}, wanted {getattr(hint, '__name__', hint)}; profile the device again")
