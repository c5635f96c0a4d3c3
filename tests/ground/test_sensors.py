"""Sensors on the ground: the shipped files, missions that name one, scenes read by one, figures by role."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from rasterio.enums import ColorInterp
from typer.testing import CliRunner

from payload.bundle import load_bundle
from payload.errors import InputError
from payload.scene import SceneInfo
from payload.sensor import SENTINEL2, SENTINEL2_RGBN, Sensor, sensor_of
from sim.commands.root import app
from sim.metrics.distortion import SceneQuality, tile_figures
from sim.mission.spec import load_mission, mission_file
from sim.products.band_facts import band_tags, colours, picture_bands
from sim.products.quicklooks import Quicklooks
from sim.products.rasters import PictureWriter
from sim.scenes.imager.sensor_files import load_sensor, sensor_file, shipped_sensors
from sim.scenes.open_scene import open_scene

ROOT = Path(__file__).parents[2]
PHISAT2, RADAR, PAN = load_sensor("phisat2"), load_sensor("sentinel1-grd"), load_sensor("pan")


def write(path: Path, values: np.ndarray, names: tuple[str, ...] = (), **profile: Any) -> str:
    with rasterio.open(
        path, "w", driver="GTiff", count=len(values), height=values.shape[1], width=values.shape[2],
        dtype=values.dtype, **profile,
    ) as file:  # fmt: skip
        file.write(values)
        if names:
            file.descriptions = names
    return str(path)


def ramp(bands: int, low: float, high: float, dtype: str = "uint16") -> np.ndarray:
    return np.linspace(low, high, bands * 64 * 64).reshape(bands, 64, 64).astype(dtype)


@pytest.mark.parametrize("name", shipped_sensors())
def test_shipped_sensors_are_called_as_their_files(name: str) -> None:
    sensor = load_sensor(name)
    assert sensor.name == name and sensor.title
    assert f"`{name}`" in (ROOT / "docs" / "sensors.md").read_text(encoding="utf-8")


def test_the_files_of_sentinel_2_say_what_the_payload_knows() -> None:
    assert load_sensor("sentinel2-rgbn") == SENTINEL2_RGBN
    assert load_sensor("sentinel2-l1c-13").bands == tuple(SENTINEL2.values())
    assert load_sensor("sentinel2-l2a-12").names == tuple(name for name in SENTINEL2 if name != "B10")


def run(*words: str) -> Any:
    return CliRunner().invoke(app, words)


def test_sensors_are_listed_and_shown() -> None:
    assert [line.split()[0] for line in run("sensors").stdout.splitlines()[1:]] == shipped_sensors()
    assert len(json.loads(run("sensors", "phisat2", "--json").stdout)["bands"]) == 8
    assert "dB = 0.01 x count - 60" in run("sensors", "sentinel1-grd").stdout
    assert "'phisat3': no such file, and no sensor of that name; did you mean 'phisat2'?" in str(
        run("sensors", "phisat3").exception
    )


def test_an_unknown_key_of_a_sensor_s_file_is_named_with_it(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text("gain = 2\n" + sensor_file("pan").read_text(encoding="utf-8"), encoding="utf-8")
    with pytest.raises(InputError, match=r"mine\.toml: unknown key 'gain'; valid here: bits, signed, name, kind"):
        load_sensor(path)


def mission(tmp_path: Path, imager: str) -> Path:
    text = mission_file("sentinel2").read_text(encoding="utf-8")
    path = tmp_path / "m.toml"
    path.write_text(text.replace("[imager]\n", f"[imager]\n{imager}\n", 1), encoding="utf-8")
    return path


def test_a_mission_s_imager_names_its_sensor_by_name_or_by_a_file_beside_it(tmp_path: Path) -> None:
    assert load_mission("sentinel2").imager.takes == SENTINEL2_RGBN
    (tmp_path / "own.toml").write_text(sensor_file("phisat2").read_text(encoding="utf-8"), encoding="utf-8")
    for named in ("phisat2", "own.toml"):
        imager = load_mission(mission(tmp_path, f'sensor = "{named}"')).imager
        assert imager.takes == PHISAT2 and (imager.bands, imager.bits) == (8, 12)


def test_a_mission_that_states_other_bands_than_its_sensor_has_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.toml"
    text = mission_file("sentinel2").read_text(encoding="utf-8")
    path.write_text(text.replace("[imager]\n", '[imager]\nsensor = "phisat2"\n').replace("bands = 4", "bands = 7"))
    with pytest.raises(InputError, match=r"bands is 7, sensor phisat2 has 8; leave bands out"):
        load_mission(path)


def test_a_bundle_of_another_sensor_than_the_mission_s_is_said_in_one_line(
    tmp_path: Path,
) -> None:
    path = mission(tmp_path, 'sensor = "phisat2"')
    for command in (["downlink", "--scene", "demo:64"], ["mission", "--scenes", "demo:1"]):
        said = str(run(*command, "--mission", str(path), "--out", str(tmp_path / "out")).exception)
        assert "images with sensor phisat2 (8 bands), bundle edge is of sentinel2-rgbn (4 bands)" in said
        assert "fly a bundle of phisat2, or a mission whose imager names sentinel2-rgbn" in said
    assert not (tmp_path / "out").exists()


def test_a_scene_without_the_bundle_s_bands_says_which_scene_or_bundle_would_do(tmp_path: Path) -> None:
    four = write(tmp_path / "four.tif", ramp(4, 300, 3000), SENTINEL2_RGBN.names)
    with pytest.raises(InputError) as caught:
        open_scene(four, sensor=PHISAT2)
    assert "has 4 band(s) (B02, B03, B04, B08), wanted PAN, B, G, R, RE1, RE2, RE3, NIR" in str(caught.value)
    assert "give a scene of sensor phisat2, or a bundle (--bundle) whose bands the file has" in str(caught.value)
    with pytest.raises(InputError, match="fly a bundle of four bands"):
        open_scene("demo:64", sensor=PHISAT2)


def test_bands_are_found_by_the_sensor_s_names_or_roles(tmp_path: Path) -> None:
    names = ("nir", "R", "G", "B", "RE1", "rededge075", "RE3", "PAN")
    values = ramp(8, 300, 3000)
    with open_scene(write(tmp_path / "p.tif", values, names), sensor=PHISAT2) as scene:
        assert scene.info.bands == PHISAT2.names and scene.info.sensor == PHISAT2
        assert np.array_equal(scene.read(0, 0, 64, 64)[0], values[[7, 3, 2, 1, 4, 5, 6, 0]])


def test_radar_in_db_becomes_the_counts_that_its_sensor_states(tmp_path: Path) -> None:
    values = ramp(2, -30, 5, "float32")
    with open_scene(write(tmp_path / "r.tif", values), sensor=RADAR) as scene:
        dn = scene.read(0, 0, 64, 64)[0]
        assert scene.info.bits == 14 and scene.info.nodata == 0
        assert "layers without names: taken in the order of sensor sentinel1-grd, VV, VH" in scene.info.notes[0]
    assert np.abs(RADAR.scale * dn + RADAR.offset - values).max() <= 0.005 + 1e-5


def test_counts_are_kept_and_a_dark_camera_pixel_is_data(tmp_path: Path) -> None:
    values = ramp(1, 0, 4095)
    with open_scene(write(tmp_path / "c.tif", values), sensor=PAN) as scene:
        dn, valid = scene.read(0, 0, 64, 64)
    assert np.array_equal(dn, values) and valid.all()


def test_signed_counts_are_moved_to_dn_from_0(tmp_path: Path) -> None:
    signed = replace(PAN, signed=True, nodata=-2048)
    values = ramp(1, -2048, 2047, "int16")
    with open_scene(write(tmp_path / "s.tif", values), sensor=signed) as scene:
        dn, valid = scene.read(0, 0, 64, 64)
    assert np.array_equal(dn, values.astype(int) + 2048)
    assert np.array_equal(valid, values[0] != -2048)


def test_counts_beyond_the_sensor_s_are_refused_with_the_mend(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"32 % .* beyond sensor pan, which counts 0 to 4095 .* more bits"):
        open_scene(write(tmp_path / "c.tif", ramp(1, 0, 6000)), sensor=PAN)


def test_figures_that_need_a_missing_role_are_absent_and_the_others_are_not() -> None:
    dn = ramp(2, 100, 9000).reshape(2, 64, 64)
    seen = dn + np.uint16(3)
    valid = np.ones((64, 64), bool)
    scene = SceneQuality(RADAR)
    scene.add(dn, seen, valid)
    for figures in (scene.figures(), tile_figures(dn, seen, valid, RADAR)):
        assert np.isnan(figures["ndvi_mae"]) and np.isnan(figures["ndvi_p95"])
        assert figures["psnr_10k_db"] == pytest.approx(20 * np.log10(10_000 / 3))


def test_pictures_take_red_green_and_blue_by_role_and_else_the_first_band() -> None:
    assert picture_bands(PHISAT2) == (3, 2, 1) and picture_bands(SENTINEL2_RGBN) == (2, 1, 0)
    assert picture_bands(RADAR) == (0, 0, 0)
    looks = Quicklooks(SceneInfo("r", 64, 64, RADAR.names, 10.0, sensor=RADAR))
    looks.add(0, ramp(2, 1, 999), np.ones((64, 64), bool), ramp(2, 1, 999), np.ones((64, 64), bool))


def test_products_say_unit_scale_and_wavelengths_of_the_sensor(tmp_path: Path) -> None:
    assert colours(PHISAT2)[:4] == [ColorInterp.pan, ColorInterp.blue, ColorInterp.green, ColorInterp.red]
    assert colours(sensor_of(("B05", "B8A", "B09", "B12"))) == [
        ColorInterp.rededge, ColorInterp.nir, ColorInterp.other_ir, ColorInterp.swir,
    ]  # fmt: skip
    assert band_tags(RADAR.bands[0]) == {}
    signed = replace(RADAR, signed=True, bits=15, nodata=None)
    for sensor, offset in ((RADAR, -60.0), (signed, -60.0 - 163.84)):
        _written(tmp_path / f"{offset}.tif", sensor)
        with rasterio.open(tmp_path / f"{offset}.tif") as file:
            assert (file.units, file.scales) == (("dB", "dB"), (0.01, 0.01))
            assert file.offsets == pytest.approx((offset, offset))


def _written(path: Path, sensor: Sensor) -> None:
    with PictureWriter(path, SceneInfo("r", 64, 64, sensor.names, 10.0, sensor=sensor)) as writer:
        writer.write_strip(0, ramp(2, 1, 999), np.ones((64, 64), bool))


def test_a_scene_whose_bands_are_not_its_sensor_s_has_those_of_its_names() -> None:
    assert SceneInfo("a", 8, 8, ("B05",), 10.0).sensor.place_of("rededge071") == 0
    assert SceneInfo("a", 8, 8, ("X",), 10.0, sensor=PHISAT2).sensor.names == ("X",)
    assert load_bundle("edge").sensor == SceneInfo("a", 8, 8, SENTINEL2_RGBN.names, 10.0).sensor
