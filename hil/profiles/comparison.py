"""Profiles side by side, held against the first: figures, equality of the tile codes, thresholds.

A threshold is `FIGURE<=FACTOR` or `FIGURE>=FACTOR`: the figure of every further profile over the first one's. Without
any, only equality of the tile codes is judged, where bundle and tiles are the same.
"""

import csv
import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree

from hil.profiles.profile_file import CODED, BenchProfile, Spread
from payload.errors import InputError

Value = float | None


@dataclass(frozen=True)
class Threshold:
    """What the ratio of a figure to the first profile's may be."""

    figure: str
    at_most: bool
    factor: float

    def held(self, ratio: float | None) -> bool:
        """A figure that is not there is not held."""
        if ratio is None:
            return False
        return ratio <= self.factor if self.at_most else ratio >= self.factor

    def __str__(self) -> str:
        return f"{self.figure} {'<=' if self.at_most else '>='} {self.factor:g} x the first"


@dataclass(frozen=True)
class Verdict:
    """One thing that was judged of one profile."""

    profile: str
    judged: str
    held: bool
    found: str


def _spread(profile: BenchProfile) -> Spread | None:
    """Times of coded tiles; of all tiles where an old profile does not tell them apart."""
    if profile.performance is None:
        return None
    coded = profile.performance.kinds.get(CODED)
    return coded.tile_s if coded else profile.performance.tile_s


def _of(part: str, attribute: str, scale: float = 1.0) -> Callable[[BenchProfile], Value]:
    def read(profile: BenchProfile) -> Value:
        found = _spread(profile) if part == "tile" else getattr(profile, part)
        value = getattr(found, attribute) if found is not None else None
        return None if value is None else scale * value

    return read


#: Name on the command line -> (words with the unit, how it is read).
FIGURES: dict[str, tuple[str, Callable[[BenchProfile], Value]]] = {
    "p50": ("coded tile p50, ms", _of("tile", "p50_s", 1e3)),
    "p95": ("coded tile p95, ms", _of("tile", "p95_s", 1e3)),
    "p99": ("coded tile p99, ms", _of("tile", "p99_s", 1e3)),
    "max": ("coded tile max, ms", _of("tile", "max_s", 1e3)),
    "coded_mpx_s": ("coded tiles, Mpx/s", _of("performance", "coded_mpx_s")),
    "mpx_s": ("all tiles, Mpx/s", _of("performance", "tile_mpx_s")),
    "streamed_mpx_s": ("streamed, Mpx/s", _of("performance", "streamed_mpx_s")),
    "gate_share": ("withheld by the gate, share", _of("performance", "gate_share")),
    "memory": ("peak memory, MiB", _of("performance", "peak_memory_mib")),
    "cold_start": ("cold start, ms", _of("performance", "cold_start_s", 1e3)),
    "net_mj": ("net mJ/tile", _of("energy", "tile_net_j", 1e3)),
    "gross_mj": ("gross mJ/tile", _of("energy", "tile_gross_j", 1e3)),
    "busy_w": ("power at work, W", _of("energy", "busy_w")),
}


def read_threshold(text: str) -> Threshold:
    """`p50<=1.1` or `coded_mpx_s>=0.95`. InputError says what is wrong with it."""
    match = re.fullmatch(r"\s*(\w+)\s*(<=|>=)\s*([0-9.eE+-]+)\s*", text)
    try:
        factor = float(match[3]) if match else -1.0
    except ValueError:
        factor = -1.0
    if match is None or match[1] not in FIGURES or not 0 < factor < float("inf"):
        raise InputError(f"threshold {text!r}: wanted FIGURE<=FACTOR or FIGURE>=FACTOR, of {', '.join(FIGURES)}")
    return Threshold(match[1], match[2] == "<=", factor)


