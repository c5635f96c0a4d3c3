"""`sim serve`: tiles, values and a WMTS that GDAL reads; and the page in a real browser."""

import io
import json
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import rasterio
from chromium import Page
from PIL import Image
from rasterio.warp import transform

from payload.errors import InputError
from payload.scene import SceneInfo
from payload.sensor import RGBN
from sim.commands.live import serve
from sim.products.origin import Origin
from sim.products.provenance import VALUE
from sim.products.rasters import CloudClassWriter, PictureWriter, ProvenanceWriter
from sim.scenes.imager.sensor_files import load_sensor

uvicorn = pytest.importorskip("uvicorn")
pytest.importorskip("rio_tiler")
from sim.viewer import tiles  # noqa: E402
from sim.viewer.server import application  # noqa: E402
from sim.viewer.shelf import ShownScene, find_scenes  # noqa: E402

SIDE = 512
TIMES = ("2026-04-18T10:51:07Z", "2026-04-28T10:51:07Z")


def write_scene(folder: Path, number: int) -> None:
    """Red in the north, green in the south; withheld in the north-west corner; the original is 7 DN brighter."""
    folder.mkdir(parents=True)
    wkt = rasterio.crs.CRS.from_epsg(32631).to_wkt()
    place = (10.0, 0.0, 4e5 + number * 2e4, 0.0, -10.0, 5e6)
    info = SceneInfo(f"scene {number}", SIDE, SIDE, RGBN, 10.0, 12, TIMES[number], wkt, place, 0)
    dn = np.random.default_rng(number).integers(500, 520, (4, SIDE, SIDE)).astype(np.uint16)
    dn[2, :256] += 3000
    dn[1, 256:] += 3000
    known = np.ones((SIDE, SIDE), bool)
    known[:128, :128] = False
    origin = Origin("phisat2", "a mission", "0123abcd", number)
    for name, picture, mask in (("reconstruction", dn, known), ("original", dn + 7, np.ones_like(known))):
        with PictureWriter(folder / f"{name}.tif", info, origin) as writer:
            writer.write_strip(0, picture.astype(np.uint16), mask)
    with CloudClassWriter(folder / "cloud.tif", info, origin) as cloud:
        cloud.write_strip(0, np.where(known, 0, 4).astype(np.uint8))
    states = np.stack([np.where(known, VALUE["coded"], VALUE["withheld"]), 5 * known]).astype(np.uint8)
    with ProvenanceWriter(folder / "provenance.tif", info, origin) as provenance:
        provenance.write_strip(0, states)
    (folder / "report.html").write_text("<title>a report</title>")
    (folder / "secret.txt").write_text("not for the web")


