"""Where a file's pixels lie on the ground: projection and affine transform, ground control points, or RPCs.

Whatever the file has goes on to the products. Metres per pixel come from PROJ, on a plane that touches the ellipsoid in
the middle of the scene.
"""

import math
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import rasterio
from rasterio._err import CPLE_BaseError  # PROJ's own errors, which rasterio lets through
from rasterio.crs import CRS
from rasterio.errors import CRSError, RasterioError
from rasterio.transform import Affine, from_gcps
from rasterio.warp import transform

from payload.errors import InputError
from payload.scene import SceneInfo

#: Assumed where a file has no georeference: the pixel of Sentinel-2's 10 m bands.
ASSUMED_GSD_M = 10.0
#: Characters of a .prj: one projection, as WKT, takes some hundred.
PRJ_LIMIT = 20_000
#: Projected pixels whose size on the ground differs by more than this (Mercator far north) are measured there.
TRUE_SCALE_TOLERANCE = 0.02


@dataclass(frozen=True)
class Place:
    """`crs_wkt` belongs to `transform`, or to `gcps` where there is no transform. `notes`: what is to be said."""

    gsd_m: float
    crs_wkt: str | None = None
    transform: tuple[float, float, float, float, float, float] | None = None
    gcps: tuple[tuple[float, float, float, float, float], ...] = ()  # row, col, x, y, z
    rpcs: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()

    def on(self, info: SceneInfo) -> SceneInfo:
        """The scene's description with this place in it."""
        return replace(
            info, gsd_m=self.gsd_m, crs_wkt=self.crs_wkt, transform=self.transform, gcps=self.gcps, rpcs=self.rpcs,
            notes=info.notes + self.notes,
        )  # fmt: skip


def place_of(where: str, file: rasterio.DatasetReader) -> Place:
    """The place of an open file. InputError where its georeference cannot be."""
    try:
        if file.crs is not None or not file.transform.is_identity:
            return _placed_with_projection(where, file)
        points, crs = file.gcps
        rpcs = tuple(sorted(file.rpcs.to_gdal().items())) if file.rpcs else ()
        if points:
            return replace(_by_points(where, points, crs), rpcs=rpcs)
        if rpcs:
            note = f"placed by RPCs only, which go on to the products; pixels taken as {ASSUMED_GSD_M:g} m"
            return Place(ASSUMED_GSD_M, rpcs=rpcs, notes=(note,))
    except (CRSError, RasterioError, ValueError, KeyError, AttributeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"{where}: its georeference cannot be read ({' '.join(str(error).split())[:120]}); "
            "set one with gdal_edit.py -a_srs, or take it off with gdal_edit.py -unsetgt"
        ) from error
    return Place(ASSUMED_GSD_M, notes=(f"no georeference: pixels taken as {ASSUMED_GSD_M:g} m, products have none",))


def _placed_with_projection(where: str, file: rasterio.DatasetReader) -> Place:
    """By the file's transform, or a world file's; that has no projection, which a .prj beside it may name."""
    sidecar = Path(where).with_suffix(".prj")
    if file.crs is not None or not sidecar.is_file():
        return placed(where, file.crs, file.transform, file.shape)
    crs = CRS.from_wkt(sidecar.read_text(encoding="utf-8", errors="replace")[:PRJ_LIMIT], morph_from_esri_dialect=True)
    found = placed(where, crs, file.transform, file.shape)
    return replace(found, notes=(*found.notes, f"projection from {sidecar.name}"))


def placed(where: str, crs: CRS | None, affine: Affine, shape: tuple[int, int]) -> Place:
    """The place of `shape` pixels under an affine transform. InputError where that is none."""
    if not all(map(math.isfinite, affine[:6])) or affine.determinant == 0:
        raise InputError(f"{where}: its geotransform {tuple(affine[:6])} is none, wanted finite pixels of some size")
    if crs is not None and crs.is_geographic:
        _refuse_beyond_poles(where, affine, shape)
    gsd_m, notes = gsd(crs, affine, shape)
    if not 0 < gsd_m < math.inf:
        raise InputError(f"{where}: its pixels are {gsd_m:g} m wide, wanted a size above 0; mend its georeference")
    wkt = crs.to_wkt() if crs is not None else None
    return Place(gsd_m, wkt, tuple(affine)[:6], notes=notes)


