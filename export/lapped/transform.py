"""The lapped block transform the encoder starts from, designed on real covariances.

A time-domain lapped transform (Tran, Liang & Tu, "Lapped transform via time-domain pre- and post-filtering", IEEE TSP
51(6), 2003): an 8-point DCT behind a pre-filter V across block boundaries. V is found by gradient descent on the coding
gain over the training tiles; every analysis function is scaled so that its synthesis function has unit norm, which
makes one quantiser step right for all coefficients. Symmetric extension at a tile's edge equals leaving the filter out
there, so perfect reconstruction holds without overlap between tiles.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from payload.codec.lapped.transform import BLOCK

SPAN = 2 * BLOCK  # an analysis function covers a block and half a block on each side
WEIGHT_LIMIT = 63  # 7-bit weights, symmetric

Matrix = NDArray[np.float64]


def dct_matrix(n: int) -> Matrix:
    """Orthonormal DCT-II, rows are basis functions. [n, n]"""
    k, m = np.arange(n)[:, None], np.arange(n)[None]
    basis = np.cos(np.pi * (2 * m + 1) * k / (2 * n)) * np.sqrt(2 / n)
    basis[0] /= np.sqrt(2)
    return basis


def lapped_pair(prefilter: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Analysis [n, 2n] and synthesis [2n, n] of the lapped transform of blocks of n with pre-filter V [n / 2, n / 2],
    before scaling."""
    half = len(prefilter)
    one = torch.eye(half, dtype=torch.double)
    zero = torch.zeros(half, half, dtype=torch.double)
    flip = torch.flip(one, [0])
    butterfly = torch.cat([torch.cat([one, flip], 1), torch.cat([flip, -one], 1)], 0) / np.sqrt(2)

    def across(v: torch.Tensor) -> torch.Tensor:
        return butterfly @ torch.cat([torch.cat([one, zero], 1), torch.cat([zero, v], 1)], 0) @ butterfly

    forward, inverse = across(prefilter), across(torch.linalg.inv(prefilter))
    wide = torch.zeros(half, 2 * half, dtype=torch.double)
    dct = torch.tensor(dct_matrix(2 * half))
    analysis = dct @ torch.cat([torch.cat([forward[half:], wide], 1), torch.cat([wide, forward[:half]], 1)], 0)
    tall = wide.T
    synthesis = torch.cat([torch.cat([inverse[:, half:], tall], 1), torch.cat([tall, inverse[:, :half]], 1)], 0) @ dct.T
    return analysis, synthesis


def coding_gain_db(prefilter: torch.Tensor, covariance: torch.Tensor) -> torch.Tensor:
    """Biorthogonal coding gain over samples with Toeplitz covariance [2n, 2n] (Katto & Yasuda 1991), in dB."""
    analysis, synthesis = lapped_pair(prefilter)
    variance = ((analysis @ covariance) * analysis).sum(1)
    norm = (synthesis**2).sum(0)
    return 10 * torch.log10(covariance[0, 0] / torch.exp((torch.log(variance) + torch.log(norm)).mean()))


