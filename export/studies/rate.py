"""What coefficients cost and what their quantisation does, so that a gradient reaches whoever makes them.

The rate is the context model's own: nats of every significance decision of every layer that is sent, as the trained
model judges them from quantised neighbours, signs at a bit, refinement bits and sizes at what they were seen to cost.
A decision jumps where a coefficient passes its threshold. Forward the jump stays; backward it is a ramp as wide as the
layer's step, the mean slope over coefficients spread evenly around the threshold (straight through).
"""

import math

import torch
from torch import Tensor
from torch.nn import functional

from export.lapped.context_model import ContextModel, LayerContext, activity
from export.lapped.quantiser import ROUND_UP
from payload.codec.lapped.context_model import KNOWN_LIMIT
from payload.codec.lapped.quantiser import REBUILD

#: Bits of a refinement, and of a size of the coarsest layer by octave, as the coder pays them (docs/codec.md).
REFINEMENT_BITS, OCTAVE_BITS = 0.92, 1.5
#: Squared steps of error that a bit removes: the slope of the codec's own curve.
SQUARED_STEPS_PER_BIT = 0.14


def _through(hard: Tensor, soft: Tensor) -> Tensor:
    """The first forward, the gradient of the second."""
    return soft + (hard - soft).detach()


def significant(share: Tensor, shift: int) -> Tensor:
    """1 where a coefficient, `share` finest steps large, is significant `shift` layers above the finest."""
    threshold, step = 2.0**shift - ROUND_UP, 2.0**shift
    return _through((share >= threshold).float(), ((share - threshold) / step + 0.5).clamp(0, 1))


def bits(model: ContextModel, share: Tensor, unsent: int) -> Tensor:
    """Bits of a batch's layers but the `unsent` finest ones; share [N, C, h, w] = |coefficient| / finest step."""
    count = len(model.layers)
    magnitude = torch.floor(share + ROUND_UP).detach()
    total, before = torch.zeros(()), torch.zeros_like(share)
    for layer in range(count - unsent):
        shift = count - 1 - layer
        now = significant(share, shift)
        with torch.no_grad():
            logits = _logits(model, magnitude, layer, shift)
        cost = (1 - before) * functional.softplus(logits) - (now - before) * logits  # closed ones: logits of 0
        total = total + cost.sum() / math.log(2) + REFINEMENT_BITS * before.sum()
        if layer == 0:
            total = total + OCTAVE_BITS * torch.log2((share / 2.0**shift).clamp(min=1)).sum()
        before = now
    return total + before.sum()


def _logits(model: ContextModel, magnitude: Tensor, layer: int, shift: int) -> Tensor:
    """Of every decision of a layer, in nats; of what is no decision so far below 0 that it costs nothing."""
    here = torch.floor(magnitude / 2**shift)
    coarser = torch.floor(here / 2) if layer else torch.zeros_like(here)
    context, known, busy = model.layers[layer], (2 * coarser).clamp(max=KNOWN_LIMIT), activity(here)
    assert isinstance(context, LayerContext)
    found = torch.empty_like(magnitude)
    for members in model.groups():
        found[:, members] = context.group(known, members, busy)
        known = known.index_copy(1, members, here[:, members].clamp(max=KNOWN_LIMIT))
    return found


def errors(coefficients: Tensor, wanted: Tensor, step: Tensor, unsent: int) -> Tensor:
    """Level minus `wanted`, in steps kept, of coefficients [N, ...]. A gradient reaches `coefficients` where a level
    moves with them, and `wanted` where nothing is sent of it."""
    kept_step = step * 2.0**unsent
    share = coefficients.abs() / step
    kept = torch.floor(torch.floor(share + ROUND_UP) / 2**unsent)
    level = torch.sign(coefficients) * torch.where(kept > 0, kept + REBUILD[unsent], 0.0)
    moved = _through(level, torch.where(kept > 0, coefficients / kept_step, 0.0))
    return moved - wanted / kept_step


def jump(share: Tensor, unsent: int) -> Tensor:
    """0, with the gradient of the squared error, in squared steps kept, where a coefficient begins to be sent."""
    threshold = 1 - ROUND_UP / 2.0**unsent
    gained = threshold**2 - (1 + REBUILD[unsent] - threshold) ** 2
    now = significant(share, unsent)
    return -gained * (now - now.detach())
