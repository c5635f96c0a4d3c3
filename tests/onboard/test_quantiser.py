"""Nested quantisation against exact fractions, its steps against 40 digits, its errors against the decoder's levels."""

from decimal import Decimal, getcontext
from fractions import Fraction
from math import floor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from payload.codec.lapped.quantiser import (
    STEP_INDICES,
    Indices,
    dequantise,
    errors,
    quantise,
    step_dn,
    step_index,
    step_units,
    worth_in_last,
)
from payload.codec.lapped.transform import Latents


def latents_of(seed: int, spread: float) -> Latents:
    values = np.random.default_rng(seed).laplace(0, spread, (1, 64, 8, 8))
    return Latents(np.clip(np.rint(values), -(2**29), 2**29).astype(np.int32))


latents = st.builds(latents_of, st.integers(0, 2**32), st.sampled_from([1.0, 3e3, 1e5, 2e8]))


@settings(max_examples=25, deadline=None)
@given(latents, st.integers(0, STEP_INDICES - 1))
def test_magnitudes_are_floor_of_the_ratio_plus_a_fifth(sent, index) -> None:
    found = quantise(sent, index)
    step = step_units(index)
    sizes = np.unique(np.abs(sent.values))[-200:].tolist() + np.unique(np.abs(sent.values))[:200].tolist()
    wanted = {size: min(65535, floor(Fraction(size, step) + Fraction(1, 5))) for size in sizes}
    flat, magnitude = np.abs(sent.values).ravel(), found.magnitude.ravel()
    for size, expected in wanted.items():
        assert (magnitude[flat == size] == expected).all()
    assert np.array_equal(found.negative, sent.values.reshape(64, 8, 8) < 0)


