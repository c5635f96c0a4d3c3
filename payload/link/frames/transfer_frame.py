"""Transfer frame <-> octets, both directions: TM (CCSDS 132.0-B-3) and AOS (732.0-B-4). docs/format.md, "Frames".

    TM    |00| spacecraft 10 | channel 3 |0| master count 8 | channel count 8 |000 11| pointer 11 | data | CRC 16 |
    AOS   |01| spacecraft 8 | channel 6 | channel count 24 |0|1|00| cycle 4 | 00000 | pointer 11 | data | CRC 16 |

The pointer says where in the data field the first packet header begins, so that a receiver that lost a frame finds the
next packet. Neither insert zone, secondary header, operational control field nor header error control are sent.
"""

import struct
from binascii import crc_hqx
from dataclasses import dataclass
from typing import Literal

from payload.errors import InputError, StreamError

#: Pointers that are no place: no packet begins in this frame; there are no packets, idle data only.
NO_PACKET_BEGINS, ONLY_IDLE = 2047, 2046
FECF_OCTETS = 2
#: The pointer has 11 bits, so a data field beyond it could not be pointed into.
LONGEST_FRAME_OCTETS = 2048
Kind = Literal["tm", "aos"]


@dataclass(frozen=True)
class FrameFormat:
    """What all frames of a link have in common. `octets` of a whole frame; `fecf`: a CRC-16 ends it."""

    kind: Kind = "tm"
    octets: int = 1115
    spacecraft_id: int = 0
    fecf: bool = True

    def __post_init__(self) -> None:
        least = self.header_octets + FECF_OCTETS * self.fecf + 8
        if not least <= self.octets <= LONGEST_FRAME_OCTETS:
            raise InputError(f"a {self.kind} frame has {self.octets} octets, wanted {least} to {LONGEST_FRAME_OCTETS}")
        if not 0 <= self.spacecraft_id < 1 << self.spacecraft_bits:
            most = (1 << self.spacecraft_bits) - 1
            raise InputError(f"spacecraft_id is {self.spacecraft_id}, wanted 0 to {most} in {self.kind} frames")

    @property
    def spacecraft_bits(self) -> int:
        return 10 if self.kind == "tm" else 8

    @property
    def header_octets(self) -> int:
        """Primary header; in AOS frames the header of the packet zone, too."""
        return 6 if self.kind == "tm" else 8

    @property
    def data_octets(self) -> int:
        """Octets of packets in a frame."""
        return self.octets - self.header_octets - FECF_OCTETS * self.fecf

    @property
    def channels(self) -> int:
        """Virtual channels, of which the last carries idle frames alone."""
        return 8 if self.kind == "tm" else 64

    @property
    def idle_channel(self) -> int:
        return self.channels - 1

    @property
    def counts(self) -> int:
        """Frames of a virtual channel until its count starts again."""
        return 1 << 8 if self.kind == "tm" else 1 << 24


@dataclass(frozen=True)
class Frame:
    """One transfer frame. `master_count` is of all channels together, which AOS frames do not have."""

    channel: int
    count: int
    pointer: int  # octet of `data` at which the first packet begins, NO_PACKET_BEGINS or ONLY_IDLE
    data: bytes
    master_count: int = 0


def pack(frame: Frame, layout: FrameFormat) -> bytes:
    """The octets of a frame. InputError where a field does not fit."""
    if not (0 <= frame.channel < layout.channels and 0 <= frame.count < layout.counts):
        raise InputError(f"channel {frame.channel}, count {frame.count} do not fit a {layout.kind} frame")
    if not 0 <= frame.pointer <= NO_PACKET_BEGINS or len(frame.data) != layout.data_octets:
        raise InputError(
            f"pointer {frame.pointer}, {len(frame.data)} octets of data: wanted 0 to 2047, {layout.data_octets}"
        )
    octets = (_tm_header if layout.kind == "tm" else _aos_header)(frame, layout.spacecraft_id) + frame.data
    return octets + crc_hqx(octets, 0xFFFF).to_bytes(FECF_OCTETS, "big") if layout.fecf else octets


def unpack(octets: bytes, layout: FrameFormat) -> Frame:
    """Inverse of `pack`. StreamError with the cause where the octets are no undamaged frame of this spacecraft."""
    if len(octets) != layout.octets:
        raise StreamError(f"frame of {len(octets)} octets, wanted {layout.octets}")
    if layout.fecf and crc_hqx(octets, 0xFFFF) != 0:
        raise StreamError("frame error control does not match")
    spacecraft, frame = (_read_tm if layout.kind == "tm" else _read_aos)(octets, layout)
    if spacecraft != layout.spacecraft_id:
        raise StreamError(f"frame of spacecraft {spacecraft}, wanted {layout.spacecraft_id}")
    if layout.data_octets <= frame.pointer < ONLY_IDLE:
        raise StreamError(f"pointer {frame.pointer} beyond the {layout.data_octets} octets of the data field")
    return frame


def _tm_header(frame: Frame, spacecraft_id: int) -> bytes:
    first = spacecraft_id << 4 | frame.channel << 1
    status = 0b11 << 11 | frame.pointer  # segment length 11: packets, not segments
    return struct.pack(">HBBH", first, frame.master_count & 0xFF, frame.count, status)


def _aos_header(frame: Frame, spacecraft_id: int) -> bytes:
    first = 0b01 << 14 | spacecraft_id << 6 | frame.channel
    return struct.pack(">HIH", first, frame.count << 8, frame.pointer)


def _read_tm(octets: bytes, layout: FrameFormat) -> tuple[int, Frame]:
    first, master_count, count, status = struct.unpack_from(">HBBH", octets)
    if first >> 14 or first & 1 or status >> 11 != 0b11:
        raise StreamError("not a TM frame of packets without secondary header and control field")
    data = bytes(octets[6 : 6 + layout.data_octets])
    return first >> 4 & 0x3FF, Frame(first >> 1 & 7, count, status & 0x7FF, data, master_count)


def _read_aos(octets: bytes, layout: FrameFormat) -> tuple[int, Frame]:
    first, signalling, zone = struct.unpack_from(">HIH", octets)
    if first >> 14 != 0b01 or signalling & 0x80:
        raise StreamError("not an AOS frame of this version, in real time")
    data = bytes(octets[8 : 8 + layout.data_octets])
    return first >> 6 & 0xFF, Frame(first & 0x3F, signalling >> 8, zone & 0x7FF, data)
