"""Range coder: symbols under integer probabilities <-> octets.

The coder is that of the `constriction` library (R. Bamler, "Understanding entropy coding with asymmetric numeral
systems", arXiv:2201.01741; its queue coder): 32-bit words, 64-bit state, probabilities of 24 bits. Where the library
has no wheel (aarch64 boards), the plain Python coder below writes and reads the same octets; it is also the library's
referee in the tests, and the definition of the format.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

try:
    import constriction
except ImportError:  # a board without a wheel: PlainEncoder and PlainDecoder take over
    constriction = None  # type: ignore[assignment]

from payload.errors import StreamError

PRECISION = 24
ONE = 1 << PRECISION
_WORD, _STATE = 1 << 32, 1 << 64
NO_ENCODERS = "octets that no encoder writes"


class Table:
    """A distribution over symbols 0..n-1 in integers: `counts` [n], each at least 1, summing to 2^24."""

    def __init__(self, counts: NDArray[np.integer[Any]]) -> None:
        self.counts = [int(c) for c in counts]
        if min(self.counts) < 1 or sum(self.counts) != ONE:
            raise ValueError(f"counts must be positive and sum to {ONE}, they sum to {sum(self.counts)}")
        self.lower = [0]
        for c in self.counts:
            self.lower.append(self.lower[-1] + c)
        self.model = self._library_model() if constriction is not None else None

    def _library_model(self) -> Any:
        # The library turns floats into integers as floor(cumulative x (2^24 - n)) + index. These floats come out as
        # `counts` exactly; the extra quarter keeps rounding away from the floor's edge.
        free = float(ONE - len(self.counts))
        floats = (np.array(self.counts, np.float64) - 1.0) / free
        floats[0] += 0.25 / free
        return constriction.stream.model.Categorical(floats, perfect=False)


#: The library's family of distributions over two symbols, one for each decision.
_DECISIONS = constriction.stream.model.Categorical(perfect=False) if constriction is not None else None


def _decisions(chance: NDArray[np.int64]) -> NDArray[np.float64]:
    """Chances of a one in 2^-24, as floats that the library turns into these very counts (as `Table` does)."""
    counts = np.stack([ONE - chance, chance], 1)
    return (counts - 1.0 + (0.25, 0.0)) / float(ONE - 2)


class LibraryEncoder:
    def __init__(self) -> None:
        self._coder = constriction.stream.queue.RangeEncoder()

    def put(self, symbols: NDArray[np.int32], table: Table) -> None:
        self._coder.encode(symbols, table.model)

    def put_bits(self, bits: NDArray[np.int32], chance: NDArray[np.int64]) -> None:
        """Decisions, each with its chance of a one in 2^-24."""
        self._coder.encode(bits, _DECISIONS, _decisions(chance))

    def octets(self) -> bytes:
        return bytes(self._coder.get_compressed().astype(">u4").tobytes())


class LibraryDecoder:
    def __init__(self, octets: bytes) -> None:
        self._coder = constriction.stream.queue.RangeDecoder(_words(octets))

    def take(self, count: int, table: Table) -> NDArray[np.int32]:
        """The next `count` symbols. StreamError where the octets are no encoder's: past the end of its interval."""
        try:
            return np.asarray(self._coder.decode(table.model, count), np.int32)
        except AssertionError:
            raise StreamError(NO_ENCODERS) from None

    def take_bits(self, chance: NDArray[np.int64]) -> NDArray[np.int32]:
        """The next decisions, as many as there are chances."""
        try:
            return np.asarray(self._coder.decode(_DECISIONS, _decisions(chance)), np.int32)
        except AssertionError:
            raise StreamError(NO_ENCODERS) from None


class PlainEncoder:
    """The same coder in plain integers. `_low` keeps every word already shifted out, so that carries need no state."""

    def __init__(self) -> None:
        self._words: list[int] = []
        self._low, self._range = 0, _STATE - 1

    def put(self, symbols: NDArray[np.int32], table: Table) -> None:
        for symbol in symbols.tolist():
            self._put(table.lower[symbol], table.counts[symbol])

    def put_bits(self, bits: NDArray[np.int32], chance: NDArray[np.int64]) -> None:
        for bit, one in zip(bits.tolist(), chance.tolist(), strict=True):
            self._put((ONE - one) * bit, one if bit else ONE - one)

    def _put(self, lower: int, count: int) -> None:
        scale = self._range >> PRECISION
        self._range = scale * count
        self._low += scale * lower
        if self._low >= _STATE:
            self._low -= _STATE
            self._carry()
        if self._range < _WORD:
            self._range <<= 32
            self._words.append(self._low >> 32)
            self._low = (self._low & (_WORD - 1)) << 32

    def _carry(self) -> None:
        at = len(self._words) - 1
        while self._words[at] == _WORD - 1:
            self._words[at] = 0
            at -= 1
        self._words[at] += 1

    def octets(self) -> bytes:
        if self._range == _STATE - 1:
            return b""
        words = list(self._words)
        point = self._low + _WORD - 1
        if point >= _STATE:
            point -= _STATE
            at = len(words) - 1
            while words[at] == _WORD - 1:
                words[at] = 0
                at -= 1
            words[at] += 1
        words.append(point >> 32)
        if (self._low + self._range) % _STATE >> 32 == point >> 32:
            words.append(0)
        return b"".join(word.to_bytes(4, "big") for word in words)


class PlainDecoder:
    def __init__(self, octets: bytes) -> None:
        self._words = iter(_words(octets).tolist())
        self._offset = next(self._words, 0) << 32 | next(self._words, 0)  # point - low
        self._range = _STATE - 1

    def take(self, count: int, table: Table) -> NDArray[np.int32]:
        from bisect import bisect_right

        found = np.empty(count, np.int32)
        for i in range(count):
            symbol = bisect_right(table.lower, self._quantile()) - 1
            self._narrow(table.lower[symbol], table.counts[symbol])
            found[i] = symbol
        return found

    def take_bits(self, chance: NDArray[np.int64]) -> NDArray[np.int32]:
        found = np.empty(len(chance), np.int32)
        for i, one in enumerate(chance.tolist()):
            bit = self._quantile() >= ONE - one
            self._narrow((ONE - one) * bit, one if bit else ONE - one)
            found[i] = bit
        return found

    def _quantile(self) -> int:
        quantile = self._offset // (self._range >> PRECISION)
        if quantile >= ONE:
            raise StreamError(NO_ENCODERS)
        return quantile

    def _narrow(self, lower: int, count: int) -> None:
        scale = self._range >> PRECISION
        self._offset -= scale * lower
        self._range = scale * count
        if self._range < _WORD:
            self._range <<= 32
            self._offset = (self._offset << 32 | next(self._words, 0)) % _STATE


Encoder: type[LibraryEncoder] | type[PlainEncoder] = PlainEncoder if constriction is None else LibraryEncoder
Decoder: type[LibraryDecoder] | type[PlainDecoder] = PlainDecoder if constriction is None else LibraryDecoder


def _words(octets: bytes) -> NDArray[np.uint32]:
    return np.frombuffer(octets + bytes(-len(octets) % 4), ">u4").astype(np.uint32)
