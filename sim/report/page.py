"""An arranged report and its pictures -> one HTML page that needs nothing else: styles, script and pictures inside."""

import base64
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from PIL import Image

from sim.design import charts, maps, names
from sim.design.figures import at_most, figure, octets, percent
from sim.design.page import TEMPLATES, render
from sim.spread import Spread

TEMPLATE = TEMPLATES / "downlink.html"
LONGEST_SIDE_PX = 1800  # larger quicklooks are shrunk: a page should stay within some megabytes
NOT_PICTURED = ("withheld", "omitted", "empty", "lost", "refused")
#: (name, value, unit, note, class of the style sheet)
KeyFigure = tuple[str, str, str, str, str]


def render_page(report: Mapping[str, Any], pictures: Mapping[str, Path], spread: Spread) -> str:
    """The text of report.html. `report` comes from `sim.report.files.arrange`."""
    return render(TEMPLATE, _context(report, pictures, spread))


def _context(report: Mapping[str, Any], pictures: Mapping[str, Path], spread: Spread) -> dict[str, Any]:
    host, audit = report["measured_on_host"], report["clouds"].get("audit", {})
    checks = [readable(check) for check in [*report["checks"], *host["checks"]]]
    budgets = [*report["budgets"], *host["budgets"]]
    embedded = spread.map(lambda name: _embed(pictures[name], smooth=name != "mask"), pictures)
    return {
        **report,
        "host": host,
        "all_checks": checks,
        "key_figures": key_figures(report),
        "failed": [check["requirement"] for check in checks if not check["held"]],
        "under_the_verdict": [
            tiles_told(report["tiles"]),
            *flattened_told(report["clouds"]),
            *audit_told(report["clouds"]),
            *_binding(budgets),
        ],
        "all_budgets": [{**b, "share": _share(b)} for b in budgets],
        "rate_rows": names.grouped(report["rate"], names.RATE),
        "link_rows": names.grouped(report["link"], names.LINK, ["loss_profile"]),
        "delivery_rows": _delivery(report.get("delivery")),
        "housekeeping_rows": _housekeeping(report.get("housekeeping", {})),
        "apps_rows": names.grouped(report.get("apps", {}), names.APPS, ["list", "answers", "file"]),
        "aided_rows": names.grouped(report.get("aided", {}), names.AIDED, _AIDED_TOLD),
        "cloud_rows": [*names.grouped(report["clouds"], names.CLOUDS), *names.grouped(audit, names.AUDIT, _TOLD)],
        "notes": report.get("notes", ()),
        "decoder": _decoder(report),
        "maps": _maps(report["tiles"]),
        "plots": _plots(report),
        "pictures": dict(zip(pictures, embedded, strict=True)),
        "tile_rows": [_tile_row(tile) for tile in report["tiles"]["list"]],
    }


def _housekeeping(section: Mapping[str, Any]) -> list[names.Rows]:
    """What the last housekeeping record said, and what the payload remembers; nothing where none arrived."""
    parts = {"": section, "Slots and commands": section.get("memory"), "Guard": section.get("guard")}
    found = {title: part for title, part in parts.items() if part and section.get("records")}
    return [row for title, part in found.items() for row in names.grouped(part, [names.all_of(title, part)])]


def _delivery(delivery: Mapping[str, Any] | None) -> list[names.Rows]:
    """What files took to come down, in all and stream by stream; nothing where the packets went as they are."""
    if not delivery or delivery["mode"] == "raw":
        return []
    streams = delivery.get("streams", {})
    apart = [
        replace(rows, title=f"{name}: {rows.title}")
        for name, stream in streams.items() if len(streams) > 1
        for rows in names.grouped(stream, names.DELIVERY)
    ]  # fmt: skip
    return names.grouped(delivery, names.DELIVERY) + apart


_AIDED_TOLD = ("product", "change_map", "dates", "notes", "list", "metrics")  # in sentences and a table
_TOLD = ("withheld", "tiles")  # of the audit: stand elsewhere on the page


def readable(check: Mapping[str, Any]) -> dict[str, Any]:
    """A check with its requirement in words: 'min_psnr_10k_db' -> 'PSNR, peak 10 000', at least the limit."""
    requirement, relation = str(check["requirement"]), check.get("relation", "<=")
    if requirement.startswith(("min_", "max_")):
        relation = ">=" if requirement.startswith("min_") else "<="
    sign = {">=": "≥", "<=": "≤"}.get(relation, "")
    words = names.requirement(requirement)
    if not check.get("judged", True):
        words += " (not judged)"
    return {**check, "requirement": words, "sign": sign, "cause": check.get("cause") or ""}


