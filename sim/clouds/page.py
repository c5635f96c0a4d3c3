"""The page of `sim evaluate-clouds`: tables, a reliability diagram, and where network and reference differ most."""

import base64
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray
from PIL import Image

from payload.clouds.mask import SHADOW, THICK, THIN
from sim.clouds.evaluate import LEAST_KNOWN, Material
from sim.clouds.figures import CLOUDY_TILE, cloudy_tile
from sim.clouds.human import JudgedChip
from sim.clouds.judged import OURS, Judged

TEMPLATES = Path(__file__).parents[1] / "design" / "templates"
ATTRIBUTION = "Contains modified Copernicus Sentinel data. Scene classification: Sen2Cor (ESA)."
#: Colours of an overlay: thick cloud, thin cloud, shadow, cloud of the reference, the outline people drew.
THICK_RGB, THIN_RGB, SHADOW_RGB, REFERENCE_RGB = (230, 60, 50), (240, 170, 40), (150, 90, 220), (60, 120, 230)
PEOPLE_RGB = (90, 240, 255)
#: Where the axes of a diagram have numbers.
TICKS = (0.0, 0.25, 0.5, 0.75, 1.0)
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
    loader = jinja2.FileSystemLoader(TEMPLATES)
    environment = jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined)
    environment.filters["figure"] = _figure
    diagrams = {
        "reliability": reliability_svg(result["reliability"]["bins"]),
        "tiles": tile_map_svg(result["tile_map"]),
    }
    template = environment.get_template("clouds.html")
    pictures = {"tiles": gallery(material.judged), "chips": [_chip(c) for c in material.chips]}
    return template.render(result=result, diagrams=diagrams, attribution=ATTRIBUTION, **pictures)


def _figure(value: Any, percent: bool = False) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{100 * value:.1f} %" if percent else f"{value:.3f}" if isinstance(value, float) else str(value)


def reliability_svg(bins: Sequence[dict[str, float]], size: int = 260) -> Markup:
    """Said against seen; the area of a dot grows with the cells in its bin."""
    most = max((b["cells"] for b in bins), default=1)
    dots = "".join(
        f'<circle cx="{30 + b["said"] * size:.1f}" cy="{10 + (1 - b["seen"]) * size:.1f}" '
        f'r="{3 + 9 * (b["cells"] / most) ** 0.5:.1f}"><title>said {b["said"]:.2f}, seen {b["seen"]:.2f}, '
        f"{b['cells']} pixels</title></circle>"
        for b in bins
    )
    far, middle = size + 30, 10 + size / 2
    numbers = "".join(_axis_numbers(tick, size) for tick in TICKS)
    frame = f'<rect x="30" y="10" width="{size}" height="{size}"/><line x1="30" y1="{size + 10}" x2="{far}" y2="10"/>'
    words = (
        f'<text x="{20 + middle}" y="{size + 42}" text-anchor="middle">probability of cloud said</text>'
        f'<text x="-8" y="{middle}" text-anchor="middle" transform="rotate(-90 -8 {middle})">share seen</text>'
    )
    view = f"-22 0 {size + 72} {size + 50}"
    return Markup(f'<svg viewBox="{view}" class="reliability" role="img">{frame}{dots}{numbers}{words}</svg>')


def _axis_numbers(tick: float, size: int) -> str:
    x, y = 30 + tick * size, 10 + (1 - tick) * size
    return (
        f'<text x="{x:.1f}" y="{size + 26}" text-anchor="middle">{tick:g}</text>'
        f'<text x="26" y="{y + 4:.1f}" text-anchor="end">{tick:g}</text>'
    )


def tile_map_svg(tiles: Sequence[Sequence[float]], size: int = 260) -> Markup:
    """Every labelled tile: cloud by the reference across, cloud the gate is sure of upwards; what lies above 70 % goes.

    Tiles that are rightly sent or withheld are dots, the wrong ones crosses.
    """
    far, line = size + 30, CLOUDY_TILE * size
    marks = []
    for wanted, sure in tiles:
        x, y = 30 + wanted * size, 10 + (1.0 - sure) * size
        if (wanted > CLOUDY_TILE) == (sure > CLOUDY_TILE):
            marks.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.5"/>')
        else:
            kind = "lost" if sure > CLOUDY_TILE else "kept"
            marks.append(f'<path class="{kind}" d="M{x - 4:.1f} {y - 4:.1f}l8 8m0 -8l-8 8"/>')
    frame = f'<rect x="30" y="10" width="{size}" height="{size}"/>'
    lines = (
        f'<line x1="{30 + line}" y1="10" x2="{30 + line}" y2="{size + 10}"/>'
        f'<line x1="30" y1="{10 + size - line}" x2="{far}" y2="{10 + size - line}"/>'
    )
    words = (
        f'<text x="{30 + size / 2}" y="{size + 34}" text-anchor="middle">cloud by the reference</text>'
        f'<text x="18" y="{10 + size / 2}" text-anchor="middle" transform="rotate(-90 18 {10 + size / 2})">'
        "cloud the gate is sure of</text>"
    )
    view = f"0 0 {size + 40} {size + 40}"
    return Markup(f'<svg viewBox="{view}" class="tiles" role="img">{frame}{lines}{"".join(marks)}{words}</svg>')


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
    mask = judged.mask
    cloud, known = judged.sample.reference()
    if not known.any():
        return "no reference"
    reference = "clear by eye" if judged.sample.scl is None else f"reference {100 * cloud[known].mean():.0f} %"
    ours, thin, sure = (100 * f for f in (mask.cloud_fraction, mask.thin_fraction, mask.sure_fraction))
    return f"ours {ours:.0f} % ({thin:.0f} % thin, {sure:.0f} % sure), {reference}"


def _picture(judged: Judged) -> str:
    """Three panels side by side: colours, ours, reference. PNG as a data address."""
    colours = natural_colours(judged.sample.dn)
    cells = judged.mask.cells
    thin = (cells[THIN] > cells[THICK]).repeat(judged.mask.cell_px, 0).repeat(judged.mask.cell_px, 1)
    ours = overlay(overlay(colours, judged.mask.cloudy & ~thin, THICK_RGB), judged.mask.cloudy & thin, THIN_RGB)
    reference = overlay(colours, judged.sample.reference()[0], REFERENCE_RGB)
    return png_address(np.concatenate([colours, ours, reference], axis=1))


def _chip(judged: JudgedChip) -> dict[str, str]:
    """Two panels: colours; ours tinted, with the outline that people drew. JPEG as a data address."""
    colours = natural_colours(judged.chip.dn)
    ours = colours
    for kind, rgb in ((THICK, THICK_RGB), (THIN, THIN_RGB), (SHADOW, SHADOW_RGB)):
        ours = overlay(ours, judged.picture.classes == kind, rgb)
    ours[_outline(judged.chip.cloud)] = PEOPLE_RGB
    found = judged.cloud[OURS]
    agreed = (found & judged.chip.cloud).sum() / max(1, (found | judged.chip.cloud).sum())
    text = f"ours {100 * found.mean():.0f} % cloud, people {100 * judged.chip.cloud.mean():.0f} %, IoU {agreed:.3f}"
    picture = _address(np.concatenate([colours, ours], axis=1), "JPEG", quality=88)
    return {"name": judged.chip.name, "text": text, "picture": picture}


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
