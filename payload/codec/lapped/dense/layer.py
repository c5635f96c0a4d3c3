"""Layers of the profile `dense`, either way: decision after decision through a mixture that learns along the tile.

In a layer, channel after channel by rank; of a channel, in this order: which coefficients become significant, sizes of
those (in the coarsest layer) or one bit more of the ones that were significant before, signs. This is the definition in
numpy; `payload/native/dense.c` does the same, octet for octet.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from payload.codec.lapped.context_model import Contexts, Known
from payload.codec.lapped.dense.contexts import Contexts as Numbers
from payload.codec.lapped.dense.contexts import Near, Place, more, sign, significance
from payload.codec.lapped.dense.given import given_of, of_logits
from payload.codec.lapped.dense.mixing import (
    FIRST,
    GENERATIONS,
    REFINEMENT,
    SIGN,
    SIGNIFICANCE,
    SIZE,
    THIRD,
    Decisions,
    begins,
)
from payload.codec.lapped.dense.small_mixing import open_mixture
from payload.codec.lapped.quantiser import REBUILD_UNIT, rebuild_units
from payload.codec.lapped.range_coder import Decoder, Encoder
from payload.codec.lapped.tables import ESCAPE, REFINEMENTS, ContextTables
from payload.codec.lapped.transform import COEFFICIENTS

Magnitudes = NDArray[np.uint16]
Flags = NDArray[np.bool_]
#: From this size on, bits that follow share their counters.
LARGE = 7


@dataclass(frozen=True, eq=False)
class Layer:
    """One layer of a tile. `here` [C, h, w] are this layer's magnitudes; where octets are read, twice the layer
    before, filled in as they come. `sizes`: latents in 128ths of a step, where magnitudes of one may be left out."""

    k: int
    here: Magnitudes
    negative: Flags
    active: int
    activity: bytes
    sizes: Known | None = None


class DenseTile:
    """The layers of one tile, coarse first; `begin` forgets what they have taught."""

    def __init__(self, tables: ContextTables) -> None:
        self._tables, self._given = tables, [given_of(layer) for layer in tables.layers]
        self.begin()

    def begin(self, generation: int = THIRD) -> None:
        self._mixture = open_mixture(generation)

    @property
    def generation(self) -> int:
        return self._mixture.generation

    def encode(self, layer: Layer) -> bytes:
        """What stands behind a layer's head."""
        coder = Encoder()
        self._code(coder, layer, reading=False)
        part = layer.here[self._tables.order[: layer.active]]
        escapes = part[part >= ESCAPE].astype(">u2").tobytes() if layer.k == 0 else b""
        return coder.octets() + escapes

    def decode(self, octets: bytes, layer: Layer) -> int:
        """Fills in `here` and `negative`; how many escapes stand at the end of the octets. StreamError where they are
        no encoder's."""
        self._code(Decoder(octets), layer, reading=True)
        return int((layer.here == ESCAPE).sum()) if layer.k == 0 else 0

    def _code(self, coder: Any, layer: Layer, reading: bool) -> None:
        bands = len(self._tables.order) // COEFFICIENTS
        before = (layer.here >> 1).astype(np.uint16) if layer.k else np.zeros_like(layer.here)
        weights = self._tables.layers[layer.k].weights
        contexts = Contexts(weights, layer.here.shape, before if layer.k else None, layer.activity)
        signs = np.pad(_signed(before > 0, layer.negative), ((0, 0), (1, 1), (1, 1)))
        for members in self._tables.groups_of(layer.active):
            for channel, logits in zip(members.tolist(), contexts.logits(members), strict=True):
                features = contexts.features(np.array([channel]))[:, 0]
                place = Place(channel, layer.k, bands, features, logits, contexts.known_of(channel))
                self._code_channel((coder, reading), layer, place, before[channel], signs)
                contexts.tell(np.array([channel]), layer.here[channel][None])
                signs[channel, 1:-1, 1:-1] = _signed(layer.here[channel] > 0, layer.negative[channel])

    def _code_channel(
        self, coder: tuple[Any, bool], layer: Layer, place: Place, before: Magnitudes, signs: NDArray[np.int8]
    ) -> None:
        here, negative, given = layer.here[place.channel], layer.negative[place.channel], self._given[layer.k]
        open_ = before == 0
        bits = self._code_significance(coder, layer, place, before)
        here[open_] = np.where(bits, np.maximum(here[open_], 1), 0)
        if layer.k == 0:
            self._code_sizes(coder, place, here)
        else:
            value, rank = np.minimum(before, LARGE).astype(np.int64), np.clip(before, 1, REFINEMENTS) - 1
            old = ~open_
            bits = self._bits(coder, REFINEMENT, more(place, value), (old, given.of_new_bit[rank]), here & 1)
            here[old] = 2 * before[old] + bits
        fresh = open_ & (here > 0)
        nothing = np.zeros(fresh.shape, np.int64)
        bits = self._bits(coder, SIGN, sign(place, signs), (fresh, nothing), negative)
        if coder[1]:
            negative[fresh] = bits.astype(bool)

    def _code_significance(
        self, coder: tuple[Any, bool], layer: Layer, place: Place, before: Magnitudes
    ) -> NDArray[np.int32]:
        """Which of those that were not become significant. Of the last layer a magnitude of one is left out where it is
        not worth its octets; block averages are few and worth much: they stay."""
        open_, here = before == 0, layer.here[place.channel]
        logits = of_logits(self._given[layer.k].of_class, place.logits)
        decisions = self._decisions(coder, SIGNIFICANCE, significance(place), (open_, logits), here > 0)
        if layer.sizes is not None and place.function:
            sizes = np.where(here == 1, layer.sizes[place.channel], 255)[open_].astype(np.int64)
            rebuilt = REBUILD_UNIT + rebuild_units(len(self._tables.layers) - 1 - layer.k)
            decisions = replace(decisions, sizes=sizes, rebuilt64=rebuilt)
        if self.generation == FIRST:
            return self._mixture.code(coder[0], decisions)
        near, cells = Near(place, before), np.argwhere(open_).tolist()
        counters, rows = decisions.counters, decisions.rows

        def complete(n: int) -> None:
            around, hood, row = near.numbers(*cells[n])
            counters[n, Near.AROUND] += around
            counters[n, Near.HOOD] += hood
            rows[n, -1] += row

        def tell(n: int, bit: int) -> None:
            row, col = cells[n]
            near.tell(row, col, bit)

        return self._mixture.code(coder[0], decisions, complete, tell)

    def _code_sizes(self, coder: tuple[Any, bool], place: Place, here: Magnitudes) -> None:
        """Those that are more than 1, of these the ones that are more than 2, ... up to 15."""
        of_size = self._given[0].of_size[place.classes >> 2]  # [h, w, 16]
        for v in range(1, ESCAPE):
            larger = here >= v
            if not larger.any():
                return
            value = np.full(here.shape, v, np.int64)
            bits = self._bits(coder, SIZE, more(place, value), (larger, of_size[..., v]), here > v)
            here[larger] = np.where(bits, np.maximum(here[larger], v + 1), v)

    def _decisions(
        self, coder: tuple[Any, bool], kind: int, at: Numbers, which: tuple[Flags, NDArray[Any]], bits: NDArray[Any]
    ) -> Decisions:
        """Decisions of a channel: contexts and logits, all of it, where they are to be taken."""
        chosen, logits = which
        counters, rows = begins(kind, self.generation)
        chosen_rows = at[1][list(GENERATIONS[self.generation].rows[kind])]
        return Decisions(
            kind, at[0][: len(counters), chosen].T + counters, chosen_rows[:, chosen].T + rows,
            logits[chosen].astype(np.int64), None if coder[1] else bits[chosen].astype(np.int32),
        )  # fmt: skip

    def _bits(
        self, coder: tuple[Any, bool], kind: int, at: Numbers, which: tuple[Flags, NDArray[Any]], bits: NDArray[Any]
    ) -> NDArray[np.int32]:
        """Decisions of a channel through the coder."""
        return self._mixture.code(coder[0], self._decisions(coder, kind, at, which, bits))


def _signed(known: Flags, negative: Flags) -> NDArray[np.int8]:
    return np.where(known, np.where(negative, -1, 1), 0).astype(np.int8)
