"""What a runtime tells from inside, what it reaches at best, and how a device fares: against shapes worked by hand."""

from pathlib import Path

import numpy as np
import pytest

from hil.agent.ceilings import best_of, ceilings, product_model
from hil.agent.encoding import PayloadEncoder
from hil.agent.health import clock_mhz, health, temperatures_c, throttling
from hil.agent.layers import batched, network_times
from hil.bench import roofline
from hil.bench.profiling import Plan, profile
from hil.bench.roofline import roofline_doubts
from hil.host.client import open_device
from hil.host.tiles_in import scene_tiles
from hil.line.protocol import Type
from hil.profiles.findings import LayerTime
from hil.profiles.profile_file import Roofline, load_profile, save_profile
from hil.profiles.tables import COLUMNS, as_table
from payload.bundle import load_bundle
from payload.engine import NATIVE
from payload.native import library
from payload.policy import Policy

EDGE = Path(__file__).parents[2] / "payload" / "bundles" / "edge"
ENGINES = ("openvino", "onnxruntime")
#: 8 planes of 33 x 33 cells through a 2 x 2 convolution of 64 to 64 channels: 8 x 32 x 32 x 64 x 64 x 2 x 2.
ENCODER_MACS = 8 * 32 * 32 * 64 * 64 * 2 * 2


@pytest.fixture(scope="module")
def edge():
    return load_bundle(EDGE, flight_only=True)


@pytest.fixture(scope="module")
def edge_tiles(edge):
    pytest.importorskip("rasterio", reason="the ground is not installed")
    return list(scene_tiles("demo:512", edge.tile_px, edge.sensor).tiles)


@pytest.mark.parametrize("engine", ENGINES)
def test_the_layers_of_the_encoder_do_the_work_that_the_convolution_takes(engine, edge):
    planes = np.zeros((8, 64, 33, 33), np.float32)
    found = network_times(edge.file("flight/encoder.onnx"), [planes], engine, 1, 3, True)
    assert len(found.run_s) == 3
    (convolution,) = [layer for layer in found.layers if layer.macs]
    assert convolution.macs == ENCODER_MACS
    assert convolution.octets >= 8 * 64 * 33 * 33 + 8 * 64 * 32 * 32  # an octet a value in and out, at least
    assert all(layer.seconds > 0 for layer in found.layers)


@pytest.mark.parametrize("engine", ENGINES)
def test_the_layers_of_the_cloud_network_add_up_to_what_the_manifest_counts(engine, edge):
    cells = np.zeros((1, 8, 128, 128), np.uint8)
    found = network_times(edge.file("flight/clouds.onnx"), [cells], engine, 1, 2, True)
    counted = edge.manifest["networks"]["flight/clouds.onnx"]["macs"]
    assert sum(layer.macs for layer in found.layers) == pytest.approx(counted, rel=0.02)


def test_a_batch_is_the_same_tile_so_many_times():
    one = np.arange(6).reshape(1, 6)
    assert np.array_equal(batched([one], 3)[0], np.concatenate([one, one, one]))


@pytest.mark.parametrize("engine", ENGINES)
def test_a_runtime_reaches_a_ceiling_of_its_own_in_each_precision(engine):
    found = ceilings(engine, 1)
    assert found["f32_gmac_s"] > 0.1 and found["memory_gb_s"] > 0.05 and found["copied_mib"] >= 32
    assert found["int8_gmac_s"] is None or found["int8_gmac_s"] > 0.1
    assert best_of(found | {"f32_gmac_s": 1e9}, found)["f32_gmac_s"] == 1e9


def test_an_engine_that_is_no_runtime_has_the_ceiling_of_numpy_and_none_in_int8():
    found = ceilings("fake", 1)
    assert found["int8_gmac_s"] is None and found["by"].startswith("numpy")


def test_the_model_of_a_product_by_hand():
    """Field 1 of the model, a number: key 08, IR version 8. Field 8, its opset: domain "" and version 13."""
    octets = product_model("MatMul", 1, 1, 1)
    assert octets[:2] == b"\x08\x08"
    assert octets.endswith(b"\x42\x04\x0a\x00\x10\x0d")


@pytest.mark.skipif(not library.available, reason="the compiled kernel was not built here")
def test_under_the_compiled_kernel_no_network_is_one_of_a_runtime(edge_tiles):
    encoder = PayloadEncoder(EDGE, Policy(), NATIVE, 1)
    told = encoder.networks(edge_tiles[0], 1, 1, 1, False)
    assert told["networks"] == [] and told["ceilings"] is None
    assert encoder.ran["cloud network"] == encoder.ran["encoder network"] == "compiled kernel"


def test_networks_of_the_compiled_kernel_are_a_stage_each_in_the_roofline():
    costs = {
        f"flight/{name}.onnx": {"macs": 10, "weight_octets": 3, "inputs": {"x": [1, 2]}, "outputs": {"y": [3]}}
        for name in ("encoder", "clouds")
    }
    stages = {"encode": 0.5, "clouds": 0.25, "entropy": 1.0}
    rows = list(roofline._of_kernel(costs, set(), stages))
    assert [(row.network, row.precision, row.seconds) for row in rows] == [
        ("encoder", "INT16", 0.5),
        ("clouds", "INT8", 0.25),
    ]
    assert [row.network for row in roofline._of_kernel(costs, {"clouds"}, stages)] == ["encoder"]


