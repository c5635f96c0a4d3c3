"""Where a scene and its tiles lie on the Earth: `footprint.geojson` (RFC 7946, WGS 84, longitude first).

The corners of all tiles are placed once: by the affine transform, by ground control points or by RPCs at height 0.
Every outline goes through the corners along its edge, so that edges that bend on the globe bend here.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio._err import CPLE_BaseError  # PROJ's own errors, which rasterio lets through
from rasterio.control import GroundControlPoint
from rasterio.errors import RasterioError
from rasterio.rpc import RPC
from rasterio.transform import AffineTransformer, GCPTransformer, RPCTransformer
from rasterio.warp import transform

from payload.scene import SceneInfo
from sim.ground.reception import SceneReception
from sim.products.provenance import STATES, state_of

WGS84 = rasterio.crs.CRS.from_epsg(4326)
#: Of longitudes and latitudes: a centimetre on the ground.
DECIMALS = 7
Ring = list[list[float]]


@dataclass(frozen=True, eq=False)
class Placed:
    """Corners of all tiles: longitude and latitude float64 [rows + 1, cols + 1]. `by`: what places them."""

    longitude: NDArray[np.float64]
    latitude: NDArray[np.float64]
    by: str

    @property
    def outline(self) -> Ring:
        rows, cols = self.longitude.shape
        return self.ring(0, rows - 1, 0, cols - 1)

    def ring(self, top: int, bottom: int, left: int, right: int) -> Ring:
        """The edge of a rectangle of tiles between corners, counter-clockwise from its upper left one, closed."""
        down = [(row, left) for row in range(top, bottom)]
        along = [(bottom, col) for col in range(left, right)]
        up = [(row, right) for row in range(bottom, top, -1)]
        back = [(top, col) for col in range(right, left, -1)]
        points = [[float(self.longitude[at]), float(self.latitude[at])] for at in (*down, *along, *up, *back)]
        return [*points, points[0]] if _turns_left(points) else [points[0], *points[:0:-1], points[0]]

    @property
    def bbox(self) -> list[float]:
        """West, south, east, north; west is greater than east across the antimeridian."""
        longitudes, latitudes = self.longitude, self.latitude
        west, east = float(longitudes.min()), float(longitudes.max())
        if east - west > 180:
            west, east = float(longitudes[longitudes > 0].min()), float(longitudes[longitudes < 0].max())
        return [west, float(latitudes.min()), east, float(latitudes.max())]


def place_corners(info: SceneInfo, tile_px: int) -> Placed | None:
    """Corners of the tiles of a scene; None where it has no place on the Earth."""
    rows = np.append(np.arange(0, info.height_px, tile_px), info.height_px)
    cols = np.append(np.arange(0, info.width_px, tile_px), info.width_px)
    grid = np.meshgrid(rows, cols, indexing="ij")
    try:
        crs, xs, ys, by = _projected(info, grid[0].ravel(), grid[1].ravel())
        if crs is None:
            return None
        at = transform(crs, WGS84, xs, ys)
        longitude, latitude = (np.array(axis, np.float64).reshape(grid[0].shape) for axis in at)
    except (RasterioError, CPLE_BaseError):
        return None
    if not (np.isfinite(longitude).all() and np.isfinite(latitude).all()):
        return None
    return Placed(longitude.round(DECIMALS), latitude.round(DECIMALS), by)


def footprint(scene: SceneReception, info: SceneInfo, placed: Placed) -> dict[str, Any]:
    """GeoJSON: the scene, then the tiles of each state that there are."""
    about = {"scene": info.name, "sensed_at": info.sensed_at, "placed_by": placed.by}
    outline = _feature(_geometry([placed.outline]), about | {"what": "scene"})
    return {"type": "FeatureCollection", "bbox": placed.bbox, "features": [outline, *_of_states(scene, placed)]}


def geometry(placed: Placed) -> dict[str, Any]:
    """The scene's outline."""
    return _geometry([placed.outline])


def tile_geometry(placed: Placed, row: int, col: int) -> dict[str, Any]:
    """The outline of one tile."""
    return _geometry([placed.ring(row, row + 1, col, col + 1)])


