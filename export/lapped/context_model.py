"""The context model in float: predicts, layer by layer, which coefficients become significant.

Twin of payload/codec/lapped/context_model.py on batches of tiles. What is sent is the class of the predicted logit, so
the tables are counted afterwards on training tiles and the arithmetic on board is integer only.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from export.lapped.quantiser import magnitudes
from payload.codec.lapped.context_model import (
    ACTIVITY_CENTRE,
    ACTIVITY_UNIT,
    CORNERS,
    FAR,
    KNOWN_LIMIT,
    SIDES,
    ZONES,
    feature_count,
    frequency_neighbours,
    log2_eighths,
    parts,
    zones,
)
from payload.codec.lapped.transform import BLOCK, COEFFICIENTS

#: Up to so many bands every band's context looks at all others.
FEW_BANDS = 4
_LOG2 = torch.tensor(log2_eighths(np.arange(1, KNOWN_LIMIT + 2)) / 8.0, dtype=torch.float32)  # of 1 + x


def activity(magnitude: Tensor) -> Tensor:
    """How busy each band of a layer is: about 2 log2(1 + significant coefficients), centred, sent per layer. [N, B]"""
    n, channels, h, w = magnitude.shape
    inner = (magnitude > 0).reshape(n, channels // COEFFICIENTS, COEFFICIENTS, h * w)[:, :, 1:]
    per_cell = inner.sum((2, 3)).float() / (h * w)
    return torch.round(2 * torch.log2(1 + ACTIVITY_UNIT * per_cell)) - ACTIVITY_CENTRE


def around(known: Tensor, offsets: Any) -> Tensor:
    """Sums over neighbouring blocks, zero outside the tile. [N, C, h, w]"""
    h, w = known.shape[-2:]
    p = functional.pad(known, (2, 2, 2, 2))
    total: Tensor = sum(p[..., 2 + i : 2 + i + h, 2 + j : 2 + j + w] for i, j in offsets)  # type: ignore[assignment]
    return total


def turns_of(bands: int) -> tuple[int, ...]:
    """How many bands further on the bands lie that a channel looks at: all others up to four bands. Of more, the two
    before it, which are coded first as a rule, and the next one: what is looked at does not grow with the bands."""
    return tuple(range(1, bands)) if bands <= FEW_BANDS else (1, bands - 2, bands - 1)


def places_of(bands: int) -> NDArray[np.int64]:
    """Where the features of this model stand among those of the payload's."""
    in_band, of_block = parts(bands)[2:]
    turned = [in_band[0] + 2 * (turn - 1) + i for turn in turns_of(bands) for i in (0, 1)]
    return np.array([*range(in_band[0]), *turned, *range(*of_block)])


def features(known: Tensor, members: Tensor) -> Tensor:
    """x [N, M, h, w, F] of the channels `members`, from what is known of all channels [N, C, h, w]."""
    n, channels, h, w = known.shape
    bands = channels // COEFFICIENTS
    own = known[:, members]
    found = [around(own, offsets) for offsets in (SIDES, CORNERS, FAR)]
    behind = torch.cat([known, torch.zeros(n, 1, h, w)], 1)
    for columns in frequency_neighbours(bands):
        found.append(behind[:, torch.from_numpy(columns)[members]].sum(2))
    for turn in turns_of(bands):
        other = known[:, (members + turn * COEFFICIENTS) % channels]
        found += [other, around(other, SIDES)]
    by_band = known.reshape(n, bands, COEFFICIENTS, h, w)
    sums = [by_band[:, :, torch.from_numpy(zones() == z)].sum(2).clamp(max=255) for z in range(ZONES)]
    whole = torch.stack(sums).sum(0).clamp(max=255)
    band = members // COEFFICIENTS
    for block in (*sums, whole.sum(1, keepdim=True) - whole):
        block = block.clamp(max=KNOWN_LIMIT)
        found += [block[:, band], around(block, SIDES + CORNERS)[:, band]]
    return torch.stack(found, -1).clamp(max=KNOWN_LIMIT)


