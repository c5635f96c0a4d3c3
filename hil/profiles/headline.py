"""The few figures that a reader takes away from a profile, each with how it came about."""

from dataclasses import dataclass

from hil.profiles.findings import Accuracy
from hil.profiles.profile_file import CODED, WITHHELD, BenchProfile, Energy, Performance


@dataclass(frozen=True)
class KeyFigure:
    """A figure, as text. `basis`: measured or modelled, and by what; `note`: what else has to be known."""

    name: str
    value: str
    unit: str
    basis: str
    note: str = ""

    def line(self) -> str:
        note = f", {self.note}" if self.note else ""
        return f"{self.name:<28}{self.value:>9} {self.unit:<6} {self.basis}{note}"


def headline(profile: BenchProfile) -> list[KeyFigure]:
    """Coded tiles first: their figures do not depend on how cloudy the scene was."""
    figures = _of_time(profile.performance) if profile.performance else []
    figures += _of_energy(profile.energy) if profile.energy else []
    return figures + (_of_accuracy(profile.accuracy) if profile.accuracy else [])


def short_basis(basis: str) -> str:
    """'measured' or 'modelled'."""
    return "modelled" if basis.startswith("modelled") else "measured"


def _of_time(found: Performance) -> list[KeyFigure]:
    basis, figures = short_basis(found.basis), []
    for kind, times in found.kinds.items():
        spread = times.tile_s
        p99 = f"p99 {1e3 * spread.p99_s:.4g} ms" if spread.p99_s is not None else f"max {1e3 * spread.max_s:.4g} ms"
        note = f"{p99}, {times.tiles} tile{'s' if times.tiles != 1 else ''}"
        figures.append(KeyFigure(f"{kind} tile, p50", f"{1e3 * spread.p50_s:.4g}", "ms", basis, note))
    if not found.kinds:
        figures.append(KeyFigure("tile of any kind, p50", f"{1e3 * found.tile_s.p50_s:.4g}", "ms", basis))
    if found.coded_mpx_s is not None:
        figures.append(KeyFigure("throughput, coded tiles", f"{found.coded_mpx_s:.4g}", "Mpx/s", basis))
    share = found.gate_share
    note = "" if share is None else f"{100 * share:.0f} % of the tiles withheld by the gate"
    figures.append(KeyFigure("throughput, all tiles", f"{found.tile_mpx_s:.4g}", "Mpx/s", basis, note))
    figures.append(KeyFigure("memory, peak", f"{found.peak_memory_mib:.4g}", "MiB", "measured", "whole agent"))
    return figures


def _of_energy(found: Energy) -> list[KeyFigure]:
    basis = found.basis if found.modelled else short_basis(found.basis)
    figures = [
        KeyFigure(f"{kind} tile, energy", f"{1e3 * found.kind_net_j[kind]:.4g}", "mJ", basis, "idle subtracted")
        for kind in (CODED, WITHHELD)
        if kind in found.kind_net_j
    ]
    if not figures:
        figures.append(KeyFigure("tile, energy", f"{1e3 * found.tile_net_j:.4g}", "mJ", basis, "idle subtracted"))
    return [*figures, KeyFigure("power at work", f"{found.busy_w:.4g}", "W", basis, f"{found.idle_w:.4g} W at rest")]


def _of_accuracy(found: Accuracy) -> list[KeyFigure]:
    figures = []
    if found.coded_bpp is not None:
        figures.append(KeyFigure("rate, coded tiles", f"{found.coded_bpp:.4g}", "bit/px", "measured", "all bands"))
    if (psnr := found.distortion.get("psnr_10k_pooled_db")) is not None:
        figures.append(KeyFigure("PSNR, coded tiles", f"{psnr:.4g}", "dB", "measured", "peak 10 000, pooled"))
    if found.clouds and found.clouds.iou is not None:
        note = f"against {found.clouds.basis}"
        figures.append(KeyFigure("cloud IoU", f"{found.clouds.iou:.3f}", "", "measured", note))
    return figures
