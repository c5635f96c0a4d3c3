"""What a GIS, a globe and an archive are given: judged by rio-cogeo, pystac and GDAL, which did not write it."""

import hashlib
import json
import zipfile
from pathlib import Path

import numpy as np
import pystac
import pytest
import rasterio
from pystac.validation import JsonSchemaSTACValidator
from pystac.validation.stac_validator import STACValidationError
from rasterio.enums import ColorInterp, Resampling
from rasterio.vrt import WarpedVRT
from rasterio.warp import transform
from rio_cogeo import cog_validate
from stac_extensions import schemas

from payload.scene import SceneInfo
from payload.sensor import RGBN
from sim.downlink import Request, downlink
from sim.ground.reception import SceneReception
from sim.products import publish
from sim.products.footprint import footprint, place_corners
from sim.products.kmz import write_kmz
from sim.products.origin import Origin, designator_of
from sim.products.provenance import VALUE
from sim.products.publish import cloud_cover, write_collection, write_item
from sim.products.quicklooks import Stretch
from sim.products.rasters import CloudClassWriter, PictureWriter
from sim.progress import silent
from sim.scenes.open_scene import open_scene

T = 64
WKT = rasterio.crs.CRS.from_epsg(32631).to_wkt()
NOW = "2026-04-18T10:51:07Z"
ORIGIN = Origin("phisat2", "a mission", "0123abcd", 0xD3DAC3E8)


def info_of(height: int, width: int, left: float = 4e5, wkt: str | None = WKT, **more) -> SceneInfo:
    place = (10.0, 0.0, left, 0.0, -10.0, 5e6)
    return SceneInfo("a scene", height, width, RGBN, 10.0, 12, NOW, wkt, place, 0, **more)


#: The folder of the one run that the tests below look at and leave as it is.
RUN: list[Path] = []


@pytest.fixture
def delivered(write_scene, write_mission, ground_of, toy_bundle_with_gate, toy_engine, monkeypatch, tmp_path) -> Path:
    """A run of nine tiles with its time: one withheld, some cut off at the right and lower edge, some without data."""
    if RUN:
        return RUN[0]
    monkeypatch.setattr("sim.onboard.engine_choice.open_engine", lambda name: toy_engine)
    dn = ground_of(3, 3, bright=((1, 1),))[:, : 3 * T - 10, : 3 * T - 20]
    dn[:, :20, :40] = 0
    scene, mission = write_scene(tmp_path / "run.tif", dn), write_mission(tmp_path / "run.toml")
    with rasterio.open(scene, "r+") as file:
        file.update_tags(ACQUISITIONDATETIME=NOW)
    downlink(Request(str(scene), tmp_path / "out", str(mission), str(toy_bundle_with_gate)), silent)
    RUN.append(tmp_path / "out")
    return RUN[0]


def test_every_raster_is_a_cog_by_the_rules_of_rio_cogeo(delivered) -> None:
    for name in ("reconstruction.tif", "cloud.tif", "provenance.tif"):
        assert cog_validate(delivered / name, strict=True)[:2] == (True, []), name


def test_gdal_finds_true_colour_reflectance_statistics_and_origin_in_the_picture(delivered) -> None:
    with rasterio.open(delivered / "reconstruction.tif") as file:
        blue, green, red, nir = (file.colorinterp.index(c) for c in (
            ColorInterp.blue, ColorInterp.green, ColorInterp.red, ColorInterp.nir))  # fmt: skip
        assert [file.descriptions[i] for i in (blue, green, red, nir)] == ["B02", "B03", "B04", "B08"]
        assert file.scales == (1e-4,) * 4 and file.offsets == (0.0,) * 4 and file.units == ("reflectance",) * 4
        tags, of_red = file.tags(), file.tags(red + 1)
        known = file.read(red + 1)[file.dataset_mask() > 0].astype(np.float64)
    assert tags["NADIR_MISSION"] == "phisat2" and tags["ACQUISITIONDATETIME"] == NOW
    assert len(tags["NADIR_BUNDLE"]) == 8 and tags["TIFFTAG_SOFTWARE"].startswith("nadir-payload ")
    assert "Copernicus" in tags["TIFFTAG_COPYRIGHT"]
    assert (of_red["CENTRAL_WAVELENGTH_UM"], of_red["FWHM_UM"]) == ("0.6646", "0.030")
    found = [float(of_red[f"STATISTICS_{name}"]) for name in ("MINIMUM", "MAXIMUM", "MEAN", "STDDEV")]
    assert found == pytest.approx([known.min(), known.max(), known.mean(), known.std()], rel=1e-7)


