"""Regions of interest in degrees -> pixels of one scene, before the gate is sent up: the satellite knows pixels only.

Scenes in geographic coordinates need their affine transform alone; scenes in UTM also the transverse Mercator
projection, here by Krüger's series to third order (Karney 2011, Journal of Geodesy 85, 475-485): better than a
millimetre within a zone.
"""

import re
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from payload.errors import InputError
from payload.policy import Gate, LonLatRegion, Region
from payload.scene import SceneInfo

F64 = NDArray[np.float64]

#: WGS 84
SEMI_MAJOR_M, FLATTENING = 6_378_137.0, 1.0 / 298.257223563
UTM_SCALE, FALSE_EASTING_M, FALSE_NORTHING_SOUTH_M = 0.9996, 500_000.0, 10_000_000.0
#: Points along each edge of a box: an edge of constant latitude is curved in UTM.
POINTS_PER_EDGE = 16


def regions_in_pixels(gate: Gate, info: SceneInfo) -> Gate:
    """The gate with every region in pixels of the scene; regions that lie outside it are left out.

    InputError where a region is in degrees and the scene has no georeference, or one in a projection unknown here.
    """
    boxes = [r if isinstance(r, Region) else _in_pixels(r, info) for r in gate.regions]
    return replace(gate, regions=tuple(box for box in boxes if box is not None))


def _in_pixels(region: LonLatRegion, info: SceneInfo) -> Region | None:
    if info.crs_wkt is None or info.transform is None:
        raise InputError(f"scene {info.name} has no georeference, so {region} cannot be found in it; give pixels")
    along = np.linspace(0.0, 1.0, POINTS_PER_EDGE)
    lon = region.west_deg + (region.east_deg - region.west_deg) * along
    lat = region.south_deg + (region.north_deg - region.south_deg) * along
    edge_lon = np.concatenate([lon, lon, np.full(lat.shape, lon[0]), np.full(lat.shape, lon[-1])])
    edge_lat = np.concatenate([np.full(lon.shape, lat[0]), np.full(lon.shape, lat[-1]), lat, lat])
    x, y = project(edge_lon, edge_lat, info.crs_wkt)
    a, b, c, d, e, f = info.transform
    inverse = np.linalg.inv(np.array([[a, b], [d, e]]))
    col, row = inverse @ np.stack([x - c, y - f])
    top, left = max(0, int(np.floor(row.min()))), max(0, int(np.floor(col.min())))
    bottom, right = min(info.height_px, int(np.ceil(row.max()))), min(info.width_px, int(np.ceil(col.max())))
    return Region(top, left, bottom, right) if top < bottom and left < right else None


def project(lon_deg: F64, lat_deg: F64, crs_wkt: str) -> tuple[F64, F64]:
    """Degrees -> the scene's own coordinates: degrees again, or metres east and north in its UTM zone."""
    zone = re.search(r"UTM zone (\d{1,2})([NS])", crs_wkt)
    if zone:
        return utm(lon_deg, lat_deg, int(zone[1]), zone[2] == "S")
    if re.match(r"\s*(GEOGCS|GEOGCRS|GEODCRS)", crs_wkt):
        return lon_deg, lat_deg
    raise InputError(f"scene is in {crs_wkt[:50]!r}: regions in degrees need UTM or plain degrees; give pixels")


def utm(lon_deg: F64, lat_deg: F64, zone: int, south: bool) -> tuple[F64, F64]:
    """WGS 84 degrees -> UTM easting and northing in metres."""
    n = FLATTENING / (2.0 - FLATTENING)
    radius_m = SEMI_MAJOR_M / (1.0 + n) * (1.0 + n**2 / 4.0 + n**4 / 64.0)
    alphas = (
        n / 2.0 - 2.0 / 3.0 * n**2 + 5.0 / 16.0 * n**3,
        13.0 / 48.0 * n**2 - 3.0 / 5.0 * n**3,
        61.0 / 240.0 * n**3,
    )
    phi, lam = np.radians(lat_deg), np.radians(lon_deg - (6.0 * zone - 183.0))
    e = 2.0 * np.sqrt(n) / (1.0 + n)
    t = np.sinh(np.arctanh(np.sin(phi)) - e * np.arctanh(e * np.sin(phi)))
    xi0, eta0 = np.arctan2(t, np.cos(lam)), np.arctanh(np.sin(lam) / np.sqrt(1.0 + t**2))
    orders = [(2.0 * (i + 1), alpha) for i, alpha in enumerate(alphas)]
    xi = xi0 + sum(alpha * np.sin(j * xi0) * np.cosh(j * eta0) for j, alpha in orders)
    eta = eta0 + sum(alpha * np.cos(j * xi0) * np.sinh(j * eta0) for j, alpha in orders)
    northing = UTM_SCALE * radius_m * xi + (FALSE_NORTHING_SOUTH_M if south else 0.0)
    return np.asarray(FALSE_EASTING_M + UTM_SCALE * radius_m * eta), np.asarray(northing)