def design_prefilter(covariance: Matrix, steps: int = 1500) -> tuple[Matrix, float]:
    """V [n / 2, n / 2] of the greatest coding gain for a covariance [2n, 2n], and that gain in dB."""
    target = torch.tensor(covariance)
    prefilter = torch.eye(len(covariance) // 4, dtype=torch.double, requires_grad=True)
    optimiser = torch.optim.Adam([prefilter], lr=0.01)
    for _ in range(steps):
        optimiser.zero_grad()
        loss = -coding_gain_db(prefilter, target)
        loss.backward()
        optimiser.step()
    return prefilter.detach().numpy(), -float(loss.detach())


def covariance_of(rotated: Sequence[NDArray[Any]], span: int = SPAN) -> Matrix:
    """Toeplitz covariance [span, span] of rows and columns of rotated bands, each band at unit variance."""
    total = np.zeros((span, span))
    for bands in rotated:
        for band in bands:
            unit = band / (band.std() + 1.0)
            for plane in (unit, unit.T):
                windows = np.lib.stride_tricks.sliding_window_view(plane, span, axis=1)[:, ::4].reshape(-1, span)
                total += windows.T @ windows / len(windows)
    lags = np.array([np.diagonal(total, k).mean() for k in range(span)])
    index = np.abs(np.arange(span)[:, None] - np.arange(span)[None])
    return lags[index] / lags[0]


def separable_weights(prefilter: Matrix) -> tuple[Matrix, Matrix]:
    """Analysis and synthesis functions [64, 16, 16] of the 2-D transform; synthesis functions have unit norm."""
    a, s = (m.numpy() for m in lapped_pair(torch.tensor(prefilter)))
    norm = np.sqrt((s**2).sum(0))
    a, s = a * norm[:, None], (s / norm).T
    return (np.einsum("ua,vb->uvab", f, f).reshape(-1, SPAN, SPAN) for f in (a, s))  # type: ignore[return-value]


def designed(rotated: list[NDArray[np.int32]]) -> dict[str, torch.Tensor]:
    """The transform of the greatest coding gain over some rotated squares [B, S, S]: analysis kernels (7-bit integers
    and exponents) and ideal synthesis functions."""
    prefilter, gain_db = design_prefilter(covariance_of(rotated))
    analysis, synthesis = separable_weights(prefilter)
    integers, exponents = quantise_weights(analysis)
    return {
        "integers": torch.tensor(to_blocks(integers)),
        "exponents": torch.tensor(exponents),
        "synthesis": torch.tensor(to_blocks(synthesis), dtype=torch.float32),
        "gain_db": torch.tensor(gain_db),
    }


def to_blocks(functions: NDArray[Any]) -> NDArray[Any]:
    """[64, 16, 16] functions -> convolution kernels [64, 64, 2, 2] over space-to-depth blocks."""
    return functions.reshape(-1, 2, BLOCK, 2, BLOCK).transpose(0, 2, 4, 1, 3).reshape(-1, BLOCK * BLOCK, 2, 2)


def from_blocks(kernels: NDArray[Any]) -> NDArray[Any]:
    """Inverse of `to_blocks`: [64, 64, 2, 2] -> [64, 16, 16]."""
    return kernels.reshape(-1, BLOCK, BLOCK, 2, 2).transpose(0, 3, 1, 4, 2).reshape(-1, SPAN, SPAN)


def quantise_weights(functions: Matrix) -> tuple[NDArray[np.int8], NDArray[np.int64]]:
    """7-bit weights [64, 16, 16] and their exponents: function c is integer[c] x 2^-exponent[c].

    Every function keeps its symmetry, even or odd along each axis, which lets the flight kernel fold blocks before it
    multiplies. And every function but the first must stay blind to a constant: rounding is mended so that its integers
    sum to zero. Without that, the brightness of a cloud leaks through 0.4 % rounding errors into all 63 coefficients of
    its block. An odd function sums to zero by itself; of one even along both axes, four places change at a time.
    """
    peak = np.abs(functions).max(axis=(1, 2))
    exponents = np.floor(np.log2((WEIGHT_LIMIT + 0.49) / peak)).astype(np.int64)
    scaled = functions * 2.0 ** exponents[:, None, None]
    integers = np.round(scaled)
    for c in range(1, len(integers)):
        surplus = int(integers[c].sum()) // 4
        if surplus:
            quarter = (slice(None, BLOCK), slice(None, BLOCK))
            error = (integers[c] - scaled[c])[quarter].ravel() * np.sign(surplus)
            rows, columns = np.divmod(np.argsort(-error, kind="stable")[: abs(surplus)], BLOCK)
            for i, j in ((rows, columns), (-1 - rows, columns), (rows, -1 - columns), (-1 - rows, -1 - columns)):
                integers[c, i, j] -= np.sign(surplus)
    return integers.astype(np.int8), exponents
