"""The head of a `.nadir` scene file <-> octets: what the file holds, and where every tile and every layer of it lies.

    octet 0..7     8     9        10, 11   12 .. 15   16 .. 19   20 .. 23   24 .. 31   32 .. 63
    +----------+-----+----------+--------+----------+----------+----------+----------+-----------------+
    |  magic   | v 8 | layers 8 |   0    | header h | text m   | tiles n  | body     | SHA-256 of body |
    +----------+-----+----------+--------+----------+----------+----------+----------+-----------------+
     h octets       m octets       n x (11 + 5 layers) octets     32 octets                 body octets
    +--------------+--------------+------------------------------+------------------------+------------
    | scene header | text (JSON)  | index                        | SHA-256 of all before  | tile codes
    +--------------+--------------+------------------------------+------------------------+------------

docs/format.md says what each field means. A bundle is a folder or a zip, which begins with other octets.
"""

import hashlib
import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from payload.errors import InputError, StreamError
from payload.link import scene_header
from payload.link.scene_header import SceneHeader
from payload.link.tile_code import Kind

#: As in PNG: an octet beyond ASCII, the name, and line ends that a transfer in text mode would change.
MAGIC = b"\x89NDR\r\n\x1a\n"
VERSION = 1
FIXED = struct.Struct(">8sBBHIIIQ32s")
DIGEST_OCTETS = 32
MOST_LAYERS, MOST_TILES, MOST_TEXT_OCTETS = 16, 1 << 24, 1 << 20
#: PSNR is kept in hundredths of a decibel, rounded down. The last value stands for no error at all.
PSNR_UNITS, LOSSLESS = 100, 65535


@dataclass(frozen=True, eq=False)
class Index:
    """Of every tile in row order. `offset` uint64 [n] from the beginning of the body; `kind` and `cloud` uint8 [n];
    `head` uint32 [n], octets of the tile code before its layers; `layer` uint32 [n, layers], octets of each, 0 for one
    that is not there; `psnr` uint16 [n, layers]: hundredths of a dB (peak 10 000) when decoded up to each layer."""

    offset: NDArray[np.uint64]
    kind: NDArray[np.uint8]
    cloud: NDArray[np.uint8]
    head: NDArray[np.uint32]
    layer: NDArray[np.uint32]
    psnr: NDArray[np.uint16]

    @property
    def layers(self) -> int:
        return self.layer.shape[1]

    @property
    def counts(self) -> NDArray[np.int64]:
        """How many layers each tile has, [n]."""
        return (self.layer > 0).sum(axis=1)

    def octets(self, tile: int, layers: int) -> int:
        """Of a tile code cut behind so many layers."""
        return int(self.head[tile]) + int(self.layer[tile, :layers].sum())


@dataclass(frozen=True, eq=False)
class Head:
    """Everything of a file but its tile codes. `text` is what people and programs may want to know besides."""

    header: SceneHeader
    text: Mapping[str, Any]
    index: Index
    body_octets: int
    body_sha256: bytes

    @property
    def octets(self) -> int:
        """Of this head: where the body begins."""
        return len(pack(self))


def _entry(layers: int) -> "np.dtype[Any]":
    parts = [("offset", ">u2", 3), ("kind", "u1"), ("cloud", "u1"), ("head", "u1", 3), ("layer", "u1", (layers, 3))]
    return np.dtype([*parts, ("psnr", ">u2", layers)])


