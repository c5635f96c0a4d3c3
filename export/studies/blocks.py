"""Lapped transforms of blocks n x n as 2-D functions, and what undoes them: the studies compare several.

rotated bands [N, B, T, T] -> coefficients [N, B, n n, T / n, T / n] -> rotated bands

Functions are 2n x 2n on a grid of n; a tile's edges are mirrored. The dual functions, cut to 4n x 4n, undo them
whatever they are, as payload/codec/lapped/synthesis.py has it for blocks of 8.
"""

import math

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

#: The inverse is computed on a torus of so many blocks a side.
TORUS = 16


class Blocks:
    """A transform by its functions [n n, 2n, 2n]; those that undo it, [n n, 4n, 4n], follow."""

    def __init__(self, functions: Tensor) -> None:
        self.functions, self.size = functions, math.isqrt(len(functions))
        self.duals = dual_functions(functions)

    def coefficients(self, rotated: Tensor) -> Tensor:
        n, b, t, _ = rotated.shape
        wide = _mirrored(rotated.reshape(n * b, 1, t, t), self.size // 2)
        found = functional.conv2d(wide, self.functions[:, None], stride=self.size)
        return found.reshape(n, b, *found.shape[1:])

    def rotated(self, coefficients: Tensor) -> Tensor:
        n, b, _, h, w = coefficients.shape
        flat = coefficients.reshape(n * b, -1, h, w)
        wide = functional.conv_transpose2d(flat, self.duals[:, None], stride=self.size)
        margin = 3 * self.size // 2
        return _folded(_folded(wide, margin, 2), margin, 3).reshape(n, b, h * self.size, w * self.size)


def dual_functions(functions: Tensor) -> Tensor:
    """The inverse's functions [n n, 4n, 4n]; a gradient passes through."""
    count, n = len(functions), math.isqrt(len(functions))
    blocks = functions.double().reshape(count, 2, n, 2, n).permute(1, 3, 0, 2, 4).reshape(2, 2, count, count)
    turn = torch.from_numpy(np.exp(2j * np.pi * np.outer(np.arange(TORUS), np.arange(2)) / TORUS))
    forward = torch.einsum("ua,vb,abfp->uvfp", turn, turn, blocks.to(turn.dtype))
    # One by one: a batch is shared out to threads, and once in a while that failed beside other work ("pivots").
    inverse = torch.stack([torch.linalg.inv(matrix) for matrix in forward.flatten(0, 1)]).view_as(forward)
    found = torch.fft.ifft2(inverse, dim=(0, 1)).real  # [u, v, pixels, functions]
    places = torch.arange(-1, 3) % TORUS
    near = found[places][:, places].reshape(4, 4, n, n, count)
    return near.permute(4, 0, 2, 1, 3).reshape(count, 4 * n, 4 * n).to(functions.dtype)


def _mirrored(pictures: Tensor, margin: int) -> Tensor:
    side = pictures.shape[-1]
    line = torch.arange(side)
    index = torch.cat([line[:margin].flip(0), line, line[-margin:].flip(0)])
    return pictures[..., index, :][..., index]


def _folded(wide: Tensor, margin: int, axis: int) -> Tensor:
    """What lies beyond an edge belongs to the pixels that it mirrors."""
    size = wide.shape[axis] - 2 * margin
    found = wide.narrow(axis, margin, size).clone()
    found.narrow(axis, 0, margin).add_(wide.narrow(axis, 0, margin).flip(axis))
    found.narrow(axis, size - margin, margin).add_(wide.narrow(axis, margin + size, margin).flip(axis))
    return found
