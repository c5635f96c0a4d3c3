"""The line by each way of delivery: files whole on a link that loses, raw packets with what was lost marked exactly."""

import json
from pathlib import Path

import numpy as np
import pytest

from payload.link import tile_code
from payload.link.space_packet import SequenceFlag, read_packets, unpack
from sim import downlink
from sim.link.channel import Channel
from sim.link.frames.channel import FrameChannel, units_in
from sim.link.frames.receiver import FrameReceiver, packets_off_air
from sim.mission.spec import Mission, load_mission
from sim.mission.trust import Trust
from sim.receive import ReceiveRequest, receive
from sim.report.terminal import as_text

BURSTS = "\n[link.burst]\nenter = 0.05\nleave = 0.2\n"
MODES = {
    "cfdp2": 'mode = "cfdp2"\n[delivery.uplink.burst]\nenter = 0.05\nleave = 0.2\n',
    "cfdp1": 'mode = "cfdp1"\n',
    "raptorq": 'mode = "raptorq"\noverhead = 1.5\n',
    "own": '[delivery.layers]\nmode = "cfdp2"\n[delivery.telemetry]\nmode = "raptorq"\noverhead = 8.0\n'
    '[delivery.uplink.burst]\nenter = 0.05\nleave = 0.2\n',
}


@pytest.fixture
def run(toy_bundle_with_gate, toy_engine, write_scene, write_mission, monkeypatch, tmp_path):
    """A scene over a link that loses a fifth of its packets in bursts, delivered by `mode` -> report and folder."""
    monkeypatch.setattr("sim.onboard.engine_choice.open_engine", lambda name: toy_engine)
    monkeypatch.setattr("sim.receive.open_engine", lambda name: toy_engine)

    def send(
        dn: np.ndarray, mode: str = "raw", seed: int = 0, bursts: str = BURSTS, frames: bool = False
    ) -> tuple[dict, Path]:
        scene = write_scene(tmp_path / "scene.tif", dn)
        mission = write_mission(tmp_path / f"{mode}.toml", packet_octets=200, frames=frames)
        delivery = f"\n[delivery]\n{MODES[mode]}" if mode in MODES else ""
        small_frames = mission.read_text().replace("interleave = 5", "interleave = 1")
        mission.write_text(small_frames + bursts + delivery)
        folder = tmp_path / f"{mode}-{seed}-{bool(bursts)}-{frames}"
        request = downlink.Request(str(scene), folder, str(mission), str(toy_bundle_with_gate), seed=seed)
        return downlink.downlink(request, lambda label, total: None), folder

    return send


@pytest.mark.parametrize("mode", ["cfdp2", "raptorq"])
def test_a_file_gives_the_picture_of_a_clean_link_through_a_fifth_lost(run, ground_of, mode):
    dn = ground_of(3, 3)
    _, clean = run(dn, bursts="")
    report, folder = run(dn, mode)
    assert report["delivery"]["complete"] and report["link"]["packets_lost_in_bursts"] > 10
    assert (folder / "reconstruction.tif").read_bytes() == (clean / "reconstruction.tif").read_bytes()
    assert (folder / "packets.bin").read_bytes() == (clean / "packets.bin").read_bytes()
    parts = [value for key, value in report["delivery"].items() if key.startswith("sent_")]
    assert sum(parts) == (folder / "downlink.bin").stat().st_size == report["link"]["octets_sent"]
    assert json.loads((folder / "report.json").read_text())["delivery"]["mode"] == mode


def test_class_1_leaves_holes_and_every_tile_is_told(run, ground_of):
    report, _ = run(ground_of(3, 3), "cfdp1", seed=2)
    tiles = report["tiles"]
    assert not report["delivery"]["complete"] and tiles["lost"] + tiles["refused"] + tiles["incomplete"] > 0
    assert sum(tiles[kind] for kind in ("coded", "withheld", "omitted", "empty", "fallback", "lost", "refused")) == 9


@pytest.mark.parametrize("mode", list(MODES))
def test_the_ground_alone_reads_what_went_down(run, ground_of, toy_bundle_with_gate, tmp_path, mode):
    _, folder = run(ground_of(2, 2), mode)
    _, clean = run(ground_of(2, 2), bursts="")
    out = tmp_path / "alone"
    request = ReceiveRequest(folder / "downlink.bin", out, bundles=(str(toy_bundle_with_gate),), trust=Trust((), True))
    receive(request, lambda label, total: None)
    assert (out / "reconstruction.tif").read_bytes() == (clean / "reconstruction.tif").read_bytes()


