"""Regions of interest in degrees -> pixels of one scene, before the gate is sent up: the satellite knows pixels only.

Longitudes are taken modulo 360: a scene at 285 E lies at 75 W, and a box from 179 E to 179 W crosses the antimeridian.
A box is cut to what the scene covers before PROJ turns it into the scene's coordinates, so that PROJ is only asked for
points near the scene.
"""

import logging
import math
from collections.abc import Iterator
from dataclasses import replace

import rasterio
from rasterio._err import CPLE_BaseError  # PROJ's own errors, which rasterio lets through
from rasterio.crs import CRS
from rasterio.errors import CRSError, RasterioError
from rasterio.transform import Affine
from rasterio.warp import transform_bounds

from payload.errors import InputError
from payload.policy import Gate, LonLatRegion, Region
from payload.scene import SceneInfo

WGS84 = "EPSG:4326"
#: Points along each edge of a box: an edge of constant latitude is curved in UTM.
POINTS_PER_EDGE = 21

log = logging.getLogger(__name__)

Bounds = tuple[float, float, float, float]  # left, bottom, right, top


def regions_in_pixels(gate: Gate, info: SceneInfo) -> Gate:
    """The gate with every region in pixels of the scene; regions that lie outside it are left out.

    Those are logged. InputError where a region is in degrees and the scene has no georeference, or coordinates of no
    place on the Earth.
    """
    for sentence in regions_outside(gate, info):
        log.warning("%s: %s", info.name, sentence)
    boxes = [box for region in gate.regions for box in boxes_of(region, info)]
    return replace(gate, regions=tuple(boxes))


def regions_outside(gate: Gate, info: SceneInfo) -> tuple[str, ...]:
    """A sentence for every region that touches no pixel of the scene: nothing is kept for it."""
    return tuple(
        f"always-keep region {_shown(region)} lies outside the scene: nothing is kept for it"
        for region in gate.regions
        if not boxes_of(region, info)
    )


def boxes_of(region: Region | LonLatRegion, info: SceneInfo) -> list[Region]:
    """A region in pixels of the scene; none where it lies outside. InputError as in `regions_in_pixels`."""
    if isinstance(region, Region):
        inside = region.top_px < info.height_px and region.left_px < info.width_px
        return [region] if inside and region.bottom_px > 0 and region.right_px > 0 else []
    try:
        with rasterio.Env():
            return list(_in_pixels(region, info))
    except (CRSError, RasterioError, CPLE_BaseError) as error:
        raise InputError(
            f"scene {info.name}: {region} cannot be turned into its coordinates ({' '.join(str(error).split())}); "
            "give pixels"
        ) from None


def _in_pixels(region: LonLatRegion, info: SceneInfo) -> Iterator[Region]:
    if info.crs_wkt is None or info.transform is None:
        raise InputError(f"scene {info.name} has no georeference, so {region} cannot be found in it; give pixels")
    crs = CRS.from_wkt(info.crs_wkt)
    if not (crs.is_geographic or crs.is_projected):
        raise InputError(
            f"scene {info.name} has coordinates of no place on the Earth, so {region} cannot be found; give pixels"
        )
    affine = Affine(*info.transform)
    scene = _bounds_of(affine, (0, 0, info.width_px, info.height_px))
    west, south, east, north = scene if crs.is_geographic else _projected(crs, WGS84, scene)
    if west > east:  # the scene crosses the antimeridian
        east += 360.0
    for left, right in _overlaps(region, west, east):
        bottom, top = max(south, region.south_deg), min(north, region.north_deg)
        if bottom < top:
            part = (left, bottom, right, top)
            yield from _clipped(affine, part if crs.is_geographic else _projected(WGS84, crs, part), info)


def _overlaps(region: LonLatRegion, west: float, east: float) -> Iterator[tuple[float, float]]:
    """Spans of longitude, as the scene counts it, that region and scene share."""
    width = (region.east_deg - region.west_deg) % 360.0 or 360.0
    first = region.west_deg + 360.0 * math.floor((west - region.west_deg - width) / 360.0)
    for turn in range(4):
        left = max(west, first + 360.0 * turn)
        right = min(east, first + 360.0 * turn + width)
        if left < right:
            yield left, right


def _clipped(affine: Affine, bounds: Bounds, info: SceneInfo) -> Iterator[Region]:
    """Pixels of a box in the scene's coordinates."""
    left, top, right, bottom = _bounds_of(~affine, bounds)
    box = (
        max(0, math.floor(top)), max(0, math.floor(left)),
        min(info.height_px, math.ceil(bottom)), min(info.width_px, math.ceil(right)),
    )  # fmt: skip
    if box[0] < box[2] and box[1] < box[3]:
        yield Region(*box)


def _bounds_of(affine: Affine, bounds: Bounds) -> Bounds:
    """Bounds of a box under an affine transform."""
    x = [affine.a * c + affine.b * r + affine.c for c in (bounds[0], bounds[2]) for r in (bounds[1], bounds[3])]
    y = [affine.d * c + affine.e * r + affine.f for c in (bounds[0], bounds[2]) for r in (bounds[1], bounds[3])]
    return min(x), min(y), max(x), max(y)


def _projected(source: CRS | str, target: CRS | str, bounds: Bounds) -> Bounds:
    left, bottom, right, top = transform_bounds(source, target, *bounds, densify_pts=POINTS_PER_EDGE)
    if not all(map(math.isfinite, (left, bottom, right, top))):
        raise CRSError("the scene lies outside of its projection")
    return left, bottom, right, top


def _shown(region: Region | LonLatRegion) -> str:
    if isinstance(region, Region):
        return f"rows {region.top_px} to {region.bottom_px}, columns {region.left_px} to {region.right_px}"
    return f"{region.west_deg:g} to {region.east_deg:g} E, {region.south_deg:g} to {region.north_deg:g} N"