def tiles_told(tiles: Mapping[str, Any]) -> str:
    """How many tiles came down, and what is wrong with how many: one sentence."""
    parts = [f"{tiles['coded'] + tiles['fallback']} of {tiles['total']} tiles came down"]
    if tiles["incomplete"]:
        parts.append(f"{tiles['incomplete']} of them incomplete, cut short on the link")
    parts += [f"{tiles[kind]} {kind}" for kind in NOT_PICTURED if tiles[kind]]
    return f"{'; '.join(parts)}."


def flattened_told(clouds: Mapping[str, Any]) -> list[str]:
    """How much of what came down is closed cloud without its detail: nothing where nothing is."""
    percent = clouds.get("flattened_percent")
    if not percent:
        return []
    return [f"{percent:.1f} % of what came down is closed cloud, sent flattened: no figure of quality counts it."]


def audit_told(clouds: Mapping[str, Any]) -> list[str]:
    """What the audit says of the tiles that the gate withheld: nothing where none was withheld."""
    audit = clouds.get("audit")
    if not audit or not audit["withheld"]:
        return []
    if not audit["audited"]:
        return [f"None of the {audit['withheld']} withheld tiles was audited: false discards are unknown."]
    found = "1 false discard" if audit["false_discards"] == 1 else f"{audit['false_discards']} false discards"
    bound, destroyed = at_most(audit["upper_one_sided"]), at_most(audit["destroyed_share_of_all_tiles"])
    counted = f"{audit['audited']} of {audit['withheld']} withheld tiles audited: {found}"
    if not audit.get("judged_by_persons"):
        return [f"{counted}, judged by a rule: no bound from above until a person has looked at the thumbnails."]
    return [f"{counted}; at 95 % confidence {bound} of withheld tiles, {destroyed} of all tiles, were good data."]


def key_figures(report: Mapping[str, Any]) -> list[KeyFigure]:
    """The row of large figures under the verdict."""
    rate, scene = report["rate"], report["inputs"]["scene"]
    sensor = f"against 16 bit; {figure(rate['cr_sensor'])} against {scene['bits']} bit"
    rows: list[KeyFigure] = [
        ("Downlinked", octets(rate["octets"]), "", f"{figure(rate['octets'])} octets, all of them", ""),
        ("Compression", figure(rate["cr16"]), ": 1", sensor, ""),
        ("Rate", figure(rate["bpp"]), "bpp", f"{figure(rate['bpppb'])} per band", ""),
    ]
    quality = _first_two_kinds(report["quality"]["metrics"])
    rows += [(m["name"], figure(m["value"]), m["unit"], m["convention"], "") for m in quality]
    return [*rows, _tiles_figure(report["tiles"]), *_audit_figure(report["clouds"].get("audit"))]


def _tiles_figure(tiles: Mapping[str, Any]) -> KeyFigure:
    gone, cut = tiles["lost"] + tiles["refused"], tiles["incomplete"]
    whole = tiles["coded"] + tiles["fallback"] - cut
    note = f"{cut} incomplete, {gone} lost or refused, {tiles['withheld']} withheld"
    css = "bad" if gone else "warn" if cut else ""
    return ("Tiles whole", figure(whole), f"of {figure(tiles['total'])}", note, css)


def _audit_figure(audit: Mapping[str, Any] | None) -> list[KeyFigure]:
    if not audit or not audit["withheld"]:
        return []
    if not audit["audited"]:
        return [("False discards", "unknown", "", f"none of {audit['withheld']} withheld tiles was audited", "warn")]
    if not audit.get("judged_by_persons"):
        css = "bad" if audit["false_discards"] else ""
        note = "judged by a rule: no bound from above"
        return [("False discards", figure(audit["false_discards"]), f"of {audit['audited']} audited", note, css)]
    note = f"{at_most(audit['upper_one_sided'])} of {audit['withheld']} withheld tiles, at 95 % confidence"
    css = "bad" if audit["false_discards"] else ""
    return [("False discards", figure(audit["false_discards"]), f"of {audit['audited']} audited", note, css)]


