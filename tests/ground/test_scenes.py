"""GeoTIFFs as scenes: every window equals the file, and every unusable file gives one line to act on."""

import math
import os
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.transform import from_origin

from payload.errors import InputError
from payload.sensor import RGBN, sensor_of
from payload.tiles import split
from sim.scenes.open_scene import open_scene

HEIGHT, WIDTH = 150, 210
DATA = Path(os.environ.get("NADIR_DATA", Path(__file__).parents[2].parent / "shared" / "data"))


def picture(count: int = 4, dtype: str = "uint16") -> np.ndarray:
    return np.random.default_rng(3).integers(1, 250, (count, HEIGHT, WIDTH)).astype(dtype)


def write_tif(path: Path, values: np.ndarray, names: tuple[str, ...] | None = RGBN, **profile: Any) -> Path:
    place = {"crs": "EPSG:32631", "transform": from_origin(500_000, 5_000_000, 10, 10)} | profile
    with rasterio.open(
        path, "w", driver="GTiff", count=len(values), height=values.shape[1], width=values.shape[2],
        dtype=values.dtype, **place,
    ) as file:  # fmt: skip
        file.write(values)
        if names:
            file.descriptions = names
    return path


def refused(where: Path | str, *words: str, **how: Any) -> None:
    """Opening gives one line that holds the words."""
    with pytest.raises(InputError) as caught:
        open_scene(str(where), **how).close()
    message = str(caught.value)
    assert "\n" not in message and len(message) < 400
    for word in (str(where), *words):
        assert word in message, message


def test_what_is_read_is_what_was_written(tmp_path: Path) -> None:
    values = picture()
    with open_scene(str(write_tif(tmp_path / "a.tif", values, nodata=0))) as scene:
        dn, valid = scene.read(0, 0, HEIGHT, WIDTH)
        info = scene.info
    assert (dn == values).all() and valid.all() and dn.dtype == np.uint16
    assert (info.name, info.height_px, info.width_px, info.bands) == ("a", HEIGHT, WIDTH, RGBN)
    assert (info.gsd_m, info.nodata) == (10.0, 0)
    assert info.transform == (10.0, 0.0, 500_000.0, 0.0, -10.0, 5_000_000.0)
    assert rasterio.crs.CRS.from_wkt(info.crs_wkt).to_epsg() == 32631


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_any_window_equals_that_part_of_the_whole(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    values = picture()
    path = write_tif(tmp_path_factory.mktemp("w") / "a.tif", values, tiled=True, blockxsize=64, blockysize=64)
    row, col = data.draw(st.integers(0, HEIGHT - 1)), data.draw(st.integers(0, WIDTH - 1))
    height, width = data.draw(st.integers(1, HEIGHT - row)), data.draw(st.integers(1, WIDTH - col))
    with open_scene(str(path)) as scene:
        dn, valid = scene.read(row, col, height, width)
    assert (dn == values[:, row : row + height, col : col + width]).all()
    assert valid.shape == (height, width)


def test_windows_out_of_the_scene_are_a_mistake(tmp_path: Path) -> None:
    with open_scene(str(write_tif(tmp_path / "a.tif", picture()))) as scene:
        for window in ((0, 0, HEIGHT + 1, 5), (-1, 0, 5, 5), (0, WIDTH - 4, 5, 5)):
            with pytest.raises(ValueError, match="reaches out"):
                scene.read(*window)


def test_tiles_of_a_file_put_together_are_the_file(tmp_path: Path) -> None:
    values = picture()
    with open_scene(str(write_tif(tmp_path / "a.tif", values))) as scene:
        whole = np.zeros((4, 192, 256), np.uint16)
        for tile in split(scene, 64):
            whole[:, tile.row * 64 : tile.row * 64 + 64, tile.col * 64 : tile.col * 64 + 64] = tile.dn * tile.valid
    assert (whole[:, :HEIGHT, :WIDTH] == values).all() and not whole[:, HEIGHT:].any()


@pytest.mark.parametrize(
    "names",
    [
        ("blue", "green", "red", "nir"),
        ("B2", "B3", "B4", "B8"),
        ("b02", "b03", "b04", "b08"),
        ("B2, central wavelength 490 nm", "B3 (560 nm)", "Red", "near_infrared"),
        ("B02; blue", "B03; green", "B04; red", "B08; NIR"),
    ],
)
def test_usual_band_names(tmp_path: Path, names: tuple[str, ...]) -> None:
    with open_scene(str(write_tif(tmp_path / "a.tif", picture(), names))) as scene:
        assert scene.info.bands == RGBN


def test_bands_come_in_the_order_asked_for(tmp_path: Path) -> None:
    values = picture(6)
    path = str(write_tif(tmp_path / "a.tif", values, ("B08", "B04", "SCL", "B03", "B8A", "B02")))
    with open_scene(path) as scene:
        assert (scene.read(0, 0, HEIGHT, WIDTH)[0] == values[[5, 3, 1, 0]]).all()
    with open_scene(path, sensor=sensor_of(("B08", "B8A"))) as scene:
        assert scene.info.bands == ("B08", "B8A")
        assert (scene.read(0, 0, HEIGHT, WIDTH)[0] == values[[0, 4]]).all()


def test_bands_named_by_the_user(tmp_path: Path) -> None:
    values = picture(5)
    path = str(write_tif(tmp_path / "a.tif", values, None))
    with open_scene(path, bands=("nir", "-", "red", "green", "blue")) as scene:
        assert (scene.read(0, 0, HEIGHT, WIDTH)[0] == values[[4, 3, 2, 0]]).all()


def test_a_pixel_is_no_data_only_where_every_band_says_so(tmp_path: Path) -> None:
    values = picture()
    values[:, :, :20] = 0
    values[2, 70, 80] = 0  # dark, but measured in the other bands
    with open_scene(str(write_tif(tmp_path / "a.tif", values, nodata=0))) as scene:
        dn, valid = scene.read(0, 0, HEIGHT, WIDTH)
    expected = np.ones((HEIGHT, WIDTH), bool)
    expected[:, :20] = False
    assert (valid == expected).all()
    assert dn[2, 70, 80] == 0 and any("some bands only" in note for note in scene.info.notes)


def test_without_a_nodata_value_only_black_in_every_band_is_none(tmp_path: Path) -> None:
    values = picture()
    values[:, :, :20] = 0
    values[2, 70, 80] = 0
    with open_scene(str(write_tif(tmp_path / "a.tif", values))) as scene:
        _, valid = scene.read(0, 0, HEIGHT, WIDTH)
    assert not valid[:, :20].any() and valid[:, 20:].all() and scene.info.nodata is None


def test_internal_mask(tmp_path: Path) -> None:
    known = np.random.default_rng(0).random((HEIGHT, WIDTH)) > 0.5
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True):
        path = write_tif(tmp_path / "a.tif", picture())
        with rasterio.open(path, "r+") as file:
            file.write_mask(known)
    with open_scene(str(path)) as scene:
        assert (scene.read(0, 0, HEIGHT, WIDTH)[1] == known).all()