def gsd(crs: CRS | None, affine: Affine, shape: tuple[int, int]) -> tuple[float, tuple[str, ...]]:
    """Side in metres of a square of the area of the pixel in the middle, and what is to be said about it."""
    side = math.sqrt(abs(affine.determinant))
    if crs is None:
        return side, ("no projection named: pixels taken to be in metres",)
    if not (crs.is_geographic or crs.is_projected):
        return side, (f"{_kind(crs)}: pixels taken to be in metres, no place on the Earth",)
    true_m = _true_side_m(crs, affine, shape)
    if crs.is_geographic:
        return true_m, ()
    nominal_m = side * crs.linear_units_factor[1]
    if math.isfinite(true_m) and abs(nominal_m / true_m - 1) > TRUE_SCALE_TOLERANCE:
        return true_m, (f"pixels of {nominal_m:.4g} m on the map are {true_m:.4g} m on the ground",)
    return nominal_m, ()


def _true_side_m(crs: CRS, affine: Affine, shape: tuple[int, int]) -> float:
    """The middle pixel, measured on a plane that touches the ellipsoid there (azimuthal equidistant)."""
    row, col = shape[0] / 2, shape[1] / 2
    corners = [_at(affine, *at) for at in ((col, row), (col + 1, row), (col, row + 1))]
    xs, ys = (list(values) for values in zip(*corners, strict=True))
    try:
        lon, lat = transform(crs, CRS.from_epsg(4326), xs[:1], ys[:1])
    except CPLE_BaseError:  # the middle lies outside of the projection, as off the disc of a geostationary picture
        return math.inf
    if not (math.isfinite(lon[0]) and math.isfinite(lat[0])):
        return math.inf
    plane = CRS.from_proj4(f"+proj=aeqd +lat_0={lat[0]!r} +lon_0={lon[0]!r} +datum=WGS84 +units=m")
    east, north = transform(crs, plane, xs, ys)
    right = np.array([east[1] - east[0], north[1] - north[0]])
    down = np.array([east[2] - east[0], north[2] - north[0]])
    return math.sqrt(abs(right[0] * down[1] - right[1] * down[0]))


def _refuse_beyond_poles(where: str, affine: Affine, shape: tuple[int, int]) -> None:
    height, width = shape
    lats = [_at(affine, *corner)[1] for corner in ((0, 0), (width, 0), (0, height), (width, height))]
    pixel = abs(affine.d) + abs(affine.e)  # grids of pixel centres reach half a pixel beyond
    if max(map(abs, lats)) > 90 + pixel or abs(sum(lats) / 4) >= 90:
        raise InputError(f"{where}: reaches latitude {max(lats, key=abs):.6g}, wanted -90 to 90; mend its georeference")


def _by_points(where: str, points: list[rasterio.control.GroundControlPoint], crs: CRS | None) -> Place:
    gcps = tuple((p.row, p.col, p.x, p.y, p.z or 0.0) for p in points)
    gsd_m, note = ASSUMED_GSD_M, f"pixels taken as {ASSUMED_GSD_M:g} m"
    if len(points) >= 3 and crs is not None:
        middle = (max(p.row for p in points), max(p.col for p in points))
        found = placed(where, crs, from_gcps(points), (int(middle[0]), int(middle[1])))
        gsd_m, note = found.gsd_m, f"pixels of about {found.gsd_m:.4g} m"
    said = f"placed by {len(gcps)} ground control points, which go on to the products; {note}"
    return Place(gsd_m, crs.to_wkt() if crs else None, gcps=gcps, notes=(said,))


def _at(affine: Affine, col: float, row: float) -> tuple[float, float]:
    return affine.a * col + affine.b * row + affine.c, affine.d * col + affine.e * row + affine.f


def _kind(crs: CRS) -> str:
    return "geocentric coordinates" if "GEOCCS" in crs.to_wkt() else "a site grid (engineering coordinates)"