@pytest.fixture(scope="module")
def shelf(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("received")
    for number in range(2):
        write_scene(folder / f"run{number}", number)
    return folder


@pytest.fixture(scope="module")
def address(shelf):
    config = uvicorn.Config(application(find_scenes([shelf])), host="127.0.0.1", port=0, log_level="error")
    listening = config.bind_socket()
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, args=([listening],), daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    server.should_exit = True
    thread.join(20)


def get(where: str) -> bytes:
    with urllib.request.urlopen(where, timeout=30) as answer:
        return answer.read()


def position(shelf: Path, row: int, col: int, number: int = 0) -> tuple[float, float]:
    """Longitude and latitude of the middle of a pixel."""
    with rasterio.open(shelf / f"run{number}" / "reconstruction.tif") as file:
        (lon,), (lat,) = transform(file.crs, "EPSG:4326", *([v] for v in file.xy(row, col)))
    return lon, lat


def tile_at(lon: float, lat: float, z: int) -> tuple[int, int, int, int]:
    """Tile and pixel in it of a position, by the formula of the web's map tiles."""
    x = (lon + 180) / 360 * 2**z
    y = (1 - np.arcsinh(np.tan(np.radians(lat))) / np.pi) / 2 * 2**z
    return int(x), int(y), int(256 * (x % 1)), int(256 * (y % 1))


def test_values_are_those_that_rasterio_reads(shelf, address) -> None:
    for row, col in ((200, 300), (400, 10), (511, 511)):
        lon, lat = position(shelf, row, col)
        found = json.loads(get(f"{address}/value/s0?lon={lon}&lat={lat}"))
        assert (found["row"], found["col"]) == (row, col)
        for layer, name in (("received", "reconstruction"), ("original", "original"), ("provenance", "provenance")):
            with rasterio.open(shelf / "run0" / f"{name}.tif") as file:
                assert found[layer] == file.read()[:, row, col].tolist()
    lon, lat = position(shelf, 50, 50)
    assert json.loads(get(f"{address}/value/s0?lon={lon}&lat={lat}"))["received"] is None
    assert json.loads(get(f"{address}/value/s0?lon=0&lat=0")) is None


def test_tiles_show_colours_indices_and_holes_in_their_places(shelf, address) -> None:
    def pixel(path: str, row: int, col: int) -> list[int]:
        x, y, px, py = tile_at(*position(shelf, row, col), 12)
        picture = Image.open(io.BytesIO(get(f"{address}/tiles/s0/{path}/12/{x}/{y}.png")))
        return list(picture.getpixel((px, py)))

    north, south, hole = (
        pixel("received/true", 200, 300),
        pixel("received/true", 400, 300),
        pixel("received/true", 60, 60),
    )
    assert north[0] > north[1] and south[1] > south[0] and north[3] == south[3] == 255 and hole[3] == 0
    assert pixel("original/true", 60, 60)[3] == 255
    assert pixel("received/ndvi", 200, 300) != pixel("received/ndvi", 400, 300)
    assert pixel("provenance/holes", 60, 60)[:3] == [238, 240, 244] and pixel("provenance/holes", 200, 300)[3] == 0
    assert pixel("provenance/layers", 200, 300)[3] == 255 and pixel("cloud/classes", 60, 60)[3] > 0
    far = Image.open(io.BytesIO(get(f"{address}/tiles/s0/received/true/5/0/0.png")))
    assert np.asarray(far)[:, :, 3].max() == 0


@pytest.mark.parametrize("name", ["phisat2", "sentinel2-l2a-12"])
def test_colours_of_other_sensors_are_found_by_role_and_one_band_is_grey(name: str, tmp_path: Path) -> None:
    sensor, known = load_sensor(name), np.ones((SIDE, SIDE), bool)
    place, wkt = (10.0, 0.0, 4e5, 0.0, -10.0, 5e6), rasterio.crs.CRS.from_epsg(32631).to_wkt()
    for folder, own in (("all", sensor), ("one", sensor.only([0]))):
        dn = np.random.default_rng(3).integers(500, 520, (len(own.bands), SIDE, SIDE)).astype(np.uint16)
        for role, more in (("red", 900), ("nir", 3000)):
            if (at := own.place(role)) is not None:
                dn[at, :256] += more
        (tmp_path / folder).mkdir()
        info = SceneInfo(folder, SIDE, SIDE, own.names, 10.0, 12, None, wkt, place, 0, sensor=own)
        with PictureWriter(tmp_path / folder / "reconstruction.tif", info, Origin("m", "a mission", "0", 1)) as writer:
            writer.write_strip(0, dn, known)
    scenes = {scene.folder.name: scene for scene in find_scenes([tmp_path]).values()}
    whole, one = (painted(scenes[name], "true") for name in ("all", "one"))
    assert whole[0, 100, 100] > whole[1, 100, 100] + 50 and np.array_equal(one[0], one[1])
    green = painted(scenes["all"], "ndvi")
    assert not np.array_equal(green[:3, 100, 100], green[:3, 400, 100]) and painted(scenes["one"], "ndvi")[3].max() == 0


def painted(scene: ShownScene, style: str) -> np.ndarray:
    with rasterio.open(scene.layers["received"]) as file:
        return tiles._painter(scene, "received", style)(file.read(), np.ones((SIDE, SIDE), bool))


def test_gdal_opens_the_wmts_and_reads_the_same_colours(shelf, address) -> None:
    where = f"WMTS:{address}/wmts/1.0.0/WMTSCapabilities.xml,layer=s0-received-true"
    lon, lat = position(shelf, 200, 300)
    with rasterio.Env(GDAL_ENABLE_WMS_CACHE="NO"), rasterio.open(where) as file:
        assert file.driver == "WMTS" and file.crs.to_epsg() == 3857 and file.count == 4
        (x,), (y,) = transform("EPSG:4326", file.crs, [lon], [lat])
        row, col = file.index(x, y)
        read = file.read(window=((row, row + 1), (col, col + 1)))[:, 0, 0]
        box = transform(
            file.crs, "EPSG:4326", [file.bounds.left, file.bounds.right], [file.bounds.bottom, file.bounds.top]
        )
    assert read[0] > read[1] and read[3] == 255
    assert box[0][0] < lon < box[0][1] and box[1][0] < lat < box[1][1]


def test_the_capabilities_list_every_layer_and_key_value_tiles_are_the_same(shelf, address) -> None:
    root = ElementTree.fromstring(get(f"{address}/wmts?SERVICE=WMTS&REQUEST=GetCapabilities"))
    spaces = {"w": "http://www.opengis.net/wmts/1.0", "o": "http://www.opengis.net/ows/1.1"}
    found = [entry.text for entry in root.findall("w:Contents/w:Layer/o:Identifier", spaces)]
    assert {"s0-received-true", "s0-original-ndvi", "s1-provenance-holes", "s1-cloud-classes"} <= set(found)
    x, y, _, _ = tile_at(*position(shelf, 200, 300), 12)
    asked = f"SERVICE=WMTS&REQUEST=GetTile&LAYER=s0-received-true&TILEMATRIX=12&TILECOL={x}&TILEROW={y}"
    assert get(f"{address}/wmts?{asked}") == get(f"{address}/tiles/s0/received/true/12/{x}/{y}.png")


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("/files/s0/secret.txt", 404), ("/files/s0/..%2Frun1%2Freport.html", 404), ("/static/..%2Fserver.py", 404),
        ("/tiles/s9/received/true/1/0/0.png", 404), ("/tiles/s0/received/none/1/0/0.png", 404),
        ("/value/s0?lon=x&lat=1", 400), ("/wmts?REQUEST=GetTile&LAYER=no", 400),
    ],
)  # fmt: skip
def test_what_is_not_offered_is_not_given(address, path: str, code: int) -> None:
    with pytest.raises(urllib.error.HTTPError) as told:
        get(address + path)
    assert told.value.code == code


