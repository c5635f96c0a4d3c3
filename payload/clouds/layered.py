"""The cloud network in the compiled kernel: its layers laid out in tables and one arena for payload/native.

The kernel takes four channels at a time, two such quads together: their products are added up in 16 bits before they go
into 32. Which quads go together is looked for here, so that no sum can pass 16 bits.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from payload.clouds.layers import GROUP, MOST_WEIGHT, PLANES, Layer, OtherLayersError
from payload.errors import BundleError
from payload.memory import Held
from payload.native.library import I8, I32, U8, call, span

#: Channels, or places of a depthwise kernel, at a time; zeros around activations.
QUAD, AROUND = 4, 2
#: Positive (or negative) weights of one 16-bit sum: 255 times as much fits.
MOST_OF_A_SUM = 2 * MOST_WEIGHT
#: In place of a quad, and of where something lies: nothing.
NOTHING = -1


class LayeredNetwork:
    """A network of layers for tiles of planes [1, P, n, n]; as payload.engine.Network."""

    def __init__(self, layers: Sequence[Layer], shape: tuple[int, ...]) -> None:
        """OtherLayersError where they are made for other planes."""
        if layers[0].weights.shape[1] != shape[1]:
            raise OtherLayersError(f"{shape[1]} planes")
        self._shape, self._cell = shape, layers[0].kernel
        sides, orders = _sides(layers, shape[-1]), [_order(layer) for layer in layers]
        weights = [_in_quads(layer, order) for layer, order in zip(layers, orders, strict=True)]
        self._quads, self._weights = np.concatenate(orders).clip(0), np.concatenate([w.ravel() for w in weights])
        self._bias, self._down, self._up = (
            np.concatenate([getattr(layer, name) for layer in layers]) for name in ("bias", "down", "up")
        )
        rooms, self._arena = _rooms(layers, sides)
        starts = zip(_starts(orders), _starts(weights), _starts([layer.bias for layer in layers]), strict=True)
        rows = [
            (*_measures(layer, side), *room, order.size, *start, int(layer.signed))
            for layer, side, room, order, start in zip(layers, sides, rooms, orders, starts, strict=True)
        ]
        self._layers = np.array(rows, np.int32)
        self._logits_shape = 1, layers[-1].bias.size, sides[-1], sides[-1]

    def held(self) -> Iterator[Held]:
        """What the kernel reads for every tile."""
        yield Held("clouds.layers", "pointers", self._layers)
        yield Held("clouds.quads", "pointers", self._quads)
        yield Held("clouds.weights", "weights", self._weights)
        for name, array in (("bias", self._bias), ("down", self._down), ("up", self._up)):
            yield Held(f"clouds.{name}", "scales", array)

    def run(self, *inputs: NDArray[Any]) -> list[NDArray[Any]]:
        """Logits int8 [1, C, h, w] of planes uint8 [1, P, n, n]."""
        (planes,) = inputs
        if planes.shape != self._shape:
            wanted, found = list(self._shape), list(planes.shape)
            raise BundleError(f"the cloud network takes {wanted}, not {found}; restore the bundle or rebuild it")
        logits = np.empty(self._logits_shape, np.int8)
        call(
            "cloud_network", span(np.ascontiguousarray(planes), U8), planes.shape[1], planes.shape[2], self._cell,
            span(self._layers, I32), len(self._layers), span(self._quads, I32), span(self._weights, I8),
            span(self._bias, I32), span(self._down, I32), span(self._up, I32), span(self._arena, U8), span(logits, I8),
        )  # fmt: skip
        return [logits]


def _sides(layers: Sequence[Layer], n: int) -> list[int]:
    """Positions along a side of each layer's output. OtherLayersError where a stride does not fit in."""
    sides: list[int] = []
    for layer in layers:
        side, rest = divmod(n if layer.of_planes else sides[layer.sums.source.layer], layer.sums.stride)
        if rest:
            raise OtherLayersError(f"a stride of {layer.sums.stride} in {n} cells")
        sides.append(side)
    return sides


def _starts(arrays: Sequence[NDArray[Any]]) -> list[int]:
    """Where each begins once they stand one behind the other."""
    return [0, *np.cumsum([array.size for array in arrays]).tolist()][:-1]


