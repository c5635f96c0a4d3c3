"""The whole line: what must stay the same, what must only get worse, and what may touch one tile only.

Laws of the line run with the toy codec of tests/toys.py, in which everything but the networks is real; those that are
about the shipped networks are marked slow.
"""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import rasterio
from toys import ArrayScene

from payload.bundle import load_bundle
from payload.codec.interface import Quality
from payload.codec.registry import open_codec
from payload.engine import open_engine
from payload.errors import InputError
from payload.link import scene_header
from payload.link.space_packet import SequenceCounter, read_packets, segment
from payload.link.tile_code import Kind, TileCode
from payload.pipeline import Payload
from payload.policy import SENDS_EVERYTHING, Gate, Policy
from payload.scene import SceneInfo
from payload.sensor import RGBN
from payload.stopwatch import Stopwatch
from payload.tiles import split
from sim import downlink as line
from sim.clouds.ground_mask import WITHHELD
from sim.downlink import Request, downlink
from sim.ground import mosaic
from sim.ground.decoder import Decoder
from sim.ground.reception import SceneReception, by_id, receive
from sim.mission.trust import Trust
from sim.receive import ReceiveRequest
from sim.receive import receive as receive_stream
from sim.report.terminal import as_text
from sim.scenes.demo import demo_scene

T = 64
#: Toys are signed by nobody.
ANY = Trust(allow_unsigned=True)
KINDS = ("coded", "withheld", "omitted", "empty", "fallback", "lost", "refused")
FILES = {
    "report.json", "report.html", "reconstruction.tif", "cloud.tif", "cloud-onboard.tif", "packets.bin",
    "telemetry.bin", "arrivals.json",
    "original.png", "reconstruction.png", "error.png", "mask.png", "provenance.tif", "quicklook.png",
    "footprint.geojson", "reconstruction.kmz",
}  # fmt: skip


def tiles_of(report) -> dict[tuple[int, int], dict]:
    return {(tile["row"], tile["col"]): tile for tile in report["tiles"]["list"]}


def add_up(report) -> bool:
    tiles = report["tiles"]
    listed = {kind: sum(tile["kind"] == kind for tile in tiles["list"]) for kind in KINDS}
    counted = {kind: tiles[kind] for kind in KINDS}
    return counted == listed and sum(counted.values()) == tiles["total"] == tiles["rows"] * tiles["cols"]


def without_times(path: Path) -> dict:
    report = json.loads(path.read_text())
    assert report.pop("measured_on_host")["stages"]
    return report


def test_the_same_inputs_and_seed_give_the_same_octets(toy_line, ground_of) -> None:
    dn = ground_of(3, 3, bright=((0, 0),))
    first, second = (toy_line(dn, "scene", 5, out, packet_loss=0.1)[1] for out in ("first", "second"))
    for name in ("packets.bin", "cloud.tif", "reconstruction.tif", "mask.png", "error.png"):
        assert (first / name).read_bytes() == (second / name).read_bytes(), name
    assert without_times(first / "report.json") == without_times(second / "report.json")


def test_a_clean_link_delivers_everything(toy_line, ground_of) -> None:
    report, folder = toy_line(ground_of(2, 3))
    packets = list(read_packets((folder / "packets.bin").read_bytes()))
    link = report["link"]
    assert link["packets_offered"] == link["packets_sent"] == link["ground_received"] == len(packets)
    assert link["octets_sent"] == report["rate"]["octets"] == (folder / "packets.bin").stat().st_size
    for name in ("packets_lost", "packets_lost_in_bursts", "packets_corrupted", "packets_beyond_pass"):
        assert link[name] == 0
    for name in ("ground_refused", "ground_late", "ground_missing", "ground_orphaned"):
        assert link[name] == 0
    assert report["tiles"]["coded"] == 6 and add_up(report)
    assert {file.name for file in folder.iterdir()} == FILES


@pytest.mark.parametrize("seed", range(4))
def test_tiles_add_up_whatever_the_link_does(toy_line, ground_of, seed) -> None:
    dn = ground_of(3, 4, bright=((1, 1), (2, 3)))
    dn[:, :T, 2 * T : 3 * T] = 0
    report, _ = toy_line(dn, seed=seed, packet_loss=0.15, bit_error_rate=2e-5)
    assert add_up(report)
    tiles = report["tiles"]
    assert tiles["lost"] + tiles["refused"] > 0 and tiles["coded"] > 0
    for tile in tiles["list"]:
        assert (tile["psnr_db"] is None) == (tile["kind"] != "coded")
        assert (tile["cause"] is not None) >= (tile["kind"] in ("lost", "refused"))


