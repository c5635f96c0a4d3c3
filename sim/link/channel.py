"""The space between: a seeded channel that loses, damages and cuts off packets, and counts what it did.

Three things happen to a packet, each from its own random stream, so that changing one leaves the others' draws alone:
uniform loss of packets and of transfer frames, bursts (Gilbert 1960, Elliott 1963: a two-state Markov chain, one step a
packet), and independent bit errors, whose distances are drawn (geometric) instead of every bit. One packet is not one
frame: packets lie back to back in frames, and a packet is gone with any frame that holds an octet of it. Time on air
runs whether a packet arrives or not;
the packet that would end after the pass, and all later ones, are never sent.
"""

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from payload.errors import InputError
from sim.toml_tables import check_range

#: Draws made at once. The streams do not depend on it.
_DRAWS = 4096
#: Parts of the stream whose losses are told apart.
_PROFILE_PARTS = 100


@dataclass(frozen=True)
class Burst:
    """Gilbert-Elliott: chances per packet of entering and leaving the bad state, and of loss in the bad state."""

    enter: float
    leave: float
    loss: float = 1.0

    def __post_init__(self) -> None:
        check_range("enter", self.enter, 0, 1)
        check_range("leave", self.leave, 1e-6, 1)
        check_range("loss", self.loss, 0, 1)

    @property
    def bad_fraction(self) -> float:
        """Share of packets sent in the bad state, in the long run."""
        return self.enter / (self.enter + self.leave)

    @property
    def loss_fraction(self) -> float:
        """Share of packets that bursts take, in the long run. A burst lasts 1 / leave packets on average."""
        return self.bad_fraction * self.loss


@dataclass(frozen=True)
class Link:
    """A downlink as the packet layer sees it: `rate_bps` is what is left for packets after frames and codes.

    `packet_loss` and `bit_error_rate` are what is left after them, too. `frame_loss` is the share of transfer frames
    that decoding gives up, `frame_octets` what each of them holds of packets.
    """

    rate_bps: float
    pass_s: float
    packet_loss: float = 0.0
    bit_error_rate: float = 0.0
    burst: Burst | None = None
    frame_loss: float = 0.0
    frame_octets: int = 1109  # five interleaved RS(255,223) blocks, less the header of a TM frame (CCSDS 131.0, 132.0)

    def __post_init__(self) -> None:
        check_range("rate_bps", self.rate_bps, 1, 1e12)
        check_range("pass_s", self.pass_s, 0, 86400)
        check_range("packet_loss", self.packet_loss, 0, 1)
        check_range("frame_loss", self.frame_loss, 0, 1)
        check_range("frame_octets", self.frame_octets, 1, 65536)
        check_range("bit_error_rate", self.bit_error_rate, 0, 0.5)
        if 0 < self.bit_error_rate < 1e-15:
            raise InputError(f"bit_error_rate is {self.bit_error_rate:g}, wanted 0 or 1e-15 to 0.5")

    @property
    def capacity_bits(self) -> int:
        """Bits of packets that one pass carries."""
        return int(self.rate_bps * self.pass_s)


@dataclass(frozen=True)
class LinkReport:
    """What the channel did. offered = sent + beyond the pass; sent = lost + delivered, damaged ones among them."""

    packets_offered: int
    packets_sent: int
    octets_sent: int
    packets_lost: int  # by `packet_loss`
    packets_lost_in_bursts: int
    packets_corrupted: int  # delivered with bit errors
    bits_flipped: int  # in packets that were delivered
    packets_beyond_pass: int
    octets_beyond_pass: int
    pass_s: float
    air_time_s: float
    utilisation: float  # air time / pass
    frames_sent: int = 0  # begun; packets lie in them back to back
    frames_per_packet: float = 0.0  # that hold an octet of it, mean over packets
    expected_packets_lost: float = 0.0  # mean over all seeds, beside this one's draw
    chance_of_no_loss: float = 1.0  # share of seeds that lose not one packet
    packets_lost_with_frames: int = 0  # by `frame_loss`
    loss_profile: tuple[float, ...] = ()  # share of packets that never arrived, in equal parts of the stream



