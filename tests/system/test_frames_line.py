"""The whole line over real frames: what every layer adds, what arrives, and `sim receive` on frames.bin alone."""

import shutil

import numpy as np
import pytest
import rasterio
from toys import ArrayScene

from payload.bundle import load_bundle
from payload.errors import InputError
from payload.link import scene_header
from payload.link.frames.stack import Stack, packets_on_air
from payload.link.space_packet import SequenceCounter, segment
from payload.pipeline import Payload
from payload.policy import Policy
from payload.scene import SceneInfo
from payload.sensor import RGBN
from sim.receive import ReceiveRequest
from sim.receive import receive as receive_stream
from sim.report.received import as_text as received_text
from sim.report.terminal import as_text

T = 64
LAYERS = ("payload", "packet", "frame", "idle", "parity", "sync_marker", "convolutional")


def quiet(label: str, total: int) -> None:
    """Progress that nobody watches."""


def layers_of(report) -> dict[str, int]:
    return {name: report["link"][f"layer_{name}_octets"] for name in LAYERS}


def test_every_layers_octets_are_told_and_add_up_to_the_file(toy_line, ground_of) -> None:
    report, folder = toy_line(ground_of(3, 3, bright=((1, 1),)), frames=True)
    size, packets = ((folder / name).stat().st_size for name in ("frames.bin", "packets.bin"))
    layers, link = layers_of(report), report["link"]
    assert sum(layers.values()) == link["octets_on_air"] == link["octets_sent"] == report["rate"]["octets"] == size
    assert layers["payload"] + layers["packet"] == packets
    frames = size // 1279
    assert size % 1279 == 0 and link["frames_sent"] == link["frames_received"] == link["sync_frames"] == frames
    # a TM frame of 1115: header 6 and CRC 2; 32 x 5 of parity; a marker of 4
    assert (layers["frame"], layers["parity"], layers["sync_marker"]) == (8 * frames, 160 * frames, 4 * frames)
    assert layers["idle"] == 1107 * frames - packets and layers["convolutional"] == 0
    assert report["tiles"]["coded"] == 8 and report["tiles"]["lost"] == 0
    assert f"on air   {size:,} octets: payload {layers['payload']:,}, packet " in as_text(report, folder)


def test_without_frames_the_layers_are_payload_and_packets(toy_line, ground_of) -> None:
    report, folder = toy_line(ground_of(2, 2))
    layers = layers_of(report)
    assert sum(layers.values()) == layers["payload"] + layers["packet"] == (folder / "packets.bin").stat().st_size
    assert not (folder / "frames.bin").exists()
    assert "no octet here is coded so" in report["link"]["not_coded"]  # said with frames and without


def test_frames_alone_in_an_empty_folder_give_the_same_picture(
    toy_line, ground_of, toy_bundle_with_gate, toy_engine, monkeypatch, tmp_path, write_mission
) -> None:
    dn = ground_of(3, 3, bright=((1, 1),))[:, : 2 * T + 30, : 2 * T + 7]
    _, folder = toy_line(dn, frames=True)
    alone = tmp_path / "alone"
    alone.mkdir()
    shutil.copy(folder / "frames.bin", alone)
    mission = write_mission(tmp_path / "m.toml", frames=True)
    monkeypatch.setattr("sim.receive.open_engine", lambda name: toy_engine)
    request = ReceiveRequest(alone / "frames.bin", alone / "out", str(mission), (str(toy_bundle_with_gate),))
    report = receive_stream(request, quiet)
    assert (alone / "out" / "reconstruction.tif").read_bytes() == (folder / "reconstruction.tif").read_bytes()
    assert report["frames"]["frames_refused"] == 0 and "frames " in received_text(report, alone)
    first, last = report["housekeeping"]
    assert first["scenes"] == 1 and last["tiles"] == (8, 1, 0, 0, 1, 0)
    # packets of that mission without frames are read as what they are
    request = ReceiveRequest(folder / "packets.bin", alone / "other", str(mission), (str(toy_bundle_with_gate),))
    assert receive_stream(request, quiet)["frames"] is None
    assert (alone / "other" / "reconstruction.tif").read_bytes() == (folder / "reconstruction.tif").read_bytes()


