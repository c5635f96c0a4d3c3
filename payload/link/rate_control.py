"""Which layers of which tiles are sent when the scene has a byte budget: constant slope over all tiles.

Every tile code is embedded, so leaving out its last layers is free. Layers are taken in the order of error removed per
octet, over the convex hull of each tile's points (post-compression rate-distortion optimisation, Taubman 2000), until
the budget is spent. Where few tiles share it, layers are too large to spend all of it that way: then tiles exchange
layers as long as that leaves less error, and what still remains buys the beginning of a layer.
"""

import heapq
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from payload.link.space_packet import octets_on_air, octets_within
from payload.link.tile_code import Kind, TileCode
from payload.policy import Policy

#: Share of the budget that may stay unused without a second look.
LEFT_OVER = 0.002
#: So many tiles may get the beginning of a layer.
TRIES = 8


@dataclass(frozen=True)
class Candidate:
    """A tile code with all its layers, and the squared error left after 0, 1, ... of them (empty: not known)."""

    code: TileCode
    errors: tuple[float, ...]

    def error(self, layers: int) -> float:
        """Squared error left after so many layers; where it is not known every layer counts alike."""
        return self.errors[layers] if self.errors else -float(layers)


#: Cuts the last of some layers so that all of them are at most so many octets long; gives them back where it cannot.
Shorten = Callable[[tuple[bytes, ...], int], tuple[bytes, ...]]


def choose_layers(
    candidates: Sequence[Candidate],
    policy: Policy,
    shorten: Shorten,
    reserved: Sequence[TileCode] = (),
    reserved_octets: int = 0,
) -> Iterator[TileCode]:
    """The tile codes in their order, each cut to the layers that fit `policy.budget_octets`.

    `reserved` codes and `reserved_octets` of packets come out of the same budget. A tile keeps at least its header: one
    of which nothing fits is declared as omitted.
    """
    budget = policy.budget_octets or 0
    left = budget - reserved_octets - sum(octets_of(code, len(code.layers), policy.packet_octets) for code in reserved)
    kept, left = _steepest_first(candidates, left, policy)
    if left > budget * LEFT_OVER:
        kept, left = _exchange(candidates, kept, left, policy)
    sent = [c.code.layers[:n] for c, n in zip(candidates, kept, strict=True)]
    if left > budget * LEFT_OVER:
        _begin_layers(candidates, sent, (left, int(budget * LEFT_OVER)), policy, shorten)
    for candidate, layers in zip(candidates, sent, strict=True):
        code = candidate.code
        kind = Kind.OMITTED if code.layers and not layers else code.kind
        side, mask = (code.side, code.mask) if layers else (b"", b"")
        yield replace(code, kind=kind, side=side, mask=mask, layers=layers, declared=len(layers), sent_octets=-1)


def _begin_layers(
    candidates: Sequence[Candidate],
    sent: list[tuple[bytes, ...]],
    left: tuple[int, int],
    policy: Policy,
    shorten: Shorten,
) -> None:
    """Tiles get the beginning of their next layer, the steepest first, until `left` (octets, and how many may stay
    unused) is spent."""
    octets, enough = left
    steps = [
        step
        for at, c in enumerate(candidates)
        if len(sent[at]) < len(c.code.layers)
        for step in _next_step(c, len(sent[at]), at, policy, len(sent[at]) + 1)
    ]
    for _, at, upto in sorted(steps)[:TRIES]:
        code = candidates[at].code
        now = octets_of(replace(code, layers=sent[at]), upto - 1, policy.packet_octets)
        room = octets_within(now + octets, policy.packet_octets) - code.head_octets(upto)
        layers = shorten(code.layers[:upto], room)
        if sum(map(len, layers)) <= room:
            sent[at] = layers
            octets += now - octets_of(replace(code, layers=layers), upto, policy.packet_octets)
        if octets <= enough:
            return


