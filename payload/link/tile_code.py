"""Tile code <-> octets: what is sent of one tile, with its address, in an order that can be cut anywhere.

    octet 0   1 .. 4      5 .. 8      9, 10  11, 12   13     14    15   16 .. 18
    +---+---+-----------+----------+-------+-------+-------+-----+-----+--------+ ...
    |v 4|k 4| bundle id | scene id |  row  |  col  | cloud |  s  |  n  |   m    |
    +---+---+-----------+----------+-------+-------+-------+-----+-----+--------+ ...
     s octets  m octets  7 n octets            4
    +---------+---------+---------------------+-----+------------------------
    |  side   |  mask   | n (length 3, crc 4) | crc | n layers, coarse first
    +---------+---------+---------------------+-----+------------------------

Version 5. Version 4, a tile on its own, has no scene id and no mask (m). Versions 7 and 6, of sensors of many bands,
are these two with 16 bits for s. Versions 9 and 8 are 7 and 6 with a bound (16) and a checksum of samples (32) before
the side information: their last layer is a residual layer. Versions 3 and 2, which older payloads send, are 5 and 4
with CRCs of 16 bits. docs/format.md says what each field means.

The CRCs are of 32 bits and not the packets' own: damage inside a layer that one polynomial misses, it misses again.
"""

from binascii import crc_hqx
from dataclasses import dataclass, field
from enum import IntEnum
from zlib import crc32

from payload.errors import InputError, StreamError
from payload.scene import Dn, Mask

UNKNOWN_CLOUD = 255
LENGTH_OCTETS = 3


@dataclass(frozen=True)
class Layout:
    """What versions differ in: octets before the side information, whether a scene is named, octets of a CRC and of the
    length of the side information, and whether the error is bounded."""

    fixed: int
    of_a_scene: bool
    crc: int
    side: int = 1
    bounded: bool = False

    @property
    def entry(self) -> int:
        """Octets of a layer's line in the table: its length and its CRC."""
        return LENGTH_OCTETS + self.crc

    def check(self, octets: bytes | bytearray) -> bytes:
        """The CRC of this version over `octets`: CRC-32 as in zlib, or the packets' CRC-16."""
        found = crc32(octets) if self.crc == 4 else crc_hqx(octets, 0xFFFF)
        return found.to_bytes(self.crc, "big")


LAYOUTS = {
    2: Layout(12, False, 2), 3: Layout(19, True, 2), 4: Layout(12, False, 4), 5: Layout(19, True, 4),
    6: Layout(13, False, 4, 2), 7: Layout(20, True, 4, 2),
    8: Layout(19, False, 4, 2, True), 9: Layout(26, True, 4, 2, True),
}  # fmt: skip
#: What is written: a tile code with a scene id and a mask, and one without either; two more for long side information,
#: four more with a bound.
VERSION, VERSION_OF_A_LONE_TILE, FOR_LONG_SIDE, FOR_A_BOUND = 5, 4, 2, 4
BOUND_OCTETS = 6


class Kind(IntEnum):
    """What became of a tile on board."""

    CODED = 0
    WITHHELD = 1  # too cloudy: declared, not sent
    EMPTY = 2  # no valid pixel
    FALLBACK = 3  # coded without the bundle: payload/codec/jpeg2000.py
    AUDIT = 4  # thumbnail of a withheld tile, so that the ground can judge the gate
    OMITTED = 5  # declared, not sent: the byte budget left nothing for it


@dataclass(frozen=True)
class Bound:
    """What the last layer of a tile code promises: no valid sample is off by more than `error_dn`. `samples_crc`:
    CRC-32 over the samples that all layers decode to (`crc_of_samples`)."""

    error_dn: int
    samples_crc: int

    def __post_init__(self) -> None:
        for name, value, bits in (("error_dn", self.error_dn, 16), ("samples_crc", self.samples_crc, 32)):
            if not 0 <= value < 1 << bits:
                raise InputError(f"{name} {value} does not fit in {bits} bits")


def crc_of_samples(dn: Dn, valid: Mask) -> int:
    """CRC-32 over the valid samples of a tile [B, T, T]: band by band, row by row, 16 bits each."""
    return crc32(dn[:, valid].astype(">u2").tobytes())


