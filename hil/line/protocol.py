"""Octets on the line <-> frames: one format over every transport, both directions, stdlib only (it runs on the device).

 octet 0     1     2         3      4..7      8..11   12..15   16..17   18 ...      last 4
 +-----+-----+---------+------+---------+-------+--------+-------+---- ... ----+--------+
 | 4E  | 48  | version | type | session |  seq  | length | check |    body     | CRC-32 |
 +-----+-----+---------+------+---------+-------+--------+-------+---- ... ----+--------+
   'N'   'H'

Integers are unsigned, most significant octet first. `length` counts the body. `check` is CRC-16/CCITT-FALSE over octets
0..15, so that a damaged length can never make the reader wait for octets that will not come. The CRC-32 (zlib's) covers
everything before it. A reply carries the session and seq of its request and its type with the top bit set.

A body is a JSON object and octets:   | n (32) | JSON, n octets | octets ... |

These 18 octets of header stay as they are in every later version: an agent of another version can still say so.
"""

import binascii
import json
import struct
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import IntEnum
from typing import Any

VERSION = 2
MAGIC = b"NH"
HEADER = struct.Struct(">2sBBIIIH")
MAX_BODY_OCTETS = 64 * 1024 * 1024
REPLY = 0x80
FIRST_BUFFER_OCTETS = 8192  # holds every frame of a connection that has no session yet
BUFFER_OCTETS = 1024 * 1024  # a tile and what follows it
LONGEST_JSON = 1024 * 1024  # parsed at most: Python takes some thirty times its size for it
PIECE_OCTETS = 4096  # read at once where no frame is under way

Octets = bytes | memoryview


class Type(IntEnum):
    """What a frame asks for. BEAT and ERROR exist as replies only."""

    HELLO = 0x01  # who are you; opens a session
    LOAD = 0x02  # make ready: bundle, policy, engine
    INFER = 0x03  # one tile, one tile code back
    STREAM = 0x04  # work (or rest) by yourself for a fixed time over the tiles you hold
    STATS = 0x05  # counters, memory, temperature, clock
    RESET = 0x06  # forget the loaded bundle and the held tiles
    BEAT = 0x07  # alive and busy
    HOLD = 0x08  # one tile to keep for STREAM, not coded
    NETWORKS = 0x09  # times of the networks alone, layer by layer, and the runtime's ceilings
    MASK = 0x0A  # what is cloud in a held tile
    ERROR = 0x7F  # one line: found, wanted, how to mend


#: The longest body of each kind of frame, in octets. A longer one is refused before memory is set aside for it. What a
#: tile takes depends on the bundle: an agent says so to its reader.
SMALL_OCTETS = 4096
LONGEST_REQUEST: Mapping[int, int] = {Type.LOAD: 64 * 1024}  # a policy with its regions
LONGEST_REPLY: Mapping[int, int] = {
    Type.HELLO | REPLY: 64 * 1024,
    Type.INFER | REPLY: MAX_BODY_OCTETS,
    Type.STREAM | REPLY: 1024 * 1024,
    Type.STATS | REPLY: 64 * 1024,
    Type.NETWORKS | REPLY: 1024 * 1024,
    Type.MASK | REPLY: 4096 * 4096 // 8 + 4096,
}


class ProtocolError(ValueError):
    """A frame that is whole but makes no sense: the sender's mistake, not damage on the line."""


@dataclass(frozen=True)
class Frame:
    """One message. `kind` is a Type, with REPLY added in the direction device to host.

    `crc` is the checksum a frame that was read came with: what a reply can name its request by. `too_long` is the
    length in octets that its header announced where this kind may not have so long a body; the body is left out.
    """

    kind: int
    session: int
    seq: int
    body: Octets = b""
    version: int = VERSION
    crc: int = field(default=0, compare=False)
    too_long: int = 0

    def __post_init__(self) -> None:
        for name, value, bits in (
            ("kind", self.kind, 8),
            ("version", self.version, 8),
            ("session", self.session, 32),
            ("seq", self.seq, 32),
        ):
            if not 0 <= value < 1 << bits:
                raise ProtocolError(f"{name} {value} does not fit in {bits} bits")
        if len(self.body) > MAX_BODY_OCTETS:
            raise ProtocolError(f"body of {len(self.body)} octets, at most {MAX_BODY_OCTETS} fit; send smaller tiles")


def pack(frame: Frame) -> bytes:
    """The octets of a frame."""
    start = struct.pack(">2sBBIII", MAGIC, frame.version, frame.kind, frame.session, frame.seq, len(frame.body))
    header = start + struct.pack(">H", binascii.crc_hqx(start, 0xFFFF))
    crc = zlib.crc32(frame.body, zlib.crc32(header))
    return b"".join((header, frame.body, struct.pack(">I", crc)))  # one copy of the body: a tile is half a megabyte


def crc_of(octets: Octets) -> int:
    """The checksum at the end of a packed frame."""
    return int.from_bytes(octets[-4:], "big")


