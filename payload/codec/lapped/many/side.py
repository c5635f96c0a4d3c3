"""The side information of a tile: its rotation, the step index of its finest layer, and how often values were halved.

    | rank 8, of many bands only | means 16 x B | angles 12 each, padded to an octet | step index 8 | shift 8 |
"""

from payload.codec.lapped import quantiser
from payload.codec.rotation import (
    FEW_BANDS,
    MANY_BANDS_SHIFT_LIMIT,
    SHIFT_LIMIT,
    Rotation,
    pack_rotation,
    rotation_octets,
    unpack_rotation,
)
from payload.errors import StreamError


def pack_side(rotation: Rotation, index: int) -> bytes:
    """Octets of a tile's rotation and step index."""
    return pack_rotation(rotation) + bytes([index, rotation.shift])


def unpack_side(side: bytes, bands: int) -> tuple[Rotation, int]:
    """Inverse of `pack_side`. StreamError where the octets fit no tile of so many bands."""
    rank = side[0] if bands > FEW_BANDS and side else None
    most_shift = SHIFT_LIMIT if bands <= FEW_BANDS else MANY_BANDS_SHIFT_LIMIT
    known = len(side) == rotation_octets(bands, rank) + 2 and (rank is None or 1 <= rank <= FEW_BANDS)
    if not known or side[-2] >= quantiser.STEP_INDICES or side[-1] > most_shift:
        raise StreamError(f"{len(side)} octets of side information do not fit {bands} bands")
    return unpack_rotation(side[:-2], bands, side[-1]), side[-2]
