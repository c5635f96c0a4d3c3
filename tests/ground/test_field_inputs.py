"""Rasters as people have them: number types, scale and offset tags, sidecars, layer names, fill, masks.

Each case is a kind of file that users of neighbouring tools reported. The right values are written down by hand.
"""

import logging
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from numpy.typing import NDArray
from rasterio.control import GroundControlPoint
from rasterio.crs import CRS
from rasterio.enums import ColorInterp, WktVersion
from rasterio.rpc import RPC
from rasterio.transform import Affine, from_origin

from payload.errors import InputError
from payload.policy import Gate, LonLatRegion
from payload.scene import SceneInfo
from payload.sensor import RGBN
from sim.ground.place import rpcs_of
from sim.mission.regions import regions_in_pixels
from sim.products.footprint import place_corners
from sim.products.rasters import CloudProbabilityWriter, PictureWriter
from sim.scenes.open_scene import open_scene

SIDE = 96
TYPICAL = np.array([350, 600, 540, 2090])[:, None, None]  # DN of a vegetated scene


def pixels() -> NDArray[np.uint16]:
    """uint16 [4, n, n], DN = reflectance x 10 000, nothing is 0."""
    noise = np.random.default_rng(11).normal(0, 30, (4, SIDE, SIDE))
    return np.clip(TYPICAL + noise, 1, None).astype(np.uint16)


def write(path: Path, values: NDArray[Any], names: tuple[str, ...] | None = RGBN, **profile: Any) -> Path:
    place = {"crs": "EPSG:32643", "transform": from_origin(362_610, 2_420_210, 10, 10)} | profile
    with rasterio.open(
        path, "w", driver="GTiff", count=len(values), height=values.shape[1], width=values.shape[2],
        dtype=values.dtype, **place,
    ) as file:  # fmt: skip
        file.write(values)
        if names:
            file.descriptions = names
    return path


def tagged(path: Path, scales: tuple[float, ...], offsets: tuple[float, ...]) -> Path:
    with rasterio.open(path, "r+") as file:
        file.scales, file.offsets = scales, offsets
    return path


def sidecar(path: Path, band: str = "", top: str = "") -> Path:
    """An .aux.xml as GDAL writes it beside a file it must not change; {i} and {name} are filled in."""
    bands = "".join(
        f'<PAMRasterBand band="{i}">{band.format(i=i, name=name)}</PAMRasterBand>' for i, name in enumerate(RGBN, 1)
    )
    Path(f"{path}.aux.xml").write_text(f"<PAMDataset>{top}{bands if band else ''}</PAMDataset>")
    return path


def read(path: Path, **how: Any) -> tuple[NDArray[np.uint16], NDArray[np.bool_], tuple[str, ...]]:
    with open_scene(str(path), **how) as scene:
        dn, valid = scene.read(0, 0, scene.info.height_px, scene.info.width_px)
        return dn, valid, scene.info.notes


def refused(path: Path, *words: str, **how: Any) -> str:
    with pytest.raises(InputError) as caught:
        open_scene(str(path), **how).close()
    message = str(caught.value)
    assert "\n" not in message and len(message) < 420, message
    for word in words:
        assert word in message, message
    return message


def remedied(path: Path, message: str) -> NDArray[np.uint16]:
    """The DN when the options that a message names are given."""
    words = message.replace(";", " ").replace(",", ",").split()
    numbers = {name: float(words[words.index(name) + 1]) for name in ("--scale", "--offset") if name in words}
    return read(path, **{name.removeprefix("--"): value for name, value in numbers.items()})[0]


# -- number types ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_floating_point_reflectance_becomes_dn_and_nan_is_no_data(tmp_path: Path, dtype: str) -> None:
    values = (pixels() / 10_000).astype(dtype)
    values[:, :20] = np.nan
    dn, valid, notes = read(write(tmp_path / "a.tif", values, nodata=float("nan")))
    assert not valid[:20].any() and valid[20:].all()
    assert (dn[:, 20:] == pixels()[:, 20:]).all()
    assert any("read as reflectance" in note for note in notes)