def test_more_loss_never_gives_more_tiles(toy_line, ground_of) -> None:
    """The channel draws the same chances: what a lower loss takes, a higher one takes too."""
    dn = ground_of(3, 4)
    before, layers_before = set(), None
    for loss in (1.0, 0.5, 0.2, 0.05, 0.0):
        report, _ = toy_line(dn, f"loss-{loss}", packet_loss=loss, packet_octets=300)
        tiles = tiles_of(report)
        coded = {address for address, tile in tiles.items() if tile["kind"] == "coded"}
        layers = {address: tile["layers"] for address, tile in tiles.items()}
        assert before <= coded
        if layers_before is not None:
            assert all(layers[a] >= layers_before[a] for a in tiles)
        before, layers_before = coded, layers
    assert len(coded) == 12 and set(layers.values()) == {3}


@pytest.mark.parametrize("change", [{"packet_loss": 1.0}, {"pass_s": 0.0}])
def test_a_link_that_gives_nothing_is_a_failed_requirement_not_a_crash(toy_line, ground_of, change) -> None:
    report, folder = toy_line(ground_of(2, 2), **change)
    assert report["tiles"]["lost"] == 4 and add_up(report)
    held = {check["requirement"]: check["held"] for check in json.loads((folder / "report.json").read_text())["checks"]}
    assert held["min_psnr_10k_db"] is False and held["max_lost_fraction"] is False
    assert not (folder / "reconstruction.tif").exists()  # of this scene the ground has not even heard
    assert "4 lost = 4" in as_text(report, folder) and "FAILED" in as_text(report, folder)


@pytest.mark.parametrize("level", [1, 65535])
def test_a_scene_of_one_value_goes_through(toy_line, level) -> None:
    report, _ = toy_line(np.full((4, 2 * T, T), level, np.uint16))
    assert report["tiles"]["coded"] == 2 and add_up(report)
    error = next(m["value"] for m in report["quality"]["metrics"] if m["key"] == "max_error_reflectance")
    assert error == 0.0


