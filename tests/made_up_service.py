"""Twelve runs of a year and three sites in them, for tests of geoservices: a flood rises and falls in one site."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from rasterio.warp import transform

CRS, CORNER, PX = "EPSG:32631", (500_000, 4_600_000), 10
BANDS = ("B02", "B03", "B04", "B08")
#: top, left, bottom, right in pixels of a scene of 128 x 192.
SITES = {"Reservoir": (8, 8, 60, 60), "Farm <north>": (70, 70, 120, 120), "Forest": (10, 140, 120, 185)}
GROUPS = {"Reservoir": "water", "Farm <north>": "land", "Forest": "land"}
#: DN of land and of water, and the share of the reservoir's rows that is under water in each month.
LAND, WATER = (600, 800, 700, 3000), (500, 700, 400, 200)
FLOOD = (0.1, 0.1, 0.3, 0.6, 0.8, 0.45, 0.35, 0.1, 0.1, 0.1, 0.7, 0.1)
SERVICE = """
title = "Floods of the made-up valley"
sites = "sites.geojson"
period = "month"

[indicators.flood]
measure = "water"
title = "Water extent"
alert = 0.5
clear = 0.4

[indicators.ndvi]
measure = "ndvi"

[indicators.dry]
formula = "nir / red"
when = "below"
alert = 2
clear = 3

[indicators.clear]
measure = "clear"

[[recipients]]
name = "Water board"
email = "water.board@example.org"
groups = ["water"]

[bulletin]
introduction = "What was seen from above."
visa = "Duty hydrologist"
"""


def scene(path: Path, month: int, flood: float, cloud: bool = False) -> Path:
    """A GeoTIFF of 128 x 192 px with its time: land, and water over the first rows of the reservoir."""
    noise = np.random.default_rng(month).normal(0, 12, (4, 128, 192))
    dn = np.array(LAND)[:, None, None] + noise
    top, left, bottom, right = SITES["Reservoir"]
    wet = slice(top, top + round(flood * (bottom - top)))
    dn[:, wet, left:right] = np.array(WATER)[:, None, None] + noise[:, wet, left:right]
    if cloud:
        dn += 12_000
    profile = {"driver": "GTiff", "count": 4, "height": 128, "width": 192, "dtype": "uint16", "crs": CRS, "nodata": 0}
    place = rasterio.Affine(PX, 0, CORNER[0], 0, -PX, CORNER[1])
    with rasterio.open(path, "w", **profile, transform=place) as file:
        file.write(np.clip(dn, 1, 65_535).astype(np.uint16))
        file.descriptions = BANDS
        file.update_tags(ACQUISITIONDATETIME=f"2026-{month:02d}-15T10:30:00Z")
    return path


def ring(box: tuple[float, float, float, float]) -> list[list[float]]:
    """A box in pixels as a ring in degrees."""
    top, left, bottom, right = box
    corners = [(left, top), (left, bottom), (right, bottom), (right, top), (left, top)]
    xs, ys = zip(*((CORNER[0] + PX * x, CORNER[1] - PX * y) for x, y in corners), strict=True)
    return [list(corner) for corner in zip(*transform(CRS, "EPSG:4326", xs, ys), strict=True)]


def site(name: str, group: str | None, box: tuple[float, float, float, float]) -> dict[str, Any]:
    properties = {"name": name} | ({"group": group} if group else {})
    return {"type": "Feature", "properties": properties, "geometry": {"type": "Polygon", "coordinates": [ring(box)]}}


def write_service(folder: Path, text: str = SERVICE) -> Path:
    features = [site(name, GROUPS[name], box) for name, box in SITES.items()]
    (folder / "sites.geojson").write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    (folder / "service.toml").write_text(text)
    return folder / "service.toml"


def write_run(folder: Path, month: int, flood: float, cloud: bool = False, **tags: str) -> Path:
    """What a run leaves that figures are read from, without a link in between: the scene as its own picture."""
    folder.mkdir(parents=True)
    picture = scene(folder / "reconstruction.tif", month, flood)
    with rasterio.open(picture, "r+") as file:
        profile = file.profile | {"count": 1, "dtype": "uint8", "nodata": 255}
        file.update_tags(NADIR_SCENE=f"{month:08x}", **tags)
    with rasterio.open(folder / "cloud.tif", "w", **profile) as file:
        file.write(np.full((128, 192), 1 if cloud else 0, np.uint8), 1)
    return folder


def downlink_runs(folder: Path, run: Callable[[Path, Path], Any]) -> Path:
    """Twelve months through `run(scene, out)`; the ninth is under cloud."""
    for month, flood in enumerate(FLOOD, 1):
        run(scene(folder / f"{month:02d}.tif", month, flood, cloud=month == 9), folder / "runs" / f"2026-{month:02d}")
    return folder / "runs"