def judge(profiles: Sequence[BenchProfile], names: Sequence[str], thresholds: Sequence[Threshold]) -> list[Verdict]:
    """Every further profile against the first: its tile codes, then each threshold."""
    first, verdicts = profiles[0], []
    for profile, name in zip(profiles[1:], names[1:], strict=True):
        same_work = (profile.bundle_id, profile.tiles) == (first.bundle_id, first.tiles)
        if same_work:
            equal = profile.sha256 == first.sha256
            found = f"sha256 {profile.sha256[:16]}, the first has {first.sha256[:16]}"
            verdicts.append(Verdict(name, "tile codes equal the first's", equal, found))
        else:
            found = f"bundle {profile.bundle_id:08x} with {profile.tiles} tiles"
            verdicts.append(Verdict(name, "tile codes cannot be compared: other bundle or tiles", True, found))
        for threshold in thresholds:
            ratio = _ratio(FIGURES[threshold.figure][1], profile, first)
            found = "the figure is missing" if ratio is None else f"{ratio:.4g} x the first"
            verdicts.append(Verdict(name, str(threshold), threshold.held(ratio), found))
    return verdicts


def comparison(profiles: Sequence[BenchProfile]) -> list[str]:
    """A table of the profiles, one figure a line; figures also as a ratio to the first profile's."""
    return [
        f"{row[0]:<28}" + "".join(f"{_cell(value, row[1]):>34}" for value in row[1:]) for row in _rows(profiles)
    ]  # fmt: skip


def as_csv(profiles: Sequence[BenchProfile], names: Sequence[str]) -> str:
    """The same table: a column for every profile, numbers in full."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["figure", *names])
    table.writerows(["" if value is None else value for value in row] for row in _rows(profiles))
    return text.getvalue()


def as_junit(verdicts: Sequence[Verdict]) -> str:
    """JUnit XML as continuous-integration servers read it: a test case for each verdict."""
    failures = sum(not verdict.held for verdict in verdicts)
    suite = ElementTree.Element(
        "testsuite", name="hil compare", tests=str(len(verdicts)), failures=str(failures), errors="0"
    )
    for verdict in verdicts:
        case = ElementTree.SubElement(suite, "testcase", classname=verdict.profile, name=verdict.judged)
        if not verdict.held:
            ElementTree.SubElement(case, "failure", message=verdict.found)
    ElementTree.indent(suite)
    return ElementTree.tostring(suite, encoding="unicode", xml_declaration=True) + "\n"


def _rows(profiles: Sequence[BenchProfile]) -> list[list[Any]]:
    rows: list[list[Any]] = [
        ["device", *(p.device.name for p in profiles)],
        ["cpu", *(p.device.cpu for p in profiles)],
        ["engine", *(f"{p.device.engine}, {p.device.threads} thr" for p in profiles)],
        ["own code ran in", *(p.device.ran.get("own code", "-") for p in profiles)],
        ["encoder network ran in", *(p.device.ran.get("encoder network", "-") for p in profiles)],
        ["bundle", *(f"{p.bundle} {p.bundle_id:08x}" for p in profiles)],
        ["agent code", *(p.code_id for p in profiles)],
        ["tiles", *(p.tiles for p in profiles)],
        ["tile codes", *(p.sha256[:16] for p in profiles)],
    ]
    rows += [[words, *(read(p) for p in profiles)] for words, read in FIGURES.values()]
    stages = dict.fromkeys(stage for p in profiles if p.performance for stage in p.performance.stages_s)
    rows += [[f"  {stage} p50, ms", *(_stage_ms(p, stage) for p in profiles)] for stage in stages]
    rows.append(["energy is", *(p.energy.basis.partition(" ")[0].rstrip(":") if p.energy else "-" for p in profiles)])
    return rows


def _stage_ms(profile: BenchProfile, stage: str) -> Value:
    found = profile.performance.stages_s.get(stage) if profile.performance else None
    return None if found is None else 1e3 * found.p50_s


def _ratio(read: Callable[[BenchProfile], Value], profile: BenchProfile, first: BenchProfile) -> Value:
    found, yardstick = read(profile), read(first)
    return found / yardstick if found is not None and yardstick else None


def _cell(value: Any, first: Any) -> str:
    if value is None:
        return "-"
    if not isinstance(value, float):
        return str(value)[:32]
    ratio = f" (x{value / first:.2f})" if isinstance(first, float) and first and value is not first else ""
    return f"{value:.4g}{ratio}"
