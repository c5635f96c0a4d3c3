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
    cut = f", {tiles['incomplete']} of them incomplete" if tiles["incomplete"] else ""
    lines = [
        f"scene    {scene['name']}, {scene['width_px']} x {scene['height_px']} px",
        f"mission  {inputs['mission']['name']}, bundle {bundle['name']} {bundle['id']}, seed {inputs['seed']}",
        f"tiles    {counted} = {tiles['total']}{cut}",
        f"rate     {rate['octets']} octets, CR {rate['cr16']:.1f} against 16 bit, {rate['bpp']:.3f} bit/px",
        "quality  " + ", ".join(_metric(report, key) for key in SHOWN),
        f"on board {_on_board(arranged)}",
        f"         {_ran(report)}",
        *_audit(report["clouds"].get("audit", {})),
        *(f"note     {note}" for note in report.get("notes", ())),
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
        speed = f"{host['throughput_mpx_s']:.2f} Mpx/s on this host with gate and packets{_apart(host)}"
        before, ground = host["peak_rss_before_payload_mib"], host["peak_rss_with_ground_mib"]
        memory = f"peak {host['peak_rss_mib']:.0f} MiB ({before:.0f} before the payload, {ground:.0f} with the ground)"
        return f"{speed}, {memory}"
    if "emulated" in device:
        return f"{device['device']}, emulated {device['emulated']}"
    speed = f"{device['throughput_mpx_s']:.2f} Mpx/s on {device['device']}"
    tile = f"a tile in {device['tile_median_ms']:.3g} ms, p95 {device['tile_p95_ms']:.3g}"
    return f"{speed}, {tile}, peak {device['peak_memory_mib']:.0f} MiB"


def _apart(host: Mapping[str, Any]) -> str:
    """Coded and withheld tiles apart, and the gate's share, where tiles went through a gate."""
    if "gate_share_percent" not in host:
        return ""
    told = [
        f"{host[f'{kind}_tiles_mpx_s']:.3g} {kind}" for kind in ("coded", "withheld") if f"{kind}_tiles_mpx_s" in host
    ]
    return f" ({', '.join(told)} tiles; the gate takes {host['gate_share_percent']:.0f} %)"


def _ran(report: Mapping[str, Any]) -> str:
    engine, host = report["inputs"]["engine"], report["measured_on_host"]
    named = f"{engine['name']} {engine['version']}" if isinstance(engine, Mapping) else str(engine)
    return f"{named}, kernel: {host.get('kernel', 'unknown')}, {host.get('instruction_set', 'unknown')}"


def _audit(audit: Mapping[str, Any]) -> list[str]:
    """What the audit found of the withheld tiles; nothing where none was withheld."""
    if not audit.get("withheld"):
        return []
    found = (
        f"audit    {audit['false_discards']} false discards among {audit['audited']} of {audit['withheld']} withheld"
    )
    if not audit["judged_by_persons"]:
        return [f"{found}; judged by a rule: at least {audit['lower']:.1%}, no bound from above"]
    return [f"{found}; at least {audit['lower']:.1%}, at most {audit['upper_one_sided']:.1%} of them (95 %)"]


def _metric(report: Mapping[str, Any], key: str) -> str:
    row = next(row for row in report["quality"]["metrics"] if row["key"] == key)
    value = "not computed" if row["value"] is None else f"{row['value']:.4g}"
    return f"{row['name']} {value} {row['unit']}".strip()


def _verdict(check: Mapping[str, Any]) -> str:
    held = "held      " if check["held"] else "FAILED    " if check.get("judged", True) else "not judged"
    measured = "unknown" if check["measured"] is None else f"{check['measured']:.4g}"
    limit = f"{check['relation']} {check['limit']:.4g} {check['unit']}"
    return f"{held} {check['requirement']:<38} {measured:>9} {limit} ({check['basis']})"
