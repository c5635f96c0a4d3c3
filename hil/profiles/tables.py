"""A profile as one long table: section, name, figure, value, unit, the ends of its interval, and of how many values."""

import csv
import io
from collections.abc import Iterator
from typing import Any

from hil.profiles.findings import Accuracy, Soak
from hil.profiles.profile_file import BenchProfile, Energy, Performance, Roofline, Spread

COLUMNS = ("section", "name", "figure", "value", "unit", "low", "high", "n", "basis")
Row = tuple[Any, ...]


def as_table(profile: BenchProfile) -> str:
    """CSV with COLUMNS, without figures that are not known. `low` and `high`: 95 % interval, or range of repeats."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(COLUMNS)
    for row in _rows(profile):
        table.writerow(["" if value is None else value for value in row])
    return text.getvalue()


def _rows(profile: BenchProfile) -> Iterator[Row]:
    if profile.performance:
        yield from _performance(profile.performance)
    if profile.energy:
        yield from _energy(profile.energy)
    if profile.accuracy:
        yield from _accuracy(profile.accuracy)
    if profile.roofline:
        yield from _roofline(profile.roofline)
    if profile.soak:
        yield from _soak(profile.soak)


def _performance(found: Performance) -> Iterator[Row]:
    yield from _spread("tile", "all", found.tile_s, found.basis)
    for kind, times in found.kinds.items():
        yield from _spread("tile", kind, times.tile_s, found.basis)
    for stage, spread in found.stages_s.items():
        yield from _spread("stage", stage, spread, found.basis)
    for figure, value, unit in (
        ("cold start", 1e3 * found.cold_start_s, "ms"),
        ("throughput, coded tiles", found.coded_mpx_s, "Mpx/s"),
        ("throughput, all tiles", found.tile_mpx_s, "Mpx/s"),
        ("throughput, streamed", found.streamed_mpx_s, "Mpx/s"),
        ("withheld by the gate", found.gate_share, "share"),
        ("peak memory", found.peak_memory_mib, "MiB"),
    ):
        if value is not None:
            yield "performance", "device", figure, value, unit, None, None, None, found.basis


def _spread(section: str, name: str, found: Spread, basis: str) -> Iterator[Row]:
    for figure in ("p50", "mean", "p95", "p99"):
        value, ends = getattr(found, f"{figure}_s"), getattr(found, f"{figure}_range_s")
        if value is not None:
            low, high = (1e3 * end for end in ends) if ends else (None, None)
            yield section, name, figure, 1e3 * value, "ms", low, high, found.n, basis
    for figure in ("max", "jitter"):
        yield section, name, figure, 1e3 * getattr(found, f"{figure}_s"), "ms", None, None, found.n, basis


def _energy(found: Energy) -> Iterator[Row]:
    for figure, value, ends in (
        ("gross", found.tile_gross_j, found.tile_gross_range_j),
        ("idle subtracted", found.tile_net_j, found.tile_net_range_j),
    ):
        low, high = (1e3 * end for end in ends) if ends else (None, None)
        yield "energy", "tile", figure, 1e3 * value, "mJ", low, high, found.repeats, found.basis
    for kind, joules in found.kind_net_j.items():
        yield "energy", f"{kind} tile", "idle subtracted", 1e3 * joules, "mJ", None, None, found.repeats, found.basis
    for state, watts in found.states_w.items():
        yield "power", state, "mean", watts, "W", None, None, found.repeats, found.basis
    yield "power", "device", "peak", found.peak_w, "W", None, None, found.repeats, found.basis


def _accuracy(found: Accuracy) -> Iterator[Row]:
    basis = "the device's tile codes, decoded by the ground"
    rates = (("rate, all tiles", found.bpp, found.tiles), ("rate, coded tiles", found.coded_bpp, found.decoded))
    for figure, value, count in rates:
        if value is not None:
            yield "accuracy", "tiles", figure, value, "bits/px", None, None, count, basis
    for figure, value in found.distortion.items():
        unit = "dB" if figure.endswith("_db") else ""
        yield "accuracy", "coded tiles", figure, value, unit, None, None, found.decoded, basis
    if clouds := found.clouds:
        for figure in ("iou", "precision", "recall"):
            yield "accuracy", "clouds", figure, getattr(clouds, figure), "share", None, None, found.tiles, clouds.basis


def _roofline(found: Roofline) -> Iterator[Row]:
    for precision, gmac_s in found.ceilings.items():
        yield "ceiling", precision, "compute", gmac_s, "GMAC/s", None, None, None, found.ceilings_by
    yield "ceiling", "memory", "copy", found.memory_gb_s, "GB/s", None, None, None, f"{found.copied_mib} MiB"
    for layer in found.layers:
        name, basis = f"{layer.network}: {layer.name}", f"{layer.kind}, {layer.precision}"
        yield "layer", name, "time", 1e3 * layer.seconds, "ms", None, None, None, basis
        yield "layer", name, "work", layer.macs / 1e6, "MMAC", None, None, None, basis
        yield "layer", name, "traffic", layer.octets / 1e3, "kB", None, None, None, basis


def _soak(found: Soak) -> Iterator[Row]:
    for figure, seconds in (("first tenth", found.first_tile_s), ("last tenth", found.last_tile_s)):
        yield "soak", "tile", figure, 1e3 * seconds, "ms", None, None, found.tiles, f"{found.seconds:.0f} s"
    for point in found.points:
        for figure, value, unit in (
            ("tile", 1e3 * point.tile_s, "ms"), ("clock", point.clock_mhz, "MHz"), ("hottest", point.hottest_c, "°C"),
        ):  # fmt: skip
            if value is not None:
                yield "soak", f"at {point.t_s:.1f} s", figure, value, unit, None, None, point.tiles, ""
