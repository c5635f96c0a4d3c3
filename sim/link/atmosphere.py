"""Loss through the atmosphere, from tables computed once with the ITU's models (sim/link/data/atmosphere.toml).

`gases` is what a clear sky takes; `one_percent` is what is exceeded during 1 % of a year at a temperate site, rain,
cloud and scintillation included. Between the tables' frequencies and elevations the loss is interpolated: its logarithm
over the logarithm of the frequency, and over the logarithm of the elevation's sine.
"""

import tomllib
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Atmosphere = Literal["gases", "one_percent"]
FILE = Path(__file__).parent / "data" / "atmosphere.toml"
#: The cosecant law holds down to here; nearer to the horizon it is far too kind.
LOWEST_DEG = 5.0


def loss_db(kind: Atmosphere, frequency_hz: float, elevation_deg: NDArray[np.float64]) -> NDArray[np.float64]:
    """Loss [N] in dB at elevations [N]; below 5 degrees, where the tables end, that of 5 degrees."""
    table = tables()[kind]
    sine = np.sin(np.radians(np.clip(elevation_deg, LOWEST_DEG, 90.0)))
    octave = np.log(np.clip(frequency_hz / 1e9, table["frequency_ghz"][0], table["frequency_ghz"][-1]))
    frequencies = np.log(table["frequency_ghz"])
    if kind == "gases":
        return np.exp(np.interp(octave, frequencies, np.log(table["zenith_db"]))) / sine
    of_row = [np.interp(octave, frequencies, column) for column in np.log(np.array(table["loss_db"])).T]
    return np.exp(np.interp(np.log(sine), np.log(np.sin(np.radians(table["elevation_deg"]))), of_row))


def source(kind: Atmosphere) -> str:
    return str(tables()[kind]["source"])


@cache
def tables() -> dict[str, Any]:
    return tomllib.loads(FILE.read_text(encoding="utf-8"))
