"""A telecommand <-> the space packet that carries it up, signed, both directions. docs/format.md, "Telecommands".

    octet 0     1        2 .. 5    6    7 ..           64
    +---+---+--------+---------+---+--------------+-----------+
    |v 4|12 | opcode | counter | n | n arguments  | signature |
    +---+---+--------+---------+---+--------------+-----------+

Ed25519 signs b"nadir-command-v1\\0", the APID in two octets and all before the signature: it holds for no other
application and for nothing else that the key signs. The counter only rises: a command counts once.
"""

import struct
from binascii import crc_hqx
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum

from payload.errors import InputError, StreamError
from payload.link.space_packet import CRC_OCTETS, HEADER_OCTETS, OVERHEAD_OCTETS
from payload.signature import SIGNATURE_OCTETS, verifies

VERSION, MARK = 1, 12
DOMAIN = b"nadir-command-v1\0"
_HEAD = struct.Struct(">BBIB")
_TC, _WHOLE = 0x1000, 0xC000
MOST_COUNTER = (1 << 32) - 1


class Opcode(IntEnum):
    """What is commanded."""

    SET_MODE = 1  # one octet: 0 nominal, 2 safe
    SELF_TEST = 2
    SCRUB = 3  # all held memory is compared, all networks are asked
    DUMP_EVENTS = 4  # the event log goes down again
    SELECT_SLOT = 5  # one octet: 0 slot a, 1 slot b; from the next start on


@dataclass(frozen=True)
class Command:
    """One command. `opcode` may be one that this payload does not know."""

    opcode: int
    counter: int
    arguments: bytes = b""

    def __post_init__(self) -> None:
        if not (0 <= self.opcode <= 255 and 1 <= self.counter <= MOST_COUNTER and len(self.arguments) <= 255):
            raise InputError(
                f"command {self.opcode}, counter {self.counter}, {len(self.arguments)} octets of arguments: wanted 0 "
                f"to 255, 1 to {MOST_COUNTER}, 255 at most"
            )


def signed_octets(command: Command, apid: int) -> bytes:
    """What a command's signature covers."""
    return DOMAIN + apid.to_bytes(2, "big") + _clear(command)


def pack(command: Command, apid: int, sign: Callable[[bytes], bytes]) -> bytes:
    """The telecommand packet of a command; `sign` gives the 64 octets of an Ed25519 signature."""
    return pack_packet(_clear(command) + sign(signed_octets(command, apid)), apid, command.counter % (1 << 14))


def unpack(packet: bytes, apid: int, keys: Sequence[bytes]) -> Command:
    """The command in a packet, signed by one of `keys` (32 octets each). StreamError where it is none."""
    record = unpack_packet(packet, apid)
    clear, signature = record[:-SIGNATURE_OCTETS], record[-SIGNATURE_OCTETS:]
    if len(clear) < _HEAD.size or clear[0] != VERSION << 4 | MARK:
        raise StreamError(f"no telecommand of version {VERSION}")
    _, opcode, counter, n = _HEAD.unpack_from(clear)
    if len(clear) != _HEAD.size + n or counter < 1:
        raise StreamError("a telecommand whose length or counter makes no sense")
    command = Command(opcode, counter, clear[_HEAD.size :])
    if not any(verifies(key, signature, signed_octets(command, apid)) for key in keys):
        raise StreamError("unsigned, changed, or signed by a key that is not trusted")
    return command


def pack_packet(data: bytes, apid: int, count: int) -> bytes:
    """The telecommand packet around `data`: as a telemetry packet but for the type bit."""
    head = struct.pack(">HHH", _TC | apid, _WHOLE | count, len(data) + CRC_OCTETS - 1)
    return head + data + crc_hqx(head + data, 0xFFFF).to_bytes(CRC_OCTETS, "big")


def unpack_packet(packet: bytes, apid: int) -> bytes:
    """The data of a whole telecommand packet of this APID; StreamError if there is none."""
    if len(packet) <= OVERHEAD_OCTETS or crc_hqx(packet, 0xFFFF) != 0:
        raise StreamError("no undamaged packet")
    first, second, length = struct.unpack_from(">HHH", packet)
    if first != _TC | apid or second >> 14 != 3 or HEADER_OCTETS + 1 + length != len(packet):
        raise StreamError(f"no whole telecommand packet of APID {apid}")
    return packet[HEADER_OCTETS:-CRC_OCTETS]


def split(octets: bytes) -> Iterator[bytes]:
    """The packets of a file, by their lengths; what is left at the end is a piece of its own."""
    at = 0
    while at < len(octets):
        length = HEADER_OCTETS + 1 + int.from_bytes(octets[at + 4 : at + HEADER_OCTETS], "big")
        yield octets[at : at + length]
        at += length


def _clear(command: Command) -> bytes:
    head = VERSION << 4 | MARK, command.opcode, command.counter, len(command.arguments)
    return _HEAD.pack(*head) + command.arguments