def _first_two_kinds(metrics: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The two figures of quality to show first: the first one, and the first that is of another kind."""
    others = [metric for metric in metrics[1:] if metric["name"].split(",")[0] != metrics[0]["name"].split(",")[0]]
    ssim = [metric for metric in others if metric["name"].startswith("SSIM")]
    return [*metrics[:1], *(ssim or others)[:1]]


def _share(budget: Mapping[str, Any]) -> float | None:
    return budget["used"] / budget["limit"] if budget["limit"] and budget["used"] is not None else None


def _binding(budgets: Sequence[Mapping[str, Any]]) -> list[str]:
    shares = [(share, budget["name"]) for budget in budgets if (share := _share(budget)) is not None]
    if not shares:
        return []
    share, name = max(shares)
    if share > 1:
        return [f"Binding constraint: {name}, {share:.3g} times its limit."]
    return [f"Binding constraint: {name}, {percent(share)} of its limit, more than of any other budget."]


def _decoder(report: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Size and speed of the ground's decoder network, where the report has them."""
    size, speed = report.get("decoder", {}), report["measured_on_host"].get("decoder_mpx_s")
    rows = names.plain_rows(size)
    return [*rows, names.row("decoder_mpx_s", speed)] if size and speed else rows


def _maps(tiles: Mapping[str, Any]) -> list[maps.TileMap]:
    rows, cols, entries = tiles["rows"], tiles["cols"], tiles["list"]
    values = [("octets_sent", "Octets sent", "octets"), ("octets_received", "Octets received", "octets")]
    values += [("psnr_db", "PSNR", "dB, peak 10 000"), ("cloud_percent", "Cloud", "%")]
    shown = [maps.value_map(entries, rows, cols, key, title, unit) for key, title, unit in values]
    return [maps.kind_map(entries, rows, cols), *shown]


def _plots(report: Mapping[str, Any]) -> dict[str, Any]:
    tiles = report["tiles"]
    area_px = tiles["tile_px"] ** 2
    pictured = [t for t in tiles["list"] if t["psnr_db"] is not None]
    points = [(8 * t["octets_received"] / area_px, t["psnr_db"], f"dot-{maps.shown_kind(t)}") for t in pictured]
    stages, on_device = report["measured_on_host"]["stages"], report.get("measured_on_device", {})
    across = "bits per pixel, all bands"
    loss = report["link"].get("loss_profile")
    return {
        "latency": charts.bars([(s["name"], s["seconds"], _stage_text(s)) for s in stages]),
        "device": charts.bars([(s["name"], s["seconds"], _stage_text(s)) for s in on_device.get("stages", ())]),
        "rate": charts.scatter(points, across, "PSNR, dB", "PSNR against bits per pixel, one dot a tile"),
        "spread": charts.histogram([x for x, *_ in points], across, "Tiles by bits per pixel"),
        "loss": charts.loss_strip(loss, "Packets lost along the stream") if loss and any(loss) else "",
    }


def _stage_text(stage: Mapping[str, Any]) -> str:
    text = f"{stage['seconds']:.3g} s"
    if stage.get("median_ms") is not None:
        text += f" · {stage['median_ms']:.3g} ms a tile"
    if stage.get("p95_ms") is not None:
        text += f" (p95 {stage['p95_ms']:.3g})"
    return text


def _tile_row(tile: Mapping[str, Any]) -> list[Any]:
    """What the map's cursor tells of a tile: row, column, kind, octets received and sent, cloud %, PSNR, cause."""
    psnr_db, cloud = tile["psnr_db"], tile["cloud_percent"]
    return [
        tile["row"], tile["col"], maps.shown_kind(tile), tile["octets_received"], tile["octets_sent"],
        None if cloud is None else round(float(cloud), 1),
        None if psnr_db is None else "∞" if math.isinf(psnr_db) else round(float(psnr_db), 2),
        tile.get("cause") or "",
    ]  # fmt: skip


def _embed(path: Path, smooth: bool) -> dict[str, Any]:
    """A quicklook as a data URI, shrunk to LONGEST_SIDE_PX, without loss beyond that."""
    with Image.open(path) as opened:
        picture = opened.convert("RGB") if opened.mode not in ("RGB", "L", "RGBA") else opened.copy()
    scale = max(picture.size) / LONGEST_SIDE_PX
    if scale > 1:
        size = (round(picture.width / scale), round(picture.height / scale))
        picture = picture.resize(size, Image.Resampling.LANCZOS if smooth else Image.Resampling.NEAREST)
    buffer = io.BytesIO()
    picture.save(buffer, "WEBP", lossless=True, quality=20, method=1)
    data = base64.b64encode(buffer.getvalue()).decode("ascii")
    return {"uri": f"data:image/webp;base64,{data}", "width_px": picture.width, "height_px": picture.height}
