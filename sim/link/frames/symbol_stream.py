"""Convolutionally coded octets in pieces of any length -> octets, decoded block by block with overlap.

Which symbol is the first of a pair is not known: where a block's path costs too much, the other way of pairing is tried
and kept if it fits better. A block begins in any state, warmed up over the bits before it.
"""

import numpy as np
from numpy.typing import NDArray

from payload.link.frames.convolutional import viterbi

Octets = NDArray[np.uint8]
BLOCK_BITS, OVERLAP_BITS = 4096, 128
#: Share of symbols turned round on the best path beyond which the pairing is doubted. Noise alone has about 0.11.
DOUBTFUL = 0.06


class SymbolStream:
    """`cost` is the share of symbols that the decoder turned round, over all blocks."""

    def __init__(self) -> None:
        self._symbols = np.zeros(0, np.uint8)  # from the overlap before the next block on
        self._before = 0  # bits of overlap before it: none at the beginning
        self._bits = np.zeros(0, np.uint8)  # decoded bits that make no octet yet
        self.turned, self.seen = 0.0, 0
        self.pairings_changed = 0

    def push(self, octets: bytes) -> bytes:
        """The octets that can be decoded by now."""
        fresh = np.unpackbits(np.frombuffer(octets, np.uint8)) * np.uint8(255)
        self._symbols = np.concatenate([self._symbols, fresh])
        while len(self._symbols) > 2 * (self._before + BLOCK_BITS + OVERLAP_BITS):
            self._block(BLOCK_BITS, OVERLAP_BITS)
        return self._octets()

    def finish(self) -> bytes:
        """The rest, filled up with zeros to an octet, its last bits less sure."""
        left = len(self._symbols) // 2 - self._before
        if left > 0:
            self._block(left, 0)
        last, self._bits = np.packbits(self._bits).tobytes(), self._bits[:0]
        return last

    def _block(self, bits: int, after: int) -> None:
        symbols = 2 * (self._before + bits + after)
        found, cost = viterbi(self._symbols[:symbols].reshape(-1, 2))
        if cost > DOUBTFUL * 255 * symbols and len(self._symbols) > symbols:
            other, other_cost = viterbi(self._symbols[1 : symbols + 1].reshape(-1, 2))
            if other_cost < 0.75 * cost:
                found, cost, self._symbols = other, other_cost, self._symbols[1:]
                self.pairings_changed += 1
        self.turned, self.seen = self.turned + cost / 255, self.seen + symbols
        self._bits = np.concatenate([self._bits, found[self._before : self._before + bits]])
        begin = max(0, self._before + bits - OVERLAP_BITS)
        self._symbols, self._before = self._symbols[2 * begin :], self._before + bits - begin

    def _octets(self) -> bytes:
        whole = len(self._bits) // 8 * 8
        octets, self._bits = np.packbits(self._bits[:whole]).tobytes(), self._bits[whole:]
        return octets
