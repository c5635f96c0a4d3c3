"""Probabilities of yes-or-no decisions from what the bundle says and what was seen so far in the tile.

A decision comes with the logit that the bundle's tables give it and with six contexts, each a counter: how often there
was a yes and a no, and how often the tables expected a yes. By how much the first exceeds the second is that counter's
word. The logit and the six words are weighed (logistic mixing: Mahoney, "Adaptive weighing of context models", 2005):

    word_t = log2((yes + 1) / (expected + 1)) - log2((no + 2) / (seen - expected + 2))         clipped to 8 octaves
    logit  = sum_j (weight_aj + weight_bj + weight_cj) input_j                                 three rows of weights

and every decision moves its weights along its error x input. All are integers and sums: decisions go in batches of 16,
judged by what was known before the batch, so that their order within it changes nothing and numpy takes them at once.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from payload.codec.lapped.dense.given import LOGIT_SIDE, squash
from payload.codec.lapped.range_coder import PRECISION

BATCH, TABLES, SETS = 16, 6, 3
INPUTS = TABLES + 1
INPUT_LIMIT = 2047
#: Weights are kept in 2^-32 and used in 2^-16; errors and what is expected are in 2^-16.
WEIGHT_BITS, USED_BITS = 32, 16
#: The first weights: one in all for what the bundle says, .15 for each word.
FIRST_OF_GIVEN, FIRST_OF_WORD = 21845, 3277
#: A counter that has seen more is halved.
MOST_SEEN = 1023
SIGNIFICANCE, SIZE, REFINEMENT, SIGN = range(4)
#: Counters of each kind of decision by context, and rows of weights: payload/codec/lapped/dense/contexts.py.
TABLE_SIZES = (
    (1728, 576, 5184, 1280, 1024, 8192), (512, 1024, 384, 576, 384, 1280), (512, 1024, 384, 576, 384, 1280),
    (576, 576, 108, 2304, 576, 576),
)  # fmt: skip
SET_SIZES = ((20, 128, 36), (16, 20, 32), (16, 20, 32), (20, 9, 8))

Wide = NDArray[np.int64]


def begins(kind: int) -> Wide:
    """Where the tables and the rows of a kind begin among all, [9]."""
    found = []
    for sizes in (TABLE_SIZES, SET_SIZES):
        ends = np.cumsum([0, *np.ravel(np.concatenate(sizes))])
        of_each = len(sizes[0])
        found += ends[kind * of_each : (kind + 1) * of_each].tolist()
    return np.array(found, np.int64)


def log2_of(values: Wide) -> Wide:
    """256 log2 of positive integers and a constant: exponent and eight bits of the mantissa of their float32."""
    return (values.astype(np.float32).view(np.int32) >> 15).astype(np.int64)


class Mixture:
    """Counters and weights of one tile; they know what its layers so far have taught."""

    def __init__(self) -> None:
        rows, counters = np.sum(SET_SIZES), np.sum(np.concatenate(TABLE_SIZES))
        self._weights = np.full((rows, INPUTS), FIRST_OF_WORD << USED_BITS, np.int64)
        self._weights[:, 0] = FIRST_OF_GIVEN << USED_BITS
        self._yes, self._no, self._expected = np.zeros((3, counters), np.int64)
        self._squash = squash().astype(np.int64)

    def code(self, coder: Any, at: Wide, given: Wide, bits: NDArray[np.int32] | None) -> NDArray[np.int32]:
        """Decisions [n] through the coder: at [n, 9] counters and rows, bits [n], None where they are read."""
        found = []
        for first in range(0, len(at), BATCH):
            batch = slice(first, first + BATCH)
            inputs, chance = self._judged(at[batch], given[batch])
            here = coder.take_bits(chance) if bits is None else bits[batch]
            if bits is not None:
                coder.put_bits(here, chance)
            self._learn(at[batch], given[batch], (inputs, chance), here)
            found.append(here)
        return np.concatenate(found) if found else np.zeros(0, np.int32)

    def _judged(self, at: Wide, given: Wide) -> tuple[Wide, Wide]:
        """Inputs [n, 7], and chances of a yes [n] in 2^-24."""
        inputs = np.concatenate([given[:, None], self._words(at[:, :TABLES])], axis=1)
        weights = self._weights[at[:, TABLES:]].sum(axis=1) >> USED_BITS
        logits = (weights * inputs).sum(axis=1) >> (WEIGHT_BITS - USED_BITS)
        return inputs, self._squash[LOGIT_SIDE + np.clip(logits, 1 - LOGIT_SIDE, LOGIT_SIDE - 1)]

    def _words(self, counters: Wide) -> Wide:
        yes, no, expected = self._yes[counters], self._no[counters], self._expected[counters]
        unexpected = ((yes + no) << 16) - expected
        words = log2_of(yes + 1) - log2_of(expected + (1 << 16)) - log2_of(no + 2) + log2_of(unexpected + (2 << 16))
        return np.clip(words, -INPUT_LIMIT, INPUT_LIMIT)

    def _learn(self, at: Wide, given: Wide, judged: tuple[Wide, Wide], bits: NDArray[np.int32]) -> None:
        inputs, chance = judged
        error = (bits.astype(np.int64) << 16) - (chance >> (PRECISION - 16))
        np.add.at(self._weights, at[:, TABLES:], np.repeat((error[:, None] * inputs)[:, None, :], SETS, axis=1))
        counters, yes = at[:, :TABLES].ravel(), bits.astype(np.int64)
        expected = self._squash[LOGIT_SIDE + given] >> (PRECISION - 16)
        for kept, more in ((self._yes, yes), (self._no, 1 - yes), (self._expected, expected)):
            np.add.at(kept, counters, np.repeat(more, TABLES))
        full = np.unique(counters[self._yes[counters] + self._no[counters] > MOST_SEEN])
        self._yes[full] >>= 1
        self._no[full] >>= 1
        most = (self._yes[full] + self._no[full]) << 16
        self._expected[full] = np.minimum(self._expected[full] >> 1, most)