def _steepest_first(candidates: Sequence[Candidate], left: int, policy: Policy) -> tuple[list[int], int]:
    """Layers of every tile within `left` octets, and the octets that remain."""
    kept = [0] * len(candidates)
    left -= sum(octets_of(c.code, 0, policy.packet_octets) for c in candidates)
    queue = [entry for at, c in enumerate(candidates) for entry in _next_step(c, 0, at, policy)]
    heapq.heapify(queue)
    while queue:
        _, at, upto = heapq.heappop(queue)
        code = candidates[at].code
        cost = octets_of(code, upto, policy.packet_octets) - octets_of(code, kept[at], policy.packet_octets)
        if cost > left:
            for entry in _next_step(candidates[at], kept[at], at, policy, upto - 1):
                heapq.heappush(queue, entry)
            continue  # a shorter step of this tile, or one of another, may still fit
        left -= cost
        kept[at] = upto
        for entry in _next_step(candidates[at], upto, at, policy):
            heapq.heappush(queue, entry)
    return kept, left


def _exchange(candidates: Sequence[Candidate], kept: list[int], left: int, policy: Policy) -> tuple[list[int], int]:
    """One tile gives up layers so that another gets some: the exchange that gains most first, while one gains."""
    kept = list(kept)
    ways = [(at, n) for at, c in enumerate(candidates) for n in range(len(c.code.layers) + 1)]
    tile, layers = (np.array(column, np.int64) for column in zip(*ways, strict=True))
    octets = np.array([octets_of(candidates[at].code, n, policy.packet_octets) for at, n in ways])
    error = np.array([candidates[at].error(n) for at, n in ways])
    begin = np.searchsorted(tile, np.arange(len(candidates)))  # each tile's way of no layer
    while True:
        now = (begin + kept)[tile]
        best = _best_pair(tile, octets - octets[now], error[now] - error, left)
        if best is None:
            return kept, left
        for way in best:
            left -= int(octets[way] - octets[now[way]])
            kept[tile[way]] = int(layers[way])


def _best_pair(
    tile: NDArray[np.int64], cost: NDArray[np.int64], gain: NDArray[np.float64], left: int
) -> tuple[int, int] | None:
    """A cheaper way of one tile and a dearer one of another that fit `left` and gain most together, if they do."""
    dearer, cheaper = np.flatnonzero((cost > 0) & (gain > 0)), np.flatnonzero(cost < 0)
    dearer = dearer[np.argsort(cost[dearer], kind="stable")]
    if not len(dearer) or not len(cheaper):
        return None
    leading = np.maximum.accumulate(gain[dearer])
    first = np.flatnonzero(np.r_[True, leading[1:] > leading[:-1]])  # where a new leader comes
    affordable = np.searchsorted(cost[dearer], left - cost[cheaper], side="right") - 1
    partner = dearer[first[np.searchsorted(first, np.maximum(affordable, 0), side="right") - 1]]
    together = np.where((affordable >= 0) & (tile[partner] != tile[cheaper]), gain[partner] + gain[cheaper], 0.0)
    at = int(np.argmax(together))
    return (int(cheaper[at]), int(partner[at])) if together[at] > 0 else None


def _next_step(
    candidate: Candidate, have: int, at: int, policy: Policy, most: int | None = None
) -> list[tuple[float, int, int]]:
    """The steepest step from `have` to at most `most` layers (None: all) as (-slope, tile, layers), if there is one."""
    steps = []
    for upto in range(have + 1, (len(candidate.code.layers) if most is None else most) + 1):
        gain = candidate.error(have) - candidate.error(upto)
        before, behind = (octets_of(candidate.code, n, policy.packet_octets) for n in (have, upto))
        cost = behind - before
        steps.append((-gain / cost, at, upto))
    return [min(steps)] if steps else []


def octets_of(code: TileCode, layers: int, packet_octets: int) -> int:
    """Octets on the link of a tile code cut to `layers` layers: packets and their heads counted."""
    data = code.head_octets(layers) + sum(len(layer) for layer in code.layers[:layers])
    return octets_on_air(data, packet_octets)
