"""What the command line puts in the place of a mission's own."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Change:
    """None leaves what the mission says."""

    step_dn: float | None = None
    budget_octets: int | None = None
    packet_loss: float | None = None
    profile: str | None = None
    max_error_dn: int | None = None  # takes the place of a byte budget and a PSNR, too


#: The mission as it is.
UNCHANGED = Change()
