"""The mixture of the third generation: counters of four octets and weights of four.

What was seen fits octets, since a counter forgets from 255 on, and what the tables expected is kept in 2^-8, rounded,
so that 16 bits hold it. Weights are kept in 2^-24 and used in 2^-12. What that costs against the second generation,
.02 % of the octets, is paid back by significance that learns a little slower and signs that learn a little faster.
"""

import numpy as np
from numpy.typing import NDArray

from payload.codec.lapped.dense.given import LOGIT_SIDE, chance_of
from payload.codec.lapped.dense.mixing import (
    FIRST_OF_GIVEN,
    FIRST_OF_WORDS,
    GENERATIONS,
    INPUT_LIMIT,
    SET_SIZES,
    THIRD,
    Mixture,
    Wide,
    log2_of,
)
from payload.codec.lapped.range_coder import PRECISION

WEIGHT_BITS, USED_BITS, EXPECTED_BITS = 24, 12, 8
#: Weights of one row, in 2^-24, and of a decision's rows together, in 2^-12, either way.
WEIGHT_LIMIT, USED_LIMIT = 1 << 27, 32767
MOST_SEEN = 254
#: How fast the weights of each kind of decision learn, in 256ths of what the other generations' do.
RATES = (200, 256, 256, 320)


def open_mixture(generation: int) -> Mixture:
    """Of a tile that has taught nothing yet."""
    return SmallMixture() if generation == THIRD else Mixture(generation)


class SmallMixture(Mixture):
    """As Mixture. A decision is judged by all that came before it, so batches are of one."""

    def __init__(self) -> None:
        super().__init__(THIRD)
        ends, self._weights = np.cumsum([0, *map(sum, SET_SIZES)]), np.zeros_like(self._weights)
        for kind, words in enumerate(GENERATIONS[THIRD].counters):
            of_kind, rows = self._weights[ends[kind] : ends[kind + 1]], len(GENERATIONS[THIRD].rows[kind])
            of_kind[:, 0] = (FIRST_OF_GIVEN << 8) // rows
            of_kind[:, 1 : 1 + words] = (FIRST_OF_WORDS << 8) // (words * rows)

    def _judged(self, counters: Wide, rows: Wide, given: Wide) -> tuple[Wide, Wide]:
        inputs = np.concatenate([given[:, None], self._words(counters)], axis=1)
        weights = self._weights[rows, : inputs.shape[1]].sum(axis=1) >> (WEIGHT_BITS - USED_BITS)
        logits = (np.clip(weights, -USED_LIMIT, USED_LIMIT) * inputs).sum(axis=1) >> USED_BITS
        return inputs, np.clip(logits, 1 - LOGIT_SIDE, LOGIT_SIDE - 1)

    def _words(self, counters: Wide) -> Wide:
        yes, no, expected = self._yes[counters], self._no[counters], self._expected[counters]
        unexpected = (yes + no + 1 << EXPECTED_BITS) - expected
        most = log2_of(yes + 1 << EXPECTED_BITS) - log2_of(expected + (1 << EXPECTED_BITS))
        return np.clip(most - log2_of(no + 1 << EXPECTED_BITS) + log2_of(unexpected), -INPUT_LIMIT, INPUT_LIMIT)

    def _learn(
        self, kind: int, at: tuple[Wide, Wide, Wide], judged: tuple[Wide, Wide], bits: NDArray[np.int32]
    ) -> None:
        ((counters,), (rows,), given), ((inputs,), chance), (yes,) = at, judged, bits.astype(np.int64)
        error = ((yes << 16) - (chance >> (PRECISION - 16))) * RATES[kind] >> 8
        moved = self._weights[rows, : len(inputs)] + (error * inputs >> 8)
        self._weights[rows, : len(inputs)] = np.clip(moved, -WEIGHT_LIMIT, WEIGHT_LIMIT)
        expected = chance_of(given) + (1 << PRECISION - EXPECTED_BITS - 1) >> (PRECISION - EXPECTED_BITS)
        self._yes[counters] += yes
        self._no[counters] += 1 - yes
        self._expected[counters] += expected
        full = counters[self._yes[counters] + self._no[counters] > MOST_SEEN]
        for kept in (self._yes, self._no, self._expected):
            kept[full] >>= 1
        most = self._yes[full] + self._no[full] << EXPECTED_BITS
        self._expected[full] = np.minimum(self._expected[full], most)
