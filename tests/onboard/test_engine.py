"""The runtime behind its protocol: what it refuses, how it is set, and that results are the caller's own."""

import os
from pathlib import Path

import numpy as np
import openvino
import pytest
from openvino import opset13 as ops

from payload.bundle import load_bundle
from payload.engine import ENGINES, convolution_precisions, open_engine
from payload.errors import BundleError, InputError
from payload.native import library


@pytest.fixture(scope="module")
def float_network(tmp_path_factory) -> Path:
    """One float convolution of all ones, 3 x 3, on [1, 1, 8, 8]."""
    x = ops.parameter([1, 1, 8, 8], np.float32, name="x")
    y = ops.convolution(x, np.ones((1, 1, 3, 3), np.float32), [1, 1], [1, 1], [1, 1], [1, 1])
    path = tmp_path_factory.mktemp("float") / "float.xml"
    openvino.save_model(openvino.Model([ops.result(y)], [x], "float"), str(path), compress_to_fp16=False)
    return path


def test_a_float_convolution_is_refused_where_int8_is_wanted(float_network) -> None:
    engine = open_engine("openvino")
    with pytest.raises(BundleError, match=r"1 convolutions run in float .* all must run in INT8; rebuild"):
        engine.load(float_network, require_int8=True)
    (found,) = engine.load(float_network).run(np.ones((1, 1, 8, 8), np.float32))
    assert found[0, 0, 0].tolist() == [4, 6, 6, 6, 6, 6, 6, 4] and found[0, 0, 4, 4] == 9


def test_results_stay_when_the_network_runs_again(float_network) -> None:
    network = open_engine("openvino").load(float_network)
    (first,) = network.run(np.ones((1, 1, 8, 8), np.float32))
    kept = first.copy()
    network.run(np.zeros((1, 1, 8, 8), np.float32))
    assert np.array_equal(first, kept)


def test_precision_and_threads_are_those_asked_for(float_network) -> None:
    """The default of recent CPUs is bf16, which changes indices."""
    compiled = open_engine("openvino", threads=2).load(float_network).compiled
    assert compiled.get_property("INFERENCE_PRECISION_HINT") == openvino.Type.f32
    assert compiled.get_property("INFERENCE_NUM_THREADS") == 2
    assert compiled.get_property("NUM_STREAMS") == 1


@pytest.mark.parametrize("name", ENGINES)
@pytest.mark.parametrize("octets", [b"", b"no network", b"\x08\x09" * 50])
def test_a_file_that_is_no_network_is_a_bundle_error(name, octets, tmp_path) -> None:
    if name == "onnxruntime":
        pytest.importorskip("onnxruntime")
    (tmp_path / "x.onnx").write_bytes(octets)
    with pytest.raises(BundleError, match=r"cannot load this network: .*; rebuild the bundle") as caught:
        open_engine(name).load(tmp_path / "x.onnx")
    assert "\n" not in str(caught.value)


def test_an_unknown_engine_is_named_with_the_known_ones() -> None:
    with pytest.raises(InputError, match="engine 'tensorrt' is unknown; choose one of openvino, onnxruntime"):
        open_engine("tensorrt")


def test_an_engine_that_is_not_installed_says_how_to_install_it(monkeypatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    with pytest.raises(InputError, match="'onnxruntime' is not installed here; pip install onnxruntime"):
        open_engine("onnxruntime")


@pytest.mark.parametrize("name", ENGINES)
def test_arrays_that_do_not_fit_a_network_are_one_line_of_a_bundle_error(name) -> None:
    if name == "onnxruntime":
        pytest.importorskip("onnxruntime")
    network = open_engine(name).load(load_bundle().file("flight/encoder.onnx"))
    with pytest.raises(BundleError, match=r"does not take float32 \[8, 64, 41, 41\]") as caught:
        network.run(np.zeros((8, 64, 41, 41), np.float32))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("file", ["flight/encoder.onnx", "flight/clouds.onnx"])
def test_every_convolution_of_the_shipped_flight_networks_is_int8(file) -> None:
    network = open_engine("openvino").load(load_bundle().file(file), require_int8=True)
    precisions = convolution_precisions(network.compiled)
    assert precisions and set(precisions.values()) <= {"u8", "i8"}


@pytest.mark.skipif(os.environ.get("NADIR_KERNEL") == "0", reason="the kernel is left out on purpose")
@pytest.mark.skipif(not list(Path(library.__file__).parent.glob("_kernel.*")), reason="no C compiler at install")
def test_a_kernel_that_was_built_is_found() -> None:
    assert library.available


def test_too_little_memory_is_not_the_bundles_fault(monkeypatch, tmp_path) -> None:
    engine = open_engine("openvino")

    class Full:
        def read_model(self, path: str) -> None:
            raise RuntimeError("Exception from src/core:\nstd::bad_alloc")

    monkeypatch.setattr(engine, "_core", Full())
    with pytest.raises(MemoryError, match=r"loading encoder\.onnx: std::bad_alloc"):
        engine.load(tmp_path / "encoder.onnx")
