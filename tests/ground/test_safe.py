"""The metadata of Sentinel-2 products: structure and names as in real ones, offsets and truncation as they happen."""

import re
import zipfile
from pathlib import Path

import numpy as np
import pytest
import rasterio
from made_up_safe import TILE, all_bands, metadata, write_jp2
from numpy.typing import NDArray

from payload.errors import InputError
from payload.sensor import SENTINEL2, sensor_of
from sim.scenes.imager.sensor_files import load_sensor
from sim.scenes.open_scene import open_scene
from sim.scenes.safe.files import FolderFiles
from sim.scenes.safe.sentinel2 import read_safe

BANDS = ("B02", "B03", "B04", "B08")


def raw_numbers(size_px: int = 96) -> NDArray[np.uint16]:
    """Raw DN uint16 [4, n, n]: 0 (no data) in the first ten columns, from there 900 upwards."""
    raw = np.random.default_rng(5).integers(900, 6000, (4, size_px, size_px)).astype(np.uint16)
    raw[:, :, :10] = 0
    return raw


def make_product(
    root: Path, level: str = "L1C", offset: int | None = -1000, quantification: str = "10000", size_px: int = 96
) -> Path:
    """A .SAFE directory with real JPEG 2000 images of the four 10 m bands (and a 20 m one in L2A)."""
    product = root / f"S2B_MSI{level}_20260418T103021_N0511_R108_T32TNS_20260418T125900.SAFE"
    granule = f"GRANULE/{level}_T32TNS_A041234_20260418T103021/IMG_DATA"
    raw = raw_numbers(size_px)
    if level == "L1C":
        names = [f"{granule}/{TILE}_{band}" for band in BANDS]
        listed = [*names, f"{granule}/{TILE}_B11", f"{granule}/{TILE}_TCI"]
    else:
        names = [f"{granule}/R10m/{TILE}_{band}_10m" for band in BANDS]
        listed = [*names, *(f"{granule}/R20m/{TILE}_{band}_20m" for band in (*BANDS[:3], "B8A", "SCL"))]
    for name, plane in zip(names, raw, strict=True):
        write_jp2(product / f"{name}.jp2", plane)
    (product / f"MTD_MSI{level}.xml").write_text(metadata(level, offset, listed, quantification), encoding="utf-8")
    (product / "GRANULE").joinpath("MTD_TL.xml").write_text("<tile/>", encoding="utf-8")
    return product


def zip_product(product: Path, compression: int = zipfile.ZIP_DEFLATED) -> Path:
    where = product.with_suffix(".zip")
    with zipfile.ZipFile(where, "w", compression) as archive:
        for path in sorted(product.rglob("*")):
            archive.write(path, path.relative_to(product.parent).as_posix())
    return where


@pytest.mark.parametrize("level", ["L1C", "L2A"])
def test_offset_and_quantification_come_from_the_metadata(tmp_path: Path, level: str) -> None:
    product = read_safe(tmp_path, FolderFiles(make_product(tmp_path, level)), sensor_of(BANDS))
    assert (product.level, product.baseline, product.quantification, product.nodata) == (level, "05.11", 10_000, 0)
    assert product.sensed_at == "2026-04-18T10:30:21.024Z"
    # band_id 1, 2, 3 and 7 are B02, B03, B04 and B08
    assert product.offsets == {"B02": -1001, "B03": -1002, "B04": -1003, "B08": -1007}


@pytest.mark.parametrize("level", ["L1C", "L2A"])
@pytest.mark.parametrize("zipped", [False, True])
def test_dn_is_reflectance_times_10000(tmp_path: Path, level: str, zipped: bool) -> None:
    product = make_product(tmp_path, level)
    with open_scene(str(zip_product(product) if zipped else product)) as scene:
        dn, valid = scene.read(0, 0, 96, 96)
    raw = raw_numbers().astype(int)
    expected = np.maximum(raw - np.array([1001, 1002, 1003, 1007])[:, None, None], 0)
    assert (dn == expected).all()
    assert not valid[:, :10].any() and valid[:, 10:].all()
    assert scene.info.bands == BANDS and scene.info.gsd_m == 10.0 and scene.info.nodata == 0
    assert scene.info.sensed_at == "2026-04-18T10:30:21.024Z"
    assert scene.info.transform == (10.0, 0.0, 499_980.0, 0.0, -10.0, 5_100_000.0)
    assert scene.info.name.startswith(f"S2B_MSI{level}_20260418") and not scene.info.name.endswith(".SAFE")


