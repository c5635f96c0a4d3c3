"""Reed-Solomon of CCSDS 131.0-B: (255,223) and (255,239), interleaved, in the dual basis or the usual one.

Symbols are of GF(2^8) with x^8 + x^7 + x^2 + x + 1; the code's roots are b^(128-E) .. b^(127+E) with b = a^11 and E, 16
or 8, the symbols that can be corrected. Symbol s of codeword c lies at octet s I + c of a block of I codewords. A block
shorter than I (255 - 2 E) octets of data is a shortened code: zeros before it are thought of and not sent (virtual
fill). Twin of payload/native/reed_solomon.c, symbol for symbol.
"""

from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np
from numpy.typing import NDArray

from payload.errors import InputError
from payload.native import library

Octets = NDArray[np.uint8]
FIELD = 0x187
SYMBOLS = 255
#: Row i is what bit 7 - i of a symbol in the usual basis gives in the dual one (131.0-B, annex F).
TO_DUAL = (0x8D, 0xEF, 0xEC, 0x86, 0xFA, 0x99, 0xAF, 0x7B)
UNCORRECTABLE = -1


def _powers() -> tuple[Octets, Octets]:
    """exp [512] and log [256] to the base b = a^11; exp runs on, so that sums of two logarithms need no modulo."""
    of_a, exp, log = [1], np.zeros(512, np.uint8), np.zeros(256, np.uint8)
    for _ in range(254):
        doubled = of_a[-1] << 1
        of_a.append(doubled ^ FIELD if doubled > 255 else doubled)
    for k in range(512):
        exp[k] = of_a[11 * k % SYMBOLS]
    log[exp[:SYMBOLS]] = np.arange(SYMBOLS, dtype=np.uint8)
    return exp, log


EXP, LOG = _powers()


def multiply(x: NDArray[np.uint8], y: NDArray[np.uint8]) -> Octets:
    """Products of symbols in the usual basis."""
    product: Octets = EXP[LOG[x].astype(int) + LOG[y]] * ((x != 0) & (y != 0))
    return product


def _basis() -> tuple[Octets, Octets]:
    """Tables [256]: usual basis to dual, and back."""
    bits = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1)
    to_dual: Octets = np.bitwise_xor.reduce(bits * np.array(TO_DUAL, np.uint8), axis=1)
    from_dual = np.zeros(256, np.uint8)
    from_dual[to_dual] = np.arange(256, dtype=np.uint8)
    return to_dual, from_dual


