"""Anomalies and abundances against closed forms and another library."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from sim.metrics.spectra import auc, endmembers, rx, unmixed


def test_an_anomaly_scores_its_squared_distance_in_standard_deviations() -> None:
    """Independent bands of deviation 10 and 20: a pixel off by 50 and 60 lies 5^2 + 3^2 away."""
    rng = np.random.default_rng(1)
    cube = rng.normal(0, 1, (2, 200, 200)) * np.array([10.0, 20.0])[:, None, None]
    cube[:, 100, 100] = 50, 60
    assert rx(cube)[100, 100] == pytest.approx(34, rel=0.03)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=2, max_size=60))
def test_the_area_is_scikit_learns_with_ties(pairs) -> None:
    score, label = (np.array(column) for column in zip(*pairs, strict=True))
    if label.all() or not label.any():
        assert np.isnan(auc(score.astype(float), label))
    else:
        assert auc(score.astype(float), label) == pytest.approx(roc_auc_score(label, score))


def test_abundances_that_made_a_cube_are_found_again() -> None:
    rng = np.random.default_rng(2)
    spectra = rng.uniform(500, 5000, (30, 3))
    shares = rng.dirichlet(np.ones(3), (12, 12)).transpose(2, 0, 1)
    cube = np.einsum("bk,kyx->byx", spectra, shares)
    assert np.allclose(endmembers(cube, shares), spectra, rtol=1e-6)
    found = unmixed(cube, spectra)
    assert np.abs(found - shares).max() < 1e-3 and found.min() >= 0
    outside = cube + 3 * (spectra[:, :1] - spectra[:, 1:2])[:, :, None]  # no mixture of the three
    assert unmixed(outside, spectra).min() == 0
