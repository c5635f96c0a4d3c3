"""The space between, for frames: a seeded channel over the octets that are on the air.

What it may do, each from its own random stream: take whole frames out, drown them in noise (bursts), turn bits round,
singly and in bursts, double, overtake and cut frames, drop or double bits, and turn all bits round from a frame on.
What arrives is a stream of octets that need not begin where a frame does: sim/link/frames/receiver.py reads it. Time on
air runs whether a frame arrives or not; the frame that would end after the pass, and all later ones, are never sent.
"""

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from payload.errors import InputError
from payload.link.frames.stack import Stack
from sim.link.chances import AirErrors, BitErrors, Bursts, Chances, chance_of_no_loss, flipped, loss_profile
from sim.link.link import Link
from sim.link.mishaps import Happened, happen

FRAMES_FILE = "frames.bin"


@dataclass(frozen=True)
class FrameLinkReport:
    """What the channel did. offered = sent + beyond the pass; sent = lost + lost in bursts + those that arrived."""

    frames_offered: int
    frames_sent: int
    octets_sent: int
    frames_lost: int  # never arrived, by `frame_loss`
    frames_lost_in_bursts: int  # arrived as noise
    frames_corrupted: int  # arrived with bit errors
    bits_flipped: int  # in them
    frames_doubled: int
    frames_reordered: int
    frames_truncated: int
    bits_slipped: int
    inversions: int
    frames_beyond_pass: int
    octets_beyond_pass: int
    pass_s: float
    air_time_s: float
    utilisation: float  # air time / pass
    expected_frames_lost: float  # mean over all seeds, beside this one's draw
    chance_of_no_loss: float  # share of seeds that lose not one frame
    loss_profile: tuple[float, ...] = ()  # share of frames that never arrived, in equal parts of the stream


@dataclass
class _Tally:
    frames_offered: int = 0
    frames_sent: int = 0
    octets_sent: int = 0
    frames_lost: int = 0
    frames_lost_in_bursts: int = 0
    frames_corrupted: int = 0
    bits_flipped: int = 0
    bits_slipped: int = 0
    inversions: int = 0
    frames_beyond_pass: int = 0
    octets_beyond_pass: int = 0


class FrameChannel:
    """One pass over `link`. The same seed and the same frames give the same fate."""

    def __init__(self, link: Link, seed: int) -> None:
        if seed < 0:
            raise InputError(f"seed is {seed}, wanted 0 or more")
        self._link, self._tally, self._happened, self._closed = link, _Tally(), Happened(), False
        self._arrived = bytearray()  # 1 or 0 for each frame offered
        streams = np.random.SeedSequence(seed).spawn(9)  # as the packets' channel has them, and three more
        generators = [np.random.Generator(np.random.PCG64(stream)) for stream in streams]
        _, burst, bits, frames, self._fates, bit_burst, self._noise, slips, inversions = generators
        self._loss = Chances(frames)
        self._bursts = Bursts(link.burst, Chances(burst)) if link.burst else None
        self._errors = AirErrors(link.bit_error_rate, bits, link.bit_burst, bit_burst)
        self._slips = _Slips(link.mishaps.bit_slip_rate, slips)
        self._inversions, self._inverted = Chances(inversions), False

    @property
    def report(self) -> FrameLinkReport:
        """What happened up to now."""
        link, tally, happened = self._link, self._tally, self._happened
        air_time_s, sent = 8 * tally.octets_sent / link.rate_bps, tally.frames_sent
        burst_loss = link.burst.loss_fraction if link.burst else 0.0
        return FrameLinkReport(
            **asdict(tally),
            frames_doubled=happened.doubled,
            frames_reordered=happened.reordered,
            frames_truncated=happened.truncated,
            pass_s=link.pass_s,
            air_time_s=air_time_s,
            utilisation=air_time_s / link.pass_s if link.pass_s else 0.0,
            expected_frames_lost=sent * (1.0 - (1.0 - link.frame_loss) * (1.0 - burst_loss)),
            chance_of_no_loss=chance_of_no_loss(link.burst, tally.frames_sent)
            * (1 - link.frame_loss) ** tally.frames_sent,
            loss_profile=loss_profile(self._arrived),
        )

    def send(self, units: Iterable[bytes]) -> Iterator[bytes]:
        """The octets that arrive, in pieces of about a frame."""
        for unit in happen(self._send(units), self._link.mishaps, self._fates, self._happened):
            arriving = self._slips.through(self._turned(unit))
            self._tally.bits_slipped = self._slips.count
            if arriving:
                yield arriving
        yield from filter(None, [self._slips.rest()])

    def _send(self, units: Iterable[bytes]) -> Iterator[bytes]:
        tally = self._tally
        for unit in units:
            tally.frames_offered += 1
            self._arrived.append(0)
            if not self._fits(unit):
                tally.frames_beyond_pass += 1
                tally.octets_beyond_pass += len(unit)
                continue
            tally.frames_sent += 1
            tally.octets_sent += len(unit)
            errors = self._errors.within(8 * len(unit))  # drawn for lost frames too: the air does not know
            burst = self._bursts is not None and self._bursts.takes_next()
            if self._loss.next() < self._link.frame_loss:
                tally.frames_lost += 1
            elif burst:
                tally.frames_lost_in_bursts += 1
                yield self._noise.bytes(len(unit))
            elif errors is None:
                self._arrived[-1] = 1
                yield unit
            else:
                self._arrived[-1] = 1
                tally.frames_corrupted += 1
                tally.bits_flipped += len(errors)
                yield flipped(unit, errors)

    def _turned(self, unit: bytes) -> bytes:
        if self._inversions.next() < self._link.mishaps.inversion:
            self._inverted = not self._inverted
            self._tally.inversions += 1
        return (~np.frombuffer(unit, np.uint8)).tobytes() if self._inverted else unit

    def _fits(self, unit: bytes) -> bool:
        """Whether the frame ends before the pass does. Once one does not, the pass is over."""
        self._closed = self._closed or 8 * (self._tally.octets_sent + len(unit)) > self._link.capacity_bits
        return not self._closed


class _Slips:
    """Bits dropped or doubled: from there on every bit comes one place earlier or later."""

    def __init__(self, rate: float, generator: np.random.Generator) -> None:
        self._places, self._generator, self._rate = BitErrors(rate, generator), generator, rate
        self._left = np.zeros(0, np.uint8)  # bits that make no octet yet
        self.count = 0

    def through(self, unit: bytes) -> bytes:
        if self._rate == 0:
            return unit
        bits = np.unpackbits(np.frombuffer(unit, np.uint8))
        if (places := self._places.within(len(bits))) is not None:
            times = np.ones(len(bits), np.int64)
            times[places] = 2 * (self._generator.random(len(places)) < 0.5)
            bits, self.count = np.repeat(bits, times), self.count + len(places)
        bits = np.concatenate([self._left, bits])
        whole = len(bits) // 8 * 8
        self._left = bits[whole:]
        return np.packbits(bits[:whole]).tobytes()

    def rest(self) -> bytes:
        """The last bits, filled up with zeros: nothing more comes for a while."""
        last, self._left = np.packbits(self._left).tobytes(), self._left[:0]
        return last


def units_in(path: Path, stack: Stack) -> Iterator[bytes]:
    """The frames of a file as they go on the air, one at a time."""
    with path.open("rb") as stream:
        while unit := stream.read(stack.unit_octets):
            yield unit