@dataclass
class _Tally:
    packets_offered: int = 0
    packets_sent: int = 0
    octets_sent: int = 0
    packets_lost: int = 0
    packets_lost_in_bursts: int = 0
    packets_lost_with_frames: int = 0
    packets_corrupted: int = 0
    bits_flipped: int = 0
    packets_beyond_pass: int = 0
    octets_beyond_pass: int = 0


class Channel:
    """One pass over `link`. The same seed and the same packets give the same fate, however they are handed over."""

    def __init__(self, link: Link, seed: int) -> None:
        if seed < 0:
            raise InputError(f"seed is {seed}, wanted 0 or more")
        self._link = link
        self._tally = _Tally()
        self._capacity_bits = link.capacity_bits
        self._closed = False
        self._arrived = bytearray()  # 1 or 0 for each packet offered
        streams = np.random.SeedSequence(seed).spawn(4)  # the first three as they were before there were frames
        loss, burst, bits, frames = (np.random.Generator(np.random.PCG64(s)) for s in streams)
        self._loss = _Chances(loss)
        self._bursts = _Bursts(link.burst, _Chances(burst)) if link.burst else None
        self._bit_errors = _BitErrors(link.bit_error_rate, bits)
        self._frames = _Frames(link, _Chances(frames))

    @property
    def report(self) -> LinkReport:
        """What happened up to now."""
        air_time_s = 8 * self._tally.octets_sent / self._link.rate_bps
        utilisation = air_time_s / self._link.pass_s if self._link.pass_s else 0.0
        return LinkReport(
            **asdict(self._tally),
            pass_s=self._link.pass_s,
            air_time_s=air_time_s,
            utilisation=utilisation,
            loss_profile=_loss_profile(self._arrived),
            frames_sent=self._frames.begun,
            frames_per_packet=self._frames.touched / sent if (sent := self._tally.packets_sent) else 0.0,
            expected_packets_lost=self._frames.expected_lost,
            chance_of_no_loss=_chance_of_no_loss(self._link, sent, self._frames.begun),
        )

    def send(self, packets: Iterable[bytes]) -> Iterator[bytes]:
        """The packets that arrive, in order, some of them damaged. Streams: one packet is held at a time."""
        tally = self._tally
        for packet in packets:
            tally.packets_offered += 1
            self._arrived.append(0)
            if not self._fits(packet):
                tally.packets_beyond_pass += 1
                tally.octets_beyond_pass += len(packet)
                continue
            tally.packets_sent += 1
            tally.octets_sent += len(packet)
            errors = self._bit_errors.within(8 * len(packet))  # drawn for lost packets too: the air does not know
            burst = self._bursts is not None and self._bursts.takes_next()
            frame = self._frames.take_next(len(packet))
            if self._loss.next() < self._link.packet_loss:
                tally.packets_lost += 1
            elif burst:
                tally.packets_lost_in_bursts += 1
            elif frame:
                tally.packets_lost_with_frames += 1
            elif errors is None:
                self._arrived[-1] = 1
                yield packet
            else:
                self._arrived[-1] = 1
                tally.packets_corrupted += 1
                tally.bits_flipped += len(errors)
                yield _flipped(packet, errors)

    def _fits(self, packet: bytes) -> bool:
        """Whether the packet ends before the pass does. Once one does not, the pass is over."""
        self._closed = self._closed or 8 * (self._tally.octets_sent + len(packet)) > self._capacity_bits
        return not self._closed


class _Chances:
    """Uniform numbers in [0, 1), one at a time, drawn in blocks for speed."""

    def __init__(self, generator: np.random.Generator) -> None:
        self._generator = generator
        self._drawn: Iterator[float] = iter(())

    def next(self) -> float:
        for chance in self._drawn:
            return chance
        self._drawn = iter(self._generator.random(_DRAWS).tolist())
        return next(self._drawn)


class _Bursts:
    """The two-state chain; it starts in its long-run mixture of states."""

    def __init__(self, burst: Burst, chances: _Chances) -> None:
        self._burst = burst
        self._chances = chances
        self._bad = chances.next() < burst.bad_fraction

    def takes_next(self) -> bool:
        """Whether the next packet is lost in a burst; then one step of the chain."""
        lost = self._bad and self._chances.next() < self._burst.loss
        step = self._chances.next()
        self._bad = step >= self._burst.leave if self._bad else step < self._burst.enter
        return lost


