"""Tile edges evened out: worked out by hand for flats and ramps, and what must never change."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sim.ground import mosaic
from sim.ground.mosaic import even_out

T = 16
FADE_PX, STRENGTH, LIMIT_STEPS = 6, 0.5, 0.5


@pytest.fixture(scope="module", autouse=True)
def round_numbers():
    """What is worked out by hand must not depend on how the constants were tuned last."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (("FADE_PX", 6), ("STRENGTH", 0.5), ("LIMIT_STEPS", 0.5), ("SMOOTH_PX", 9)):
            assert hasattr(mosaic, name)
            patch.setattr(mosaic, name, value)
        yield


def strip(*levels: float) -> np.ndarray:
    """Flat tiles side by side. [2, T, n T] uint16"""
    return np.repeat(np.array(levels, np.uint16), T)[None, None].repeat(2, axis=0).repeat(T, axis=1)


def test_a_jump_between_flats_by_hand() -> None:
    """Jump 24, strength a half: 6 to either side, times 11/12, 9/12, 7/12, 5/12, 3/12, 1/12 away from the edge."""
    dn = strip(1000, 1024)
    even_out(dn, [100.0, 100.0])
    rises = [6 * share / 12 for share in (1, 3, 5, 7, 9, 11)]  # 0.5 1.5 2.5 3.5 4.5 5.5, halves to even
    left = [1000] * (T - 6) + [1000 + round(r) for r in rises]
    right = [1024 - round(r) for r in reversed(rises)] + [1024] * (T - 6)
    assert (dn == np.array(left + right)).all()


def test_a_jump_no_quantiser_can_have_caused_is_the_scene() -> None:
    """Limit: half a step of 40 = 20, so at most 5 to either side, whatever the jump."""
    dn = strip(1000, 3000)
    even_out(dn, [16.0, 40.0])
    assert dn[0, 0, T - 1] == 1000 + round(5 * 11 / 12) and dn[0, 0, T] == 3000 - round(5 * 11 / 12)


@pytest.mark.parametrize("steps", [[0.0, 100.0], [100.0, 0.0], [0.0, 0.0]])
def test_edges_to_tiles_that_are_not_there_are_left_alone(steps) -> None:
    dn = strip(1000, 1024)
    even_out(dn, steps, strip(1010, 1010), [0.0, 0.0])
    assert np.array_equal(dn, strip(1000, 1024))


def test_a_slope_across_the_edge_is_no_jump() -> None:
    ramp = np.broadcast_to((1000 + 7 * np.arange(2 * T)).astype(np.uint16), (2, T, 2 * T)).copy()
    dn = ramp.copy()
    even_out(dn, [500.0, 500.0])
    assert np.array_equal(dn, ramp)


def test_an_edge_along_one_line_of_pixels_is_smoothed_along_the_edge() -> None:
    """One row differs: its jump is spread over nine rows, a ninth each, so it hardly moves anything."""
    dn = strip(1000, 1000)
    dn[:, 8, T:] += 36
    even_out(dn, [200.0, 200.0])
    assert np.ptp(dn[0, :, T - 1]) == 1  # 36 / 9 / 4 x 11 / 12 = 0.92 DN in rows 4 to 12
    assert dn[0, 4:13, T - 1].tolist() == [1001] * 9 and dn[0, 13, T - 1] == 1000


pictures = st.builds(
    lambda seed, spread: (
        np.random.default_rng(seed).integers(0, spread, (2, T, 2 * T), endpoint=True).astype(np.uint16)
    ),
    st.integers(0, 2**32),
    st.sampled_from([0, 50, 3000, 65535]),
)
steps = st.tuples(st.floats(1, 500), st.floats(1, 500))


@settings(max_examples=40, deadline=None)
@given(pictures, steps)
def test_only_a_few_pixels_change_and_by_no_more_than_the_limit(dn, steps) -> None:
    before = dn.copy()
    even_out(dn, steps)
    change = np.abs(dn.astype(np.int64) - before)
    assert not change[:, :, : T - FADE_PX].any() and not change[:, :, T + FADE_PX :].any()
    assert change.max() <= 0.5 * STRENGTH * LIMIT_STEPS * max(steps) + 0.5


@settings(max_examples=40, deadline=None)
@given(pictures, steps)
def test_up_and_down_is_like_left_and_right(dn, steps) -> None:
    upper, lower = (np.ascontiguousarray(half.transpose(0, 2, 1)) for half in (dn[:, :, :T], dn[:, :, T:]))
    even_out(dn, steps)
    even_out(lower, steps[1:], upper, steps[:1])
    assert np.array_equal(np.concatenate([upper, lower], axis=1), dn.transpose(0, 2, 1))


@settings(max_examples=40, deadline=None)
@given(pictures, steps)
def test_a_mirrored_picture_gives_the_mirrored_result(dn, steps) -> None:
    mirrored = np.ascontiguousarray(dn[:, :, ::-1])
    even_out(dn, steps)
    even_out(mirrored, steps[::-1])
    assert np.array_equal(mirrored[:, :, ::-1], dn)


def test_errors_that_jump_at_the_edge_become_smaller() -> None:
    """Smooth ground, each tile off by a constant of up to half a step: what the step of rotated averages leaves."""
    rng = np.random.default_rng(6)
    ground = 2000 + 300 * np.sin(np.arange(8 * T) / 20)[None, None] * np.ones((2, T, 1))
    offsets = rng.uniform(-20, 20, 8)
    dn = np.rint(ground + np.repeat(offsets, T)).astype(np.uint16)
    before = ((dn - ground) ** 2).mean()
    even_out(dn, [80.0] * 8)
    assert ((dn - ground) ** 2).mean() < 0.95 * before


def test_values_stay_within_16_bits() -> None:
    dn = strip(65535, 65000)
    even_out(dn, [5000.0, 5000.0])
    assert dn.max() == 65535 and dn[0, 0, T] > 65000
    dn = strip(0, 300)
    even_out(dn, [5000.0, 5000.0])
    assert dn[0, 0, 0] == 0 and dn[0, 0, T - 1] == round(75 * 11 / 12)
