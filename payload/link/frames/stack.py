"""The layers between packets and the air, each of which a mission can switch off, and what a sender does with them.

    packets -> transfer frames -> Reed-Solomon -> randomiser -> sync marker -> convolutional code -> octets on the air

CCSDS 131.0-B has them in this order: the randomiser goes over data and parity, the marker stays as it is. The way back
is sim/link/frames/receiver.py. docs/format.md, "Frames".
"""

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Literal

import numpy as np

from payload.errors import InputError
from payload.link.frames.convolutional import ConvolutionalEncoder
from payload.link.frames.randomiser import randomise
from payload.link.frames.reed_solomon import SYMBOLS, ReedSolomon
from payload.link.frames.security import Security, sealed, without_security
from payload.link.frames.transfer_frame import FrameFormat, Kind
from payload.link.frames.virtual_channels import frames_of
from payload.link.space_packet import OVERHEAD_OCTETS
from payload.link.streams import Stream

SYNC_MARKER = bytes.fromhex("1acffc1d")
#: Frames coded at once: enough to keep numpy busy, few enough to keep memory small.
BATCH_FRAMES = 64
_PARITY = {"none": 0, "255,223": 32, "255,239": 16}


@dataclass(frozen=True)
class Stack:
    """What the layers are. `frame_octets` None: as many as the Reed-Solomon block holds, or 1115 without one.

    `lead_in_frames` idle frames go first, for receivers to lock on.
    """

    frames: Kind = "tm"
    spacecraft_id: int = 0x2A
    frame_octets: int | None = None
    fecf: bool = True
    reed_solomon: Literal["none", "255,223", "255,239"] = "255,223"
    interleave: int = 5
    dual_basis: bool = True
    randomiser: bool = True
    sync_marker: bool = True
    convolutional: bool = False
    lead_in_frames: int = 2
    security: Security | None = None  # of [link.security]

    def __post_init__(self) -> None:
        if not 0 <= self.lead_in_frames <= 10_000:
            raise InputError(f"lead_in_frames is {self.lead_in_frames}, wanted 0 to 10000")
        if self.convolutional and not self.sync_marker:
            raise InputError("convolutional is on without sync_marker: nothing says where frames begin; turn one over")
        octets, wide = self.layout.octets, self.interleave
        if self._parity and (octets % wide or octets > (SYMBOLS - self._parity) * wide):
            most = (SYMBOLS - self._parity) * wide
            raise InputError(f"frame_octets is {octets}, wanted a multiple of {wide} (interleave), at most {most}")
        _ = self.code

    @property
    def _parity(self) -> int:
        return _PARITY[self.reed_solomon]

    @property
    def layout(self) -> FrameFormat:
        fitting = (SYMBOLS - self._parity) * self.interleave if self._parity else 1115
        return FrameFormat(self.frames, self.frame_octets or fitting, self.spacecraft_id, self.fecf)

    @property
    def packet_layout(self) -> FrameFormat:
        """Frames as packets are put into them: shorter by what security adds."""
        return self.layout if self.security is None else without_security(self.layout)

    @property
    def code(self) -> ReedSolomon | None:
        """The block code; None where it is off."""
        if not self._parity:
            return None
        return ReedSolomon(self._parity, self.interleave, self.dual_basis, self.layout.octets // self.interleave)

    @property
    def coded_octets(self) -> int:
        """A frame with its parity."""
        return self.layout.octets + self._parity * self.interleave

    @property
    def marker(self) -> bytes:
        return SYNC_MARKER if self.sync_marker else b""

    @property
    def unit_octets(self) -> int:
        """A frame as it is on the air: marker, data, parity, and all of it twice behind the convolutional code."""
        return (len(self.marker) + self.coded_octets) * (2 if self.convolutional else 1)

    @property
    def packet_share(self) -> float:
        """Share of the octets on the air that packets have."""
        return self.packet_layout.data_octets / self.unit_octets


def encode_frames(
    frames: Iterable[bytes], stack: Stack, convolutional: ConvolutionalEncoder | None = None
) -> Iterator[bytes]:
    """Each frame as it is on the air, `unit_octets` each. `convolutional`: the encoder that has coded what went before;
    None where nothing did."""
    frames, code, convolutional = iter(frames), stack.code, convolutional or ConvolutionalEncoder()
    while batch := list(islice(frames, BATCH_FRAMES)):
        blocks = np.frombuffer(b"".join(batch), np.uint8).reshape(len(batch), -1)
        blocks = blocks if code is None else code.encode(blocks)
        blocks = randomise(blocks) if stack.randomiser else blocks
        for block in blocks:
            unit = stack.marker + block.tobytes()
            yield convolutional.encode(unit) if stack.convolutional else unit


def packets_on_air(packets: Iterable[tuple[int, bytes]], stack: Stack) -> Iterator[bytes]:
    """(virtual channel, packet) in sending order -> frames as they are on the air, the lead-in first."""
    frames = frames_of(packets, stack.packet_layout, stack.lead_in_frames, urgent=Stream.ALERTS)
    return encode_frames(frames if stack.security is None else sealed(frames, stack.security, stack.layout), stack)


@dataclass(frozen=True)
class LayerOctets:
    """What each layer added, for a stream of packets as it goes on the air. Their sum is every octet of it."""

    payload_octets: int  # records: tile codes, scene headers, housekeeping
    packet_octets: int  # headers and CRCs of packets
    delivery_octets: int = 0  # what CFDP or RaptorQ adds: PDU headers, repetitions, repair, and packets around them
    frame_octets: int = 0  # headers and CRCs of frames, and what security adds
    idle_octets: int = 0  # what fills the last frames, and idle frames
    parity_octets: int = 0
    sync_marker_octets: int = 0
    convolutional_octets: int = 0

    @property
    def octets_on_air(self) -> int:
        return sum(asdict(self).values())


def octets_by_layer(
    packets: int, packet_octets: int, stack: Stack | None, frames: int = 0, delivery_octets: int = 0
) -> LayerOctets:
    """For so many packets of the payload of so many octets in all, with what delivering them as files adds, in so many
    frames; without a stack packets alone are sent."""
    heads = packets * OVERHEAD_OCTETS
    if stack is None:
        return LayerOctets(packet_octets - heads, heads, delivery_octets)
    layout, marker, held = stack.layout, len(stack.marker), stack.packet_layout.data_octets
    return LayerOctets(
        packet_octets - heads,
        heads,
        delivery_octets,
        frames * (layout.octets - held),
        frames * held - packet_octets - delivery_octets,
        frames * (stack.coded_octets - layout.octets),
        frames * marker,
        frames * (marker + stack.coded_octets) * stack.convolutional,
    )
