"""How packets are delivered, stream by stream: `[delivery]` of a mission. docs/mission.md has the keys."""

from dataclasses import dataclass
from typing import Literal

from payload.errors import InputError
from payload.link.streams import Stream
from sim.link.chances import Burst
from sim.toml_tables import check_range

Mode = Literal["raw", "cfdp1", "cfdp2", "raptorq"]


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
class StreamDelivery:
    """How one stream goes: packets as they are; as a file by CFDP class 1 or 2; as a file in RaptorQ symbols, one way.

    `overhead`: repair symbols per source symbol, for raptorq.
    """

    mode: Mode = "raw"
    overhead: float | None = None

    def __post_init__(self) -> None:
        check_range("overhead", self.overhead, 0, 100)
        if (self.overhead is None) == (self.mode == "raptorq"):
            raise InputError("overhead is for raptorq, and raptorq needs it; " + _MEND[self.mode == "raptorq"])


@dataclass(frozen=True)
class Delivery:
    """`mode`, `overhead`: of every stream that has no table of its own, [delivery.layers] and so on.

    Files take up to `passes` passes, `gap_s` apart: they are suspended at the end of one and go on in the next, and
    raw packets beside them likewise. `timer_s`: of CFDP's ACK and NAK timers, which stand still between passes.
    """

    mode: Mode = "raw"
    passes: int = 1
    gap_s: float = 5400.0
    overhead: float | None = None
    round_trip_s: float = 0.02
    timer_s: float = 0.5
    uplink: Uplink | None = None  # a table of its own
    layers: StreamDelivery | None = None
    telemetry: StreamDelivery | None = None
    alerts: StreamDelivery | None = None
    thumbnails: StreamDelivery | None = None

    def of(self, stream: Stream) -> StreamDelivery:
        """How a stream goes."""
        own: StreamDelivery | None = getattr(self, stream.name.lower())
        return own or StreamDelivery(self.mode, self.overhead)

    @property
    def in_frames(self) -> bool:
        """Whether every stream goes in packets as they are, so that frames.bin holds them before anything is sent."""
        return self._modes == {"raw"}

    @property
    def name(self) -> str:
        """The mode, where all streams have one."""
        return next(iter(self._modes)) if len(self._modes) == 1 else "by stream"

    @property
    def _modes(self) -> set[str]:
        return {self.of(stream).mode for stream in Stream}

    def __post_init__(self) -> None:
        check_range("passes", self.passes, 1, 1000)
        check_range("gap_s", self.gap_s, 0, 1e6)
        check_range("round_trip_s", self.round_trip_s, 0, 10)
        check_range("timer_s", self.timer_s, 0.01, 3600)
        StreamDelivery(self.mode, self.overhead)
        if self.in_frames and self.passes > 1:
            raise InputError(f"passes is {self.passes} with raw packets, which have one; take cfdp1, cfdp2 or raptorq")
        if self.uplink is not None and "cfdp2" not in self._modes:
            raise InputError(f"uplink is given for {self.name}, which is one-way; leave it out, or take cfdp2")
        if self.timer_s <= self.round_trip_s:
            raise InputError(f"timer_s is {self.timer_s:g}, wanted above round_trip_s ({self.round_trip_s:g})")


_MEND = {True: "add it, such as 0.3", False: "leave it out"}
