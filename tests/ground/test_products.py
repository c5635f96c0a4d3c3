"""The rasters and pictures of a downlink: on the scene's grid, whole, or not there at all."""

import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import rasterio
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib import colormaps
from PIL import Image
from rasterio.enums import MaskFlags

from payload.errors import InputError
from payload.scene import SceneInfo
from payload.sensor import RGBN
from sim.products.quicklooks import HOLE_COLOURS, Quicklooks, Reducer, error_picture, find_stretch, true_colour
from sim.products.rasters import CloudProbabilityWriter, PictureWriter
from sim.scenes.demo import demo_scene
from sim.scenes.open_scene import open_scene

HEIGHT, WIDTH = 1300, 1100
STRIP = 256
#: In this order a GeoTIFF states its parts when it is a COG: the ghost area right after the header says so.
GHOST = b"GDAL_STRUCTURAL_METADATA_SIZE="


def make_info(nodata: int | None = 0, height: int = HEIGHT, width: int = WIDTH) -> SceneInfo:
    wkt = rasterio.crs.CRS.from_epsg(32631).to_wkt()
    return SceneInfo("a", height, width, RGBN, 10.0, 12, None, wkt, (10.0, 0.0, 4e5, 0.0, -10.0, 5e6), nodata)


def picture() -> tuple[np.ndarray, np.ndarray]:
    """dn uint16 [4, H, W] with some zeros, known bool [H, W]."""
    random = np.random.default_rng(9)
    dn = random.integers(0, 4000, (4, HEIGHT, WIDTH)).astype(np.uint16)
    dn[:, 100:110, 100:110] = 0
    known = np.ones((HEIGHT, WIDTH), bool)
    known[256:512, 512:768] = False
    return dn, known


def write_picture(path: Path, info: SceneInfo, strip: int = STRIP) -> tuple[np.ndarray, np.ndarray]:
    dn, known = picture()
    with PictureWriter(path, info) as writer:
        for row in range(0, HEIGHT, strip):
            writer.write_strip(row, dn[:, row : row + strip], known[row : row + strip])
    return dn, known


def test_reconstruction_is_a_cog_on_the_grid_of_the_scene(tmp_path: Path) -> None:
    info = make_info()
    path = tmp_path / "reconstruction.tif"
    dn, known = write_picture(path, info)
    with rasterio.open(path) as file:
        assert file.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert file.crs.to_epsg() == 32631 and tuple(file.transform)[:6] == info.transform
        assert (file.nodata, file.descriptions, file.dtypes[0]) == (0, RGBN, "uint16")
        assert file.overviews(1) == [2, 4] and file.block_shapes[0] == (512, 512)
        assert file.mask_flag_enums == ([MaskFlags.per_dataset],) * 4
        assert (file.dataset_mask() > 0).tolist() == known.tolist()
        expected = np.where(known, np.maximum(dn, 1), 0)  # a known 0 would read as no data: it becomes 1
        assert (file.read() == expected).all()
    assert GHOST in path.read_bytes()[:200]
    assert [entry.name for entry in tmp_path.iterdir()] == ["reconstruction.tif"]  # no .msk, .ovr, .aux.xml


