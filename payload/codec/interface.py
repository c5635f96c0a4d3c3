"""What a codec makes of one tile, and the watch that its stages run under."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

from payload.tiles import Tile


@dataclass(eq=False)
class Stopwatch:
    """Seconds spent per stage of the payload, by `clock`: of the wall, or of the processor where a host is shared."""

    seconds: dict[str, float] = field(default_factory=dict)
    clock: Callable[[], float] = time.perf_counter

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        start = self.clock()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + self.clock() - start


@dataclass(frozen=True)
class Quality:
    """How finely a tile is coded: the finest quantiser step in DN, or the PSNR (peak 10 000) to be reached.

    `keep`: at most so many layers (None: all). `with_errors`: say what error every layer leaves, for rate control.
    """

    step_dn: float = 200.0
    psnr_db: float | None = None
    keep: int | None = None
    with_errors: bool = False


@dataclass(frozen=True, eq=False)
class Coded:
    """One tile, coded: side information, layers coarse first, and the squared error left after 0, 1, 2, ... layers.

    `errors` is an onboard estimate in DN^2 summed over samples, from the latents (the transform is nearly orthonormal);
    empty where it was not asked for or the codec has no such estimate.
    """

    side: bytes
    layers: tuple[bytes, ...]
    errors: tuple[float, ...] = ()

    @property
    def octets(self) -> int:
        return len(self.side) + sum(map(len, self.layers))


class Codec(Protocol):
    """What a bundle's codec can do with one tile."""

    layers: int

    def encode(self, tile: Tile, quality: Quality, watch: Stopwatch) -> Coded: ...

    def decode(self, side: bytes, layers: tuple[bytes, ...]) -> tuple[Any, Any]:
        """Side information and indices, parsed. StreamError where they make no sense."""
        ...

    def shorten(self, layers: tuple[bytes, ...], octets: int) -> tuple[bytes, ...]:
        """The layers with the last one cut so that all are at most `octets` long; as they are where that cannot be."""
        ...
