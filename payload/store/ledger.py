"""What waits in a store, in the order in which it is worth sending, and the rules by which it is drawn from.

    a pass         takes in order what fits; nothing overtakes the first that does not fit
    acknowledged   waits no more; what was sent in vain waits on in its place
    no room        the last in the order are let go of, until the rest fits

Units are layers of tiles. Of each there may be copies, so that a plan over thousands of scenes that nobody has stored
(sim/planning) goes by the same rules as a store on disk (payload/store/stock.py).
"""

import numpy as np
from numpy.typing import NDArray

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]
#: Quotients of octets that are whole numbers but for rounding.
ROUNDING = 1e-9


class Ledger:
    """Units in order. `octets` [U] of a copy, above 0; `waiting` [U]: copies that wait; `here` [U]: those in the store.
    """

    def __init__(self, octets: F64, copies: I64) -> None:
        """`copies` [U] of each unit are to come: `enter` says when."""
        self.octets, self.waiting = octets, copies.copy()
        self.here = np.zeros(len(octets), bool)

    @property
    def held_octets(self) -> float:
        """What all that waits in the store takes."""
        return float((self.octets * self.waiting)[self.here].sum())

    def enter(self, units: NDArray[np.bool_]) -> None:
        """These units [U] are in the store from now on."""
        self.here |= units

    def make_room(self, capacity_octets: float) -> I64:
        """Lets go of the last copies in the order until the rest takes no more than so many octets: how many, [U]."""
        held = np.where(self.here, self.octets * self.waiting, 0.0)
        over = held.sum() - capacity_octets
        if over <= 0:
            return np.zeros(len(held), np.int64)
        behind = np.cumsum(held[::-1])[::-1] - held  # octets of all that comes after each unit
        excess = np.clip(over - behind, 0.0, held)
        gone = np.minimum(np.ceil(excess / self.octets - ROUNDING).astype(np.int64), self.waiting)
        self.waiting -= gone
        return gone

    def draw(self, room_octets: float) -> tuple[I64, I64]:
        """What a pass of so many octets takes: units, in order, and copies of each. They wait until acknowledged."""
        queue = np.flatnonzero(self.here & (self.waiting > 0))
        octets, waiting = self.octets[queue], self.waiting[queue]
        after = np.cumsum(octets * waiting)
        room = room_octets - (after - octets * waiting)
        copies = np.clip(np.floor(room / octets + ROUNDING), 0, waiting).astype(np.int64)
        short = np.flatnonzero(copies < waiting)
        if len(short):
            copies[short[0] + 1 :] = 0  # nothing overtakes the first that does not fit
        used = copies > 0
        return queue[used], copies[used]

    def acknowledge(self, units: I64, copies: I64) -> None:
        """So many copies of these units are on the ground."""
        self.waiting[units] -= copies
