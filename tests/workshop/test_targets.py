"""Targets, estimates, memory plans: tables that must be sound, and figures checked by hand."""

import copy
import tomllib

import pytest

from export.devices.estimates import against_anchors, refuse_operators, table
from export.graphs.graph import load_graph
from export.graphs.memory_plan import chart, fits, plan, plan_for_tiles
from hil.devices.latency import Work, estimate
from hil.devices.targets import FOLDER, STATUSES, load_target, load_targets, parse_target
from payload.errors import InputError

MYRIAD2 = tomllib.loads((FOLDER / "myriad2.toml").read_text())


def test_all_targets_load_and_every_figure_has_source_and_status():
    targets = load_targets()
    assert set(targets) == {
        "myriad2", "myriadx", "x86-vnni", "cortex-a53", "cortex-a76", "npu", "zynq-dpu", "hailo-8", "jetson-orin-nano",
    }  # fmt: skip
    for target in targets.values():
        assert {"rate_gmac_per_s", "stage_overhead_us", "bandwidth_gb_per_s", "power_w", "memory_mib"} <= set(
            target.figures
        )
        assert all(f.source and f.status in STATUSES for f in target.figures.values())
    text = table(targets)
    assert text.count("  runs: ") == text.count("  equality with the reference: ") == len(targets)
    assert {n for n, t in targets.items() if t.equality == "shown"} == {"x86-vnni", "cortex-a53", "cortex-a76"}
    assert "CloudScout" in text and "assumed" in text and "calibrated" in text
    assert text.count("  published: ") == sum(len(t.published) for t in targets.values()) >= 30


def test_an_estimate_by_hand():
    """Cortex-A53, middle: 30 MMAC / 3 GMAC/s = 10 ms; 20 x 30 us = 0.6 ms; 3 MB / 1.5 GB/s = 2 ms; x 0.6 W."""
    found = estimate(load_target("cortex-a53"), Work(30_000_000, 20, 3_000_000, calls=3))
    assert found.latency_ms[1] == pytest.approx(12.6) and found.energy_mj[1] == pytest.approx(12.6 * 0.6)
    assert found.latency_ms[0] < found.latency_ms[1] < found.latency_ms[2]
    assert found.latency_ms[0] == pytest.approx(30 / 6 + 20 * 0.01 + 3 / 3)


def test_starting_a_network_costs_what_the_device_says():
    changed = copy.deepcopy(MYRIAD2)
    changed["figures"]["call_overhead_us"] = {"low": 100, "mid": 200, "high": 400, "status": "assumed", "source": "s"}
    assert estimate(parse_target("m.toml", changed), Work(calls=3)).latency_ms == pytest.approx((0.3, 0.6, 1.2))


def test_anchors_compare_per_pixel():
    (line,) = against_anchors(load_target("myriad2"), 32.5, 512 * 512)
    assert "10.0 x faster" in line and "1240 ns/px (published)" in line
    (line,) = against_anchors(load_target("myriad2"), 650.0, 512 * 512)
    assert "2.0 x slower" in line


def test_an_unknown_target_names_the_known_ones():
    with pytest.raises(InputError, match=r"target 'myriad3' is unknown; choose one of cortex-a53, cortex-a76, hailo-8"):
        load_target("myriad3")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.update(colour="red"), "key 'colour' is unknown"),
        (lambda t: t.pop("runs"), "runs is missing"),
        (lambda t: t.update(equality="perhaps"), "equality is 'perhaps', wanted one of shown, not promised"),
        (lambda t: t["figures"].update(speed={"value": 1}), "figure 'speed' is unknown"),
        (lambda t: t["figures"]["power_w"].update(status="guessed"), "power_w needs a source and a status"),
        (lambda t: t["figures"]["power_w"].pop("source"), "power_w needs a source and a status"),
        (lambda t: t["figures"]["power_w"].update(low=5), "wanted low <= mid <= high"),
        (lambda t: t["anchors"][0].pop("source"), "anchor .* needs a source"),
        (lambda t: t["published"][0].pop("source"), "published run of 'googlenet': source is missing"),
        (lambda t: t["published"][0].pop("latency_ms"), "wanted latency_ms or fps, one of them"),
        (lambda t: t["published"][0].update(batch=0), "batch is 0, wanted a number from 1 up"),
        (lambda t: t["published"][0].update(timed="me"), "timed is 'me', wanted device or host"),
        (lambda t: t["published"][0].update(speed=3), "key of a published run 'speed' is unknown"),
    ],
)
def test_an_unsound_table_names_file_and_key(change, message):
    changed = copy.deepcopy(MYRIAD2)
    change(changed)
    with pytest.raises(InputError, match=rf"myriad2\.toml: .*{message}"):
        parse_target("myriad2.toml", changed)