def test_overviews_average_what_is_known(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    with PictureWriter(path, make_info(height=1024, width=1024)) as writer:
        known = np.ones((1024, 1024), bool)
        known[:, ::2] = False
        writer.write_strip(0, np.full((4, 1024, 1024), 1234, np.uint16), known)
    with rasterio.open(path, overview_level=0) as file:
        assert (file.read() == 1234).all() and (file.dataset_mask() == 255).all()


@pytest.mark.parametrize("nodata", [None, 0, 7, 65535])
def test_nodata_of_the_scene_is_kept(tmp_path: Path, nodata: int | None) -> None:
    path = tmp_path / "a.tif"
    dn, known = picture()
    dn[0, 0, 0] = dn[0, 0, 1] = 0 if nodata is None else nodata
    with PictureWriter(path, make_info(nodata)) as writer:
        writer.write_strip(0, dn, known)
    with rasterio.open(path) as file:
        assert file.nodata == nodata
        read = file.read()
        assert (read[:, ~known] == (nodata or 0)).all()
        assert nodata is None or (read[:, known] != nodata).all()
        assert abs(read[:, known].astype(int) - dn[:, known]).max() == (0 if nodata is None else 1)


def test_strips_of_any_height_give_the_same_octets(tmp_path: Path) -> None:
    for name, strip in (("a.tif", 256), ("b.tif", 100), ("c.tif", HEIGHT)):
        write_picture(tmp_path / name, make_info(), strip)
    first = (tmp_path / "a.tif").read_bytes()
    assert first == (tmp_path / "b.tif").read_bytes() == (tmp_path / "c.tif").read_bytes()


def test_the_product_opens_as_a_scene_again(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    dn, known = write_picture(path, make_info())
    with open_scene(str(path)) as scene:
        again, valid = scene.read(0, 0, HEIGHT, WIDTH)
        assert scene.info == SceneInfo(**{**vars(make_info()), "name": "a", "crs_wkt": scene.info.crs_wkt})
    assert (valid == known).all() and (again[:, known] == np.maximum(dn, 1)[:, known]).all()


def test_no_georeference_stays_none(tmp_path: Path) -> None:
    info = SceneInfo("a", 300, 200, RGBN, 10.0)
    with PictureWriter(tmp_path / "a.tif", info) as writer:
        writer.write_strip(0, np.ones((4, 300, 200), np.uint16), np.ones((300, 200), bool))
    with open_scene(str(tmp_path / "a.tif")) as scene:
        assert scene.info.crs_wkt is None and scene.info.transform is None and scene.info.nodata is None


def test_cloud_raster(tmp_path: Path) -> None:
    percent = np.random.default_rng(2).integers(0, 101, (HEIGHT, WIDTH)).astype(np.uint8)
    percent[:300, :300] = 255
    with CloudProbabilityWriter(tmp_path / "cloud.tif", make_info()) as writer:
        for row in range(0, HEIGHT, STRIP):
            writer.write_strip(row, percent[row : row + STRIP])
    with rasterio.open(tmp_path / "cloud.tif") as file:
        assert (file.count, file.dtypes[0], file.nodata) == (1, "uint8", 255)
        assert file.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert file.crs.to_epsg() == 32631 and tuple(file.transform)[:6] == make_info().transform
        assert (file.read(1) == percent).all()
        assert file.read(1, out_shape=(325, 275)).max() in (100, 255)  # an overview averages no 255 into the values


def test_an_exception_leaves_nothing_behind(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    path.write_bytes(b"the one from yesterday")
    dn, known = picture()
    with pytest.raises(RuntimeError, match="link fell over"), PictureWriter(path, make_info()) as writer:
        writer.write_strip(0, dn[:, :256], known[:256])
        raise RuntimeError("link fell over")
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.tif"]
    assert path.read_bytes() == b"the one from yesterday"


def test_strips_must_cover_the_scene(tmp_path: Path) -> None:
    dn, known = picture()
    with pytest.raises(ValueError, match="256 of 1300 rows"), PictureWriter(tmp_path / "a.tif", make_info()) as writer:
        writer.write_strip(0, dn[:, :256], known[:256])
    with pytest.raises(ValueError, match="from row 0"), PictureWriter(tmp_path / "b.tif", make_info()) as writer:
        writer.write_strip(256, dn[:, :256], known[:256])
    with pytest.raises(ValueError, match="wanted the whole width"), PictureWriter(tmp_path / "c.tif", make_info()) as w:
        w.write_strip(0, dn[:, :256, :50], known[:256, :50])
    assert list(tmp_path.iterdir()) == []


def test_nowhere_to_write(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no folder .*none to write to; make it first"):
        PictureWriter(tmp_path / "none" / "a.tif", make_info())


def test_a_full_disk_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def copy(*_: object, **__: object) -> None:
        raise rasterio.errors.RasterioIOError("write failed:\nno space left on device")

    monkeypatch.setattr("rasterio.shutil.copy", copy)
    with pytest.raises(InputError, match="cannot be written") as caught:
        write_picture(tmp_path / "a.tif", make_info())
    assert "\n" not in str(caught.value) and list(tmp_path.iterdir()) == []


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_reduction_is_the_mean_of_known_pixels_however_it_is_cut(data: st.DataObject) -> None:
    height, width, step = (data.draw(st.integers(1, 40)) for _ in range(3))
    cuts = sorted({0, height, *data.draw(st.lists(st.integers(0, height), max_size=4))})
    random = np.random.default_rng(data.draw(st.integers(0, 99)))
    values = random.integers(0, 65536, (2, height, width)).astype(np.uint16)
    known = random.random((height, width)) > 0.4
    reducer = Reducer(2, height, width, step)
    for top, bottom in pairwise(cuts):
        reducer.add(top, values[:, top:bottom], known[top:bottom])
    mean, seen = reducer.mean()
    for row in range(mean.shape[1]):
        for col in range(mean.shape[2]):
            square = slice(row * step, (row + 1) * step), slice(col * step, (col + 1) * step)
            assert seen[row, col] == known[square].any()
            if seen[row, col]:
                np.testing.assert_allclose(
                    mean[:, row, col], values[:, *square][:, known[square]].mean(axis=1), rtol=2e-6
                )


def quicklooks(folder: Path, max_px: int, hole: bool = True) -> dict[str, np.ndarray]:
    """Pictures of the demo; the reconstruction is 100 DN too bright in its right half and lacks a tile."""
    scene = demo_scene(640, 512)
    looks = Quicklooks(scene.info, max_px)
    for row in range(0, 640, 256):
        height = min(256, 640 - row)
        dn, valid = scene.read(row, 0, height, 512)
        known = valid.copy()
        if hole and row == 0:
            known[:, 256:] = False
        wrong = dn.copy()
        wrong[:, :, 256:] += 100
        looks.add(row, dn, valid, wrong, known, np.where(dn[0] > 3000, 100, 0).astype(np.uint8))
    kinds = [["coded", "lost" if hole else "coded"], ["coded", "withheld"], ["coded", "coded"]]
    pictures = looks.write(folder, kinds, 256)
    assert list(pictures.paths) == ["original", "reconstruction", "error", "mask"]
    assert pictures.error_limit_dn == pytest.approx(100) and "100 DN" in pictures.error_scale
    assert "withheld" in pictures.mask_legend
    return {name: np.asarray(Image.open(path)) for name, path in pictures.paths.items()}


@pytest.mark.parametrize(("max_px", "shape"), [(1400, (640, 512, 3)), (250, (214, 171, 3))])
def test_quicklooks_have_one_size(tmp_path: Path, max_px: int, shape: tuple[int, int, int]) -> None:
    pictures = quicklooks(tmp_path, max_px)
    assert {picture.shape for picture in pictures.values()} == {shape}
    assert sorted(entry.name for entry in tmp_path.iterdir()) == sorted(f"{name}.png" for name in pictures)


def test_quicklooks_share_one_stretch_and_show_errors_and_holes(tmp_path: Path) -> None:
    pictures = quicklooks(tmp_path, 1400)
    original, reconstruction = pictures["original"].astype(int), pictures["reconstruction"].astype(int)
    assert (original[:, :256] == reconstruction[:, :256]).all()
    right = reconstruction[256:, 256:] - original[256:, 256:]
    assert right.min() >= 0 and right.mean() > 3
    holes = np.unique(reconstruction[:256, 256:].reshape(-1, 3), axis=0)
    assert holes.tolist() == [list(colour) for colour in HOLE_COLOURS]
    error = pictures["error"].astype(int).sum(axis=2)
    assert error[:, :256].max() < 10 and error[256:, 256:].min() > 500  # black where right, bright where 100 DN off
    lost, coded = pictures["mask"][:256, 256:].astype(int), pictures["mask"][512:, 256:].astype(int)
    redness = [(part[..., 0] - part[..., 1]).mean() for part in (lost, coded)]
    assert redness[0] > redness[1] + 40


def test_stretch_leaves_cloud_out_and_survives_emptiness() -> None:
    mean = np.full((3, 50, 50), 500, np.float32)
    mean[:, :, 25:] = 700
    mean[:, :20] = 9000
    valid, cloudy = np.ones((50, 50), bool), mean[0] > 5000
    stretch = find_stretch(mean, valid, cloudy)
    assert (stretch.low == 500).all() and (stretch.high == 700).all()
    assert find_stretch(mean, valid, valid).high[0] == 9000  # nothing clear: all of it counts
    none = find_stretch(mean, ~valid, cloudy)
    rgb = true_colour(mean, ~valid, none)
    assert np.isin(rgb, HOLE_COLOURS).all()
    flat = find_stretch(np.full((3, 5, 5), 4, np.float32), np.ones((5, 5), bool), np.zeros((5, 5), bool))
    assert (flat.high > flat.low).all()


def test_shades_of_errors_are_those_of_inferno() -> None:
    """The file holds matplotlib's table, so that a downlink need not import it; nobody imports it meanwhile."""
    limit_dn = 255.0
    shades = error_picture(np.arange(256, dtype=np.float32)[None], np.ones((1, 256), bool), limit_dn)
    assert np.array_equal(shades[0], colormaps["inferno"](np.arange(256), bytes=True)[:, :3])


def test_a_downlink_imports_no_matplotlib() -> None:
    script = "import sim.downlink, sys; print('matplotlib' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_a_command_line_imports_no_gdal() -> None:
    script = "import sim.cli, sim.commands.root, sys; print('rasterio' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
