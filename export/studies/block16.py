"""Do blocks of 16, or the better of 8 and 16 on each tile, pay over blocks of 8?

A lapped transform of 16 x 16 blocks, designed as the flown one is (pre-filter across block edges, coding gain by
gradient descent on training squares), its 1-D functions rounded to 7 bits on grids of powers of two: rows, then
columns, 32 products a sample and plane each, about .6 kMAC/px for four bands in INT8 planes.

A block of 16 x 16 is told to the coder of today as four blocks of 8 x 8: coefficient (2k + p, 2l + q) is function
(k, l) of block (p, q) of the four. Its neighbours in place, in frequency and across bands then are coefficients as
large as it is. The four lowest become four averages (two butterflies), which go through the second level as always.
"""

import numpy as np
import torch
from torch import Tensor

from export.lapped.transform import WEIGHT_LIMIT, Matrix, covariance_of, design_prefilter, lapped_pair
from export.studies.blocks import Blocks

LARGE, HALF = 16, 8


def designed(rotated: Tensor) -> Blocks:
    """Of squares [N, B, T, T]."""
    prefilter, _ = design_prefilter(covariance_of(list(rotated.numpy()), 2 * LARGE))
    analysis, synthesis = (m.numpy() for m in lapped_pair(torch.tensor(prefilter)))
    rows = _rounded(analysis * np.sqrt((synthesis**2).sum(0))[:, None])
    functions = np.einsum("ua,vb->uvab", rows, rows).reshape(LARGE**2, 2 * LARGE, 2 * LARGE)
    return Blocks(torch.from_numpy(functions).float())


def _rounded(rows: Matrix) -> Matrix:
    """1-D functions [16, 32] on 7-bit grids; all but the first blind to a constant: what even ones lack is taken from
    the two places that rounding moved furthest that way."""
    unit = 2.0 ** -np.floor(np.log2((WEIGHT_LIMIT + 0.49) / np.abs(rows).max(1, keepdims=True)))
    whole = np.rint(rows / unit)
    for k in range(2, LARGE, 2):
        surplus = int(whole[k].sum()) // 2
        error = (whole[k] - rows[k] / unit[k])[:LARGE] * np.sign(surplus)
        worst = np.argsort(-error, kind="stable")[: abs(surplus)]
        whole[k, worst] -= np.sign(surplus)
        whole[k, 2 * LARGE - 1 - worst] -= np.sign(surplus)
    return np.asarray(whole * unit)


def as_blocks_of_8(found: Tensor) -> Tensor:
    """[N, B, 256, h, w] -> [N, B, 64, 2h, 2w]."""
    n, b, _, h, w = found.shape
    split = found.reshape(n, b, HALF, 2, HALF, 2, h, w).permute(0, 1, 2, 4, 6, 3, 7, 5)  # [N, B, k, l, h, p, w, q]
    blocks = split.reshape(n, b, HALF**2, 2 * h, 2 * w)
    return torch.cat([_butterflies(blocks[:, :, :1]), blocks[:, :, 1:]], 2)


def as_blocks_of_16(found: Tensor) -> Tensor:
    """Inverse of `as_blocks_of_8`."""
    n, b, _, h, w = found.shape
    blocks = torch.cat([_butterflies(found[:, :, :1]), found[:, :, 1:]], 2)
    split = blocks.reshape(n, b, HALF, HALF, h // 2, 2, w // 2, 2).permute(0, 1, 2, 5, 3, 7, 4, 6)
    return split.reshape(n, b, LARGE**2, h // 2, w // 2)


def _butterflies(lowest: Tensor) -> Tensor:
    """The mean and the slopes of each four blocks [N, B, 1, 2h, 2w] as their averages; its own inverse."""
    for axis in (3, 4):
        pairs = lowest.unflatten(axis, (-1, 2))
        first, second = pairs.select(axis + 1, 0), pairs.select(axis + 1, 1)
        lowest = torch.stack([first + second, first - second], axis + 1).flatten(axis, axis + 1) / np.sqrt(2)
    return lowest


def merged(found: Tensor) -> Tensor:
    """Coefficients of blocks of 8 [N, B, 64, h, w], those of each four blocks put together by butterflies in place of
    a transform of 16: nothing but additions. Its own inverse; averages stay."""
    return torch.cat([found[:, :, :1], *(_butterflies(found[:, :, k : k + 1]) for k in range(1, HALF**2))], 2)
