"""`sim downlink --device`: the same ground behind another coder: an agent of this process, with the toy codec."""

import json
import re
import threading
from dataclasses import replace

import pytest
import rasterio

from hil.agent.agent import Agent, AgentSettings
from hil.line.channels import SocketChannel, listen_tcp
from payload.bundle import load_bundle
from payload.errors import InputError
from payload.link import tile_code
from payload.link.streams import Stream, apids_of
from payload.pipeline import Payload
from sim.downlink import Request, downlink
from sim.mission.spec import load_mission
from sim.onboard.sending import Device, packets_in
from sim.report.files import all_held
from sim.report.terminal import as_text

APID = load_mission("phisat2").policy.apid
#: Times, and what each payload counts of its own memory.
THEIR_OWN = ("measured_on_host", "measured_on_device", "housekeeping")


class ToyEncoder:
    """The toy codec as an agent sees it; `spoil` may change a tile's octets."""

    engine = "toy 1"
    kind = "coded"

    def __init__(self, payload, spoil):
        self.ran = {}
        self.stages_s, self._payload, self._spoil = {}, payload, spoil

    def encode(self, tile):
        octets = self._spoil(tile, tile_code.pack(self._payload.encode_tile(tile)))
        self.stages_s = dict(self._payload.last_stages)
        return octets


@pytest.fixture
def device_line(toy_bundle_with_gate, toy_engine, write_scene, write_mission, monkeypatch, tmp_path):
    """Pixels -> report and folder, coded by this host or by an agent on a port of this machine."""
    monkeypatch.setattr("sim.onboard.engine_choice.open_engine", lambda name: toy_engine)
    servers = []

    def start_agent(spoil, emulated):
        server = listen_tcp("127.0.0.1", 0)
        servers.append(server)
        agent = Agent(
            toy_bundle_with_gate,
            lambda where, policy, *_: ToyEncoder(Payload(load_bundle(where), policy, toy_engine), spoil),
            AgentSettings(emulated),
        )
        threading.Thread(target=lambda: agent.serve(SocketChannel(server.accept()[0])), daemon=True).start()
        return f"tcp://127.0.0.1:{server.getsockname()[1]}"

    def run(dn, on_device, compare=False, spoil=lambda tile, octets: octets, emulated=None, **changes):
        url = start_agent(spoil, emulated) if on_device else None
        out = tmp_path / ("device" if on_device else "host")
        scene = write_scene(tmp_path / "scene.tif", dn)
        mission = write_mission(tmp_path / "mission.toml", **changes)
        gate = "[policy.gate]\n"  # a device does not draw thumbnails for the audit
        text = mission.read_text().replace(gate, f"{gate}audit_count = 0\n")
        mission.write_text(re.sub(r"(?ms)^\[protection\].*?(?=^\[|\Z)", "", text))  # a device has no guard of ours
        request = Request(str(scene), out, str(mission), str(toy_bundle_with_gate), overwrite=True)
        request = replace(request, device=Device(url, compare) if url else None)
        return downlink(request, lambda label, total: None), out

    yield run
    for server in servers:
        server.close()


def pictures_packets(folder):
    """All packets but housekeeping, which counts what the payload's own memory went through."""
    packets = packets_in(folder / "packets.bin", APID)
    return [p for p in packets if int.from_bytes(p[:2], "big") & 0x7FF != apids_of(APID)[Stream.TELEMETRY]]


def shared_by_both(report):
    return {name: section for name, section in report.items() if name not in THEIR_OWN}


def compared(report):
    return [check for check in report["checks"] if check["requirement"] == "tiles with this host's octets"]


def test_a_device_that_computes_the_same_gives_the_same_downlink(device_line, ground_of):
    """Octets, rasters and every figure that is not a time; one tile is cloud and withheld, one holds no data."""
    dn = ground_of(3, 3, bright=((0, 1),))
    dn[:, :64, :64] = 0
    _, host = device_line(dn, on_device=False)
    report, device = device_line(dn, on_device=True, compare=True)
    assert pictures_packets(device) == pictures_packets(host)
    for name in ("cloud.tif", "reconstruction.tif", "mask.png", "error.png"):
        assert (device / name).read_bytes() == (host / name).read_bytes(), name
    ours, theirs = (json.loads((folder / "report.json").read_text()) for folder in (host, device))
    (check,) = compared(theirs)
    assert (check["measured"], check["limit"], check["held"]) == (9, 9, True)
    assert theirs["inputs"].pop("device_under_test")["url"].startswith("tcp://")
    theirs["checks"].remove(check)
    assert shared_by_both(theirs) == shared_by_both(ours)
    assert report["tiles"]["withheld"] == 1 and report["tiles"]["empty"] == 1


def test_times_of_the_tiles_are_the_devices_own_and_budgets_say_so(device_line, ground_of):
    report, out = device_line(ground_of(2, 2), on_device=True)
    told = report["measured_on_device"]
    assert 0 < told["tile_median_ms"] <= told["tile_p95_ms"]
    assert {stage["name"] for stage in told["stages"]} >= {"clouds", "rotate", "encode", "entropy"}
    assert all(stage["median_ms"] <= stage["p95_ms"] for stage in told["stages"])
    assert compared(report) == []
    host = json.loads((out / "report.json").read_text())["measured_on_host"]
    assert {row["name"]: row["basis"] for row in host["budgets"]} == {
        "memory": "measured on device", "throughput": "measured on device",
    }  # fmt: skip
    assert [stage["name"] for stage in host["stages"]] == ["ground"] and "throughput_mpx_s" not in host
    assert "on tcp://" in as_text(report, out)
    assert "Latency by stage, by the device" in (out / "report.html").read_text()


def test_an_emulated_device_has_no_times_and_budgets_that_need_them_are_not_judged(device_line, ground_of):
    report, out = device_line(ground_of(2, 2), on_device=True, emulated="cortex-a53")
    assert set(report["measured_on_device"]) == {"basis", "device", "engine", "reconnects", "emulated"}
    assert report["measured_on_device"]["emulated"].startswith("cortex-a53")
    wanted = {row["requirement"]: row for row in report["checks"] if row["basis"] == "measured on device"}
    assert set(wanted) == {"budget: memory", "budget: throughput"}
    assert not any(row["held"] or row["judged"] for row in wanted.values()) and not all_held(report)
    assert "not judged" in as_text(report, out)
    page = (out / "report.html").read_text()
    assert "cortex-a53: times mean nothing" in page and "by the device's clock" not in page
    assert "times mean nothing" in as_text(report, out)


def test_a_device_that_computes_otherwise_fails_the_run_and_is_still_decoded(device_line, ground_of):
    def coarser(tile, octets):
        code = tile_code.unpack(octets)
        return octets if tile.col else tile_code.pack(replace(code, layers=code.layers[:1]))

    report, out = device_line(ground_of(2, 2), on_device=True, compare=True, spoil=coarser)
    (check,) = compared(report)
    assert (check["measured"], check["held"]) == (2, False) and "row 0, column 0" in check["cause"]
    assert report["tiles"]["coded"] == 4
    with rasterio.open(out / "reconstruction.tif") as file:
        assert file.dataset_mask().all()


def test_what_a_device_cannot_do_is_refused_before_it_is_asked(device_line, ground_of, tmp_path):
    with pytest.raises(InputError, match="budget_octets is set, and a device codes tile by tile"):
        device_line(ground_of(2, 2), on_device=True, budget_octets=9000)
    assert not (tmp_path / "device").exists()
