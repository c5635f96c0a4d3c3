"""Chance on the link, each kind from a random stream of its own: losses, bursts of lost units and of bit errors, bit
errors, slips. A unit is a packet, or a frame where frames are sent.

Bursts are those of Gilbert (1960) and Elliott (1963): a two-state Markov chain. Rare events are drawn as distances from
one to the next (geometric), not unit by unit.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sim.toml_tables import check_range

#: Draws made at once. The streams do not depend on it.
_DRAWS = 4096
#: Parts of the stream whose losses are told apart.
_PROFILE_PARTS = 100


@dataclass(frozen=True)
class Burst:
    """Gilbert-Elliott: chances per packet, or per frame where frames are sent, of entering and leaving the bad state,
    and of loss in it."""

    enter: float
    leave: float
    loss: float = 1.0

    def __post_init__(self) -> None:
        check_range("enter", self.enter, 0, 1)
        check_range("leave", self.leave, 1e-6, 1)
        check_range("loss", self.loss, 0, 1)

    @property
    def bad_fraction(self) -> float:
        """Share of packets or frames sent in the bad state, in the long run."""
        return self.enter / (self.enter + self.leave)

    @property
    def loss_fraction(self) -> float:
        """Share of packets or frames that bursts take, in the long run. A burst lasts 1 / leave of them on average."""
        return self.bad_fraction * self.loss


@dataclass(frozen=True)
class BitBurst:
    """Gilbert-Elliott in bits: chances per bit of entering and leaving the bad state, and of an error in it."""

    enter: float
    leave: float
    error_rate: float = 0.5

    def __post_init__(self) -> None:
        check_range("enter", self.enter, 0, 1)
        check_range("leave", self.leave, 1e-6, 1)
        check_range("error_rate", self.error_rate, 0, 0.5)


class Chances:
    """Uniform numbers in [0, 1), one at a time, drawn in blocks for speed."""

    def __init__(self, generator: np.random.Generator) -> None:
        self._generator = generator
        self._drawn: Iterator[float] = iter(())

    def next(self) -> float:
        for chance in self._drawn:
            return chance
        self._drawn = iter(self._generator.random(_DRAWS).tolist())
        return next(self._drawn)


class Bursts:
    """The two-state chain; it starts in its long-run mixture of states."""

    def __init__(self, burst: Burst, chances: Chances) -> None:
        self._burst = burst
        self._chances = chances
        self._bad = chances.next() < burst.bad_fraction

    def takes_next(self) -> bool:
        """Whether the next packet or frame is lost in a burst; then one step of the chain."""
        lost = self._bad and self._chances.next() < self._burst.loss
        step = self._chances.next()
        self._bad = step >= self._burst.leave if self._bad else step < self._burst.enter
        return lost


class BitErrors:
    """Positions of independent bit errors in the stream of bits on air, drawn as distances from one to the next."""

    def __init__(self, rate: float, generator: np.random.Generator) -> None:
        self._rate = rate
        self._generator = generator
        self._on_air_bits = 0  # up to the next packet or frame
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


class BitBursts:
    """Bit errors of a two-state chain over bits: runs of the good and of the bad state drawn whole."""

    def __init__(self, burst: BitBurst, generator: np.random.Generator) -> None:
        self._burst, self._generator = burst, generator
        self._on_air_bits, self._drawn_bits = 0, 0
        self._errors = np.zeros(0, np.int64)  # [n] positions ahead, ascending

    def within(self, bits: int) -> NDArray[np.int64]:
        """Places of the errors in the next `bits` bits, counted from their first."""
        begin, self._on_air_bits = self._on_air_bits, self._on_air_bits + bits
        while self._drawn_bits < self._on_air_bits:
            self._draw()
        count = int(np.searchsorted(self._errors, self._on_air_bits))
        inside, self._errors = self._errors[:count], self._errors[count:]
        return inside - begin

    def _draw(self) -> None:
        """A good run and the bad run behind it."""
        if self._burst.enter == 0:
            self._drawn_bits = 1 << 62
            return
        begin = self._drawn_bits + int(self._generator.geometric(self._burst.enter))
        end = begin + int(self._generator.geometric(self._burst.leave))
        wrong = np.flatnonzero(self._generator.random(end - begin) < self._burst.error_rate)
        self._errors = np.concatenate([self._errors, begin + wrong])
        self._drawn_bits = end


class AirErrors:
    """Bit errors of both kinds, each from a stream of its own; `burst` None: single ones only."""

    def __init__(
        self, rate: float, single: np.random.Generator, burst: BitBurst | None, bursts: np.random.Generator
    ) -> None:
        self._single = BitErrors(rate, single)
        self._bursts = BitBursts(burst, bursts) if burst else None

    def within(self, bits: int) -> NDArray[np.int64] | None:
        """Places of the errors in the next `bits` bits, counted from their first, ascending; None if there is none."""
        errors = self._single.within(bits)
        if self._bursts is None or not len(more := self._bursts.within(bits)):
            return errors
        both = more if errors is None else np.setxor1d(errors, more)  # a bit turned twice is as it was
        return both if len(both) else None


def chance_of_no_loss(burst: Burst | None, units: int) -> float:
    """Chance that bursts take none of so many units."""
    if burst is None or units == 0:
        return 1.0
    arrives = np.diag([1.0, 1.0 - burst.loss])  # good state, bad state
    step = np.array([[1.0 - burst.enter, burst.enter], [burst.leave, 1.0 - burst.leave]])
    start = np.array([1.0 - burst.bad_fraction, burst.bad_fraction])
    return float((start @ np.linalg.matrix_power(arrives @ step, units)).sum())


def loss_profile(arrived: bytearray) -> tuple[float, ...]:
    parts = np.array_split(np.frombuffer(bytes(arrived), np.uint8), min(_PROFILE_PARTS, len(arrived)) or 1)
    return tuple(float(1.0 - part.mean()) for part in parts if len(part))


def flipped(packet: bytes, places: NDArray[np.int64]) -> bytes:
    """The packet with the bits at `places` (from its first, most significant one) inverted."""
    octets = np.frombuffer(packet, np.uint8).copy()
    np.bitwise_xor.at(octets, places >> 3, (0x80 >> (places & 7)).astype(np.uint8))
    return octets.tobytes()