@pytest.mark.parametrize("level", ["L1C", "L2A"])
def test_old_baselines_have_no_offset(tmp_path: Path, level: str) -> None:
    with open_scene(str(make_product(tmp_path, level, offset=None))) as scene:
        assert (scene.read(0, 0, 96, 96)[0] == raw_numbers()).all()


def test_other_quantification_is_scaled(tmp_path: Path) -> None:
    with open_scene(str(make_product(tmp_path, offset=None, quantification="1000"))) as scene:
        dn, _ = scene.read(0, 0, 96, 96)
    assert (dn == np.minimum(raw_numbers().astype(int) * 10, 65535)).all()


def test_metadata_file_and_stored_zip_open_too(tmp_path: Path) -> None:
    product = make_product(tmp_path)
    with open_scene(str(product / "MTD_MSIL1C.xml")) as by_file, open_scene(str(product)) as by_folder:
        assert by_file.info == by_folder.info
    with open_scene(str(zip_product(product, zipfile.ZIP_STORED))) as by_zip:
        assert by_zip.info == by_folder.info


def refused(where: Path, *words: str, bands: tuple[str, ...] = BANDS) -> None:
    """Opening gives one line that holds the words."""
    with pytest.raises(InputError) as caught:
        open_scene(str(where), sensor=sensor_of(bands)).close()
    message = str(caught.value)
    assert "\n" not in message and len(message) < 400
    for word in (str(where), *words):
        assert word in message


def test_missing_metadata(tmp_path: Path) -> None:
    product = make_product(tmp_path)
    (product / "MTD_MSIL1C.xml").unlink()
    refused(product, "no MTD_MSIL1C.xml or MTD_MSIL2A.xml", "download")


def test_cut_metadata(tmp_path: Path) -> None:
    product = make_product(tmp_path)
    path = product / "MTD_MSIL1C.xml"
    path.write_text(path.read_text(encoding="utf-8")[:900], encoding="utf-8")
    refused(product, "MTD_MSIL1C.xml is not whole XML", "download")


def test_missing_image(tmp_path: Path) -> None:
    product = make_product(tmp_path, "L2A")
    next(product.rglob("*_B08_10m.jp2")).unlink()
    refused(product, "image of B08 missing", "download")


@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 0.999])
def test_cut_image(tmp_path: Path, share: float) -> None:
    product = make_product(tmp_path)
    path = next(product.rglob("*_B04.jp2"))
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    refused(product, "_B04.jp2 is truncated", "download")


def test_cut_image_in_a_whole_zip(tmp_path: Path) -> None:
    product = make_product(tmp_path)
    path = next(product.rglob("*_B04.jp2"))
    path.write_bytes(path.read_bytes()[:-500])
    refused(zip_product(product), "_B04.jp2 is truncated")


@pytest.mark.parametrize("share", [0.3, 0.99])
def test_cut_zip(tmp_path: Path, share: float) -> None:
    where = zip_product(make_product(tmp_path))
    where.write_bytes(where.read_bytes()[: int(where.stat().st_size * share)])
    refused(where, "broken zip", "download")


def test_a_zip_that_names_a_file_in_a_thousand_octets_is_refused_in_one_line(tmp_path: Path) -> None:
    """zipfile repeats the name that it found, as long as the file says that it is."""
    where = zip_product(make_product(tmp_path), zipfile.ZIP_STORED)
    octets = bytearray(where.read_bytes())
    with zipfile.ZipFile(where) as archive:
        for entry in archive.infolist():  # how long the name is, in the file's own header
            octets[entry.header_offset + 26 : entry.header_offset + 28] = (2000).to_bytes(2, "little")
    where.write_bytes(octets)
    refused(where, "broken zip", "download")


def test_a_zip_whose_names_are_no_text_is_refused_in_one_line(tmp_path: Path) -> None:
    where = tmp_path / "S2B_X.SAFE.zip"
    with zipfile.ZipFile(where, "w") as archive:
        archive.writestr("\u00e9.xml", b"")  # not ASCII: flagged as UTF-8
    where.write_bytes(where.read_bytes().replace("\u00e9".encode(), b"\x89\x89"))
    refused(where, "broken zip", "download")


def test_an_entry_of_a_zip_without_a_name_is_passed_over(tmp_path: Path) -> None:
    where = zip_product(make_product(tmp_path))
    with zipfile.ZipFile(where, "a") as archive:
        archive.writestr(zipfile.ZipInfo(""), b"")
    open_scene(str(where), sensor=sensor_of(BANDS)).close()


