"""The decoder network by hand: the runtime's results from the same weights; other networks are left to the runtime."""

from collections import Counter
from ctypes import c_float
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from payload.bundle import load_bundle
from payload.codec.interface import DECODER_FILE, Quality
from payload.codec.registry import open_codec
from payload.engine import constants_of, open_engine
from payload.errors import InputError
from payload.native import library
from payload.native.library import F32, I16, NONE, call, span
from payload.stopwatch import Stopwatch
from payload.tiles import split
from sim.ground.residual_network import (
    Brick,
    Product,
    ResidualNetwork,
    Room,
    add_brick,
    multiply,
    open_network,
    turned,
    weights_of,
)
from sim.metrics.distortion import psnr_db
from sim.scenes.demo import demo_scene

pytestmark = pytest.mark.skipif(not library.available, reason="the kernel was not built: no C compiler at install")


@pytest.fixture(scope="module")
def file():
    return load_bundle("edge").file(DECODER_FILE)


def brick_of(rng: np.random.Generator, channels: int) -> tuple[Brick, NDArray[np.float32]]:
    """A brick of random weights, and its kernels [out, in, 3, 3]."""
    kernels = (rng.normal(size=(channels, channels, 3, 3)) / 8).astype(np.float32)
    mix = (rng.normal(size=(1, channels, channels)) / 8).astype(np.float32)
    biases = rng.normal(size=(2, channels)).astype(np.float32)
    return Brick(Product.of(turned(kernels)), biases[0], Product.of(mix), biases[1]), kernels


@pytest.mark.parametrize("plain", [True, False])
@pytest.mark.parametrize(("cells", "channels"), [(4, 32), (8, 64), (12, 32)])
def test_a_convolution_by_winograd_is_a_convolution(cells: int, channels: int, plain: bool) -> None:
    rng = np.random.default_rng(cells)
    x = rng.normal(size=(cells * cells, channels)).astype(np.float32)
    (brick, kernels), room = brick_of(rng, channels), Room(cells, channels)
    wide = np.pad(np.maximum(x, 0).reshape(cells, cells, -1), ((1, 1), (1, 1), (0, 0))).astype(np.float64)
    wanted = sum(
        wide[a : a + cells, b : b + cells] @ kernels[:, :, a, b].T.astype(float) for a in range(3) for b in range(3)
    )
    library.plain_only(plain)
    add_brick(x, brick, cells, room)
    library.plain_only(False)
    found = (room.hidden[0] * (room.hidden_scales[0] / brick.mix.units[0])[:, None]).reshape(wanted.shape)
    off = found - np.maximum(wanted + brick.spread_bias, 0)
    assert np.sqrt(np.mean(off**2)) < 4e-3 * np.sqrt(np.mean(wanted**2))


def test_the_plain_loops_and_the_vector_ones_give_the_same_floats() -> None:
    rng = np.random.default_rng(5)
    (brick, _), found = brick_of(rng, 64), []
    for plain in (True, False):
        x = np.random.default_rng(1).normal(size=(144, 64)).astype(np.float32)
        library.plain_only(plain)
        add_brick(x, brick, 12, Room(12, 64))
        library.plain_only(False)
        found.append(x)
    assert found[0].tobytes() == found[1].tobytes()


@pytest.mark.parametrize("rows", [1, 3, 4, 7])
def test_products_of_integers_are_those_of_their_matrices(rows: int) -> None:
    rng = np.random.default_rng(rows)
    matrices = rng.normal(size=(2, 6, 32)).astype(np.float32)
    by, bias = Product.of(matrices), rng.normal(size=32).astype(np.float32)
    left = rng.integers(-9, 10, (2, rows, 6)).astype(np.int16)
    scales, to = by.units[:, None].repeat(rows, 1), np.ones((2, rows, 32), np.float32)
    multiply(left, scales, by, bias, to, add=True)
    assert np.abs(to - (1 + bias + left @ matrices)).max() < 9 * 6 * by.units.max()
    multiply(left, scales, by, None, to)
    assert np.abs(to - left @ matrices).max() < 9 * 6 * by.units.max()


def test_sums_of_the_largest_integers_fit_32_bits() -> None:
    ones = Product.of(np.ones((1, 512, 16), np.float32))
    assert ones.limits[0] == (2**31 - 1) // (512 * 8191)
    rng = np.random.default_rng(0)
    product = Product.of(rng.normal(size=(1, 64, 32)).astype(np.float32))
    by = product.weights[0].transpose(1, 3, 0, 2).reshape(64, 32)
    worst = np.where(by[:, 5] > 0, product.limits[0], -product.limits[0]).astype(np.int16)
    found = np.empty((1, 1, 32), np.float32)
    multiply(worst[None, None], np.ones((1, 1), np.float32), product, None, found)
    assert np.abs(found[0, 0] - worst.astype(np.int64) @ by).max() <= 256  # a float's last bit


def test_rows_of_nothing_and_of_no_numbers_give_the_biases() -> None:
    for what in (0.0, np.nan, np.inf, 1e-38):
        (brick, _), x = brick_of(np.random.default_rng(0), 32), np.full((16, 32), what, np.float32)
        brick = replace(brick, spread_bias=np.full(32, -1.0, np.float32))
        before = x.copy()
        add_brick(x, brick, 4, Room(4, 32))
        assert np.array_equal(x, before + brick.mix_bias, equal_nan=True)


