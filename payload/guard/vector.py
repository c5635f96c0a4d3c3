"""The self-test: a known tile, its known octets, and what those decode to.

The tile is made of integers alone, so that no library can draw it differently. Its octets and indices are the same on
every machine; self_tests.json has their CRCs by bundle. A bundle that is not listed is learnt at its first start.
"""

import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np

from payload.codec.interface import Codec, CodedTile, Quality
from payload.guard.checksum import crc_of as crc_of_array
from payload.stopwatch import Stopwatch
from payload.tiles import Tile

KNOWN = Path(__file__).with_name("self_tests.json")
#: Fine enough that every layer holds something.
QUALITY = Quality(step_dn=80.0)


@dataclass(frozen=True)
class Vector:
    """CRC-32 of the known tile's side information and layers, and of the indices they decode to."""

    octets: int
    indices: int


@lru_cache(maxsize=2)
def known_tile(bands: int, side: int) -> Tile:
    """Ground-like: slopes, edges and noise, bands alike but for gain and noise; every value from 1 to 9000 DN."""
    y, x = np.mgrid[:side, :side].astype(np.uint64)
    relief = (x * 3 + y * 2 + (((x // 17) * (y // 23)) % 5) * 120) % 1400
    dn = [900 + 150 * b + (relief * (3 + b) >> 2) + _noise(x, y, b) % (60 + 40 * b) for b in range(bands)]
    return Tile(0, 0, np.stack(dn).astype(np.uint16), np.ones((side, side), bool))


def _noise(x: Any, y: Any, seed: int) -> Any:
    """A hash of places: integers mod 2^64 (the finaliser of splitmix64, Steele et al. 2014)."""
    z = (x * 0x9E3779B1 + y * 0x85EBCA77 + np.uint64(seed * 0xC2B2AE3D)) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def vector_of(codec: Codec, bands: int, side: int) -> Vector:
    """What the codec makes of the known tile. StreamError where it cannot read its own octets."""
    coded = codec.encode(known_tile(bands, side), QUALITY, Stopwatch())
    found = codec.finest(codec.decode(coded.side, coded.layers))
    return Vector(crc_of(coded), crc_of_array(found))


def crc_of(coded: CodedTile) -> int:
    """CRC-32 over side information and layers."""
    return crc32(b"".join((coded.side, *coded.layers)))


def known_vectors() -> dict[int, Vector]:
    """Vectors by bundle id."""
    table = json.loads(KNOWN.read_text(encoding="ascii"))
    return {int(name, 16): Vector(int(v["octets"], 16), int(v["indices"], 16)) for name, v in table.items()}