def test_damaged_image_is_refused_when_read(tmp_path: Path) -> None:
    """Length and end are right, the start of the only tile is not: only decoding can tell, and it must."""
    product = make_product(tmp_path)
    path = next(product.rglob("*_B02.jp2"))
    start_of_tile = b"\xff\x90\x00\x0a"
    octets = path.read_bytes()
    assert octets.count(start_of_tile) == 1
    path.write_bytes(octets.replace(start_of_tile, b"\xff\x90\xff\xff"))
    with pytest.raises(InputError, match=r"_B02\.jp2: damaged at rows 0 to 95"):
        open_scene(str(product)).close()


def test_offset_list_without_a_band(tmp_path: Path) -> None:
    product = make_product(tmp_path)
    path = product / "MTD_MSIL1C.xml"
    path.write_text(path.read_text(encoding="utf-8").replace('band_id="7"', 'band_id="70"'), encoding="utf-8")
    refused(product, "RADIO_ADD_OFFSET but none for B08")


def test_quantification_that_is_no_number(tmp_path: Path) -> None:
    refused(make_product(tmp_path, quantification="many"), "QUANTIFICATION_VALUE is 'many'")
    refused(make_product(tmp_path / "zero", quantification="0"), "QUANTIFICATION_VALUE is 0")


def test_a_zip_with_a_password_is_not_called_broken(tmp_path: Path) -> None:
    where = zip_product(make_product(tmp_path))
    octets = bytearray(where.read_bytes())
    for entry in re.finditer(rb"PK\x01\x02", bytes(octets)):
        octets[entry.start() + 8] |= 1  # general purpose bit 0: encrypted
    where.write_bytes(octets)
    refused(where, "encrypted", "unzipped folder")


def test_zip_of_something_else(tmp_path: Path) -> None:
    where = tmp_path / "holiday.zip"
    with zipfile.ZipFile(where, "w") as archive:
        archive.writestr("beach.txt", "sand")
    refused(where, "no MTD_MSIL1C.xml or MTD_MSIL2A.xml")


def test_zip_of_two_products(tmp_path: Path) -> None:
    where = tmp_path / "two.zip"
    with zipfile.ZipFile(where, "w") as archive:
        for name in ("A.SAFE", "B.SAFE"):
            archive.writestr(f"{name}/MTD_MSIL1C.xml", "<x/>")
    refused(where, "2 products", "wanted one")


@pytest.mark.parametrize(("level", "name"), [("L1C", "sentinel2-l1c-13"), ("L2A", "sentinel2-l2a-12")])
def test_every_band_is_read_coarser_ones_repeated(tmp_path: Path, level: str, name: str) -> None:
    product, planes = all_bands(tmp_path, level)
    sensor = load_sensor(name)
    with open_scene(str(product), sensor=sensor) as scene:
        dn, valid = scene.read(0, 0, 96, 96)
        part, _ = scene.read(13, 7, 50, 61)
        assert scene.info.bands == sensor.names and scene.info.gsd_m == 10.0 and valid.all()
        assert any("B05 (2 x)" in note and "B01 (6 x)" in note for note in scene.info.notes)
    for band, found in zip(sensor.names, dn, strict=True):
        repeat = 96 // len(planes[band])
        counts = planes[band].astype(int) - 1000 - list(SENTINEL2).index(band)
        assert np.array_equal(found, np.kron(counts, np.ones((repeat, repeat), int))), band
    assert np.array_equal(part, dn[:, 13:63, 7:68])


def test_bands_of_20_m_alone_lie_on_their_own_grid(tmp_path: Path) -> None:
    product, planes = all_bands(tmp_path, "L2A")
    with open_scene(str(product), sensor=sensor_of(("B05", "B09"))) as scene:
        assert (scene.info.height_px, scene.info.width_px) == planes["B05"].shape
        assert np.array_equal(scene.read(0, 0, 48, 48)[0][0], planes["B05"] - np.uint16(1004))


def test_bands_that_a_product_has_not_are_said_with_the_mend(tmp_path: Path) -> None:
    refused(all_bands(tmp_path, "L2A")[0], "level 2A has no B10", "sentinel2-l2a-12", bands=("B02", "B10"))
    refused(all_bands(tmp_path, "L1C")[0], "which has no RE1", "--bundle edge", bands=("B02", "RE1"))
    refused(make_product(tmp_path / "few"), "metadata lists 0 20 m images of B12", bands=("B02", "B12"))


