"""The ways to fly that are compared: ours, and what each part of it is worth."""

from dataclasses import dataclass

from payload.link.pass_filling import PassOrder
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


#: The orders in which a payload may fill its passes, and what each goes by.
ORDERS: dict[PassOrder, str] = {
    "coarse-first": "every tile's coarsest layer, then clear area per octet",
    "whole-tiles": "every tile whole, most clear area per octet first",
    "least-error": "layers that remove most squared error per octet first",
}


def strategies(coded: CodedScenes, order: PassOrder) -> list[Strategy]:
    """Ours first, in the order that the mission asks for."""
    ours, jpeg2000, lossless = coded.ours, coded.jpeg2000, coded.lossless
    others = [Strategy(name, name.replace("-", " "), f"the same, {how}", ours, True, name, True, True)
              for name, how in ORDERS.items() if name != order]  # fmt: skip
    return [
        Strategy("nadir", "Nadir", f"gate, learned codec, {ORDERS[order]}", ours, True, order, True, True),
        *others,
        Strategy("random", "random order", "the same, tiles in random order", ours, True, "random", True, True),
        Strategy("no_gate", "no gate", "the same, cloudy tiles too", ours, False, order, True, True),
        Strategy("jpeg2000", "JPEG 2000", f"gate, {AT_QUALITY}, oldest first", jpeg2000, True, "fifo", False, False),
        Strategy("lossless", "lossless", f"{STORE_AND_FORWARD}, oldest first", lossless, False, "fifo", False, False),
    ]
