"""The ways to fly that are compared: ours, and what each part of it is worth."""

from dataclasses import dataclass

from sim.planning.coded import CodedScenes
from sim.planning.table import TileTable
from sim.planning.units import Order

AT_QUALITY = "JPEG 2000 at the same NDVI error"
STORE_AND_FORWARD = "CCSDS 121, store-and-forward of everything"


@dataclass(frozen=True, eq=False)
class Strategy:
    """One way. `computes`: the payload's time and energy count; the classical coders are given theirs for nothing."""

    key: str
    name: str
    how: str
    table: TileTable
    gated: bool
    order: Order
    computes: bool
    uplinks_bundle: bool


def strategies(coded: CodedScenes) -> list[Strategy]:
    """Ours first."""
    ours, jpeg2000, lossless = coded.ours, coded.jpeg2000, coded.lossless
    whole = "gate, learned codec, clear area at quality first"
    return [
        Strategy("nadir", "Nadir", whole, ours, True, "value", True, True),
        Strategy("layers", "layer by layer", "the same, constant slope of error", ours, True, "layers", True, True),
        Strategy("random", "random order", "the same, tiles in random order", ours, True, "random", True, True),
        Strategy("no_gate", "no gate", "the same, cloudy tiles too", ours, False, "value", True, True),
        Strategy("jpeg2000", "JPEG 2000", f"gate, {AT_QUALITY}, oldest first", jpeg2000, True, "fifo", False, False),
        Strategy("lossless", "lossless", f"{STORE_AND_FORWARD}, oldest first", lossless, False, "fifo", False, False),
    ]
