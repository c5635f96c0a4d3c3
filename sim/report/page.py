"""An arranged report and its pictures -> one HTML page that needs nothing else: styles, script and pictures inside."""

import base64
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from PIL import Image

from sim.design import charts

TEMPLATES = Path(__file__).parents[1] / "design" / "templates"
LONGEST_SIDE_PX = 1800  # larger quicklooks are shrunk: a page should stay within some megabytes
THIN_SPACE = "\u202f"

#: Endings of keys that are units, longest first, and how people write them.
UNITS = {
    "_mpx_s": "Mpx/s", "_mpx": "Mpx", "_percent": "%", "_octets": "octets", "_bits": "bits", "_bps": "bit/s",
    "_mib": "MiB", "_deg": "°", "_db": "dB", "_km": "km", "_mj": "mJ", "_ms": "ms", "_px": "px", "_dn": "DN",
    "_hz": "Hz", "_s": "s", "_m": "m", "_w": "W", "_j": "J", "_c": "°C",
}  # fmt: skip
#: Keys whose words are not the best words.
NAMES = {
    "cr16": "compression ratio against 16 bit", "cr_sensor": "compression ratio against the sensor's bits",
    "bpp": "bits per pixel, all bands", "bpppb": "bits per pixel and band", "octets": "octets downlinked",
    "sensed_at": "sensed at", "gsd_m": "ground sampling distance",
    "bpp_of_the_whole_scene": "bits per pixel of the whole scene", "device_mpx_s": "throughput, networks alone",
    "payload_mpx_s": "throughput, the whole payload",
    "imager_mpx_s": "the imager's rate", "device_realtime_factor": "throughput / the imager's rate",
    "scene_s": "time of this scene", "scene_j": "energy of this scene", "orbit_j": "energy of an orbit's imaging",
    "stages_count": "stages are counted in",
    "pass_mpx": "a pass carries, at this rate", "macs": "multiply-accumulates of the networks",
}  # fmt: skip
ACRONYMS = ("psnr", "ssim", "rmse", "ndvi", "mae", "sam", "cr", "bpp", "bpppb", "crc", "gsd", "crs", "rss", "cpu", "id")


def render_page(report: Mapping[str, Any], pictures: Mapping[str, Path]) -> str:
    """The text of report.html. `report` comes from `sim.report.files.arrange`."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(figure=figure, octets=octets)
    environment.globals["plain_rows"] = plain_rows
    return environment.get_template("downlink.html").render(**_context(report, pictures))


def _context(report: Mapping[str, Any], pictures: Mapping[str, Path]) -> dict[str, Any]:
    host = report["measured_on_host"]
    checks = [_readable(check) for check in [*report["checks"], *host["checks"]]]
    budgets = [*report["budgets"], *host["budgets"]]
    return {
        **report,
        "host": host,
        "all_checks": checks,
        "headline": _headline(report["quality"]["metrics"]),
        "failed": [check["requirement"] for check in checks if not check["held"]],
        "all_budgets": [{**b, "share": _share(b)} for b in budgets],
        "binding": report.get("binding_constraint") or _binding(budgets),
        "provenance": _provenance(report, checks, budgets),
        "maps": _maps(report["tiles"]),
        "plots": _plots(report),
        "pictures": {name: _embed(path, smooth=name != "mask") for name, path in pictures.items()},
        "tile_rows": [_tile_row(tile) for tile in report["tiles"]["list"]],
    }


def figure(value: Any) -> str:
    """A value as people read it: thin spaces between thousands, four significant digits, units are added elsewhere."""
    if value is None:
        return "not computed"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}".replace(",", THIN_SPACE)
    if isinstance(value, float):
        if not math.isfinite(value):
            return "∞" if value > 0 else "−∞" if value < 0 else "not a number"
        text = f"{value:.4g}" if 1e-4 <= abs(value) < 1e5 or value == 0 else f"{value:.3e}"
        return f"{value:,.0f}".replace(",", THIN_SPACE) if 1e4 <= abs(value) < 1e9 else text.replace("-", "−")
    if isinstance(value, list | tuple):
        return ", ".join(figure(inner) for inner in value)
    return str(value)


def octets(value: int) -> str:
    """An amount of octets with its prefix: 1 234 567 -> '1.23 MB'."""
    for scale, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if value >= scale:
            return f"{value / scale:.3g}{THIN_SPACE}{unit}"
    return f"{value}{THIN_SPACE}octets"


def plain_rows(section: Mapping[str, Any], skip: Iterable[str] = ()) -> list[tuple[str, str, str]]:
    """(label, figure, unit) of every plain value of a section; one level of tables inside is flattened."""
    rows = []
    for key, value in section.items():
        if key in skip:
            continue
        if isinstance(value, Mapping):
            rows += [(f"{label(key)[0]}: {name}", text, unit) for name, text, unit in plain_rows(value)]
        elif not isinstance(value, list | tuple) or all(not isinstance(v, Mapping | list | tuple) for v in value):
            name, unit = label(key)
            rows.append((name, "—", "") if value is None else (name, figure(value), unit))
    return rows


def label(key: str) -> tuple[str, str]:
    """'contact_s' -> ('contact', 's'): a key's words and, from its ending, its unit."""
    if key.endswith("_range"):
        words, unit = label(key.removesuffix("_range"))
        return f"{words}, best and worst", unit
    ending = next((ending for ending in UNITS if key.endswith(ending) and key != ending), "")
    spelt = (word.upper() if word in ACRONYMS else word for word in key.removesuffix(ending).split("_"))
    return NAMES.get(key) or " ".join(spelt), UNITS.get(ending, "")


