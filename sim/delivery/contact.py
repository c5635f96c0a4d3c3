"""The clock of a delivery: it runs while there is a pass and stands still between passes."""

from math import ceil

from sim.link.link import Link


class Contact:
    """Up to `passes` passes over `link`, `gap_s` apart. Counts in bits of the downlink: whole numbers, no drift."""

    def __init__(self, link: Link, passes: int, gap_s: float) -> None:
        self._rate_bps, self._pass_bits, self._gap_s = link.rate_bps, link.capacity_bits, gap_s
        self._passes, self._used_bits = passes, 0  # of the pass that runs
        self.number = 1  # of the pass that runs
        self.sent_octets = 0

    @property
    def now_s(self) -> float:
        """Seconds of contact since the first pass began."""
        return ((self.number - 1) * self._pass_bits + self._used_bits) / self._rate_bps

    @property
    def elapsed_s(self) -> float:
        """Seconds since the first pass began, the time between passes included."""
        return self.now_s + (self.number - 1) * self._gap_s

    @property
    def left_octets(self) -> int:
        """That this pass still holds."""
        return (self._pass_bits - self._used_bits) // 8

    def take(self, octets: int) -> bool:
        """Sends so many octets, in the next pass where this one is over. False: no pass is left that holds them."""
        if 8 * octets > self._pass_bits:
            return False
        if self._used_bits + 8 * octets > self._pass_bits and not self.next_pass():
            return False
        self._used_bits += 8 * octets
        self.sent_octets += octets
        return True

    def wait(self, seconds: float) -> bool:
        """Lets time pass, up to the end of the pass, and goes on to the next one there. False: none is left."""
        self._used_bits += ceil(seconds * self._rate_bps)
        return self._used_bits <= self._pass_bits or self.next_pass()

    def next_pass(self) -> bool:
        """Goes on to the next pass; False, at the end of this one, where there is none."""
        if self.number >= self._passes:
            self._used_bits = self._pass_bits
            return False
        self.number, self._used_bits = self.number + 1, 0
        return True
