"""What the mission tells the payload: quality, budget, cloud gate, packets. Values only; the mission file is read by sim."""

from dataclasses import dataclass

from payload.errors import InputError


@dataclass(frozen=True)
class Gate:
    """What happens to cloudy tiles. Percentages are of the tile's valid pixels."""

    withhold_above_percent: float = 70.0

    def __post_init__(self) -> None:
        if not 0.0 <= self.withhold_above_percent <= 100.0:
            raise InputError(f"gate.withhold_above_percent is {self.withhold_above_percent}, wanted 0 to 100")


@dataclass(frozen=True)
class Policy:
    """How tiles are coded and sent.

    `step_dn`: finest quantiser step in DN (constant quality). `budget_octets`: for the whole scene, packet headers
    included; None sends every layer. `packet_octets`: longest space packet, header and CRC included.
    """

    step_dn: float = 120.0
    budget_octets: int | None = None
    packet_octets: int = 1024
    apid: int = 0x2A1
    gate: Gate = Gate()

    def __post_init__(self) -> None:
        if not 1.0 <= self.step_dn <= 8192.0:
            raise InputError(f"step_dn is {self.step_dn}, wanted 1 to 8192")
        if not 64 <= self.packet_octets <= 65542:
            raise InputError(f"packet_octets is {self.packet_octets}, wanted 64 to 65542")
        if not 0 <= self.apid < 2047:
            raise InputError(f"apid is {self.apid}, wanted 0 to 2046 (2047 is the idle packet)")
