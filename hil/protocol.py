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
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

VERSION = 1
MAGIC = b"NH"
HEADER = struct.Struct(">2sBBIIIH")
MAX_BODY_OCTETS = 64 * 1024 * 1024
REPLY = 0x80


class Type(IntEnum):
    """What a frame asks for. BEAT and ERROR exist as replies only."""

    HELLO = 0x01  # who are you; opens a session
    LOAD = 0x02  # make ready: bundle, policy, engine
    INFER = 0x03  # one tile, one tile code back
    STREAM = 0x04  # work (or rest) by yourself for a fixed time over the tiles you hold
    STATS = 0x05  # counters, memory, temperature, clock
    RESET = 0x06  # forget the loaded bundle and the held tiles
    BEAT = 0x07  # alive and busy
    ERROR = 0x7F  # one line: found, wanted, how to mend


class ProtocolError(ValueError):
    """A frame that is whole but makes no sense: the sender's mistake, not damage on the line."""


@dataclass(frozen=True)
class Frame:
    """One message. `kind` is a Type, with REPLY added in the direction device to host."""

    kind: int
    session: int
    seq: int
    body: bytes = b""
    version: int = VERSION

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
    covered = start + struct.pack(">H", binascii.crc_hqx(start, 0xFFFF)) + frame.body
    return covered + struct.pack(">I", zlib.crc32(covered))


class FrameReader:
    """Octets in any pieces -> whole frames. What is not a frame is skipped and counted in `discarded_octets`."""

    def __init__(self) -> None:
        self.discarded_octets = 0
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[Frame]:
        """Every frame that `data` completes."""
        self._buffer += data
        while True:
            self._skip_to_magic()
            if len(self._buffer) < HEADER.size:
                return
            length = self._body_octets()
            if length is None:
                self._discard(1)
                continue
            end = HEADER.size + length + 4
            if len(self._buffer) < end:
                return
            frame = _parse(bytes(self._buffer[:end]))
            if frame is None:
                self._discard(1)
                continue
            del self._buffer[:end]
            yield frame

    def _skip_to_magic(self) -> None:
        start = self._buffer.find(MAGIC)
        if start < 0:  # the last octet may be the first half of the magic
            start = max(0, len(self._buffer) - (1 if self._buffer.endswith(MAGIC[:1]) else 0))
        if start:
            self._discard(start)

    def _body_octets(self) -> int | None:
        """Length field of the header at the front of the buffer, None where the header is damaged."""
        length = HEADER.unpack_from(self._buffer)[5]
        check = HEADER.unpack_from(self._buffer)[6]
        whole = check == binascii.crc_hqx(bytes(self._buffer[:16]), 0xFFFF) and length <= MAX_BODY_OCTETS
        return length if whole else None

    def _discard(self, octets: int) -> None:
        del self._buffer[:octets]
        self.discarded_octets += octets


def _parse(octets: bytes) -> Frame | None:
    if struct.unpack(">I", octets[-4:])[0] != zlib.crc32(memoryview(octets)[:-4]):
        return None
    _, version, kind, session, seq, _, _ = HEADER.unpack_from(octets)
    return Frame(kind, session, seq, octets[HEADER.size : -4], version)


def pack_body(fields: dict[str, Any], octets: bytes = b"") -> bytes:
    """The body of a frame: a JSON object and octets."""
    text = json.dumps(fields, separators=(",", ":"), allow_nan=False).encode()
    return struct.pack(">I", len(text)) + text + octets


def unpack_body(body: bytes) -> tuple[dict[str, Any], bytes]:
    """(JSON object, octets) of a body. ProtocolError if it is not one."""
    if len(body) < 4:
        raise ProtocolError(f"body of {len(body)} octets, wanted at least 4")
    end = 4 + int.from_bytes(body[:4], "big")
    if len(body) < end:
        raise ProtocolError(f"body says {end - 4} octets of JSON, only {len(body) - 4} are there")
    try:
        fields = json.loads(body[4:end])
    except (ValueError, RecursionError):
        raise ProtocolError("the JSON of the body does not parse") from None
    if not isinstance(fields, dict):
        raise ProtocolError("the JSON of the body is not an object")
    return fields, body[end:]
