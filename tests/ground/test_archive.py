"""Scene files: the container's law and octets, windows, layers, other places than a disk, and damage."""

import hashlib
import http.server
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from typer.testing import CliRunner

import nadir
from payload.bundle import load_bundle
from payload.engine import open_engine
from payload.errors import BundleError, InputError, StreamError
from payload.link.scene_header import SceneHeader
from payload.link.scene_header import pack as pack_header
from payload.link.tile_code import Kind
from payload.scene import SceneInfo
from payload.tiles import split
from sim.archive import layout, service
from sim.archive.coding import Quality
from sim.archive.layout import Head, Index
from sim.archive.octets import Octets
from sim.archive.proof import tile_psnr_db
from sim.archive.store import Store, name_for
from sim.archive.verification import decoder_for, verify
from sim.archive.writing import Order
from sim.commands.root import app
from sim.ground.decoder import Decoder
from sim.progress import silent
from sim.scenes.demo import demo_scene

SIDE = 600  # three by three tiles, the last ones mostly beyond the edge
run = CliRunner()


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    found = Store(str(tmp_path_factory.mktemp("archive")))
    service.put(f"demo:{SIDE}", found, Order(Quality(cr=30)), silent)
    return found


@pytest.fixture(scope="module")
def path(store: Store) -> Path:
    (name,) = store.names()
    return Path(store.address(name))


@pytest.fixture(scope="module")
def whole(path: Path) -> NDArray[np.uint16]:
    with nadir.open(path) as scene:
        return scene[...]


@st.composite
def heads(draw: st.DrawFn) -> Head:
    rows, cols, layers = draw(st.integers(1, 4)), draw(st.integers(1, 4)), draw(st.integers(1, 16))
    info = SceneInfo("made up é", rows * 8 - draw(st.integers(0, 7)), cols * 8, ("B02", "B08"), 10.0)
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    tiles = rows * cols
    there = np.arange(layers) < rng.integers(0, layers + 1, tiles)[:, None]
    layer = np.where(there, rng.integers(1, 1 << 24, there.shape), 0).astype(np.uint32)
    head = rng.integers(0, 1 << 24, tiles).astype(np.uint32)
    ends = np.cumsum(head.astype(np.uint64) + layer.sum(axis=1).astype(np.uint64))
    offset = np.concatenate([np.zeros(1, np.uint64), ends[:-1]])
    kind, cloud = rng.integers(0, 6, tiles).astype(np.uint8), rng.integers(0, 256, tiles).astype(np.uint8)
    psnr = rng.integers(0, 1 << 16, there.shape).astype(np.uint16)
    text = draw(st.dictionaries(st.text(max_size=5), st.text(max_size=20) | st.integers(-9, 9), max_size=3))
    header = SceneHeader(draw(st.integers(0, 2**32 - 1)), 7, 8, info)
    return Head(header, text, Index(offset, kind, cloud, head, layer, psnr), int(ends[-1]), rng.bytes(32))


@settings(max_examples=25, deadline=None)
@given(heads())
def test_unpacking_a_head_is_the_inverse_of_packing_it(head: Head) -> None:
    octets = layout.pack(head)
    found = layout.unpack(octets)
    assert layout.head_octets(octets[: layout.FIXED.size]) == len(octets)
    assert (found.header, found.text, found.body_octets) == (head.header, head.text, head.body_octets)
    for name in ("offset", "kind", "cloud", "head", "layer", "psnr"):
        assert np.array_equal(getattr(found.index, name), getattr(head.index, name)), name