def test_nan_needs_no_declaration_and_masks_in_any_band(tmp_path: Path) -> None:
    values = (pixels() / 10_000).astype(np.float32)
    values[3, 5, 6] = np.nan
    values[1, 7, 8] = np.inf
    _, valid, _ = read(write(tmp_path / "a.tif", values))
    assert (valid.size - valid.sum()) == 2 and not valid[5, 6] and not valid[7, 8]


def test_floating_point_dn_stay_dn(tmp_path: Path) -> None:
    dn, _, notes = read(write(tmp_path / "a.tif", pixels().astype(np.float32)))
    assert (dn == pixels()).all() and any("read as DN" in note for note in notes)


def test_floating_point_percent_is_asked_about_and_the_remedy_is_right(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", (pixels() / 100).astype(np.float32))
    message = refused(path, "float32", "neither reflectance nor DN", "--scale 0.01 if it is percent")
    assert (remedied(path, message) == pixels()).all()


@pytest.mark.parametrize("dtype", ["int16", "int32", "uint32"])
def test_whole_numbers_of_other_types_are_dn(tmp_path: Path, dtype: str) -> None:
    values = pixels().astype(dtype)
    values[:, :10] = 0 if dtype == "uint32" else -9999
    dn, valid, notes = read(write(tmp_path / "a.tif", values, nodata=values[0, 0, 0]))
    assert (dn[:, 10:] == pixels()[:, 10:]).all() and not valid[:10].any() and valid[10:].all()
    assert any(f"{dtype} without scale" in note for note in notes)


def test_negative_reflectance_becomes_0_and_is_said(tmp_path: Path) -> None:
    values = pixels().astype(np.int16)
    values[3, :48] = -20
    dn, valid, notes = read(write(tmp_path / "a.tif", values, nodata=-9999))
    assert valid.all() and (dn[3, :48] == 0).all() and (dn[3, 48:] == pixels()[3, 48:]).all()
    assert any("B08: 50.0 % of the samples looked at fall below 0" in note for note in notes)


def test_eight_bits_need_a_scale_and_the_remedy_is_right(tmp_path: Path) -> None:
    values = np.rint(pixels() / 10_000 * 255).astype(np.uint8)
    path = write(tmp_path / "a.tif", values, photometric="MINISBLACK")
    message = refused(path, "uint8", "uint16", "--scale 0.003922 where 255 means reflectance 1")
    dn = remedied(path, message)
    half_a_step = 0.5 * 10_000 / 255 + 1
    assert np.abs(dn.astype(int) - pixels()).max() <= half_a_step


def test_complex_samples_are_refused(tmp_path: Path) -> None:
    refused(write(tmp_path / "a.tif", pixels().astype(np.complex64)), "complex64", "wanted whole or floating-point")


def test_64_bit_samples_are_read(tmp_path: Path) -> None:
    assert (read(write(tmp_path / "a.tif", pixels().astype(np.int64)))[0] == pixels()).all()


# -- scale and offset --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scale", "offset"),
    [
        (1.0, -1000.0),  # both in DN
        (0.0001, -0.1),  # both in reflectance, as in cloud archives
        (0.0001, -1000.0),  # the offset counted in stored units
    ],
)
def test_an_offset_is_taken_in_the_unit_it_is_in(tmp_path: Path, scale: float, offset: float) -> None:
    path = tagged(write(tmp_path / "a.tif", pixels() + np.uint16(1000)), (scale,) * 4, (offset,) * 4)
    dn, valid, notes = read(path)
    assert (dn == pixels()).all() and valid.all()
    assert any(f"scale {scale:g} and offset {offset:g} of the file" in note for note in notes)


def test_each_band_has_its_own_offset(tmp_path: Path) -> None:
    offsets = (-1001.0, -1002.0, 0.0, -1007.0)
    stored = (pixels() - np.array(offsets)[:, None, None]).astype(np.uint16)
    assert (read(tagged(write(tmp_path / "a.tif", stored), (1.0,) * 4, offsets))[0] == pixels()).all()


def test_scales_of_other_sensors_are_reflectance(tmp_path: Path) -> None:
    """Landsat's collection 2: reflectance = stored x 0.0000275 - 0.2."""
    stored = np.rint((pixels() / 10_000 + 0.2) / 0.0000275).astype(np.uint16)
    dn = read(tagged(write(tmp_path / "a.tif", stored), (0.0000275,) * 4, (-0.2,) * 4))[0]
    assert np.abs(dn.astype(int) - pixels()).max() <= 1


