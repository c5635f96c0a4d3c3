"""The shipped transform in both runtimes against a convolution of 64-bit integers, weights read from its own file."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from payload.bundle import load_bundle, shipped_bundles
from payload.codec.lapped.many.sets import sets_in
from payload.codec.lapped.transform import DCT_BITS, LATENT_BITS, encode, planes
from payload.codec.rotation import PLANE_LIMIT
from payload.engine import ENGINES, open_engine

FSQ = [name for name in shipped_bundles() if load_bundle(name).codec["kind"] == "fsq"]


def integer_weights(path: Path) -> np.ndarray:
    """The only convolution's weights [64, 64, 2, 2] as integers in units of 2^-8."""
    graph = onnx.load(str(path)).graph
    arrays = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
    arrays |= {n.output[0]: numpy_helper.to_array(n.attribute[0].t) for n in graph.node if n.op_type == "Constant"}
    (conv,) = (n for n in graph.node if n.op_type == "Conv")
    (dequantise,) = (n for n in graph.node if n.output[0] == conv.input[1])
    weights, scale = (arrays[name] for name in dequantise.input[:2])
    assert weights.dtype == np.int8 and np.abs(weights.astype(int)).max() <= 63  # 7 bits
    units = np.broadcast_to(
        np.asarray(scale, np.float64).reshape(-1, 1, 1, 1) * 2**LATENT_BITS, (len(weights), 1, 1, 1)
    )
    assert np.array_equal(units, np.rint(units))
    return weights.astype(np.int64) * units.astype(np.int64)


def direct(rotated: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Latents of the mirrored tile, window by window. Averages go through the 8 x 8 DCT of 12 fractional bits."""
    kernels = weights.reshape(64, 8, 8, 2, 2).transpose(0, 3, 1, 4, 2).reshape(64, 16, 16)
    wide = np.pad(rotated.astype(np.int64), ((0, 0), (4, 4), (4, 4)), mode="symmetric")
    latents = np.zeros((len(rotated), 64, rotated.shape[1] // 8, rotated.shape[2] // 8), np.int64)
    h, w = latents.shape[2:]
    for r in range(16):
        for c in range(16):
            pixels = wide[:, r : r + 8 * h : 8, c : c + 8 * w : 8]
            latents += kernels[:, r, c][None, :, None, None] * pixels[:, None]
    k, m = np.arange(8)[:, None], np.arange(8)[None]
    basis = np.rint(2**DCT_BITS * np.where(k, 0.5, 8**-0.5) * np.cos(np.pi * (2 * m + 1) * k / 16)).astype(np.int64)
    blocks = latents[:, 0].reshape(-1, h // 8, 8, w // 8, 8)
    both = np.einsum("ur,vc,byrxc->byuxv", basis, basis, blocks)
    latents[:, 0] = (both.reshape(-1, h, w) + (1 << (2 * DCT_BITS - 1))) >> 2 * DCT_BITS
    return latents


def tiles(bands: int, side: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(11)
    hardest = np.where(rng.random((bands, side, side)) < 0.5, -PLANE_LIMIT, PLANE_LIMIT)
    return {
        "noise": rng.integers(-4000, 4000, (bands, side, side)),
        "full range": rng.integers(-PLANE_LIMIT, PLANE_LIMIT, (bands, side, side), endpoint=True),
        "extremes": hardest,
        "flat at the limit": np.full((bands, side, side), PLANE_LIMIT),
    }


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", FSQ)
def test_latents_equal_integers_whatever_the_tile(name, engine) -> None:
    bundle = load_bundle(name)
    path = bundle.file("flight/encoder.onnx")
    network, weights = open_engine(engine).load(path), integer_weights(path)
    for what, rotated in tiles(sets_in(bundle)[1], bundle.tile_px).items():
        found = encode(rotated.astype(np.int32), network).values
        assert np.array_equal(found, direct(rotated, weights)), what


@pytest.mark.parametrize("name", FSQ)
def test_no_sum_can_leave_what_holds_it(name) -> None:
    """From the weights themselves: f32 holds the network's sums, int32 the latents, int64 the second level, and uint32
    five times a latent, as the quantiser needs."""
    weights = integer_weights(load_bundle(name).file("flight/encoder.onnx"))
    reach = np.abs(weights).sum(axis=(1, 2, 3))  # of each latent, in units of 2^-8 per DN
    assert 128 * reach.max() < 2**24
    assert PLANE_LIMIT * reach.max() < 2**31
    row = np.abs(np.rint(2**DCT_BITS * np.sqrt(1 / 8))) * 8  # the largest sum of a row of the basis: the average's
    assert PLANE_LIMIT * reach[0] * row**2 < 2**63
    assert 5 * max(PLANE_LIMIT * reach.max(), PLANE_LIMIT * reach[0] * 8) + 2**28 < 2**32


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", FSQ)
def test_the_planes_add_up_inside_the_network_too(name, engine) -> None:
    """The high and the low plane alone, each through the network, add up to the whole: the transform is linear."""
    bundle = load_bundle(name)
    network = open_engine(engine).load(bundle.file("flight/encoder.onnx"))
    bands = sets_in(bundle)[1]
    rotated = tiles(bands, bundle.tile_px)["noise"].astype(np.int32)
    both = planes(rotated)
    (together,) = network.run(both)
    for half in (slice(0, bands), slice(bands, None)):
        alone = np.zeros_like(both)
        alone[half] = both[half]
        (found,) = network.run(alone)
        assert np.array_equal(found[half], together[half])