def test_what_became_of_every_pixel_is_a_raster(delivered) -> None:
    with rasterio.open(delivered / "provenance.tif") as file:
        state, layers = file.read()
    with rasterio.open(delivered / "reconstruction.tif") as file:
        known = file.dataset_mask() > 0
    report = json.loads((delivered / "report.json").read_text())["tiles"]
    for tile in report["list"]:
        at = np.s_[tile["row"] * T : (tile["row"] + 1) * T, tile["col"] * T : (tile["col"] + 1) * T]
        expected = np.where(known[at], VALUE[tile["kind"]], VALUE["no_data"] if tile["layers"] else VALUE[tile["kind"]])
        assert (state[at] == expected).all()
        assert (layers[at] == np.where(known[at], tile["layers"], 0)).all()
    assert {VALUE["coded"], VALUE["withheld"], VALUE["no_data"]} == set(np.unique(state))


def test_losses_and_missing_layers_are_told_apart(toy_line, ground_of) -> None:
    report, folder = toy_line(ground_of(6, 6), "lossy", 3, packet_loss=0.25)
    with rasterio.open(folder / "provenance.tif") as file:
        state, layers = file.read()
    kinds = {(tile["row"], tile["col"]): tile for tile in report["tiles"]["list"]}
    assert {tile["kind"] for tile in kinds.values()} >= {"coded", "lost"}
    for (row, col), tile in kinds.items():
        name = "incomplete" if tile["kind"] == "coded" and tile["incomplete"] else tile["kind"]
        assert state[row * T, col * T] == VALUE[name] and layers[row * T, col * T] == tile["layers"]


def validator() -> JsonSchemaSTACValidator:
    """pystac's, with its own schemas of the core, and ours of the extensions: whatever else it wants is an error."""
    found = JsonSchemaSTACValidator()
    found.schema_cache |= schemas()
    return found


def test_pystac_accepts_item_and_collection(delivered) -> None:
    collection = pystac.Collection.from_file(str(delivered / "collection.json"))
    (item,) = collection.get_items()
    assert collection.validate(validator()) and item.validate(validator())
    assert item.collection_id == collection.id == "phisat2"
    assert {"projection", "eo", "raster", "file", "processing", "classification"} == {
        uri.split("/")[3] for uri in item.stac_extensions
    }
    assert [band["eo:common_name"] for band in item.assets["reconstruction"].extra_fields["bands"]] == [
        "blue", "green", "red", "nir"
    ]  # fmt: skip


@pytest.mark.parametrize(("key", "value"), [("eo:cloud_cover", 101), ("proj:shape", [1, 2, 3]), ("file:size", -1)])
def test_a_wrong_field_of_an_extension_is_found(delivered, key: str, value: object) -> None:
    """The local schemas can fail."""
    entry = json.loads((delivered / "item.json").read_text())
    entry["properties"][key] = value
    with pytest.raises(STACValidationError):
        pystac.Item.from_dict(entry).validate(validator())


def test_every_checksum_and_size_is_the_files_own(delivered) -> None:
    assets = json.loads((delivered / "item.json").read_text())["assets"]
    checked = {asset["href"] for asset in assets.values() if "file:checksum" in asset}
    assert {"./reconstruction.tif", "./provenance.tif", "./cloud.tif", "./packets.bin"} <= checked
    for asset in assets.values():
        octets = (delivered / asset["href"]).read_bytes()
        if "file:checksum" in asset:
            assert asset["file:checksum"] == "1220" + hashlib.sha256(octets).hexdigest()
            assert asset["file:size"] == len(octets)


def test_a_scene_without_a_time_has_no_item(toy_line, ground_of) -> None:
    _, folder = toy_line(ground_of(2, 2))
    assert not (folder / "item.json").exists() and not (folder / "collection.json").exists()
    assert (folder / "footprint.geojson").exists()


