"""The scenes that a viewer shows: folders that `sim downlink`, `sim receive` or `sim campaign` left behind."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import rasterio
from rasterio.warp import transform, transform_bounds

from payload.errors import InputError

PICTURE = "reconstruction.tif"
#: Layers by name -> file in the scene's folder.
LAYERS = {"received": PICTURE, "original": "original.tif", "provenance": "provenance.tif", "cloud": "cloud.tif"}
DEEPEST = 4
DEVIATIONS = 2.0  # of the stretch, on both sides of the mean


@dataclass(frozen=True)
class ShownScene:
    """One received scene. `ranges`: least and greatest DN of each band's stretch, the same in both pictures. `colours`:
    what each band is, as the raster says it (sim/products/band_facts.py)."""

    key: str
    name: str
    folder: Path
    layers: dict[str, Path]
    bands: tuple[str, ...]
    bbox: tuple[float, float, float, float]
    sensed_at: str | None
    ranges: dict[str, tuple[float, float]]
    colours: tuple[str, ...] = ()

    def places(self, roles: Sequence[str]) -> tuple[int, ...] | None:
        """Which bands have these roles; None where one is missing."""
        found = [self.colours.index(role) if role in self.colours else None for role in roles]
        return None if None in found else tuple(place for place in found if place is not None)

    def about(self) -> dict[str, Any]:
        """For the page."""
        report = "report.html" if (self.folder / "report.html").is_file() else None
        return {
            "key": self.key, "name": self.name, "layers": sorted(self.layers), "bands": list(self.bands),
            "bbox": list(self.bbox), "sensed_at": self.sensed_at, "report": report and f"/files/{self.key}/{report}",
            "footprint": _json(self.folder / "footprint.geojson"),
        }  # fmt: skip

    def values(self, longitude: float, latitude: float) -> dict[str, Any] | None:
        """Stored values of every layer under a point; None outside the scene."""
        found: dict[str, Any] = {}
        for layer, path in self.layers.items():
            with rasterio.open(path) as file:
                (x,), (y,) = transform("EPSG:4326", file.crs, [longitude], [latitude])
                row, col = file.index(x, y)
                if not (0 <= row < file.height and 0 <= col < file.width):
                    return None
                window = (row, row + 1), (col, col + 1)
                known = file.dataset_mask(window=window)[0, 0] > 0
                found[layer] = file.read(window=window)[:, 0, 0].tolist() if known else None
        return found | {"row": int(row), "col": int(col)}


def find_scenes(folders: Sequence[Path], originals: Path | None = None) -> dict[str, ShownScene]:
    """Scenes in the folders and below, by a key that a URL may hold. InputError where there is none."""
    found: dict[str, ShownScene] = {}
    for folder in folders:
        if not folder.is_dir():
            raise InputError(f"{folder}: not found, wanted a folder with {PICTURE} in it or below")
        for picture in sorted(_pictures(folder, DEEPEST)):
            scene = _scene(f"s{len(found)}", picture, originals)
            if scene is not None:
                found[scene.key] = scene
    if not found:
        named = ", ".join(str(folder) for folder in folders)
        raise InputError(f"{named}: no {PICTURE} with a place in it or below; run sim downlink or sim receive first")
    return found


def _pictures(folder: Path, depth: int) -> Iterator[Path]:
    for path in folder.iterdir():
        if path.name == PICTURE:
            yield path
        elif depth and path.is_dir() and not path.name.startswith(".") and not path.is_symlink():
            yield from _pictures(path, depth - 1)


def _scene(key: str, picture: Path, originals: Path | None) -> ShownScene | None:
    """None for a picture without a place on the Earth: a map has nowhere to put it."""
    folder = picture.parent
    with rasterio.open(picture) as file:
        if file.crs is None:
            return None
        tags, bands = file.tags(), tuple(text or f"band {i}" for i, text in enumerate(file.descriptions, 1))
        colours = tuple(colour.name for colour in file.colorinterp)
        bbox = transform_bounds(file.crs, "EPSG:4326", *file.bounds, densify_pts=21)
        ranges = {band: _stretch(file.tags(index)) for index, band in enumerate(bands, 1)}
    name = tags.get("TIFFTAG_IMAGEDESCRIPTION", folder.name)
    layers = {layer: folder / file for layer, file in LAYERS.items() if (folder / file).is_file()}
    kept = originals / f"{Path(name).name}.tif" if originals else None
    if kept and kept.is_file():
        layers["original"] = kept
    return ShownScene(key, name, folder, layers, bands, bbox, tags.get("ACQUISITIONDATETIME"), ranges, colours)


def _stretch(tags: dict[str, str]) -> tuple[float, float]:
    mean, deviation = float(tags.get("STATISTICS_MEAN", 2000)), float(tags.get("STATISTICS_STDDEV", 1000))
    low = max(0.0, mean - DEVIATIONS * deviation)
    return low, max(low + 1, mean + DEVIATIONS * deviation)


def _json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
