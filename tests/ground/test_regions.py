"""Regions of interest in degrees: boxes by hand, points through PROJ, longitudes as people write them."""

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


def test_a_box_in_a_geographic_scene_by_hand() -> None:
    # pixels of .001 degrees from 10 E, 50 N: 10.05..10.1 E are columns 50..100, 49.9..49.8 N rows 100..200
    info = scene(4326, (0.001, 0.0, 10.0, 0.0, -0.001, 50.0))
    gate = regions.regions_in_pixels(Gate(regions=(LonLatRegion(10.0501, 49.8001, 10.0999, 49.8999),)), info)
    assert gate.regions == (Region(100, 50, 200, 100),)


def test_a_box_in_a_utm_scene_holds_the_point_it_was_drawn_around() -> None:
    east, north = transform("EPSG:4326", "EPSG:32632", [9.02], [45.03])
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


@pytest.mark.parametrize(("epsg", "place"), [(None, None), (4978, (10.0, 0.0, 4e6, 0.0, -10.0, 3e6))])
def test_degrees_need_a_place_on_the_earth(epsg: int | None, place: tuple[float, ...] | None) -> None:
    with pytest.raises(InputError, match="give pixels"):
        regions.regions_in_pixels(Gate(regions=(LonLatRegion(9.0, 45.0, 9.1, 45.1),)), scene(epsg, place))


@pytest.mark.parametrize("epsg", [32632, 3035, 3857, 32661])
def test_any_projection_that_proj_knows(epsg: int) -> None:
    """Every pixel whose middle lies in the box is in the region, which is no more than two pixels wider."""
    lat0, lon0 = (86.0, 20.0) if epsg == 32661 else (45.0, 9.0)
    (x,), (y,) = transform("EPSG:4326", f"EPSG:{epsg}", [lon0], [lat0])
    info = scene(epsg, (10.0, 0.0, x - 1500, 0.0, -10.0, y + 2000))
    cols, rows = np.meshgrid(np.arange(300) + 0.5, np.arange(400) + 0.5)
    lon, lat = transform(f"EPSG:{epsg}", "EPSG:4326", (x - 1500 + 10 * cols).ravel(), (y + 2000 - 10 * rows).ravel())
    lon, lat = np.array(lon).reshape(400, 300), np.array(lat).reshape(400, 300)
    box = LonLatRegion(lon0 - 0.004, lat0 - 0.003, lon0 + 0.004, lat0 + 0.003)
    inside = (lon > box.west_deg) & (lon < box.east_deg) & (lat > box.south_deg) & (lat < box.north_deg)
    ((region),) = regions.regions_in_pixels(Gate(regions=(box,)), info).regions
    rows_in, cols_in = np.nonzero(inside)
    tight = (rows_in.min(), cols_in.min(), rows_in.max() + 1, cols_in.max() + 1)
    found = (region.top_px, region.left_px, region.bottom_px, region.right_px)  # type: ignore[union-attr]
    assert all(f <= t for f, t in zip(found[:2], tight[:2], strict=True))
    assert all(f >= t for f, t in zip(found[2:], tight[2:], strict=True))
    assert max(abs(f - t) for f, t in zip(found, tight, strict=True)) <= 2


@pytest.mark.parametrize("west", [-75.0, 285.0, 645.0])
@pytest.mark.parametrize("turn", [0.0, 360.0])
def test_longitudes_are_taken_modulo_360(west: float, turn: float) -> None:
    info = scene(4326, (0.001, 0.0, west, 0.0, -0.001, 50.0))
    box = LonLatRegion(-74.9499 + turn, 49.8001, -74.9001 + turn, 49.8999)
    gate = Gate(regions=(box,))
    assert regions.regions_in_pixels(gate, info).regions == (Region(100, 50, 200, 100),)
    assert regions.regions_outside(gate, info) == ()


@pytest.mark.parametrize("west", [179.9, -180.1])
def test_a_box_across_the_antimeridian(west: float) -> None:
    info = scene(4326, (0.001, 0.0, west, 0.0, -0.001, 50.0))  # 179.9 E to 179.8 W
    for box in (
        LonLatRegion(179.9501, 49.8001, -179.9501, 49.8999),
        LonLatRegion(179.9501, 49.8001, 180.0499, 49.8999),
    ):
        assert regions.regions_in_pixels(Gate(regions=(box,)), info).regions == (Region(100, 50, 200, 150),)


def test_a_box_across_the_antimeridian_in_utm() -> None:
    (x,), (y,) = transform("EPSG:4326", "EPSG:32601", [-180.0], [50.0])
    info = scene(32601, (10.0, 0.0, x - 1500.0, 0.0, -10.0, y + 2000.0))  # 180 degrees runs through its middle
    (box,) = regions.regions_in_pixels(Gate(regions=(LonLatRegion(179.995, 49.99, -179.995, 50.01),)), info).regions
    assert isinstance(box, Region) and box.left_px < 150 < box.right_px
    assert box.right_px - box.left_px == pytest.approx(71.7 + 8.9, abs=2)  # 717 m at 50 N, and 222 px turned by 2.3 deg


def test_a_box_round_the_whole_earth_keeps_the_whole_scene() -> None:
    (x,), (y,) = transform("EPSG:4326", "EPSG:32632", [9.0], [45.0])
    info = scene(32632, (10.0, 0.0, x, 0.0, -10.0, y))
    assert regions.regions_in_pixels(Gate(regions=(LonLatRegion(-180, -90, 180, 90),)), info).regions == (
        Region(0, 0, 400, 300),
    )


def test_regions_that_touch_nothing_are_listed() -> None:
    info = scene(4326, (0.001, 0.0, 10.0, 0.0, -0.001, 50.0))
    gate = Gate(
        regions=(LonLatRegion(20.0, 49.0, 21.0, 50.0), LonLatRegion(9.0, 49.0, 11.0, 50.0), Region(400, 0, 500, 9))
    )
    assert len(regions.regions_in_pixels(gate, info).regions) == 1
    first, second = regions.regions_outside(gate, info)
    assert "20 to 21 E, 49 to 50 N lies outside the scene" in first
    assert "rows 400 to 500, columns 0 to 9 lies outside the scene" in second


def test_a_region_that_is_no_box_is_refused() -> None:
    with pytest.raises(InputError, match="west < east"):
        LonLatRegion(10.0, 45.0, 9.0, 46.0)
    with pytest.raises(InputError, match="top < bottom"):
        Region(5, 0, 5, 9)
