"""The self-test: a known tile, its known octets, and what those decode to.

The tile is made of integers alone, so that no library can draw it differently. Its octets and indices are the same on
every machine; self_tests.json has their CRCs by bundle. A bundle that is not listed is learnt at its first start.

A scene of a few tiles must not pay for a test of the size of one: only a corner of the tile has detail, so that every
layer holds something and the entropy coder has little to do.
"""

import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from payload.codec.interface import Codec, CodedTile, Quality
from payload.guard.checksum import crc_of
from payload.stopwatch import Stopwatch
from payload.tiles import Tile

KNOWN = Path(__file__).with_name("self_tests.json")
#: Fine enough that every layer holds something.
QUALITY = Quality(step_dn=200.0)
#: Finer, since a small tile holds less: its octets change with nearly every array of the encoder.
SHORT_QUALITY = Quality(step_dn=50.0)


@dataclass(frozen=True)
class Vector:
    """CRC-32 of the known tile's side information and layers, and of the indices they decode to."""

    octets: int
    indices: int


@lru_cache(maxsize=2)
def known_tile(bands: int, side: int) -> Tile:
    """Like ground in its upper left corner, a slope elsewhere."""
    part, dn = side // 4, np.empty((bands, side, side), np.uint16)
    dn[:] = 900 + np.add.outer(np.arange(side), np.arange(side)) // 4
    dn[:, :part, :part] = ground_like(bands, part)
    return Tile(0, 0, dn, np.ones((side, side), bool))


def ground_like(bands: int, side: int) -> NDArray[np.uint16]:
    """Slopes, edges and noise, bands alike but for gain and noise; 1 to 9000 DN. [bands, side, side]"""
    y, x = np.mgrid[:side, :side].astype(np.uint64)
    relief = (x * 3 + y * 2 + (((x // 17) * (y // 23)) % 5) * 120) % 1400
    dn = [900 + 150 * b + (relief * (3 + b) >> 2) + _noise(x, y, b) % (60 + 40 * b) for b in range(bands)]
    return np.stack(dn).astype(np.uint16)


def _noise(x: Any, y: Any, seed: int) -> Any:
    """A hash of places: integers mod 2^64 (the finaliser of splitmix64, Steele et al. 2014)."""
    z = (x * 0x9E3779B1 + y * 0x85EBCA77 + np.uint64(seed * 0xC2B2AE3D)) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def coded_by(codec: Codec, bands: int, side: int) -> CodedTile:
    """The known tile, coded."""
    return codec.encode(known_tile(bands, side), QUALITY, Stopwatch())


class ShortTest:
    """A small tile through the same memory, and what it gave when the codec was loaded: a scene of a few tiles must not
    pay for a test of the size of one."""

    def __init__(self, codec: Codec, bands: int, side: int) -> None:
        """`codec` takes tiles of `side` px."""
        self._codec = codec
        self._tile = Tile(0, 0, ground_like(bands, side), np.ones((side, side), bool))
        self._octets = self.octets()

    def octets(self) -> int:
        """CRC-32 of the tile as it is coded now."""
        return octets_crc(self._codec.encode(self._tile, SHORT_QUALITY, Stopwatch()))

    def passes(self) -> bool:
        """Whether it is coded as it was."""
        try:
            return self.octets() == self._octets
        except Exception:  # memory that was hit may show as any error
            return False


def short_test(codec: Codec, bands: int) -> ShortTest | None:
    """The short test of a codec that can code smaller tiles by the same memory; None where it cannot."""
    smallest = codec.smallest() if hasattr(codec, "smallest") else None
    return None if smallest is None else ShortTest(smallest[0], bands, smallest[1])


def vector_of(codec: Codec, coded: CodedTile) -> Vector:
    """What the codec made of the known tile. StreamError where it cannot read its own octets."""
    return Vector(octets_crc(coded), crc_of(codec.finest(codec.decode(coded.side, coded.base_layers))))


def octets_crc(coded: CodedTile) -> int:
    """CRC-32 over side information and layers."""
    return crc32(b"".join((coded.side, *coded.layers)))


def known_vectors() -> dict[int, Vector]:
    """Vectors by bundle id."""
    table = json.loads(KNOWN.read_text(encoding="ascii"))
    return {int(name, 16): Vector(int(v["octets"], 16), int(v["indices"], 16)) for name, v in table.items()}
