"""Tile code <-> octets: what is sent of one tile, with its address, in an order that can be cut anywhere.

    octet 0   1 .. 4      5 .. 6  7 .. 8  9       10            11    12 ...  5 n octets          2
    +---+---+-----------+-------+-------+-------+-------------+-----+------+-------------------+-----+-----------------
    |v 4|k 4| bundle id |  row  |  col  | cloud | side octets |  n  | side | n (length 3 crc 2)| crc | n layers, coarse
    +---+---+-----------+-------+-------+-------+-------------+-----+------+-------------------+-----+-----------------

docs/format.md says what each field means.
"""

from binascii import crc_hqx
from dataclasses import dataclass
from enum import IntEnum

from payload.errors import InputError, StreamError

VERSION = 2
FIXED_OCTETS = 12
LAYER_ENTRY_OCTETS = 5
CRC_OCTETS = 2
UNKNOWN_CLOUD = 255


class Kind(IntEnum):
    """What became of a tile on board."""

    CODED = 0
    WITHHELD = 1  # too cloudy: declared, not sent
    EMPTY = 2  # no valid pixel
    FALLBACK = 3  # coded without the bundle: payload/codec/jpeg2000.py
    AUDIT = 4  # thumbnail of a withheld tile, so that the ground can judge the gate


@dataclass(frozen=True)
class TileCode:
    """What is sent of one tile. `side` is the codec's side information, `layers` embedded layers, coarse first.

    `declared` is how many layers were sent; on the ground `layers` may hold fewer, and `cause` says why.
    """

    kind: Kind
    row: int
    col: int
    bundle_id: int
    cloud_percent: int = UNKNOWN_CLOUD  # 0..100, 255 unknown
    side: bytes = b""
    layers: tuple[bytes, ...] = ()
    declared: int = -1
    cause: str | None = None

    def __post_init__(self) -> None:
        for name, value, bits in (("row", self.row, 16), ("col", self.col, 16), ("bundle_id", self.bundle_id, 32)):
            if not 0 <= value < 1 << bits:
                raise InputError(f"{name} {value} does not fit in {bits} bits; cut the scene into fewer tiles")
        if not (0 <= self.cloud_percent <= 100 or self.cloud_percent == UNKNOWN_CLOUD):
            raise InputError(f"cloud_percent is {self.cloud_percent}, wanted 0 to 100, or 255 for unknown")
        if len(self.side) > 255 or len(self.layers) > 255 or any(len(layer) >= 1 << 24 for layer in self.layers):
            raise InputError(
                "side information over 255 octets, over 255 layers or a layer over 16 MiB; use smaller tiles"
            )
        if self.declared < 0:
            object.__setattr__(self, "declared", len(self.layers))


def pack(code: TileCode) -> bytes:
    """The octets of a tile code."""
    head = bytearray([VERSION << 4 | code.kind])
    head += code.bundle_id.to_bytes(4, "big") + code.row.to_bytes(2, "big") + code.col.to_bytes(2, "big")
    head += bytes([code.cloud_percent, len(code.side), len(code.layers)]) + code.side
    for layer in code.layers:
        head += len(layer).to_bytes(3, "big") + _crc(layer)
    return bytes(head + _crc(head)) + b"".join(code.layers)


def unpack(octets: bytes) -> TileCode:
    """The tile code in `octets`, which may be cut short: `layers` holds those that arrived whole, from the coarsest on.

    StreamError if the header did not arrive whole: then nothing is known, not even the tile.
    """
    if len(octets) < FIXED_OCTETS:
        raise StreamError(f"{len(octets)} octets are too few for a tile code")
    version, kind = octets[0] >> 4, octets[0] & 15
    side_end = FIXED_OCTETS + octets[10]
    declared = octets[11]
    end = side_end + LAYER_ENTRY_OCTETS * declared + CRC_OCTETS
    if len(octets) < end or crc_hqx(octets[:end], 0xFFFF) != 0:
        raise StreamError("header of the tile code is cut short or its CRC does not match")
    if version != VERSION or kind not in list(Kind):
        raise StreamError(
            f"tile code of version {version}, kind {kind}; this ground reads version {VERSION}, kinds 0 to {max(Kind)}"
        )
    if not (octets[9] <= 100 or octets[9] == UNKNOWN_CLOUD):
        raise StreamError(f"cloud percentage {octets[9]}")
    layers, cause = _layers(octets, side_end, declared, end)
    return TileCode(
        Kind(kind),
        int.from_bytes(octets[5:7], "big"),
        int.from_bytes(octets[7:9], "big"),
        int.from_bytes(octets[1:5], "big"),
        octets[9], octets[FIXED_OCTETS:side_end], layers, declared, cause,
    )  # fmt: skip


def _layers(octets: bytes, table: int, declared: int, start: int) -> tuple[tuple[bytes, ...], str | None]:
    layers: list[bytes] = []
    for k in range(declared):
        entry = octets[table + LAYER_ENTRY_OCTETS * k :][:LAYER_ENTRY_OCTETS]
        layer = octets[start : start + int.from_bytes(entry[:3], "big")]
        if len(layer) < int.from_bytes(entry[:3], "big"):
            return tuple(layers), f"layer {k} of {declared} is cut short"
        if _crc(layer) != entry[3:]:
            return tuple(layers), f"layer {k} of {declared} is damaged"
        layers.append(layer)
        start += len(layer)
    return tuple(layers), None


def header_octets(side_octets: int, layers: int) -> int:
    """Octets of a tile code that are not layers."""
    return FIXED_OCTETS + side_octets + LAYER_ENTRY_OCTETS * layers + CRC_OCTETS


def _crc(octets: bytes | bytearray) -> bytes:
    return crc_hqx(octets, 0xFFFF).to_bytes(CRC_OCTETS, "big")