class _Log2(torch.autograd.Function):
    """log2 of positive numbers, linear between powers of two, as the mantissa of a float has it."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        exponent = torch.floor(torch.log2(x))
        ctx.save_for_backward(exponent)
        return exponent + x * torch.exp2(-exponent) - 1

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]
        (exponent,) = ctx.saved_tensors
        return gradient * torch.exp2(-exponent)


class LayerContext(nn.Module):
    """Logits of one layer, in nats; weights per octave. What the channels of a kind share is a parameter of its own.

    Of what contexts.py can express, this uses what was seen to pay: weights for the neighbouring blocks of the channel
    itself, for those of the same function in other bands and for zones; inner sums for neighbours in frequency and for
    the other bands in place. The rest together was worth 1 % of the significance bits and half of the time.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        bands = channels // COEFFICIENTS
        looking = 1 + len(turns_of(bands))
        count, self.parts, self.places = feature_count(looking), parts(looking), places_of(bands)
        self.weight = nn.Parameter(torch.zeros(channels, count))
        self.shared_weight = nn.Parameter(torch.full((count,), 0.15))
        self.gain = nn.Parameter(torch.zeros(channels, len(self.parts)))
        self.shared_gain = nn.Parameter(torch.full((len(self.parts),), 0.3))
        self.mix = nn.Parameter(torch.full((count,), -2.0))  # through softplus
        self.floor = nn.Parameter(torch.full((len(self.parts),), -2.0))  # through exp
        self.base = nn.Parameter(torch.zeros(channels))
        self.shared_base = nn.Parameter(torch.tensor(-4.0))
        self.position = nn.Parameter(torch.zeros(bands, BLOCK, BLOCK))
        self.activity = nn.Parameter(torch.zeros(channels))
        self.shared_activity = nn.Parameter(torch.tensor(0.1))
        in_band, of_block = self.parts[2], self.parts[3]
        weighted = [0, *range(in_band[0] + 1, in_band[1], 2), *range(*of_block)]
        used = torch.zeros(channels, count)
        used[:, weighted] = 1
        used[::COEFFICIENTS, slice(*of_block)] = 0  # block averages are in frequency order: to them
        summed = torch.zeros(channels, len(self.parts))
        summed[:, 1:3] = 1
        summed[::COEFFICIENTS, 1] = 0  # neither other functions nor blocks mean anything
        mixed = torch.ones(count)
        mixed[in_band[0] + 1 : in_band[1] : 2] = 0
        self.used: Tensor
        self.summed: Tensor
        self.mixed: Tensor
        self.register_buffer("used", used, persistent=False)
        self.register_buffer("summed", summed, persistent=False)
        self.register_buffer("mixed", mixed, persistent=False)

    def weights(self) -> Tensor:
        """[C, F], nats an octave."""
        return (self.weight + self.shared_weight) * self.used

    def gains(self) -> Tensor:
        """[C, E], nats an octave."""
        return (self.gain + self.shared_gain) * self.summed

    def mixes(self) -> Tensor:
        """[F], not negative."""
        return functional.softplus(self.mix) * self.mixed

    def group(self, known: Tensor, members: Tensor, busy: Tensor) -> Tensor:
        """Logits [N, M, h, w] of a group; busy [N, B] is the layer's activity."""
        x = features(known, members)
        logit = torch.einsum("nmhwf,mf->nmhw", _LOG2[x.long()], self.weights()[members])
        mix, floor, gains = self.mixes(), torch.exp(self.floor), self.gains()[members]
        for e, (begin, end) in enumerate(self.parts):
            inner: Tensor = _Log2.apply(x[..., begin:end] @ mix[begin:end] + floor[e])  # type: ignore[no-untyped-call]
            logit = logit + gains[None, :, e, None, None] * inner
        slope = self.activity[members] + self.shared_activity
        base = self.base[members] + self.shared_base + slope * busy[:, members // COEFFICIENTS]  # [N, M]
        logit = logit + base[:, :, None, None]
        averages = torch.nonzero(members % COEFFICIENTS == 0)[:, 0]
        if len(averages):
            h, w = known.shape[-2:]
            place = self.position[members[averages] // COEFFICIENTS].repeat(1, h // BLOCK, w // BLOCK)
            logit = logit.index_add(1, averages, place.expand(len(known), -1, -1, -1))
        return logit


class ContextModel(nn.Module):
    order: Tensor

    def __init__(self, layers: int, channels: int, order: NDArray[np.int64], starts: list[int]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(LayerContext(channels) for _ in range(layers))
        self.register_buffer("order", torch.tensor(order))
        self.starts = starts

    def groups(self) -> list[Tensor]:
        """Channels of every group."""
        return [self.order[a:b] for a, b in zip(self.starts, [*self.starts[1:], len(self.order)], strict=True)]


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


def nats(
    model: ContextModel, magnitude: Tensor, layer: int, draw: Callable[[Tensor], Tensor] = lambda members: members
) -> Tensor:
    """Cost of the significance decisions of one layer, from the finest magnitudes [N, C, h, w]: nats, summed.

    `draw`: which channels of a group are looked at; they stand for the rest of it."""
    here = torch.floor(magnitude / 2 ** (len(model.layers) - 1 - layer))
    coarser = torch.floor(here / 2) if layer else torch.zeros_like(here)
    context, known, busy = model.layers[layer], (2 * coarser).clamp(max=KNOWN_LIMIT), activity(here)
    assert isinstance(context, LayerContext)
    total = torch.zeros(())
    for members in model.groups():
        drawn = draw(members)
        logits = context.group(known, drawn, busy)
        open_ = coarser[:, drawn] == 0
        wanted = (here[:, drawn] > 0).float()
        cost = functional.binary_cross_entropy_with_logits(logits[open_], wanted[open_], reduction="sum")
        total = total + cost * (len(members) / len(drawn))
        known = known.index_copy(1, members, here[:, members].clamp(max=KNOWN_LIMIT))
    return total


def new_context_model(recipe: dict[str, Any], coefficients: Tensor, training: NDArray[np.intp]) -> ContextModel:
    """An untrained context model, its channel groups found on every fourth training tile."""
    order, starts = channel_groups(coefficients[training[::4]], recipe["context"]["groups"])
    return ContextModel(recipe["layers"], coefficients.shape[1], order, starts)


def draw_loss(model: ContextModel, coefficients: Tensor, settings: dict[str, Any], step_no: int) -> Tensor:
    """The loss of one training step: random training tiles and steps, one layer. coefficients [N, C, h, w]."""
    rng = np.random.default_rng([settings["seed"], step_no])
    low, high = np.log(settings["step_dn"])
    tiles = coefficients[rng.choice(len(coefficients), settings["batch"])]
    step = torch.tensor(np.exp(rng.uniform(low, high, len(tiles))), dtype=torch.float32).reshape(-1, 1, 1, 1)
    layer = int(rng.choice(len(model.layers), p=_layer_shares(len(model.layers))))
    most = settings.get("channels", tiles.shape[1])  # of a group and step; a quarter of a wide model teaches as much

    def draw(members: Tensor) -> Tensor:
        if len(members) <= most:
            return members
        return members[np.sort(rng.choice(len(members), most, replace=False))]

    cost = nats(model, magnitudes(tiles, step), layer, draw)
    return cost / (len(tiles) * tiles.shape[2] * tiles.shape[3] * 10.0)


def _layer_shares(layers: int) -> NDArray[np.float64]:
    """How often each layer is trained: finer layers hold more of the octets, every layer gets its share."""
    weight = 2.0 + np.arange(layers)
    return np.asarray(weight / weight.sum())
