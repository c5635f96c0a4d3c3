"""One modelled latency: simulation, `targets` and `compile` agree for a device, a network and a tile size."""

import json
import re
import shutil
from pathlib import Path

import pytest

from export.__main__ import main
from export.builds import flight_networks
from export.bundle.assemble import describe
from hil.devices.latency import Work, coding_work, compiled_work, estimate, gate_work, keep_compiled, network_work
from hil.devices.targets import load_target
from payload.bundle import load_bundle, shipped_bundles
from sim.mission.devices import estimate as scene_estimate
from sim.mission.devices import scene_work

MYRIAD2 = load_target("myriad2")
MYRIADS = ("myriad2", "myriadx")
NETWORKS = {"flight/encoder.onnx", "flight/clouds.onnx"}


def test_the_simulation_counts_the_manifests_macs_and_the_context_model_apart() -> None:
    """Ten tiles looked at, seven of them coded."""
    bundle = load_bundle("edge")
    macs = {name: bundle.manifest["networks"][name]["macs"] for name in NETWORKS}
    work = scene_work(bundle, "cortex-a53", looked_at=10, coded=7)
    assert work.macs == 10 * macs["flight/clouds.onnx"] + 7 * macs["flight/encoder.onnx"]
    assert work.entropy_macs == 7 * bundle.codec["entropy_macs_per_px"] * 256**2


@pytest.mark.parametrize("device", MYRIADS)
def test_sim_targets_and_compile_model_one_latency(device: str, tmp_path: Path, capsys, monkeypatch) -> None:
    monkeypatch.delenv("NADIR_MYRIAD_TOOLKIT", raising=False)
    bundle, target = load_bundle("edge"), load_target(device)
    assert main(["targets", "--bundle", "edge"]) == 0
    printed = capsys.readouterr().out
    assert main(["compile", "edge", "--target", device, "--tile", "256", "--out", str(tmp_path)]) == 0
    compiled = {r["network"]: r["estimate"] for r in json.loads((tmp_path / f"report-{device}.json").read_text())}
    for name in NETWORKS:
        latency_ms = estimate(target, network_work(bundle, name, target)).latency_ms
        assert compiled[name]["latency_ms"] == pytest.approx(latency_ms)
        row = re.search(rf"{device} +{name} +\S+ stages +(\S+) / (\S+) / (\S+) ms", printed)
        assert row and [float(v) for v in row.groups()] == pytest.approx(latency_ms, rel=5e-3)
    whole = scene_estimate(device, scene_work(bundle, device, 1, 1), 256**2)
    row = re.search(rf"{device} +a coded tile +\S+ stages +(\S+) / (\S+) / (\S+) ms", printed)
    assert row and float(row[2]) / 1e3 == pytest.approx(whole.latency_s, rel=5e-3)


def test_the_whole_tile_is_the_sum_of_its_parts() -> None:
    """Two networks a tile, each started once; every figure of the device's file as it is calibrated."""
    bundle = load_bundle("edge")
    parts = [network_work(bundle, name, MYRIAD2) for name in NETWORKS]
    whole = gate_work(bundle, MYRIAD2) + coding_work(bundle, MYRIAD2)
    assert whole.macs == sum(p.macs for p in parts) and whole.stages == sum(p.stages or 0 for p in parts)
    assert whole.calls == 2 and whole.stages == 39 + 8 * 1
    keys = ("call_overhead_us", "rate_gmac_per_s", "stage_overhead_us", "bandwidth_gb_per_s")
    start, rate, overhead, bandwidth = (MYRIAD2.figure(key).mid for key in keys)
    by_hand = (whole.macs + whole.entropy_macs) / (rate * 1e6) + (whole.stages or 0) * overhead / 1e3
    by_hand += whole.octets_moved / (bandwidth * 1e6) + 2 * start / 1e3
    assert estimate(MYRIAD2, whole).latency_ms[1] == pytest.approx(by_hand)


@pytest.mark.parametrize("name", shipped_bundles())
def test_the_manifest_holds_what_the_graph_asks_for(name: str) -> None:
    bundle = load_bundle(name)
    for network in flight_networks(bundle):
        counted = describe(bundle.file(network), bundle.tile_px, "int8-po2w7")
        assert bundle.manifest["networks"][network]["runs"] == counted["runs"]
        assert {"int8", "fp16"} <= set(counted["runs"])


def test_what_was_compiled_counts_only_for_the_very_file_that_was_compiled(tmp_path: Path) -> None:
    shutil.copytree(load_bundle("edge").directory, tmp_path / "edge")
    bundle, name = load_bundle(tmp_path / "edge"), "flight/clouds.onnx"
    made = Work(macs=27_000_000, stages=33, octets_moved=2_000_000, calls=1)
    keep_compiled(bundle, "myriad2", {(name, 256): made, (name, 64): Work(1, 12, 2, calls=1)})
    assert compiled_work(bundle, name, "myriad2", 256) == made == network_work(bundle, name, MYRIAD2)
    bundle.manifest["files"][name] = "0" * 64
    assert compiled_work(bundle, name, "myriad2", 256) is None
    counted = bundle.manifest["networks"][name]["runs"]["fp16"]["stages"]
    assert network_work(bundle, name, MYRIAD2).stages == counted


def test_a_bundle_without_counts_is_said_to_have_none() -> None:
    bundle = load_bundle("corsa-fpn3-512")
    bundle.manifest["networks"]["flight/encoder.onnx"].pop("runs")
    assert network_work(bundle, "flight/encoder.onnx", MYRIAD2).stages is None
    assert (Work(1, None) + Work(1, 5)).stages is None and Work(2, 3, 4, 5, 6).times(2) == Work(4, 6, 8, 10, 12)
