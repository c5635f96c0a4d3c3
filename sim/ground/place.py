"""What the ground knows of a scene's grid and place: its header, or, where none arrived, the tiles alone."""

from dataclasses import replace

import rasterio
from rasterio.errors import CRSError
from rasterio.rpc import RPC

from payload.bundle import Bundle
from payload.scene import SceneInfo
from sim.ground.reception import SceneReception


def scene_info(scene: SceneReception, bundle: Bundle) -> SceneInfo:
    """The scene as its header describes it. Without one: no place, no time, a whole number of tiles."""
    if scene.header is None:
        rows, cols = scene.grid
        side = bundle.tile_px
        size, sensor = (rows * side, cols * side), bundle.sensor
        return SceneInfo(name_of(scene), *size, bundle.bands, 0.0, sensor.bits, sensor=sensor)
    info = scene.header.info
    return replace(info, sensor=bundle.sensor, crs_wkt=wkt_of(info.crs_wkt), rpcs=rpcs_of(info.rpcs))


def rpcs_of(said: tuple[tuple[str, str], ...]) -> tuple[tuple[str, str], ...]:
    """Rational polynomials as a scene header has them; none where one is missing or no number."""
    try:
        return said if said and RPC.from_gdal(dict(said)) else ()
    except (KeyError, ValueError):
        return ()


def name_of(scene: SceneReception) -> str:
    """What to call a scene: the name in its header, or its id."""
    if scene.header is not None and scene.header.info.name:
        return scene.header.info.name
    return "scene of no id" if scene.scene_id is None else f"scene {scene.scene_id:08x}"


def wkt_of(text: str | None) -> str | None:
    """The WKT of a CRS as a scene header has it; None, too, where it is no CRS that this ground
    knows."""
    try:
        return rasterio.crs.CRS.from_user_input(text).to_wkt() if text else None
    except CRSError:
        return None
