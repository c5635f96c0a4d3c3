"""A scene on the ground -> its STAC 1.1 item, and the collection of its mission.

Plain dictionaries: no library is needed to write them. Extensions: projection, eo, raster, file, processing,
classification, and sat where the mission names its satellite. What is not known (angles of view, sun) is left out.
"""

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import rasterio

from payload.scene import SceneInfo
from payload.sensor import Band
from payload.version import VERSION
from sim.products.footprint import Placed, geometry
from sim.products.origin import AIDED, Origin, attribution
from sim.products.provenance import STATES
from sim.products.rasters import OVERRULED, OVERRULED_NODATA

STAC_VERSION = "1.1.0"
EXTENSIONS = {
    "projection": "https://stac-extensions.github.io/projection/v2.0.0/schema.json",
    "eo": "https://stac-extensions.github.io/eo/v2.0.0/schema.json",
    "raster": "https://stac-extensions.github.io/raster/v2.0.0/schema.json",
    "file": "https://stac-extensions.github.io/file/v2.1.0/schema.json",
    "processing": "https://stac-extensions.github.io/processing/v1.2.0/schema.json",
    "classification": "https://stac-extensions.github.io/classification/v2.0.0/schema.json",
    "sat": "https://stac-extensions.github.io/sat/v1.1.0/schema.json",
}
LICENCE = "https://sentinels.copernicus.eu/documents/247904/690755/Sentinel_Data_Legal_Notice"
COG, PNG = "image/tiff; application=geotiff; profile=cloud-optimized", "image/png"
KMZ = "application/vnd.google-earth.kmz"
#: multihash prefix of SHA-256 with its 32 octets.
SHA256 = "1220"
CLOUD_CLASSES = (
    (0, "clear", "clear"), (1, "cloud", "thick cloud"), (2, "thin_cloud", "thin cloud"), (3, "shadow", "shadow"),
    (4, "withheld", "withheld on board as cloud"),
)  # fmt: skip


@dataclass(frozen=True)
class File:
    """One file beside the item that it lists. `more`: further fields of its asset. `fixed`: the same scene gives the
    same octets, so that a checksum says something; reports hold times."""

    key: str
    name: str
    title: str
    media_type: str
    roles: tuple[str, ...]
    more: Mapping[str, Any] = field(default_factory=dict)
    fixed: bool = True


def item(
    folder: Path, info: SceneInfo, origin: Origin, placed: Placed | None, cloud_percent: float | None,
    known_percent: float, collection: str,
) -> dict[str, Any]:  # fmt: skip
    """The item of the files in `folder`. `collection`: where collection.json lies, seen from the item. A scene whose
    time is not known has none: STAC wants a time."""
    properties: dict[str, Any] = {
        "datetime": info.sensed_at, "title": info.name, "platform": origin.mission, "gsd": info.gsd_m or None,
        "eo:cloud_cover": cloud_percent, "processing:software": {"nadir-payload": VERSION},
        "processing:lineage": f"coded on board and decoded on the ground with bundle {origin.bundle}",
        "processing:facility": "Nadir ground segment", "nadir:bundle": origin.bundle, "nadir:scene": origin.scene,
        "nadir:known_percent": round(known_percent, 4), "nadir:attribution": attribution(info),
        "sat:platform_international_designator": origin.designator,
    } | _projection(info)  # fmt: skip
    kept = {key: value for key, value in properties.items() if value is not None or key == "proj:code"}
    used = [name for name in EXTENSIONS if name != "sat" or origin.designator]
    place = {"geometry": geometry(placed), "bbox": placed.bbox} if placed else {"geometry": None}
    return {
        "type": "Feature", "stac_version": STAC_VERSION, "stac_extensions": [EXTENSIONS[name] for name in used],
        "id": item_id(info, origin), **place, "properties": kept, "collection": origin.mission,
        "assets": {file.key: _asset(folder, file) for file in _files(folder, info) if (folder / file.name).is_file()},
        "links": [{"rel": rel, "href": collection, "type": "application/json"}
                  for rel in ("root", "parent", "collection")],
    }  # fmt: skip


def item_id(info: SceneInfo, origin: Origin) -> str:
    """Name and id of the scene, of letters that a file and a URL may have."""
    name = re.sub(r"[^A-Za-z0-9_.-]+", "-", info.name).strip("-.")[:80] or "scene"
    return f"{name}-{origin.scene}"


