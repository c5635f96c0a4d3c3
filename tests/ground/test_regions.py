"""Regions of interest in degrees: PROJ as the oracle for the projection, boxes by hand for the pixels."""

import numpy as np
import pytest
from rasterio.crs import CRS
from rasterio.warp import transform

from payload.errors import InputError
from payload.policy import Gate, LonLatRegion, Region
from payload.scene import SceneInfo
from sim.mission import regions


def scene(epsg: int | None, place: tuple[float, ...] | None) -> SceneInfo:
    wkt = None if epsg is None else CRS.from_epsg(epsg).to_wkt()
    return SceneInfo("s", 400, 300, ("B02",), 10.0, crs_wkt=wkt, transform=place)  # type: ignore[arg-type]


@pytest.mark.parametrize(("zone", "south"), [(32, False), (43, False), (50, True), (1, True)])
def test_utm_is_projs_to_a_millimetre(zone: int, south: bool) -> None:
    rng = np.random.default_rng(zone)
    lon = 6.0 * zone - 183.0 + rng.uniform(-3.5, 3.5, 200)
    lat = rng.uniform(0.0, 84.0, 200) * (-0.95 if south else 1.0)
    wanted = transform(CRS.from_epsg(4326), CRS.from_epsg(32700 + zone if south else 32600 + zone), lon, lat)
    a_millimetre = 1e-3
    for found, oracle in zip(regions.utm(lon, lat, zone, south), wanted, strict=True):
        np.testing.assert_allclose(found, oracle, atol=a_millimetre)


def test_a_box_in_a_geographic_scene_by_hand() -> None:
    # pixels of .001 degrees from 10 E, 50 N: 10.05..10.1 E are columns 50..100, 49.9..49.8 N rows 100..200
    info = scene(4326, (0.001, 0.0, 10.0, 0.0, -0.001, 50.0))
    gate = regions.regions_in_pixels(Gate(regions=(LonLatRegion(10.0501, 49.8001, 10.0999, 49.8999),)), info)
    assert gate.regions == (Region(100, 50, 200, 100),)


def test_a_box_in_a_utm_scene_holds_the_point_it_was_drawn_around() -> None:
    east, north = regions.utm(np.array([9.02]), np.array([45.03]), 32, False)
    info = scene(32632, (10.0, 0.0, east[0] - 1000.0, 0.0, -10.0, north[0] + 2000.0))  # the point: row 200, column 100
    (box,) = regions.regions_in_pixels(Gate(regions=(LonLatRegion(9.019, 45.029, 9.021, 45.031),)), info).regions
    assert isinstance(box, Region)
    assert box.top_px < 200 < box.bottom_px
    assert box.left_px < 100 < box.right_px
    assert box.bottom_px - box.top_px == pytest.approx(222 / 10, abs=2)  # .002 degrees of latitude are 222 m


def test_boxes_are_clipped_to_the_scene_and_dropped_outside_it() -> None:
    info = scene(4326, (0.001, 0.0, 10.0, 0.0, -0.001, 50.0))
    inside, outside = LonLatRegion(9.0, 49.95, 10.02, 51.0), LonLatRegion(20.0, 49.0, 21.0, 50.0)
    kept = regions.regions_in_pixels(Gate(regions=(outside, inside, Region(1, 2, 3, 4))), info).regions
    assert len(kept) == 2
    assert (kept[0].top_px, kept[0].left_px) == (0, 0)  # type: ignore[union-attr]
    assert kept[1] == Region(1, 2, 3, 4)


@pytest.mark.parametrize(("epsg", "place"), [(None, None), (3035, (10.0, 0.0, 4e6, 0.0, -10.0, 3e6))])
def test_degrees_need_a_projection_that_is_known(epsg: int | None, place: tuple[float, ...] | None) -> None:
    with pytest.raises(InputError, match="give pixels"):
        regions.regions_in_pixels(Gate(regions=(LonLatRegion(9.0, 45.0, 9.1, 45.1),)), scene(epsg, place))


def test_a_region_that_is_no_box_is_refused() -> None:
    with pytest.raises(InputError, match="west < east"):
        LonLatRegion(10.0, 45.0, 9.0, 46.0)
    with pytest.raises(InputError, match="top < bottom"):
        Region(5, 0, 5, 9)