def test_a_head_of_one_tile_has_the_octets_of_the_icd() -> None:
    info = SceneInfo("a", 8, 8, ("B",), 0.0)
    index = Index(
        np.zeros(1, np.uint64), np.array([0], np.uint8), np.array([255], np.uint8), np.array([0x0102], np.uint32),
        np.array([[0x030405, 6]], np.uint32), np.array([[4001, 65535]], np.uint16),
    )  # fmt: skip
    body = 0x0102 + 0x030405 + 6
    octets = layout.pack(Head(SceneHeader(1, 2, 8, info), {}, index, body, bytes(range(32))))
    header = len(pack_header(SceneHeader(1, 2, 8, info)))  # of which tests/onboard/test_scene_header.py has the octets
    assert octets[:8].hex() == "894e44520d0a1a0a"  # magic
    assert octets[8:12].hex() == "01020000"  # version 1, two layers
    assert octets[12:24].hex() == f"{header:08x}" + "00000002" + "00000001"  # text `{}`, one tile
    assert octets[24:32].hex() == f"{body:016x}"
    assert octets[32:64] == bytes(range(32))
    entry = octets[64 + header + 2 : -32]
    assert entry.hex() == (
        "000000000000"  # offset
        "00ff"  # kind, cloud
        "000102"  # octets before the layers
        "030405000006"  # layers
        "0fa1ffff"  # 40.01 dB, no error
    )
    assert octets[-32:] == hashlib.sha256(octets[:-32]).digest()


def test_a_window_is_that_part_of_the_whole_scene_and_costs_its_tiles_alone(
    path: Path, whole: NDArray[np.uint16]
) -> None:
    with nadir.open(path) as scene:
        before = scene.octets.read_octets
        found = scene[:, 10:250, 20:256]
        tile = scene.head.index.octets(0, 4)
        assert scene.octets.read_octets - before == tile
    assert np.array_equal(found, whole[:, 10:250, 20:256])


KEYS = [
    (0,), (slice(1, 3), 5), (..., 599), (slice(None), slice(590, 100, -7), [3, 3, 260]), (-1, -1, -1), ([2, 0], 1, ...),
    (slice(None), slice(5, 5), slice(None)), (slice(0, 9), np.int64(3), slice(-300, None)),
]  # fmt: skip


@pytest.mark.parametrize("key", KEYS, ids=str)
def test_indices_mean_what_they_mean_in_numpy(path: Path, whole: NDArray[np.uint16], key: tuple[object, ...]) -> None:
    assert np.array_equal(nadir.open(path)[key], whole[key])  # type: ignore[index]


def test_bands_go_by_name_and_wrong_indices_are_refused(path: Path, whole: NDArray[np.uint16]) -> None:
    scene = nadir.open(path)
    assert np.array_equal(scene["B08", :9, :9], whole[3, :9, :9])
    assert np.array_equal(scene[["B08", "B02"], :9, :9], whole[[3, 0], :9, :9])
    for key in ("B8A", (0, 600), (0, 0, 0, 0)):
        with pytest.raises(IndexError):
            scene[key]


def test_fewer_layers_cost_fewer_octets_and_have_the_quality_of_the_index(path: Path) -> None:
    original = list(split(demo_scene(SIDE, SIDE, 0), 256))
    read = []
    for layers in (1, 2, 4):
        scene = nadir.open(path, layers=layers)
        before = scene.octets.read_octets
        for tile in original:
            at = tile.row * 256, tile.col * 256, min(256, SIDE - tile.row * 256), min(256, SIDE - tile.col * 256)
            dn, valid = scene.read(*at)
            padded = np.zeros_like(tile.dn)
            padded[:, : at[2], : at[3]] = dn
            assert valid.all()
            kept = scene.psnr_db[tile.row, tile.col]
            assert kept <= tile_psnr_db(padded, tile) < kept + 0.011
        read.append(scene.octets.read_octets - before)
    assert read[0] < read[1] < read[2]


def test_a_psnr_asked_for_takes_as_many_layers_as_the_index_says(path: Path) -> None:
    best = nadir.open(path).psnr_db
    scene = nadir.open(path, psnr_db=float(best.min()) - 8)
    assert (scene.psnr_db >= best.min() - 8).all() and (scene.psnr_db < best).any()


def test_a_scene_keeps_its_place_and_its_file_the_ratio_asked_for(path: Path) -> None:
    scene, info = nadir.open(path), demo_scene(SIDE, SIDE, 0).info
    for name in ("transform", "sensed_at", "bands", "nodata", "gsd_m", "bits"):
        assert getattr(scene.info, name) == getattr(info, name), name
    assert scene.shape == (4, SIDE, SIDE)
    ratio = 8 * SIDE * SIDE / path.stat().st_size
    assert 30 <= ratio < 31