def pack(head: Head) -> bytes:
    """The octets of a head. InputError where a number does not fit its field."""
    index, header = head.index, scene_header.pack(head.header)
    text = json.dumps(head.text, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    count = len(index.kind)
    limits = (
        ("layers", index.layers, MOST_LAYERS), ("tiles", count, MOST_TILES),
        ("octets of text", len(text), MOST_TEXT_OCTETS),
        ("octets of tile codes", head.body_octets, (1 << 48) - 1),
        ("octets of a layer", int(index.layer.max(initial=0)), (1 << 24) - 1),
        ("octets of a tile's head", int(index.head.max(initial=0)), (1 << 24) - 1),
    )  # fmt: skip
    for name, value, most in limits:
        if value > most:
            raise InputError(f"{value} {name} do not fit an archive file, wanted {most} at most; cut the scene in two")
    fixed = FIXED.pack(
        MAGIC, VERSION, index.layers, 0, len(header), len(text), count, head.body_octets, head.body_sha256
    )
    octets = fixed + header + text + _pack_index(index)
    return octets + hashlib.sha256(octets).digest()


def head_octets(fixed: bytes) -> int:
    """Octets of a whole head by its first FIXED.size octets. StreamError where they begin no archive file."""
    layers, header, text, tiles = _checked(fixed)[:4]
    return FIXED.size + header + text + tiles * _entry(layers).itemsize + DIGEST_OCTETS


def unpack(octets: bytes) -> Head:
    """Inverse of `pack`. StreamError where the octets are no whole head of this version."""
    layers, header, text, tiles, body, digest = _checked(octets)
    if len(octets) != head_octets(octets):
        raise StreamError(f"head of {len(octets)} octets, wanted {head_octets(octets)}")
    if hashlib.sha256(octets[:-DIGEST_OCTETS]).digest() != octets[-DIGEST_OCTETS:]:
        raise StreamError("the head's checksum does not match: it was damaged")
    at = FIXED.size
    known = scene_header.unpack(octets[at : at + header])
    index = _unpack_index(octets[at + header + text : -DIGEST_OCTETS], layers)
    rows, cols = known.grid
    if rows * cols != tiles:
        raise StreamError(f"{tiles} tiles in the index, the scene header says {rows} x {cols}")
    _refuse_disorder(index, body)
    return Head(known, _text(octets[at + header : at + header + text]), index, body, digest)


def _checked(octets: bytes) -> tuple[int, int, int, int, int, bytes]:
    """Layers; octets of scene header and of text; tiles; octets of the body and its digest."""
    if len(octets) < FIXED.size or octets[:8] != MAGIC:
        raise StreamError(_what_it_is(octets))
    _, version, layers, _, header, text, tiles, body, digest = FIXED.unpack_from(octets)
    if version != VERSION:
        raise StreamError(f"an archive file of version {version}; this Nadir reads version {VERSION}: update it")
    in_range = 1 <= layers <= MOST_LAYERS and header <= scene_header.LONGEST_OCTETS
    if not (in_range and text <= MOST_TEXT_OCTETS and tiles <= MOST_TILES and body < 1 << 48):
        raise StreamError("its first 64 octets contradict themselves: it was damaged")
    return layers, header, text, tiles, body, digest


def _what_it_is(octets: bytes) -> str:
    if octets[:2] == b"PK":
        return "a zip, perhaps a bundle; wanted a scene file that `sim archive put` wrote"
    if octets[1:4] == MAGIC[1:4]:
        return "the beginning of an archive file that a transfer in text mode changed; copy it again as binary"
    return f"begins with {octets[:8].hex() or 'nothing'}, wanted {MAGIC.hex()}: a file that `sim archive put` wrote"


def _pack_index(index: Index) -> bytes:
    table = np.zeros(len(index.kind), _entry(index.layers))
    offset = index.offset.astype(np.uint64)
    for k in range(3):
        table["offset"][:, k] = (offset >> np.uint64(16 * (2 - k))) & np.uint64(0xFFFF)
    table["kind"], table["cloud"], table["psnr"] = index.kind, index.cloud, index.psnr
    table["head"], table["layer"] = _three(index.head), _three(index.layer)
    return table.tobytes()


def _unpack_index(octets: bytes, layers: int) -> Index:
    table = np.frombuffer(octets, _entry(layers))
    words = table["offset"].astype(np.uint64)
    offset = words[:, 0] << np.uint64(32) | words[:, 1] << np.uint64(16) | words[:, 2]
    return Index(
        offset, table["kind"].copy(), table["cloud"].copy(), _whole(table["head"]), _whole(table["layer"]),
        table["psnr"].astype(np.uint16),
    )  # fmt: skip


def _three(values: NDArray[np.uint32]) -> NDArray[np.uint8]:
    """Numbers below 2^24 as three octets each, most significant first."""
    return np.stack([(values >> shift) & 255 for shift in (16, 8, 0)], axis=-1).astype(np.uint8)


def _whole(octets: NDArray[np.uint8]) -> NDArray[np.uint32]:
    first, second, third = np.moveaxis(octets.astype(np.uint32), -1, 0)
    return first << 16 | second << 8 | third


def _refuse_disorder(index: Index, body_octets: int) -> None:
    """StreamError where tiles do not lie one behind the other, or a layer stands behind one that is not there."""
    ends = index.head.astype(np.uint64) + index.layer.sum(axis=1).astype(np.uint64)
    begins = np.concatenate([[np.uint64(0)], np.cumsum(ends, dtype=np.uint64)])
    gaps = ((index.layer[:, 1:] > 0) & (index.layer[:, :-1] == 0)).any()
    if gaps or not np.array_equal(begins[:-1], index.offset) or int(begins[-1]) != body_octets:
        raise StreamError("the index contradicts itself")
    if not np.isin(index.kind, [int(kind) for kind in Kind]).all():
        raise StreamError("the index names kinds of tiles that this Nadir does not know: update it")


def _text(octets: bytes) -> Mapping[str, Any]:
    try:
        found = json.loads(octets)
    except (ValueError, RecursionError) as error:
        raise StreamError(f"its text is no JSON ({error})") from None
    if not isinstance(found, dict):
        raise StreamError("its text is no JSON object")
    return found


def kept_psnr(psnr_db: Sequence[float], layers: int) -> NDArray[np.uint16]:
    """PSNR after each layer as the index keeps it, [layers]: never more than was measured."""
    kept = np.zeros(layers, np.uint16)
    for k, value in enumerate(psnr_db):
        kept[k] = LOSSLESS if np.isinf(value) else min(max(int(value * PSNR_UNITS), 0), LOSSLESS - 1)
    return kept


def psnr_db(kept: NDArray[np.uint16]) -> NDArray[np.float64]:
    """What the index keeps, in dB; inf for no error."""
    return np.where(kept == LOSSLESS, np.inf, kept / PSNR_UNITS)
