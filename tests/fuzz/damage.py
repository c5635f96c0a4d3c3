"""What can happen to octets on their way: each kind of damage takes a generator and octets, and gives other octets."""

from collections.abc import Callable

import numpy as np

Rng = np.random.Generator
Damage = Callable[[Rng, bytes], bytes]


def flipped_bits(rng: Rng, octets: bytes) -> bytes:
    found = bytearray(octets)
    for bit in rng.integers(8 * len(found), size=int(rng.choice([1, 2, 3, 4, 6, 10, 40]))):
        found[bit >> 3] ^= 0x80 >> (bit & 7)
    return bytes(found)


def burst(rng: Rng, octets: bytes) -> bytes:
    """Up to 64 bits in a row, each flipped or not."""
    length = int(rng.integers(17, 65))
    pattern = int.from_bytes(rng.bytes(8), "big") >> (64 - length) | 1
    shift = int(rng.integers(0, max(1, 8 * len(octets) - length)))
    value = int.from_bytes(octets, "big") ^ pattern << shift
    return (value & (1 << 8 * len(octets)) - 1).to_bytes(len(octets), "big")


def generator_shifted(rng: Rng, octets: bytes) -> bytes:
    """The damage that a CRC-16 of packets cannot see."""
    shift = int(rng.integers(0, max(1, 8 * len(octets) - 17)))
    value = int.from_bytes(octets, "big") ^ 0x11021 << shift
    return (value & (1 << 8 * len(octets)) - 1).to_bytes(len(octets), "big")


def overwritten(rng: Rng, octets: bytes) -> bytes:
    at, length = int(rng.integers(len(octets))), int(rng.integers(1, 33))
    return octets[:at] + rng.bytes(min(length, len(octets) - at)) + octets[at + length :]


def all_one_value(rng: Rng, octets: bytes) -> bytes:
    at = int(rng.integers(len(octets)))
    return octets[:at] + bytes([int(rng.choice([0, 255, 0x55]))]) * (len(octets) - at)


def cut_short(rng: Rng, octets: bytes) -> bytes:
    return octets[: int(rng.integers(len(octets)))]


def octets_lost(rng: Rng, octets: bytes) -> bytes:
    at = int(rng.integers(len(octets)))
    return octets[:at] + octets[at + int(rng.integers(1, 20)) :]


def octets_added(rng: Rng, octets: bytes) -> bytes:
    at = int(rng.integers(len(octets) + 1))
    return octets[:at] + rng.bytes(int(rng.integers(1, 20))) + octets[at:]


def slipped_bit(rng: Rng, octets: bytes) -> bytes:
    """A bit too many at the front, one too few at the end."""
    value = int.from_bytes(octets, "big") >> 1 | int(rng.integers(2)) << (8 * len(octets) - 1)
    return value.to_bytes(len(octets), "big")


def noise(rng: Rng, octets: bytes) -> bytes:
    return rng.bytes(len(octets))


KINDS: tuple[Damage, ...] = (
    flipped_bits, flipped_bits, flipped_bits, burst, burst, generator_shifted, overwritten, all_one_value, cut_short,
    octets_lost, octets_added, slipped_bit, noise,
)  # fmt: skip


def damaged(rng: Rng, octets: bytes) -> bytes:
    return KINDS[int(rng.integers(len(KINDS)))](rng, octets) if octets else rng.bytes(3)
