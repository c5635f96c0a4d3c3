"""What every figure of single pixels needs of two pictures, summed over the pixels: by the kernel where it was built.

NDVI and NDWI, spectral angles, the frozen classification of land cover, and the bands' own sums.
"""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from payload.native import library
from payload.native.library import BOOL, F64, I32, I64, U16, call, span
from payload.scene import Dn, Mask, spectra
from payload.sensor import Sensor
from sim.metrics.radiometry import CLASSES, Roles, indices, land_cover

Counts = NDArray[np.int64]
Floats = NDArray[np.float64]

NDVI_BINS_PER_UNIT = 10_000  # of the histogram of |NDVI error|: its p95 is exact to 1e-4
ANGLE_BINS_PER_DEG = 100
REFLECTANCE_PER_DN = 1e-4
MOST_KERNEL_PX = 4096 * 4096


def _zeros(*shape: int) -> Counts:
    return np.zeros(shape, np.int64)


@dataclass(eq=False)
class PixelSums:
    """Sums over the valid pixels of a piece. Those that need bands which are not there stay 0.

    bands: x, y, x x, x y, (y - x)^2 of each band, exact [B, 5]. cover: classes of the original down, of the other
    across; cover_squares: (y - x)^2 over all bands by class of the original. Errors are sums of absolute ones, angles
    in degrees; histograms are of single pixels.
    """

    bands: Counts
    pixels: int = 0
    max_error: int = 0
    cover: Counts = field(default_factory=lambda: _zeros(len(CLASSES), len(CLASSES)))
    cover_squares: Counts = field(default_factory=lambda: _zeros(len(CLASSES)))
    ndwi_error: float = 0.0
    ndvi_error: float = 0.0
    angle_deg: float = 0.0
    ndvi_histogram: Counts = field(default_factory=lambda: _zeros(2 * NDVI_BINS_PER_UNIT + 1))
    angle_histogram: Counts = field(default_factory=lambda: _zeros(180 * ANGLE_BINS_PER_DEG + 1))

    @classmethod
    def of(cls, sensor: Sensor, original: Dn, received: Dn, valid: Mask) -> "PixelSums":
        """Of two pictures uint16 [B, h, w] and the mask [h, w] of what counts."""
        found = cls(_zeros(len(original), 5), int(valid.sum()))
        if found.pixels and library.available and valid.size <= MOST_KERNEL_PX:
            found._by_kernel(sensor, original, received, valid)
        elif found.pixels:
            found._add(sensor, spectra(original, valid), spectra(received, valid))
        return found

    def _by_kernel(self, sensor: Sensor, original: Dn, received: Dn, valid: Mask) -> None:
        places = [sensor.places(role) for role in ("green", "red", "nir")]
        roles = np.array([-1 if place is None else place[0] for place in places], np.int32)
        most, errors = _zeros(1), np.zeros(3)
        pair = [span(np.ascontiguousarray(picture), U16) for picture in (original, received)]
        counts = [span(array, I64) for array in (self.bands, most, self.cover, self.cover_squares)]
        call(
            "agreement", *pair, span(np.ascontiguousarray(valid), BOOL), len(original), valid.size, -sensor.lowest,
            span(roles, I32), *counts, span(errors, F64), span(self.ndvi_histogram, I64),
            span(self.angle_histogram, I64),
        )  # fmt: skip
        self.max_error = int(most[0])
        self.ndwi_error, self.ndvi_error, self.angle_deg = map(float, errors)

    def _add(self, sensor: Sensor, x: Dn, y: Dn) -> None:
        """Spectra [B, n] of both pictures."""
        a, b = x.astype(np.int64), y.astype(np.int64)
        squares = (b - a) ** 2
        self.bands += np.stack([part.sum(axis=1) for part in (a, b, a * a, a * b, squares)], axis=1)
        self.max_error = int(np.abs(b - a).max())
        before, after = (REFLECTANCE_PER_DN * counts_in_ratios(values, sensor) for values in (x, y))
        self._add_cover(Roles.of(sensor), before, after, squares.sum(axis=0))
        errors = ndvi_errors(sensor, x, y)
        self.ndvi_error = float(errors.sum())
        self.ndvi_histogram += _histogram(errors * NDVI_BINS_PER_UNIT, len(self.ndvi_histogram))
        angles = spectral_angle_deg(x, y, -sensor.lowest)
        self.angle_deg = float(angles.sum())
        self.angle_histogram += _histogram(angles * ANGLE_BINS_PER_DEG, len(self.angle_histogram))

    def _add_cover(self, roles: Roles | None, x: Floats, y: Floats, squares: Counts) -> None:
        """Reflectances [B, n]."""
        if roles is None:
            return
        before, after, size = land_cover(x, roles), land_cover(y, roles), len(CLASSES)
        self.cover += np.bincount(before * size + after, minlength=size * size).reshape(size, size)
        self.cover_squares += np.bincount(before, squares, size).astype(np.int64)
        self.ndwi_error = float(np.abs(indices(x, roles)[1] - indices(y, roles)[1]).sum())


def counts_in_ratios(dn: Dn, sensor: Sensor) -> Floats:
    """Counts of DN, float64, same shape. Of a signed sensor a level in common would make every ratio small; below 0 is
    noise, and would lead ratios out of -1 to 1: it counts as 0."""
    return np.maximum(dn.astype(np.float64) + sensor.lowest, 0.0)


def ndvi(dn: Dn, sensor: Sensor) -> Floats:
    """Vegetation index (NIR - red) / (NIR + red) float64 [...] of [B, ...], in -1..1; 0 where both bands are 0."""
    red, nir = (counts_in_ratios(dn[sensor.place_of(role)], sensor) for role in ("red", "nir"))
    total = red + nir
    return np.divide(nir - red, total, out=np.zeros_like(total), where=total > 0)


def ndvi_errors(sensor: Sensor, original: Dn, received: Dn) -> Floats:
    """Absolute errors of spectra [B, n]; none where the sensor has no red or no near infrared."""
    if sensor.places("red", "nir") is None:
        return np.zeros(0)
    return np.abs(ndvi(original, sensor) - ndvi(received, sensor))


def spectral_angle_deg(original: Dn, reconstruction: Dn, zero_dn: int = 0) -> Floats:
    """Angle between the two spectra of each pixel, degrees [...] of [B, ...] (Kruse et al. 1993). Two black spectra
    agree (0); black against anything else is 90. `zero_dn`: the DN of a count of 0, since a level in common would make
    every angle small."""
    a, b = original.astype(np.float64) - zero_dn, reconstruction.astype(np.float64) - zero_dn
    norms = np.sqrt((a * a).sum(axis=0) * (b * b).sum(axis=0))
    cosine = np.divide((a * b).sum(axis=0), norms, out=np.zeros_like(norms), where=norms > 0)
    both_black = ~a.any(axis=0) & ~b.any(axis=0)
    return np.where(both_black, 0.0, np.degrees(np.arccos(np.clip(cosine, -1.0, 1.0))))


def angle_histogram(angles_deg: Floats) -> Counts:
    """Of angles in degrees, as PixelSums keeps it."""
    return _histogram(angles_deg * ANGLE_BINS_PER_DEG, 180 * ANGLE_BINS_PER_DEG + 1)


def _histogram(values: Floats, bins: int) -> Counts:
    return np.bincount(np.rint(values).astype(np.int64).ravel(), minlength=bins)
