"""Valid mask of a tile <-> octets: which pixels hold a measurement. Sent with every tile that is not wholly valid.

Row by row from the top, each as the columns at which validity changes, seen from a valid pixel left of the tile. The
row above the first is wholly valid. Edges of a swath are straight, so that most rows repeat or move by little.

    00 n              the next n rows (1 to 255) are as the row above
    01 d1 ... dk      as many changes as the row above, each moved by d (8 bits, signed)
    02 k p1 ... pk    k changes (16 bits) at columns p (16 bits each), ascending
    03 bits           the row itself, a bit a pixel, 1 is valid, most significant bit first
"""

import numpy as np
from numpy.typing import NDArray

from payload.errors import StreamError
from payload.scene import Mask

SAME, MOVED, PLACES, BITS = range(4)
LONGEST_REPEAT = 255


def pack_mask(valid: Mask) -> bytes:
    """The octets of a mask bool [T, T], T a multiple of 8; none where all of it is valid."""
    if valid.all():
        return b""
    records: list[bytes] = []
    above = np.zeros(0, np.int64)
    for row in valid:
        here = _changes(row)
        if not np.array_equal(here, above):
            records.append(_shortest(row, here, above))
        elif records and records[-1][0] == SAME and records[-1][1] < LONGEST_REPEAT:
            records[-1] = bytes([SAME, records[-1][1] + 1])
        else:
            records.append(bytes([SAME, 1]))
        above = here
    return b"".join(records)


def unpack_mask(octets: bytes, side_px: int) -> Mask:
    """Inverse of `pack_mask`: bool [T, T]. StreamError where the octets are no mask of that size."""
    valid = np.ones((side_px, side_px), bool)
    if not octets:
        return valid
    at, row = 0, 0
    above = np.zeros(0, np.int64)
    while row < side_px:
        kind, rows = _byte(octets, at), 1
        if kind == SAME:
            rows, at = _byte(octets, at + 1), at + 2
        elif kind == MOVED:
            above = above + np.frombuffer(_piece(octets, at + 1, len(above)), np.int8)
            at += 1 + len(above)
        elif kind == PLACES:
            count = int.from_bytes(_piece(octets, at + 1, 2), "big")
            above = np.frombuffer(_piece(octets, at + 3, 2 * count), ">u2").astype(np.int64)
            at += 3 + 2 * count
        elif kind == BITS:
            bits = np.unpackbits(np.frombuffer(_piece(octets, at + 1, side_px // 8), np.uint8))
            above = _changes(bits.astype(bool))
            at += 1 + side_px // 8
        else:
            raise StreamError(f"valid mask: row record of kind {kind}, wanted 0 to 3")
        if not 1 <= rows <= side_px - row or _disordered(above, side_px):
            raise StreamError(f"valid mask: rows {row} to {row + rows - 1} do not fit {side_px} x {side_px} pixels")
        valid[row : row + rows] = _row(above, side_px)
        row += rows
    if at != len(octets):
        raise StreamError(f"valid mask: {len(octets) - at} octets behind its last row")
    return valid


def _changes(row: Mask) -> NDArray[np.int64]:
    """Columns at which validity changes, the pixel left of the row taken as valid."""
    return np.flatnonzero(np.diff(row.astype(np.int8), prepend=np.int8(1)))


def _row(changes: NDArray[np.int64], side_px: int) -> Mask:
    flips = np.zeros(side_px, np.int64)
    flips[changes] = 1
    return np.cumsum(flips) % 2 == 0


def _shortest(row: Mask, here: NDArray[np.int64], above: NDArray[np.int64]) -> bytes:
    places = bytes([PLACES]) + len(here).to_bytes(2, "big") + here.astype(">u2").tobytes()
    ways = [places, bytes([BITS]) + np.packbits(row).tobytes()]
    if len(here) == len(above) and np.abs(here - above).max() < 128:
        ways.insert(0, bytes([MOVED]) + (here - above).astype(np.int8).tobytes())
    return min(ways, key=len)


def _disordered(changes: NDArray[np.int64], side_px: int) -> bool:
    inside = len(changes) == 0 or (changes[0] >= 0 and changes[-1] < side_px)
    return not inside or bool((np.diff(changes) <= 0).any())


def _byte(octets: bytes, at: int) -> int:
    return _piece(octets, at, 1)[0]


def _piece(octets: bytes, at: int, count: int) -> bytes:
    piece = octets[at : at + count]
    if len(piece) < count:
        raise StreamError(f"valid mask: cut short at octet {len(octets)}")
    return piece
