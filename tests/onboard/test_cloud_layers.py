"""The cloud network in the compiled kernel: the runtimes' logits bit for bit, and those of a convolution by hand."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import openvino
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from openvino import opset13 as ops

from payload.bundle import SHIPPED, load_bundle
from payload.clouds.layered import LayeredNetwork, _order
from payload.clouds.layers import Layer, Octets, OtherLayersError, Sums, layers_of
from payload.clouds.network import NETWORK_FILE, layered, load_cloud_net
from payload.engine import open_engine, operators_of
from payload.errors import BundleError, InputError
from payload.guard.checksum import same
from payload.native import library

pytestmark = pytest.mark.skipif(not library.available, reason="the kernel was not built: no C compiler at install")
EDGE = SHIPPED / "edge" / NETWORK_FILE


@pytest.fixture(params=["all", "plain", "without VNNI"])
def loops(request: pytest.FixtureRequest) -> Iterator[None]:
    """The kernel's vector loops, the plain ones beside them, and those of processors without VNNI."""
    library.plain_only(request.param == "plain")
    if request.param == "without VNNI":
        library.older_loops(True)
    yield
    library.plain_only(False)


def planes_of(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Noise, the ends of the scale, or a ramp under noise."""
    kind = rng.integers(3)
    if kind == 0:
        return rng.integers(0, 256, shape, np.uint8)
    if kind == 1:
        return np.where(rng.random(shape) < 0.5, 0, 255).astype(np.uint8)
    ramp = np.linspace(0, 255, shape[-1]) + rng.normal(0, 20, shape)
    return ramp.clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize("side", [16, 32, 128])
@pytest.mark.parametrize("engine", ["openvino", "onnxruntime"])
def test_the_shipped_network_gives_the_runtimes_logits_bit_for_bit(loops: None, engine: str, side: int) -> None:
    if engine == "onnxruntime":
        pytest.importorskip("onnxruntime")
    shape = 1, 8, side, side
    network, kernel = open_engine(engine).load(EDGE, shape=shape), layered(EDGE, shape)
    assert kernel is not None
    for seed in range(4):
        planes = planes_of(np.random.default_rng(seed), shape)
        assert same(kernel.run(planes)[0], network.run(planes)[0])


def a_layer(
    rng: np.random.Generator, source: int, kernel: int, stride: int, widths: tuple[int, int], **more: Any
) -> Layer:
    """Weights of 7 bits, many of them at the ends."""
    width_in, width = widths
    depthwise = kernel in (3, 5)
    weights = rng.integers(-64, 64, (width, 1 if depthwise else width_in, kernel, kernel), endpoint=True)
    weights[rng.random(weights.shape) < 0.3] = rng.choice([-64, 64])
    added, signed = more.get("added"), more.get("signed", False)
    sums = Sums(Octets(source), weights.astype(float), stride, depthwise, np.zeros(width), added)
    bias, down = rng.integers(-(1 << 14), 1 << 14, width), rng.integers(1, 14, width)
    up = rng.integers(0, 8, width)
    return Layer(sums, weights.astype(np.int8), *(a.astype(np.int32) for a in (bias, down, up)), signed)


def some_layers(rng: np.random.Generator, planes: int, cell: int) -> list[Layer]:
    """Every kind of layer there is, with what is added at the same size and at half of it."""
    wide = 16 * int(rng.integers(1, 4))
    return [
        a_layer(rng, -1, cell, cell, (planes, wide)),
        a_layer(rng, 0, 3, 1, (wide, wide)),
        a_layer(rng, 1, 1, 1, (wide, wide), added=Octets(0)),
        a_layer(rng, 2, int(rng.choice([3, 5])), 2, (wide, wide)),
        a_layer(rng, 3, 5, 1, (wide, wide)),
        a_layer(rng, 4, 1, 1, (wide, 16)),
        a_layer(rng, 2, 1, 1, (wide, 16), added=Octets(5, doubled=True)),
        a_layer(rng, 6, 1, 1, (16, 16), signed=True),
    ]


def by_hand(layers: list[Layer], planes: np.ndarray) -> np.ndarray:
    """[C, h, w] of planes [P, n, n], in 64-bit integers and by division, not by shifts."""
    found: dict[int, np.ndarray] = {-1: planes.astype(np.int64)}
    for i, layer in enumerate(layers):
        sums = layer.sums
        kernel, x = layer.weights.shape[2], found[sums.source.layer]
        reach = kernel // 2 if sums.depthwise else 0
        windows = np.lib.stride_tricks.sliding_window_view(
            np.pad(x, ((0, 0), *[(reach, reach)] * 2)), (kernel, kernel), (1, 2)
        )
        windows = windows[:, :: sums.stride, :: sums.stride]
        weights = layer.weights.astype(np.int64)
        path = "cyxij,cij->cyx" if sums.depthwise else "kyxij,ckij->cyx"
        v = np.einsum(path, windows, weights[:, 0] if sums.depthwise else weights) + layer.bias[:, None, None]
        if sums.added is not None:
            more = found[sums.added.layer]
            more = more.repeat(2, axis=1).repeat(2, axis=2) if sums.added.doubled else more
            v = v + more * 2 ** layer.up.astype(np.int64)[:, None, None]
        quotient = np.rint(v / 2.0 ** layer.down[:, None, None])  # half to even, exact below 2^53
        found[i] = quotient.clip(*((-128, 127) if layer.signed else (0, 255))).astype(np.int64)
    return found[len(layers) - 1]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 2**32), st.sampled_from([(8, 2), (4, 2), (8, 4), (1, 4)]), st.sampled_from([2, 6, 8, 20]))
def test_layers_are_those_of_a_convolution_by_hand(loops: None, seed: int, stem: tuple[int, int], side: int) -> None:
    rng = np.random.default_rng(seed)
    (planes, cell), n = stem, stem[1] * side
    layers = some_layers(rng, planes, cell)
    given_planes = planes_of(rng, (1, planes, n, n))
    network = LayeredNetwork(layers, given_planes.shape)
    for _ in range(2):  # what the first run left behind changes nothing
        assert np.array_equal(network.run(given_planes)[0][0], by_hand(layers, given_planes[0]))


def test_quads_that_would_pass_16_bits_together_go_alone() -> None:
    """255 times four weights of 64 is 65 280: two quads of those have no partner, the four of 32 have."""
    layer = a_layer(np.random.default_rng(0), 0, 1, 1, (24, 16))
    weights = np.full((16, 24, 1, 1), 32, np.int8)
    weights[:, :8] = 64
    order = _order(Layer(layer.sums, weights, layer.bias, layer.down, layer.up, False)).reshape(-1, 2)
    assert sorted(map(sorted, order.tolist())) == [[-1, 0], [-1, 1], [2, 3], [4, 5]]


def a_network(folder: Path, **changes: Any) -> Path:
    """The planes in patches, one convolution, its octets as logits: in units of powers of two but for `changes`."""
    unit, levels = changes.get("unit", 0.25), changes.get("levels", 256)
    tile = ops.parameter([1, 4, 8, 8], np.uint8, name="tile")
    x = ops.multiply(ops.convert(tile, "f32"), np.float32(2.0**-8))
    weights = np.random.default_rng(1).integers(-63, 64, (16, 4, 2, 2)).astype(np.float32) / 128
    y = ops.convolution(x, weights, [2, 2], changes.get("pads", [0, 0]), [0, 0], [1, 1])
    y = ops.add(y, np.full((1, 16, 1, 1), 0.5, np.float32))
    y = changes.get("then", lambda value: value)(y)
    low, high = (np.float32(end * unit) for end in (-128, 127))
    y = ops.fake_quantize(y, low, high, np.float32(-128), np.float32(127), levels)
    path = folder / "network.xml"
    openvino.save_model(
        openvino.Model([ops.result(ops.convert(y, "i8"))], [tile], "it"), str(path), compress_to_fp16=False
    )
    return path


def test_a_network_of_powers_of_two_is_read_as_its_runtime_runs_it(tmp_path: Path) -> None:
    path, shape = a_network(tmp_path), (1, 4, 8, 8)
    kernel = layered(path, shape)
    assert kernel is not None
    planes = np.random.default_rng(2).integers(0, 256, shape, np.uint8)
    assert same(kernel.run(planes)[0], open_engine("openvino").load(path).run(planes)[0])


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"unit": 0.3}, "no power of two"),
        ({"levels": 16}, "rounded twice"),
        ({"pads": [1, 1]}, "other margins"),
        ({"then": ops.sigmoid}, "a Sigmoid"),
        ({"then": lambda value: ops.multiply(value, np.float32(2))}, "scaled sums"),
        ({"then": ops.relu}, "signed values of one sign"),
    ],
)
def test_another_network_is_left_to_the_runtime(tmp_path: Path, changes: dict[str, Any], found: str) -> None:
    path = a_network(tmp_path, **changes)
    with pytest.raises(OtherLayersError, match=found):
        layers_of(operators_of(path))
    assert layered(path, (1, 4, 8, 8)) is None


@pytest.mark.parametrize("shape", [(1, 6, 16, 16), (1, 8, 24, 24)])
def test_planes_that_the_network_was_not_made_for_are_left_to_the_runtime(shape: tuple[int, ...]) -> None:
    assert layered(EDGE, shape) is None


def test_planes_of_another_shape_are_refused() -> None:
    kernel = layered(EDGE, (1, 8, 32, 32))
    assert kernel is not None
    with pytest.raises(BundleError, match=r"takes \[1, 8, 32, 32\], not \[1, 8, 16, 16\]; restore the bundle"):
        kernel.run(np.zeros((1, 8, 16, 16), np.uint8))


def test_the_guard_can_look_at_all_of_the_network_in_the_kernel() -> None:
    net = load_cloud_net(load_bundle("edge"), open_engine("native"))
    held = {part.name: part.octets for part in net.held()}
    assert held["clouds.weights"] >= 66_256 - 2_000 and "clouds.layers" in held  # all parameters but the biases
    assert isinstance(net.network, LayeredNetwork)


@pytest.mark.parametrize("name", ["layers", "quads", "weights", "bias", "down", "up"])
@pytest.mark.parametrize("seed", range(3))
def test_tables_that_change_in_memory_never_lead_outside(loops: None, name: str, seed: int) -> None:
    """Refused, or other logits: never a crash. (make fuzz-kernel runs the entry under sanitizers.)"""
    kernel, rng = layered(EDGE, (1, 8, 32, 32)), np.random.default_rng(seed)
    assert kernel is not None
    octets = next(part.memory for part in kernel.held() if part.name == f"clouds.{name}").reshape(-1).view(np.uint8)
    for _ in range(60):
        at, bit = rng.integers(octets.size), 1 << int(rng.integers(8))
        octets[at] ^= bit
        try:
            kernel.run(planes_of(rng, (1, 8, 32, 32)))
        except BundleError as error:
            assert "tables in memory are not those that were loaded" in str(error)
        octets[at] ^= bit


@pytest.mark.parametrize("name", ["_layers", "_quads", "_weights", "_bias", "_down", "_up", "_arena"])
def test_an_array_one_element_too_short_is_refused(name: str) -> None:
    kernel = layered(EDGE, (1, 8, 32, 32))
    assert kernel is not None
    whole = getattr(kernel, name)
    setattr(kernel, name, whole.reshape(-1)[:-1].copy() if name != "_layers" else whole.reshape(-1, 1)[:-1].copy())
    with pytest.raises(InputError):
        kernel.run(np.zeros((1, 8, 32, 32), np.uint8))
