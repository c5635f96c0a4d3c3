"""What is made of a scene once its rasters are there: quicklook, footprint, super-overlay, STAC item and collection."""

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from rasterio.enums import Resampling

from payload.scene import SceneInfo
from sim.ground.reception import SceneReception
from sim.products import stac
from sim.products.band_facts import picture_layers
from sim.products.footprint import Placed, footprint, place_corners
from sim.products.kmz import write_kmz
from sim.products.origin import Origin, attribution
from sim.products.quicklooks import Stretch, find_stretch, true_colour, write_png

#: Longest side of the quicklook.
QUICKLOOK_PX = 1024
CLOUD = (1, 2, 4)  # classes of cloud.tif that are cloud: thick, thin, withheld
NO_DATA = 255

log = logging.getLogger(__name__)


def publish(scene: SceneReception, info: SceneInfo, origin: Origin, folder: Path, tile_px: int) -> Placed | None:
    """Quicklook, footprint and super-overlay of the rasters in `folder`. What needs a place is left out without one."""
    picture, placed = folder / "reconstruction.tif", place_corners(info, tile_px)
    stretch = _quicklook(picture, folder / "quicklook.png")
    if placed is None:
        log.warning("%s: no place on the Earth: no footprint and no super-overlay", info.name)
        return None
    write_json(folder / "footprint.geojson", footprint(scene, info, placed))
    if info.transform is not None and info.crs_wkt is not None:
        about = f"Mission {origin.mission}, bundle {origin.bundle}. {attribution(info)}."
        write_kmz(picture, folder / "reconstruction.kmz", stretch, info.name, about, info.sensed_at)
    return placed


def write_item(
    info: SceneInfo, origin: Origin, placed: Placed | None, folder: Path, known_px: int, cloud_percent: float | None,
    collection: str,
) -> dict[str, Any] | None:
    """item.json of the files in `folder`, the last that is written there; None where the scene has no time."""
    if info.sensed_at is None:
        log.warning("%s: its time is not known, and STAC wants one: no item.json", info.name)
        return None
    known_percent = 100 * known_px / (info.height_px * info.width_px)
    entry = stac.item(folder, info, origin, placed, cloud_percent, known_percent, collection)
    write_json(folder / "item.json", entry)
    return entry


def write_collection(origin: Origin, items: Mapping[str, Mapping[str, Any]], folder: Path) -> None:
    """collection.json of a mission, where there is any item in it."""
    if items:
        write_json(folder / "collection.json", stac.collection(origin, items))


def cloud_cover(cloud: Path) -> float | None:
    """Per cent of a scene that its ground mask calls cloud, withheld tiles included; None where nothing is known."""
    counts = np.zeros(256, np.int64)
    with rasterio.open(cloud) as file:
        for _, window in file.block_windows(1):
            counts += np.bincount(file.read(1, window=window).ravel(), minlength=256)
    known = int(counts.sum() - counts[NO_DATA])
    return round(100 * int(counts[list(CLOUD)].sum()) / known, 4) if known else None


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8", newline="\n")


def _quicklook(picture: Path, out: Path) -> Stretch:
    """True colour, or the first band of a picture without, QUICKLOOK_PX at most, holes hatched; gives the stretch."""
    with rasterio.open(picture) as file:
        step = max(1.0, max(file.shape) / QUICKLOOK_PX)
        shape = tuple(max(1, round(side / step)) for side in file.shape)
        layers = picture_layers(file.colorinterp)
        dn = file.read(layers, out_shape=(3, *shape), resampling=Resampling.average).astype(np.float32)
        known = file.dataset_mask(out_shape=shape) > 0
    stretch = find_stretch(dn, known, np.zeros(shape, bool))
    write_png(out, true_colour(dn, known, stretch))
    return stretch
