"""Drop of the vegetation index of a place against what the mission says it is when all is well.

NDVI of the place's mean reflectance over clear pixels: sums of nir - red and of nir + red, so that nothing is rounded
before the end. One division a place, not one a pixel.
"""

from collections.abc import Sequence

import numpy as np

from payload.apps.indicators import VEGETATION_DROP
from payload.apps.interface import Finding, Need, View
from payload.apps.settings import AppSettings
from payload.bundle import Bundle
from payload.engine import Engine
from payload.errors import InputError
from payload.link.app_record import PARTS


class VegetationDrop:
    """The reference of a place less its NDVI."""

    indicator = VEGETATION_DROP
    needs: frozenset[Need] = frozenset({"mask", "sites", "ndvi"})
    identity = "ndvi of the mean reflectance 1"
    default_threshold = 0.15
    macs_per_px = 4.0

    def __init__(self, settings: AppSettings, bundle: Bundle, engine: Engine | None) -> None:
        if settings.formula is not None:
            raise InputError('app vegetation has a formula of its own; take formula out, or app = "index"')
        bundle.sensor.place_of("red")
        bundle.sensor.place_of("nir")
        self.memory_octets = 16 * bundle.tile_px**2

    def look(self, view: View) -> Sequence[Finding]:
        clear = view.clear
        view.meter.charge(self.macs_per_px * clear.size, self.memory_octets)
        seen = int(np.count_nonzero(clear))
        red, nir = (view.total(band, clear) for band in ("red", "nir"))
        return [Finding((nir - red, nir + red), seen)]

    def value(self, counts: tuple[int, ...], seen: int, ndvi: float | None) -> int:
        difference, total = counts
        now = PARTS * difference // total if total else 0
        return round(PARTS * (ndvi or 0.0)) - now
