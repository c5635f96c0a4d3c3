"""A report -> the few lines a terminal shows: the page's headline, what ran, and every requirement."""

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from sim.design.figures import THIN_SPACE, figure, octets
from sim.report.files import TILE_KINDS, arrange
from sim.report.housekeeping import in_a_line
from sim.report.page import audit_told, readable

SHOWN = ("psnr_10k_db", "ssim_10k", "ndvi_mae", "sam_deg")


def as_text(report: Mapping[str, Any], out: Path) -> str:
    """What was sent, what it costs, what it looks like, and which requirements held."""
    arranged = arrange(report)
    checks = [readable(check) for check in [*arranged["checks"], *arranged["measured_on_host"]["checks"]]]
    lines = [*_headline(checks), *_facts(report, arranged), "", *(_verdict(check) for check in checks)]
    return "\n".join([*lines, "", f"report   {out / 'report.html'}", ""]).replace(THIN_SPACE, " ")


def _headline(checks: list[dict[str, Any]]) -> Iterator[str]:
    failed = [check["requirement"] for check in checks if not check["held"]]
    if failed:
        yield f"FAILED   {len(failed)} of {len(checks)} requirements: {'; '.join(failed)}"
    else:
        yield f"held     all {len(checks)} requirements"


def _facts(report: Mapping[str, Any], arranged: Mapping[str, Any]) -> Iterator[str]:
    inputs, rate = report["inputs"], report["rate"]
    scene, bundle = inputs["scene"], inputs["bundle"]
    signed = f" ({bundle['signature']})" if "signature" in bundle else ""
    yield f"scene    {scene['name']}, {scene['width_px']} x {scene['height_px']} px"
    yield f"mission  {inputs['mission']['name']}, bundle {bundle['name']} {bundle['id']}{signed}, seed {inputs['seed']}"
    yield f"tiles    {_tiles(report['tiles'])}"
    for line in audit_told(report["clouds"]):
        yield f"audit    {line}"
    if "octets_on_air" in report["link"]:
        yield f"on air   {_on_air(report['link'])}"
    yield f"rate     {octets(rate['octets'])}, CR {rate['cr16']:.1f} against 16 bit, {rate['bpp']:.3f} bit/px"
    if (bound := report.get("bound")) is not None:
        largest = "nothing" if bound["largest_error_dn"] is None else f"{bound['largest_error_dn']} DN"
        yield f"bound    {largest} off at most, {bound['asked_dn']} DN asked, {bound['bits_per_sample']:.3f} bit/sample"
    yield from _answers(report.get("apps"))
    yield from _delivery(report.get("delivery", {}))
    yield "quality  " + "; ".join(_metric(report, key) for key in SHOWN) + _flattened(report["clouds"])
    yield from _aided(report.get("aided"))
    yield f"on board {_on_board(arranged)}"
    if (guard := in_a_line(report.get("housekeeping", {}))) is not None:
        yield f"guard    {guard}"
    yield f"ran      {_ran(inputs['engine'])}, {_host(arranged['measured_on_host'])}"
    for note in report.get("notes", ()):
        yield f"note     {note}"


LAYERS = ("payload", "packet", "delivery", "frame", "idle", "parity", "sync_marker", "convolutional")


def _on_air(link: Mapping[str, Any]) -> str:
    """Every octet on the air, by the layer that added it."""
    layers = [(name.replace("_", " "), link.get(f"layer_{name}_octets", 0)) for name in LAYERS]
    told = ", ".join(f"{name} {count:,}" for name, count in layers if count)
    return f"{link['octets_on_air']:,} octets: {told}"


def _answers(apps: Mapping[str, Any] | None) -> Iterator[str]:
    """What the applications on board said; nothing where none flew."""
    if apps is None:
        return
    here = f"{apps['answers_received']} of {apps['answers_made']} answers of applications here, {apps['alerts']} alerts"
    first = apps["first_alert_s"]
    after = f", the first after {figure(first)} s" if first is not None else ""
    yield f"answers  {here}{after}; {octets(apps['answer_packet_octets'])} in {apps['copies']} copies"
    for app in apps["list"]:
        rate = app["false_alarm_percent"]
        wrong = "unknown" if rate is None else f"{figure(rate)} %"
        cut = f", CUT OFF ({app['cut_off']})" if app["cut_off"] else ""
        yield f"         {app['name']}: {app['alerts']} alerts; false alarms {wrong}, {app['false_alarms_of']}{cut}"


def _delivery(delivery: Mapping[str, Any]) -> Iterator[str]:
    """What a file took to come down; nothing where the packets went as they are."""
    if delivery.get("mode", "raw") == "raw":
        return
    whole = "complete" if delivery["complete"] else "NOT complete"
    held = f"{figure(delivery['held_octets'])} of {figure(delivery['file_octets'])} octets"
    time = f"{figure(delivery['in_contact_s'])} s in contact, passes: {delivery['passes_used']}"
    yield f"delivery {delivery['mode']}: {whole}, {held}; {time}"
    if delivery["mode"] == "by stream":
        yield "         " + "; ".join(_stream(name, stream) for name, stream in delivery["streams"].items())
    again, repair, up = (octets(delivery[f"{key}_octets"]) for key in ("sent_again", "sent_repair", "uplink"))
    yield f"         sent again {again}, repair {repair}; {delivery['nak_rounds']} rounds of NAKs, {up} up"


