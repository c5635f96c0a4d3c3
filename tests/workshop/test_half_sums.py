"""FP16 sums by hand, and what the host does at a float network's ends."""

import numpy as np
import onnx
import pytest

from export.graphs.ends import ends_of
from export.graphs.graph import load_graph
from export.proof.half_device import EndToEnd, HalfEngine, as_text, end_to_end
from export.proof.half_precision import open_half
from export.proof.half_sums import open_half_sums, summed
from export.proof.inputs import TilePool
from payload.bundle import load_bundle
from payload.engine import as_integers
from payload.errors import InputError


def one_convolution(qcdq, path, weights, **attributes):
    b = qcdq()
    y = b.node("Conv", "x", b.constant(weights), **attributes)
    out, (n, c, h, w) = weights.shape[0], (1, weights.shape[1] * attributes.get("group", 1), 1, 1)
    return onnx.load(str(b.save(path, {"x": (n, c, h, w)}, {y: (1, out, 1, 1)}, opset=13)))


def test_a_sum_in_fp16_loses_what_is_less_than_half_a_step(qcdq, tmp_path):
    """2048 + 1 + 1: FP16 steps by 2 there, ties to even: 2048 both times. Summed in f32 it is 2050."""
    model = one_convolution(qcdq, tmp_path / "n.onnx", np.ones((1, 3, 1, 1), np.float32))
    x = np.float32([2048, 1, 1]).reshape(1, 3, 1, 1)
    assert open_half(model)(x)[0].item() == 2050
    assert open_half_sums(model)(x)[0].item() == 2048
    assert open_half_sums(model)(x[:, ::-1])[0].item() == 2050  # 1 + 1 first


def test_a_product_is_rounded_before_it_is_added():
    """1.0009765625^2 = 1.00195408... -> 1.001953125 in FP16."""
    step = np.float32(1 + 2**-10)
    windows = np.full((1, 1, 1, 1, 1, 1), step, np.float32)
    assert summed(windows, np.full((1, 1, 1, 1), step, np.float32), 1).item() == np.float32(1 + 2**-9)


def test_the_simulated_convolution_is_the_runtimes_where_nothing_is_lost(qcdq, tmp_path):
    """Small integers: strides, pads and groups, against ONNX Runtime."""
    rng, b = np.random.default_rng(2), qcdq()
    w = b.constant(rng.integers(-3, 4, (4, 2, 3, 3)).astype(np.float32))
    y = b.node("Conv", "x", w, kernel_shape=[3, 3], strides=[2, 1], pads=[1, 0, 1, 2], group=2)
    up = b.node("Resize", y, "", b.constant(np.float32([1, 1, 2, 2])), mode="nearest", nearest_mode="floor",
                coordinate_transformation_mode="asymmetric")  # fmt: skip
    model = onnx.load(str(b.save(tmp_path / "n.onnx", {"x": (1, 4, 5, 6)}, {up: (1, 4, 6, 12)}, opset=13)))
    x = rng.integers(-4, 5, (1, 4, 5, 6)).astype(np.float32)
    np.testing.assert_array_equal(open_half_sums(model)(x)[0], open_half(model)(x)[0])


def test_a_dilated_convolution_is_refused(qcdq, tmp_path):
    model = one_convolution(qcdq, tmp_path / "n.onnx", np.ones((1, 1, 1, 1), np.float32), dilations=[2, 2])
    with pytest.raises(InputError, match="no dilation"):
        open_half_sums(model)(np.ones((1, 1, 1, 1), np.float32))


def test_the_ends_of_the_shipped_networks():
    bundle = load_bundle("edge")
    graphs = (load_graph(bundle.file(f"flight/{name}.onnx"), free_px=256) for name in ("clouds", "encoder"))
    clouds, encoder = (ends_of(graph).to_table() for graph in graphs)
    assert clouds == {
        "inputs": ({"name": "tile", "low": 0.0, "high": 255.0},), "outputs": ({"name": "logits", "dtype": "int8"},),
    }  # fmt: skip
    assert encoder["outputs"] == ({"name": "latents", "dtype": "float32"},)
    assert encoder["inputs"][0]["low"] == -128.0 and encoder["inputs"][0]["high"] == 127.0


def test_floats_become_the_integers_that_the_payload_takes():
    found = as_integers(np.float32([-1000, -0.5, 0.5, 1.5, 2.5, 126.6, 300]), "int8")
    assert found.dtype == np.int8 and found.tolist() == [-128, 0, 0, 2, 2, 127, 127]
    assert as_integers(np.float32([0.5]), "float32").tolist() == [0.5]


@pytest.mark.slow
def test_end_to_end_on_one_drawn_tile_costs_next_to_nothing_with_sums_in_f32():
    bundle, rng = load_bundle("edge"), np.random.default_rng(6)
    y, x = np.mgrid[:128, :128]
    smooth = 900 + 500 * np.sin(x / 37) * np.cos(y / 53)
    dn = np.clip(smooth + rng.normal(0, 40, (4, 4, 128, 128)), 0, 10_000).astype(np.uint16)
    (found,) = end_to_end(bundle, TilePool(dn, "drawn"), 1, "f32", [40.0])
    assert found.tiles == 1 and found.agreement_percent > 99.5 and abs(found.psnr_int8_db - found.psnr_half_db) < 0.01
    assert abs(found.octets_half / found.octets_int8 - 1) < 0.001
    assert "sums f32" in as_text([found]) and HalfEngine(bundle, "FP16").version == "sums in FP16"


def test_agreement_end_to_end_is_of_all_indices():
    assert EndToEnd("f32", 40.0, 1, 1000, 10, 1, 1, 50.0, 50.0).agreement_percent == 99.0