@pytest.mark.parametrize("index", range(0, STEP_INDICES, 7))
def test_every_level_begins_at_its_first_integer(index) -> None:
    """Level k holds from the least whole number that is not below (k - 1/5) steps."""
    step, levels = step_units(index), np.arange(1, 33)
    first = -(-(5 * levels - 1) * step // 5)
    values = np.zeros((1, 64, 8, 8), np.int32)
    values[0, 0].ravel()[:64] = np.concatenate([first, first - 1])
    found = quantise(Latents(values), index).magnitude[0].ravel()
    assert found.tolist() == [*levels, *(levels - 1)]


def test_bounds_of_the_dead_zone_by_hand() -> None:
    # step index 0 is 256 units: 0.8 x 256 = 204.8, so 204 is still nothing and 205 is 1; 1.8 x 256 = 460.8
    values = np.zeros((1, 64, 8, 8), np.int32)
    values[0, 0, 0, :6] = [204, 205, -205, 460, 461, -204]
    found = quantise(Latents(values), 0)
    assert found.magnitude[0, 0, :6].tolist() == [0, 1, 1, 1, 2, 0]
    assert found.negative[0, 0, :6].tolist() == [False, False, True, False, False, True]


def test_the_largest_magnitude_is_kept_within_16_bits() -> None:
    values = np.full((1, 64, 8, 8), 2**29, np.int32)
    assert (quantise(Latents(values), 0).magnitude == 65535).all()  # 2^29 / 256 would be 2^21
    assert (quantise(Latents(-values), 40).magnitude == 65535).all()  # 2^29 / 2^13 = 2^16: one too many


def test_no_libm_can_round_a_step_differently() -> None:
    """2^(i / 8) by square roots of 2 to 40 digits: no step is nearer than 1e-4 to a tie."""
    getcontext().prec = 45
    eighth = Decimal(2).sqrt().sqrt().sqrt()
    for index in range(STEP_INDICES):
        exact = 256 * eighth**index
        assert step_units(index) == int(exact.to_integral_value())
        assert abs(exact % 1 - Decimal("0.5")) > Decimal("1e-4")


@pytest.mark.parametrize(
    ("wanted_dn", "index"), [(0.01, 0), (1.0, 0), (2.0, 8), (120.0, 55), (8192.0, 104), (1e9, 127)]
)
def test_the_nearest_step_is_chosen(wanted_dn, index) -> None:
    assert step_index(wanted_dn) == index
    if 0 < index < STEP_INDICES - 1:
        assert 2 ** (-1 / 16) <= step_dn(index) / wanted_dn <= 2 ** (1 / 16) * 1.001


@settings(max_examples=25, deadline=None)
@given(latents, st.integers(0, 100), st.integers(0, 5))
def test_what_is_rebuilt_is_off_by_less_than_a_step(sent, index, missing) -> None:
    """Inside its cell: nothing where the level is 0 means at most 2 steps of dead zone less 1/5 of the finest one."""
    full = quantise(sent, index)
    if full.magnitude.max() == 65535:
        return
    known = Indices((full.magnitude >> missing).astype(np.uint16), full.negative, missing)
    step = step_units(index) * 2.0**missing
    gap = np.abs(dequantise(known).astype(np.float64) - sent.values.reshape(64, 8, 8) / step)
    assert gap[known.magnitude > 0].max(initial=0) < 0.9
    assert gap[known.magnitude == 0].max(initial=0) < 1.0


@settings(max_examples=25, deadline=None)
@given(latents, st.integers(0, 100), st.integers(1, 6))
def test_the_error_estimate_is_that_of_the_levels_the_ground_uses(sent, index, layers) -> None:
    """To a sixteenth of a rotated value in every difference, and to a 64th of a cell in where it is rebuilt."""
    full = quantise(sent, index)
    estimate = [error / 256 for error in errors(sent, index, layers)]
    assert len(estimate) == layers + 1
    truth = sent.values.reshape(64, 8, 8).astype(np.float64) / 256

    def close(found: float, wanted: np.ndarray, slack: float) -> None:
        assert abs(found**0.5 - (wanted**2).sum() ** 0.5) <= slack * wanted.size**0.5

    close(estimate[0], truth, 1 / 16)
    for count in range(1, layers + 1):
        missing = layers - count
        known = Indices((full.magnitude >> missing).astype(np.uint16), full.negative, missing)
        step = step_dn(index) * 2**missing
        rebuilt = dequantise(known).astype(np.float64) * step
        close(estimate[count], truth - rebuilt, 1 / 16 + step / 128 + 1e-6 * np.abs(truth).max())


def test_channels_behind_the_cut_of_the_last_layer_are_rebuilt_as_the_layer_before_had_them() -> None:
    magnitude = np.array([6, 6], np.uint16).reshape(2, 1, 1)
    known = Indices(magnitude, np.zeros((2, 1, 1), bool), 0, np.array([False, True]))
    # 6 of this layer is rebuilt at 6.22; as 3 of the layer before, whose steps are twice as wide, at 2 x 3.30
    assert dequantise(known).ravel() == pytest.approx([6.22, 6.60])
    before = Indices(magnitude >> 1, np.zeros((2, 1, 1), bool), 1)
    assert 2 * dequantise(before).ravel()[1] == pytest.approx(6.60)


def test_sizes_tell_how_far_above_its_cell_a_one_is() -> None:
    values = np.zeros((1, 64, 8, 8), np.int32)
    values[0, 0, 0, :4] = [256, -384, 2, 100_000]  # step index 0 is 256 units
    assert quantise(Latents(values), 0).size128[0, 0, :4].tolist() == [128, 192, 1, 255]
    assert quantise(Latents(values), 0, 1).size128[0, 0, :4].tolist() == [64, 96, 0, 255]


def test_what_a_one_must_measure_in_a_coarser_last_layer_by_hand() -> None:
    """A one of the finest layer is rebuilt at 78 / 64 steps, of the next one at 83 / 64; what lies above half of its
    square is what its bits are worth."""
    worth = np.array([78, 100, 255], np.uint8)
    assert worth_in_last(worth, 0).tolist() == worth.tolist()
    assert worth_in_last(worth, 1).tolist() == [83, 83 + 22 * 78 // 83, 83 + 177 * 78 // 83]
