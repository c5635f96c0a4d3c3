"""The published convention: standardised bands at peak 1, index octets alone, JPEG 2000 held at CR 20."""

import numpy as np
import pytest

from payload.errors import InputError
from sim.compare import corsa
from sim.compare.corsa import Row, Sent, as_json, as_text, at_cr20, standardised
from sim.metrics.similarity import ssim


def some_dn(side: int = 128, seed: int = 0) -> np.ndarray:
    """A smooth ramp with texture, DN 500 to about 2 500."""
    rng = np.random.default_rng(seed)
    ramp = np.linspace(500, 2000, side)
    return (ramp[None, :, None] + ramp[None, None, :] / 4 + rng.normal(0, 60, (4, side, side))).astype(np.uint16)


def test_standardised_original_has_mean_zero_and_deviation_one():
    dn = some_dn()
    a, b = standardised(dn, dn)
    assert np.allclose(a.mean(axis=(1, 2)), 0, atol=1e-9) and np.allclose(a.std(axis=(1, 2)), 1)
    assert np.array_equal(a, b)


def test_an_error_of_one_deviation_is_zero_decibels():
    """Shifting every band by its own standard deviation is an error of 1 at peak 1."""
    dn = np.stack([np.tile([1000, 1000 + 2 * d], (8, 4)) for d in (10, 50, 100, 400)]).astype(np.uint16)
    shifted = dn + np.array([10, 50, 100, 400], np.uint16)[:, None, None]
    a, b = standardised(dn, shifted)
    assert np.allclose(b - a, 1.0)
    figures = corsa._figures(np.tile(dn, (1, 2, 2)), Sent(100, 200, np.tile(shifted, (1, 2, 2))))
    assert figures[:3] == pytest.approx((2 * 4 * 256 / 100, 2 * 4 * 256 / 200, 0.0))


def test_a_flat_band_does_not_divide_by_zero():
    dn = np.full((4, 16, 16), 700, np.uint16)
    a, b = standardised(dn, dn + 3)
    assert not a.any() and np.all(b == 3)


def test_jpeg_2000_fills_cr_20_and_never_exceeds_it():
    dn = some_dn(256)
    sent = at_cr20(dn)
    assert 0.97 * 2 * dn.size / 20 < sent.octets <= 2 * dn.size / 20
    assert ssim(dn, sent.dn, np.ones(dn.shape[1:], bool)) > 0.5


def test_a_tile_too_small_for_cr_20_is_refused_with_the_reason():
    with pytest.raises(InputError, match="CR 20 is 102"):
        at_cr20(some_dn(16))


def test_table_marks_what_is_published_and_what_is_not_known():
    rows = [Row("bundle x", "measured, 2 tiles", 21.67, 21.4, 12.0, 0.7, 37.0, 0.93), *corsa.PUBLISHED]
    lines = as_text(rows).splitlines()
    assert lines[1].split() == [
        "bundle",
        "x",
        "measured,",
        "2",
        "tiles",
        "21.67",
        "21.40",
        "12.00",
        "0.700",
        "37.00",
        "0.930",
    ]
    assert all("published" in line and line.split()[-1] == "-" for line in lines[2:6])
    assert as_json(rows)[1]["psnr_10k_db"] is None


def test_published_ratios_are_those_of_the_codebook_sizes():
    for row, bits in zip(corsa.PUBLISHED[:3], (8, 9, 10), strict=True):
        assert row.cr_indices == round(64 / (bits * (1 / 4 + 1 / 16 + 1 / 64)), 1)
