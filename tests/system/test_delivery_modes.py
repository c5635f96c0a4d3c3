"""The line by each way of delivery: files whole on a link that loses, raw packets with what was lost marked exactly."""

import json
from pathlib import Path

import numpy as np
import pytest

from payload.link import tile_code
from payload.link.space_packet import SequenceFlag, read_packets, unpack
from sim import downlink
from sim.link.chances import Burst
from sim.link.channel import Channel
from sim.link.link import Link
from sim.mission.spec import load_mission
from sim.mission.trust import Trust
from sim.receive import ReceiveRequest, receive

BURSTS = "\n[link.burst]\nenter = 0.05\nleave = 0.2\n"
MODES = {
    "cfdp2": 'mode = "cfdp2"\n[delivery.uplink.burst]\nenter = 0.05\nleave = 0.2\n',
    "cfdp1": 'mode = "cfdp1"\n',
    "raptorq": 'mode = "raptorq"\noverhead = 1.5\n',
}


@pytest.fixture
def run(toy_bundle_with_gate, toy_engine, write_scene, write_mission, monkeypatch, tmp_path):
    """A scene over a link that loses a fifth of its packets in bursts, delivered by `mode` -> report and folder."""
    monkeypatch.setattr(downlink, "open_engine", lambda name: toy_engine)
    monkeypatch.setattr("sim.receive.open_engine", lambda name: toy_engine)

    def send(dn: np.ndarray, mode: str = "raw", seed: int = 0, bursts: str = BURSTS) -> tuple[dict, Path]:
        scene = write_scene(tmp_path / "scene.tif", dn)
        mission = write_mission(tmp_path / f"{mode}.toml", packet_octets=200)
        delivery = f"\n[delivery]\n{MODES[mode]}" if mode in MODES else ""
        mission.write_text(mission.read_text() + bursts + delivery)
        folder = tmp_path / f"{mode}-{seed}-{bool(bursts)}"
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


@pytest.mark.parametrize("seed", range(3))
def test_raw_packets_mark_exactly_the_tiles_and_layers_that_were_lost(run, ground_of, seed):
    """Held against the channel's own account of the packets, tile by tile."""
    report, folder = run(ground_of(4, 4), seed=seed)
    mission = load_mission(folder.parent / "raw.toml")
    channel = Channel(Link(mission.link.rate_bps, mission.link.pass_s, burst=Burst(0.05, 0.2)), seed)
    packets = list(read_packets((folder / "packets.bin").read_bytes()))
    arrived = set(channel.send(packets))
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
    assert len(expected) == 16 and report["link"]["packets_lost_in_bursts"] > 5
    for address, (layers, declared) in expected.items():
        kind = "coded" if layers > 0 else "refused" if layers == 0 else "lost"
        assert told[address]["kind"] == kind
        assert told[address]["layers"] == max(layers, 0)
        assert told[address]["incomplete"] == (0 < layers < declared)