class FrameReader:
    """Octets in any pieces -> whole frames. What is not a frame is skipped and counted in `discarded_octets`.

    A channel reads into `space()` and `filled()` gives the frames: half a megabyte a tile is then moved once, by the
    kernel, into memory that stays. `feed` is for octets that are there already. `longest` bounds bodies by their kind.
    """

    def __init__(self, longest: Mapping[int, int] = LONGEST_REPLY) -> None:
        self.discarded_octets = 0
        self.longest = longest
        self._buffer = bytearray(FIRST_BUFFER_OCTETS)
        self._start = self._end = 0  # of what is in the buffer and not yet handed on

    def feed(self, data: bytes) -> Iterator[Frame]:
        """Every frame that `data` completes."""
        rest = memoryview(data)
        while rest:
            space = self.space()
            taken = min(len(space), len(rest))
            space[:taken], rest = rest[:taken], rest[taken:]
            for frame in self.filled(taken):
                yield replace(frame, body=bytes(frame.body))

    def space(self) -> memoryview:
        """Where the next octets belong: to the end of the frame under way, or a piece that surely holds a header."""
        wanted = max(self._frame_octets() or 0, self._end - self._start + PIECE_OCTETS)
        if self._start + wanted > len(self._buffer):
            waiting = self._buffer[self._start : self._end]
            if wanted > len(self._buffer):
                self._buffer = bytearray(max(wanted, BUFFER_OCTETS))
            self._buffer[: len(waiting)] = waiting
            self._start, self._end = 0, len(waiting)
        return memoryview(self._buffer)[self._end : self._start + wanted]

    def filled(self, octets: int) -> Iterator[Frame]:
        """Every frame that the octets read into `space()` complete. Bodies are views, good until the next `space()`."""
        self._end += octets
        while self._find_magic() and (there := self._end - self._start) >= HEADER.size:
            wanted = self._frame_octets()
            if wanted is not None and there < wanted:
                return
            refused = self._too_long() if wanted is None else None
            frame = self._parse(wanted) if wanted is not None else refused
            if frame is None:
                self._discard(1)
                continue
            if refused is None:
                self._start += wanted or 0
            else:
                self._discard(HEADER.size)  # and its body piece by piece, as it comes
            yield frame

    def _find_magic(self) -> bool:
        """Skips to the next magic; its first half at the very end may be one, and stays."""
        start = self._buffer.find(MAGIC, self._start, self._end)
        if start >= 0:
            self._discard(start - self._start)
            return True
        half = self._end > self._start and self._buffer[self._end - 1] == MAGIC[0]
        self._discard(self._end - self._start - half)
        return False

    def _length(self) -> tuple[int, int] | None:
        """(kind, octets of its body) of the header at the front; None where no whole one is there, or a damaged one."""
        if self._end - self._start < HEADER.size:
            return None
        _, _, kind, _, _, length, check = HEADER.unpack_from(self._buffer, self._start)
        covered = self._buffer[self._start : self._start + HEADER.size - 2]
        return (kind, length) if check == binascii.crc_hqx(covered, 0xFFFF) else None

    def _frame_octets(self) -> int | None:
        """Octets of the frame at the front; None where there is no header, or one of a body that is too long."""
        found = self._length()
        if found is None or found[1] > self._bound(found[0]):
            return None
        return HEADER.size + found[1] + 4

    def _bound(self, kind: int) -> int:
        return self.longest.get(kind, SMALL_OCTETS)

    def _too_long(self) -> Frame | None:
        """What stands for the frame at the front where its body is longer than its kind allows."""
        found = self._length()
        if found is None or found[1] <= self._bound(found[0]):
            return None
        _, version, kind, session, seq, length, _ = HEADER.unpack_from(self._buffer, self._start)
        return Frame(kind, session, seq, b"", version, too_long=length)

    def _parse(self, octets: int) -> Frame | None:
        """The frame at the front, None where its checksum does not fit."""
        _, version, kind, session, seq, *_ = HEADER.unpack_from(self._buffer, self._start)
        view = memoryview(self._buffer)[self._start : self._start + octets]
        crc = crc_of(view)
        return Frame(kind, session, seq, view[HEADER.size : -4], version, crc) if crc == zlib.crc32(view[:-4]) else None

    def _discard(self, octets: int) -> None:
        self._start += octets
        self.discarded_octets += octets


def pack_body(fields: dict[str, Any], *octets: Octets) -> bytes:
    """The body of a frame: a JSON object and octets, in as many pieces as they come."""
    text = json.dumps(fields, separators=(",", ":"), allow_nan=False).encode()
    return b"".join((struct.pack(">I", len(text)), text, *octets))


def unpack_body(body: Octets, longest_json: int = LONGEST_JSON) -> tuple[dict[str, Any], Octets]:
    """(JSON object, octets) of a body, the octets a view where the body is one. ProtocolError if it is not a body."""
    if len(body) < 4:
        raise ProtocolError(f"body of {len(body)} octets, wanted at least 4")
    end = 4 + int.from_bytes(body[:4], "big")
    if len(body) < end:
        raise ProtocolError(f"body says {end - 4} octets of JSON, only {len(body) - 4} are there")
    if end - 4 > longest_json:
        raise ProtocolError(f"body says {end - 4} octets of JSON, at most {longest_json} are read")
    try:
        fields = json.loads(bytes(body[4:end]))
    except (ValueError, RecursionError):
        raise ProtocolError("the JSON of the body does not parse") from None
    if not isinstance(fields, dict):
        raise ProtocolError("the JSON of the body is not an object")
    return fields, body[end:]