def test_a_mask_that_lies_nowhere_is_one_line(tmp_path: Path, capfd) -> None:
    """rasterio lets GDAL's own error through here: it is none of rasterio's."""
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True):
        path = write_tif(tmp_path / "a.tif", picture())
        with rasterio.open(path, "r+") as file:
            file.write_mask(np.ones((HEIGHT, WIDTH), bool))
    octets = bytearray(path.read_bytes())
    (first,) = struct.unpack_from("<I", octets, 4)  # directory: count of entries, 12 octets each, where the next one is
    (entries,) = struct.unpack_from("<H", octets, first)
    struct.pack_into("<I", octets, first + 2 + 12 * entries, len(octets) + 99_999)
    path.write_bytes(octets)
    refused(path, "damaged", "fetch it again")
    assert "ERROR" not in capfd.readouterr().err


def test_scale_and_offset_of_the_file_are_applied(tmp_path: Path) -> None:
    """Cloud archives store DN with scale 0.0001 and offset -0.1 (reflectance): DN out is 1000 less, never below 0."""
    values = picture() * 8
    path = write_tif(tmp_path / "a.tif", values)
    with rasterio.open(path, "r+") as file:
        file.scales, file.offsets = (0.0001,) * 4, (-0.1,) * 4
    with open_scene(str(path)) as scene:
        assert (scene.read(0, 0, HEIGHT, WIDTH)[0] == np.maximum(values.astype(int) - 1000, 0)).all()


def test_pixel_size_in_metres(tmp_path: Path) -> None:
    """At 60 degrees north a degree of longitude is 55.80 km and one of latitude 111.41 km (WGS 84 tables)."""
    path = write_tif(tmp_path / "a.tif", picture(), crs="EPSG:4326", transform=from_origin(24, 60.00075, 2e-5, 1e-5))
    with open_scene(str(path)) as scene:
        assert scene.info.gsd_m == pytest.approx(math.sqrt(2e-5 * 55_800 * 1e-5 * 111_412), rel=1e-4)
    feet = write_tif(tmp_path / "feet.tif", picture(), crs="EPSG:2225", transform=from_origin(6e6, 2e6, 10, 10))
    with open_scene(str(feet)) as scene:
        assert scene.info.gsd_m == pytest.approx(10 * 1200 / 3937)


