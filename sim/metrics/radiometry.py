"""Two pictures, band by band and class by class: bias and gain, sharpness, and a frozen classification of both.

Sums over pieces of a scene, with bounded memory; every figure is one division at the end.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from payload.scene import Mask, spectra
from payload.sensor import Sensor

F64 = NDArray[np.float64]
#: Samples [B, h, w] of any kind of number.
Samples = NDArray[np.generic]

WINDOW_PX = 64
#: Rings of spatial frequency in cycles a pixel: about half the Nyquist frequency, and just below it.
RINGS = {"half_nyquist": (0.20, 0.30), "nyquist": (0.40, 0.50)}
#: Of the transform of a window: the other half mirrors it, as windows are real.
FREQUENCY = np.hypot(np.fft.fftfreq(WINDOW_PX)[:, None], np.fft.rfftfreq(WINDOW_PX)[None])
CLASSES = ("water", "vegetation", "bright", "other")


def _ring(name: str) -> NDArray[np.bool_]:
    """Which frequencies lie in it."""
    low, high = RINGS[name]
    return (low <= FREQUENCY) & (high > FREQUENCY)


IN_RINGS = np.logical_or.reduce([_ring(name) for name in RINGS])


class BandSums:
    """Sums of one pair of pictures for each band: what bias, gain, RMSE and PSNR need."""

    def __init__(self, bands: int) -> None:
        self._pixels = 0
        self._sums = np.zeros((5, bands))  # x, y, xx, xy, (y - x)^2

    def add(self, original: Samples, received: Samples, valid: Mask) -> None:
        """Two pictures [B, h, w] and the mask [h, w] of what counts."""
        x, y = (spectra(picture, valid).astype(np.float64) for picture in (original, received))
        self._pixels += x.shape[1]
        off = y - x
        products = [np.einsum("bn,bn->b", a, b) for a, b in ((x, x), (x, y), (off, off))]
        self._sums += np.stack([x.sum(axis=1), y.sum(axis=1), *products])

    def add_sums(self, pixels: int, sums: NDArray[np.int64]) -> None:
        """Sums [B, 5] of so many pixels: x, y, x x, x y, (y - x)^2."""
        self._pixels, self._sums = self._pixels + pixels, self._sums + sums.T

    def merge(self, other: "BandSums") -> None:
        self._pixels, self._sums = self._pixels + other._pixels, self._sums + other._sums

    @property
    def pixels(self) -> int:
        return self._pixels

    def figures(self, peak: float) -> list[dict[str, float]]:
        """One table a band: bias = mean of received - original; gain = slope of received over original."""
        return [self._band(sums, peak) for sums in self._sums.T]

    def _band(self, sums: F64, peak: float) -> dict[str, float]:
        n, nan = self._pixels, float("nan")
        if not n:
            return dict.fromkeys(("rmse", "psnr_db", "bias", "gain", "offset"), nan)
        x, y, xx, xy, squares = (float(value) for value in sums)
        variance, covariance = xx / n - (x / n) ** 2, xy / n - x * y / n**2
        gain = covariance / variance if variance > 0 else nan
        mse = squares / n
        psnr_db = float("inf") if mse == 0 else float(10 * np.log10(peak**2 / mse))
        return {"rmse": mse**0.5, "psnr_db": psnr_db, "bias": (y - x) / n, "gain": gain, "offset": y / n - gain * x / n}


class Sharpness:
    """How much of the original's detail is left, by frequency: the ratio of the MTF after to that before.

    |mean of conj(X) Y| / mean of |X|^2 over windows of WINDOW_PX under a Hann window, X and Y the transforms of both.
    Noise that is added does not count as sharpness, as it is not in phase with the original.
    """

    def __init__(self, bands: int) -> None:
        kept = bands, int(IN_RINGS.sum())  # of a picture of many bands, the other frequencies would fill the memory
        self._cross, self._power = np.zeros(kept, np.complex128), np.zeros(kept)
        taper = np.hanning(WINDOW_PX)
        self._taper = np.outer(taper, taper)

    def add(self, original: Samples, received: Samples, valid: Mask, every: int = 1) -> None:
        """Windows of a piece [B, h, w] that are valid throughout; of those `every`th in both directions."""
        step = WINDOW_PX * every
        for top in range(0, valid.shape[0] - WINDOW_PX + 1, step):
            for left in range(0, valid.shape[1] - WINDOW_PX + 1, step):
                window = slice(top, top + WINDOW_PX), slice(left, left + WINDOW_PX)
                if valid[window].all():
                    for band, pair in enumerate(zip(original, received, strict=True)):
                        self._add(band, *(picture[window] for picture in pair))

    def merge(self, other: "Sharpness") -> None:
        self._cross += other._cross
        self._power += other._power

    def _add(self, band: int, original: Samples, received: Samples) -> None:
        x, y = (np.fft.rfft2(self._taper * _centred(window))[IN_RINGS] for window in (original, received))
        self._cross[band] += np.conj(x) * y
        self._power[band] += x.real**2 + x.imag**2

    def figures(self) -> dict[str, float]:
        """`mtf_ratio_half_nyquist` and `mtf_ratio_nyquist`, mean over bands; NaN without a whole window or detail."""
        times, found = np.full(FREQUENCY.shape, 2.0), {}
        times[:, [0, -1]] = 1.0  # columns that are their own mirrors
        for name in RINGS:
            ring = _ring(name)[IN_RINGS]
            power = self._power[:, ring] @ times[IN_RINGS][ring]
            cross = np.abs(self._cross[:, ring]) @ times[IN_RINGS][ring]
            found[f"mtf_ratio_{name}"] = float((cross / power).mean()) if (power > 0).all() else float("nan")
        return found


class ClassTally:
    """A classification of the original beside one of what was received, and the error in each class of the original."""

    def __init__(self, names: Sequence[str] = CLASSES) -> None:
        self.names = tuple(names)
        self.table = np.zeros((len(names), len(names)), np.int64)  # original down, received across
        self._squares, self._samples = np.zeros(len(names)), np.zeros(len(names), np.int64)

    def add(self, before: NDArray[np.intp], after: NDArray[np.intp], squared: F64, bands: int) -> None:
        """Classes [n] of both pictures, and the squared error summed over the bands [n] of the same pixels."""
        size = len(self.names)
        self.table += np.bincount(before * size + after, minlength=size * size).reshape(size, size)
        self._squares += np.bincount(before, weights=squared, minlength=size)
        self._samples += bands * np.bincount(before, minlength=size)

    def add_table(self, table: NDArray[np.int64], squares: NDArray[np.int64], bands: int) -> None:
        """Pixels by class of the original and of the other, and squared errors over all bands by the first."""
        self.table += table
        self._squares += squares
        self._samples += bands * table.sum(axis=1)

    def merge(self, other: "ClassTally") -> None:
        self.table += other.table
        self._squares += other._squares
        self._samples += other._samples

    def psnr_db(self, peak: float) -> dict[str, float | None]:
        """PSNR within each class of the original; None where there is no pixel of it."""
        mse = np.divide(self._squares, self._samples, out=np.zeros(len(self.names)), where=self._samples > 0)
        each = zip(self.names, mse, self._samples, strict=True)
        return {
            name: None if not n else float("inf") if m == 0 else float(10 * np.log10(peak**2 / m))
            for name, m, n in each
        }

    def iou(self) -> dict[str, float | None]:
        """Overlap of each class before and after: intersection over union."""
        same = np.diag(self.table)
        union = self.table.sum(axis=0) + self.table.sum(axis=1) - same
        return {name: float(a / b) if b else None for name, a, b in zip(self.names, same, union, strict=True)}

    def agreement(self) -> dict[str, float]:
        total = int(self.table.sum())
        overall = float(np.trace(self.table) / total) if total else float("nan")
        return {"oa": overall, "kappa": kappa(self.table)}


def kappa(table: NDArray[np.int64]) -> float:
    """Cohen's kappa of a table of two classifications (Cohen 1960); NaN where chance alone explains everything."""
    total = float(table.sum())
    if not total:
        return float("nan")
    by_chance = float((table.sum(axis=0) * table.sum(axis=1).astype(np.float64)).sum()) / total**2
    observed = float(np.trace(table)) / total
    return (observed - by_chance) / (1 - by_chance) if by_chance < 1 else float("nan")