def test_every_tile_of_a_scene_archived_at_a_psnr_has_it(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    entry = service.put("demo:300", store, Order(Quality(psnr_db=42)), silent)
    assert entry.missing == () and entry.worst_psnr_db is not None and entry.worst_psnr_db >= 42
    with pytest.raises(InputError, match="already there"):
        service.put("demo:300", store, Order(Quality(psnr_db=42)), silent)


def test_a_ratio_too_high_for_all_tiles_leaves_each_its_coarsest_layer(tmp_path: Path) -> None:
    found = run.invoke(app, ["archive", "put", "demo:600", "--store", str(tmp_path), "--cr", "2500", "--json"])
    (entry,) = json.loads(found.stdout)
    assert (found.exit_code, entry["tiles"], entry["missing"]) == (0, {"coded": 9}, [])
    assert not np.isnan(nadir.open(tmp_path / f"{entry['name']}.nadir").psnr_db).any()


def test_an_original_whose_tiles_were_withheld_must_stay(path: Path) -> None:
    scene = nadir.open(path)
    index = scene.head.index
    kind = index.kind.copy()
    kind[2] = int(Kind.WITHHELD)
    scene.head = replace(scene.head, index=replace(index, kind=kind))
    assert service.describe(scene, "x").missing == ("1 of 9 tiles are withheld: ask for a smaller --cr",)


def test_put_list_get_and_verify_work_from_the_command_line(tmp_path: Path, path: Path, whole: NDArray) -> None:
    import rasterio

    store = str(path.parent)
    listed = run.invoke(app, ["archive", "list", "--store", store, "--json"])
    (entry,) = json.loads(listed.stdout)
    assert entry["tiles"] == {"coded": 9} and entry["name"] == name_for("demo-600x600", int(entry["name"][-8:], 16))
    out = tmp_path / "window.tif"
    arguments = ["archive", "get", entry["name"], "--store", store, "--out", str(out), "--window", "250,10,300,200"]
    assert run.invoke(app, arguments).exit_code == 0
    with rasterio.open(out) as file, nadir.open(path) as scene:
        assert np.array_equal(file.read(), whole[:, 250:550, 10:210])
        a, _, c, _, e, f = scene.info.transform or (0.0,) * 6
        assert (file.transform.c, file.transform.f) == (c + 10 * a, f + 250 * e)
    said = run.invoke(app, ["archive", "verify", "--store", store, "--decode"])
    assert (said.exit_code, said.stdout.splitlines()[-1]) == (0, "1 files, 0 damaged")


class Ranges(http.server.SimpleHTTPRequestHandler):
    """A web server that answers ranges, and counts the octets it sends."""

    sent = 0

    def do_GET(self) -> None:
        octets = Path(self.translate_path(self.path)).read_bytes()
        first, last = self.headers["Range"].removeprefix("bytes=").split("-")
        part = octets[int(first) : int(last) + 1]
        self.send_response(206)
        self.send_header("Content-Length", str(len(part)))
        self.send_header("Content-Range", f"bytes {first}-{int(first) + len(part) - 1}/{len(octets)}")
        self.end_headers()
        self.wfile.write(part)
        Ranges.sent += len(part)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def web(path: Path) -> Iterator[str]:
    pytest.importorskip("aiohttp", reason="extra `archive` is not installed")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Ranges, directory=path.parent))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/{path.name}"
    server.shutdown()


def test_a_window_over_the_web_is_read_by_ranges(web: str, path: Path, whole: NDArray[np.uint16]) -> None:
    Ranges.sent = 0
    found = nadir.open(web)[:, 300:400, 300:310]
    assert np.array_equal(found, whole[:, 300:400, 300:310])
    assert Ranges.sent < path.stat().st_size / 3


def test_a_store_may_be_any_place_that_fsspec_knows(path: Path, whole: NDArray[np.uint16]) -> None:
    store = Store("memory://kept/here")
    store.take(path, "one")
    assert store.names() == ["one"]
    assert np.array_equal(nadir.open(store.address("one"))[0, :9], whole[0, :9])
    assert verify(store.open("one"), "one").sound


