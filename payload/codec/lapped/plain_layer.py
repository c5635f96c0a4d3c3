"""A layer as plain bits: what a tile costs at most. Taken where the context model, which knows ground, is at a loss.

    | 1 active 15 | activity 8 x B | width 8 x B, layer 0 only | magnitudes | signs |

Magnitudes by rank, row, column: in layer 0 as many bits as the band's width says, in the others the one bit that is
new. Then a sign bit for every coefficient that became significant. Both padded with zero bits to an octet.
"""

import numpy as np
from numpy.typing import NDArray

from payload.codec.lapped.transform import COEFFICIENTS
from payload.errors import StreamError

#: Set in the two octets that say how many channels are active: plain bits; the profile `dense`, and its second
#: or its third generation.
RAW, DENSE, SECOND, THIRD = 1 << 15, 1 << 14, 1 << 13, 1 << 12
#: What a layer of the profile `dense` has set, by generation.
GENERATIONS = (DENSE, DENSE | SECOND, DENSE | THIRD)
MAGNITUDE_BITS = 16
Magnitudes = NDArray[np.uint16]
Flags = NDArray[np.bool_]


def least_octets(active: int, blocks: int) -> int:
    """A bound from below on the octets of a raw layer behind its head: a bit a coefficient."""
    return -(-active * blocks // 8)


def pack_raw(here: Magnitudes, previous: Magnitudes, negative: Flags, members: NDArray[np.int64], k: int) -> bytes:
    """Octets behind the head of layer k: here and previous [C, h, w], the active channels by rank in `members`."""
    part = here[members].reshape(len(members), here[0].size)
    bands = len(here) // COEFFICIENTS
    if k:
        body, bits = b"", part.astype(np.uint8) & 1
        packed = np.packbits(bits).tobytes()
    else:
        widths = [int(here[b * COEFFICIENTS : (b + 1) * COEFFICIENTS].max()).bit_length() for b in range(bands)]
        body = bytes(widths)
        digits = [_digits(row, widths[c // COEFFICIENTS]) for row, c in zip(part, members, strict=True)]
        packed = np.packbits(np.concatenate(digits)).tobytes() if digits else b""
    fresh = (here[members] > 0) & (previous[members] == 0)
    return body + packed + np.packbits(negative[members][fresh]).tobytes()


def unpack_raw(octets: bytes, coarser: Magnitudes, negative: Flags, members: NDArray[np.int64], k: int) -> Magnitudes:
    """Magnitudes [C, h, w] of layer k from the octets behind its head; signs into `negative`. StreamError if short."""
    channels, h, w = coarser.shape
    bands = channels // COEFFICIENTS
    here = (coarser << 1).astype(np.uint16)
    widths, body = (octets[:bands], octets[bands:]) if k == 0 else (b"", octets)
    if k == 0 and (len(widths) < bands or max(widths) > MAGNITUDE_BITS):
        raise StreamError(f"layer {k}: {len(octets)} octets do not begin with widths of {bands} bands")
    of_member = np.array([widths[c // COEFFICIENTS] if k == 0 else 1 for c in members], np.int64)
    size = int(of_member.sum()) * h * w
    bits = _bits(body, size, k)
    if k:
        here[members] |= bits.reshape(len(members), h, w)
    else:
        ends = np.cumsum(of_member) * h * w
        for channel, width, end in zip(members, of_member, ends, strict=True):
            digits = bits[end - width * h * w : end].reshape(h * w, width).astype(np.uint16)
            here[channel] = (digits @ (1 << np.arange(width - 1, -1, -1)).astype(np.uint16)).reshape(h, w)
    fresh = (here[members] > 0) & (coarser[members] == 0)
    part = negative[members]
    part[fresh] = _bits(body[-(-size // 8) :], int(fresh.sum()), k).astype(bool)
    negative[members] = part
    return here


def _digits(row: Magnitudes, width: int) -> NDArray[np.uint8]:
    return ((row[:, None] >> np.arange(width - 1, -1, -1)) & 1).astype(np.uint8).ravel()


def _bits(octets: bytes, count: int, k: int) -> NDArray[np.uint8]:
    if 8 * len(octets) < count:
        raise StreamError(f"layer {k}: {len(octets)} octets do not hold {count} raw bits")
    return np.unpackbits(np.frombuffer(octets, np.uint8), count=count)
