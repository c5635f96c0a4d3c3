"""Applications that count pixels by a formula: water, burned ground, and whatever the mission's own formula says.

The value is the share of the clear pixels of a place for which the formula holds.
"""

from collections.abc import Sequence

import numpy as np

from payload.apps import indicators
from payload.apps.formula import Formula, parse
from payload.apps.interface import FIRST_OWN_INDICATOR, Finding, Indicator, Need, View
from payload.apps.settings import AppSettings
from payload.bundle import Bundle
from payload.engine import Engine
from payload.errors import InputError
from payload.link.app_record import PARTS

#: Octets a pixel that the planes of a formula take at most: bands and two intermediate values of 64 bits.
OCTETS_PER_PX = 8


class IndexApp:
    """The share of clear pixels that meet `formula`."""

    needs: frozenset[Need] = frozenset({"mask"})

    def __init__(self, indicator: Indicator, formula: str, default_threshold: float, bundle: Bundle) -> None:
        self.indicator, self.default_threshold = indicator, default_threshold
        self.formula: Formula = parse(formula)
        for band in self.formula.bands:
            _require_band(band, bundle)
        self.macs_per_px = float(self.formula.operations)
        self.memory_octets = OCTETS_PER_PX * (len(self.formula.bands) + 2) * bundle.tile_px**2
        self.identity = self.formula.text

    def look(self, view: View) -> Sequence[Finding]:
        clear = view.clear
        view.meter.charge(self.macs_per_px * clear.size, self.memory_octets)
        found = view.meets(self.formula) & clear
        return [Finding((int(np.count_nonzero(found)),), int(np.count_nonzero(clear)))]

    def value(self, counts: tuple[int, ...], seen: int, ndvi: float | None) -> int:
        return PARTS * counts[0] // seen


def _require_band(band: str, bundle: Bundle) -> None:
    if bundle.sensor.place(band) is None:
        known = ", ".join((*(one.role for one in bundle.sensor.bands if one.role), *bundle.bands))
        raise InputError(f"formula: {band!r} is no band of bundle {bundle.name}; wanted one of {known}")


#: NDWI of McFeeters 1996 (International Journal of Remote Sensing 17, 1425-1432), above -0.1 instead of 0 because
#: floods are muddy, and dark in the near infrared, which cloud is not. Chosen on half of the cellula chips.
WATER = "(green - nir) / (green + nir) > -0.1 and nir < 1500"
#: Burned area index of Chuvieco, Martin and Palacios 2002 (International Journal of Remote Sensing 23, 5103-5110):
#: 1 / ((0.1 - red)^2 + (0.06 - nir)^2), above 250, in DN; less what is darker in the near infrared than in the green,
#: which is water.
BURNED = "(1000 - red) * (1000 - red) + (600 - nir) * (600 - nir) < 400000 and nir > green"


def water(settings: AppSettings, bundle: Bundle, engine: Engine | None) -> IndexApp:
    """Water extent: floods, reservoirs."""
    _refuse_formula(settings, "water")
    return IndexApp(indicators.WATER, WATER, 0.5, bundle)


def burned(settings: AppSettings, bundle: Bundle, engine: Engine | None) -> IndexApp:
    """Burned ground."""
    _refuse_formula(settings, "burned")
    return IndexApp(indicators.BURNED, BURNED, 0.05, bundle)


def index(settings: AppSettings, bundle: Bundle, engine: Engine | None) -> IndexApp:
    """The mission's own formula."""
    if settings.formula is None:
        raise InputError('app index: formula is missing; add one, as in formula = "green > nir"')
    return IndexApp(Indicator(FIRST_OWN_INDICATOR, "index", "share of the clear pixels"), settings.formula, 0.5, bundle)


def _refuse_formula(settings: AppSettings, name: str) -> None:
    if settings.formula is not None:
        raise InputError(f'app {name} has a formula of its own; take formula out, or app = "index"')
