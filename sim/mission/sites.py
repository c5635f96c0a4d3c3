"""A mission's applications and sites -> what goes up for one scene: sites in its pixels, and where its corners lie."""

from rasterio.crs import CRS
from rasterio.errors import CRSError, RasterioError
from rasterio.transform import Affine
from rasterio.warp import transform

from payload.apps.settings import AppPlan, Corners, PlacedSite
from payload.link.app_record import PARTS_OF_A_DEGREE
from payload.scene import SceneInfo
from sim.mission.regions import WGS84, boxes_of
from sim.mission.spec import Mission


def plan_of(mission: Mission, info: SceneInfo) -> AppPlan | None:
    """What the applications of a mission are told of a scene; None where it flies none. InputError where a site is in
    degrees and the scene has no georeference."""
    if not mission.apps:
        return None
    placed = (
        PlacedSite(number, site.name, box, site.ndvi)
        for number, site in enumerate(mission.sites)
        for box in boxes_of(site.area, info)[:1]
    )
    return AppPlan(mission.apps, tuple(placed), corners_of(info), mission.alerts, bool(mission.sites))


def corners_of(info: SceneInfo) -> Corners | None:
    """Longitude and latitude of the scene's corners, as navigation knows them; None where the scene has no place."""
    if info.transform is None or info.crs_wkt is None:
        return None
    affine, rows, cols = Affine(*info.transform), (0, info.height_px), (0, info.width_px)
    points = [affine @ (col, row) for row in rows for col in cols]
    try:
        xs, ys = transform(CRS.from_wkt(info.crs_wkt), WGS84, *zip(*points, strict=True))
        corners = [(round(x * PARTS_OF_A_DEGREE), round(y * PARTS_OF_A_DEGREE)) for x, y in zip(xs, ys, strict=True)]
    except (CRSError, RasterioError, ValueError, OverflowError):  # coordinates of no place on the Earth
        return None
    longitudes = [x for x, _ in corners]
    if max(longitudes) - min(longitudes) > 180 * PARTS_OF_A_DEGREE:  # across the antimeridian: nothing between to count
        return None
    return corners[0], corners[1], corners[2], corners[3]