@dataclass(frozen=True)
class TileCode:
    """What is sent of one tile. `side` is the codec's side information, `layers` embedded layers, coarse first.

    `scene_id` tells the scenes of a stream apart; None for a tile on its own. `mask` says which pixels are valid
    (payload/link/valid_mask.py), empty where all are. `declared` is how many layers were sent and `sent_octets` how
    long the tile code was; on the ground `layers` may hold fewer, and `cause` says why. `bound`: the last layer that
    was sent is a residual layer.
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
    bound: Bound | None = None

    def __post_init__(self) -> None:
        for name, value, bits in (("row", self.row, 16), ("col", self.col, 16), ("bundle_id", self.bundle_id, 32)):
            if not 0 <= value < 1 << bits:
                raise InputError(f"{name} {value} does not fit in {bits} bits; cut the scene into fewer tiles")
        if not (0 <= self.cloud_percent <= 100 or self.cloud_percent == UNKNOWN_CLOUD):
            raise InputError(f"cloud_percent is {self.cloud_percent}, wanted 0 to 100, or 255 for unknown")
        if len(self.side) >= 1 << 16 or len(self.layers) > 255 or any(len(layer) >= 1 << 24 for layer in self.layers):
            raise InputError(
                "side information over 65 535 octets, over 255 layers or a layer over 16 MiB; use smaller tiles"
            )
        if not (self.scene_id is None or 0 <= self.scene_id < 1 << 32):
            raise InputError(f"scene_id {self.scene_id} does not fit in 32 bits")
        if len(self.mask) >= 1 << 24 or (self.mask and self.scene_id is None):
            raise InputError(f"a mask of {len(self.mask)} octets, wanted under 16 MiB, and a scene that it belongs to")
        if self.bound is not None and not self.layers and self.declared < 1:
            raise InputError("a bound without a layer that keeps it; leave it out")
        if self.declared < 0:
            object.__setattr__(self, "declared", len(self.layers))
        if self.sent_octets < 0:
            object.__setattr__(self, "sent_octets", self.head_octets(len(self.layers)) + sum(map(len, self.layers)))

    @property
    def incomplete(self) -> bool:
        """Whether layers that were sent did not arrive."""
        return len(self.layers) < self.declared

    @property
    def bounded(self) -> bool:
        """Whether the residual layer is here, and with it all before it."""
        return self.bound is not None and not self.incomplete

    @property
    def base_layers(self) -> tuple[bytes, ...]:
        """The layers that are here, less the residual layer."""
        return self.layers[:-1] if self.bounded else self.layers

    @property
    def usable_octets(self) -> int:
        """Octets of the header, as it was sent, and of the layers that are here."""
        return self.head_octets(self.declared) + sum(map(len, self.layers))

    def head_octets(self, layers: int) -> int:
        """Octets of this tile code that are not layers, were it cut to so many; without any it has no side or mask."""
        side, mask = (len(self.side), len(self.mask)) if layers else (0, 0)
        return header_octets(side, layers, None if self.scene_id is None else mask, self.bound is not None)


def pack(code: TileCode) -> bytes:
    """The octets of a tile code: version 5 where it belongs to a scene, version 4 for a tile on its own; 7 and 6 where
    the side information is longer than 255 octets, 9 and 8 with a bound."""
    version = _version(code.scene_id is not None, len(code.side), code.bound is not None)
    layout = LAYOUTS[version]
    head = bytearray([version << 4 | code.kind]) + code.bundle_id.to_bytes(4, "big")
    if code.scene_id is not None:
        head += code.scene_id.to_bytes(4, "big")
    head += code.row.to_bytes(2, "big") + code.col.to_bytes(2, "big")
    head += bytes([code.cloud_percent]) + len(code.side).to_bytes(layout.side, "big") + bytes([len(code.layers)])
    if code.scene_id is not None:
        head += len(code.mask).to_bytes(3, "big")
    if code.bound is not None:
        head += code.bound.error_dn.to_bytes(2, "big") + code.bound.samples_crc.to_bytes(4, "big")
    head += code.side + code.mask
    for layer in code.layers:
        head += len(layer).to_bytes(LENGTH_OCTETS, "big") + layout.check(layer)
    return bytes(head + layout.check(head)) + b"".join(code.layers)


def unpack(octets: bytes) -> TileCode:
    """The tile code in `octets`, which may be cut short: `layers` holds those that arrived whole, from the coarsest on.

    StreamError if the header did not arrive whole: then nothing is known, not even the tile.
    """
    version, kind = (octets[0] >> 4, octets[0] & 15) if octets else (VERSION, 0)
    if version not in LAYOUTS or kind not in list(Kind):
        raise StreamError(
            f"tile code of version {version}, kind {kind}; "
            f"this ground reads versions {min(LAYOUTS)} to {max(LAYOUTS)}, kinds 0 to {max(Kind)}"
        )
    layout = LAYOUTS[version]
    fixed = layout.fixed
    if len(octets) < fixed:
        raise StreamError(f"{len(octets)} octets are too few for a tile code")
    at = 9 if layout.of_a_scene else 5  # of row, column and what follows them
    behind = at + 5 + layout.side  # the length of the side information
    row, col = int.from_bytes(octets[at : at + 2], "big"), int.from_bytes(octets[at + 2 : at + 4], "big")
    cloud, side, declared = octets[at + 4], int.from_bytes(octets[at + 5 : behind], "big"), octets[behind]
    mask = int.from_bytes(octets[behind + 1 : behind + 4], "big") if layout.of_a_scene else 0
    table = fixed + side + mask
    start = table + layout.entry * declared  # of the CRC over all before it
    end = start + layout.crc
    if len(octets) < end or layout.check(octets[:start]) != octets[start:end]:
        raise StreamError("header of the tile code is cut short or its CRC does not match")
    if not (cloud <= 100 or cloud == UNKNOWN_CLOUD):
        raise StreamError(f"cloud percentage {cloud}")
    entries = [octets[k : k + layout.entry] for k in range(table, start, layout.entry)]
    if layout.bounded and not declared:
        raise StreamError("a tile code with a bound and without layers")
    layers, cause = _layers(octets, entries, end, layout)
    sent = end + sum(int.from_bytes(entry[:LENGTH_OCTETS], "big") for entry in entries)
    scene_id = int.from_bytes(octets[5:9], "big") if layout.of_a_scene else None
    return TileCode(
        Kind(kind), row, col, int.from_bytes(octets[1:5], "big"), cloud, octets[fixed : fixed + side], layers,
        declared, cause, scene_id, octets[fixed + side : table], sent,
        _bound(octets[fixed - BOUND_OCTETS : fixed]) if layout.bounded else None,
    )  # fmt: skip


def _bound(octets: bytes) -> Bound:
    return Bound(int.from_bytes(octets[:2], "big"), int.from_bytes(octets[2:], "big"))


def _layers(
    octets: bytes, entries: list[bytes], start: int, layout: Layout
) -> tuple[tuple[bytes, ...], str | None]:
    layers: list[bytes] = []
    for k, entry in enumerate(entries):
        length = int.from_bytes(entry[:LENGTH_OCTETS], "big")
        layer = octets[start : start + length]
        if len(layer) < length:
            return tuple(layers), f"layer {k} of {len(entries)} is cut short"
        if layout.check(layer) != entry[LENGTH_OCTETS:]:
            return tuple(layers), f"layer {k} of {len(entries)} is damaged"
        layers.append(layer)
        start += length
    return tuple(layers), None


def header_octets(side_octets: int, layers: int, mask_octets: int | None = None, bounded: bool = False) -> int:
    """Octets of a tile code that are not layers. `mask_octets` None: a tile on its own."""
    layout = LAYOUTS[_version(mask_octets is not None, side_octets, bounded)]
    return layout.fixed + side_octets + (mask_octets or 0) + layout.entry * layers + layout.crc


def _version(of_a_scene: bool, side_octets: int, bounded: bool) -> int:
    version = VERSION if of_a_scene else VERSION_OF_A_LONE_TILE
    return version + (FOR_A_BOUND if bounded else FOR_LONG_SIDE * (side_octets > 255))
