"""Probabilities of yes-or-no decisions from what the bundle says and what was seen so far in the tile.

A decision comes with the logit that the bundle's tables give it and with contexts, each a counter: how often there was
a yes and a no, and how often the tables expected a yes. By how much the first exceeds the second is that counter's
word. The logit and the words are weighed (logistic mixing: Mahoney, "Adaptive weighing of context models", 2005):

    word_t = log2((yes + 1) / (expected + 1)) - log2((no + n) / (seen - expected + n))         clipped to 8 octaves
    logit  = sum_j (weight_aj + weight_bj + ...) input_j                                       rows of weights

and every decision moves its weights along its error x input. All are integers and sums. A generation of the profile is
a set of numbers: the first one judges batches of 16 by what was known before them; the second one has more contexts and
rows, and what a decision teaches is known to the next one; the third one says the same in half the memory
(payload/codec/lapped/dense/small_mixing.py).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from payload.codec.lapped.dense.given import LOGIT_SIDE, chance_of
from payload.codec.lapped.range_coder import PRECISION

INPUT_LIMIT = 2047
#: Weights are kept in 2^-32 and used in 2^-16; errors and what is expected are in 2^-16.
WEIGHT_BITS, USED_BITS = 32, 16
#: The first weights in all, in 2^-16: of what the bundle says, and of the words together.
FIRST_OF_GIVEN, FIRST_OF_WORDS = 65536, 58990
#: A counter that has seen more is halved.
MOST_SEEN = 1023
SIGNIFICANCE, SIZE, REFINEMENT, SIGN = range(4)
#: Counters of each kind of decision by context, and rows of weights: payload/codec/lapped/dense/contexts.py.
TABLE_SIZES = (
    (1728, 576, 5184, 1280, 1024, 8192, 2880, 4096, 8192, 3456),
    *((512, 1024, 384, 576, 384, 1280, 2048),) * 2,
    (576, 576, 108, 2304, 576, 576, 6912, 3072, 5184),
)
SET_SIZES = ((20, 128, 36, 256, 64, 36), *((16, 20, 32, 256, 32),) * 2, (20, 9, 8))


@dataclass(frozen=True)
class Generation:
    """Decisions that are judged before any of them teaches; what a counter's no begins with; how many contexts of each
    kind have counters, the first of them; and which contexts choose rows of weights."""

    batch: int
    no_prior: int
    counters: tuple[int, int, int, int]
    rows: tuple[tuple[int, ...], ...]


GENERATIONS = (
    Generation(16, 2, (6, 6, 6, 6), ((0, 1, 2),) * 4),
    *(Generation(1, 1, (10, 7, 7, 9), ((0, 2, 3, 4, 5), (0, 1, 2, 3, 4), (0, 1, 2, 3, 4), (0, 1, 2))),) * 2,
)
FIRST, SECOND, THIRD = range(3)
INPUTS = 1 + max(max(each.counters) for each in GENERATIONS)

Wide = NDArray[np.int64]


def begins(kind: int, generation: int) -> tuple[Wide, Wide]:
    """Where the counters and the rows of a kind begin among all, of those that a generation has."""
    of_counters, of_rows = (
        np.cumsum([0, *sum(sizes[:kind], ()), *sizes[kind]])[len(sum(sizes[:kind], ())) :]
        for sizes in (TABLE_SIZES, SET_SIZES)
    )
    here = GENERATIONS[generation]
    return of_counters[: here.counters[kind]], of_rows[list(here.rows[kind])]


@dataclass(frozen=True, eq=False)
class Decisions:
    """Decisions of one kind, in order: which kind, counters [n, C] and rows of weights [n, R], what the tables say of
    them [n], which ones there are [n] (None: they are read), and sizes [n] in 128ths of a step of those that may be
    left out where they are not worth their octets, 255 of others (None: none may)."""

    kind: int
    counters: Wide
    rows: Wide
    given: Wide
    bits: NDArray[np.int32] | None
    sizes: Wide | None = None
    rebuilt64: int = 64


def log2_of(values: Wide) -> Wide:
    """256 log2 of positive integers and a constant: exponent and eight bits of the mantissa of their float32."""
    return (values.astype(np.float32).view(np.int32) >> 15).astype(np.int64)


def least_worth(logits: Wide, rebuilt64: int) -> Wide:
    """The least size, in 128ths of a step, of a magnitude of one that is worth its octets at these logits, where it is
    rebuilt at so many 64ths of a step: it removes at least .175 squared steps of error per bit. The sender's own."""
    return rebuilt64 + 14 * (256 - np.minimum(logits, 0)) // (5 * rebuilt64)