@pytest.mark.filterwarnings("error::RuntimeWarning")
@pytest.mark.parametrize(
    ("scales", "offsets", "words"),
    [
        ((float("nan"),) * 4, (0.0,) * 4, "scale nan and offset 0 of the file"),
        ((0.0,) * 4, (0.0,) * 4, "scale 0 and offset 0 of the file"),
        ((-0.0001,) * 4, (0.0,) * 4, "scale -0.0001"),
        ((float("inf"),) * 4, (0.0,) * 4, "scale inf"),
        ((0.0001,) * 4, (float("nan"),) * 4, "offset nan"),
        ((0.0001,) * 3 + (0.0,), (0.0,) * 4, "scale 0 "),
        ((1.0,) * 4, (-0.1,) * 4, "scale 1 of the file counts in DN, offset -0.1 in reflectance"),
        ((0.0001, 1.0, 0.0001, 0.0001), (0.0,) * 4, "different units"),
        ((0.0001,) * 4, (-0.1, -1000.0, -0.1, -0.1), "different units"),
        ((0.003,) * 4, (0.0,) * 4, "half of the reflectance is above"),
        ((1e-9,) * 4, (0.0,) * 4, "scale 1e-09"),
        ((1.0,) * 4, (60_000.0,) * 4, "offset 60000"),
        ((0.01,) * 4, (-1000.0,) * 4, "shifts reflectance by -10"),
        ((100.0,) * 4, (0.0,) * 4, "at full scale"),
    ],
)
def test_scale_and_offset_that_make_no_sense_are_refused(
    tmp_path: Path, scales: tuple[float, ...], offsets: tuple[float, ...], words: str
) -> None:
    path = tagged(write(tmp_path / "a.tif", pixels()), scales, offsets)
    message = refused(path, words, "--scale", "--offset")
    if "as in --scale" in message:
        assert (remedied(path, message) == pixels()).all()


def test_an_offset_that_was_taken_off_before_is_no_picture(tmp_path: Path) -> None:
    """Three of four bands fell to 0 and the near infrared did not: on the tree before that ran, with exit code 0."""
    path = tagged(write(tmp_path / "a.tif", pixels()), (1.0,) * 4, (-1000.0,) * 4)
    message = refused(path, "100 % of B02 fall to 0 or below", "--scale")
    assert (remedied(path, message) == pixels()).all()


def test_reflectance_that_was_scaled_already_is_not_scaled_again(tmp_path: Path) -> None:
    """What is left of the packed file is its scale: on the tree before, every sample became 0, with exit code 0."""
    path = tagged(write(tmp_path / "a.tif", (pixels() / 10_000).astype(np.float32)), (0.0001,) * 4, (0.0,) * 4)
    assert (remedied(path, refused(path, "with scale 0.0001", "fall to 0 or below")) == pixels()).all()


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_a_scale_to_percent_makes_no_picture_of_a_thousandth(tmp_path: Path, dtype: str) -> None:
    """Stored x scale is percent here, and neither DN nor reflectance."""
    full = np.iinfo(dtype).max
    values = np.rint(pixels() / 10_000 * full).astype(dtype)
    path = tagged(write(tmp_path / "a.tif", values, photometric="MINISBLACK"), (100 / full,) * 4, (0.0,) * 4)
    message = refused(path, "of the file", "--scale")
    if dtype == "uint8":
        assert "98 % of the DN are below 100" in message
        assert np.abs(remedied(path, message).astype(int) - pixels()).max() <= 0.5 * 10_000 / 255 + 1


@pytest.mark.parametrize("of_file", [True, False])
def test_scale_and_offset_by_the_names_of_netcdf(tmp_path: Path, of_file: bool) -> None:
    """xarray leaves them among the tags, of the file or of each band; on the tree before 1000 DN too many, unsaid."""
    path = write(tmp_path / "a.tif", pixels() + np.uint16(1000))
    with rasterio.open(path, "r+") as file:
        for layer in [0] if of_file else range(1, 5):
            file.update_tags(layer, scale_factor="0.0001", add_offset="-0.1")
    dn, _, notes = read(path)
    assert (dn == pixels()).all() and any("scale 0.0001 and offset -0.1 of the file" in note for note in notes)


