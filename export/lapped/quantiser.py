"""The nested quantiser in torch, the twin of payload/codec/lapped/quantiser.py, and the level of each cell."""

import torch
from torch import Tensor

from payload.codec.lapped.quantiser import REBUILD

#: Magnitudes are floor(|y| / step + ROUND_UP): a dead zone of 1.6 steps at the finest layer, growing towards 2.
ROUND_UP = 0.2


def magnitudes(coefficients: Tensor, step: Tensor) -> Tensor:
    return torch.floor(coefficients.abs() / step + ROUND_UP)


def levels(coefficients: Tensor, magnitude: Tensor, missing: Tensor) -> Tensor:
    """Reconstruction levels in steps of the coarsest layer kept: 2^missing finest steps."""
    kept = torch.floor(magnitude / 2**missing)
    bias = torch.tensor(REBUILD)[missing.long()]
    return torch.sign(coefficients) * torch.where(kept > 0, kept + bias, 0.0)
