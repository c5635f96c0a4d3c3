"""Octets off the air -> packets with their virtual channels, back through the layers of payload/link/frames/stack.py.

octets -> Viterbi -> frame synchronisation -> randomiser -> Reed-Solomon -> transfer frames -> packets
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from payload.errors import StreamError
from payload.link.frames.randomiser import randomise
from payload.link.frames.security import Opener, SecurityCounts
from payload.link.frames.stack import Stack
from payload.link.frames.virtual_channels import Deframer, FrameCounts
from sim.link.frames.symbol_stream import SymbolStream
from sim.link.frames.synchroniser import SyncCounts, Synchroniser

Octets = NDArray[np.uint8]
Packets = list[tuple[int, bytes]]
GATHERED_OCTETS = 1 << 16


@dataclass(frozen=True)
class FrameReception:
    """What the layers did. A frame is decoded if every codeword of it is."""

    sync: SyncCounts
    frames: FrameCounts
    symbols_corrected: int = 0  # by Reed-Solomon
    codewords_corrected: int = 0
    codewords_uncorrectable: int = 0
    most_corrected: int = 0  # symbols in one codeword
    channel_symbols_turned: float = 0.0  # share that the Viterbi decoder turned round
    security: SecurityCounts | None = None  # frames refused by it; None where it is off


class FrameReceiver:
    """Holds a few frames. Never raises on what was received."""

    def __init__(self, stack: Stack) -> None:
        self.stack, self._code = stack, stack.code
        self._symbols = SymbolStream() if stack.convolutional else None
        self._sync = Synchroniser(stack.marker, stack.coded_octets) if stack.sync_marker else _Fixed(stack.coded_octets)
        self._opener = None if stack.security is None else Opener(stack.security, stack.layout)
        self._deframer = Deframer(stack.packet_layout)
        self._corrected = self._words = self._uncorrectable = self._most = 0

    def push(self, octets: bytes) -> Packets:
        """The packets that are whole by now."""
        decoded = octets if self._symbols is None else self._symbols.push(octets)
        return [packet for blocks in self._sync.push(decoded) for packet in self._packets(blocks)]

    def settle(self) -> Packets:
        """The packets that were held back; more may come after a while."""
        blocks = [] if self._symbols is None else self._sync.push(self._symbols.finish())
        last = [packet for block in [*blocks, *self._sync.settle()] for packet in self._packets(block)]
        return last + self._deframer.finish()

    def finish(self) -> Packets:
        """The packets that were held back, when nothing more will come."""
        last = self.settle()
        self._sync.finish()
        return last

    @property
    def reception(self) -> FrameReception:
        """What happened up to now."""
        symbols = self._symbols
        turned = symbols.turned / symbols.seen if symbols is not None and symbols.seen else 0.0
        return FrameReception(
            self._sync.counts,
            self._deframer.counts,
            self._corrected,
            self._words,
            self._uncorrectable,
            self._most,
            turned,
            None if self._opener is None else self._opener.counts,
        )

    def _packets(self, blocks: Octets) -> Iterator[tuple[int, bytes]]:
        blocks = randomise(blocks) if self.stack.randomiser else blocks
        usable = np.ones(len(blocks), bool)
        if self._code is not None:
            blocks, corrected = self._code.decode(blocks)
            self._count(corrected)
            usable &= (corrected >= 0).all(axis=1)
        for frame, whole in zip(blocks, usable.tolist(), strict=True):
            opened = self._opened(frame.tobytes()) if whole else None
            if opened is not None:
                yield from self._deframer.push(opened)
            else:
                self._deframer.refuse()

    def _opened(self, frame: bytes) -> bytes | None:
        """The frame without its security; None where it is not the sender's, and counted."""
        if self._opener is None:
            return frame
        try:
            return self._opener.open(frame)
        except StreamError:
            return None

    def _count(self, corrected: NDArray[np.int8]) -> None:
        self._corrected += int(corrected[corrected > 0].sum(dtype=np.int64))
        self._words += int((corrected > 0).sum())
        self._uncorrectable += int((corrected < 0).sum())
        self._most = max(self._most, int(corrected.max(initial=0)))


class _Fixed:
    """Frames back to back without markers: the first begins with the first octet."""

    def __init__(self, frame_octets: int) -> None:
        self._frame_octets, self._left, self.counts = frame_octets, b"", SyncCounts()

    def push(self, octets: bytes) -> list[Octets]:
        self._left += octets
        count = len(self._left) // self._frame_octets
        whole, self._left = self._left[: count * self._frame_octets], self._left[count * self._frame_octets :]
        self.counts.frames += count
        return [np.frombuffer(whole, np.uint8).reshape(count, -1)] if count else []

    def settle(self) -> list[Octets]:
        return []

    def finish(self) -> list[Octets]:
        self.counts.skipped_octets += len(self._left)
        return []


def packets_off_air(
    octets: Iterable[bytes], receiver: FrameReceiver, gathered_octets: int = GATHERED_OCTETS
) -> Iterator[tuple[int, bytes]]:
    """(virtual channel, packet) of a stream, as they become whole. Octets are gathered: a few frames at a time cost far
    more than many."""
    gathered = bytearray()
    for piece in octets:
        gathered += piece
        if len(gathered) >= gathered_octets:
            yield from receiver.push(bytes(gathered))
            gathered.clear()
    yield from receiver.push(bytes(gathered))
    yield from receiver.finish()
