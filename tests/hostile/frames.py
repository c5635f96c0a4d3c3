"""What the kernel may be handed of coded frames by an enemy: words beyond correction, tables that lie, any lengths."""

import numpy as np

from payload.errors import InputError
from payload.link.frames.convolutional import viterbi
from payload.link.frames.reed_solomon import ReedSolomon
from payload.native import library

Rng = np.random.Generator


def case(rng: Rng, compare: bool) -> str:
    """One call of the decoders, with the code's own tables or with octets in their place."""
    how = rng.integers(3)
    if how == 0:
        return soft_symbols(rng, compare)
    return damaged_words(rng, compare) if how == 1 else hostile_tables(rng)


def some_code(rng: Rng) -> ReedSolomon:
    parity = int(rng.choice([16, 32]))
    symbols = int(rng.choice([1, 2, 100, 255 - parity]))
    return ReedSolomon(parity, int(rng.integers(1, 9)), bool(rng.random() < 0.5), symbols)


def damaged_words(rng: Rng, compare: bool) -> str:
    code = some_code(rng)
    blocks = code.encode(rng.integers(0, 256, (int(rng.integers(0, 4)), code.data_octets), dtype=np.uint8))
    blocks ^= rng.integers(0, 256, blocks.shape, dtype=np.uint8) * (rng.random(blocks.shape) < rng.random() ** 3)
    data, corrected = code.decode(blocks)
    if compare:
        library.available = False
        try:
            told = code.decode(blocks)
        finally:
            library.available = True
        assert np.array_equal(data, told[0]) and np.array_equal(corrected, told[1]), "C and numpy decode differently"
    return "words decoded"


def hostile_tables(rng: Rng) -> str:
    code, n = some_code(rng), int(rng.integers(0, 4))
    count = int(rng.choice([0, 1280, 1280 + 256 * code.parity, 1280 + 256 * code.parity - 1]))
    blocks = rng.integers(0, 256, max(0, n * code.coded_octets - int(rng.integers(0, 2))), dtype=np.uint8)
    spans = [library.span(array, library.U8) for array in (blocks, rng.integers(0, 256, count, dtype=np.uint8))]
    corrected = library.span(np.zeros(n * code.interleave, np.int8), library.I8)
    try:
        for entry, more in (("rs_encode", ()), ("rs_decode", (corrected,))):
            library.call(entry, *spans, n, code.data_symbols, code.parity, code.interleave, *more)
        return "hostile tables ran"
    except InputError:
        return "hostile tables refused"


def soft_symbols(rng: Rng, compare: bool) -> str:
    symbols = rng.integers(0, 256, (int(rng.integers(1, 300)), 2), dtype=np.uint8)
    symbols[rng.random(symbols.shape) < rng.random()] = 255 * (rng.random() < 0.5)
    bits, cost = viterbi(symbols)
    if compare:
        library.available = False
        try:
            told = viterbi(symbols)
        finally:
            library.available = True
        assert np.array_equal(bits, told[0]) and cost == told[1], "C and numpy decode differently"
    return "symbols decoded"
