"""What a session with a device is made of: how long to wait, what the device said, what went wrong."""

from dataclasses import dataclass, field

from hil.line.channels import ChannelClosedError
from payload.errors import InputError


class SilenceError(ChannelClosedError):
    """Nothing came in time."""


class DeviceError(InputError):
    """The device refuses, or cannot be reached any more. What came back before stands."""


class DeviceLostError(DeviceError):
    """Nobody answers, or not any more: the device is away, and may come back."""


class DeviceFullError(DeviceError):
    """The device has no room for another tile."""


@dataclass(frozen=True)
class Patience:
    """How long to wait for what. An agent at work sends a BEAT every second, so silence means trouble."""

    hello_s: float = 5.0
    silence_s: float = 10.0
    attempts: int = 6  # fresh lines without a single tile done in between
    pause_s: float = 0.3  # before a fresh line; doubles with every attempt in vain


PATIENCE = Patience()
#: An emulated processor is some hundred times slower, at starting too.
EMULATION = Patience(hello_s=60.0, silence_s=120.0, attempts=2)


@dataclass(frozen=True)
class DeviceInfo:
    """What the device said about itself at HELLO and LOAD."""

    machine: str
    cpu: str
    cores: int
    memory_mib: int
    system: str
    python: str
    emulated: str | None  # its processor's name where it is emulated: then times mean nothing
    engine: str
    load_s: float | None  # None where the device is emulated
    window: int
    kernel: str = ""  # compiled or numpy: which of the payload's kernels the device has
    ran: dict[str, str] = field(default_factory=dict)  # part of the payload -> what computes it there


@dataclass
class Incidents:
    """What went wrong on the way, and was mended."""

    reconnects: int = 0
    tiles_sent_again: int = 0
    octets_discarded: int = 0
    causes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class ClockOffset:
    """Device clock minus host clock (time.monotonic on both), and how wrong it may be: half the fastest round trip."""

    offset_s: float
    uncertainty_s: float
