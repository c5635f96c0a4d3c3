"""The page of `sim evaluate-clouds`: tables, a reliability diagram, and where network and reference differ most."""

import base64
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from payload.clouds.mask import SHADOW, THICK, THIN
from sim.clouds.evaluate import LEAST_KNOWN, Material
from sim.clouds.figures import CLOUDY_TILE, cloudy_tile
from sim.clouds.human import EVERY_CHIP, JudgedChip
from sim.clouds.judged import OURS, Judged
from sim.clouds.outline import is_cloud
from sim.clouds.samples import FIRM
from sim.design import page
from sim.design.charts import Axis, Plot, Svg
from sim.design.figures import at_most, fixed, percent

ATTRIBUTION = "Contains modified Copernicus Sentinel data. Scene classification: Sen2Cor (ESA)."
#: Colours of an overlay: thick cloud, thin cloud, shadow, cloud of the reference, the outline people drew.
THICK_RGB, THIN_RGB, SHADOW_RGB, REFERENCE_RGB = (230, 60, 50), (240, 170, 40), (150, 90, 220), (60, 120, 230)
PEOPLE_RGB = (90, 240, 255)
SHOWN = 24


def write_page(result: dict[str, Any], material: Material, out: Path) -> tuple[Path, Path]:
    """out/clouds.json and out/clouds.html; both are rendered before either is written."""
    out.mkdir(parents=True, exist_ok=True)
    texts = {
        "clouds.json": json.dumps(result, indent=1, sort_keys=True) + "\n",
        "clouds.html": render(result, material),
    }
    for name, text in texts.items():
        (out / name).write_text(text, encoding="utf-8", newline="\n")
    return out / "clouds.json", out / "clouds.html"


def render(result: dict[str, Any], material: Material) -> str:
    """The page as HTML, every picture inside it."""
    rows = [_check(check) for check in result["checks"]]
    return page.render(
        page.TEMPLATES / "clouds.html",
        {
            "result": result,
            "checks": rows,
            "failed": [row["requirement"] for row in rows if not row["held"]],
            "key_figures": _key_figures(result),
            "diagrams": {"reliability": reliability(result["reliability"]["bins"]), "tiles": tiles(result["tile_map"])},
            "labelled": [site for site in result["sites"] if "pixel_iou" in site],
            "unlabelled": [site for site in result["sites"] if "pixel_iou" not in site],
            "gallery": gallery(material.judged),
            "chips": [_chip(chip) for chip in material.chips],
            "people": _by_picture(result["human"]),
            "attribution": ATTRIBUTION,
        },
    )


def _check(check: dict[str, Any]) -> dict[str, Any]:
    """A bar as the page's table of requirements wants it."""
    timed = check["requirement"].startswith(("megapixels", "time"))
    sign = {">=": "≥", "<=": "≤"}[check["relation"]]
    basis = "measured on host" if timed else "measured"
    return {**check, "sign": sign, "unit": "", "basis": basis, "cause": ""}


