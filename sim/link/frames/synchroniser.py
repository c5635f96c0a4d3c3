"""Where frames begin in a stream of octets that may start anywhere, slip by bits, be turned round, or have holes.

A marker of 32 bits stands before each frame. Searching, a place is taken where two markers stand one frame apart.
Locked, a marker is expected at the end of each frame: where it is not, the two markers are searched for again, from the
frame before on, which finds slips and cut frames at once; where there are none, the frames are taken as they should lie
for a while (the flywheel), since a marker may be damaged while its frame is not.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Octets = NDArray[np.uint8]
MARKER_BITS = 32
#: Wrong bits in a marker: so many are let pass while searching, and while locked.
SEARCH_ERRORS, LOCKED_ERRORS = 3, 5
#: Markers missed in a row until the lock is given up.
FLYWHEEL_FRAMES = 4
#: Frames looked through at once while searching.
_SEARCHED_FRAMES = 16


@dataclass
class SyncCounts:
    """What the synchroniser did."""

    frames: int = 0
    locks: int = 0  # found from nothing
    slips: int = 0  # found again elsewhere than expected, by bits or octets
    flywheel: int = 0  # frames taken though their marker was damaged
    inverted: int = 0  # frames that came with every bit turned round
    skipped_octets: int = 0  # that belong to no frame


class Synchroniser:
    """Octets in pieces of any length -> frames [n, frame_octets], markers taken off, the right way round."""

    def __init__(self, marker: bytes, frame_octets: int) -> None:
        self._marker = np.frombuffer(marker, np.uint8)
        self._period = 8 * (len(marker) + frame_octets)  # bits
        self._buffer = np.zeros(0, np.uint8)
        self._at = 0  # bit of the buffer: the next marker where locked, else where to search from
        self._locked, self._inverted, self._missed = False, False, 0
        self.counts = SyncCounts()

    def push(self, octets: bytes) -> list[Octets]:
        """The frames that end in what has come so far, some held back until more is known."""
        self._buffer = np.concatenate([self._buffer, np.frombuffer(octets, np.uint8)])
        return self._frames(ended=False)

    def settle(self) -> list[Octets]:
        """The frames that were held back; more may come after a while."""
        return self._frames(ended=True)

    def finish(self) -> list[Octets]:
        """The frames that were held back, when nothing more will come."""
        found = self.settle()
        self.counts.skipped_octets += max(0, self._bits - self._at) // 8
        return found

    @property
    def _bits(self) -> int:
        return 8 * len(self._buffer)

    def _frames(self, ended: bool) -> list[Octets]:
        found: list[Octets] = []
        while (step := self._take(ended) if self._locked else self._search(ended)) is not None:
            if len(step):
                self.counts.frames += len(step)
                found.append(step)
        self._forget()
        return found

    def _forget(self) -> None:
        """Octets before the last frame: a cut one is searched again from its marker on."""
        kept = max(0, self._at - self._period) // 8
        self._buffer, self._at = self._buffer[kept:], self._at - 8 * kept

    def _take(self, ended: bool) -> Octets | None:
        """Frames while their markers are where they should be; None where more octets are needed."""
        count = (self._bits - self._at) // self._period
        if count == 0:
            return None
        lines = self._lines(self._at, count)
        wrong = np.bitwise_count(lines[:, : len(self._marker)] ^ self._marker).sum(axis=1)
        turned = wrong >= MARKER_BITS - LOCKED_ERRORS
        missed = np.flatnonzero((wrong > LOCKED_ERRORS) & ~turned)
        good = int(missed[0]) if len(missed) else count
        if not good:
            return self._missed_marker(lines[:1, len(self._marker) :], ended)
        self._at += good * self._period
        self._missed, self._inverted = 0, bool(turned[good - 1])
        self.counts.inverted += int(turned[:good].sum())
        return lines[:good, len(self._marker) :] ^ (np.uint8(255) * turned[:good, None])

    def _missed_marker(self, frame: Octets, ended: bool) -> Octets | None:
        stop = self._at + self._period + 1
        if not ended and self._bits < stop + self._period + MARKER_BITS:
            return None
        place = self._pair(max(0, self._at - self._period + MARKER_BITS), stop)
        if place is not None and place != self._at + self._period:
            self.counts.slips += 1
            self._at, self._missed = place, 0
            return frame[:0]
        self._missed += 1
        if self._missed > FLYWHEEL_FRAMES:
            self._locked, self._missed = False, 0
            return frame[:0]
        self.counts.flywheel += 1
        self.counts.inverted += self._inverted
        self._at += self._period
        return ~frame if self._inverted else frame

    def _search(self, ended: bool) -> Octets | None:
        """Locks where two markers stand one frame apart; at the end of the stream, where one does before a frame."""
        last = self._bits - self._period - MARKER_BITS
        stop = min(last, self._at + _SEARCHED_FRAMES * self._period)
        place = self._pair(self._at, stop) if stop > self._at else None
        if place is None and stop > self._at:
            self.counts.skipped_octets += (stop - self._at) // 8
            self._at = stop
            return self._buffer[:0] if stop < last else self._search(ended) if ended else None
        if place is None:
            place = self._single(self._at, self._bits - self._period + 1) if ended else None
            if place is None:
                return None
        self.counts.skipped_octets += (place - self._at) // 8
        self.counts.locks += 1
        self._at, self._locked = place, True
        return self._buffer[:0]

    def _pair(self, start: int, stop: int) -> int | None:
        """The first place from bit `start` up to before `stop` with a marker there and one a frame later, both straight
        or both turned round."""
        wrong = self._wrong_bits(start, stop)
        later = self._wrong_bits(start + self._period, stop + self._period)
        wrong = wrong[: len(later)]
        straight = (wrong <= SEARCH_ERRORS) & (later <= SEARCH_ERRORS)
        turned = (wrong >= MARKER_BITS - SEARCH_ERRORS) & (later >= MARKER_BITS - SEARCH_ERRORS)
        places = np.flatnonzero(straight | turned)
        return start + int(places[0]) if len(places) else None

    def _single(self, start: int, stop: int) -> int | None:
        wrong = self._wrong_bits(start, stop)
        places = np.flatnonzero((wrong <= SEARCH_ERRORS) | (wrong >= MARKER_BITS - SEARCH_ERRORS))
        return start + int(places[0]) if len(places) else None

    def _wrong_bits(self, start: int, stop: int) -> NDArray[np.uint8]:
        """In how many bits the 32 at each place from bit `start` up to before `stop` differ from the marker."""
        first, stop = start // 8, min(stop, self._bits - MARKER_BITS + 1)
        if stop <= start:
            return np.zeros(0, np.uint8)
        octets = np.append(self._buffer[first : (stop - 1) // 8 + 5], np.zeros(1, np.uint8)).astype(np.uint64)
        places = (stop - 1) // 8 - first + 1
        words = np.zeros(places, np.uint64)
        for k in range(5):  # the last octet of the buffer may have none behind it
            words = words << np.uint64(8) | octets[k : k + places]
        marker = int.from_bytes(self._marker.tobytes(), "big")
        shifted = np.stack([words >> np.uint64(8 - k) for k in range(8)], axis=1) & np.uint64(0xFFFFFFFF)
        wrong = np.bitwise_count(shifted ^ np.uint64(marker)).reshape(-1)
        return wrong[start - 8 * first : stop - 8 * first]

    def _lines(self, at: int, count: int) -> Octets:
        """[count, octets of marker and frame] from bit `at` on, as they came."""
        first, shift, octets = at // 8, at % 8, count * self._period // 8
        lines = self._buffer[first : first + octets]
        if shift:
            behind = self._buffer[first + 1 : first + octets + 1]
            lines = (lines << np.uint8(shift)) | (behind >> np.uint8(8 - shift))
        return lines.reshape(count, -1)
