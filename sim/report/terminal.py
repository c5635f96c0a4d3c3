"""A report -> the few lines a terminal shows."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sim.report.files import TILE_KINDS, arrange

SHOWN = ("psnr_10k_db", "ssim_10k", "ndvi_mae", "sam_deg")


def as_text(report: Mapping[str, Any], out: Path) -> str:
    """What was sent, what it costs, what it looks like, and which requirements held."""
    arranged = arrange(report)
    inputs, tiles, rate, host = report["inputs"], report["tiles"], report["rate"], arranged["measured_on_host"]
    scene, bundle = inputs["scene"], inputs["bundle"]
    counted = ", ".join(f"{tiles[kind]} {kind}" for kind in TILE_KINDS if tiles[kind])
    lines = [
        f"scene    {scene['name']}, {scene['width_px']} x {scene['height_px']} px",
        f"mission  {inputs['mission']['name']}, bundle {bundle['name']} {bundle['id']}, seed {inputs['seed']}",
        f"tiles    {counted} = {tiles['total']}",
        f"rate     {rate['octets']} octets, CR {rate['cr16']:.1f} against 16 bit, {rate['bpp']:.3f} bit/px",
        "quality  " + ", ".join(_metric(report, key) for key in SHOWN),
        f"on board {_on_board(arranged)}",
        "",
        *(_verdict(check) for check in [*arranged["checks"], *host["checks"]]),
        "",
        f"report   {out / 'report.html'}",
        "",
    ]
    return "\n".join(lines)


def _on_board(arranged: Mapping[str, Any]) -> str:
    """Speed and memory of whatever ran the payload."""
    host, device = arranged["measured_on_host"], arranged.get("measured_on_device")
    if device is None:
        return f"{host['throughput_mpx_s']:.2f} Mpx/s on this host, peak {host['peak_rss_mib']:.0f} MiB"
    if "emulated" in device:
        return f"{device['device']}, emulated {device['emulated']}"
    speed = f"{device['throughput_mpx_s']:.2f} Mpx/s on {device['device']}"
    tile = f"a tile in {device['tile_median_ms']:.3g} ms, p95 {device['tile_p95_ms']:.3g}"
    return f"{speed}, {tile}, peak {device['peak_memory_mib']:.0f} MiB"


def _metric(report: Mapping[str, Any], key: str) -> str:
    row = next(row for row in report["quality"]["metrics"] if row["key"] == key)
    value = "not computed" if row["value"] is None else f"{row['value']:.4g}"
    return f"{row['name']} {value} {row['unit']}".strip()


def _verdict(check: Mapping[str, Any]) -> str:
    held = "held  " if check["held"] else "FAILED"
    measured = "unknown" if check["measured"] is None else f"{check['measured']:.4g}"
    limit = f"{check['relation']} {check['limit']:.4g} {check['unit']}"
    return f"{held} {check['requirement']:<38} {measured:>9} {limit} ({check['basis']})"
