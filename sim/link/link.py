"""The downlink as a mission's `[link]` tells it: what is sent, how fast, and what goes wrong."""

from dataclasses import dataclass, replace

from payload.errors import InputError
from payload.link.frames.security import Security
from payload.link.frames.stack import Stack
from sim.link.chances import BitBurst, Burst
from sim.toml_tables import check_range

TM_HEADER_OCTETS = 6


@dataclass(frozen=True)
class Mishaps:
    """What happens to whole units, packets or frames: chances a unit of arriving twice, of being overtaken by up to
    eight others, of losing its end; and, of frames alone, chances of a bit being dropped or doubled (a slip) and of all
    bits being turned round from a frame on."""

    duplication: float = 0.0
    reordering: float = 0.0
    truncation: float = 0.0
    bit_slip_rate: float = 0.0
    inversion: float = 0.0

    def __post_init__(self) -> None:
        for name in ("duplication", "reordering", "truncation", "inversion"):
            check_range(name, getattr(self, name), 0, 1)
        check_range("bit_slip_rate", self.bit_slip_rate, 0, 0.1)


@dataclass(frozen=True)
class Link:
    """A downlink. With a `stack`, frames are sent and `rate_bps` counts every bit of them; without one, packets are,
    and the rate is what frames and codes leave for packets.

    `bit_error_rate`, `bit_burst`: errors on the air, before decoding where there is a stack. `frame_loss`: share of
    frames that never arrive. Without a stack frames are thought of, with `frame_octets` of packets each; `packet_loss`
    takes single packets, which no link does whose packets lie in frames. `burst` takes whole packets, or frames.
    """

    rate_bps: float
    pass_s: float
    packet_loss: float = 0.0
    bit_error_rate: float = 0.0
    burst: Burst | None = None
    frame_loss: float = 0.0
    frame_octets: int = 1109  # five interleaved RS(255,223) blocks, less the header of a TM frame (CCSDS 131.0, 132.0)
    bit_burst: BitBurst | None = None
    mishaps: Mishaps = Mishaps()
    stack: Stack | None = None
    security: Security | None = None  # of its frames

    def __post_init__(self) -> None:
        if self.security is not None:
            if self.stack is None:
                raise InputError("[link.security] is of frames; add [link.stack], or take it out")
            self.security.cipher()  # no key, or nothing to use it with: said now
            object.__setattr__(self, "stack", replace(self.stack, security=self.security))
        check_range("rate_bps", self.rate_bps, 1, 1e12)
        check_range("pass_s", self.pass_s, 0, 86400)
        check_range("packet_loss", self.packet_loss, 0, 1)
        check_range("frame_loss", self.frame_loss, 0, 1)
        check_range("frame_octets", self.frame_octets, 1, 65536)
        check_range("bit_error_rate", self.bit_error_rate, 0, 0.5)
        if 0 < self.bit_error_rate < 1e-15:
            raise InputError(f"bit_error_rate is {self.bit_error_rate:g}, wanted 0 or 1e-15 to 0.5")
        if self.stack is None and (self.mishaps.bit_slip_rate or self.mishaps.inversion):
            raise InputError("bit_slip_rate and inversion are of frames; add [link.stack], or leave them out")
        if self.stack is not None and self.packet_loss:
            raise InputError(
                f"packet_loss is {self.packet_loss:g} beside [link.stack], where packets go with their frames; "
                "give frame_loss instead, or take [link.stack] out"
            )

    @property
    def capacity_bits(self) -> int:
        """Bits that one pass carries."""
        return int(self.rate_bps * self.pass_s)

    @property
    def packet_share(self) -> float:
        """Share of a transfer frame that is packets. What codes and sync markers add, the radio's steps count."""
        if self.stack is not None:
            return self.stack.packet_layout.data_octets / self.stack.layout.octets
        return self.frame_octets / (self.frame_octets + TM_HEADER_OCTETS)

    @property
    def packet_rate_bps(self) -> float:
        """What frames and codes leave of the rate for packets."""
        return self.rate_bps * (self.stack.packet_share if self.stack is not None else 1.0)
