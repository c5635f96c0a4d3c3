"""Tile code <-> octets: what is sent of one tile, with its address, in an order that can be cut anywhere.

    octet 0   1 .. 4      5 .. 8      9, 10  11, 12   13     14    15   16 .. 18
    +---+---+-----------+----------+-------+-------+-------+-----+-----+--------+ ...
    |v 4|k 4| bundle id | scene id |  row  |  col  | cloud |  s  |  n  |   m    |
    +---+---+-----------+----------+-------+-------+-------+-----+-----+--------+ ...
     s octets  m octets  5 n octets            2
    +---------+---------+---------------------+-----+------------------------
    |  side   |  mask   | n (length 3, crc 2) | crc | n layers, coarse first
    +---------+---------+---------------------+-----+------------------------

Version 3. Version 2, which older payloads send and a tile on its own still is, has no scene id and no mask (m).
docs/format.md says what each field means.
"""

from binascii import crc_hqx
from dataclasses import dataclass, field
from enum import IntEnum

from payload.errors import InputError, StreamError

#: A tile code with a scene id and a mask, and one without either.
VERSION, VERSION_OF_A_LONE_TILE = 3, 2
#: Octets before the side information, by version.
FIXED_OCTETS = {2: 12, 3: 19}
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
    OMITTED = 5  # declared, not sent: the byte budget left nothing for it


@dataclass(frozen=True)
class TileCode:
    """What is sent of one tile. `side` is the codec's side information, `layers` embedded layers, coarse first.

    `scene_id` tells the scenes of a stream apart; None for a tile on its own. `mask` says which pixels are valid
    (payload/link/valid_mask.py), empty where all are. `declared` is how many layers were sent and `sent_octets` how
    long the tile code was; on the ground `layers` may hold fewer, and `cause` says why.
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
    scene_id: int | None = None
    mask: bytes = b""
    sent_octets: int = field(default=-1, compare=False)

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
        if not (self.scene_id is None or 0 <= self.scene_id < 1 << 32):
            raise InputError(f"scene_id {self.scene_id} does not fit in 32 bits")
        if len(self.mask) >= 1 << 24 or (self.mask and self.scene_id is None):
            raise InputError(f"a mask of {len(self.mask)} octets, wanted under 16 MiB, and a scene that it belongs to")
        if self.declared < 0:
            object.__setattr__(self, "declared", len(self.layers))
        if self.sent_octets < 0:
            object.__setattr__(self, "sent_octets", self.head_octets(len(self.layers)) + sum(map(len, self.layers)))

    @property
    def incomplete(self) -> bool:
        """Whether layers that were sent did not arrive."""
        return len(self.layers) < self.declared

    @property
    def usable_octets(self) -> int:
        """Octets of the header, as it was sent, and of the layers that are here."""
        return self.head_octets(self.declared) + sum(map(len, self.layers))

    def head_octets(self, layers: int) -> int:
        """Octets of this tile code that are not layers, were it cut to so many; without any it has no side or mask."""
        side, mask = (len(self.side), len(self.mask)) if layers else (0, 0)
        return header_octets(side, layers, None if self.scene_id is None else mask)


def pack(code: TileCode) -> bytes:
    """The octets of a tile code: version 3 where it belongs to a scene, version 2 for a tile on its own."""
    address = code.row.to_bytes(2, "big") + code.col.to_bytes(2, "big")
    counts = bytes([code.cloud_percent, len(code.side), len(code.layers)])
    bundle = code.bundle_id.to_bytes(4, "big")
    if code.scene_id is None:
        head = bytearray([VERSION_OF_A_LONE_TILE << 4 | code.kind]) + bundle + address + counts + code.side
    else:
        head = bytearray([VERSION << 4 | code.kind]) + bundle + code.scene_id.to_bytes(4, "big") + address + counts
        head += len(code.mask).to_bytes(3, "big") + code.side + code.mask
    for layer in code.layers:
        head += len(layer).to_bytes(3, "big") + _crc(layer)
    return bytes(head + _crc(head)) + b"".join(code.layers)


def unpack(octets: bytes) -> TileCode:
    """The tile code in `octets`, which may be cut short: `layers` holds those that arrived whole, from the coarsest on.

    StreamError if the header did not arrive whole: then nothing is known, not even the tile.
    """
    version, kind = (octets[0] >> 4, octets[0] & 15) if octets else (VERSION, 0)
    if version not in FIXED_OCTETS or kind not in list(Kind):
        raise StreamError(
            f"tile code of version {version}, kind {kind}; this ground reads versions 2 and 3, kinds 0 to {max(Kind)}"
        )
    fixed = FIXED_OCTETS[version]
    if len(octets) < fixed:
        raise StreamError(f"{len(octets)} octets are too few for a tile code")
    at = fixed - 10 if version == VERSION else fixed - 7  # of row, column and what follows them
    row, col = int.from_bytes(octets[at : at + 2], "big"), int.from_bytes(octets[at + 2 : at + 4], "big")
    cloud, side, declared = octets[at + 4 : at + 7]
    mask = int.from_bytes(octets[at + 7 : fixed], "big")
    table = fixed + side + mask
    end = table + LAYER_ENTRY_OCTETS * declared + CRC_OCTETS
    if len(octets) < end or crc_hqx(octets[:end], 0xFFFF) != 0:
        raise StreamError("header of the tile code is cut short or its CRC does not match")
    if not (cloud <= 100 or cloud == UNKNOWN_CLOUD):
        raise StreamError(f"cloud percentage {cloud}")
    layers, cause = _layers(octets, table, declared, end)
    lengths = octets[table : end - CRC_OCTETS]
    sent = end + sum(int.from_bytes(lengths[5 * k : 5 * k + 3], "big") for k in range(declared))
    scene_id = int.from_bytes(octets[5:9], "big") if version == VERSION else None
    return TileCode(
        Kind(kind), row, col, int.from_bytes(octets[1:5], "big"), cloud, octets[fixed : fixed + side], layers,
        declared, cause, scene_id, octets[fixed + side : table], sent,
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


def header_octets(side_octets: int, layers: int, mask_octets: int | None = None) -> int:
    """Octets of a tile code that are not layers. `mask_octets` None: a tile on its own, version 2."""
    fixed = FIXED_OCTETS[VERSION_OF_A_LONE_TILE] if mask_octets is None else FIXED_OCTETS[VERSION] + mask_octets
    return fixed + side_octets + LAYER_ENTRY_OCTETS * layers + CRC_OCTETS


def _crc(octets: bytes | bytearray) -> bytes:
    return crc_hqx(octets, 0xFFFF).to_bytes(CRC_OCTETS, "big")
