"""How the payload's packets are delivered: `[delivery]` of a mission. docs/mission.md has the keys."""

from dataclasses import dataclass
from typing import Literal

from payload.errors import InputError
from sim.link.chances import Burst
from sim.toml_tables import check_range


@dataclass(frozen=True)
class Uplink:
    """What carries acknowledgements up. It loses, too: singly and in bursts, per packet."""

    rate_bps: float = 64e3
    packet_loss: float = 0.0
    burst: Burst | None = None

    def __post_init__(self) -> None:
        check_range("rate_bps", self.rate_bps, 1, 1e12)
        check_range("packet_loss", self.packet_loss, 0, 1)


@dataclass(frozen=True)
class Delivery:
    """`mode`: the packets as they are; as a file by CFDP class 1 or 2; as a file in RaptorQ symbols, one way.

    A file takes up to `passes` passes, `gap_s` apart: it is suspended at the end of one and goes on in the next.
    `overhead`: repair symbols per source symbol, for raptorq. `timer_s`: of CFDP's ACK and NAK timers, which stand
    still between passes.
    """

    mode: Literal["raw", "cfdp1", "cfdp2", "raptorq"] = "raw"
    passes: int = 1
    gap_s: float = 5400.0
    overhead: float | None = None
    round_trip_s: float = 0.02
    timer_s: float = 0.5
    uplink: Uplink | None = None  # a table of its own

    @property
    def in_frames(self) -> bool:
        """Whether the packets go in the mission's frames; files are sent in packets alone."""
        return self.mode == "raw"

    def __post_init__(self) -> None:
        check_range("passes", self.passes, 1, 1000)
        check_range("gap_s", self.gap_s, 0, 1e6)
        check_range("overhead", self.overhead, 0, 100)
        check_range("round_trip_s", self.round_trip_s, 0, 10)
        check_range("timer_s", self.timer_s, 0.01, 3600)
        if self.mode == "raw" and self.passes > 1:
            raise InputError(f"passes is {self.passes} with raw packets, which have one; take cfdp1, cfdp2 or raptorq")
        if (self.overhead is None) == (self.mode == "raptorq"):
            raise InputError("overhead is for raptorq, and raptorq needs it; " + _MEND[self.mode == "raptorq"])
        if self.uplink is not None and self.mode != "cfdp2":
            raise InputError(f"uplink is given for {self.mode}, which is one-way; leave it out, or take cfdp2")
        if self.timer_s <= self.round_trip_s:
            raise InputError(f"timer_s is {self.timer_s:g}, wanted above round_trip_s ({self.round_trip_s:g})")


_MEND = {True: "add it, such as 0.3", False: "leave it out"}