def _by_picture(rows: Sequence[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Rows of the chips that people drew, by picture; all of a source first, and alone where it has but one."""
    chips = {source: len({r["chip"] for r in rows if r["source"] == source}) for source in {r["source"] for r in rows}}
    found: dict[str, list[dict[str, Any]]] = {}
    for row in sorted(rows, key=lambda row: (row["source"], row["chip"] != EVERY_CHIP, row["chip"])):
        if row["chip"] == EVERY_CHIP:
            found.setdefault(f"{row['source']}, {EVERY_CHIP}", []).append(row)
        elif chips[row["source"]] > 2:
            found.setdefault(row["chip"], []).append(row)
    return found


def _key_figures(result: dict[str, Any]) -> list[tuple[str, str, str, str, str]]:
    ours, pixels = result["tiles"][FIRM][OURS], result["pixels"][FIRM][OURS]
    host = result["measured_on_host"]
    discards = f"{ours['discarded_falsely']} of {ours['clear_tiles']} clear tiles"
    bound = at_most(ours["interval"][1]) if ours["interval"] else "no clear tile"
    return [
        ("Tile accuracy", percent(ours["accuracy"]), "", f"{ours['tiles']} tiles of left-out sites", ""),
        ("False discards", percent(ours["false_discards"], "unknown"), "", f"{discards}; {bound} at 95 %", ""),
        ("Pixel IoU of cloud", fixed(pixels["iou"], 3), "", "against Sen2Cor, firm reading", ""),
        ("Speed", f"{host['megapixels_per_s']:.0f}", "Mpx/s", "DN to mask, one core; measured on this host", ""),
    ]


def reliability(bins: Sequence[dict[str, float]]) -> Svg:
    """Said against seen; the area of a dot grows with the cells in its bin."""
    whole = Axis(0, 1)
    plot = Plot(whole, whole, "probability of cloud said", "share seen to be cloud", 300)
    plot.line([(0, 0), (1, 1)], "even")
    most = max((b["cells"] for b in bins), default=1)
    for b in bins:
        told = f"said {b['said']:.2f}, seen {b['seen']:.2f}, {b['cells']} pixels"
        plot.dot(b["said"], b["seen"], radius=3 + 9 * (b["cells"] / most) ** 0.5, title=told)
    return plot.svg("Reliability: probability said against share seen")


def tiles(verdicts: Sequence[Sequence[float]]) -> Svg:
    """Every labelled tile: cloud by the reference across, cloud the gate is sure of upwards; above 70 % is cloudy.

    Tiles that are judged right are dots, the wrong ones crosses.
    """
    share = Axis(0, 100)
    plot = Plot(share, share, "cloud by the reference, %", "cloud the gate is sure of, %", 300)
    plot.rule_at_x(100 * CLOUDY_TILE)
    plot.rule_at_y(100 * CLOUDY_TILE, "cloudy above")
    for wanted, sure in verdicts:
        if (wanted > CLOUDY_TILE) == (sure > CLOUDY_TILE):
            plot.dot(100 * wanted, 100 * sure, radius=2.4)
        else:
            plot.cross(100 * wanted, 100 * sure, "s0" if sure > CLOUDY_TILE else "s5")
    return plot.svg("Cloud the gate is sure of against cloud by the reference, tile by tile")


def gallery(judged: Sequence[Judged]) -> list[dict[str, str]]:
    """Tiles wrongly thrown away, tiles on whose cloud network and reference disagree most, then some of the rest."""
    lost = [i for i, j in enumerate(judged) if _lost(j)]
    order = np.argsort([_gap(j) for j in judged])[::-1]
    calm = order[len(order) // 3 :: max(1, len(order) // SHOWN)]
    chosen = dict.fromkeys(int(i) for i in [*lost[: SHOWN // 3], *order[: SHOWN // 3], *calm[: SHOWN // 3]])
    shown = [judged[i] for i in chosen]
    return [{"name": j.sample.name, "text": _caption(j), "picture": _picture(j)} for j in shown]


def _lost(judged: Judged) -> bool:
    cloud, known = judged.sample.reference()
    clear = known.mean() > LEAST_KNOWN and not cloudy_tile(cloud, known)
    return clear and judged.mask.sure_fraction > CLOUDY_TILE


def _gap(judged: Judged) -> float:
    cloud, known = judged.sample.reference()
    return float((judged.found[OURS] ^ cloud)[known].mean()) if known.any() else 0.0


def _caption(judged: Judged) -> str:
    cloud, known = judged.sample.reference()
    if not known.any():
        return "no reference"
    reference = "clear by eye" if judged.sample.scl is None else f"reference {100 * cloud[known].mean():.0f} %"
    shares = is_cloud(judged.classes).mean(), (judged.classes == THIN).mean(), judged.mask.sure_fraction
    ours, thin, sure = (100 * share for share in shares)
    return f"ours {ours:.0f} % ({thin:.0f} % thin, {sure:.0f} % sure), {reference}"


def _picture(judged: Judged) -> str:
    """Three panels side by side: colours, ours, reference. PNG as a data address."""
    colours = natural_colours(judged.sample.dn)
    reference = overlay(colours, judged.sample.reference()[0], REFERENCE_RGB)
    return png_address(np.concatenate([colours, _tinted(colours, judged.classes), reference], axis=1))


def _chip(judged: JudgedChip) -> dict[str, str]:
    """Two panels: colours; ours tinted, with the outline that people drew. JPEG as a data address."""
    colours = natural_colours(judged.chip.dn)
    ours = _tinted(colours, judged.picture.classes)
    ours[_outline(judged.chip.cloud)] = PEOPLE_RGB
    found = judged.cloud[OURS]
    agreed = (found & judged.chip.cloud).sum() / max(1, (found | judged.chip.cloud).sum())
    text = f"ours {100 * found.mean():.0f} % cloud, people {100 * judged.chip.cloud.mean():.0f} %, IoU {agreed:.3f}"
    picture = _address(np.concatenate([colours, ours], axis=1), "JPEG", quality=88)
    return {"name": judged.chip.name, "text": text, "picture": picture}


def _tinted(colours: NDArray[np.uint8], classes: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A copy with thick cloud, thin cloud and shadow tinted. [H, W, 3]"""
    for kind, rgb in ((THICK, THICK_RGB), (THIN, THIN_RGB), (SHADOW, SHADOW_RGB)):
        colours = overlay(colours, classes == kind, rgb)
    return colours


def _outline(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Set pixels that touch one that is not."""
    wide = np.pad(mask, 1, mode="edge")
    inner = wide[:-2, 1:-1] & wide[2:, 1:-1] & wide[1:-1, :-2] & wide[1:-1, 2:]
    return mask & ~inner


def natural_colours(dn: NDArray[np.uint16]) -> NDArray[np.uint8]:
    """Red, green, blue with the square root as the tone curve, full scale at DN 10 000. [H, W, 3]"""
    return (np.sqrt(np.minimum(dn[[2, 1, 0]], 10_000) / 10_000.0) * 255.0).astype(np.uint8).transpose(1, 2, 0)


def overlay(picture: NDArray[np.uint8], mask: NDArray[np.bool_], rgb: tuple[int, int, int]) -> NDArray[np.uint8]:
    painted = picture.copy()
    painted[mask] = (0.55 * picture[mask] + 0.45 * np.array(rgb)).astype(np.uint8)
    return painted


def png_address(picture: NDArray[np.uint8]) -> str:
    return _address(picture, "PNG", optimize=True)


def _address(picture: NDArray[np.uint8], kind: str, quality: int = 75, optimize: bool = False) -> str:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, format=kind, quality=quality, optimize=optimize)
    return f"data:image/{kind.lower()};base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
