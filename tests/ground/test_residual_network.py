"""The decoder network by hand: the runtime's results from the same weights; other networks are left to the runtime."""

from collections import Counter

import numpy as np
import pytest

from payload.bundle import load_bundle
from payload.codec.interface import DECODER_FILE, Quality
from payload.codec.registry import open_codec
from payload.engine import constants_of, open_engine
from payload.errors import InputError
from payload.native import library
from payload.native.library import F32, call, span
from payload.stopwatch import Stopwatch
from payload.tiles import split
from sim.ground.residual_network import ResidualNetwork, open_network, turned, weights_of
from sim.metrics.distortion import psnr_db
from sim.scenes.demo import demo_scene

pytestmark = pytest.mark.skipif(not library.available, reason="the kernel was not built: no C compiler at install")


@pytest.fixture(scope="module")
def file():
    return load_bundle("edge").file(DECODER_FILE)


@pytest.mark.parametrize("plain", [True, False])
@pytest.mark.parametrize(("cells", "channels"), [(4, 32), (8, 64), (12, 32)])
def test_a_convolution_by_winograd_is_a_convolution(cells: int, channels: int, plain: bool) -> None:
    rng = np.random.default_rng(cells)
    x = rng.normal(size=(cells, cells, channels)).astype(np.float32)
    kernels = (rng.normal(size=(channels, channels, 3, 3)) / 8).astype(np.float32)
    bias = rng.normal(size=channels).astype(np.float32)
    spread = np.empty((36, (cells // 4) ** 2, channels), np.float32)
    found = np.empty((cells, cells, channels), np.float32)
    library.plain_only(plain)
    call("winograd_in", span(x, F32), cells, channels, span(spread, F32))
    products = np.matmul(spread, turned(kernels))
    call("winograd_out", span(products, F32), span(bias, F32), cells, channels, span(found, F32))
    library.plain_only(False)
    wide = np.pad(np.maximum(x, 0), ((1, 1), (1, 1), (0, 0))).astype(np.float64)
    wanted = sum(
        wide[a : a + cells, b : b + cells] @ kernels[:, :, a, b].T.astype(float) for a in range(3) for b in range(3)
    )
    assert np.abs(found - np.maximum(wanted + bias, 0)).max() < 1e-3


@pytest.mark.parametrize(("cells", "channels"), [(6, 32), (8, 31), (0, 32), (8, 8192)])
def test_sizes_that_do_not_fit_are_refused(cells: int, channels: int) -> None:
    room = np.empty(36 * 64 * 64, np.float32)
    with pytest.raises(InputError, match="out of range"):
        call("winograd_in", span(room, F32), cells, channels, span(room.copy(), F32))
    with pytest.raises(InputError, match="out of range"):
        call("winograd_out", span(room, F32), span(room.copy(), F32), cells, channels, span(room.copy(), F32))


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


def test_levels_come_out_as_the_networks_own_definition_has_them(file) -> None:
    torch = pytest.importorskip("torch", reason="extra `train` is not installed")
    from export.lapped.networks import Decoder as Definition

    constants, _ = constants_of(file)
    named = {n.removesuffix("_half").partition("decoder.")[2]: a for n, a in constants.items() if "decoder." in n}
    definition = Definition(4, 256, 6)
    definition.load_state_dict({name: torch.tensor(np.asarray(a, np.float32)) for name, a in named.items() if name})
    rng = np.random.default_rng(0)
    levels = np.round(rng.laplace(0, 1.5, (1, 256, 8, 8))).astype(np.float32)
    with torch.no_grad():
        wanted = definition(torch.tensor(levels), torch.full((1, 1, 1, 1), 2 / 3)).numpy()
    weights = weights_of(*constants_of(file))
    assert weights is not None
    (found,) = ResidualNetwork(weights).run(levels, np.full((1, 1, 1, 1), 2 / 3, np.float32))
    assert np.abs(found - wanted).max() < 2e-3


def test_another_network_is_left_to_the_runtime(file) -> None:
    constants, operators = constants_of(file)
    assert weights_of(constants, operators) is not None
    one_more = Counter(operators)
    one_more["Relu"] += 1
    assert weights_of(constants, one_more) is None
    fewer = {name: a for name, a in constants.items() if "trunk.3.mix.bias" not in name}
    assert weights_of(fewer, operators) is None
    other = constants | {"codec.decoder.out.bias": np.zeros(7, np.float32)}
    assert weights_of(other, operators) is None
    assert not isinstance(open_network(file, open_engine("onnxruntime")), ResidualNetwork)