def test_bit_errors_that_the_code_corrects_cost_nothing(toy_line, ground_of) -> None:
    clean, folder = toy_line(ground_of(3, 3), out="clean", frames=True)
    report, other = toy_line(ground_of(3, 3), out="noisy", frames=True, bit_error_rate=1e-3)
    assert report["link"]["symbols_corrected"] > 0 and report["link"]["frames_refused"] == 0
    for name in ("frames.bin", "reconstruction.tif"):
        assert (folder / name).read_bytes() == (other / name).read_bytes()
    assert clean["link"]["bits_flipped"] == 0 < report["link"]["bits_flipped"]


def test_lost_frames_take_the_packets_that_lie_in_them(toy_line, ground_of) -> None:
    report, _ = toy_line(ground_of(4, 5), seed=2, frames=True, frame_loss=0.2, step_dn=40.0)
    link, tiles = report["link"], report["tiles"]
    assert link["frames_lost"] > 0 and link["packets_cut"] > 0
    assert tiles["lost"] + tiles["incomplete"] > 0
    assert sum(tiles[kind] for kind in ("coded", "lost", "refused", "fallback", "empty", "withheld", "omitted")) == 20


def scenes_of(ground_of) -> list[ArrayScene]:
    return [
        ArrayScene(SceneInfo(f"s{k}", 2 * T, 2 * T, RGBN, 10.0), ground_of(2, 2, seed=k), np.ones((2 * T, 2 * T), bool))
        for k in range(3)
    ]


@pytest.mark.parametrize("each_on_its_own_channel", [False, True])
def test_three_scenes_of_two_bundles_in_one_stream_of_frames_come_out_as_three(
    ground_of, toy_bundle, toy_bundle_with_gate, toy_engine, monkeypatch, tmp_path, write_mission,
    each_on_its_own_channel,
) -> None:  # fmt: skip
    """Records in turn under one counter; or packets in turn, each scene with a counter and a channel of its own."""
    monkeypatch.setattr("sim.receive.open_engine", lambda name: toy_engine)
    scenes, apid, one_counter = scenes_of(ground_of), Policy().apid, SequenceCounter(Policy().apid)
    parts = []
    for k, (scene, where) in enumerate(zip(scenes, (toy_bundle, toy_bundle_with_gate, toy_bundle), strict=True)):
        payload = Payload(load_bundle(where), Policy(), toy_engine)
        header = payload.header_of(scene, scene_id=k + 1)
        records = list(scene_header.records(header, payload.tile_codes(scene, header)))
        if each_on_its_own_channel:
            counter = SequenceCounter(apid)
            parts.append([[(k, packet)] for record in records for packet in segment(record, counter, 512)])
        else:
            parts.append([[(0, record)] for record in records])
    longest = max(map(len, parts))
    in_turn = [piece for n in range(longest) for part in parts if n < len(part) for piece in part[n]]
    if not each_on_its_own_channel:
        in_turn = [(0, packet) for _, record in in_turn for packet in segment(record, one_counter, 512)]
    stream = tmp_path / "mixed.bin"
    stream.write_bytes(b"".join(packets_on_air(in_turn, Stack())))
    mission = str(write_mission(tmp_path / "m.toml", frames=True))
    bundles = (str(toy_bundle), str(toy_bundle_with_gate))
    report = receive_stream(ReceiveRequest(stream, tmp_path / "out", mission, bundles), quiet)
    assert sorted(scene["name"] for scene in report["scenes"]) == ["s0", "s1", "s2"]
    for scene in report["scenes"]:
        assert scene["tiles"]["coded"] == 4
        with rasterio.open(tmp_path / "out" / scene["picture"]) as file:
            assert np.abs(file.read().astype(int) - scenes[int(scene["name"][1])].dn).mean() < 100


def test_a_stream_of_other_frames_is_said_in_one_line(tmp_path, write_mission) -> None:
    stream = tmp_path / "other.bin"
    stream.write_bytes(b"".join(packets_on_air([(0, bytes([0, 7, 0xC0, 0, 0, 0, 1]))] * 50, Stack(spacecraft_id=1))))
    mission = str(write_mission(tmp_path / "m.toml", frames=True))
    with pytest.raises(InputError, match=r"no packet in \d+ frames, \d+ of them refused; give the mission whose"):
        receive_stream(ReceiveRequest(stream, tmp_path / "out", mission), quiet)
    assert not (tmp_path / "out").exists()
