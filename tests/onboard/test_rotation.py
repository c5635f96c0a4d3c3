"""The spectral rotation against LAPACK's eigenvectors, exact integers, and 50 digits of sine and cosine."""

from decimal import Decimal, getcontext

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from payload.codec import rotation
from payload.codec.band_statistics import DIFFERENCE_LIMIT, DIFFERENCE_LINES, difference_products, statistics
from payload.codec.rotation import ANGLES, PLANE_LIMIT, SHIFT_LIMIT, Rotation, fit, rotate, unrotate

SIDE = 16
ALL = np.ones((SIDE, SIDE), bool)


def tile_of(seed: int, bands: int, ratio: float, scale: float = 400.0) -> np.ndarray:
    """Bands mixed from independent sources whose standard deviations fall by `ratio` from one to the next."""
    rng = np.random.default_rng(seed)
    mixing, _ = np.linalg.qr(rng.normal(size=(bands, bands)))
    sources = rng.normal(size=(bands, SIDE * SIDE)) * (scale * ratio ** -np.arange(bands))[:, None]
    return np.clip(np.rint(mixing @ sources + 3000), 0, 65535).astype(np.uint16).reshape(bands, SIDE, SIDE)


anything = st.builds(
    lambda seed, bands, low, high: (
        np.random.default_rng(seed)
        .integers(min(low, high), max(low, high), (bands, SIDE, SIDE), endpoint=True)
        .astype(np.uint16)
    ),
    st.integers(0, 2**32),
    st.integers(1, 6),
    st.sampled_from([0, 1, 4000, 65535]),
    st.sampled_from([0, 3, 10_000, 65535]),
)


def circle_to_50_digits() -> list[tuple[Decimal, Decimal]]:
    """cos and sin of 2 pi k / 4096: Machin's pi, a Taylor series for one step, then angle addition."""
    getcontext().prec = 60

    def arctan_of_inverse(n: int) -> Decimal:
        return sum((Decimal((-1) ** k) / ((2 * k + 1) * Decimal(n) ** (2 * k + 1)) for k in range(90)), Decimal(0))

    step = 2 * 4 * (4 * arctan_of_inverse(5) - arctan_of_inverse(239)) / ANGLES
    terms = [Decimal(1)]
    for k in range(1, 30):
        terms.append(terms[-1] * step / k)
    c, s = (sum((-1) ** (k // 2) * terms[k] for k in range(first, 30, 2)) for first in (0, 1))
    points = [(Decimal(1), Decimal(0))]
    for _ in range(ANGLES - 1):
        x, y = points[-1]
        points.append((x * c - y * s, x * s + y * c))
    return points


def test_the_table_of_angles_is_right_and_no_libm_can_round_it_differently() -> None:
    """A libm errs by a few units in the last place of a double, 2^-52: no entry is nearer than 2^-44 to a tie."""
    exact = [[Decimal(2**30) * v for v in axis] for axis in zip(*circle_to_50_digits(), strict=True)]
    table = rotation.circle()
    for found, wanted in zip(table, exact, strict=True):
        assert [int(v * 2**30) for v in found] == [int(v.to_integral_value()) for v in wanted]
        nearest_tie = min(abs(v - v.to_integral_value(rounding="ROUND_FLOOR") - Decimal("0.5")) for v in wanted)
        assert nearest_tie > Decimal(2) ** (30 - 44)


@pytest.mark.parametrize(
    ("angle", "matrix"),
    [
        (0, [[16384, 0], [0, 16384]]),
        (1024, [[0, 16384], [-16384, 0]]),  # a right angle: band 1 comes first, band 0 second with its sign turned
        (512, [[11585, 11585], [-11585, 11585]]),  # half of it: 16384 / sqrt 2 = 11585.24
        (2048, [[-16384, 0], [0, -16384]]),
    ],
)
def test_matrices_of_two_bands_by_hand(angle, matrix) -> None:
    assert Rotation((0, 0), (angle,), 0).matrix.tolist() == matrix


@settings(max_examples=50)
@given(st.lists(st.integers(0, ANGLES - 1), min_size=6, max_size=6))
def test_the_matrix_is_the_product_of_its_givens_rotations(angles) -> None:
    """In plain doubles; both round to a unit of 2^-14, so they may differ by one where the product lies near a tie."""
    product = np.eye(4)
    turns = [(p, q) for p in range(4) for q in range(p + 1, 4)]
    for (p, q), angle in zip(turns, angles, strict=True):
        givens = np.eye(4)
        c, s = np.cos(2 * np.pi * angle / ANGLES), np.sin(2 * np.pi * angle / ANGLES)
        givens[[p, p, q, q], [p, q, p, q]] = c, s, -s, c
        product = givens @ product
    assert np.abs(Rotation((0,) * 4, tuple(angles), 0).matrix - 2.0**14 * product).max() < 0.5 + 1e-4


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32), st.integers(2, 6), st.floats(2, 6))
def test_rows_are_lapacks_eigenvectors_strongest_first(seed, bands, ratio) -> None:
    """Angles of 2 pi / 4096 are off by half a step at most: 0.00077 rad each, at most a row's share of 15 of them."""
    dn = tile_of(seed, bands, ratio, scale=4000.0 / bands)
    found = fit(dn, ALL)
    _, vectors = np.linalg.eigh(np.cov(dn.reshape(bands, -1).astype(np.float64)))
    wanted = vectors[:, ::-1].T  # rows, strongest first
    rows = found.matrix / np.linalg.norm(found.matrix, axis=1, keepdims=True)
    assert (rows.sum(axis=1)[:-1] > -0.01 * bands).all()  # each with a positive sum; the last one's sign follows
    cosines = np.abs((rows * wanted).sum(axis=1))
    assert cosines.min() > np.cos(0.00077 * (bands * (bands - 1) / 2) ** 0.5 * 2)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32), st.integers(2, 6))