def test_a_network_that_takes_no_batch_says_why(edge_tiles):
    told = PayloadEncoder(EDGE, Policy(), "onnxruntime", 1).networks(edge_tiles[0], 1, 4, 1, False)
    assert all(network["run_s"] == [] and "imension" in network["why"] for network in told["networks"])


def a_device(tmp_path):
    """A made-up kernel: two processors, a thermal zone, a fan that is a cooling device, counters of throttling."""
    files = {
        "class/thermal/thermal_zone0/type": "cpu-thermal", "class/thermal/thermal_zone0/temp": "61500",
        "class/thermal/cooling_device0/type": "cpufreq-cpu0", "class/thermal/cooling_device0/cur_state": "2",
        "devices/system/cpu/cpu0/cpufreq/scaling_cur_freq": "1500000",
        "devices/system/cpu/cpu0/cpufreq/scaling_governor": "ondemand",
        "devices/system/cpu/cpu1/cpufreq/scaling_cur_freq": "1000000",
        "devices/system/cpu/cpu0/thermal_throttle/core_throttle_count": "3",
        "devices/system/cpu/cpu1/thermal_throttle/core_throttle_count": "4",
        "devices/platform/soc/soc:firmware/get_throttled": "0x50005",
    }  # fmt: skip
    for name, value in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(value + "\n")
    return str(tmp_path)


def test_a_kernel_tells_how_its_device_fares(tmp_path):
    root = a_device(tmp_path)
    assert temperatures_c(root) == {"cpu-thermal": 61.5}
    assert clock_mhz(root) == 1250.0
    assert throttling(root) == {
        "core throttle count": 7.0, "cooling_device0 cpufreq-cpu0": 2.0, "firmware throttled bits": float(0x50005)
    }  # fmt: skip
    assert health(root)["governor"] == "ondemand"


def test_a_kernel_that_tells_nothing_is_told_of_as_such(tmp_path):
    found = health(str(tmp_path), str(tmp_path / "none"))
    assert found["clock_mhz"] is found["governor"] is None
    assert found["temperatures_c"] == found["throttling"] == {}


def test_without_cpufreq_the_clock_is_what_cpuinfo_says(tmp_path):
    (tmp_path / "cpuinfo").write_text("processor : 0\ncpu MHz\t\t: 2400.000\nprocessor : 1\ncpu MHz\t\t: 2000.000\n")
    assert clock_mhz(str(tmp_path), str(tmp_path / "cpuinfo")) == 2200.0


def under(ceiling_gmac_s, seconds):
    layer = LayerTime("clouds", "stem", "Convolution", "INT8", 6e6, 2e5, seconds)
    return Roofline(
        "b", 0.1, 0.01, 10.0, 100.0, ceiling_gmac_s, 8.0, "INT8", "INT8",
        ceilings={"INT8": ceiling_gmac_s, "FP32": 20.0}, layers=(layer,),
    )  # fmt: skip


def test_a_layer_is_held_against_its_own_precision_and_the_memory():
    found = under(50.0, 1e-3)  # 6 GMAC/s at 30 MAC an octet: the memory would allow 240
    assert found.share_of(found.layers[0]) == pytest.approx(6 / 50)
    assert found.share_of(LayerTime("c", "n", "Conv", "FP32", 6e6, 6e6, 1e-3)) == pytest.approx(6 / 8)
    assert found.share_of(LayerTime("c", "n", "Reorder", "INT8", 0.0, 6e6, 1e-3)) is None
    assert found.share_of(LayerTime("c", "n", "Conv", "INT16", 6e6, 6e6, 1e-3)) is None


def test_a_layer_above_its_ceiling_is_doubted():
    assert roofline_doubts(under(50.0, 1e-3)) == []
    assert "faster than their ceiling" in roofline_doubts(under(5.0, 1e-3))[0]


def test_networks_and_masks_are_asked_of_held_tiles_only(edge, edge_tiles):
    with open_device("host:", edge, Policy()) as session:
        with pytest.raises(Exception, match="wanted one of the 0 held tiles"):
            session.mask(0)
        session.hold(edge_tiles[:1])
        with pytest.raises(Exception, match="batch is 17, wanted 1 to 16"):
            session.call(Type.NETWORKS, {"held": 0, "threads": 1, "batch": 17, "runs": 1, "layers": False})
        assert len(session.mask(0)) == edge.tile_px**2 // 8


@pytest.mark.slow
def test_one_submission_holds_performance_energy_accuracy_layers_and_a_sustained_run(edge, edge_tiles, tmp_path):
    from hil.bench.meters import ModelMeter

    plan = Plan(repeats=1, window_s=0.5, soak_s=1.0, scene="demo:512")
    with open_device("host:", edge, Policy()) as session:
        found = profile(session, edge_tiles, edge, ModelMeter(2.0, 5.0), plan)
    assert found.accuracy.decoded == found.performance.kinds["coded"].tiles
    assert 40 < found.accuracy.distortion["psnr_10k_pooled_db"] < 60
    assert found.accuracy.clouds.iou is None or 0.7 < found.accuracy.clouds.iou <= 1
    assert {layer.network for layer in found.roofline.layers} == {"encoder", "clouds"}
    assert found.soak.tiles > 0 and found.soak.seconds >= 0.9
    save_profile(found, tmp_path / "profile.json")
    assert load_profile(tmp_path / "profile.json") == found
    rows = as_table(found).splitlines()
    assert rows[0] == ",".join(COLUMNS)
    assert {row.partition(",")[0] for row in rows[1:]} >= {"tile", "stage", "energy", "accuracy", "layer", "soak"}
