"""Planes, transform and second level against convolutions and DCTs of exact integers written out here."""

from decimal import Decimal, getcontext
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from payload.bundle import load_bundle
from payload.codec.lapped import transform
from payload.codec.lapped.transform import BLOCK, encode, first_level, planes, second_level
from payload.codec.rotation import PLANE_LIMIT
from payload.engine import open_engine

SIDE = 64


class IntegerConvolution:
    """A 2 x 2 convolution of 7-bit weights in units of 2^-8, in int64."""

    def __init__(self, seed: int) -> None:
        self.weights = np.random.default_rng(seed).integers(-63, 64, (64, 64, 2, 2))

    def run(self, *inputs: np.ndarray) -> list[np.ndarray]:
        x = inputs[0].astype(np.int64)
        n = x.shape[2] - 1
        found = sum(
            np.einsum("kc,bcyx->bkyx", self.weights[:, :, i, j], x[:, :, i : i + n, j : j + n])
            for i in range(2)
            for j in range(2)
        )
        return [(found / 256).astype(np.float32)]

    @property
    def kernels(self) -> np.ndarray:
        """The same as 64 functions of 16 x 16 pixels."""
        blocks = self.weights.reshape(64, 8, 8, 2, 2)  # k, row and column in a block, block row, block column
        return blocks.transpose(0, 3, 1, 4, 2).reshape(64, 16, 16)