def test_reading_needs_no_gdal(path: Path) -> None:
    program = (
        "import sys, nadir\n"
        f"nadir.open({str(path)!r})[0, :3, :3]\n"
        "print([name for name in ('rasterio', 'osgeo', 'scipy', 'typer') if name in sys.modules])"
    )
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "[]"


def test_xarray_opens_a_scene_lazily_a_tile_a_chunk(path: Path, whole: NDArray[np.uint16]) -> None:
    xr = pytest.importorskip("xarray", reason="extra `archive` is not installed")
    pytest.importorskip("dask.array", reason="extra `archive` is not installed")
    data = xr.open_dataset(path, engine="nadir", chunks={})
    assert data.dn.chunks == ((4,), (256, 256, 88), (256, 256, 88))
    assert data.dn.sel(band="B04").isel(y=slice(5, 8), x=[300, 2]).values.tolist() == (
        whole[2, 5:8][:, [300, 2]].tolist()
    )
    a, _, c, _, e, f = nadir.open(path).info.transform or (0.0,) * 6
    assert (float(data.x[0]), float(data.y[-1])) == (c + a / 2, f + e * (SIDE - 0.5))


def test_xarray_reads_pixels_only_when_they_are_looked_at(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    xr = pytest.importorskip("xarray", reason="extra `archive` is not installed")
    monkeypatch.setattr(nadir.SceneFile, "read", lambda *_: pytest.fail("pixels were read"))
    assert xr.open_dataset(path, engine="nadir").dn.isel(y=slice(3)).shape == (4, 3, SIDE)


def damage(octets: bytes, bit: int) -> bytes:
    changed = bytearray(octets)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def refuted(tmp_path: Path, octets: bytes, bits: NDArray[np.int64]) -> list[int]:
    """The bits whose damage verify does not see."""
    copy = tmp_path / "damaged.nadir"
    missed = []
    for bit in bits.tolist():
        copy.write_bytes(damage(octets, bit))
        if verify(Octets(str(copy)), "damaged").sound:
            missed.append(bit)
    return missed


def test_verify_finds_every_single_bit(tmp_path: Path) -> None:
    service.put("demo:64", Store(str(tmp_path)), Order(Quality(psnr_db=30)), silent)
    octets = next(tmp_path.glob("*.nadir")).read_bytes()
    rng = np.random.default_rng(0)
    everywhere = rng.choice(8 * len(octets), 250, replace=False)
    in_front = np.arange(8 * layout.FIXED.size)
    assert refuted(tmp_path, octets, np.concatenate([everywhere, in_front])) == []


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_verify_finds_ten_thousand_single_bits(tmp_path: Path) -> None:
    service.put("demo:64", Store(str(tmp_path)), Order(Quality(psnr_db=42)), silent)
    octets = next(tmp_path.glob("*.nadir")).read_bytes()
    bits = np.random.default_rng(1).choice(8 * len(octets), 10_000, replace=False)
    assert refuted(tmp_path, octets, bits) == []


def test_verify_names_the_tile_and_reading_it_is_refused(tmp_path: Path, path: Path, whole: NDArray[np.uint16]) -> None:
    octets, head = path.read_bytes(), nadir.open(path).head
    last = 8 * (head.octets + int(head.index.offset[4]) + head.index.octets(4, 4) - 1)
    copy = tmp_path / "damaged.nadir"
    copy.write_bytes(damage(octets, last))
    verdict = verify(Octets(str(copy)), "damaged")
    assert len(verdict.damages) == 1 and "tile (1, 1)" in verdict.damages[0]
    scene = nadir.open(copy)
    assert np.array_equal(scene[:, :256], whole[:, :256])
    with pytest.raises(StreamError, match=r"tile \(1, 1\) is damaged"):
        scene[:, 256:300, 300:310]


def test_a_file_that_is_not_there_is_told_as_such(tmp_path: Path) -> None:
    for work in (lambda octets: octets.size(), lambda octets: octets.read([(0, 4)])):
        with pytest.raises(InputError, match=r"not found, wanted a \.nadir scene file"):
            work(Octets(str(tmp_path / "none.nadir")))


@pytest.mark.parametrize("cut", [0, 5, 63, 200, -1])
def test_a_file_cut_short_is_refused_in_words(tmp_path: Path, path: Path, cut: int) -> None:
    copy = tmp_path / "short.nadir"
    copy.write_bytes(path.read_bytes()[:cut])
    assert not verify(Octets(str(copy)), "short").sound


def test_octets_behind_the_end_are_damage(tmp_path: Path, path: Path) -> None:
    copy = tmp_path / "long.nadir"
    copy.write_bytes(path.read_bytes() + b"\0")
    assert not verify(Octets(str(copy)), "long").sound


@pytest.mark.parametrize(
    ("octets", "said"),
    [
        (b"PK\x03\x04" + bytes(80), "a zip, perhaps a bundle"),
        (b"\x09NDR\n\x1a\n" + bytes(80), "transfer in text mode"),
        (layout.MAGIC + b"\x02" + bytes(80), "version 2"),
    ],
)
def test_what_is_no_scene_file_is_called_by_its_name(tmp_path: Path, octets: bytes, said: str) -> None:
    (tmp_path / "x.nadir").write_bytes(octets)
    with pytest.raises(InputError, match=said):
        nadir.open(tmp_path / "x.nadir")


def test_another_bundle_is_refused_not_garbled(path: Path) -> None:
    scene = nadir.open(path, bundle="corsa-fpn3-512")
    with pytest.raises(BundleError, match=f"{load_bundle('edge').bundle_id:08x}"):
        scene[0, 0, 0]


def test_pixels_without_a_measurement_are_nodata(tmp_path: Path) -> None:
    import rasterio

    dn = np.full((4, 300, 300), 900, np.uint16)
    dn[:, :, 200:] = 0
    source = tmp_path / "s.tif"
    with rasterio.open(source, "w", "GTiff", 300, 300, 4, dtype="uint16", nodata=0) as file:
        file.write(dn)
        file.descriptions = ("B02", "B03", "B04", "B08")
    store = Store(str(tmp_path / "store"))
    entry = service.put(str(source), store, Order(Quality(psnr_db=40)), silent)
    scene = nadir.open(store.address(entry.name))
    found, valid = scene.read(0, 0, 300, 300)
    assert entry.tiles == {"coded": 2, "empty": 2} and np.array_equal(valid, dn[0] > 0)
    assert not found[:, ~valid].any() and abs(int(found[0, 9, 9]) - 900) < 40


def test_the_decoders_of_a_file_decode_it_all(path: Path) -> None:
    octets = Octets(str(path))
    assert verify(octets, "x", decoder_for(octets, None, "openvino", "fast")).sound


def test_a_decoder_that_a_bundle_lacks_is_refused_with_those_it_has() -> None:
    engine = open_engine()
    with pytest.raises(InputError, match="choose full"):
        Decoder(load_bundle("corsa-fpn3-512"), engine, "fast")
    with pytest.raises(InputError, match="one of fast, full, best"):
        Decoder(load_bundle("edge"), engine, "slow")


def test_an_index_that_contradicts_itself_is_refused() -> None:
    info = SceneInfo("a", 8, 16, ("B",), 0.0)
    index = Index(
        np.array([0, 5], np.uint64), np.zeros(2, np.uint8), np.zeros(2, np.uint8), np.array([5, 5], np.uint32),
        np.zeros((2, 1), np.uint32), np.zeros((2, 1), np.uint16),
    )  # fmt: skip
    head = Head(SceneHeader(1, 2, 8, info), {}, index, 10, bytes(32))
    layout.unpack(layout.pack(head))
    for bad in (
        replace(head, index=replace(index, offset=np.array([0, 6], np.uint64))),
        replace(head, body_octets=11),
        replace(head, index=replace(index, kind=np.array([0, 9], np.uint8))),
        replace(head, header=SceneHeader(1, 2, 8, replace(info, height_px=16))),
    ):
        with pytest.raises(StreamError):
            layout.unpack(layout.pack(bad))


def test_the_kinds_of_tiles_that_hold_pixels_are_those_of_the_ground() -> None:
    from sim.archive.reader import PICTURED
    from sim.ground.reception import PICTURED as OF_THE_GROUND

    assert tuple(map(Kind, PICTURED)) == OF_THE_GROUND