def test_the_footprint_lies_where_the_raster_lies(delivered) -> None:
    features = json.loads((delivered / "footprint.geojson").read_text())["features"]
    with rasterio.open(delivered / "reconstruction.tif") as file:
        xs, ys = zip(*((x, y) for y in (file.bounds.top, file.bounds.bottom)
                       for x in (file.bounds.left, file.bounds.right)), strict=True)  # fmt: skip
        corners = np.array(transform(file.crs, "EPSG:4326", xs, ys)).T
    outline = features[0]["geometry"]["coordinates"][0]
    assert outline[0] == outline[-1] and len(outline) == 13
    assert all(np.abs(np.array(outline) - corner).max(axis=1).min() < 1e-6 for corner in corners)
    x, y = np.array(outline[:-1]).T
    assert (x * np.roll(y, -1) - np.roll(x, -1) * y).sum() > 0  # counter-clockwise, as RFC 7946 wants it
    tiles = {feature["properties"]["state"]: feature["properties"]["tiles"] for feature in features[1:]}
    assert tiles == {"coded": 8, "withheld": 1}


def test_a_footprint_across_the_antimeridian_is_cut_in_two() -> None:
    wkt = rasterio.crs.CRS.from_epsg(32601).to_wkt()
    info = info_of(256, 12_000, left=2.2e5, wkt=wkt)
    placed = place_corners(info, 256)
    assert placed is not None and placed.bbox[0] > placed.bbox[2]
    shape = footprint(SceneReception(1), info, placed)["features"][0]["geometry"]
    assert shape["type"] == "MultiPolygon" and len(shape["coordinates"]) == 2
    for (ring,) in shape["coordinates"]:
        longitudes = [x for x, _ in ring]
        assert ring[0] == ring[-1] and max(longitudes) - min(longitudes) < 2
        assert 180.0 in map(abs, longitudes)


def test_control_points_place_a_footprint_as_the_transform_does() -> None:
    by_transform = info_of(512, 512)
    a, _, c, _, e, f = by_transform.transform
    points = tuple((float(row), float(col), c + a * col, f + e * row, 0.0) for row in (0, 512) for col in (0, 512))
    by_points = SceneInfo("b", 512, 512, RGBN, 10.0, crs_wkt=WKT, gcps=points)
    first, second = place_corners(by_transform, 256), place_corners(by_points, 256)
    assert first is not None and second is not None and second.by == "ground control points"
    assert np.allclose(first.longitude, second.longitude, atol=1e-6) and np.allclose(
        first.latitude, second.latitude, atol=1e-6
    )


def test_no_place_no_footprint() -> None:
    assert place_corners(SceneInfo("c", 64, 64, RGBN, 10.0), 64) is None


