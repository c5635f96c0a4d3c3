"""Answers of applications -> answers.geojson (RFC 7946): each a place on Earth with what was said of it.

Read from octets alone: a record's place is the box on the scene's grid where the header came, its own point where it
did not, and nothing where the scene has no place on Earth.
"""

import json
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from rasterio.crs import CRS
from rasterio.errors import CRSError, RasterioError
from rasterio.transform import Affine
from rasterio.warp import transform

from payload.apps.indicators import INDICATORS
from payload.link.app_record import PARTS, PARTS_OF_A_DEGREE, AppRecord, Cause, Flag
from payload.scene import SceneInfo
from sim.ground.reception import SceneReception
from sim.mission.spec import Mission

ANSWERS_FILE = "answers.geojson"
WGS84 = "EPSG:4326"


def write_answers(scenes: Sequence[SceneReception], mission: Mission, folder: Path) -> int:
    """answers.geojson of everything that arrived; no file where nothing did. Gives how many there are."""
    features = [feature for scene in scenes for feature in _features(scene, mission)]
    if features:
        text = json.dumps({"type": "FeatureCollection", "features": features}, indent=1, allow_nan=False)
        (folder / ANSWERS_FILE).write_text(text + "\n", encoding="utf-8", newline="\n")
    return len(features)


def answer_row(answer: AppRecord) -> dict[str, Any]:
    """What a record says, in the indicator's units."""
    known = INDICATORS.get(answer.indicator)
    cut_off = Flag.CUT_OFF in answer.flags
    says_something = not cut_off and Flag.UNSEEN not in answer.flags
    return {
        "scene": f"{answer.scene_id:08x}", "number": answer.number, "of": answer.total,
        "indicator": answer.indicator, "name": known.name if known else f"indicator {answer.indicator}",
        "unit": known.unit if known else None, "app": f"{answer.app:08x}", "site": answer.site,
        "value": answer.value / PARTS if says_something else None, "threshold": answer.threshold / PARTS,
        "alert": answer.alert, "unseen": Flag.UNSEEN in answer.flags, "withheld": Flag.WITHHELD in answer.flags,
        "cut_off": cause_of(answer.value) if cut_off else None, "confidence_percent": answer.confidence,
        "time": answer.time, "box_px": list(answer.box),
    }  # fmt: skip


def cause_of(number: int) -> str:
    """Why an application was cut off, in a word; a cause that this ground does not know by its number."""
    return Cause(number).name.lower() if number in list(Cause) else f"cause {number}"


def _features(scene: SceneReception, mission: Mission) -> Iterator[dict[str, Any]]:
    info = scene.header.info if scene.header is not None else None
    names = dict(enumerate(site.name for site in mission.sites))
    for _, answer in sorted(scene.answers.items()):
        site = None if answer.site is None else names.get(answer.site, f"site {answer.site}")
        properties = answer_row(answer) | {"site_name": site}
        yield {"type": "Feature", "geometry": geometry_of(answer, info), "properties": properties}


def geometry_of(answer: AppRecord, info: SceneInfo | None) -> dict[str, Any] | None:
    """A polygon where the scene's grid is known, a point where the record alone says where; None elsewhere."""
    ring = _ring(answer.box, info) if info is not None else None
    if ring is not None:
        return {"type": "Polygon", "coordinates": [ring]}
    if answer.place is None:
        return None
    return {"type": "Point", "coordinates": [part / PARTS_OF_A_DEGREE for part in answer.place]}


def _ring(box: tuple[int, int, int, int], info: SceneInfo) -> list[list[float]] | None:
    """Corners of a box counter-clockwise, first and last the same; None where the scene has no grid on Earth."""
    if info.transform is None or info.crs_wkt is None:
        return None
    top, left, height, width = box
    bottom, right = top + height, left + width
    affine = Affine(*info.transform)
    corners = [affine @ at for at in ((left, top), (left, bottom), (right, bottom), (right, top), (left, top))]
    try:
        xs, ys = transform(CRS.from_user_input(info.crs_wkt), WGS84, *zip(*corners, strict=True))
    except (CRSError, RasterioError, ValueError):
        return None
    ring = [[round(x, 7), round(y, 7)] for x, y in zip(xs, ys, strict=True)]
    return ring if _area(ring) >= 0 else ring[::-1]


def _area(ring: list[list[float]]) -> float:
    """Twice the signed area: positive counter-clockwise."""
    return sum(a[0] * b[1] - b[0] * a[1] for a, b in pairwise(ring))
