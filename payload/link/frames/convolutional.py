"""The convolutional code of CCSDS 131.0-B, section 3: rate 1/2, constraint length 7, G1 = 171, G2 = 133 (octal), the
second symbol of each pair inverted. Both directions; the decoder is Viterbi's, over hard or soft symbols.

Twin of payload/native/convolutional.c, bit for bit.
"""

import numpy as np
from numpy.typing import NDArray

from payload.native import library

Octets = NDArray[np.uint8]
GENERATORS = (0o171, 0o133)
MEMORY = 6
STATES = 1 << MEMORY
#: A sure zero and a sure one as soft symbols.
ZERO, ONE = 0, 255


class ConvolutionalEncoder:
    """Octets -> twice as many, symbols of a bit side by side. Runs on from call to call, from the all-zero state."""

    def __init__(self) -> None:
        self._last = np.zeros(MEMORY, np.uint8)

    def encode(self, octets: bytes) -> bytes:
        bits = np.concatenate([self._last, np.unpackbits(np.frombuffer(octets, np.uint8))])  # [6 + n]
        n = len(bits) - MEMORY
        self._last = bits[n:]
        symbols = np.zeros((n, 2), np.uint8)
        for k, generator in enumerate(GENERATORS):
            for delay in range(MEMORY + 1):
                if generator >> (MEMORY - delay) & 1:
                    symbols[:, k] ^= bits[MEMORY - delay : len(bits) - delay]
        symbols[:, 1] ^= 1
        return np.packbits(symbols).tobytes()


def viterbi(symbols: Octets) -> tuple[Octets, int]:
    """Soft symbols [n, 2] -> the likeliest bits [n], begun in any state, and the cost of their path: 255 for every
    sure symbol that is not what they give. Bits near either end are less sure than those between."""
    symbols = np.ascontiguousarray(symbols, np.uint8)
    bits = np.zeros(len(symbols), np.uint8)
    if not library.available:
        return _viterbi(symbols, bits)
    odd = np.empty((len(symbols), STATES), np.uint8)
    spans = (library.span(array, library.U8) for array in (odd, bits))
    return bits, library.call("viterbi", library.span(symbols, library.U8), len(symbols), *spans)


def _viterbi(symbols: Octets, bits: Octets) -> tuple[Octets, int]:
    into = np.arange(STATES)
    parities = [np.array([(2 * s & g).bit_count() & 1 for s in into], np.uint8) for g in GENERATORS]
    flips = np.stack([255 * parities[0], 255 * (1 - parities[1])]).astype(np.uint8)  # [2, state]
    even = 2 * into % STATES
    metrics, odd = np.zeros(STATES, np.int64), np.zeros((len(symbols), STATES), np.uint8)
    for k, (first, second) in enumerate(symbols):
        cost = (first ^ flips[0]).astype(np.int64) + (second ^ flips[1])
        a, b = metrics[even] + cost, metrics[even + 1] + 2 * ONE - cost
        odd[k] = b < a
        metrics = np.minimum(a, b)
    state = int(np.argmin(metrics))
    least = int(metrics[state])
    for k in range(len(symbols) - 1, -1, -1):
        bits[k] = state >> (MEMORY - 1)
        state = (2 * state % STATES) | int(odd[k, state])
    return bits, least