def test_rotated_bands_are_uncorrelated_and_their_variances_fall(seed, bands) -> None:
    dn = tile_of(seed, bands, 2.0, scale=4000.0 / bands)
    rotated = rotate(dn, ALL, fit(dn, ALL)).reshape(bands, -1).astype(np.float64)
    variances = rotated.var(axis=1)
    assert (np.diff(variances) <= 0).all()
    correlation = np.abs(np.corrcoef(rotated) - np.eye(bands))
    assert correlation.max() < 0.03 * bands  # 0.0008 rad x the ratio of the standard deviations, summed
    assert abs(rotated.mean(axis=1)).max() <= 1.5  # means are sent as whole DN, each rotated value is rounded


@settings(max_examples=40, deadline=None)
@given(anything, st.integers(1, 5), st.randoms())
def test_products_of_differences_are_those_of_a_loop_over_valid_pairs(dn, distance_px, random) -> None:
    valid = np.array([random.random() < 0.8 for _ in range(SIDE * SIDE)]).reshape(SIDE, SIDE)
    wanted = np.zeros((len(dn), len(dn)), object)
    for row in range(0, SIDE, DIFFERENCE_LINES):
        for col in range(SIDE):
            for down, right in ((0, distance_px), (distance_px, 0)):
                if row + down < SIDE and col + right < SIDE and valid[row, col] and valid[row + down, col + right]:
                    apart = [int(b[row + down, col + right]) - int(b[row, col]) for b in dn]
                    apart = [max(-DIFFERENCE_LIMIT, min(DIFFERENCE_LIMIT, d)) for d in apart]
                    wanted += np.outer(np.array(apart, object), np.array(apart, object))
    found = difference_products(dn, valid, distance_px)
    assert np.array_equal(np.zeros_like(wanted) if found is None else found, wanted)


def test_a_rotation_of_differences_parts_detail_that_one_of_values_mixes() -> None:
    """Band 0 and 1 share a ramp of great variance, and band 0 alone has detail. Values: both components get the detail.
    Differences: component 0 has nearly all of it."""
    rng = np.random.default_rng(3)
    ramp = np.linspace(0, 20_000, 64)[None, :] + np.zeros((64, 1))
    dn = np.stack([ramp + rng.normal(20_000, 300, (64, 64)), ramp]).astype(np.uint16)
    whole = np.ones((64, 64), bool)

    def detail(distance_px: int) -> np.ndarray:
        rows = fit(dn, whole, distance_px=distance_px).matrix / 2.0**14
        return np.abs(rows[:, 0])  # the share of band 0's detail in each component

    assert detail(0)[1] > 0.5
    assert detail(1)[0] > 0.95 and detail(1)[1] < 0.3


