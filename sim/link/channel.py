"""The space between, for packets: a seeded channel that loses, damages and cuts them off, and counts what it did.
Where frames are sent, sim/link/frames/channel.py takes its place.

Three things happen to a packet, each from its own random stream, so that changing one leaves the others' draws alone:
uniform loss of packets and of transfer frames, bursts (Gilbert 1960, Elliott 1963: a two-state Markov chain, one step a
packet), and independent bit errors, whose distances are drawn (geometric) instead of every bit. One packet is not one
frame: packets lie back to back in frames, and a packet is gone with any frame that holds an octet of it. Time on
air runs whether a packet arrives or not; the packet that would end after the pass, and all later ones, are never sent.
"""

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass

import numpy as np

from payload.errors import InputError
from sim.link.chances import AirErrors, Bursts, Chances, chance_of_no_loss, flipped, loss_profile
from sim.link.link import Link
from sim.link.mishaps import Happened, happen


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
    packets_doubled: int = 0
    packets_reordered: int = 0
    packets_truncated: int = 0
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
        streams = np.random.SeedSequence(seed).spawn(6)  # the first three as they were before there were frames
        loss, burst, bits, frames, self._fates, bit_burst = (np.random.Generator(np.random.PCG64(s)) for s in streams)
        self._loss = Chances(loss)
        self._bursts = Bursts(link.burst, Chances(burst)) if link.burst else None
        self._errors = AirErrors(link.bit_error_rate, bits, link.bit_burst, bit_burst)
        self._frames = _Frames(link, Chances(frames))
        self._happened = Happened()

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
            packets_doubled=self._happened.doubled,
            packets_reordered=self._happened.reordered,
            packets_truncated=self._happened.truncated,
            loss_profile=loss_profile(self._arrived),
            frames_sent=self._frames.begun,
            frames_per_packet=self._frames.touched / sent if (sent := self._tally.packets_sent) else 0.0,
            expected_packets_lost=self._frames.expected_lost,
            chance_of_no_loss=self._no_loss_of_single_ones(sent) * chance_of_no_loss(self._link.burst, sent),
        )

    def _no_loss_of_single_ones(self, packets: int) -> float:
        link = self._link
        return float((1.0 - link.packet_loss) ** packets * (1.0 - link.frame_loss) ** self._frames.begun)

    def send(self, packets: Iterable[bytes]) -> Iterator[bytes]:
        """The packets that arrive, some of them damaged. Streams: one packet is held at a time, a few while others
        overtake them."""
        return happen(self._send(packets), self._link.mishaps, self._fates, self._happened)

    def _send(self, packets: Iterable[bytes]) -> Iterator[bytes]:
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
            errors = self._errors.within(8 * len(packet))  # drawn for lost packets too: the air does not know
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
                yield flipped(packet, errors)

    def _fits(self, packet: bytes) -> bool:
        """Whether the packet ends before the pass does. Once one does not, the pass is over."""
        self._closed = self._closed or 8 * (self._tally.octets_sent + len(packet)) > self._capacity_bits
        return not self._closed


class _Frames:
    """Packets back to back in transfer frames: which frames a packet lies in, and whether one of them is lost."""

    def __init__(self, link: Link, chances: Chances) -> None:
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
