"""Figures that a sensor's kind or bands call for: indices of short-wave and red-edge bands, and those of radar.

Sums over pieces of a scene, with bounded memory. A figure is there only where the sensor has the bands for it.
"""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from payload.scene import Dn, Mask
from payload.sensor import Sensor
from sim.metrics.pixels import ANGLE_BINS_PER_DEG, counts_in_ratios
from sim.metrics.radiometry import ratio

F64 = NDArray[np.float64]
#: Normalised differences beside NDVI and NDWI -> roles: moisture, burn ratio, snow, red edge.
INDICES = {
    "ndmi": ("nir", "swir16"), "nbr": ("nir", "swir22"), "ndsi": ("green", "swir16"), "ndre": ("nir", "rededge071"),
}  # fmt: skip
#: Side of the windows in which looks are counted, and the share of them, the most even ones, that counts.
LOOKS_PX, EVEN_SHARE = 16, 0.1


class KindFigures:
    """Of a pair of pictures in DN."""

    def __init__(self, sensor: Sensor) -> None:
        self._sensor = sensor
        self._indices = {key: places for key, roles in INDICES.items() if (places := sensor.places(*roles))}
        self._errors, self._pixels = dict.fromkeys(self._indices, 0.0), 0
        self._angles = np.zeros(180 * ANGLE_BINS_PER_DEG + 1, np.int64) if len(sensor.bands) > 1 else None
        self._radar = RadarFigures(sensor) if sensor.kind == "radar" and sensor.unit == "dB" else None

    def add(self, original: Dn, received: Dn, valid: Mask, angles: NDArray[np.int64]) -> None:
        """A piece: dn uint16 [B, h, w], mask bool [h, w], and the histogram of the valid pixels' spectral angles."""
        self._pixels += int(valid.sum())
        for key, (a, b) in self._indices.items():
            pairs = (counts_in_ratios(dn[[a, b]][:, valid], self._sensor) for dn in (original, received))
            before, after = (ratio(*pair) for pair in pairs)
            self._errors[key] += float(np.abs(after - before).sum())
        if self._angles is not None:
            self._angles += angles
        if self._radar is not None:
            self._radar.add(original, received, valid)

    def figures(self) -> dict[str, float]:
        found = {f"{key}_mae": error / max(self._pixels, 1) for key, error in self._errors.items()}
        if self._angles is not None:
            at = np.searchsorted(np.cumsum(self._angles), 0.95 * self._pixels)
            found["sam_p95_deg"] = float(at) / ANGLE_BINS_PER_DEG
        return found | (self._radar.figures() if self._radar is not None else {})


class RadarFigures:
    """Looks, the ratio image, the polarisations' ratio and edges, of sigma nought in dB."""

    def __init__(self, sensor: Sensor) -> None:
        self._scale, self._offset = sensor.scale, sensor.offset + sensor.scale * sensor.lowest
        self._both = sensor.places("vv", "vh")
        self._windows: list[F64] = []  # [2, n]: looks before and after, by window
        self._ratio = np.zeros(3)  # samples, sum, sum of squares
        self._edges = np.zeros(6)  # samples, x, y, xx, yy, xy
        self._vv_vh = np.zeros(2)  # pixels, sum of errors

    def add(self, original: Dn, received: Dn, valid: Mask) -> None:
        """A piece: dn uint16 [B, h, w], mask bool [h, w]."""
        if not valid.any():
            return
        a, b = (self._scale * dn.astype(np.float64) + self._offset for dn in (original, received))  # dB
        power_a, power_b = 10 ** (a / 10), 10 ** (b / 10)
        ratios = (power_b / power_a)[:, valid]
        self._ratio += ratios.size, ratios.sum(), (ratios**2).sum()
        self._windows += [np.stack([looks(x, valid), looks(y, valid)]) for x, y in zip(power_a, power_b, strict=True)]
        inside = ndimage.binary_erosion(valid, np.ones((3, 3)))
        for x, y in zip(a, b, strict=True):
            gx, gy = gradient(x)[inside], gradient(y)[inside]
            self._edges += gx.size, gx.sum(), gy.sum(), (gx * gx).sum(), (gy * gy).sum(), (gx * gy).sum()
        if self._both is not None:
            vv, vh = self._both
            off = np.abs((b[vv] - b[vh]) - (a[vv] - a[vh]))[valid]
            self._vv_vh += off.size, off.sum()

    def figures(self) -> dict[str, float]:
        nan = float("nan")
        before, after = np.concatenate(self._windows, axis=1) if self._windows else np.zeros((2, 0))
        even = before >= np.quantile(before, 1 - EVEN_SHARE) if before.size else np.zeros(0, bool)
        n, total, squares = self._ratio
        mean = total / n if n else nan
        found = {
            "enl_before": float(np.median(before[even])) if even.any() else nan,
            "enl_after": float(np.median(after[even])) if even.any() else nan,
            "ratio_mean": float(mean), "ratio_spread": float(np.sqrt(max(squares / n - mean**2, 0))) if n else nan,
            "edge_correlation": _correlation(self._edges),
        }  # fmt: skip
        return found | ({"vv_vh_mae_db": float(self._vv_vh[1] / self._vv_vh[0])} if self._vv_vh[0] else {})


def looks(power: F64, valid: Mask) -> F64:
    """Equivalent number of looks, mean^2 / variance of intensity, in each whole valid window of LOOKS_PX."""
    rows, cols = (side // LOOKS_PX for side in power.shape)
    cut = (slice(rows * LOOKS_PX), slice(cols * LOOKS_PX))
    blocks, known = (
        plane[cut].reshape(rows, LOOKS_PX, cols, LOOKS_PX).swapaxes(1, 2).reshape(rows * cols, -1)
        for plane in (power, valid)
    )
    blocks = blocks[known.all(axis=1)]
    found: F64 = blocks.mean(axis=1) ** 2 / np.maximum(blocks.var(axis=1), 1e-30)
    return found


def gradient(plane: F64) -> F64:
    """Sobel's magnitude [h, w]."""
    found: F64 = np.hypot(ndimage.sobel(plane, 0), ndimage.sobel(plane, 1))
    return found


def _correlation(sums: F64) -> float:
    n, x, y, xx, yy, xy = (float(value) for value in sums)
    spread = (n * xx - x * x) * (n * yy - y * y)
    return (n * xy - x * y) / float(np.sqrt(spread)) if n and spread > 0 else float("nan")
