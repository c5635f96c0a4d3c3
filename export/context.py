"""The context model in float: predicts, layer by layer, which coefficients become significant.

Twin of payload/entropy.py. One pass per group of channels; a pass sees the magnitudes of the coarser layer everywhere
and those of this layer in the groups already coded. What is sent is the class of the predicted logit, so the tables are
counted afterwards on training tiles and the arithmetic on board is integer only.
"""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from export.networks import COEFFICIENTS
from export.quantise import magnitudes

CENTRE = 6  # weight of a block itself in the smoothed feature; its sides weigh 2, its corners 1
FEATURE_LIMIT = 15
#: Activity counts significant coefficients per 1024 blocks, a tile of 256 px.
ACTIVITY_UNIT, ACTIVITY_CENTRE = 1024, 16


def feature(magnitude: Tensor) -> Tensor:
    """Magnitudes -> small integers, about 2 log2(1 + m)."""
    return torch.round(2 * torch.log2(1 + magnitude)).clamp(max=FEATURE_LIMIT)


def activity(magnitude: Tensor) -> Tensor:
    """How busy each band of a layer is: about 2 log2(1 + significant coefficients), centred, sent per layer. [N, B]"""
    n, channels, h, w = magnitude.shape
    inner = (magnitude > 0).reshape(n, channels // COEFFICIENTS, COEFFICIENTS, h * w)[:, :, 1:]
    per_cell = inner.sum((2, 3)).float() / (h * w)
    return torch.round(2 * torch.log2(1 + ACTIVITY_UNIT * per_cell)) - ACTIVITY_CENTRE


def sides_and_corners(f: Tensor) -> tuple[Tensor, Tensor]:
    """Sums over the four side and four corner neighbours of every block, zero outside the tile."""
    p = nn.functional.pad(f, (1, 1, 1, 1))
    sides = p[:, :, :-2, 1:-1] + p[:, :, 2:, 1:-1] + p[:, :, 1:-1, :-2] + p[:, :, 1:-1, 2:]
    corners = p[:, :, :-2, :-2] + p[:, :, :-2, 2:] + p[:, :, 2:, :-2] + p[:, :, 2:, 2:]
    return sides, corners


class LayerContext(nn.Module):
    """Logits of one layer. `order` [channels] is the channel order, `starts` the first rank of every group."""

    def __init__(self, first: bool, channels: int, hidden: int, groups: int) -> None:
        super().__init__()
        self.first = first
        scale = 0.002
        self.current = nn.Parameter(torch.randn(hidden, channels) * scale)
        self.coarser = nn.Parameter(torch.randn(hidden, 0 if first else channels) * scale)
        self.hidden_bias = nn.Parameter(torch.rand(groups, hidden) * 0.5)
        self.out = nn.Parameter(torch.randn(channels, hidden) * 0.05)
        self.bias = nn.Parameter(torch.full((channels,), -3.0))
        self.own = nn.Parameter(torch.full((3, 0 if first else channels), 0.15))
        self.position = nn.Parameter(torch.zeros(channels // COEFFICIENTS, 8, 8))
        self.activity = nn.Parameter(torch.full((channels,), 0.1))
        self.hidden_activity = nn.Parameter(torch.zeros(hidden, channels // COEFFICIENTS))

    def forward(self, magnitude: Tensor, previous: Tensor | None, order: Tensor, starts: list[int]) -> Tensor:
        """magnitude [N, C, h, w] of this layer (group by group), previous of the coarser -> logits [N, C, h, w]."""
        n, channels, h, w = magnitude.shape
        averages = torch.arange(0, channels, COEFFICIENTS)
        base = self.bias[None, :, None, None].expand(n, channels, h, w).clone()
        base[:, averages] = base[:, averages] + self.position.repeat(1, h // 8, w // 8)
        busy = activity(magnitude)  # [N, B]
        base = base + self.activity[None, :, None, None] * busy.repeat_interleave(COEFFICIENTS, 1)[:, :, None, None]
        state = (busy @ self.hidden_activity.T)[:, :, None].expand(-1, -1, h * w)
        if previous is not None:
            f = feature(previous)
            sides, corners = sides_and_corners(f)
            own = self.own[:, None, :, None, None]
            base = base + own[0] * f + own[1] * sides + own[2] * corners
            state = state + self.coarser @ self._seen(f, sides, corners).flatten(2)
        f = feature(magnitude)
        seen = self._seen(f, *sides_and_corners(f)).flatten(2)
        logits = []
        for g, (begin, end) in enumerate(zip(starts, [*starts[1:], channels], strict=True)):
            members = order[begin:end]
            hidden = torch.relu(state + self.hidden_bias[g][None, :, None])
            rows = self.out[members] * (members % COEFFICIENTS != 0)[:, None]
            logits.append((rows @ hidden).reshape(n, -1, h, w) + base[:, members])
            state = state + self.current[:, members] @ seen[:, members]
        return torch.cat(logits, 1)[:, torch.argsort(order)]

    @staticmethod
    def _seen(f: Tensor, sides: Tensor, corners: Tensor) -> Tensor:
        smooth = CENTRE * f + 2 * sides + corners
        keep = (torch.arange(f.shape[1]) % COEFFICIENTS != 0)[None, :, None, None]
        return smooth * keep  # block averages sit in frequency order: their place means nothing to others


class ContextModel(nn.Module):
    def __init__(
        self, layers: int, channels: int, hidden: int, groups: int, order: NDArray[np.int64], starts: list[int]
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList(LayerContext(k == 0, channels, hidden, groups) for k in range(layers))
        self.register_buffer("order", torch.tensor(order))
        self.starts = starts

    def logits(self, magnitude: Tensor, layer: int) -> tuple[Tensor, Tensor, Tensor | None]:
        """Logits, this layer's magnitudes and the coarser layer's, from the finest magnitudes [N, C, h, w]."""
        missing = len(self.layers) - 1 - layer
        here = torch.floor(magnitude / 2**missing)
        coarser = torch.floor(here / 2) if layer else None
        return self.layers[layer](here, coarser, self.order, self.starts), here, coarser


def channel_groups(coefficients: Tensor, groups: int, step_dn: float = 240.0) -> tuple[NDArray[np.int64], list[int]]:
    """Channels by falling significance, cut into groups that hold about equal numbers of significant coefficients.

    The block averages come first, in a group of their own.
    """
    significant = (magnitudes(coefficients, torch.tensor(step_dn)) > 0).float().mean((0, 2, 3)).numpy()
    significant[::COEFFICIENTS] = 2.0  # first of all
    order = np.argsort(-significant, kind="stable").astype(np.int64)
    averages = len(significant) // COEFFICIENTS
    share = np.cumsum(significant[order][averages:])
    cuts = [averages + int(np.searchsorted(share, share[-1] * k / (groups - 1))) for k in range(1, groups - 1)]
    return order, [0, averages, *cuts]


def nats(model: ContextModel, magnitude: Tensor, layer: int) -> Tensor:
    """Cost of the significance decisions of one layer, in nats, summed."""
    logits, here, coarser = model.logits(magnitude, layer)
    open_ = torch.ones_like(here, dtype=torch.bool) if coarser is None else coarser == 0
    return nn.functional.binary_cross_entropy_with_logits(logits[open_], (here[open_] > 0).float(), reduction="sum")


def train_context(
    model: ContextModel, coefficients: Tensor, settings: dict[str, Any], first_step: int, save: Any
) -> None:
    """Adam over random tiles, steps and layers. coefficients [N, C, h, w] of the training tiles."""
    torch.manual_seed(settings["seed"])
    optimiser = torch.optim.Adam(model.parameters(), lr=settings["learning_rate"])
    low, high = np.log(settings["step_dn"])
    for step_no in range(first_step, settings["steps"]):
        rng = np.random.default_rng([settings["seed"], step_no])
        for group in optimiser.param_groups:
            group["lr"] = settings["learning_rate"] * (0.01 + 0.99 * (1 - step_no / settings["steps"]) ** 1.0)
        tiles = coefficients[rng.choice(len(coefficients), settings["batch"])]
        step = torch.tensor(np.exp(rng.uniform(low, high, len(tiles))), dtype=torch.float32).reshape(-1, 1, 1, 1)
        magnitude = magnitudes(tiles, step)
        layer = int(rng.integers(len(model.layers)))
        loss = nats(model, magnitude, layer) / (len(tiles) * tiles.shape[2] * tiles.shape[3] * 10.0)
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        save(step_no + 1)