@pytest.mark.parametrize(("cells", "channels"), [(6, 32), (8, 31), (0, 32), (8, 8192)])
def test_sizes_that_do_not_fit_are_refused(cells: int, channels: int) -> None:
    floats, integers = np.empty(36 * 64 * 64, np.float32), np.empty(36 * 64 * 64, np.int16)
    limits, size = np.full(36, 9, np.float32), (cells, channels)
    with pytest.raises(InputError, match="out of range"):
        call("winograd_in", span(floats, F32), *size, *(span(a, F32) for a in (limits, limits)), span(integers, I16),
             span(floats.copy(), F32))  # fmt: skip
    with pytest.raises(InputError, match="out of range"):
        call("winograd_out", span(floats, F32), span(floats.copy(), F32), *size, c_float(9), c_float(1),
             span(integers, I16), span(floats.copy(), F32))  # fmt: skip


@pytest.mark.parametrize("limit", [0.5, 40000.0, float("nan")])
def test_a_limit_that_no_16_bits_hold_is_refused(limit: float) -> None:
    floats, limits = np.empty(36 * 64, np.float32), np.full(36, limit, np.float32)
    with pytest.raises(InputError, match="out of range"):
        call("winograd_in", span(floats, F32), 4, 32, *(span(a, F32) for a in (limits, limits)),
             span(np.empty(36 * 64, np.int16), I16), span(floats.copy(), F32))  # fmt: skip


@pytest.mark.parametrize(("batches", "rows", "inputs", "columns"), [(0, 1, 2, 16), (1, 1, 3, 16), (1, 1, 2, 17)])
def test_products_of_sizes_that_do_not_fit_are_refused(batches: int, rows: int, inputs: int, columns: int) -> None:
    floats, integers = np.empty(4096, np.float32), np.empty(4096, np.int16)
    with pytest.raises(InputError, match="out of range"):
        call("multiply", span(integers, I16), span(floats, F32), span(integers, I16), NONE, 0, batches, rows, inputs,
             columns, span(floats.copy(), F32))  # fmt: skip


@pytest.mark.parametrize("step_dn", [40.0, 150.0, 900.0])
def test_tiles_come_out_as_good_as_by_the_runtime(file, step_dn: float) -> None:
    bundle, engine = load_bundle("edge"), open_engine()
    codec, (tile,) = open_codec(bundle, engine), split(demo_scene(256, 256, 1), 256)
    coded = codec.encode(tile, Quality(step_dn=step_dn), Stopwatch())
    indices = codec.decode(coded.side, coded.layers)
    network = open_network(file, engine)
    assert isinstance(network, ResidualNetwork)
    ours, runtimes = (codec.reconstruct(indices, n).astype(float) for n in (network, engine.load(file)))
    ours_db, runtimes_db = (psnr_db(float(np.mean((dn - tile.dn) ** 2))) for dn in (ours, runtimes))
    assert ours_db > runtimes_db - 0.05
    assert np.sqrt(np.mean((ours - runtimes) ** 2)) < 0.2 * np.sqrt(np.mean((ours - tile.dn) ** 2))


def test_pictures_come_out_as_the_networks_own_definition_has_them(file) -> None:
    torch = pytest.importorskip("torch", reason="extra `train` is not installed")
    from export.lapped.networks import Decoder as Definition

    constants, _ = constants_of(file)
    named = {n.removesuffix("_half").partition("decoder.")[2]: a for n, a in constants.items() if "decoder." in n}
    bricks = sum(name.endswith("mix.bias") for name in named)
    definition = Definition(4, 128, bricks)
    known = definition.state_dict()
    definition.load_state_dict({n: torch.tensor(np.asarray(a, np.float32)) for n, a in named.items() if n in known})
    rng = np.random.default_rng(0)
    levels = np.round(rng.laplace(0, 1.5, (1, 256, 8, 8))).astype(np.float32)
    levels[:, ::3] = 0
    inputs = rng.laplace(0, 6, (1, 4, 64, 64)).astype(np.float32), levels, np.full((1, 1, 1, 1), 2 / 3, np.float32)
    with torch.no_grad():
        wanted = definition(*map(torch.tensor, inputs)).numpy()
    weights = weights_of(*constants_of(file))
    assert weights is not None
    (found,) = ResidualNetwork(weights).run(*inputs)
    assert np.abs(found - wanted).max() < 4e-4 * bricks < np.abs(wanted - inputs[0]).max()


def test_another_network_is_left_to_the_runtime(file) -> None:
    constants, operators = constants_of(file)
    assert weights_of(constants, operators) is not None
    one_more = Counter(operators)
    one_more["Relu"] += 1
    assert weights_of(constants, one_more) is None
    fewer = {name: a for name, a in constants.items() if "trunk.3.mix.bias" not in name}
    assert weights_of(fewer, operators) is None
    other = constants | {"decoder.out.bias": np.zeros(7, np.float32)}
    assert weights_of(other, operators) is None
    assert not isinstance(open_network(file, open_engine("onnxruntime")), ResidualNetwork)