def _measures(layer: Layer, side: int) -> tuple[int, ...]:
    """Kernel, stride, side of the output, channels of input and output; patches of the planes are channels."""
    kernel, stride = (1, 1) if layer.of_planes else (layer.kernel, layer.sums.stride)
    width = layer.bias.size
    return kernel, stride, side, width if layer.sums.depthwise else layer.weights[0].size, width


def _rooms(layers: Sequence[Layer], sides: Sequence[int]) -> tuple[list[tuple[int, ...]], NDArray[np.uint8]]:
    """Of each layer where it reads, where it writes, where what it adds lies, and whether that has half the side; and
    the arena. Room is used again once nobody reads it, so that the arena stays small beside the caches."""
    widths = {PLANES: layers[0].weights[0].size} | {i: layer.bias.size for i, layer in enumerate(layers)}
    sizes = {i: width * (sides[max(i, 0)] + 2 * AROUND) ** 2 for i, width in widths.items()}
    starts: dict[int, int] = {}
    for i in range(PLANES, len(layers)):
        read = {source for layer in layers[max(i, 0) :] for source in _read_by(layer)}
        starts[i] = _first_gap(sorted((starts[k], sizes[k]) for k in starts if k in read), sizes[i])
    rooms: list[tuple[int, ...]] = []
    for i, layer in enumerate(layers):
        added = layer.sums.added
        also = (NOTHING, 0) if added is None else (starts[added.layer], int(added.doubled))
        rooms.append((starts[layer.sums.source.layer], starts[i], *also))
    return rooms, np.zeros(max(starts[i] + sizes[i] for i in starts), np.uint8)


def _read_by(layer: Layer) -> set[int]:
    return {layer.sums.source.layer} | ({layer.sums.added.layer} if layer.sums.added else set())


def _first_gap(taken: Sequence[tuple[int, int]], size: int) -> int:
    start = 0
    for begins, octets in taken:
        if begins - start >= size:
            break
        start = max(start, begins + octets)
    return start


def _order(layer: Layer) -> NDArray[np.int32]:
    """In which order the kernel takes the quads of channels: by twos whose products fit 16 bits together, NOTHING where
    one has no partner. Those with the fewest partners choose first. None of a depthwise layer. [q]"""
    if layer.sums.depthwise:
        return np.empty(0, np.int32)
    partners = _partners(layer)
    order: list[int] = []
    left = set(range(len(partners)))
    while left:
        one = min(left, key=lambda i: int(partners[i, list(left)].sum()))
        left.remove(one)
        fits = [i for i in left if partners[one, i]]
        other = min(fits, key=lambda i: int(partners[i, list(left)].sum()), default=NOTHING)
        left.discard(other)
        order += [one, other]
    return np.array(order, np.int32)


def _partners(layer: Layer) -> NDArray[np.bool_]:
    """Whether two quads of channels may go together: of each half of both, all weights of a sign add up to no more than
    a 16-bit sum may have. [quads, quads]"""
    halves = layer.weights.reshape(layer.bias.size, -1, QUAD // 2, 2).astype(np.int32).transpose(1, 0, 2, 3)
    found = np.ones((len(halves), len(halves)), bool)
    for sign in (1, -1):
        most = np.maximum(sign * halves, 0).sum(axis=3).reshape(len(halves), -1)
        found &= (most[:, None] + most[None]).max(axis=2) <= MOST_OF_A_SUM
    np.fill_diagonal(found, False)
    return found


def _in_quads(layer: Layer, order: NDArray[np.int32]) -> NDArray[np.int8]:
    """Weights as the kernel reads them: [cout / 16, quads, 16, 4]; zeros where there are none."""
    rows = layer.weights.reshape(layer.bias.size, -1)
    rows = np.pad(rows, ((0, 0), (0, -rows.shape[1] % QUAD)))
    quads = rows.reshape(-1, GROUP, rows.shape[1] // QUAD, QUAD).transpose(0, 2, 1, 3)
    if order.size:
        quads = quads[:, order] * (order != NOTHING)[:, None, None].astype(np.int8)
    return np.ascontiguousarray(quads)