@pytest.mark.filterwarnings("error::rasterio.errors.NotGeoreferencedWarning")
def test_no_georeference(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    with pytest.warns(rasterio.errors.NotGeoreferencedWarning):
        write_tif(path, picture(), crs=None, transform=None)
    with open_scene(str(path)) as scene:
        assert scene.info.crs_wkt is None and scene.info.transform is None and scene.info.gsd_m == 10.0


def test_not_there(tmp_path: Path) -> None:
    refused(tmp_path / "none.tif", "not found", "demo")


def test_not_a_raster(tmp_path: Path) -> None:
    (tmp_path / "a.tif").write_text("this is no picture")
    refused(tmp_path / "a.tif", "not readable", "wanted GeoTIFF")


def test_too_few_bands(tmp_path: Path) -> None:
    refused(write_tif(tmp_path / "a.tif", picture(3), RGBN[:3]), "has 3 band(s)", "wanted B02, B03, B04, B08")


def test_no_near_infrared(tmp_path: Path) -> None:
    path = write_tif(tmp_path / "a.tif", picture(), ("B02", "B03", "B04", "B11"))
    refused(path, "no B08 (near infrared)", "--bands")


def test_bands_without_names_must_be_named(tmp_path: Path) -> None:
    path = write_tif(tmp_path / "a.tif", picture(), None)
    refused(path, "none with a known name", "--bands B02,B03,B04,B08")
    with open_scene(str(path), bands=RGBN) as scene:
        assert scene.info.bands == RGBN


def test_names_that_do_not_fit(tmp_path: Path) -> None:
    path = write_tif(tmp_path / "a.tif", picture(), None)
    refused(path, "--bands names 3 of 4", bands=("B02", "B03", "B04"))
    refused(path, "unknown band 'ultraviolet'", bands=("B02", "B03", "B04", "ultraviolet"))
    refused(path, "2 bands are called B02", bands=("B02", "blue", "B04", "B08"))
    refused(write_tif(tmp_path / "b.tif", picture(), ("B02", "B2", "B04", "B08")), "2 bands are called B02", "--bands")


def test_nothing_but_no_data(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="a: all 150 x 210 px are no data"):
        open_scene(str(write_tif(tmp_path / "a.tif", np.zeros((4, HEIGHT, WIDTH), np.uint16), nodata=0)))
    values = np.zeros((4, 700, 700), np.uint16)
    values[:, 699, 0] = 1  # a single pixel far from the middle is enough
    with open_scene(str(write_tif(tmp_path / "b.tif", values, nodata=0))) as scene:
        assert scene.read(0, 0, 700, 700)[1].sum() == 1


def test_a_cut_file_is_refused_where_the_cut_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the cut lies in what is looked at first, it is refused at once; otherwise when it is met."""
    noise = np.random.default_rng(0).integers(1, 65000, (4, 2560, 256)).astype(np.uint16)
    blocks = {"tiled": True, "blockxsize": 256, "blockysize": 256, "compress": "deflate"}
    path = write_tif(tmp_path / "a.tif", noise, None, **blocks)  # without names its directory lies at the front
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * 0.95)])
    refused(path, "damaged at rows 0 to 2559", "fetch it again", bands=RGBN)
    monkeypatch.setattr("sim.scenes.rasters.LOOK_PX", 0)
    with open_scene(str(path), bands=RGBN) as scene:
        assert (scene.read(0, 0, 256, 256)[0] == noise[:, :256]).all()
        with pytest.raises(InputError, match=r"a\.tif: damaged at rows 2304 to 2559 .*fetch it again") as caught:
            scene.read(2304, 0, 256, 256)
    assert "\n" not in str(caught.value)
    path = write_tif(tmp_path / "b.tif", noise, **blocks)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * 0.95)])
    refused(path, "not readable")


def test_blocks_too_large_for_windows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sim.scenes.gdal_files.STRIP_LIMIT_OCTETS", 100_000)
    path = write_tif(tmp_path / "a.tif", picture(), tiled=True, blockxsize=128, blockysize=128)
    refused(path, "stored in blocks of 128 x 128 px", "gdal_translate -of COG")


def test_demo_by_name() -> None:
    with open_scene("demo:300", seed=4) as scene:
        assert (scene.info.height_px, scene.info.width_px, scene.info.bands) == (300, 300, RGBN)
        four = scene.read(100, 100, 50, 50)[0]
    with open_scene("demo:300", seed=5) as scene:
        assert (scene.read(100, 100, 50, 50)[0] != four).any()
    refused("demo:big", "demo:10980")
    refused("demo:30", "64 to 20000")
    refused("demo", "--bands has no use", bands=RGBN)
    refused("demo", "B02, B11; give a scene of it", "--bundle edge", sensor=sensor_of(("B02", "B11")))


@pytest.mark.realdata
@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("ebiederstadt_20190522", (1697, 1284)),
        ("statue_of_unity", (1169, 1240)),
        ("dryspy_20190607", (1206, 1016)),
        ("montcalm_2016-01-12", (537, 679)),
    ],
)
def test_real_scenes_open_without_help(name: str, shape: tuple[int, int]) -> None:
    path = DATA / "scenes" / f"{name}.tif"
    if not path.exists():
        pytest.skip(f"{path.name} is not in the data folder next to the checkout")
    with open_scene(str(path)) as scene, rasterio.open(path) as file:
        assert (scene.info.height_px, scene.info.width_px) == shape
        dn, valid = scene.read(100, 200, 256, 300)
        assert (dn == file.read(window=((100, 356), (200, 500)))).all()
        assert valid.mean() > 0.9 and 5 < scene.info.gsd_m < 21
