"""What people look for in hyperspectral cubes: anomalies (RX) and abundances, before a codec and behind it.

Both take a cube [B, h, w] whole: they are for benchmarks with labels, not for scenes.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls
from scipy.stats import rankdata

F64 = NDArray[np.float64]
#: Share of the mean variance that is added to every band's: a cube of few pixels has no full covariance.
LOADING = 1e-4
#: Weight of the row that says that abundances sum to one (Heinz and Chang, IEEE TGRS 39(3), 2001).
SUM_TO_ONE = 100.0


def rx(cube: NDArray[np.generic]) -> F64:
    """Anomaly score [h, w] of Reed and Yu (IEEE TASSP 38(10), 1990): the squared Mahalanobis distance of a spectrum
    from all spectra of the cube."""
    x = cube.reshape(len(cube), -1).astype(np.float64)
    x -= x.mean(axis=1, keepdims=True)
    covariance = x @ x.T / x.shape[1]
    covariance[np.diag_indices(len(x))] += LOADING * covariance.trace() / len(x)
    score: F64 = (x * np.linalg.solve(covariance, x)).sum(axis=0)
    return score.reshape(cube.shape[1:])


def auc(score: F64, label: NDArray[np.bool_]) -> float:
    """Area under the receiver operating characteristic: the chance that a labelled pixel scores above another, ties
    counted half (Mann and Whitney). NaN where all are labelled or none."""
    hits = int(label.sum())
    if not 0 < hits < label.size:
        return float("nan")
    ranks = rankdata(score.ravel())[label.ravel()]
    return float((ranks.sum() - hits * (hits + 1) / 2) / (hits * (label.size - hits)))


def endmembers(cube: NDArray[np.generic], abundances: F64) -> F64:
    """Spectra [B, K] that, mixed by labelled abundances [K, h, w], come nearest to the cube."""
    x, a = (part.reshape(len(part), -1).astype(np.float64) for part in (cube, abundances))
    found, *_ = np.linalg.lstsq(a.T, x.T, rcond=None)
    return np.asarray(found.T)


def unmixed(cube: NDArray[np.generic], spectra: F64) -> F64:
    """Abundances [K, h, w] of the spectra [B, K]: not negative, their sum near one (FCLS)."""
    scale = float(np.abs(spectra).max())
    x = cube.reshape(len(cube), -1).astype(np.float64) / scale
    system = np.vstack([spectra / scale, np.full(spectra.shape[1], SUM_TO_ONE)])
    wanted = np.vstack([x, np.full(x.shape[1], SUM_TO_ONE)])
    found = np.array([nnls(system, pixel)[0] for pixel in wanted.T]).T
    return found.reshape(-1, *cube.shape[1:])
