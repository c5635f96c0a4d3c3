"""The transform undone without a network: exact where nothing was quantised, in numpy, plain C and vector loops."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from payload.bundle import load_bundle
from payload.codec.interface import TABLES_FILE, Quality
from payload.codec.lapped import compiled, synthesis
from payload.codec.lapped.codec import FsqCodec
from payload.codec.lapped.power_law import expand, expanded
from payload.codec.lapped.quantiser import Indices, dequantise, inside_cells
from payload.codec.lapped.tables import load_kernels
from payload.codec.lapped.transform import COEFFICIENTS
from payload.engine import open_engine
from payload.errors import InputError
from payload.native import library
from payload.stopwatch import Stopwatch
from payload.tiles import split
from sim.scenes.demo import demo_scene

CELLS, BANDS = 8, 2
EVERY, AVERAGES = np.ones(COEFFICIENTS, bool), np.arange(COEFFICIENTS) == 0
needs_kernel = pytest.mark.skipif(not library.available, reason="the kernel was not built: no C compiler at install")


@pytest.fixture(scope="module")
def functions():
    kernels = load_kernels(load_bundle("edge").file(TABLES_FILE))
    return synthesis.dual_functions(kernels, synthesis.NARROW), synthesis.dual_functions(kernels, synthesis.WIDE)


def levels_of_a_band(rng: np.random.Generator, side: int) -> tuple[np.ndarray, np.ndarray]:
    """A band of white noise over a slope, bright at one edge, and its exact latents [64, h, w] in DN."""
    band = rng.integers(-900, 900, (side, side)) + np.linspace(0, 6000, side).astype(int)[None]
    kernels = load_kernels(load_bundle("edge").file(TABLES_FILE))
    functions = kernels.values * 2.0 ** -kernels.exponents.astype(float)[:, None, None]
    wide = np.pad(band, 4, mode="symmetric")
    blocks = np.lib.stride_tricks.sliding_window_view(wide, (16, 16))[::8, ::8]
    return band, np.einsum("ijyx,fyx->fij", blocks, functions).astype(np.float32)


def test_the_dual_functions_undo_the_transform_up_to_the_edges(functions) -> None:
    band, levels = levels_of_a_band(np.random.default_rng(0), 128)
    found = synthesis.synthesise(levels, *functions, EVERY)[0]
    assert np.abs(found - band).max() < 3.0 and np.sqrt(np.mean((found - band) ** 2)) < 1.0
    coarse = synthesis.synthesise(levels, *functions, AVERAGES)[0]
    assert np.sqrt(np.mean((coarse - band) ** 2)) < 12.0


def test_a_constant_band_comes_back_constant(functions) -> None:
    _, levels = levels_of_a_band(np.random.default_rng(1), 64)
    kernels = load_kernels(load_bundle("edge").file(TABLES_FILE))
    average = kernels.values[0].sum() * 2.0 ** -float(kernels.exponents[0])
    levels[:] = 0
    levels[0] = 1000 * average
    found = synthesis.synthesise(levels, *functions, AVERAGES)[0]
    assert np.abs(found - 1000).max() < 1.0


@st.composite
def some_indices(draw: st.DrawFn) -> Indices:
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    shape = (BANDS * COEFFICIENTS, CELLS, CELLS)
    magnitude = rng.integers(0, draw(st.sampled_from([2, 9, 300, 65536])), shape).astype(np.uint16)
    magnitude[rng.random(shape) > draw(st.sampled_from([0.0, 0.05, 1.0]))] = 0
    behind = rng.random(shape[0]) < 0.3 if draw(st.booleans()) else None
    return Indices(magnitude, rng.random(shape) < 0.5, draw(st.integers(0, 3)), behind)


@needs_kernel
@settings(max_examples=30, deadline=None)
@given(indices=some_indices(), step_dn=st.sampled_from([10.0, 100.0, 1000.0]))
def test_the_kernel_gives_the_dn_of_numpy_and_its_loops_agree_exactly(functions, indices, step_dn) -> None:
    averages = np.random.default_rng(0).normal(0, 40, (BANDS, CELLS, CELLS)).astype(np.float32)
    turn = np.array([[0.8, -0.6], [0.6, 0.8]], np.float32) * 3, np.array([900, 1400], np.float32)
    kernel = compiled.Synthesis(*functions, expanded(0.8), BANDS, 8 * CELLS)
    wide = synthesis.wide_functions(step_dn)
    found = {}
    for plain in (True, False):
        library.plain_only(plain)
        found[plain] = kernel.turned_back(kernel.rotated(indices, averages, wide), turn).astype(int)
    library.plain_only(False)
    levels = dequantise(indices)
    levels[::COEFFICIENTS] = averages
    assert np.array_equal(kernel.turned_back(kernel.of_levels(levels, wide), turn), found[True])
    rotated = synthesis.synthesise(levels, *functions, wide)
    values = turn[0] @ rotated.reshape(BANDS, -1) + turn[1][:, None]
    wanted = np.clip(np.rint(expand(np.minimum(values, 65535), 0.8)), 0, 65535).reshape(rotated.shape)
    assert np.array_equal(found[True], found[False])
    assert np.abs(found[True] - wanted).max() <= 1


def test_levels_stand_where_the_quantiser_rebuilds_them() -> None:
    behind = np.array([False, True])
    indices = Indices(np.array([[[3]], [[2]]], np.uint16), np.zeros((2, 1, 1), bool), 1, behind)
    assert inside_cells(indices).tolist() == pytest.approx([0.30, 0.68])
    assert dequantise(indices).ravel().tolist() == pytest.approx([3.30, 2.68])


@needs_kernel
def test_the_kernel_refuses_arrays_of_another_tile(functions) -> None:
    kernel = compiled.Synthesis(*functions, expanded(0.8), BANDS, 8 * CELLS)
    small = Indices(np.zeros((64, CELLS, CELLS), np.uint16), np.zeros((64, CELLS, CELLS), bool))
    averages = np.zeros((BANDS, CELLS, CELLS), np.float32)
    with pytest.raises(InputError, match="buffer is too small"):
        kernel.rotated(small, averages, AVERAGES)


def test_a_tile_decodes_alike_with_and_without_the_kernel_and_near_the_network() -> None:
    bundle = load_bundle("edge")
    codec, engine = FsqCodec(bundle, open_engine()), open_engine()
    (tile,) = split(demo_scene(256, 256, 0), 256)
    coded = codec.encode(tile, Quality(step_dn=150.0), Stopwatch())
    indices = codec.decode(coded.side, coded.layers)
    fast = codec.reconstruct(indices, None).astype(float)
    full = codec.reconstruct(indices, engine.load(bundle.file(codec.ground_network))).astype(float)
    codec.__dict__["_synthesis"] = None  # as where no kernel was built
    assert np.abs(codec.reconstruct(indices, None) - fast).max() <= 1
    loss_db = 10 * np.log10(np.mean((fast - tile.dn) ** 2) / np.mean((full - tile.dn) ** 2))
    assert loss_db < 0.4