class Mixture:
    """Counters and weights of one tile; they know what its layers so far have taught. Those of the first and the second
    generation; payload.codec.lapped.dense.small_mixing.open_mixture gives one of any."""

    def __init__(self, generation: int) -> None:
        self.generation, self._of = generation, GENERATIONS[generation]
        sizes, counters = sum(SET_SIZES, ()), sum(sum(TABLE_SIZES, ()))
        self._weights = np.zeros((sum(sizes), INPUTS), np.int64)
        ends, first = np.cumsum([0, *map(sum, SET_SIZES)]), self._weights
        for kind, words in enumerate(self._of.counters):
            of_kind, rows = first[ends[kind] : ends[kind + 1]], len(self._of.rows[kind])
            of_kind[:, 0] = FIRST_OF_GIVEN // rows << USED_BITS
            of_kind[:, 1 : 1 + words] = FIRST_OF_WORDS // (words * rows) << USED_BITS
        self._yes, self._no, self._expected = np.zeros((3, counters), np.int64)

    def code(
        self, coder: Any, decisions: Decisions, ready: Callable[[int], None] | None = None,
        tell: Callable[[int, int], None] | None = None,
    ) -> NDArray[np.int32]:  # fmt: skip
        """Decisions through the coder: which they were. `ready` completes the contexts of the one by its number, `tell`
        hears of each what it was."""
        found = np.zeros(len(decisions.given), np.int32)
        for first in range(0, len(found), self._of.batch):
            batch = slice(first, first + self._of.batch)
            if ready is not None:
                ready(first)
            found[batch] = self._code_batch(coder, decisions, batch)
            if tell is not None:
                tell(first, int(found[first]))
        return found

    def _code_batch(self, coder: Any, d: Decisions, batch: slice) -> NDArray[np.int32]:
        at = d.counters[batch], d.rows[batch], d.given[batch]
        inputs, logits = self._judged(*at)
        chance = chance_of(logits)
        if d.bits is None:
            bits = coder.take_bits(chance)
        else:
            bits = d.bits[batch]
            if d.sizes is not None:
                bits = bits & (d.sizes[batch] >= least_worth(logits, d.rebuilt64))
            coder.put_bits(bits.astype(np.int32), chance)
        self._learn(d.kind, at, (inputs, chance), bits)
        return np.asarray(bits, np.int32)

    def _judged(self, counters: Wide, rows: Wide, given: Wide) -> tuple[Wide, Wide]:
        """Inputs [n, 1 + C], and logits of a yes [n]."""
        inputs = np.concatenate([given[:, None], self._words(counters)], axis=1)
        weights = self._weights[rows, : inputs.shape[1]].sum(axis=1) >> USED_BITS
        logits = (weights * inputs).sum(axis=1) >> (WEIGHT_BITS - USED_BITS)
        return inputs, np.clip(logits, 1 - LOGIT_SIDE, LOGIT_SIDE - 1)

    def _words(self, counters: Wide) -> Wide:
        yes, no, expected = self._yes[counters], self._no[counters], self._expected[counters]
        prior = self._of.no_prior
        unexpected = ((yes + no + prior) << 16) - expected
        words = log2_of(yes + 1) - log2_of(expected + (1 << 16)) - log2_of(no + prior) + log2_of(unexpected)
        return np.clip(words, -INPUT_LIMIT, INPUT_LIMIT)

    def _learn(
        self, kind: int, at: tuple[Wide, Wide, Wide], judged: tuple[Wide, Wide], bits: NDArray[np.int32]
    ) -> None:
        (counters, rows, given), (inputs, chance) = at, judged
        error = (bits.astype(np.int64) << 16) - (chance >> (PRECISION - 16))
        step = (error[:, None] * inputs)[:, None, :]
        np.add.at(self._weights[:, : inputs.shape[1]], rows, np.repeat(step, rows.shape[1], axis=1))
        words, flat, yes = counters.shape[1], counters.ravel(), bits.astype(np.int64)
        expected = chance_of(given) >> (PRECISION - 16)
        for kept, more in ((self._yes, yes), (self._no, 1 - yes), (self._expected, expected)):
            np.add.at(kept, flat, np.repeat(more, words))
        full = np.unique(flat[self._yes[flat] + self._no[flat] > MOST_SEEN])
        self._yes[full] >>= 1
        self._no[full] >>= 1
        most = (self._yes[full] + self._no[full]) << 16
        self._expected[full] = np.minimum(self._expected[full] >> 1, most)