def _of_states(scene: SceneReception, placed: Placed) -> Iterator[dict[str, Any]]:
    rows, cols = (size - 1 for size in placed.longitude.shape)
    names = [[state_of(scene, (row, col))[0] for col in range(cols)] for row in range(rows)]
    for state in STATES:
        runs = [(row, *run) for row in range(rows) for run in _runs(names[row], state.name)]
        if runs:
            rings = [placed.ring(row, row + 1, left, right) for row, left, right in runs]
            tiles = sum(right - left for _, left, right in runs)
            about = {"what": "tiles", "state": state.name, "tiles": tiles, "meaning": state.meaning}
            yield _feature(_geometry(rings), about | {"colour": f"#{state.colour}"})


def _runs(names: list[str], wanted: str) -> Iterator[tuple[int, int]]:
    """Neighbours of one state: first column, and the one behind the last."""
    edges = np.flatnonzero(np.diff(np.array([False, *(name == wanted for name in names), False]).astype(np.int8)))
    yield from ((int(a), int(b)) for a, b in zip(edges[::2], edges[1::2], strict=True))


def _projected(info: SceneInfo, rows: Any, cols: Any) -> tuple[Any, Any, Any, str]:
    """CRS, x and y of corners of pixels, and what places them; CRS None where nothing does."""
    crs = rasterio.crs.CRS.from_wkt(info.crs_wkt) if info.crs_wkt else None
    if info.transform is not None and crs is not None and (crs.is_projected or crs.is_geographic):
        return crs, *AffineTransformer(rasterio.Affine(*info.transform)).xy(rows, cols, offset="ul"), "affine transform"
    if len(info.gcps) >= 3 and crs is not None:
        with GCPTransformer([GroundControlPoint(*point) for point in info.gcps]) as by_points:
            return crs, *by_points.xy(rows, cols, offset="ul"), "ground control points"
    if info.rpcs:
        with RPCTransformer(RPC.from_gdal(dict(info.rpcs))) as by_rpcs:
            return WGS84, *by_rpcs.xy(rows, cols, offset="ul"), "RPCs at height 0"
    return None, None, None, ""


def _turns_left(points: Ring) -> bool:
    """Whether a ring that is not closed runs counter-clockwise."""
    x, y = np.array(points).T
    x = np.where((np.ptp(x) > 180) & (x < 0), x + 360, x)
    return float((x * np.roll(y, -1) - np.roll(x, -1) * y).sum()) > 0


def _geometry(rings: list[Ring]) -> dict[str, Any]:
    """A polygon or several; cut in two at the antimeridian, as RFC 7946 wants it."""
    pieces = [piece for ring in rings for piece in _cut(ring)]
    if len(pieces) == 1:
        return {"type": "Polygon", "coordinates": [pieces[0]]}
    return {"type": "MultiPolygon", "coordinates": [[piece] for piece in pieces]}


def _cut(ring: Ring) -> list[Ring]:
    longitudes = [x for x, _ in ring]
    if max(longitudes) - min(longitudes) <= 180:
        return [ring]
    unrolled = [[x + 360 if x < 0 else x, y] for x, y in ring]
    east = [[min(x, 180.0), y] for x, y in _with_crossings(unrolled) if x <= 180]
    west = [[max(x, 180.0) - 360, y] for x, y in _with_crossings(unrolled) if x >= 180]
    return [[*piece, piece[0]] if piece[0] != piece[-1] else piece for piece in (east, west) if len(piece) > 2]


def _with_crossings(ring: Ring) -> Ring:
    """The ring with a point where it crosses longitude 180."""
    points: Ring = []
    for (x0, y0), (x1, y1) in pairwise(ring):
        points.append([x0, y0])
        if (x0 - 180) * (x1 - 180) < 0:
            points.append([180.0, round(y0 + (y1 - y0) * (180 - x0) / (x1 - x0), DECIMALS)])
    return [*points, ring[-1]]


def _feature(shape: dict[str, Any], about: dict[str, Any]) -> dict[str, Any]:
    return {"type": "Feature", "geometry": shape, "properties": about}
