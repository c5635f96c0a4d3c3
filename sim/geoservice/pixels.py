"""A picture, its cloud mask and a site -> counts and sums over the site's clear pixels.

Pixels go strip by strip, so that memory is bounded whatever the size of scene and site. A pixel belongs to a site whose
polygon holds its middle.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.errors import WindowError
from rasterio.features import geometry_mask, geometry_window
from rasterio.warp import transform_bounds, transform_geom
from rasterio.windows import Window

from payload.apps.formula import Formula, Quotient
from payload.errors import InputError
from payload.sensor import sensor_of
from sim.geoservice.service import Indicator
from sim.geoservice.sites import Site

WGS84 = "EPSG:4326"
CLEAR = 0  # of cloud.tif
STRIP_PX = 1 << 20


@dataclass
class Sums:
    """`area_px`: the site's whole area, whether the picture reaches all of it or not. `inside`, `clear`: its pixels on
    the picture. `found`: of each indicator's formula the sum, and how many pixels it is over."""

    area_px: float
    inside: int = 0
    clear: int = 0
    found: dict[str, tuple[float, int]] = field(default_factory=dict)


def sums_of(indicators: Mapping[str, Indicator], site: Site, picture: Any, cloud: Any) -> Sums | None:
    """The sums over a site of two open rasters on one grid; None where they do not reach it. InputError where a formula
    names a band that the picture lacks."""
    if not _near(site, picture):
        return None
    geometry = transform_geom(WGS84, picture.crs, site.geometry)
    try:
        window = geometry_window(picture, [geometry])
    except WindowError:
        return None
    formulas = {name: found for name, one in indicators.items() if (found := one.pixels()) is not None}
    bands = _bands_of(formulas, picture)
    sums = Sums(_area_px(geometry, picture))
    for strip in _strips(window):
        _add(sums, strip, geometry, picture, cloud, formulas, bands)
    return sums if sums.inside else None


def _near(site: Site, picture: Any) -> bool:
    """Whether the boxes around both meet, so that PROJ is asked for nothing far from the scene."""
    west, south, east, north = transform_bounds(picture.crs, WGS84, *picture.bounds, densify_pts=21)
    east += 360 if east < west else 0
    longitudes, latitudes = zip(*site.corners, strict=True)
    along = any(min(longitudes) + turn <= east and max(longitudes) + turn >= west for turn in (-360, 0, 360))
    return along and min(latitudes) <= north and max(latitudes) >= south


def _strips(window: Window) -> Iterator[Window]:
    rows = max(1, STRIP_PX // max(1, window.width))
    for top in range(0, window.height, rows):
        yield Window(window.col_off, window.row_off + top, window.width, min(rows, window.height - top))


def _add(
    sums: Sums, strip: Window, geometry: Mapping[str, Any], picture: Any, cloud: Any,
    formulas: Mapping[str, Formula | Quotient], bands: Mapping[str, int],
) -> None:  # fmt: skip
    transform = picture.window_transform(strip)
    inside = geometry_mask([geometry], (strip.height, strip.width), transform, invert=True)
    known = picture.dataset_mask(window=strip) > 0
    clear = inside & known & (cloud.read(1, window=strip) == CLEAR)
    sums.inside, sums.clear = sums.inside + int(inside.sum()), sums.clear + int(clear.sum())
    if not clear.any():
        return
    planes = {name: picture.read(number, window=strip)[clear].astype(np.int32) for name, number in bands.items()}
    for name, formula in formulas.items():
        total, count = over(formula, planes)
        before = sums.found.get(name, (0.0, 0))
        sums.found[name] = (before[0] + total, before[1] + count)


def over(formula: Formula | Quotient, planes: Mapping[str, NDArray[np.int32]]) -> tuple[float, int]:
    """Of a comparison: how many pixels meet it, of all. Of a number: its sum, over the pixels that have one."""
    count = len(next(iter(planes.values())))
    if isinstance(formula, Formula):
        return float(np.count_nonzero(formula.of(planes.__getitem__))), count
    above, below = (np.broadcast_to(part, count) for part in formula.of(planes.__getitem__))
    there = below != 0
    return float((above[there] / below[there]).sum()), int(there.sum())


def _bands_of(formulas: Mapping[str, Formula | Quotient], picture: Any) -> dict[str, int]:
    """The number of each band that a formula names, by its role or its name."""
    sensor, found = sensor_of([name or "" for name in picture.descriptions]), {}
    for word in sorted({band for formula in formulas.values() for band in formula.bands}):
        place = sensor.place(word)
        if place is None:
            known = ", ".join((*(band.role for band in sensor.bands if band.role), *sensor.names))
            raise InputError(f"a formula names {word!r}, which its picture lacks; wanted one of {known}")
        found[word] = place + 1
    return found


def _area_px(geometry: Mapping[str, Any], picture: Any) -> float:
    """The site's whole area in pixels of the picture, whether the picture reaches all of it or not."""
    listed = [geometry["coordinates"]] if geometry["type"] == "Polygon" else geometry["coordinates"]
    area = sum(_ring_area(rings[0]) - sum(map(_ring_area, rings[1:])) for rings in listed)
    return max(1.0, area / abs(picture.transform.determinant))


def _ring_area(ring: Sequence[Sequence[float]]) -> float:
    return abs(sum(a[0] * b[1] - b[0] * a[1] for a, b in pairwise(ring))) / 2