class _Frames:
    """Packets back to back in transfer frames: which frames a packet lies in, and whether one of them is lost."""

    def __init__(self, link: Link, chances: _Chances) -> None:
        self._link, self._chances = link, chances
        self._octets = 0  # up to the next packet
        self._last_lost = False  # the frame that the last packet ended in
        self.begun, self.touched = 0, 0
        self.expected_lost = 0.0
        burst = link.burst.loss_fraction if link.burst else 0.0
        self._survives = (1.0 - link.packet_loss) * (1.0 - burst)  # but for frames

    def take_next(self, octets: int) -> bool:
        """Whether a frame that holds part of the next packet is lost."""
        size = self._link.frame_octets
        first, last = self._octets // size, (self._octets + octets - 1) // size
        shared = first < self.begun  # its first frame holds the end of the packet before
        drawn = [self._chances.next() < self._link.frame_loss for _ in range(self.begun, last + 1)]
        lost = any(drawn) or (shared and self._last_lost)
        self._last_lost = drawn[-1] if drawn else self._last_lost
        self._octets, self.begun = self._octets + octets, last + 1
        self.touched += last - first + 1
        self.expected_lost += 1.0 - self._survives * (1.0 - self._link.frame_loss) ** (last - first + 1)
        return lost


def _chance_of_no_loss(link: Link, packets: int, frames: int) -> float:
    """Chance that all of `packets` in `frames` arrive."""
    alone = (1.0 - link.packet_loss) ** packets * (1.0 - link.frame_loss) ** frames
    if link.burst is None or packets == 0:
        return alone
    enter, leave, bad = link.burst.enter, link.burst.leave, link.burst.bad_fraction
    arrives = np.diag([1.0, 1.0 - link.burst.loss])  # good state, bad state
    step = np.array([[1.0 - enter, enter], [leave, 1.0 - leave]])
    return alone * float((np.array([1.0 - bad, bad]) @ np.linalg.matrix_power(arrives @ step, packets)).sum())


class _BitErrors:
    """Positions of independent bit errors in the stream of bits on air, drawn as distances from one to the next."""

    def __init__(self, rate: float, generator: np.random.Generator) -> None:
        self._rate = rate
        self._generator = generator
        self._on_air_bits = 0  # up to the next packet
        self._positions = np.zeros(0, np.int64)  # [n] of errors ahead, bits from the start of the pass, ascending
        self._last = -1  # position of the last error drawn

    def within(self, bits: int) -> NDArray[np.int64] | None:
        """Places of the errors in the next `bits` bits, counted from their first; None if there is none."""
        if self._rate == 0:
            return None
        begin, self._on_air_bits = self._on_air_bits, self._on_air_bits + bits
        while self._last < self._on_air_bits:
            self._draw()
        if self._positions[0] >= self._on_air_bits:
            return None
        count = int(np.searchsorted(self._positions, self._on_air_bits))
        inside, self._positions = self._positions[:count], self._positions[count:]
        return inside - begin

    def _draw(self) -> None:
        """64 more errors; a distance of k bits has chance (1 - rate)^(k - 1) rate: the inverse of its distribution."""
        uniform = self._generator.random(64)  # [64] in [0, 1)
        gaps = 1.0 + np.floor(np.log1p(-uniform) / np.log1p(-self._rate))  # at most 4e16 at the rate of 1e-15
        ahead = self._last + np.cumsum(gaps.astype(np.int64))
        self._positions = np.concatenate([self._positions, ahead])
        self._last = int(ahead[-1])


def _loss_profile(arrived: bytearray) -> tuple[float, ...]:
    parts = np.array_split(np.frombuffer(bytes(arrived), np.uint8), min(_PROFILE_PARTS, len(arrived)) or 1)
    return tuple(float(1.0 - part.mean()) for part in parts if len(part))


def _flipped(packet: bytes, places: NDArray[np.int64]) -> bytes:
    """The packet with the bits at `places` (from its first, most significant one) inverted."""
    octets = np.frombuffer(packet, np.uint8).copy()
    np.bitwise_xor.at(octets, places >> 3, (0x80 >> (places & 7)).astype(np.uint8))
    return octets.tobytes()
