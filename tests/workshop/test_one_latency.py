"""One modelled latency: simulation, `targets` and `compile` agree for a device, a network and a tile size."""

import json
import re
import shutil
from pathlib import Path

import pytest

from export.__main__ import main
from export.builds import flight_networks
from export.bundle.assemble import describe
from hil.devices.latency import Work, coding_work, compiled_stages, estimate, gate_work, keep_compiled, network_work
from hil.devices.targets import load_target
from payload.bundle import load_bundle, shipped_bundles
from sim.mission.devices import estimate as scene_estimate
from sim.mission.devices import scene_work

MYRIAD2 = load_target("myriad2")
NETWORKS = {"flight/encoder.onnx", "flight/clouds.onnx"}


def test_the_simulation_counts_the_manifests_macs_and_the_context_model_apart() -> None:
    """Ten tiles looked at, seven of them coded."""
    bundle = load_bundle("edge")
    macs = {name: bundle.manifest["networks"][name]["macs"] for name in NETWORKS}
    work = scene_work(bundle, "myriad2", looked_at=10, coded=7)
    assert work.macs == 10 * macs["flight/clouds.onnx"] + 7 * macs["flight/encoder.onnx"]
    assert work.entropy_macs == 7 * bundle.codec["entropy_macs_per_px"] * 256**2


def test_sim_targets_and_compile_model_one_latency(tmp_path: Path, capsys, monkeypatch) -> None:
    monkeypatch.delenv("NADIR_MYRIAD_TOOLKIT", raising=False)
    bundle = load_bundle("edge")
    assert main(["targets", "--bundle", "edge"]) == 0
    printed = capsys.readouterr().out
    assert main(["compile", "edge", "--target", "myriad2", "--tile", "256", "--out", str(tmp_path)]) == 0
    compiled = {r["network"]: r["estimate"] for r in json.loads((tmp_path / "report-myriad2.json").read_text())}
    for name in NETWORKS:
        latency_ms = estimate(MYRIAD2, network_work(bundle, name, MYRIAD2)).latency_ms
        assert compiled[name]["latency_ms"] == pytest.approx(latency_ms)
        row = re.search(rf"myriad2 +{name} +\S+ stages +(\S+) / (\S+) / (\S+) ms", printed)
        assert row and [float(v) for v in row.groups()] == pytest.approx(latency_ms, rel=5e-3)
    whole = scene_estimate("myriad2", scene_work(bundle, "myriad2", 1, 1), 256**2)
    row = re.search(r"myriad2 +a coded tile +\S+ stages +(\S+) / (\S+) / (\S+) ms", printed)
    assert row and float(row[2]) / 1e3 == pytest.approx(whole.latency_s, rel=5e-3)


def test_the_whole_tile_is_the_sum_of_its_parts() -> None:
    """Myriad 2, middle: (26.4 + 134.2 + 54.5) MMAC / 8 GMAC/s = 26.9 ms, 119 compiled stages x 150 us, traffic."""
    bundle = load_bundle("edge")
    parts = [network_work(bundle, name, MYRIAD2) for name in NETWORKS]
    whole = gate_work(bundle, MYRIAD2) + coding_work(bundle, MYRIAD2)
    assert whole.macs == sum(p.macs for p in parts) and whole.stages == sum(p.stages or 0 for p in parts)
    by_hand = (whole.macs + whole.entropy_macs) / 8e6 + (whole.stages or 0) * 0.15 + whole.octets_moved / 2e6
    assert estimate(MYRIAD2, whole).latency_ms[1] == pytest.approx(by_hand)


@pytest.mark.parametrize("name", shipped_bundles())
def test_the_manifest_holds_what_the_graph_asks_for(name: str) -> None:
    bundle = load_bundle(name)
    for network in flight_networks(bundle):
        counted = describe(bundle.file(network), bundle.tile_px, "int8-po2w7")
        assert bundle.manifest["networks"][network]["runs"] == counted["runs"]
        assert {"int8", "fp16"} <= set(counted["runs"])


def test_compiled_stages_count_only_for_the_very_file_that_was_compiled(tmp_path: Path) -> None:
    shutil.copytree(load_bundle("edge").directory, tmp_path / "edge")
    bundle = load_bundle(tmp_path / "edge")
    keep_compiled(bundle, "myriad2", {("flight/clouds.onnx", 256): 33, ("flight/clouds.onnx", 64): 12})
    assert compiled_stages(bundle, "flight/clouds.onnx", "myriad2", 256) == 33
    assert network_work(bundle, "flight/clouds.onnx", MYRIAD2).stages == 33
    bundle.manifest["files"]["flight/clouds.onnx"] = "0" * 64
    assert compiled_stages(bundle, "flight/clouds.onnx", "myriad2", 256) is None
    assert (
        network_work(bundle, "flight/clouds.onnx", MYRIAD2).stages
        == (bundle.manifest["networks"]["flight/clouds.onnx"]["runs"]["fp16"]["stages"])
    )


def test_a_bundle_without_counts_is_said_to_have_none() -> None:
    bundle = load_bundle("corsa-fpn3-512")
    bundle.manifest["networks"]["flight/encoder.onnx"].pop("runs")
    assert network_work(bundle, "flight/encoder.onnx", MYRIAD2).stages is None
    assert (Work(1, None) + Work(1, 5)).stages is None and Work(2, 3, 4, 5).times(2) == Work(4, 6, 8, 10)