def test_a_netcdf_scale_that_is_no_number_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", pixels())
    with rasterio.open(path, "r+") as file:
        file.update_tags(scale_factor="ten")
    refused(path, "scale nan and offset 0 of the file")


def test_the_users_scale_and_offset_come_before_the_files(tmp_path: Path) -> None:
    path = tagged(write(tmp_path / "a.tif", pixels() + np.uint16(1000)), (0.0,) * 4, (0.0,) * 4)
    assert (read(path, scale=0.0001, offset=-0.1)[0] == pixels()).all()
    plain = write(tmp_path / "b.tif", pixels() + np.uint16(1000))
    assert (read(plain, offset=-1000.0)[0] == pixels()).all()
    assert (read(plain, offset=-0.1)[0] == pixels()).all()
    refused(plain, "--scale has no use", scale=0.0001) if plain.suffix == ".SAFE" else None


@pytest.mark.parametrize("how", [{"scale": float("nan")}, {"scale": 0.0}, {"scale": 1e6}, {"offset": float("inf")}])
def test_options_without_sense_are_refused_too(tmp_path: Path, how: dict[str, float]) -> None:
    refused(write(tmp_path / "a.tif", pixels()), "as given", **how)


def test_a_usual_scale_that_changes_nothing_is_not_worth_a_word(tmp_path: Path) -> None:
    assert read(tagged(write(tmp_path / "a.tif", pixels()), (0.0001,) * 4, (0.0,) * 4))[2] == ()


def test_samples_at_full_scale_are_said(tmp_path: Path) -> None:
    values = pixels()
    values[0, :24] = 65_535
    notes = read(write(tmp_path / "a.tif", values))[2]
    assert notes == ("B02: 25.0 % of the samples looked at are at full scale (65535)",)


# -- fill and masks ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dtype", "fill"),
    [
        ("uint16", 0), ("uint16", 65_535), ("int16", -9999), ("int16", -32_768), ("int16", 32_767),
        ("int32", 2**31 - 1), ("float32", 0), ("float32", -9999), ("float32", -32_768),
    ],
)  # fmt: skip
def test_undeclared_fill_in_every_band_is_no_data(tmp_path: Path, dtype: str, fill: int) -> None:
    values = (pixels() / 10_000 if dtype == "float32" else pixels()).astype(dtype)
    values[:, :24] = fill
    values[1, 30, 30] = fill  # in one band only: measured
    _, valid, _ = read(write(tmp_path / "a.tif", values))
    assert not valid[:24].any() and valid[24:].all()


@pytest.mark.parametrize("fill", [1e20, 9.96921e36, -3.4028234663852886e38])
@pytest.mark.parametrize("declared", [None, -3.4e38])
def test_floating_point_fill_beyond_any_unit_is_no_data(tmp_path: Path, fill: float, declared: float | None) -> None:
    """netCDF's, other people's, and the lowest number, which is often declared with two digits."""
    values = (pixels() / 10_000).astype(np.float32)
    values[:, :24] = fill
    dn, valid, notes = read(write(tmp_path / "a.tif", values, nodata=declared))
    assert not valid[:24].any() and valid[24:].all() and (dn[:, 24:] == pixels()[:, 24:]).all()
    assert any("read as reflectance" in note for note in notes)


def test_zeros_in_every_band_that_are_not_the_declared_no_data_are_said(tmp_path: Path) -> None:
    values = pixels()
    values[:, :24] = 0
    _, valid, notes = read(write(tmp_path / "a.tif", values, nodata=65_535))
    assert valid.all() and any(note.startswith("25 % of the pixels looked at are 0 in every band") for note in notes)


def test_a_large_scene_that_is_empty_where_it_is_looked_at_is_read_on(tmp_path: Path) -> None:
    values = np.zeros((4, 1100, 1100), np.uint16)
    values[:, 1040:, :40] = TYPICAL
    dn, valid, _ = read(write(tmp_path / "a.tif", values, nodata=0))
    assert valid.sum() == 60 * 40 and (dn[:, 1040:, :40] == TYPICAL).all()