def test_an_operator_the_target_refuses_is_named_with_the_target(qcdq, tmp_path):
    b = qcdq()
    path = b.save(tmp_path / "h.onnx", {"x": (1, 4, 4, 4)}, {b.node("HardSwish", "x"): (1, 4, 4, 4)}, opset=14)
    with pytest.raises(InputError, match=r"operator HardSwish \(hardswish0\) does not run on myriadx"):
        refuse_operators(load_graph(path), load_target("myriadx"))


def test_a_quantised_network_does_not_run_on_a_vpu(build_cnn, tmp_path):
    graph = load_graph(build_cnn(tmp_path / "net.onnx"))
    with pytest.raises(InputError, match=r"QuantizeLinear .* does not run on myriad2; .*fp16-vpu"):
        refuse_operators(graph, load_target("myriad2"))
    refuse_operators(graph, load_target("x86-vnni"))


def test_an_opset_too_new_is_refused(qcdq, tmp_path):
    b = qcdq()
    path = b.save(tmp_path / "r.onnx", {"x": (1, 4, 4, 4)}, {b.node("Relu", "x"): (1, 4, 4, 4)}, opset=17)
    with pytest.raises(InputError, match="opset 17, myriad2 reads up to 13"):
        refuse_operators(load_graph(path), load_target("myriad2"))


def test_the_memory_plan_of_a_chain_by_hand(qcdq, tmp_path):
    """f32 input 4 x 8 x 8 (1024 octets) -> u8 copy (256) -> 8 x 4 x 4, quantised behind ReLU (128) -> f32 out (512).

    Live: 1024 + 256 at the quantiser; 256 + 128 at the first convolution; 128 + 512 at the second.
    """
    b = qcdq()
    x = b.quantised("x", 0)
    y = b.quantised(b.node("Relu", b.conv(x, b.weights((8, 4, 3, 3)), 0, 3, stride=2)), 0)
    z = b.conv(y, b.weights((8, 8, 1, 1)), 0, 1)
    made = plan(load_graph(b.save(tmp_path / "c.onnx", {"x": (1, 4, 8, 8)}, {z: (1, 8, 4, 4)})))
    assert [s.live_octets for s in made.steps] == [1024 + 256, 256 + 128, 128 + 512]
    assert made.peak_octets == 1280 and made.peak_step.op == "QuantizeLinear"


def test_a_passed_on_tensor_stays_alive_until_it_is_read(qcdq, tmp_path):
    """a (64) lives through two 1x1 convolutions until the sum, which runs behind the second one."""
    b = qcdq()
    a = b.quantised("x", 0)
    first = b.quantised(b.node("Relu", b.conv(a, b.weights((4, 4, 1, 1)), 0, 1)), 0)
    second = b.conv(first, b.weights((4, 4, 1, 1)), 0, 1)
    y = b.quantised(b.node("Add", second, a), 0, signed=True)
    made = plan(load_graph(b.save(tmp_path / "r.onnx", {"x": (1, 4, 4, 4)}, {y: (1, 4, 4, 4)})))
    sizes = {s.name: s.live_octets for s in made.steps}
    assert [s.op for s in made.steps] == ["QuantizeLinear", "Conv", "Conv"]
    assert list(sizes.values()) == [256 + 64, 64 + 64, 64 + 64 + 64]  # the sum runs behind the convolution, in u8


def test_memory_grows_with_the_tile(build_cnn, tmp_path):
    plans = plan_for_tiles(build_cnn(tmp_path / "net.onnx"), 32, (32, 64, 128))
    assert plans[64].peak_octets == 4 * plans[32].peak_octets and plans[128].peak_octets == 16 * plans[32].peak_octets
    assert plans[32].weight_octets == plans[128].weight_octets
    half = plan_for_tiles(build_cnn(tmp_path / "net.onnx"), 32, (32,), in_fp16=True)
    assert half[32].peak_octets > 0
    assert fits(100, 100) == "fits" and fits(300, 100) == "3.0 x too large"


def test_the_chart_is_written_and_reproducible(build_cnn, tmp_path):
    pytest.importorskip("matplotlib")
    plans = plan_for_tiles(build_cnn(tmp_path / "net.onnx"), 32, (32, 64))
    for name in ("a.svg", "b.svg", "c.png"):
        chart(plans, {"CMX": 2**21}, tmp_path / name)
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()
    assert b"tile 64 px" in (tmp_path / "a.svg").read_bytes() or b"<path" in (tmp_path / "a.svg").read_bytes()
    assert (tmp_path / "c.png").read_bytes()[:4] == b"\x89PNG"
    with pytest.raises(InputError, match=r"\.png or \.svg"):
        chart(plans, {}, tmp_path / "d.bmp")
