"""Frame-error rates of LDPC codes over Eb/N0, modelled: no code is run here.

Two things keep a code from the channel's capacity: its decoder, which an endless code shows as a threshold, and its
length, which the normal approximation gives for the best code there is (Polyanskiy, Poor and Verdu 2010, eq. 296):
P = Q((C - R + log2(n) / 2n) / sqrt(V / n)). Here the approximation is moved by the threshold's distance from capacity,
and by an allowance for short codes. Sources are in sim/link/data/rate_steps.toml.
"""

import math
from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

F64 = NDArray[np.float64]
#: Eb/N0 at which capacity and dispersion are looked up, in dB.
GRID_DB = np.arange(-4.0, 12.0, 0.01)


def frame_error_rate(eb_n0_db: F64, k: int, n: int, threshold_db: float, allowance_db: float) -> F64:
    """Chance that a codeword of n bits, k of them information, is not decoded; same shape as `eb_n0_db`.

    `allowance_db`: how much more this code's decoder asks for than the approximation says.
    """
    rate = k / n
    worse_db = threshold_db - limit_db(rate) + allowance_db
    capacity, dispersion = _channel(eb_n0_db - worse_db + 10 * math.log10(rate))
    return np.asarray(ndtr(-(capacity - rate + math.log2(n) / (2 * n)) / np.sqrt(dispersion / n)))


def limit_db(rate: float) -> float:
    """Eb/N0 at which the capacity of BPSK is `rate`: no code does with less."""
    capacity, _ = _channel(GRID_DB + 10 * math.log10(rate))
    return float(np.interp(rate, capacity, GRID_DB))


def _channel(es_n0_db: F64) -> tuple[F64, F64]:
    """Capacity and dispersion of BPSK in white noise, in bit and square bit a symbol."""
    at, weights = _gauss_hermite()
    deviation = np.sqrt(0.5 * 10 ** (-es_n0_db / 10))[..., None]
    log_ratio = 2 / deviation**2 * (1 + deviation * at)
    bits = 1 - np.logaddexp(0, -log_ratio) / math.log(2)
    capacity = (weights * bits).sum(axis=-1)
    return capacity, (weights * (bits - capacity[..., None]) ** 2).sum(axis=-1)


@cache
def _gauss_hermite() -> tuple[F64, F64]:
    at, weights = np.polynomial.hermite_e.hermegauss(200)
    return at, weights / math.sqrt(2 * math.pi)