def test_strips_within_a_jpeg_2000_tile_decode_it_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the strips through one row of tiles only the first touches the file: the others survive its destruction."""
    monkeypatch.setattr("sim.scenes.rasters.LOOK_PX", 0)
    product = tmp_path / "A.SAFE"
    name = f"GRANULE/L1C/IMG_DATA/{TILE}_B02"
    plane = np.random.default_rng(1).integers(1, 4000, (2048, 300)).astype(np.uint16)
    write_jp2(product / f"{name}.jp2", plane, block_px=256)
    (product / "MTD_MSIL1C.xml").write_text(metadata("L1C", 0, [name]), encoding="utf-8")
    with open_scene(str(product), sensor=sensor_of(("B02",))) as scene:
        first, _ = scene.read(768, 0, 64, 300)
        (product / f"{name}.jp2").write_bytes(b"")
        for row in (832, 896, 960):
            assert (scene.read(row, 0, 64, 300)[0][0] == plane[row : row + 64] - 1).all()
        with pytest.raises(InputError, match="damaged at rows 512 to 575"):  # not among the rows looked at
            scene.read(512, 0, 64, 300)
    assert (first[0] == plane[768:832] - 1).all()


# -- products as they reach people -------------------------------------------------------------------------------------


def rewrite(product: Path, *changes: tuple[str, str]) -> Path:
    """The product with other words in its metadata."""
    path = next(product.glob("*.xml"))
    text = path.read_text(encoding="utf-8")
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    path.write_text(text, encoding="utf-8")
    return product


def dn_of(where: Path) -> NDArray[np.uint16]:
    with open_scene(str(where)) as scene:
        return scene.read(0, 0, 96, 96)[0]


def test_sen2cor_2_3_lists_a_granule_once_for_each_resolution(tmp_path: Path) -> None:
    """Level 2Ap, baseline 02.05: three lists of one granule, IMAGE_FILE_2A, names with L2A_ in front."""
    product = make_product(tmp_path, "L2A", offset=None)
    for path in product.rglob("*.jp2"):
        path.rename(path.with_name(f"L2A_{path.name}"))
    text = (product / "MTD_MSIL2A.xml").read_text(encoding="utf-8")
    start, end = text.index("<Granule_List>"), text.index("</Granule_List>") + len("</Granule_List>")
    ten = text[start:end].replace(f"/{TILE}", f"/L2A_{TILE}").replace("IMAGE_FILE", "IMAGE_FILE_2A")
    sixty = ten.replace("R10m", "R60m").replace("_10m", "_60m")
    changed = text[:start] + sixty + ten + text[end:]
    changed = changed.replace("BOA_QUANTIFICATION_VALUE", "L2A_BOA_QUANTIFICATION_VALUE")
    (product / "MTD_MSIL2A.xml").write_text(changed.replace("PRODUCT_URI", "PRODUCT_URI_2A"), encoding="utf-8")
    assert (dn_of(product) == raw_numbers()).all()


def test_images_as_geotiff(tmp_path: Path) -> None:
    product = rewrite(make_product(tmp_path, "L2A", offset=None), ('imageFormat="JPEG2000"', 'imageFormat="GeoTIFF"'))
    for path in list(product.rglob("*_10m.jp2")):
        with rasterio.open(path) as image:
            profile = image.profile | {"driver": "GTiff"}
            with rasterio.open(path.with_suffix(".tif"), "w", **profile) as file:
                file.write(image.read())
        path.unlink()
    assert (dn_of(product) == raw_numbers()).all()
    next(product.rglob("*_B04_10m.tif")).unlink()
    refused(product, "image of B04 missing", "GeoTIFF")


def test_names_in_lower_case(tmp_path: Path) -> None:
    product = make_product(tmp_path, "L2A", offset=None)
    for path in sorted(product.rglob("*"), key=lambda path: -len(path.parts)):
        path.rename(path.with_name(path.name.lower()))
    lower = product.rename(product.with_name(product.name.lower()))
    assert (dn_of(lower) == raw_numbers()).all()
    assert (dn_of(lower / "mtd_msil2a.xml") == raw_numbers()).all()


def test_a_zip_made_on_windows(tmp_path: Path) -> None:
    product = make_product(tmp_path, "L2A", offset=None)
    where = tmp_path / "p.zip"
    with zipfile.ZipFile(where, "w") as archive:
        for path in sorted(product.rglob("*")):
            if path.is_file():
                entry = zipfile.ZipInfo("n")
                entry.filename = path.relative_to(tmp_path).as_posix().replace("/", "\\")
                archive.writestr(entry, path.read_bytes(), zipfile.ZIP_DEFLATED)
    assert (dn_of(where) == raw_numbers()).all()


@pytest.mark.parametrize(
    "name",
    ["S2A_OPER_MTD_SAFL1C_PDMC_20160112T190543_R008.xml", "S2A_USER_MTD_SAFL2A_PDMC_20160112T190543_R008.xml"],
)
def test_the_format_before_december_2016_is_called_by_its_name(tmp_path: Path, name: str) -> None:
    product = make_product(tmp_path)
    (product / "MTD_MSIL1C.xml").rename(product / name)
    for where in (product, product / name):
        with pytest.raises(InputError, match="format before December 2016, which is not read") as caught:
            open_scene(str(where)).close()
        assert "download it again" not in str(caught.value)


def test_several_tiles_in_one_product(tmp_path: Path) -> None:
    product = rewrite(
        make_product(tmp_path), ("</Granule_List>", '<Granule granuleIdentifier="S2B_OTHER"/></Granule_List>')
    )
    refused(product, "2 granules", "format of 2016-12 on")


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_images_without_a_place_take_the_granules(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    product = make_product(tmp_path, "L2A", offset=None)
    for path, plane in zip(sorted(product.rglob("*_10m.jp2")), raw_numbers(), strict=True):
        with rasterio.open(
            path, "w", driver="JP2OpenJPEG", height=96, width=96, count=1, dtype="uint16", QUALITY="100",
            REVERSIBLE="YES", GMLJP2="NO", GeoJP2="NO",
        ) as file:  # fmt: skip
            file.write(plane, 1)
        Path(f"{path}.aux.xml").unlink(missing_ok=True)
    with open_scene(str(product)) as scene:  # a granule's metadata that says nothing
        assert scene.info.crs_wkt is None and any("no georeference" in note for note in scene.info.notes)
    (product / "GRANULE" / "MTD_TL.xml").write_text(
        "<n1:Tile xmlns:n1='urn:x'><Tile_Geocoding><HORIZONTAL_CS_CODE>EPSG:32643</HORIZONTAL_CS_CODE>"
        "<Geoposition resolution='10'><ULX>362610</ULX><ULY>2420210</ULY><XDIM>10</XDIM><YDIM>-10</YDIM></Geoposition>"
        "</Tile_Geocoding></n1:Tile>"
    )
    with open_scene(str(product)) as scene:
        assert rasterio.crs.CRS.from_wkt(scene.info.crs_wkt).to_epsg() == 32643
        assert scene.info.transform == (10, 0, 362_610, 0, -10, 2_420_210) and scene.info.gsd_m == 10.0
        assert any("MTD_TL.xml" in note for note in scene.info.notes)
    at = product / "GRANULE" / "MTD_TL.xml"
    at.write_text(at.read_text().replace("EPSG:32643", "EPSG:9999999"))
    refused(product, "MTD_TL.xml names 'EPSG:9999999'")
    assert "ERROR 1" not in capfd.readouterr().err  # PROJ has a line of its own, which is not for users


def test_saturated_samples_are_said(tmp_path: Path) -> None:
    product = make_product(tmp_path, offset=None)
    raw = raw_numbers()[3].copy()
    raw[48:, 10:] = 65_535
    write_jp2(next(product.rglob("*_B08.jp2")), raw)
    with open_scene(str(product)) as scene:
        assert any("B08: 50 % of the samples looked at are SATURATED" in note for note in scene.info.notes)


def test_an_offset_that_is_applied_is_said_and_one_that_is_missing_too(tmp_path: Path) -> None:
    with open_scene(str(make_product(tmp_path, "L2A"))) as scene:
        assert any("baseline 05.11: offset B02 -1001" in note for note in scene.info.notes)
    for others, said in (("-1000", "offset -1000 added"), ("0", "offset B04 -1000 added")):
        product = make_product(tmp_path / others, "L2A")
        text = (product / "MTD_MSIL2A.xml").read_text(encoding="utf-8")
        text = re.sub(r'(?<=<BOA_ADD_OFFSET band_id=")(\d+)">[^<]*', rf'\1">{others}', text)
        text = text.replace(f'band_id="3">{others}', 'band_id="3">-1000')
        (product / "MTD_MSIL2A.xml").write_text(text, encoding="utf-8")
        with open_scene(str(product)) as scene:
            assert any(said in note for note in scene.info.notes), scene.info.notes
    missing = rewrite(make_product(tmp_path / "b", "L2A", offset=None), ("02.08", "05.11"))
    with open_scene(str(missing)) as scene:
        assert any("its metadata states none" in note for note in scene.info.notes)


def test_a_zip_that_inflates_without_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sim.scenes.safe.files.DEFLATE_FREE_OCTETS", 1000)
    product = make_product(tmp_path)
    next(product.rglob("*_B04.jp2")).write_bytes(bytes(10_000_000))
    refused(zip_product(product), "inflates", "download the product again")
