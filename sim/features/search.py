"""`sim search`: tiles like one tile, over the embeddings of many runs, and a page of hits.

Pictures on the page are block averages out of features.zarr, where that lies beside the embeddings: nothing is decoded.
"""

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from sim.design.page import TEMPLATES, render
from sim.features.files import ZARR, need
from sim.features.index import embedding_of, read_index
from sim.features.source import Asked

#: Natural colours of `edge`'s features: block averages, in companded DN; what is white, and the side on the page.
LEVEL, RGB, WHITE, SHOWN_PX = "coefficients", ("B04_00", "B03_00", "B02_00"), 2600.0, 160


@dataclass(frozen=True)
class SearchRequest:
    """What the user asked for."""

    like: str
    folders: Sequence[Path]
    asked: Asked  # how `like` is read where it is no tile of the index
    count: int = 12
    bundle: str | None = None


def search(request: SearchRequest) -> dict[str, Any]:
    """The hits, nearest first."""
    index = read_index(request.folders, request.bundle)
    wanted, own = embedding_of(request.like, index, replace(request.asked, bundle=index.bundle))
    hits = [_hit(index.rows[place], distance) for place, distance in index.nearest(wanted, request.count, own)]
    return {"schema": "nadir-search/1", "like": request.like, "bundle": index.bundle, "searched": len(index.rows),
            "scenes": len({row["folder"] for row in index.rows}), "hits": hits,
            "asked": None if own is None else _hit(index.rows[own], 0.0)}  # fmt: skip


def _hit(row: Mapping[str, Any], distance: float) -> dict[str, Any]:
    centre = need("shapely").from_wkb(row["geometry"]).centroid if row["geometry"] else None
    return {
        "distance": round(distance, 4), "scene": row["scene"], "sensed_at": row["sensed_at"], "row": row["row"],
        "col": row["col"], "longitude": None if centre is None else round(centre.x, 5),
        "latitude": None if centre is None else round(centre.y, 5), "folder": row["folder"],
    }  # fmt: skip


def as_text(found: Mapping[str, Any]) -> str:
    """The hits for a terminal."""
    runs = f"{found['scenes']} run{'s' if found['scenes'] > 1 else ''}"
    lines = [f"{found['searched']} tiles of {runs}, bundle {found['bundle']}; like {found['like']}:"]
    lines += [f"  {h['distance']:8.3f}  {h['folder']}@{h['row']},{h['col']}  {h['scene']}" for h in found["hits"]]
    return "\n".join(lines) + "\n"


def write_page(found: Mapping[str, Any], path: Path) -> None:
    """search.html: what was asked for and the hits, with their pictures, one file, opens offline."""
    asked = [] if found["asked"] is None else [found["asked"]]
    shown = [{**one, "picture": picture(Path(one["folder"]), one["row"], one["col"])} for one in asked + found["hits"]]
    context = {"found": found, "asked": shown[: len(asked)], "hits": shown[len(asked) :]}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(render(TEMPLATES / "search.html", context), encoding="utf-8")


def picture(folder: Path, row: int, col: int) -> str | None:
    """A tile's block averages in natural colours as a data URI; None where no features lie there that show them."""
    if not (folder / ZARR / LEVEL).is_dir():
        return None
    level = need("zarr").open_group(str(folder / ZARR), mode="r")[LEVEL]
    names, cells = list(level["channel"].attrs["names"]), level["features"].chunks[1]
    if any(name not in names for name in RGB):
        return None
    square = (slice(row * cells, (row + 1) * cells), slice(col * cells, (col + 1) * cells))
    averages = np.stack([level["features"][names.index(name), *square] for name in RGB], axis=2)
    shade = np.rint(255 * np.clip(np.nan_to_num(averages) / WHITE, 0, 1)).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(shade).resize((SHOWN_PX, SHOWN_PX), Image.Resampling.BICUBIC).save(file, format="PNG")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
