"""The layers below packets, damaged: coded frames on the air, Reed-Solomon words, files by CFDP.

Each way gives (virtual channel, packet) as the ground gets them, and how many units were damaged on the way.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import cache

import numpy as np
from fuzz.damage import Rng, damaged
from spacepackets.cfdp import TransmissionMode
from spacepackets.cfdp.conf import PduConfig
from spacepackets.cfdp.pdu import FileDataPdu
from spacepackets.cfdp.pdu.file_data import FileDataParams
from spacepackets.util import ByteFieldU8, ByteFieldU16

from payload.errors import StreamError
from payload.link.file_pdu import CFDP_APID, pack_down, unpack_down
from payload.link.frames.reed_solomon import ReedSolomon
from payload.link.frames.stack import Stack, packets_on_air
from payload.link.space_packet import SequenceCounter
from payload.link.streams import with_channels
from sim.ground.arriving_files import packets_and_files
from sim.link.frames.receiver import FrameReceiver, packets_off_air

Packets = tuple[bytes, ...]
Channelled = tuple[int, bytes]
PDU_OCTETS = 150
#: Small frames, so that a scene has many: with both codes, with the CRC alone, with nothing at all, twice coded.
STACKS = (
    Stack(interleave=1), Stack(frames="aos", reed_solomon="255,239", interleave=2),
    Stack(reed_solomon="none", frame_octets=256), Stack("aos", reed_solomon="none", frame_octets=240, fecf=False),
    Stack(reed_solomon="none", frame_octets=220, randomiser=False, sync_marker=False),
    Stack(interleave=1, convolutional=True),
)  # fmt: skip


@cache
def units_on_air(packets: Packets, stack: Stack, apid: int) -> tuple[bytes, ...]:
    """A scene's frames as they are on the air."""
    return tuple(packets_on_air(with_channels(packets, apid), stack))


Happening = Callable[[Rng, list[bytes], int, Sequence[bytes]], list[bytes]]
HAPPENINGS: tuple[Happening, ...] = (
    *[lambda rng, units, at, other: [damaged(rng, units[at])]] * 5,
    lambda rng, units, at, other: [few_symbols(rng, units[at])],
    lambda rng, units, at, other: [],
    lambda rng, units, at, other: [units[at]] * 2,
    lambda rng, units, at, other: [units[at], units[int(rng.integers(len(units)))]],  # replayed
    lambda rng, units, at, other: [other[at % len(other)]],  # spliced: the same counts, another scene
    lambda rng, units, at, other: [units[at], other[int(rng.integers(len(other)))]],
)


def few_symbols(rng: Rng, unit: bytes) -> bytes:
    """About as many wrong symbols as a code can correct."""
    found = np.frombuffer(unit, np.uint8).copy()
    found[rng.choice(len(found), min(len(found), int(rng.integers(6, 20))), replace=False)] ^= rng.integers(
        1, 256, dtype=np.uint8
    )
    return found.tobytes()


def happened(rng: Rng, units: Sequence[bytes], other: Sequence[bytes]) -> tuple[list[bytes], int]:
    """Some units damaged, lost, doubled, replayed, or of another scene."""
    found, count = list(units), int(rng.integers(1, 2 + len(units) // 2))
    for at in rng.integers(len(units), size=count):
        at = min(int(at), len(found) - 1)
        if at >= 0:
            found[at : at + 1] = HAPPENINGS[int(rng.integers(len(HAPPENINGS)))](rng, found, at, other)
    return found, count


def frames(rng: Rng, ours: Packets, other: Packets, apid: int) -> tuple[Iterator[Channelled], int]:
    """Coded frames of a scene, damaged, and the octets of the stream cut or slipped now and then."""
    stack = STACKS[int(rng.integers(len(STACKS)))]
    units, count = happened(rng, units_on_air(ours, stack, apid), units_on_air(other, stack, apid))
    octets = b"".join(units)
    if rng.random() < 0.2:
        octets = octets[int(rng.integers(200)) :]
    return packets_off_air([octets], FrameReceiver(stack)), count


@cache
def pdus_of(packets: Packets) -> tuple[bytes, ...]:
    """The packets of a scene as a file in CFDP file data PDUs, a packet each."""
    octets, counter = b"".join(packets), SequenceCounter(CFDP_APID)
    names = ByteFieldU8(1), ByteFieldU8(2), ByteFieldU16(1)
    conf = PduConfig(*names, TransmissionMode.UNACKNOWLEDGED)
    starts = range(0, len(octets), PDU_OCTETS)
    return tuple(
        pack_down(bytes(FileDataPdu(conf, FileDataParams(octets[at : at + PDU_OCTETS], at)).pack()), counter)
        for at in starts
    )


def pdus(rng: Rng, ours: Packets, other: Packets, apid: int) -> tuple[Iterator[Channelled], int]:
    """A scene as a file; its PDUs damaged, also under a packet whose CRC is right."""
    found, count = happened(rng, pdus_of(ours), pdus_of(other))
    found = [inside(rng, packet) if rng.random() < 0.02 else packet for packet in found]
    return packets_and_files(((0, packet) for packet in found), apid), count


def inside(rng: Rng, packet: bytes) -> bytes:
    """A packet whose PDU is damaged and whose own CRC is right."""
    try:
        return pack_down(damaged(rng, unpack_down(packet)) or b"\0", SequenceCounter(CFDP_APID))
    except StreamError:
        return packet


def words(rng: Rng) -> list[str]:
    """Twenty Reed-Solomon words with more or fewer wrong symbols than the code corrects: what was made of each."""
    parity = int(rng.choice([16, 32]))
    code = ReedSolomon(parity, 1, True, int(rng.integers(1, 256 - parity)))
    sent = rng.integers(0, 256, (20, code.data_octets), dtype=np.uint8)
    blocks, wrong = code.encode(sent), rng.integers(0, parity, 20)
    for block, count in zip(blocks, wrong, strict=True):
        places = rng.choice(len(block), min(len(block), int(count)), replace=False)
        block[places] ^= rng.integers(1, 256, len(places), dtype=np.uint8)
    data, corrected = code.decode(blocks)
    right = (data == sent).all(axis=1)
    told = zip(right.tolist(), corrected[:, 0].tolist(), np.minimum(wrong, blocks.shape[1]).tolist(), strict=True)
    return [word(r, c, n <= parity // 2) for r, c, n in told]


def word(right: bool, corrected: int, within: bool) -> str:
    """Within the code's reach a word must come back; beyond it may be taken for another, which the layers above see."""
    if within:
        return "word right" if right and corrected >= 0 else "word WRONG"
    return "word given up" if corrected < 0 else "word taken for another"