@cache
def _generator(parity: int) -> Octets:
    """Coefficients [parity + 1] of the code's generator, highest power first; it reads the same backwards."""
    poly = np.ones(1, np.uint8)
    for j in range(128 - parity // 2, 128 + parity // 2):
        shifted = np.append(poly, np.uint8(0))
        shifted[1:] ^= multiply(poly, EXP[j : j + 1])
        poly = shifted
    return poly


@dataclass(frozen=True)
class ReedSolomon:
    """`parity` 32 or 16 symbols a codeword, of which half can be corrected; `interleave` 1 to 8 codewords a block;
    `data_symbols` of a codeword, at most 255 - parity."""

    parity: int = 32
    interleave: int = 5
    dual_basis: bool = True
    data_symbols: int = 223

    def __post_init__(self) -> None:
        if self.parity not in (16, 32):
            raise InputError(f"parity is {self.parity} symbols, wanted 32 or 16")
        if not 1 <= self.interleave <= 8:
            raise InputError(f"interleave is {self.interleave}, wanted 1 to 8")
        if not 1 <= self.data_symbols <= SYMBOLS - self.parity:
            raise InputError(f"{self.data_symbols} symbols of data, wanted 1 to {SYMBOLS - self.parity}")

    @property
    def data_octets(self) -> int:
        return self.data_symbols * self.interleave

    @property
    def coded_octets(self) -> int:
        return (self.data_symbols + self.parity) * self.interleave

    def encode(self, data: Octets) -> Octets:
        """Blocks [n, data_octets] -> [n, coded_octets]: the data as they are, then the parity."""
        blocks = np.zeros((len(data), self.coded_octets), np.uint8)
        blocks[:, : self.data_octets] = data
        if library.available:
            library.call("rs_encode", *self._handed(blocks))
        else:
            words = self._words(blocks)
            words[:, self.data_symbols :] = self._remainders(words)
            blocks = self._blocks(words)
        return blocks

    def decode(self, blocks: Octets) -> tuple[Octets, NDArray[np.int8]]:
        """Blocks [n, coded_octets] -> data [n, data_octets] and, per codeword [n, interleave], how many symbols were
        corrected or UNCORRECTABLE: then its data are as they came."""
        blocks = np.ascontiguousarray(blocks, np.uint8).copy()
        corrected = np.zeros((len(blocks), self.interleave), np.int8)
        if library.available:
            library.call("rs_decode", *self._handed(blocks), library.span(corrected, library.I8))
        else:
            blocks = self._decode_words(blocks, corrected.reshape(-1))
        return blocks[:, : self.data_octets], corrected

    @cached_property
    def tables(self) -> Octets:
        """What both twins compute with, one after the other: exp 512, log 256, symbols to the usual basis 256 and back
        256, and for each first symbol of a division what it takes from the `parity` symbols behind it [256, parity]."""
        same = np.arange(256, dtype=np.uint8)
        to_dual, from_dual = _basis() if self.dual_basis else (same, same)
        taken = to_dual[multiply(from_dual[:, None], _generator(self.parity)[None, 1:])]
        return np.concatenate([EXP, LOG, from_dual, to_dual, taken.reshape(-1)])

    def _handed(self, blocks: Octets) -> tuple[object, ...]:
        spans = library.span(blocks, library.U8), library.span(self.tables, library.U8)
        return (*spans, len(blocks), self.data_symbols, self.parity, self.interleave)

    def _words(self, blocks: Octets) -> Octets:
        """Codewords [n x interleave, symbols] of blocks."""
        words = blocks.reshape(len(blocks), -1, self.interleave).transpose(0, 2, 1)
        return words.reshape(len(blocks) * self.interleave, -1).copy()

    def _blocks(self, words: Octets) -> Octets:
        grouped = words.reshape(-1, self.interleave, words.shape[1]).transpose(0, 2, 1)
        return np.ascontiguousarray(grouped).reshape(len(words) // self.interleave, -1)

    def _remainders(self, words: Octets) -> Octets:
        """[n, parity] of codewords divided by the generator, in the basis of the words."""
        taken = self.tables[1280:].reshape(256, self.parity)
        work = words.copy()
        for k in range(self.data_symbols):
            work[:, k + 1 : k + 1 + self.parity] ^= taken[work[:, k]]
        return work[:, self.data_symbols :]

    def _decode_words(self, blocks: Octets, corrected: NDArray[np.int8]) -> Octets:
        words = self._words(blocks)
        remainders = self.tables[768:1024][self._remainders(words)]
        for n in np.flatnonzero(remainders.any(axis=1)):
            errors = _find_errors(remainders[n], words.shape[1])
            corrected[n] = UNCORRECTABLE if errors is None else len(errors)
            for place, value in errors or ():
                words[n, place] ^= self.tables[1024 + value]
        return self._blocks(words)


def _times(x: int, y: int) -> int:
    return int(EXP[int(LOG[x]) + int(LOG[y])]) if x and y else 0


def _over(x: int, y: int) -> int:
    return int(EXP[int(LOG[x]) + SYMBOLS - int(LOG[y])]) if x else 0


def _value(poly: list[int], power: int) -> int:
    """A polynomial, lowest power first, at b^power."""
    total = 0
    for k, coefficient in enumerate(poly):
        total ^= _times(coefficient, int(EXP[power * k % SYMBOLS]))
    return total


def _find_errors(remainder: Octets, symbols: int) -> list[tuple[int, int]] | None:
    """Places and values of the errors in a word of so many symbols, of which the remainder is known (usual basis); None
    where more than half the parity are wrong."""
    parity = len(remainder)
    first = 128 - parity // 2
    syndromes = [_value([int(v) for v in remainder[::-1]], first + j) for j in range(parity)]
    locator = _berlekamp_massey(syndromes)
    if len(locator) - 1 > parity // 2:
        return None
    powers = [p for p in range(symbols) if _value(locator, SYMBOLS - p) == 0]
    if len(powers) != len(locator) - 1:
        return None
    evaluator = [0] * parity
    for i, x in enumerate(locator):
        for j in range(parity - i):
            evaluator[i + j] ^= _times(x, syndromes[j])
    slope = [x if k % 2 == 0 else 0 for k, x in enumerate(locator[1:])]
    errors = []
    for p in powers:
        value = _over(_value(evaluator, SYMBOLS - p), _value(slope, SYMBOLS - p))
        errors.append((symbols - 1 - p, _times(value, int(EXP[p * (SYMBOLS + 1 - first) % SYMBOLS]))))
    return errors


def _berlekamp_massey(syndromes: list[int]) -> list[int]:
    """The error locator, lowest power first, its last coefficient not zero (Massey 1969)."""
    locator, before, length, gap, last = [1], [1], 0, 1, 1
    for n, syndrome in enumerate(syndromes):
        wrong = syndrome
        for i in range(1, min(length, len(locator) - 1) + 1):
            wrong ^= _times(locator[i], syndromes[n - i])
        if wrong == 0:
            gap += 1
            continue
        factor, kept = _over(wrong, last), locator
        longer = [0] * gap + [_times(factor, x) for x in before]
        size = max(len(locator), len(longer))
        locator = [a ^ b for a, b in zip(_padded(locator, size), _padded(longer, size), strict=True)]
        if 2 * length <= n:
            before, length, gap, last = kept, n + 1 - length, 1, wrong
        else:
            gap += 1
    while locator[-1] == 0:
        locator.pop()
    return locator if len(locator) - 1 == length else [1] * (len(syndromes) + 1)  # no locator of that length: too many


def _padded(poly: list[int], size: int) -> list[int]:
    return poly + [0] * (size - len(poly))