def integer_dct(averages: np.ndarray) -> np.ndarray:
    """The second level as docs/format.md has it: 12 fractional bits each way, rounded half up, in int64."""
    k, m = np.arange(8)[:, None], np.arange(8)[None]
    basis = np.rint(4096 * np.where(k, 0.5, 8**-0.5) * np.cos(np.pi * (2 * m + 1) * k / 16)).astype(np.int64)
    bands, h, w = averages.shape
    blocks = averages.astype(np.int64).reshape(bands, h // 8, 8, w // 8, 8)
    both = np.einsum("ur,vc,byrxc->byuxv", basis, basis, blocks).reshape(bands, h, w)
    return (both + (1 << 23)) >> 24


def direct(rotated: np.ndarray, kernels: np.ndarray) -> np.ndarray:
    """Latents by the definition: every 16 x 16 window of the mirrored tile times every function."""
    wide = np.pad(rotated.astype(np.int64), ((0, 0), (4, 4), (4, 4)), mode="symmetric")
    windows = np.lib.stride_tricks.sliding_window_view(wide, (16, 16), axis=(1, 2))[:, ::8, ::8]
    latents = np.einsum("krc,byxrc->bkyx", kernels.astype(np.int64), windows, optimize=True)
    latents[:, 0] = integer_dct(latents[:, 0])
    return latents


def tile_of(seed: int, bands: int, limit: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(-limit, limit, (bands, SIDE, SIDE), endpoint=True).astype(np.int32)


tiles = st.builds(
    tile_of, st.integers(0, 2**32), st.integers(1, 4), st.sampled_from([0, 1, 127, 128, 3000, PLANE_LIMIT])
)


@settings(max_examples=25, deadline=None)
@given(tiles)
def test_two_planes_of_int8_hold_every_value(rotated) -> None:
    bands = len(rotated)
    found = planes(rotated)
    assert found.shape == (2 * bands, 64, SIDE // 8 + 1, SIDE // 8 + 1) and found.dtype == np.float32
    assert found.min() >= -128 and found.max() <= 127 and np.array_equal(found, np.rint(found))
    values = 256 * found[:bands] + found[bands:]
    cells = SIDE // 8 + 1
    image = values.reshape(bands, 8, 8, cells, cells).transpose(0, 3, 1, 4, 2).reshape(bands, SIDE + 8, SIDE + 8)
    assert np.array_equal(image, np.pad(rotated, ((0, 0), (4, 4), (4, 4)), mode="symmetric"))


def test_every_value_that_the_rotation_can_give_splits_into_two_octets() -> None:
    every = np.arange(-PLANE_LIMIT, PLANE_LIMIT + 1)
    padded = np.resize(every, (16, SIDE, SIDE)).astype(np.int32)  # 65 536 places for 65 279 values, the first again
    found = planes(padded)
    assert np.array_equal(np.unique(256 * found[:16] + found[16:]), every)
    assert np.array_equal(np.unique(found), np.arange(-128, 128))


@settings(max_examples=8, deadline=None)
@given(tiles, st.integers(0, 2**32))
def test_latents_are_those_of_a_direct_convolution_in_integers(rotated, seed) -> None:
    network = IntegerConvolution(seed)
    assert np.array_equal(encode(rotated, network).values, direct(rotated, network.kernels))


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32), st.integers(0, 27))
def test_the_second_level_is_exact_up_to_the_largest_averages(seed, bits) -> None:
    averages = np.random.default_rng(seed).integers(-(2**bits), 2**bits, (2, 16, 8), endpoint=True).astype(np.int32)
    assert np.array_equal(second_level(averages), integer_dct(averages))


def test_the_second_level_stays_exact_where_doubles_would_not() -> None:
    """A coefficient of about 2^55 whose low 24 bits are one short of a half: a double would round it up to the half."""
    wave = np.rint(2048 * np.cos(np.pi * (2 * np.arange(8) + 1) / 16)).astype(np.int64)  # row 1 of the basis
    averages = 2**28 * np.sign(np.outer(wave, wave))
    odd = int(wave[0] * wave[1])
    short = (2**23 - 1 - int(wave @ averages @ wave)) * pow(odd, -1, 2**24) % 2**24
    averages[0, 1] += short  # times `odd`, modulo 2^24, it is what is missing
    coefficient = int(wave @ averages @ wave)
    assert coefficient % 2**24 == 2**23 - 1 and coefficient > 2**54
    assert int(float(coefficient)) != coefficient
    assert second_level(averages[None].astype(np.int32))[0, 1, 1] == coefficient >> 24


def test_first_level_undoes_the_second_within_its_rounding() -> None:
    """The transform is rounded to integers, which costs half a unit each; 64 of them add up to 4 at most, the basis of
    12 bits is orthonormal to 2 parts in 10 000."""
    averages = np.random.default_rng(4).integers(-100_000, 100_000, (3, 8, 16)).astype(np.int32)
    assert np.abs(first_level(second_level(averages).astype(np.float32)) - averages).max() < 4 + 1e5 * 64 * 2e-4


def test_no_libm_can_round_the_basis_of_the_second_level_differently() -> None:
    """cos(pi j / 16) by half-angle formulas to 40 digits: no entry of the basis is nearer than 1e-3 to a tie."""
    getcontext().prec = 45
    cosine = {0: Decimal(1), 8: Decimal(0), 4: Decimal(2).sqrt() / 2}
    for j in (2, 6, 1, 3, 5, 7):  # cos x = sqrt((1 + cos 2x) / 2)
        double = cosine[2 * j] if 2 * j <= 8 else -cosine[16 - 2 * j]
        cosine[j] = ((1 + double) / 2).sqrt()
    for k in range(8):
        for m in range(8):
            angle = (2 * m + 1) * k % 32
            folded = min(angle, 32 - angle)
            value = cosine[folded] if folded <= 8 else -cosine[16 - folded]
            exact = 4096 * value * (Decimal("0.5") if k else 1 / Decimal(8).sqrt())
            assert abs(exact - exact.to_integral_value()) < Decimal("0.499")
            assert transform.dct()[k, m] == int(exact.to_integral_value())


@settings(max_examples=10, deadline=None)
@given(st.integers(-PLANE_LIMIT // 2, PLANE_LIMIT // 2), st.integers(1, 2))
def test_latents_are_linear_but_for_the_rounding_of_the_averages(offset, factor) -> None:
    network = IntegerConvolution(7)
    rotated = tile_of(offset % 1000, 2, 4000)
    once, scaled = encode(rotated, network).values, encode(factor * rotated, network).values
    assert np.array_equal(scaled[:, 1:], factor * once[:, 1:])
    assert np.abs(scaled[:, 0] - factor * once[:, 0]).max() <= factor


def test_the_shipped_network_runs_in_integers_and_gives_multiples_of_its_unit() -> None:
    bundle = load_bundle()
    network = open_engine("openvino").load(Path(bundle.file("flight/encoder.onnx")), require_int8=True)
    cells = bundle.tile_px // BLOCK + 1
    rng = np.random.default_rng(2)
    given_planes = rng.integers(-128, 128, (2 * len(bundle.bands), 64, cells, cells)).astype(np.float32)
    (found,) = network.run(given_planes)
    assert np.array_equal(found * 256, np.rint(found * 256))
    assert np.abs(found).max() > 100
