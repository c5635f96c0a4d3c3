"""Calibrating the Myriad models: published latencies of known networks against what the compiler makes of them.

    latency = calls x start + MACs / rate + stages x overhead + octets moved / bandwidth

is linear in what is sought, so least squares of relative residuals find it, none of the four negative. How far a
network's latency lies from what all the others predict is the interval. The reference networks are compiled where the
toolkit is installed; what it made is kept in reference_work.json, so that the same figures come out without it.
"""

import itertools
import json
import re
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from export.devices.estimates import work_of
from export.devices.myriad_toolkit import Toolkit, compile_form
from export.devices.reference_networks import REFERENCES
from export.graphs.fewer_stages import fewer_stages
from export.graphs.graph import load_graph
from hil.devices.latency import Work
from hil.devices.targets import FOLDER, Published, Target
from payload.errors import InputError

KEPT = Path(__file__).with_name("reference_work.json")
#: Figures that are calibrated, in the order of a row of the system of equations.
FIGURES = ("call_overhead_us", "rate_gmac_per_s", "stage_overhead_us", "bandwidth_gb_per_s")
Row = NDArray[np.float64]


@dataclass(frozen=True)
class Point:
    """One published latency, what the model says, and what it says calibrated on the others alone."""

    published: Published
    modelled_ms: float
    from_others_ms: float

    @property
    def error(self) -> float:
        """Of the model, relative: + is too slow."""
        return self.modelled_ms / (self.published.latency_ms or 1.0) - 1


@dataclass(frozen=True)
class Calibration:
    """A device's figures as (low, mid, high), and the points they come from."""

    target: str
    figures: dict[str, tuple[float, float, float]]
    points: tuple[Point, ...]

    def within(self, share: float) -> int:
        return sum(abs(point.error) <= share for point in self.points)


def compile_references(targets: Sequence[Target], toolkit: Toolkit, say: Callable[[str], None]) -> None:
    """What the compiler makes of every reference network that a device has a latency of, into KEPT."""
    wanted = [(name, t) for name in REFERENCES for t in targets if any(p.network == name for p in t.published)]

    def compiled(one: tuple[str, Target]) -> dict[str, float]:
        name, target = one
        model = fewer_stages(REFERENCES[name]())
        header = compile_form(model, target, toolkit).header
        say(f"{name} for {target.name}: {header.stages} stages")
        return asdict(work_of(load_graph(model), 2, header.stages * header.batch))

    kept: dict[str, dict[str, dict[str, float]]] = {name: {} for name in REFERENCES}
    with ThreadPoolExecutor(4) as pool:  # most of a compile is waiting
        for (name, target), work in zip(wanted, pool.map(compiled, wanted), strict=True):
            kept[name][target.name] = work
    text = json.dumps({name: made for name, made in kept.items() if made}, indent=1, sort_keys=True)
    KEPT.write_text(text + "\n", encoding="utf-8")


def reference_work(target: Target) -> dict[str, Work]:
    """What each compiled reference network asks of a device, by name."""
    if not KEPT.is_file():
        raise InputError(f"{KEPT}: not there; `python -m export calibrate --toolkit TOOLKIT` makes it")
    kept = json.loads(KEPT.read_text(encoding="utf-8"))
    return {name: Work(**made[target.name]) for name, made in kept.items() if target.name in made}


def calibrate(target: Target, works: Mapping[str, Work]) -> Calibration:
    """The figures of one device. InputError where fewer than three of its published latencies have a network here."""
    used = [p for p in target.published if p.network in works and p.calibrates and p.latency_ms]
    if len(used) < 3:
        raise InputError(f"{target.name}: {len(used)} published latencies of reference networks, wanted 3 or more")
    rows = np.array([_row(works[p.network]) * p.batch for p in used])
    rows[:, 0] = 1e-3  # a batch is one call
    wanted = np.array([p.latency_ms for p in used], np.float64)
    found = solve(rows, wanted)
    others = [float(rows[i] @ solve(np.delete(rows, i, 0), np.delete(wanted, i))) for i in range(len(used))]
    points = [Point(p, float(row @ found), other) for p, row, other in zip(used, rows, others, strict=True)]
    ratios = [float(w) / max(p.from_others_ms, 1e-9) for p, w in zip(points, wanted, strict=True)]
    return Calibration(target.name, _figures(found, min(1.0, *ratios), max(1.0, *ratios)), tuple(points))


