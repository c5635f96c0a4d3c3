"""What the bundle's tables say of single decisions, as logits, and the table that turns logits into chances.

Logits are integers in 256ths of an octave: 256 log2(yes / no). The tables of symbols were fitted by training; here they
are read as decisions, so that the profile `dense` needs nothing of a bundle that `fast` does not have.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from payload.codec.lapped.context_model import CLASSES, LOGIT_BITS
from payload.codec.lapped.range_coder import ONE
from payload.codec.lapped.tables import ESCAPE, LayerTables

OCTAVE = 256
#: Logits are below this, either way.
LOGIT_SIDE = 4096


@dataclass(frozen=True, eq=False)
class Given:
    """Logits of one layer, int16: of a coefficient to become significant by class [32], of a size to be more than v by
    class div 4 and v [8, 16] (v = 0 is not used), of the next bit by min(coarser magnitude, 3) - 1 [3]."""

    of_class: NDArray[np.int16]
    of_size: NDArray[np.int16]
    of_new_bit: NDArray[np.int16]


@lru_cache(maxsize=1)
def squash() -> NDArray[np.uint32]:
    """The chance of a yes in 2^-24 by logits from 0 on, [4096]."""
    logits = np.arange(LOGIT_SIDE, dtype=np.float64)
    chances = np.rint(ONE / (1.0 + np.exp2(-logits / OCTAVE)))
    return np.minimum(chances, ONE - (1 << 8)).astype(np.uint32)


def chance_of(logits: NDArray[np.int64]) -> NDArray[np.int64]:
    """The chance of a yes in 2^-24 by logits below LOGIT_SIDE either way: of -x what that of x leaves."""
    chances = squash()[np.abs(logits)].astype(np.int64)
    return np.where(logits < 0, ONE - chances, chances)


def given_of(tables: LayerTables) -> Given:
    of_class = [_of_runs(table.counts) for table in tables.runs]
    of_size = [[0, *(_logit(sum(t.counts[v:]), t.counts[v - 1]) for v in range(1, ESCAPE))] for t in tables.size]
    of_new_bit = [_logit(table.counts[1], table.counts[0]) for table in tables.refinement]
    return Given(*(np.array(logits, np.int16) for logits in (of_class, of_size, of_new_bit)))


def of_logits(of_class: NDArray[np.int16], logits: NDArray[np.int32]) -> NDArray[np.int64]:
    """Between the logits of two classes: `logits` of the context model, 0 where class 0 begins."""
    beyond = np.maximum(logits.astype(np.int64) - (1 << (LOGIT_BITS - 1)), 0)
    below = np.minimum(beyond >> LOGIT_BITS, CLASSES - 2)
    part = np.minimum(beyond - (below << LOGIT_BITS), 1 << LOGIT_BITS)
    wide = of_class.astype(np.int64)
    return wide[below] + (((wide[below + 1] - wide[below]) * part) >> LOGIT_BITS)


def _of_runs(counts: Sequence[int]) -> int:
    """Of a table of runs: token t < M is t zeros and a one, token M is M zeros."""
    *ended, open_ = counts
    ones, zeros = sum(ended), sum(t * count for t, count in enumerate(ended)) + len(ended) * open_
    return _logit(ones, zeros)


def _logit(yes: int, no: int) -> int:
    return max(1 - LOGIT_SIDE, min(round(OCTAVE * math.log2(yes / max(no, 1))), LOGIT_SIDE - 1))