def write_pair(folder: Path, size: int = 1200) -> SceneInfo:
    """reconstruction.tif: red in the north, blue in the south, unknown in the east; cloud.tif: classes in stripes."""
    info = info_of(size, size)
    dn = np.full((4, size, size), 500, np.uint16)
    dn[2, : size // 2], dn[0, size // 2 :] = 4000, 4000
    known = np.ones((size, size), bool)
    known[:, size - size // 4 :] = False
    classes = np.zeros((size, size), np.uint8)
    classes[:, ::2] = 4
    with PictureWriter(folder / "reconstruction.tif", info, ORIGIN) as picture:
        picture.write_strip(0, dn, known)
    with CloudClassWriter(folder / "cloud.tif", info, ORIGIN) as cloud:
        cloud.write_strip(0, classes)
    return info


def test_overviews_of_classes_hold_no_class_that_is_not_there(tmp_path) -> None:
    """Averages of 0 (clear) and 4 (withheld) would be 2 (thin cloud)."""
    write_pair(tmp_path)
    with rasterio.open(tmp_path / "cloud.tif", overview_level=0) as file:
        assert set(np.unique(file.read(1))) <= {0, 4}


def test_gdal_opens_the_overlay_where_the_scene_lies_and_sees_its_colours(tmp_path) -> None:
    info = write_pair(tmp_path)
    stretch = Stretch(np.zeros(3, np.float32), np.full(3, 4000, np.float32))
    write_kmz(tmp_path / "reconstruction.tif", tmp_path / "a.kmz", stretch, info.name, "about <it>", NOW)
    with (
        rasterio.open(tmp_path / "reconstruction.tif") as picture,
        WarpedVRT(picture, crs="EPSG:4326") as warped,
        rasterio.open(tmp_path / "a.kmz") as overlay,
    ):
        assert overlay.driver == "KMLSUPEROVERLAY"
        assert np.allclose(overlay.bounds, warped.bounds, atol=2 * overlay.res[0])
        rgba = overlay.read(out_shape=(4, 90, 90), resampling=Resampling.nearest).astype(int)
    north, south, east = rgba[:, 10, 20], rgba[:, 80, 20], rgba[:, 40, 85]
    assert north[0] > 230 > 60 > north[2] and south[2] > 230 > 60 > south[0]
    assert north[3] == 255 and east[3] == 0


def test_the_overlay_states_its_time_and_regions_and_is_the_same_every_time(tmp_path) -> None:
    info = write_pair(tmp_path)
    stretch = Stretch(np.zeros(3, np.float32), np.full(3, 4000, np.float32))
    for name in ("a.kmz", "b.kmz"):
        write_kmz(tmp_path / "reconstruction.tif", tmp_path / name, stretch, info.name, "about <it>", NOW)
    assert (tmp_path / "a.kmz").read_bytes() == (tmp_path / "b.kmz").read_bytes()
    with zipfile.ZipFile(tmp_path / "a.kmz") as packed:
        names = [name for name in packed.namelist() if name.endswith(".kml")]
        texts = {name: packed.read(name).decode() for name in names}
    assert names[0] == "doc.kml" and "<name>a scene</name><description>about &lt;it&gt;<" in texts["doc.kml"]
    assert len(names) > 5 and all(f"<when>{NOW}</when>" in text and "<Region>" in text for text in texts.values())


def test_an_item_of_a_satellite_that_is_known_names_it(tmp_path) -> None:
    info = write_pair(tmp_path, 600)
    origin = Origin("sentinel2", "Sentinel-2A", "0123abcd", 7, designator_of("1 40697U 15028A   26172.5"))
    cloudy = cloud_cover(tmp_path / "cloud.tif")
    entry = write_item(info, origin, place_corners(info, 256), tmp_path, 600 * 450, cloudy, "./collection.json")
    write_collection(origin, {"./item.json": entry}, tmp_path)
    assert entry["properties"]["sat:platform_international_designator"] == "2015-028A"
    assert entry["properties"]["nadir:known_percent"] == 75 and entry["properties"]["eo:cloud_cover"] == 50
    assert pystac.Item.from_dict(entry).validate(validator())


def test_a_product_is_a_scene_again_with_its_time(tmp_path) -> None:
    write_pair(tmp_path, 600)
    with open_scene(str(tmp_path / "reconstruction.tif")) as scene:
        dn, valid = scene.read(0, 0, 4, 4)
        assert scene.info.sensed_at == NOW and dn[:, 0, 0].tolist() == [500, 500, 4000, 500] and valid.all()


@pytest.mark.parametrize(
    ("columns", "wanted"),
    [("98067A  ", "1998-067A"), ("57001B  ", "1957-001B"), ("56001ABC", "2056-001ABC"), ("98067   ", None),
     ("        ", None), ("XY067AB ", None)],
)  # fmt: skip
def test_a_designator_is_read_from_columns_10_to_17_or_not_at_all(columns: str, wanted: str | None) -> None:
    assert designator_of(f"1 25544U {columns} 24001.5") == wanted and designator_of(None) is None


@pytest.mark.parametrize("crs_wkt", ["WKT", None])
@pytest.mark.parametrize("transform", [(10.0, 0.0, 0.0, 0.0, -10.0, 0.0), None])
def test_a_super_overlay_needs_a_grid_on_the_earth(tmp_path, monkeypatch, crs_wkt, transform) -> None:
    """Control points place a footprint, and no grid of pixels."""
    written = []
    for name in ("place_corners", "footprint", "_quicklook", "write_json", "write_kmz"):
        monkeypatch.setattr(publish, name, lambda *_, name=name: written.append(name) or name)
    info = SceneInfo("x", 64, 64, RGBN, 10.0, crs_wkt=crs_wkt, transform=transform)
    assert publish.publish(None, info, Origin("m", "M", "00000000"), tmp_path, 64) == "place_corners"
    assert ("write_kmz" in written) == (crs_wkt is not None and transform is not None)