def test_a_no_data_value_that_no_sample_can_hold_masks_nothing(tmp_path: Path) -> None:
    values = pixels()
    values[:, :24] = 1
    path = sidecar(write(tmp_path / "a.tif", values), band="<NoDataValue>1.5</NoDataValue>")
    assert read(path)[1].all()


def test_dark_water_is_masked_neither_with_nor_without_a_nodata_value(tmp_path: Path) -> None:
    values = pixels()
    values[3, 10:40, 10:40] = 0
    for name, nodata in (("with.tif", 0), ("without.tif", None)):
        dn, valid, _ = read(write(tmp_path / name, values, nodata=nodata))
        assert valid.all() and (dn == values).all()


def test_a_near_infrared_tagged_as_alpha_masks_nothing(tmp_path: Path) -> None:
    values = pixels()
    values[3, 10:40, 10:40] = 0
    path = write(tmp_path / "a.tif", values)
    with rasterio.open(path, "r+") as file:
        file.colorinterp = (ColorInterp.blue, ColorInterp.green, ColorInterp.red, ColorInterp.alpha)
    _, valid, notes = read(path)
    assert valid.all() and any("tagged as alpha" in note for note in notes)


def test_an_alpha_band_beside_the_bands_is_a_mask(tmp_path: Path) -> None:
    known = np.full((SIDE, SIDE), 65_535, np.uint16)
    known[:30] = 0
    path = write(tmp_path / "a.tif", np.concatenate([pixels(), known[None]]), (*RGBN, "alpha"))
    with rasterio.open(path, "r+") as file:
        file.colorinterp = (*file.colorinterp[:4], ColorInterp.alpha)
    assert (read(path)[1] == (known > 0)).all()


# -- sidecars ----------------------------------------------------------------------------------------------------------


def test_no_data_of_a_sidecar(tmp_path: Path) -> None:
    values = pixels()
    values[:, :24] = 65_535
    values[3, 50, 50] = 65_535
    path = sidecar(write(tmp_path / "a.tif", values), "<NoDataValue>65535</NoDataValue>")
    _, valid, _ = read(path)
    assert not valid[:24].any() and valid[24:].all()


