"""What happens to whole packets or frames on the way: some arrive twice, late, or without their end."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from sim.link.link import Mishaps

#: So many others may overtake one.
MOST_OVERTAKING = 8


@dataclass
class Happened:
    """How often."""

    doubled: int = 0
    reordered: int = 0
    truncated: int = 0


def happen(
    units: Iterable[bytes], mishaps: Mishaps, generator: np.random.Generator, happened: Happened
) -> Iterator[bytes]:
    """The units as they arrive. Four draws a unit, so that one chance leaves the others' draws alone."""
    if not (mishaps.duplication or mishaps.reordering or mishaps.truncation):
        yield from units
        return
    held: list[tuple[int, bytes]] = []  # how many will have overtaken each, and the unit
    for unit in units:
        twice, late, cut, how_much = generator.random(4).tolist()
        if cut < mishaps.truncation:
            happened.truncated += 1
            unit = unit[: int(how_much * len(unit))]
        arriving = [unit] * (1 + (twice < mishaps.duplication))
        happened.doubled += len(arriving) - 1
        if late < mishaps.reordering:
            happened.reordered += 1
            held.append((1 + int(how_much * MOST_OVERTAKING), unit))
            arriving.pop()
        for one in arriving:
            yield one
            held = [(left - 1, waiting) for left, waiting in held]
            yield from (waiting for left, waiting in held if left <= 0)
            held = [(left, waiting) for left, waiting in held if left > 0]
    yield from (waiting for _, waiting in held)