def collection(origin: Origin, items: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The collection of a mission: `items` by where they lie, seen from it."""
    times = sorted(item["properties"]["datetime"] for item in items.values())
    boxes = [item["bbox"] for item in items.values() if "bbox" in item]
    return {
        "type": "Collection", "stac_version": STAC_VERSION, "id": origin.mission, "title": origin.title,
        "description": f"Scenes of mission {origin.mission} as they reached the ground: coded on board by Nadir, "
        "sent, received and decoded.",
        "license": "other", "keywords": ["earth observation", "onboard compression", origin.mission],
        "providers": [{"name": "Nadir ground segment", "roles": ["processor"]}],
        "extent": {"spatial": {"bbox": [_union(boxes), *(boxes if len(boxes) > 1 else [])]},
                   "temporal": {"interval": [[times[0], times[-1]]]}},
        "links": [{"rel": "root", "href": "./collection.json", "type": "application/json"},
                  {"rel": "license", "href": LICENCE, "title": "Legal notice on Copernicus Sentinel data"},
                  *({"rel": "item", "href": href, "type": "application/geo+json"} for href in items)],
    }  # fmt: skip


def _union(boxes: list[list[float]]) -> list[float]:
    """The box around all; the whole Earth where none has a place, or one crosses the antimeridian."""
    if not boxes or any(west > east for west, _, east, _ in boxes):
        return [-180.0, -90.0, 180.0, 90.0]
    west, south, east, north = zip(*boxes, strict=True)
    return [min(west), min(south), max(east), max(north)]


def _projection(info: SceneInfo) -> dict[str, Any]:
    shape = {"proj:shape": [info.height_px, info.width_px]}
    if info.crs_wkt is None:
        return shape
    crs = rasterio.crs.CRS.from_wkt(info.crs_wkt)
    code = crs.to_authority()
    named = {"proj:code": ":".join(code)} if code else {"proj:code": None, "proj:wkt2": crs.to_wkt(version="WKT2_2019")}
    return shape | named | ({"proj:transform": list(info.transform)} if info.transform else {})


def _files(folder: Path, info: SceneInfo) -> Iterable[File]:
    """What a scene's folder may hold."""
    picture = _bands(folder, info)
    yield File("reconstruction", "reconstruction.tif", "the picture, DN of reflectance", COG, ("data",), picture)
    for path in sorted(folder.glob("reconstruction-*.tif")):
        group, coarser = path.stem.removeprefix("reconstruction-"), _of_file(path)
        yield File(f"reconstruction-{group}", path.name, f"bands of {group} on their grid", COG, ("data",), coarser)
    for path in folder.glob("aided.tif"):
        yield File("aided", path.name, AIDED, COG, ("data",), _of_file(path))
    yield File("overruled", "overruled.tif", "where what was sent overruled the archive", COG, ("metadata",),
               {"data_type": "uint16", "nodata": OVERRULED_NODATA, "bands": [{"description": o} for o in OVERRULED]})
    states = [{"value": s.value, "name": s.name, "description": s.meaning, "color_hint": s.colour.upper()}
              for s in STATES]  # fmt: skip
    bands = [{"name": "state", "classification:classes": states}, {"name": "layers", "description": "layers received"}]
    yield File("provenance", "provenance.tif", "what became of every pixel", COG, ("metadata", "data-mask"),
               {"data_type": "uint8", "bands": bands})  # fmt: skip
    classes = [{"value": value, "name": name, "description": told} for value, name, told in CLOUD_CLASSES]
    yield File("cloud", "cloud.tif", "the ground's cloud mask", COG, ("metadata", "cloud"),
               {"data_type": "uint8", "nodata": 255, "classification:classes": classes})  # fmt: skip
    yield File("quicklook", "quicklook.png", "quicklook", PNG, ("thumbnail",))
    yield File("footprint", "footprint.geojson", "tiles by state", "application/geo+json", ("metadata",))
    yield File("overlay", "reconstruction.kmz", "super-overlay for a globe", KMZ, ("visual",))
    yield File("packets", "packets.bin", "space packets as they were sent", "application/octet-stream", ("source",))
    yield File("figures", "report.json", "figures of the run", "application/json", ("metadata",), fixed=False)
    yield File("report", "report.html", "report", "text/html", ("metadata",), fixed=False)


def _bands(folder: Path, info: SceneInfo) -> dict[str, Any]:
    """Common fields of the picture, and those of each band, its statistics as the raster itself states them."""
    with rasterio.open(folder / "reconstruction.tif") as file:
        tags = [file.tags(index) for index in file.indexes]
        scale, offset = file.scales[0], file.offsets[0]
    each = [_band(band, own) for band, own in zip(info.sensor.bands, tags, strict=True)]
    common = {"data_type": "uint16", "nodata": info.nodata, "unit": info.sensor.unit, "raster:scale": scale,
              "raster:offset": offset, "raster:bits_per_sample": 16,
              "raster:spatial_resolution": info.gsd_m or None}  # fmt: skip
    return {key: value for key, value in common.items() if value is not None} | {"bands": each}


def _of_file(path: Path) -> dict[str, Any]:
    """Fields of a picture of a coarser grid, as the raster itself states them."""
    with rasterio.open(path) as file:
        bands = [{"name": name} for name in file.descriptions]
        found = {"data_type": "uint16", "nodata": file.nodata, "unit": file.units[0], "raster:scale": file.scales[0],
                 "raster:offset": file.offsets[0], "raster:bits_per_sample": 16, "proj:shape": list(file.shape),
                 "proj:transform": list(file.transform)[:6], "bands": bands}  # fmt: skip
    return {key: value for key, value in found.items() if value is not None}


def _band(seen: Band, tags: Mapping[str, str]) -> dict[str, Any]:
    wave = {"eo:center_wavelength": seen.centre_nm, "eo:full_width_half_max": seen.width_nm}
    band: dict[str, Any] = {"name": seen.name} | {key: nm / 1000 for key, nm in wave.items() if nm is not None}
    if seen.role and wave["eo:center_wavelength"] is not None:
        band["eo:common_name"] = seen.role
    keys = {"minimum": "MINIMUM", "maximum": "MAXIMUM", "mean": "MEAN", "stddev": "STDDEV",
            "valid_percent": "VALID_PERCENT"}  # fmt: skip
    found = {key: float(tags[f"STATISTICS_{tag}"]) for key, tag in keys.items() if f"STATISTICS_{tag}" in tags}
    return band | ({"statistics": found} if found else {})


def _asset(folder: Path, file: File) -> dict[str, Any]:
    asset = {"href": f"./{file.name}", "title": file.title, "type": file.media_type}
    return asset | {"roles": list(file.roles)} | dict(file.more) | (_checksum(folder / file.name) if file.fixed else {})


def _checksum(path: Path) -> dict[str, Any]:
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    return {"file:checksum": SHA256 + digest, "file:size": path.stat().st_size}