@pytest.mark.parametrize("mode", ["own", "cfdp2", "raptorq"])
def test_files_in_frames_give_the_picture_of_a_clean_link_and_every_octet_is_told(run, ground_of, mode):
    """Frames are small, so that many are lost: a fifth of them, in bursts."""
    dn = ground_of(3, 3)
    _, clean = run(dn, bursts="", frames=True)
    report, folder = run(dn, mode, seed=1, frames=True)
    link, size = report["link"], (folder / "frames.bin").stat().st_size
    assert report["delivery"]["streams"]["layers"]["complete"] and link["frames_lost_in_bursts"] > 3
    assert (folder / "reconstruction.tif").read_bytes() == (clean / "reconstruction.tif").read_bytes()
    layers = {key: octets for key, octets in link.items() if key.startswith("layer_")}
    assert sum(layers.values()) == link["octets_on_air"] == link["octets_sent"] == report["rate"]["octets"] == size
    down = sum(octets for key, octets in report["delivery"].items() if key.startswith("sent_"))
    assert down == sum(layers[f"layer_{name}_octets"] for name in ("payload", "packet", "delivery"))
    assert not (folder / "downlink.bin").exists() and "delivery" in as_text(report, folder)


@pytest.mark.parametrize("mode", ["own", "cfdp2", "raptorq"])
def test_the_ground_alone_reads_files_out_of_frames(run, ground_of, toy_bundle_with_gate, tmp_path, mode):
    _, folder = run(ground_of(2, 2), mode, frames=True, bursts="")
    alone, mission = tmp_path / "alone", str(tmp_path / f"{mode}.toml")
    request = ReceiveRequest(folder / "frames.bin", alone, mission, (str(toy_bundle_with_gate),), trust=Trust((), True))
    receive(request, lambda label, total: None)
    assert (alone / "reconstruction.tif").read_bytes() == (folder / "reconstruction.tif").read_bytes()


def arrived_over(mission: Mission, folder: Path, seed: int) -> set[bytes]:
    """The packets that the channel's own account of the run lets through."""
    link = mission.link
    if link.stack is None:
        return set(Channel(link, seed).send(read_packets((folder / "packets.bin").read_bytes())))
    off_air = FrameChannel(link, seed).send(units_in(folder / "frames.bin", link.stack))
    return {packet for _, packet in packets_off_air([b"".join(off_air)], FrameReceiver(link.stack))}


@pytest.mark.parametrize("frames", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_raw_packets_mark_exactly_the_tiles_and_layers_that_were_lost(run, ground_of, seed, frames):
    """Held against the channel's own account of the packets, tile by tile."""
    report, folder = run(ground_of(4, 4), seed=seed, frames=frames)
    packets = list(read_packets((folder / "packets.bin").read_bytes()))
    arrived = arrived_over(load_mission(folder.parent / "raw.toml"), folder, seed)
    expected: dict[tuple[int, int], tuple[int, int]] = {}
    octets = whole = b""
    for packet in packets:
        parsed = unpack(packet)
        if parsed.flag in (SequenceFlag.FIRST, SequenceFlag.WHOLE):
            octets, whole, open_ = b"", b"", True
        open_ = open_ and packet in arrived
        octets, whole = octets + parsed.data * open_, whole + parsed.data
        if parsed.flag in (SequenceFlag.LAST, SequenceFlag.WHOLE) and whole[0] & 15 == tile_code.Kind.CODED:
            sent = tile_code.unpack(whole)
            try:
                layers = len(tile_code.unpack(octets).layers)
            except Exception:  # not even its header
                layers = -1
            expected[sent.row, sent.col] = (layers, sent.declared)
    told = {(tile["row"], tile["col"]): tile for tile in report["tiles"]["list"]}
    assert len(expected) == 16 and sum(packet not in arrived for packet in packets) > 5
    for address, (layers, declared) in expected.items():
        kind = "coded" if layers > 0 else "refused" if layers == 0 else "lost"
        assert told[address]["kind"] == kind
        assert told[address]["layers"] == max(layers, 0)
        assert told[address]["incomplete"] == (0 < layers < declared)