def _stream(name: str, stream: Mapping[str, Any]) -> str:
    held = f"{figure(stream['held_octets'])} of {figure(stream['file_octets'])} octets"
    return f"{name} {stream['mode']}, {held}"


def _tiles(tiles: Mapping[str, Any]) -> str:
    counted = ", ".join(f"{tiles[kind]} {kind}" for kind in TILE_KINDS if tiles[kind])
    cut = f"; {tiles['incomplete']} incomplete, cut short on the link" if tiles["incomplete"] else ""
    return f"{counted} = {tiles['total']}{cut}"


def _aided(section: Mapping[str, Any] | None) -> Iterator[str]:
    """The figures of the archive-aided product, with how far they are from the plain one's."""
    if section is None:
        return
    rows = {row["key"]: row for row in section["metrics"]}
    told = [
        f"{row['name']} {figure(row['aided'])} ({row['aided'] - row['plain']:+.3g})"
        for row in (rows[key] for key in SHOWN if key in rows)
        if row["plain"] is not None and row["aided"] is not None and math.isfinite(row["aided"] - row["plain"])
    ]
    yield f"aided    {section['product']}, {section['tiles_refined']} tiles by {len(section['dates'])} dates"
    yield f"         {'; '.join(told) or 'no figures'}"
    yield from (f"         {note}" for note in section["notes"])


def _ran(engine: Any) -> str:
    """The engine with its version, and whatever else the report says of what ran."""
    if isinstance(engine, str):
        return engine
    further = [f"{key.replace('_', ' ')} {figure(value)}" for key, value in engine.items() if key not in _NAMED]
    return ", ".join([f"{engine['name']} {engine['version'].split('-')[0]}", *further])


_NAMED = ("name", "version")


def _host(host: Mapping[str, Any]) -> str:
    return f"kernel: {host.get('kernel', 'unknown')}, {host.get('instruction_set', 'unknown')}"


def _on_board(arranged: Mapping[str, Any]) -> str:
    """Speed and memory of whatever ran the payload."""
    host, device = arranged["measured_on_host"], arranged.get("measured_on_device")
    if device is None:
        speed = f"{host['throughput_mpx_s']:.2f} Mpx/s on this host with gate and packets{_apart(host)}"
        return f"{speed}, {_memory(host)}"
    if "emulated" in device:
        return f"{device['device']}, emulated {device['emulated']}"
    speed = f"{device['throughput_mpx_s']:.2f} Mpx/s on {device['device']}"
    tile = f"a tile in {device['tile_median_ms']:.3g} ms, p95 {device['tile_p95_ms']:.3g}"
    return f"{speed}, {tile}, peak {device['peak_memory_mib']:.0f} MiB"


def _memory(host: Mapping[str, Any]) -> str:
    peak = f"peak {host['peak_rss_mib']:.0f} MiB"
    if "peak_rss_before_payload_mib" not in host:
        return peak
    before, ground = host["peak_rss_before_payload_mib"], host["peak_rss_with_ground_mib"]
    return f"{peak} ({before:.0f} before the payload, {ground:.0f} with the ground)"


def _apart(host: Mapping[str, Any]) -> str:
    """Coded and withheld tiles apart, and the gate's share, where tiles went through a gate."""
    if "gate_share_percent" not in host:
        return ""
    told = [
        f"{host[f'{kind}_tiles_mpx_s']:.3g} {kind}" for kind in ("coded", "withheld") if f"{kind}_tiles_mpx_s" in host
    ]
    return f" ({', '.join(told)} tiles; the gate takes {host['gate_share_percent']:.0f} %)"


def _flattened(clouds: Mapping[str, Any]) -> str:
    percent = clouds.get("flattened_percent")
    return f"; without {percent:.1f} % closed cloud, sent flattened" if percent else ""


def _metric(report: Mapping[str, Any], key: str) -> str:
    row = next(row for row in report["quality"]["metrics"] if row["key"] == key)
    none = row["value"] is None or math.isnan(row["value"])  # these bands do not have it
    value = "-" if none else f"{figure(row['value'])} {row['unit']}"
    return f"{row['name']} {value}".strip()


def _verdict(check: Mapping[str, Any]) -> str:
    held = "held      " if check["held"] else "FAILED    " if check.get("judged", True) else "not judged"
    limit = f"{check['sign']} {figure(check['limit'])} {check['unit']}".strip()
    return f"{held} {check['requirement']:<38} {figure(check['measured'], 'unknown'):>9} {limit} ({check['basis']})"