@settings(max_examples=60, deadline=None)
@given(anything)
def test_rotated_values_are_those_of_exact_integers(dn) -> None:
    """docs/format.md: y = (sum M (dn - mean) + 2^13) >> 14, then (y + 2^(shift - 1)) >> shift."""
    found = fit(dn, ALL)
    centred = dn.astype(np.int64) - np.array(found.means)[:, None, None]
    wanted = (np.einsum("kb,bij->kij", found.matrix, centred) + 2**13) >> 14
    if found.shift:
        wanted = (wanted + (1 << (found.shift - 1))) >> found.shift
    assert np.abs(wanted).max() <= PLANE_LIMIT  # so nothing is clipped
    assert 0 <= found.shift <= SHIFT_LIMIT
    assert np.array_equal(rotate(dn, ALL, found), wanted)


@settings(max_examples=60, deadline=None)
@given(anything)
def test_unrotate_is_the_inverse_but_for_rounding(dn) -> None:
    """Each rotated value is off by half a unit of 2^shift DN; orthonormal rows add them as sqrt(bands) at most.
    The matrix is orthonormal to 2^-14 and inverted as it is; single floats hold DN to 1/128."""
    found = fit(dn, ALL)
    back = unrotate(rotate(dn, ALL, found).astype(np.float32), found)
    allowed = (0.5 * 2**found.shift + 0.5 * (found.shift > 0)) * len(dn) ** 0.5 * 1.001 + 0.05
    assert np.abs(back - dn).max() <= allowed


def test_hot_pixels_over_darkness_still_fit_the_planes() -> None:
    dn = np.zeros((4, 64, 64), np.uint16)
    dn[:, 3, 5] = 65535  # all bands alike: one rotated band holds 2 x 65535 less the mean
    everywhere = np.ones((64, 64), bool)
    found = fit(dn, everywhere)
    rotated = rotate(dn, everywhere, found)
    assert found.shift == 3 and 65535 * 2 / 2**3 * 0.99 < rotated.max() < PLANE_LIMIT
    assert np.abs(unrotate(rotated.astype(np.float32), found) - dn).max() < 2 * 2**3


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32))
def test_pixels_without_data_decide_nothing_and_become_zero(seed) -> None:
    rng = np.random.default_rng(seed)
    dn, valid = tile_of(seed, 4, 2.0), rng.random((SIDE, SIDE)) < 0.6
    valid[0, 0] = True
    other = np.where(valid, dn, rng.integers(0, 65536, dn.shape)).astype(np.uint16)
    assert fit(dn, valid) == fit(other, valid)
    first, second = rotate(dn, valid, fit(dn, valid)), rotate(other, valid, fit(other, valid))
    assert np.array_equal(first, second)
    assert not first[:, ~valid].any() and first[:, valid].any()


@pytest.mark.parametrize("valid_px", [1, SIDE * SIDE])
def test_nothing_to_adapt_to_gives_the_identity(valid_px) -> None:
    dn = np.broadcast_to(np.array([100, 200, 300, 65535], np.uint16)[:, None, None], (4, SIDE, SIDE))
    valid = np.zeros((SIDE, SIDE), bool)
    valid.ravel()[:valid_px] = True
    found = fit(dn, valid)
    assert found == Rotation((100, 200, 300, 65535), (0,) * 6, 0)
    assert not rotate(dn, valid, found).any()


def test_means_are_rounded_half_up() -> None:
    dn = np.zeros((1, 2, 2), np.uint16)
    for pixels, mean in (([0, 0, 0, 1], 0), ([0, 0, 1, 1], 1), ([65535] * 4, 65535), ([65534, 65535] * 2, 65535)):
        dn[0] = np.reshape(pixels, (2, 2))
        assert fit(dn, np.ones((2, 2), bool)).means == (mean,)


def test_the_order_of_pixels_does_not_matter() -> None:
    dn = tile_of(9, 4, 1.7)
    shuffled = dn.reshape(4, -1)[:, np.random.default_rng(1).permutation(SIDE * SIDE)].reshape(dn.shape)
    assert fit(dn, ALL) == fit(np.ascontiguousarray(shuffled), ALL)


@given(st.integers(0, 2**32 - 1))
def test_the_reach_is_a_bound_and_no_wild_one(seed: int) -> None:
    """Each rotated value is a sum of four, of which no weight is above 1."""
    dn = tile_of(seed, 4, 2.0)
    found = fit(dn, np.ones(dn.shape[1:], bool))
    known = statistics(dn, np.ones(dn.shape[1:], bool))
    far = [max(b - m, m - a) for a, b, m in zip(known.least, known.most, found.means, strict=True)]
    angles, bound = rotation.turned(known.covariance(), far)
    assert angles == found.angles
    assert np.abs(rotate(dn, np.ones(dn.shape[1:], bool), found)).max() - 1 <= bound <= 4 * 65_535
