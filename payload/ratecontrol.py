"""Which layers of which tiles are sent when the scene has a byte budget: constant slope over all tiles.

Every tile code is embedded, so leaving out its last layers is free. Layers are taken in the order of error removed per
octet, over the convex hull of each tile's points (post-compression rate-distortion optimisation, Taubman 2000), until
the budget is spent.
"""

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from payload.bitstream import Kind, TileCode, header_octets
from payload.packets import octets_on_air
from payload.policy import Policy


@dataclass(frozen=True)
class Candidate:
    """A tile code with all its layers, and the squared error left after 0, 1, ... of them."""

    code: TileCode
    errors: tuple[float, ...]


def choose_layers(
    candidates: Sequence[Candidate], policy: Policy, reserved: Sequence[TileCode] = ()
) -> Iterator[TileCode]:
    """The tile codes in their order, each cut to the layers that fit `policy.budget_octets`, `reserved` codes included.

    A tile keeps at least its header: one of which nothing fits is declared withheld.
    """
    budget = policy.budget_octets or 0
    spent = sum(_octets(code, len(code.layers), policy) for code in reserved)
    kept = [0] * len(candidates)
    spent += sum(_octets(c.code, 0, policy) for c in candidates)
    queue = [entry for at, c in enumerate(candidates) for entry in _next_step(c, 0, at, policy)]
    heapq.heapify(queue)
    while queue:
        _, at, upto = heapq.heappop(queue)
        code = candidates[at].code
        cost = _octets(code, upto, policy) - _octets(code, kept[at], policy)
        if spent + cost > budget:
            for entry in _next_step(candidates[at], kept[at], at, policy, upto - 1):
                heapq.heappush(queue, entry)
            continue  # a shorter step of this tile, or one of another, may still fit
        spent += cost
        kept[at] = upto
        for entry in _next_step(candidates[at], upto, at, policy):
            heapq.heappush(queue, entry)
    for candidate, layers in zip(candidates, kept, strict=True):
        code = candidate.code
        kind = Kind.WITHHELD if code.layers and not layers else code.kind
        side = code.side if layers else b""
        yield replace(code, kind=kind, side=side, layers=code.layers[:layers], declared=layers)


def _next_step(
    candidate: Candidate, have: int, at: int, policy: Policy, most: int | None = None
) -> list[tuple[float, int, int]]:
    """The steepest step from `have` to at most `most` layers (None: all) as (-slope, tile, layers), if there is one."""
    steps = []
    for upto in range(have + 1, (len(candidate.code.layers) if most is None else most) + 1):
        gain = candidate.errors[have] - candidate.errors[upto] if candidate.errors else 1.0
        cost = _octets(candidate.code, upto, policy) - _octets(candidate.code, have, policy)
        steps.append((-gain / cost, at, upto))
    return [min(steps)] if steps else []


def _octets(code: TileCode, layers: int, policy: Policy) -> int:
    """Octets on the link of a tile code cut to `layers` layers."""
    side = len(code.side) if layers else 0
    data = header_octets(side, layers) + sum(len(layer) for layer in code.layers[:layers])
    return octets_on_air(data, policy.packet_octets)