def test_a_folder_without_scenes_is_refused(tmp_path) -> None:
    with pytest.raises(InputError, match=r"no reconstruction\.tif"):
        find_scenes([tmp_path])
    with pytest.raises(InputError, match="not found"):
        find_scenes([tmp_path / "none"])


def test_originals_lie_elsewhere_under_the_scenes_name(shelf, tmp_path) -> None:
    write_scene(tmp_path / "a", 0)
    (tmp_path / "a" / "original.tif").rename(tmp_path / "scene 0.tif")
    assert "original" not in find_scenes([tmp_path / "a"])["s0"].layers
    assert find_scenes([tmp_path / "a"], tmp_path)["s0"].layers["original"] == tmp_path / "scene 0.tif"


def test_without_the_extra_it_says_so_in_a_line(shelf, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    with pytest.raises(InputError, match=r"pip install 'nadir-payload\[viewer\]'"):
        serve([shelf])


def settle(page: Page, condition: str) -> None:
    """Waits until a condition holds in the page."""
    page.value(
        f"new Promise((done, fail) => {{ const end = Date.now() + 50000; const look = () => ({condition}) ? done(1) :"
        " Date.now() > end ? fail('waited too long') : setTimeout(look, 50); look(); })"
    )


def put(page: Page, name: str, value: str, event: str) -> None:
    """Sets a control as a user does."""
    control = f"document.getElementById({name!r})"
    page.value(f"(() => {{ {control}.value = {value!r}; {control}.dispatchEvent(new Event({event!r})); }})()")


@pytest.mark.browser
@pytest.mark.slow
@pytest.mark.parametrize(("width", "height", "touch"), [(1280, 900, False), (400, 800, True)])
def test_the_page_swipes_and_reads_the_value_that_rasterio_reads(
    browser: Page, shelf, address, width: int, height: int, touch: bool
) -> None:
    browser.events.clear()
    browser.open(f"{address}/", width, height, touch)
    settle(browser, "document.documentElement.dataset.ready === 'yes'")
    assert browser.value("document.documentElement.scrollWidth") <= width
    put(browser, "swipe", "25", "input")
    assert "25%" in browser.value("document.querySelector('#right').style.clipPath")
    put(browser, "scene", "s0", "change")
    lon, lat = position(shelf, 300, 400)
    browser.value(f"viewer.right.jumpTo({{center: [{lon}, {lat}], zoom: 13}}), 0")
    x, y = browser.middle("#stage")
    for kind in ("mouseMoved",) if not touch else ("mousePressed", "mouseReleased"):
        browser.mouse(kind, x, y)
    settle(browser, "document.querySelector('#told').textContent.startsWith('row')")
    told = browser.value("document.querySelector('#told').textContent")
    row, col = (int(word) for word in told.replace("row ", "").split(", column "))
    assert abs(row - 300) <= 2 and abs(col - 400) <= 2
    cells = browser.value("[...document.querySelectorAll('#values tbody td')].map(cell => cell.textContent)")
    with (
        rasterio.open(shelf / "run0" / "reconstruction.tif") as received,
        rasterio.open(shelf / "run0" / "original.tif") as original,
    ):
        expected = [(a, b) for a, b in zip(original.read()[:, row, col], received.read()[:, row, col], strict=True)]
    assert [int(cell) for cell in cells] == [value for pair in expected for value in pair]
    foreign = [
        c for c in browser.complaints() if not c.startswith((address, "blob:")) and "GPU" not in c and "GL" not in c
    ]
    assert foreign == []


@pytest.mark.browser
@pytest.mark.slow
def test_the_time_slider_leaves_later_scenes_out(browser: Page, address) -> None:
    browser.open(f"{address}/")
    settle(browser, "document.documentElement.dataset.ready === 'yes'")
    assert browser.value("document.querySelectorAll('#scene option').length") == 2
    put(browser, "time", "0", "input")
    assert browser.value("document.querySelectorAll('#scene option').length") == 1
    assert browser.value("document.querySelector('#time-told').textContent") == TIMES[0]