def _readable(check: Mapping[str, Any]) -> dict[str, Any]:
    """A check with its requirement in words: 'min_psnr_10k_db' -> 'PSNR 10k', at least the limit."""
    requirement, relation = str(check["requirement"]), check.get("relation", "<=")
    if requirement.startswith(("min_", "max_")):
        relation = ">=" if requirement.startswith("min_") else "<="
        requirement = label(requirement[4:])[0]
    sign = {">=": "≥", "<=": "≤"}.get(relation, "")
    return {**check, "requirement": requirement, "sign": sign, "cause": check.get("cause") or ""}


def _headline(metrics: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The two figures of quality to show first: the first one, and the first that is of another kind."""
    others = [metric for metric in metrics[1:] if metric["name"].split(",")[0] != metrics[0]["name"].split(",")[0]]
    ssim = [metric for metric in others if metric["name"].startswith("SSIM")]
    return [*metrics[:1], *(ssim or others)[:1]]


def _share(budget: Mapping[str, Any]) -> float | None:
    return budget["used"] / budget["limit"] if budget["limit"] and budget["used"] is not None else None


def _binding(budgets: Sequence[Mapping[str, Any]]) -> str:
    shares = [(share, budget["name"]) for budget in budgets if (share := _share(budget)) is not None]
    if not shares:
        return ""
    share, name = max(shares)
    if share > 1:
        return f"{name}, {share:.3g} times its limit."
    return f"{name}, {share:.1%} of its limit, more than of any other budget."


def _provenance(
    report: Mapping[str, Any], checks: Sequence[Mapping[str, Any]], budgets: Sequence[Mapping[str, Any]]
) -> list[dict[str, str]]:
    """What each figure rests on, weakest ground last; the same quantity once."""
    order = ("measured", "measured on host", "measured on device", "modelled", "published", "assumed")
    budgeted = {f"budget: {budget['name']}" for budget in budgets}  # told once, with the budget
    rows = [
        {"quantity": c["requirement"], "basis": c["basis"], "source": c.get("source") or ""}
        for c in checks
        if c["requirement"] not in budgeted
    ]
    rows += [{"quantity": b["name"], "basis": b["basis"], "source": b.get("source") or ""} for b in budgets]
    rows += [{**row, "source": row.get("source") or ""} for row in report.get("provenance", ())]
    once: dict[str, dict[str, str]] = {}
    for row in rows:
        if row["source"] or row["quantity"] not in once:
            once[row["quantity"]] = row
    return sorted(once.values(), key=lambda row: order.index(row["basis"]))


def _maps(tiles: Mapping[str, Any]) -> list[charts.TileMap]:
    rows, cols, entries = tiles["rows"], tiles["cols"], tiles["list"]
    return [
        charts.kind_map(entries, rows, cols),
        charts.value_map(entries, rows, cols, "octets_received", "Octets received", "octets"),
        charts.value_map(entries, rows, cols, "psnr_db", "PSNR", "dB, peak 10 000"),
        charts.value_map(entries, rows, cols, "cloud_percent", "Cloud", "%"),
    ]


def _plots(report: Mapping[str, Any]) -> dict[str, Any]:
    tiles = report["tiles"]
    area_px = tiles["tile_px"] ** 2
    pictured = [t for t in tiles["list"] if t["psnr_db"] is not None]
    points = [(8 * t["octets_received"] / area_px, t["psnr_db"], f"dot-{t['kind']}") for t in pictured]
    stages, parts = report["measured_on_host"]["stages"], report["rate"].get("parts", ())
    on_device = report.get("measured_on_device", {})
    return {
        "latency": charts.bars([(s["name"], s["seconds"], _stage_text(s)) for s in stages]),
        "device": charts.bars([(s["name"], s["seconds"], _stage_text(s)) for s in on_device.get("stages", ())]),
        "rate": charts.scatter(
            points, "bits per pixel, all bands", "PSNR dB", "PSNR against bits per pixel, one dot a tile"
        ),
        "spread": charts.histogram([x for x, *_ in points], "bits per pixel, all bands", "Tiles by bits per pixel"),
        "loss": charts.loss_strip(report["link"]["loss_profile"], "Packets lost along the stream")
        if report["link"].get("loss_profile")
        else "",
        "parts": charts.bars([(p["name"], p["octets"], f"{figure(p['octets'])} octets") for p in parts]),
    }


def _stage_text(stage: Mapping[str, Any]) -> str:
    text = f"{stage['seconds']:.3g} s"
    if stage.get("median_ms") is not None:
        text += f" · {stage['median_ms']:.3g} ms a tile"
    if stage.get("p95_ms") is not None:
        text += f" (p95 {stage['p95_ms']:.3g})"
    return text


def _tile_row(tile: Mapping[str, Any]) -> list[Any]:
    """What the map's cursor tells of a tile: row, column, kind, octets, cloud per cent, PSNR, cause."""
    psnr_db, cloud = tile["psnr_db"], tile["cloud_percent"]
    return [
        tile["row"], tile["col"], tile["kind"], tile["octets_received"],
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
    picture.save(buffer, "WEBP", lossless=True, quality=40, method=2)
    data = base64.b64encode(buffer.getvalue()).decode("ascii")
    return {"uri": f"data:image/webp;base64,{data}", "width_px": picture.width, "height_px": picture.height}
