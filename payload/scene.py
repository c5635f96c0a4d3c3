"""What the imager hands to the payload: digital numbers on a grid, read in windows: no scene sits in memory whole."""

from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from payload.sensor import SENTINEL2_RGBN, Sensor, sensor_of

Dn = NDArray[np.uint16]
Mask = NDArray[np.bool_]


def spectra(picture: NDArray[Any], valid: Mask) -> NDArray[Any]:
    """Valid pixels [B, n] of a picture [B, h, w]; where all are, picking them out would take longest of all."""
    return picture.reshape(len(picture), -1) if valid.all() else picture[:, valid]


@dataclass(frozen=True)
class SceneInfo:
    """Everything about a scene but its pixels.

    `dn` means reflectance x 10 000 with any processing offset already removed, or what the `sensor` says. The sensor
    does not go down with the scene: the ground has it from the bundle.
    `crs_wkt` and `transform` (a, b, c, d, e, f: x = a col + b row + c, y = d col + e row + f) are None where the
    file has no georeference. `nodata` is the DN that marks no data in the source, None if there is none.
    `bits` is the depth of the sensor, not of the container. A scene that is placed otherwise has `gcps`, ground control
    points (row, col, x, y, z) in `crs_wkt`, or `rpcs`, rational polynomial coefficients by their GDAL names; both only
    go on to the products. `notes` are sentences on what was applied or assumed when the scene was read.
    """

    name: str
    height_px: int
    width_px: int
    bands: tuple[str, ...]
    gsd_m: float
    bits: int = 12
    sensed_at: str | None = None
    crs_wkt: str | None = None
    transform: tuple[float, float, float, float, float, float] | None = None
    nodata: int | None = None
    gcps: tuple[tuple[float, float, float, float, float], ...] = ()
    rpcs: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()
    band_shifts: tuple[tuple[int, int], ...] = ()  # rows, columns from which each band was read to register it
    sensor: Sensor = field(default=SENTINEL2_RGBN, compare=False)

    def __post_init__(self) -> None:
        if self.sensor.names != self.bands:
            object.__setattr__(self, "sensor", sensor_of(self.bands))


class Scene(Protocol):
    """A scene that can be read in windows."""

    @property
    def info(self) -> SceneInfo: ...

    def read(self, row_px: int, col_px: int, height_px: int, width_px: int) -> tuple[Dn, Mask]:
        """dn uint16 [B, h, w] and valid bool [h, w] of a window that lies inside the scene."""
        ...