@dataclass(frozen=True)
class Roles:
    """Places of the bands that the frozen rule and the indices need."""

    green: int
    red: int
    nir: int

    @classmethod
    def of(cls, sensor: Sensor) -> "Roles | None":
        """None where one of them is missing."""
        places = sensor.places("green", "red", "nir")
        return None if places is None else cls(*places)


def ratio(a: F64, b: F64) -> F64:
    """(a - b) / (a + b), 0 where both are 0."""
    return np.divide(a - b, a + b, out=np.zeros_like(a), where=(a + b) > 0)


def indices(spectra: F64, roles: Roles) -> tuple[F64, F64]:
    """NDVI and NDWI (McFeeters 1996: green against NIR) of spectra [B, n]."""
    green, red, nir = spectra[roles.green], spectra[roles.red], spectra[roles.nir]
    return ratio(nir, red), ratio(green, nir)


def land_cover(reflectance: F64, roles: Roles) -> NDArray[np.intp]:
    """Index in CLASSES of spectra [B, n] in reflectance, by a frozen rule on NDWI, NDVI and brightness.

    Water: NDWI > 0 and NIR < 0.15. Bright (cloud, snow, salt): red and green > 0.3. Vegetation: NDVI > 0.4. The
    thresholds are assumed, usual ones; the rule is a yardstick that does not move, not a map.
    """
    ndvi, ndwi = indices(reflectance, roles)
    water = (ndwi > 0) & (reflectance[roles.nir] < 0.15)
    bright = (reflectance[roles.red] > 0.3) & (reflectance[roles.green] > 0.3)
    return np.select([bright, water, ndvi > 0.4], [2, 0, 1], 3).astype(np.intp)


def _centred(window: Samples) -> F64:
    values = window.astype(np.float64)
    return values - values.mean()
