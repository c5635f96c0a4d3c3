"""ENVI, HDF5 and netCDF cubes: the samples as they were written, bands by wavelength, and what cannot be used."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import rasterio
from numpy.typing import NDArray
from rasterio.shutil import copy

from payload.errors import InputError
from payload.sensor import Band, Sensor
from sim.scenes.open_scene import open_scene

CENTRES = (450.0, 550.0, 650.0, 750.0)
CUBE = Sensor(
    "cube", "hyperspectral", tuple(Band(f"C{i}", 30.0, "", nm, 10.0) for i, nm in enumerate(CENTRES, 1)), 16,
    unit="counts", scale=1.0,
)  # fmt: skip


def samples(bands: int = 4) -> NDArray[np.uint16]:
    return np.random.default_rng(3).integers(0, 60_000, (bands, 40, 50)).astype(np.uint16)


def envi(path: Path, values: NDArray[np.uint16], interleave: str, waves: tuple[float, ...], unit: str) -> Path:
    with rasterio.open(
        path, "w", driver="ENVI", height=values.shape[1], width=values.shape[2], count=len(values),
        dtype=values.dtype, INTERLEAVE=interleave.upper(),
    ) as file:  # fmt: skip
        file.write(values)
    header = path.with_suffix(".hdr")
    text = header.read_text(encoding="utf-8").partition("band names")[0]
    listed = ", ".join(map(str, waves))
    header.write_text(f"{text}wavelength units = {unit}\nwavelength = {{{listed}}}\n", encoding="utf-8")
    return header


@pytest.mark.parametrize("interleave", ["bsq", "bil", "bip"])
@pytest.mark.parametrize(("unit", "per_nm"), [("Nanometers", 1.0), ("Micrometers", 0.001)])
def test_envi_layers_are_taken_by_their_wavelengths(tmp_path: Path, interleave: str, unit: str, per_nm: float) -> None:
    values = samples(5)
    waves = tuple(round(nm * per_nm, 6) for nm in (750.0, 652.0, 900.0, 449.0, 550.0))
    header = envi(tmp_path / "cube.img", values, interleave, waves, unit)
    for given in (header, header.with_suffix(".img")):
        with open_scene(str(given), sensor=CUBE) as scene:
            assert np.array_equal(scene.read(0, 0, 40, 50)[0], values[[3, 4, 1, 0]])
            assert np.array_equal(scene.read(11, 7, 20, 30)[0], values[[3, 4, 1, 0], 11:31, 7:37])
            assert scene.info.bands == CUBE.names and "of 5 layers the 4 nearest to cube's" in scene.info.notes[0]


def test_a_cube_of_another_range_is_refused_with_the_mend(tmp_path: Path) -> None:
    header = envi(tmp_path / "cube.img", samples(), "bsq", (450.0, 550.0, 650.0, 800.0), "Nanometers")
    with pytest.raises(InputError, match=r"no layer within 5 nm of C4 at 750 nm .* sensor file and a bundle of this"):
        open_scene(str(header), sensor=CUBE)
    few = envi(tmp_path / "few.img", samples(2), "bsq", (450.0, 555.0), "Nanometers")
    crowded = replace(CUBE, bands=tuple(replace(band, centre_nm=450.0) for band in CUBE.bands))
    with pytest.raises(InputError, match="its 2 layers are fewer than the bands of sensor cube"):
        open_scene(str(few), sensor=crowded)


def test_a_cube_of_another_number_of_bands_is_told_how_its_bundle_is_made(tmp_path: Path, write_scene) -> None:
    """No wavelengths: nothing but their number tells that the bands are others."""
    write_scene(tmp_path / "cube.tif", samples())
    sensor = replace(CUBE, bands=CUBE.bands[:3])
    words = "has 4 bands, sensor cube 3, .* not say their wavelengths; .* export adapt .* --tables-of edge-hyper"
    with pytest.raises(InputError, match=words):
        open_scene(str(tmp_path / "cube.tif"), sensor=sensor)


def test_an_envi_scale_factor_makes_reflectance(tmp_path: Path) -> None:
    values = np.maximum(samples() // 10, 200)
    header = envi(tmp_path / "cube.img", values, "bsq", CENTRES, "Nanometers")
    header.write_text(header.read_text(encoding="utf-8") + "reflectance scale factor = 5000\n", encoding="utf-8")
    with open_scene(str(header), sensor=replace(CUBE, unit="reflectance", scale=1e-4)) as scene:
        assert np.array_equal(scene.read(0, 0, 40, 50)[0], values * 2)


def test_a_header_without_samples_is_said(tmp_path: Path) -> None:
    (tmp_path / "lone.hdr").write_text("ENVI\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"no samples beside this header, wanted lone or lone\.img; fetch them"):
        open_scene(str(tmp_path / "lone.hdr"), sensor=CUBE)


def netcdf(path: Path, values: NDArray[np.uint16]) -> Path:
    """netCDF 4, whose variables are Band1, Band2, ..."""
    plain = path.with_suffix(".tif")
    with rasterio.open(
        plain, "w", driver="GTiff", height=values.shape[1], width=values.shape[2], count=len(values), dtype="int16"
    ) as file:
        file.write(values.astype(np.int16))
    copy(plain, path, driver="netCDF", FORMAT="NC4")
    return path


@pytest.mark.parametrize("ending", ["nc", "h5"])
def test_the_dataset_that_the_sensor_names_is_read(tmp_path: Path, ending: str) -> None:
    values = samples(1) // 4
    written = netcdf(tmp_path / "a.nc", values)
    path = written.rename(tmp_path / f"cube.{ending}")  # netCDF 4 is HDF5
    one = replace(CUBE, kind="panchromatic", bands=CUBE.bands[:1], dataset="Band1")
    with open_scene(str(path), sensor=one) as scene:
        found = scene.read(0, 0, 40, 50)[0]
    assert np.array_equal(found, values) or np.array_equal(found, values[:, ::-1])  # GDAL writes from the south


def test_a_dataset_that_is_not_named_or_not_there_is_said(tmp_path: Path) -> None:
    path = netcdf(tmp_path / "a.nc", samples(1) // 4)
    with pytest.raises(InputError, match=r'sensor cube names no dataset in it; .* dataset = "\.\.\."'):
        open_scene(str(path), sensor=CUBE)
    with pytest.raises(InputError, match="wanted the dataset absent of cube"):
        open_scene(str(path), sensor=replace(CUBE, dataset="absent"))
