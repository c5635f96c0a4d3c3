"""The ground's own cloud network, part of a bundle: probabilities of every pixel of a picture that came down.

It need not fit on board (docs/clouds.md, export/clouds/ground_network.py): a U-Net in float, which averages pixels in
twos and was made for cells of 20 m. Single pixels may differ between two hosts.
"""

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from payload.bundle import GROUND_CLOUDS_FILE, Bundle
from payload.clouds.mask import CLASSES
from payload.clouds.network import looked_at, places_in
from payload.engine import Engine, Network
from payload.errors import BundleError
from payload.scene import Dn, Mask
from sim.spread import cores

#: The least that the network is shown, as it was taught; and what sides are multiples of.
LEAST_PX, MULTIPLE_PX = 256, 32
#: Pixels of so many metres and more are shown four times each, so that what the network averages is one pixel.
COARSE_FROM_M = 15.0


@dataclass(eq=False)
class Opened:
    """A place for an opened network, which one thread at a time may ask."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    network: Network | None = None


def half_the_cores() -> tuple[Opened, ...]:
    """An opened network holds some 50 MiB, and threads have other work beside it."""
    return tuple(Opened() for _ in range(max(1, cores() // 2)))


@dataclass(frozen=True, eq=False)
class GroundNet:
    """The network of a file, opened once for every two cores. `places` as of payload.clouds.network.CloudNet."""

    path: Path
    engine: Engine
    places: tuple[int, ...] = ()
    opened: tuple[Opened, ...] = field(default_factory=half_the_cores)
    _turns: Iterator[int] = field(default_factory=count)

    def probabilities(self, dn: Dn, valid: Mask, gsd_m: float) -> NDArray[np.float32]:
        """Probabilities of payload.clouds.mask.CLASSES [4, h, w] of a picture dn [B, h, w]; gsd_m 0: unknown, taken for
        fine. BundleError where the file holds another network."""
        seen = np.where(valid, looked_at(dn, self.places), np.uint16(0)).astype(np.float32)
        if gsd_m < COARSE_FROM_M:
            return self._told(seen)
        height, width = valid.shape
        told = self._told(seen.repeat(2, axis=1).repeat(2, axis=2))
        return np.asarray(told.reshape(len(CLASSES), height, 2, width, 2).mean(axis=(2, 4)))

    def _told(self, seen: NDArray[np.float32]) -> NDArray[np.float32]:
        """What the network tells of a picture [4, h, w]; where that ends it is mirrored. [4, h, w]"""
        height, width = seen.shape[1:]
        whole = np.pad(seen, [(0, 0), *((0, _side(px) - px) for px in (height, width))], mode="symmetric")
        place = self.opened[next(self._turns) % len(self.opened)]
        with place.lock:
            place.network = place.network or self.engine.load(self.path)
            told = place.network.run(whole[None])[0]
        if told.shape != (1, len(CLASSES), *whole.shape[1:]):
            raise BundleError(f"{self.path}: gives {list(told.shape)}, wanted {len(CLASSES)} classes of every pixel")
        return np.asarray(told[0, :, :height, :width], np.float32)


def _side(px: int) -> int:
    return max(LEAST_PX, -(-px // MULTIPLE_PX) * MULTIPLE_PX)


def open_ground_net(bundle: Bundle, engine: Engine) -> GroundNet | None:
    """The bundle's, None where it has none. BundleError where its bands have not the roles that it looks at."""
    if GROUND_CLOUDS_FILE not in bundle.manifest["files"]:
        return None
    return GroundNet(bundle.file(GROUND_CLOUDS_FILE), engine, places_in(bundle))
