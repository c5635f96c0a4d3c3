"""The power law: a table that no machine can round differently, and its inverse."""

from decimal import Decimal, getcontext

import numpy as np
import pytest

from payload.bundle import load_bundle
from payload.codec.lapped.power_law import REFERENCE_DN, compand, expand, stretch, table


def test_no_libm_can_round_the_shipped_table_differently() -> None:
    """Against 30 digits: every entry is right, and none is nearer to a tie than doubles err, by a factor of 100."""
    getcontext().prec = 30
    gamma = load_bundle().codec["compand"]
    exponent, scale = Decimal(str(gamma)), Decimal(1500) / Decimal(str(gamma))
    found = table(gamma)
    nearest = 1.0
    for dn in range(1, 65536, 7):
        exact = scale * ((Decimal(dn) / 1500).ln() * exponent).exp()
        assert found[dn] == int(exact.to_integral_value())
        nearest = min(nearest, float(abs(exact % 1 - Decimal("0.5"))))
    doubles = REFERENCE_DN / gamma * (np.arange(65536) / REFERENCE_DN) ** gamma
    assert np.abs(doubles % 1 - 0.5).min() > 1e-6  # a double of 4e4 is good to 1e-11
    assert nearest > 1e-6


def test_its_slope_is_one_at_the_reference_and_it_rises() -> None:
    found = table(0.8).astype(int)
    assert found[0] == 0 and (np.diff(found) >= 0).all()
    assert found[1520] - found[1480] == 40
    assert (
        found[200] - found[100] > 150 and found[10_100] - found[10_000] < 70
    )  # finer in the dark, coarser in the light


@pytest.mark.parametrize("gamma", [1.0, 0.8, 0.5])
def test_expanding_undoes_it_to_half_a_step(gamma) -> None:
    dn = np.arange(65536, dtype=np.uint16).reshape(1, 256, 256)
    back = expand(compand(dn, gamma).astype(np.float32), gamma)
    step = np.maximum(1.0, (np.maximum(dn, 1) / REFERENCE_DN) ** (1 - gamma))  # DN a companded step is
    assert (np.abs(back - dn) <= 0.5 * step * 1.01 + 0.01).all()


def test_expanding_noise_below_zero_gives_zero() -> None:
    assert expand(np.array([-3.0, 0.0], np.float32), 0.8).tolist() == [0.0, 0.0]


def test_stretch_is_what_an_error_grows_by() -> None:
    """Small errors of companded values, expanded again, on ground between dark and bright."""
    rng = np.random.default_rng(3)
    dn = rng.integers(300, 9000, (4, 128, 128)).astype(np.uint16)
    values = compand(dn, 0.8)
    noise = rng.normal(0, 3, values.shape)
    error = expand(values + noise, 0.8).astype(np.float64) - expand(values.astype(np.float32), 0.8)
    assert stretch(values, 0.8) == pytest.approx((error**2).mean() / (noise**2).mean(), rel=0.02)
    assert stretch(dn, 1.0) == 1.0