def test_one_packet_less_changes_one_tile_of_the_picture(toy_line, ground_of, monkeypatch) -> None:
    """In the rasters: that tile, and the few pixels along its edges that are evened out with their neighbours.

    The second packet and the two before the last carry the scene's header, of which any one will do; the first and the
    last are housekeeping."""
    dn = ground_of(3, 3)
    _, whole = toy_line(dn, "whole", packet_octets=400)
    with rasterio.open(whole / "reconstruction.tif") as file:
        reference = file.read()
    count = len(list(read_packets((whole / "packets.bin").read_bytes())))
    for at in (2, count // 2, count - 4):
        monkeypatch.setattr(line, "packets_in", lambda path, apid, at=at: drop(path, at))
        report, folder = toy_line(dn, "whole", out=f"without-{at}", packet_octets=400)
        assert (folder / "packets.bin").read_bytes() == (whole / "packets.bin").read_bytes()
        (hurt,) = (a for a, tile in tiles_of(report).items() if tile["kind"] != "coded" or tile["layers"] < 3)
        with rasterio.open(folder / "reconstruction.tif") as file:
            changed = (file.read() != reference).any(axis=0)
        reach = np.zeros_like(changed)
        row, col = hurt[0] * T, hurt[1] * T
        far = mosaic.FADE_PX + mosaic.SMOOTH_PX // 2  # an edge is smoothed along itself, across the edges it meets
        reach[max(0, row - far) : row + T + far, max(0, col - far) : col + T + far] = True
        assert changed.any() and not changed[~reach].any()


def drop(path: Path, at: int):
    packets = list(read_packets(path.read_bytes()))
    return iter(packets[:at] + packets[at + 1 :])


def test_a_scene_under_cloud_is_declared_and_audited(toy_line, ground_of) -> None:
    cloudy = tuple((row, col) for row in range(2) for col in range(3))
    report, folder = toy_line(ground_of(2, 3, bright=cloudy))
    assert report["tiles"]["withheld"] == 6 and report["tiles"]["coded"] == 0 and add_up(report)
    assert {tile["cloud_percent"] for tile in report["tiles"]["list"]} == {100}
    assert report["clouds"]["audited_tiles"] == 3
    with rasterio.open(folder / "cloud-onboard.tif") as file:
        assert file.read(1).min() == 100
    with rasterio.open(folder / "cloud.tif") as file:  # the ground was told, and shown nothing
        assert (file.read(1) == WITHHELD).all()
    assert report["clouds"]["withheld_clear_to_ground_percent"] == 0.0
    assert report["clouds"]["ground_cloud_percent"] is None
    assert (folder / "report.html").stat().st_size > 10_000


def test_tiles_without_data_are_empty_and_no_data_stays_no_data(toy_line, ground_of) -> None:
    dn = ground_of(2, 3)
    dn[:, :, T : 2 * T] = 0  # no data in every band
    dn[:, 5, 7] = 0
    report, folder = toy_line(dn)
    assert report["tiles"]["empty"] == 2 and report["tiles"]["coded"] == 4 and add_up(report)
    assert {a for a, tile in tiles_of(report).items() if tile["kind"] == "empty"} == {(0, 1), (1, 1)}
    with rasterio.open(folder / "reconstruction.tif") as file:
        mask = file.dataset_mask() > 0
        assert np.array_equal(mask, dn.any(axis=0)) and not mask[5, 7]
    for name in ("cloud.tif", "cloud-onboard.tif"):
        with rasterio.open(folder / name) as file:
            assert np.array_equal(file.read(1) == 255, ~dn.any(axis=0)), name


def test_place_names_and_size_are_kept(toy_line, ground_of) -> None:
    dn = ground_of(3, 3)[:, : 2 * T + 30, : 2 * T + 7]  # the last tiles stick out
    report, folder = toy_line(dn)
    assert (report["tiles"]["rows"], report["tiles"]["cols"]) == (3, 3)
    with rasterio.open(folder.parent / "run.tif") as wanted, rasterio.open(folder / "reconstruction.tif") as found:
        for name in ("crs", "transform", "shape", "count", "dtypes", "descriptions", "nodata"):
            assert getattr(found, name) == getattr(wanted, name), name
        assert found.dataset_mask().all()
    with rasterio.open(folder / "cloud.tif") as found:
        assert found.shape == dn.shape[1:] and found.transform == rasterio.Affine(10, 0, 500_000, 0, -10, 4_600_000)


def test_a_stream_cut_by_its_budget_still_decodes_and_more_of_it_is_better(toy_line, ground_of) -> None:
    dn = ground_of(5, 5)
    whole, _ = toy_line(dn, "whole", step_dn=20.0)
    everything, before = whole["rate"]["octets"], 0.0
    for share in (0.35, 0.6, 0.9):
        budget = int(share * everything)
        report, folder = toy_line(dn, f"budget-{share}", step_dn=20.0, budget_octets=budget)
        # 25 tiles all alike, so their layers fill a budget no better than to one of them in 75
        assert 0.96 * budget <= (folder / "packets.bin").stat().st_size <= budget
        assert report["tiles"]["coded"] == 25 and add_up(report)
        psnr = next(m["value"] for m in report["quality"]["metrics"] if m["key"] == "psnr_10k_db")
        assert psnr > before + 0.5
        before = psnr


def test_packets_for_another_bundle_are_refused_one_and_all(toy_line, ground_of, make_bundle, make_tables, tmp_path):
    _, folder = toy_line(ground_of(2, 2))
    tables = make_tables(tmp_path / "other.npz", seed=99).read_bytes()
    other = load_bundle(make_bundle(tmp_path / "other", {"flight/tables.npz": tables}))
    reception = scene_of(folder / "packets.bin", other)
    assert len(reception.refused) == 4 and not reception.codes
    assert all(f"this ground holds {other.bundle_id:08x}" in cause for cause in reception.refused.values())


def scene_of(stream: Path, bundle) -> SceneReception:
    """The one scene of a stream."""
    (scene,) = receive(read_packets(stream.read_bytes()), by_id([bundle]), 0x2A1).scenes.values()
    return scene


def quiet(label: str, total: int) -> None:
    """Progress that nobody watches."""


def test_the_ground_needs_the_octets_alone(
    toy_line, ground_of, toy_bundle_with_gate, toy_engine, monkeypatch, tmp_path
) -> None:
    """The original is gone before the ground starts: the same picture, to the octet, with its place."""
    dn = ground_of(3, 3, bright=((1, 1),))[:, : 2 * T + 30, : 2 * T + 7]
    dn[:, :20, :40] = 0
    _, folder = toy_line(dn)
    (folder.parent / "run.tif").unlink()
    monkeypatch.setattr("sim.receive.open_engine", lambda name: toy_engine)
    out = tmp_path / "received"
    request = ReceiveRequest(folder / "packets.bin", out, bundles=(str(toy_bundle_with_gate),), trust=ANY)
    report = receive_stream(request, quiet)
    assert (out / "reconstruction.tif").read_bytes() == (folder / "reconstruction.tif").read_bytes()
    (scene,) = report["scenes"]
    assert scene["name"] == "run" and scene["has_a_place"] and scene["notes"] == []
    assert scene["tiles"]["coded"] == 8 and scene["tiles"]["withheld"] == 1


def test_scenes_of_two_bundles_in_one_stream_come_out_as_they_went_in(
    toy_line, ground_of, toy_bundle, toy_bundle_with_gate, toy_engine, monkeypatch, tmp_path
) -> None:
    """One counter, records of three scenes in turn, as a payload sends them that has three scenes in its store."""
    monkeypatch.setattr("sim.receive.open_engine", lambda name: toy_engine)
    scenes = [
        ArrayScene(SceneInfo(f"s{k}", 2 * T, 2 * T, RGBN, 10.0), ground_of(2, 2, seed=k), np.ones((2 * T, 2 * T), bool))
        for k in range(3)
    ]
    records = []
    for k, (scene, where) in enumerate(zip(scenes, (toy_bundle, toy_bundle_with_gate, toy_bundle), strict=True)):
        payload = Payload(load_bundle(where), Policy(), toy_engine)
        header = payload.header_of(scene, scene_id=k + 1)
        records.append(list(scene_header.records(header, payload.tile_codes(scene, header))))
    counter = SequenceCounter(0x2A1)
    stream = tmp_path / "mixed.bin"
    in_turn = [record for turn in zip(*records, strict=True) for record in turn]
    stream.write_bytes(b"".join(p for record in in_turn for p in segment(record, counter, 512)))
    bundles = (str(toy_bundle), str(toy_bundle_with_gate))
    report = receive_stream(ReceiveRequest(stream, tmp_path / "out", bundles=bundles, trust=ANY), quiet)
    assert [scene["name"] for scene in report["scenes"]] == ["s0", "s1", "s2"]
    for k, scene in enumerate(report["scenes"]):
        assert scene["tiles"]["coded"] == 4
        with rasterio.open(tmp_path / "out" / scene["picture"]) as file:
            assert np.abs(file.read().astype(int) - scenes[k].dn).mean() < 100


def test_a_stream_of_nothing_of_ours_is_said_in_one_line(tmp_path) -> None:
    stream = tmp_path / "other.bin"
    stream.write_bytes(b"".join(segment(b"x" * 40, SequenceCounter(7), 64)))
    with pytest.raises(InputError, match="packets of other applications and none of APID 673"):
        receive_stream(ReceiveRequest(stream, tmp_path / "out"), quiet)
    assert not (tmp_path / "out").exists()


def shipped_line(folder: Path, engine: str, scene: str = "demo:512", seed: int = 3, mission: str = "phisat2") -> dict:
    return downlink(Request(scene, folder, mission, engine=engine, seed=seed), lambda label, total: None)


@pytest.mark.slow
def test_the_shipped_bundle_repeats_itself_and_another_runtime_sends_the_same(tmp_path) -> None:
    first = shipped_line(tmp_path / "first", "openvino")
    shipped_line(tmp_path / "second", "openvino")
    assert without_times(tmp_path / "first" / "report.json") == without_times(tmp_path / "second" / "report.json")
    other = shipped_line(tmp_path / "other", "onnxruntime")
    packets = (tmp_path / "first" / "packets.bin").read_bytes()
    assert packets == (tmp_path / "second" / "packets.bin").read_bytes()
    assert packets == (tmp_path / "other" / "packets.bin").read_bytes()
    onboard, ground = "cloud-onboard.tif", "cloud.tif"
    assert (tmp_path / "first" / onboard).read_bytes() == (tmp_path / "other" / onboard).read_bytes()
    assert (tmp_path / "first" / ground).read_bytes() == (tmp_path / "second" / ground).read_bytes()
    # The ground's decoder is a float network: another engine's picture differs, and so may the mask made of it.
    assert add_up(first) and first["tiles"]["coded"] > 0
    with (
        rasterio.open(tmp_path / "first" / "reconstruction.tif") as a,
        rasterio.open(tmp_path / "other" / "reconstruction.tif") as b,
    ):
        # OpenVINO's ground leaves out what the network would add to channels that hold nothing in a tile
        apart = np.abs(a.read().astype(int) - b.read())
        assert np.sqrt(np.mean(apart.astype(float) ** 2)) <= 3 and apart.max() <= 40
    assert other["inputs"]["engine"]["name"] == "onnxruntime"


@pytest.mark.slow
def test_shipped_tile_codes_do_not_depend_on_where_the_tile_is_nor_on_threads() -> None:
    dn, valid = demo_scene(512, 768, seed=8).read(0, 0, 512, 768)
    bundle = load_bundle()
    policy = Policy(gate=Gate(withhold_above_percent=100.0))

    def codes(left: int, threads: int) -> dict:
        part = ArrayScene(SceneInfo("part", 512, 768 - left, RGBN, 10.0), dn[:, :, left:], valid[:, left:])
        found = Payload(bundle, policy, open_engine("openvino", threads)).tile_codes(part)
        return {(c.row, c.col + left // 256): replace(c, row=0, col=0, scene_id=0) for c in found}

    whole = codes(0, 1)
    moved = codes(256, 2)
    assert len(whole) == 6 and len(moved) == 4
    assert all(code == whole[address] for address, code in moved.items())


@pytest.mark.slow
@pytest.mark.parametrize("tiles_a_side", [1, 2, 5])
def test_the_shipped_bundle_meets_a_byte_budget(tiles_a_side) -> None:
    """+0 / -2 % whatever the scene's size: a cut layer takes what whole layers leave."""
    bundle, engine = load_bundle(), open_engine("openvino")
    side = 256 * tiles_a_side
    scene = demo_scene(side, side, seed=4)
    quiet = SENDS_EVERYTHING
    everything = sum(map(len, Payload(bundle, Policy(step_dn=30.0, gate=quiet), engine).transmit(scene)))
    for share in (0.2, 0.45, 0.7, 0.95):
        budget = int(share * everything)
        payload = Payload(bundle, Policy(step_dn=30.0, budget_octets=budget, gate=quiet), engine)
        used = sum(map(len, payload.transmit(scene)))
        assert 0.98 * budget <= used <= budget, f"{used / budget:.4f} of the budget"


@pytest.mark.slow
def test_a_cut_layer_is_better_than_none() -> None:
    """Of a tile's last layer the beginning was sent: closer to the original than without it, further than with all."""
    bundle, engine = load_bundle(), open_engine("openvino")
    tile = next(split(demo_scene(256, 256, seed=2), 256))
    codec, decoder = open_codec(bundle, engine), Decoder(bundle, engine)
    coded = codec.encode(tile, Quality(60.0), Stopwatch())

    def mse(layers: tuple[bytes, ...]) -> float:
        code = TileCode(Kind.CODED, 0, 0, bundle.bundle_id, 0, coded.side, layers)
        return float(((decoder.decode_tile(code).astype(float) - tile.dn) ** 2).mean())

    for kept in (2, 3, 4):
        whole = coded.layers[:kept]
        octets = sum(map(len, whole[:-1])) + len(whole[-1]) // 2
        cut = codec.shorten(whole, octets)
        assert 0.9 * octets < sum(map(len, cut)) <= octets and cut[:-1] == whole[:-1]
        assert mse(whole) < mse(cut) < mse(whole[:-1])


@pytest.mark.slow
@pytest.mark.parametrize("wanted_db", [38.0, 46.0])
def test_constant_quality_reaches_the_psnr_that_was_asked_for(wanted_db) -> None:
    """No tile is further below than 1 dB. It may lie above by more: the payload does not know what the ground's network
    gains."""
    bundle, engine = load_bundle(), open_engine("openvino")
    payload = Payload(bundle, Policy(psnr_db=wanted_db, gate=SENDS_EVERYTHING), engine)
    decoder = Decoder(bundle, engine)
    for tile in split(demo_scene(512, 300, seed=9), bundle.tile_px):  # the second column is a sliver of 44 px
        found = decoder.decode_tile(payload.encode_tile(tile))
        mse = ((found.astype(float) - tile.dn)[:, tile.valid] ** 2).mean()
        assert -1.0 < 10 * np.log10(1e8 / mse) - wanted_db < 1.5, (tile.row, tile.col)
