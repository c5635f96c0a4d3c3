"""A report -> the few lines a terminal shows."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sim.report import TILE_KINDS, arrange


def as_text(report: Mapping[str, Any], out: Path) -> str:
    """What was sent, what it costs, what it looks like, and which requirements held."""
    arranged = arrange(report)
    tiles, rate, host = report["tiles"], report["rate"], arranged["measured_on_host"]
    shown = ", ".join(f"{tiles[kind]} {kind}" for kind in TILE_KINDS if tiles[kind])
    lines = [
        f"{report['inputs']['scene']['name']}  {report['inputs']['scene']['width_px']} x {report['inputs']['scene']['height_px']} px"
        f"  mission {report['inputs']['mission']['name']}  bundle {report['inputs']['bundle']['name']} {report['inputs']['bundle']['id']}",
        f"tiles    {shown} = {tiles['total']}",
        f"rate     {rate['octets']:,} octets, CR {rate['cr16']:.1f} against 16 bit, {rate['bpp']:.3f} bit/px".replace(
            ",", " ", 1
        ),
        "quality  " + ", ".join(_metric(report, key) for key in ("psnr_10k_db", "ssim_10k", "ndvi_mae", "sam_deg")),
        f"on board {host['throughput_mpx_s']:.2f} Mpx/s on this host, peak {host['peak_rss_mib']:.0f} MiB",
        "",
    ]
    for check in [*arranged["checks"], *host["checks"]]:
        verdict = "held  " if check["held"] else "FAILED"
        measured = "unknown" if check["measured"] is None else f"{check['measured']:.4g}"
        lines.append(
            f"{verdict} {check['requirement']:<22} {measured:>10} {check['relation']} {check['limit']:.4g} {check['unit']}  ({check['basis']})"
        )
    return "\n".join([*lines, "", f"report: {out / 'report.html'}", ""])


def _metric(report: Mapping[str, Any], key: str) -> str:
    row = next(row for row in report["quality"]["metrics"] if row["key"] == key)
    value = "not computed" if row["value"] is None else f"{row['value']:.4g}"
    return f"{row['name']} {value} {row['unit']}".strip()
