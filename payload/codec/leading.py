"""The leading principal components of many bands: orthogonal iteration in integers, the same on every machine.

A whole Karhunen-Loeve transform of 200 bands costs 30 000 octets of side information for each tile; its first dozen
components hold nearly everything that bands share. Matrix products are of whole numbers below 2^53, exact in any order
of summation; inner products are rounded once (math.fsum); everything else is element by element.
"""

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

F64 = NDArray[np.float64]
#: Bits of a covariance and of a vector's element: 512 products of both stay below 2^53.
COVARIANCE_BITS, VECTOR_BITS = 24, 19
ITERATIONS = 8


def leading(covariance: F64, count: int, solve: Callable[[F64, F64], None]) -> tuple[F64, F64]:
    """The `count` strongest eigenvectors [count, B] of a covariance [B, B], strongest first, and their eigenvalues.

    `solve` turns a small symmetric matrix diagonal (payload/codec/rotation.py)."""
    scale = 2.0**COVARIANCE_BITS / max(float(covariance.diagonal().max()), 1.0)
    whole = np.rint(covariance * scale)
    rows = _orthonormal(_start(len(whole), count))
    for _ in range(ITERATIONS):
        rows = _orthonormal(_product(rows, whole))
    pushed = _product(rows, whole)
    small = np.array([[_dot(pushed[i], rows[j]) for j in range(count)] for i in range(count)])
    small = (small + small.T) / 2
    turned = np.eye(count)
    solve(small, turned)
    order = sorted(range(count), key=lambda k: (-small[k, k], k))
    values = np.array([small[k, k] for k in order]) / scale
    return _orthonormal(np.stack([_mixed(turned[k], rows) for k in order])), values


def _start(bands: int, count: int) -> F64:
    """Cosines over the bands: what leading components of spectra look like. Rounded, so that no libm matters."""
    k, b = np.arange(count)[:, None], np.arange(bands)[None]
    return np.rint(np.cos(np.pi * k * (2 * b + 1) / (2 * bands)) * 2.0**10) * 2.0**-10


def _product(rows: F64, whole: F64) -> F64:
    return (np.rint(rows * 2.0**VECTOR_BITS) @ whole) * 2.0**-VECTOR_BITS


def _orthonormal(rows: F64) -> F64:
    """Gram-Schmidt, each row against those before it. A row that they already hold becomes the next free band."""
    found: list[F64] = []
    spare = iter(range(rows.shape[1]))
    for row in rows:
        left = _less(row, found)
        while _dot(left, left) < 1e-12 * max(_dot(row, row), 1e-300):
            row = np.zeros_like(row)
            row[next(spare)] = 1.0
            left = _less(row, found)
        left = _less(left, found)  # once more: rounding left a little of them
        found.append(left / math.sqrt(_dot(left, left)))
    return np.stack(found)


def _less(row: F64, others: list[F64]) -> F64:
    for other in others:
        row = row - _dot(row, other) * other
    return row


def _mixed(weights: F64, rows: F64) -> F64:
    total = np.zeros(rows.shape[1])
    for weight, row in zip(weights, rows, strict=True):
        total = total + weight * row
    return total


def _dot(a: F64, b: F64) -> float:
    return math.fsum((a * b).tolist())
