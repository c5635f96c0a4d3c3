"""The mask that users read: haze near suspected cloud, by hand on a tile of even ground."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from payload.clouds.mask import CLEAR, NO_CLASS, SHADOW, THICK, THIN, CloudMask
from payload.native import library
from sim.clouds.outline import (
    HALF_HIDDEN_DN,
    HAZE_DN,
    classes_as_drawn,
    ground_classes,
    haze_over_ground,
    is_cloud,
    within,
)

SIZE, GROUND = 128, (600, 700, 800, 2000)


def dn_of(haze_dn: np.ndarray) -> np.ndarray:
    """Even ground under haze of the same DN in every band: blue - red / 2 rises by half of it."""
    return (np.array(GROUND)[:, None, None] + 2 * haze_dn).astype(np.uint16)


def mask_of(haze_dn: np.ndarray, thick: np.ndarray, shadow: np.ndarray | None = None) -> CloudMask:
    """`thick`, `shadow`: probabilities per pixel, constant over cells of 2 x 2."""
    cells = np.zeros((4, SIZE // 2, SIZE // 2), np.float32)
    cells[THICK] = thick[::2, ::2]
    cells[SHADOW] = 0.0 if shadow is None else shadow[::2, ::2]
    cells[CLEAR] = 1.0 - cells[THICK] - cells[SHADOW]
    return CloudMask(cells[:, None, None], np.ones((SIZE, SIZE), bool), dn=dn_of(haze_dn))


def columns(first: int, last: int, value: float) -> np.ndarray:
    found = np.zeros((SIZE, SIZE))
    found[:, first:last] = value
    return found


def test_haze_next_to_suspected_cloud_is_cloud_and_haze_far_away_is_none() -> None:
    haze = columns(0, 30, 400) + columns(110, 128, 400)
    told = classes_as_drawn(mask_of(haze, columns(0, 10, 0.6)), 10.0, 0.0)
    assert is_cloud(told)[:, :30].all()  # 300 m beyond column 9 would be column 39
    assert not is_cloud(told)[:, 30:].any()


def test_haze_ends_where_its_reach_ends() -> None:
    told = classes_as_drawn(mask_of(columns(0, 80, 400), columns(0, 10, 0.6)), 10.0, 0.0)
    assert is_cloud(told).any(axis=0).tolist() == [True] * 40 + [False] * 88


@pytest.mark.parametrize(("over_dn", "found"), [(HAZE_DN, False), (HAZE_DN + 1, True)])
def test_haze_must_exceed_the_ground(over_dn: int, found: bool) -> None:
    told = classes_as_drawn(mask_of(columns(0, 20, over_dn), columns(0, 20, 0.6)), 10.0, 0.0)
    assert bool(is_cloud(told)[:, 4:16].all()) is bool(is_cloud(told).any()) is found


def test_what_the_network_is_sure_of_needs_no_haze() -> None:
    told = classes_as_drawn(mask_of(columns(0, 0, 0), columns(0, 20, 0.9)), 10.0, 0.0)
    assert is_cloud(told)[:, :19].all()
    assert not is_cloud(told)[:, 21:].any()


def test_thin_cloud_is_the_one_through_which_more_ground_than_cloud_is_seen() -> None:
    haze = columns(0, 10, HALF_HIDDEN_DN) + columns(10, 20, HALF_HIDDEN_DN - 1)
    row = classes_as_drawn(mask_of(haze, columns(0, 20, 0.9)), 10.0, 0.0)[64]
    assert row[:20].tolist() == [THICK] * 10 + [THIN] * 10


def test_cloud_grows_by_metres_of_the_scene() -> None:
    mask = mask_of(columns(0, 20, 400), columns(0, 20, 0.9))
    edges = [int(is_cloud(classes_as_drawn(mask, gsd_m, 40.0))[64].sum()) for gsd_m in (10.0, 20.0, 0.0)]
    assert edges == [24, 22, 20]


def test_shadow_is_believed_near_cloud_only() -> None:
    shadow = columns(40, 60, 0.01) + columns(100, 120, 0.01)
    mask = mask_of(columns(0, 10, 400), columns(0, 10, 0.9), shadow)
    told = classes_as_drawn(mask, 30.0, 0.0)[64]  # 2 000 m are 67 pixels
    assert (told[40:60] == SHADOW).all()
    assert (told[60:] == CLEAR).all()


@pytest.mark.parametrize(("share", "found"), [(0.15, CLEAR), (0.25, SHADOW)])
def test_the_ground_s_own_network_is_believed_a_shadow_less_likely_than_clear(share: float, found: int) -> None:
    told = np.zeros((4, SIZE, SIZE), np.float32)
    told[THICK] = columns(0, 10, 1.0)
    told[SHADOW] = columns(40, 60, share)
    told[CLEAR] = 1.0 - told[THICK] - told[SHADOW]
    classes = ground_classes(told, dn_of(columns(0, 10, 2000)), np.ones((SIZE, SIZE), bool), 10.0)
    assert (classes[:, 40:60] == found).all()
    assert is_cloud(classes[:, :10]).all()


def test_without_ground_to_compare_the_network_alone_is_heard() -> None:
    told = classes_as_drawn(mask_of(columns(0, 0, 0), np.full((SIZE, SIZE), 0.5)), 10.0, 40.0)
    assert is_cloud(told).all()
    assert haze_over_ground(dn_of(columns(0, 0, 0)), columns(0, 6, 1).astype(bool)) is None


def test_haze_is_held_against_the_ground_s_median_and_its_scatter() -> None:
    haze = np.tile([0, 0, 0, 40], (SIZE, SIZE // 4))  # twice the transform: the median stays, half deviate by 0
    scattered = np.tile([0, 40], (SIZE, SIZE // 2))  # lower median 0 of twice the transform, lower deviation 0
    even, wild = (haze_over_ground(dn_of(h), np.ones((SIZE, SIZE), bool)) for h in (haze, scattered))
    assert even is not None and wild is not None
    assert even.min() == wild.min() == -2 * HAZE_DN
    thirds = np.tile([0, 40, 80, 120], (SIZE, SIZE // 4))  # twice: 0 80 160 240, median 80, deviations 0 80 80 160
    third = haze_over_ground(dn_of(thirds), np.ones((SIZE, SIZE), bool))
    assert third is not None
    assert third.max() == 240 - 80 - 3 * 80 // 2 - 2 * HAZE_DN


def test_a_tile_without_cloud_or_without_data_has_none() -> None:
    clear = mask_of(columns(0, 64, 400), columns(0, 0, 0.0))
    assert (classes_as_drawn(clear, 10.0, 40.0) == CLEAR).all()
    empty = CloudMask(clear.parts, np.zeros((SIZE, SIZE), bool), dn=clear.dn)
    assert (classes_as_drawn(empty, 10.0, 40.0) == NO_CLASS).all()


def test_within_is_a_disc() -> None:
    pixels = np.zeros((9, 9), bool)
    pixels[4, 4] = True
    rows, cols = np.mgrid[:9, :9] - 4
    np.testing.assert_array_equal(within(pixels, 30.0, 10.0), rows**2 + cols**2 <= 9)
    np.testing.assert_array_equal(within(pixels, 9.0, 10.0), pixels)


@pytest.mark.skipif(not library.available, reason="the kernel was not built: no C compiler at install")
@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 99), share=st.floats(0, 0.2), radius=st.sampled_from([1.0, 1.5, 2.9, 5, 30.3, 500]))
def test_the_kernel_finds_the_very_pixels_that_distances_find(seed: int, share: float, radius: float) -> None:
    height, width = np.random.default_rng(seed).integers(1, 40, 2)
    pixels = np.random.default_rng(seed).random((height, width)) < share
    fast = within(pixels, 10 * radius, 10.0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(library, "available", False)
        np.testing.assert_array_equal(fast, within(pixels, 10 * radius, 10.0))