def test_scale_and_offset_of_a_sidecar(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", pixels() + np.uint16(1000))
    dn, _, notes = read(sidecar(path, "<Offset>-0.1</Offset><Scale>0.0001</Scale>"))
    assert (dn == pixels()).all() and notes


def test_band_names_of_a_sidecar(tmp_path: Path) -> None:
    path = sidecar(write(tmp_path / "a.tif", pixels(), None), "<Description>{name}</Description>")
    assert (read(path)[0] == pixels()).all()


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_georeference_of_a_sidecar(tmp_path: Path) -> None:
    place = f"<SRS>{CRS.from_epsg(32643).to_wkt()}</SRS><GeoTransform>362610,10,0,2420210,0,-10</GeoTransform>"
    path = sidecar(write(tmp_path / "a.tif", pixels(), crs=None, transform=None), top=place)
    with open_scene(str(path)) as scene:
        assert CRS.from_wkt(scene.info.crs_wkt).to_epsg() == 32643
        assert scene.info.transform == (10, 0, 362_610, 0, -10, 2_420_210)


def test_reading_writes_nothing_beside_the_file(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", pixels())
    before = path.read_bytes()
    read(path)
    assert list(tmp_path.iterdir()) == [path] and path.read_bytes() == before


def test_a_broken_sidecar_is_no_end_of_the_run(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", pixels())
    Path(f"{path}.aux.xml").write_text("<PAMDataset><PAMRasterBand band='1'><NoData")
    dn, _, notes = read(path)
    assert (dn == pixels()).all()
    assert [note for note in notes if note.startswith("a.tif.aux.xml is left out with all that it says: not readable")]
    assert read(write(tmp_path / "b.tif", pixels()))[2] == ()


# -- layers ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "names",
    [
        [f"Band {i}" for i in range(1, 11)],
        [f"band_{i}" for i in range(1, 11)],
        [f"B{i}" for i in range(1, 9)],
        [f"B{i:02d}" for i in range(1, 9)],
        ["B1", "B2", "B3", "B4"],
        [str(i) for i in range(1, 11)],
        ["B1", "B2", "B3", "B4", "NIR"],  # RapidEye: B4 is its red edge
        [*(f"B{i}" for i in range(1, 9)), "nir"],
    ],
)
def test_a_layers_number_is_no_bands_name(tmp_path: Path, names: list[str]) -> None:
    values = np.concatenate([pixels()] * 3)[: len(names)]
    path = write(tmp_path / "a.tif", values, tuple(names))
    refused(path, "--bands", f"among its {len(names)} bands")
    chosen = (*RGBN, *["-"] * (len(names) - 4))
    assert (read(path, bands=chosen)[0] == values[:4]).all()


def test_the_usual_stack_of_ten_is_named_in_full(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", np.concatenate([pixels()] * 3)[:10], tuple(f"Band {i}" for i in range(1, 11)))
    named = "('Band 1' to 'Band 10' name no bands)"
    refused(path, named, "as in --bands B02,B03,B04,B05,B06,B07,B08,B8A,B11,B12")


def test_names_of_sentinel_2_with_their_gaps_are_names(tmp_path: Path) -> None:
    names = ("B1", "B2", "B3", "B4", "B5", "B6", "B7", "B8", "B8A", "B9", "B11", "B12")
    values = np.concatenate([pixels()] * 3) + np.arange(12, dtype=np.uint16)[:, None, None]
    dn, _, notes = read(write(tmp_path / "a.tif", values, names))
    assert (dn == values[[1, 2, 3, 7]]).all()
    assert any("B02 = layer 2 (B2)" in note and "B08 = layer 8 (B8)" in note for note in notes)


def test_b8a_says_that_numbers_are_sentinel_2s(tmp_path: Path) -> None:
    names = (*(f"B{i}" for i in range(1, 9)), "B8A")
    values = np.concatenate([pixels()] * 3)[:9] + np.arange(9, dtype=np.uint16)[:, None, None]
    assert (read(write(tmp_path / "a.tif", values, names))[0] == values[[1, 2, 3, 7]]).all()


def test_near_infrared_may_have_a_hyphen(tmp_path: Path) -> None:
    assert (read(write(tmp_path / "a.tif", pixels(), ("Blue", "Green", "Red", "Near-Infrared")))[0] == pixels()).all()


def test_names_against_the_files_own_are_said(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", pixels())
    notes = read(path, bands=("B04", "B03", "B02", "B08"))[2]
    assert any("against the names in the file: B04 is read as B02, B02 is read as B04" in note for note in notes)


# -- place -------------------------------------------------------------------------------------------------------------


def products(path: Path, folder: Path) -> list[Path]:
    """The rasters that a run writes, here of the scene itself."""
    with open_scene(str(path)) as scene:
        dn, valid = scene.read(0, 0, SIDE, SIDE)
        with PictureWriter(folder / "reconstruction.tif", scene.info) as picture:
            picture.write_strip(0, dn, valid)
        with CloudProbabilityWriter(folder / "cloud.tif", scene.info) as cloud:
            cloud.write_strip(0, np.zeros((SIDE, SIDE), np.uint8))
    return [folder / "reconstruction.tif", folder / "cloud.tif"]


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_ground_control_points_go_on_to_the_products(tmp_path: Path) -> None:
    at = from_origin(362_610, 2_420_210, 10, 10)
    points = [GroundControlPoint(r, c, *(at * (c, r)), 0.0) for r in (0, SIDE) for c in (0, SIDE)]
    path = tmp_path / "a.tif"
    with rasterio.open(
        path, "w", driver="GTiff", count=4, height=SIDE, width=SIDE, dtype="uint16", gcps=points, crs="EPSG:32643"
    ) as file:
        file.write(pixels())
        file.descriptions = RGBN
    with open_scene(str(path)) as scene:
        assert scene.info.gsd_m == pytest.approx(10.0)
        assert any("4 ground control points" in note for note in scene.info.notes)
    for product in products(path, tmp_path):
        with rasterio.open(product) as file:
            found, crs = file.gcps
            assert [(p.row, p.col, p.x, p.y) for p in found] == [(p.row, p.col, p.x, p.y) for p in points]
            assert crs.to_epsg() == 32643
    assert not list(tmp_path.glob("*.aux.xml"))


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_rational_polynomials_go_on_to_the_products(tmp_path: Path) -> None:
    rpcs = RPC(
        height_off=100, height_scale=500, lat_off=21.8, lat_scale=0.1, line_off=48, line_scale=48, long_off=73.7,
        long_scale=0.1, samp_off=48, samp_scale=48, line_num_coeff=[0.0, 0.0, -1.0] + [0.0] * 17,
        line_den_coeff=[1.0] + [0.0] * 19, samp_num_coeff=[0.0, 1.0] + [0.0] * 18,
        samp_den_coeff=[1.0] + [0.0] * 19, err_bias=None, err_rand=None,
    )  # fmt: skip
    path = write(tmp_path / "a.tif", pixels(), crs=None, transform=None, rpcs=rpcs)
    for product in products(path, tmp_path):
        with rasterio.open(product) as file:
            assert file.rpcs is not None and file.rpcs.lat_off == 21.8 and file.rpcs.line_num_coeff[2] == -1.0
    assert not list(tmp_path.glob("*.aux.xml"))


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_a_scene_without_a_place_says_what_is_assumed(tmp_path: Path) -> None:
    notes = read(write(tmp_path / "a.tif", pixels(), crs=None, transform=None))[2]
    assert notes == ("no georeference: pixels taken as 10 m, products have none",)


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_a_world_file_has_its_projection_from_the_prj_beside_it(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", pixels(), crs=None, transform=None)
    (tmp_path / "a.tfw").write_text("10\n0\n0\n-10\n362615\n2420205\n")
    (tmp_path / "a.prj").write_text(CRS.from_epsg(32643).to_wkt(version=WktVersion.WKT1_ESRI))
    assert read(path)[2] == ("projection from a.prj",)
    with rasterio.open(products(path, tmp_path)[0]) as file:
        assert file.crs.to_epsg() == 32643 and file.transform == from_origin(362_610, 2_420_210, 10, 10)
    (tmp_path / "a.prj").write_text("no projection")
    refused(path, "its georeference cannot be read")


def test_a_picture_off_the_disc_of_the_earth_has_its_pixels_size_and_no_traceback(tmp_path: Path) -> None:
    disc = "+proj=geos +h=35785831 +lon_0=0 +datum=WGS84"
    path = write(tmp_path / "a.tif", pixels(), crs=disc, transform=from_origin(9e6, 9e6, 1000, 1000))
    with open_scene(str(path)) as scene:
        assert scene.info.gsd_m == 1000
        assert place_corners(scene.info, 64) is None
        with pytest.raises(InputError, match="cannot be turned into its coordinates"):
            regions_in_pixels(Gate(regions=(LonLatRegion(0, 0, 1, 1),)), scene.info)


def test_a_site_grid_is_carried_and_its_pixels_are_metres(tmp_path: Path) -> None:
    grid = CRS.from_wkt('LOCAL_CS["site grid",UNIT["metre",1]]')
    path = write(tmp_path / "a.tif", pixels(), crs=grid, transform=Affine(10, 0, 0, 0, -10, 0))
    with open_scene(str(path)) as scene:
        assert scene.info.gsd_m == 10.0 and any("site grid" in note for note in scene.info.notes)
    with rasterio.open(products(path, tmp_path)[0]) as file:
        assert "site grid" in file.crs.to_wkt()


def test_geocentric_coordinates_are_carried(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", pixels(), crs="EPSG:4978", transform=Affine(10, 0, 0, 0, -10, 0))
    assert any("geocentric" in note for note in read(path)[2])


@pytest.mark.parametrize(
    ("crs", "transform", "words"),
    [
        ("EPSG:4326", Affine(1e-4, 0, 0, 0, -1e-4, 95), "reaches latitude 95"),
        ("EPSG:4326", Affine(1e-4, 0, 0, 0, -1e-4, -95), "reaches latitude -95"),
        ("EPSG:32643", Affine(10, 0, float("nan"), 0, -10, 0), "geotransform"),
        ("EPSG:32643", Affine(10, 10, 0, 10, 10, 0), "geotransform"),
    ],
)
def test_places_that_cannot_be_are_refused(tmp_path: Path, crs: str, transform: Affine, words: str) -> None:
    refused(write(tmp_path / "a.tif", pixels(), crs=crs, transform=transform), words, "wanted")


def test_a_global_grid_may_reach_half_a_pixel_past_the_pole(tmp_path: Path) -> None:
    step = 180 / SIDE
    path = write(tmp_path / "a.tif", pixels(), crs="EPSG:4326", transform=Affine(step, 0, 0, 0, -step, 90 + step / 2))
    assert read(path)[1].all()


def test_mercators_pixels_are_measured_on_the_ground(tmp_path: Path) -> None:
    """At 60 degrees north Mercator stretches by 1 / cos(60 deg) = 2 on the sphere; about 1.995 across the ellipsoid."""
    north = 8_399_737.9
    path = write(tmp_path / "a.tif", pixels(), crs="EPSG:3857", transform=from_origin(0, north + 480, 10, 10))
    with open_scene(str(path)) as scene:
        assert scene.info.gsd_m == pytest.approx(5.0, rel=0.01)
        assert any("on the ground" in note for note in scene.info.notes)


# -- size --------------------------------------------------------------------------------------------------------------


def test_a_giant_is_refused_at_once_and_the_flag_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    with rasterio.open(
        path, "w", driver="GTiff", count=4, height=100_000, width=100_000, dtype="uint16", sparse_ok=True,
        tiled=True, bigtiff=True, crs="EPSG:32643", transform=from_origin(0, 0, 10, 10),
    ) as file:  # fmt: skip
        file.descriptions = RGBN
    refused(path, "100000 x 100000 px", "--max-pixels 10000000000")


def test_a_file_that_is_nearly_empty_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    with rasterio.open(
        path, "w", driver="GTiff", count=4, height=20_000, width=20_000, dtype="uint16", sparse_ok=True, tiled=True,
        crs="EPSG:32643", transform=from_origin(0, 0, 10, 10),
    ) as file:  # fmt: skip
        file.descriptions = RGBN
    refused(path, "nearly empty", "--max-pixels 400000000")


def test_a_strip_is_bounded_in_memory(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    with rasterio.open(
        path, "w", driver="GTiff", count=4, height=20, width=2_000_000, dtype="uint16", sparse_ok=True, tiled=True,
        crs="EPSG:32643", transform=from_origin(0, 0, 10, 10),
    ) as file:  # fmt: skip
        file.descriptions = RGBN
    refused(path, "a strip of it takes", "-srcwin 0 0 131072 20")


def test_what_is_no_regular_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.tif")
    refused(tmp_path / "a.tif", "no regular file")


def test_names_too_long_for_the_file_system(tmp_path: Path) -> None:
    refused(Path("/" + "x" * 5000), "is no path")


# -- words -------------------------------------------------------------------------------------------------------------


def test_notes_are_logged_for_the_user(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "sim.scenes"):
        read(write(tmp_path / "a.tif", (pixels() / 10_000).astype(np.float32)))
    assert any("read as reflectance" in record.getMessage() for record in caplog.records)


def test_demo_is_the_generated_scene_whatever_lies_in_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "demo").mkdir()
    with open_scene("demo") as scene:
        assert scene.info.bands == RGBN
    assert "./demo" in caplog.text
    write(tmp_path / "demo:300", pixels())
    with open_scene("./demo:300") as scene:
        assert scene.info.height_px == SIDE
    refused(Path("demo"), "--scale has no use", scale=0.0001)


# -- what a header says over the link ----------------------------------------------------------------------------------


@pytest.mark.parametrize("said", [(("LINE_OFF", "x"),), (("LINE_OFF", "1"),), ()])
def test_polynomials_that_are_none_leave_a_scene_without_a_place(said: tuple[tuple[str, str], ...]) -> None:
    assert rpcs_of(said) == ()


@pytest.mark.parametrize("points", [((0.0, 0.0, 1.0, 1.0, 0.0),) * 3, ((0.0, 0.0, float("nan"), 1.0, 0.0),) * 4])
def test_points_that_place_nothing_leave_a_scene_without_a_footprint(points: tuple[tuple[float, ...], ...]) -> None:
    info = SceneInfo("x", 64, 64, RGBN, 10.0, crs_wkt=CRS.from_epsg(4326).to_wkt(), gcps=points)
    assert place_corners(info, 64) is None
