"""What an onboard application is, what it is shown and what it answers.

An application is registered as an entry point of group `nadir.apps`, the shipped ones as well as yours: a callable
`(AppSettings, Bundle, Engine or None) -> App`, which a class is. docs/your-own-app.md makes one from nothing.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from payload.apps import counting
from payload.apps.formula import HIGHEST_DN, Formula
from payload.clouds.mask import CloudMask
from payload.scene import Dn, Mask
from payload.sensor import Sensor
from payload.tiles import Tile

#: What an application may ask for besides the pixels of a tile: the cloud mask, what the codec made of the tile, places
#: of the mission, and of each of them what its vegetation index is when all is well.
Need = Literal["mask", "features", "sites", "ndvi"]
#: Numbers of indicators from here on are free for applications that do not ship with Nadir.
FIRST_OWN_INDICATOR = 128


class OverBudgetError(Exception):
    """An application asked for more than its budget; it is cut off."""


@dataclass(frozen=True)
class Indicator:
    """What is measured: of a place, or of every target that is found. `number`: 1 to 255, as records carry it."""

    number: int
    name: str
    unit: str = ""
    of: Literal["place", "target"] = "place"


@dataclass(frozen=True)
class Finding:
    """What an application counted in the area it was shown. `seen`: pixels that it could judge.

    With `box` (top, left, height, width in pixels of the area) it is a target, with a value of its own; without one the
    counts of all areas of a place are added up before `App.value` is asked.
    """

    counts: tuple[int, ...]
    seen: int
    box: tuple[int, int, int, int] | None = None
    confidence: int | None = None  # per cent, of a target


@dataclass(eq=False)
class Meter:
    """Counts what an application uses. OverBudgetError where that is more than it has."""

    macs: float
    octets: float
    spent_macs: float = 0.0

    def charge(self, macs: float, octets: float = 0.0) -> None:
        """`macs` operations, `octets` of memory held at once."""
        self.spent_macs += macs
        if self.spent_macs > self.macs:
            raise OverBudgetError(f"{self.spent_macs:.0f} operations, budget {self.macs:.0f}")
        if octets > self.octets:
            raise OverBudgetError(f"{octets:.0f} octets, budget {self.octets:.0f}")


@dataclass(eq=False)
class TileView:
    """One tile as applications see it; what several of them ask for is made once."""

    tile: Tile
    sensor: Sensor
    mask: CloudMask | None
    features_of: Callable[[], Any] | None = None  # indices of the tile's code; None: there is no code
    kept: dict[Any, Any] = field(default_factory=dict)  # by whoever made it

    @cached_property
    def clear(self) -> Mask:
        """Pixels with data that the gate's network takes for no cloud. [T, T]"""
        if self.mask is None or self.mask.cloud_fraction == 0.0:
            return self.tile.valid
        return self.tile.valid & ~self.mask.cloudy

    @cached_property
    def features(self) -> Any:
        """The codec's indices of the tile, as the ground decodes them; None where the tile is not coded."""
        return self.features_of() if self.features_of is not None else None

    def band(self, name: str) -> NDArray[np.int32]:
        """A band by its role (`blue`, `green`, `red`, `nir`) or its name, as whole numbers. [T, T]"""
        if name not in self.kept:
            self.kept[name] = self.plane(name).astype(np.int32)
        found: NDArray[np.int32] = self.kept[name]
        return found

    def plane(self, name: str) -> Dn:
        """A band as it was taken, uint16. [T, T]"""
        return np.ascontiguousarray(self.tile.dn[self.place_of(name)])

    def place_of(self, name: str) -> int:
        """Which band has this role or name."""
        key = "place", name
        if key not in self.kept:
            self.kept[key] = self.sensor.place_of(name)
        return int(self.kept[key])

    @cached_property
    def highest_dn(self) -> int:
        """The largest digital number of all bands."""
        return int(self.tile.dn.max())


@dataclass(frozen=True, eq=False)
class View:
    """An area of one tile: the part of a place that lies in it, or the tile. Everything an application gets to see."""

    whole: TileView
    window: tuple[slice, slice]  # rows and columns of the tile
    meter: Meter
    ndvi: float | None = None  # of the place when all is well

    @property
    def dn(self) -> Dn:
        """uint16 [B, h, w]"""
        return self.whole.tile.dn[:, self.window[0], self.window[1]]

    @property
    def box(self) -> counting.Box:
        """Top, left, height and width in pixels of the tile."""
        rows, cols = self.window
        return rows.start, cols.start, rows.stop - rows.start, cols.stop - cols.start

    @property
    def clear(self) -> Mask:
        """Pixels with data and without cloud. [h, w]"""
        return self.whole.clear[self.window]

    @property
    def features(self) -> Any:
        return self.whole.features

    def band(self, name: str) -> NDArray[np.int32]:
        """[h, w]"""
        return self.whole.band(name)[self.window]

    def plane(self, name: str) -> Dn:
        """A band as it was taken, uint16: sums and differences pass its 16 bits. [h, w]"""
        return self.whole.plane(name)[self.window]

    def meets(self, formula: Formula) -> Mask:
        """Where a formula holds; not to be written to: it is the same for all applications. [h, w]"""
        rows, cols = self.window
        key = formula.text, rows.start, rows.stop, cols.start, cols.stop
        if key not in self.whole.kept:
            places = tuple(map(self.whole.place_of, formula.bands))
            compiled = counting.meets(formula, self.whole.tile.dn, places, self.box)
            self.whole.kept[key] = self._plain(formula) if compiled is None else compiled
        found: Mask = self.whole.kept[key]
        return found

    def _plain(self, formula: Formula) -> Mask:
        return formula.of(self.band, self.whole.highest_dn if formula.is_wide else HIGHEST_DN)

    def total(self, band: str, mask: Mask) -> int:
        """Sum of a band's digital numbers where the mask [h, w] holds."""
        return counting.masked_sum(self.whole.plane(band), self.box, mask)

    def around(self, mask: Mask, reach_px: int, band: str | None = None) -> NDArray[np.int32]:
        """Of each pixel how many of the window around it, as far as it lies in the area, are in the mask [h, w], or the
        sum of a band's digital numbers over these. [h, w]"""
        return counting.window_sums(None if band is None else self.whole.plane(band), self.box, mask, reach_px)


class App(Protocol):
    """An application, opened for one bundle and one mission.

    `macs_per_px` and `memory_octets` are what it says it needs: more than its budget, and it does not fly.
    `identity` changes whenever its answers could: it goes into the digest that every record carries.
    """

    indicator: Indicator
    needs: frozenset[Need]
    identity: str
    default_threshold: float  # in units of the indicator
    macs_per_px: float
    memory_octets: int

    def look(self, view: View) -> Sequence[Finding]:
        """What one area shows. Whole numbers only: every machine must answer alike."""
        ...

    def value(self, counts: tuple[int, ...], seen: int, ndvi: float | None) -> int:
        """The indicator in 1 / 10 000 of its unit, of counts that were added up over a place or of a target's."""
        ...