def solve(rows: NDArray[np.float64], wanted: Row) -> Row:
    """Least squares of the relative residuals with no unknown negative: the best of all sets of unknowns."""
    scaled = rows / wanted[:, None]
    best, least = np.zeros(rows.shape[1]), np.inf
    for count in range(1, rows.shape[1] + 1):
        for chosen in map(list, itertools.combinations(range(rows.shape[1]), count)):
            found, *_ = np.linalg.lstsq(scaled[:, chosen], np.ones(len(wanted)), rcond=None)
            residual = float(np.square(scaled[:, chosen] @ found - 1).sum())
            if (found >= 0).all() and residual < least - 1e-9:
                best, least = np.zeros(rows.shape[1]), residual
                best[chosen] = found
    return best


def _row(work: Work) -> Row:
    """Milliseconds for one unit of each unknown: us a call, ns a MMAC, us a stage, ns a MB."""
    return np.array([work.calls / 1e3, work.macs / 1e6, (work.stages or 0) / 1e3, work.octets_moved / 1e6])


def _figures(found: Row, fastest: float, slowest: float) -> dict[str, tuple[float, float, float]]:
    """(low, mid, high) of each figure; a rate is high where the device is fast, an overhead low."""
    start, per_mmac, per_stage, per_mb = (float(v) for v in found)

    def time(us: float) -> tuple[float, float, float]:
        return us * fastest, us, us * slowest

    def speed(ms: float) -> tuple[float, float, float]:
        per_ms = 1 / max(ms, 1e-6)
        return per_ms / slowest, per_ms, per_ms / fastest

    values = (time(start), speed(per_mmac), time(per_stage), speed(per_mb))
    return dict(zip(FIGURES, values, strict=True))


def as_text(found: Calibration) -> str:
    """Figures and points as a table."""
    lines = [f"{found.target}: calibrated on {len(found.points)} published latencies; low / mid / high"]
    lines += [f"  {key:20} {low:10.4g} {mid:10.4g} {high:10.4g}" for key, (low, mid, high) in found.figures.items()]
    lines.append(f"  {'network':20} {'published':>10} {'modelled':>10} {'error':>7} {'from the others':>16}")
    for point in found.points:
        what = point.published.network + (f" x{point.published.batch}" if point.published.batch > 1 else "")
        lines.append(
            f"  {what:20} {point.published.latency_ms:7.4g} ms {point.modelled_ms:7.4g} ms {point.error:+7.1%} "
            f"{point.from_others_ms:13.4g} ms"
        )
    return "\n".join(lines)


def write(found: Calibration) -> Path:
    """Puts the figures into the device's file, in place of the ones of the same name."""
    path = FOLDER / f"{found.target}.toml"
    text = path.read_text(encoding="utf-8")
    source = f"`python -m export calibrate`: {len(found.points)} published latencies below"
    for key, (low, mid, high) in found.figures.items():
        values = ", ".join(f"{n} = {v:.4g}" for n, v in zip(("low", "mid", "high"), (low, mid, high), strict=True))
        line = f'{key} = {{ {values}, status = "calibrated", source = "{source}" }}'
        text, times = re.subn(rf"(?m)^{key} = .*$", line, text)
        if times != 1:
            raise InputError(f"{path}: {key} stands there {times} times, wanted once; mend the file")
    path.write_text(text, encoding="utf-8")
    return path
