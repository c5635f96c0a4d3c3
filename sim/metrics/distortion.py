"""Two pictures -> figures: every distortion metric with its convention (docs/metrics.md states each one in words).

Takes the original and the reconstruction as DN uint16 [B, h, w] (DN = reflectance x 10 000) and a validity mask
bool [h, w]; pixels outside the mask count in no figure. Gives plain floats with the unit in the name. A figure that
is not defined (no valid pixel, tile too small for a window) is NaN; the PSNR of a lossless picture is inf.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from payload.errors import InputError
from payload.scene import Dn, Mask, spectra
from payload.sensor import Sensor
from sim.metrics import thematic
from sim.metrics.by_kind import KindFigures
from sim.metrics.cover import CoverAgreement
from sim.metrics.pixels import (
    NDVI_BINS_PER_UNIT,
    REFLECTANCE_PER_DN,
    PixelSums,
    angle_histogram,
    ndvi_errors,
    spectral_angle_deg,
)
from sim.metrics.similarity import PEAK_10K, SsimSums, ms_ssim

F64 = NDArray[np.float64]

PEAK_65K = 65_535.0  # full scale of the container: the second, 16.3 dB kinder


def rate_figures(octets: int, pixels: int, bands: float, sensor_bits: int) -> dict[str, float]:
    """What `octets` on the downlink mean for `pixels` of `bands` each, a band of coarser pixels counted by its share of
    a sample. Every octet must be in `octets` already."""
    if octets <= 0 or pixels <= 0:
        raise InputError(f"rate of {octets} octets over {pixels} pixels is not defined, wanted both above 0")
    bits = 8 * octets
    return {
        "bpp": bits / pixels,
        "bpppb": bits / (pixels * bands),
        "cr16": 16 * pixels * bands / bits,
        "cr_sensor": sensor_bits * pixels * bands / bits,
    }


def psnr_db(mse_dn2: float, peak_dn: float = PEAK_10K) -> float:
    """Peak signal-to-noise ratio in dB of a mean squared error in DN^2; inf for a lossless picture."""
    return float("inf") if mse_dn2 == 0 else float(10 * np.log10(peak_dn**2 / mse_dn2))


def tile_figures(
    original: Dn,
    reconstruction: Dn,
    valid: Mask,
    sensor: Sensor,
    classified: thematic.Reference | None = None,
) -> dict[str, float]:
    """Every figure of one tile: both pictures [B, h, w], mask [h, w]; what is streamed in SceneQuality is exact here.

    `classified`: the original's classification, if the caller has it already (it costs more than the comparison).
    """
    moments = _Moments.of(original, reconstruction, valid)
    figures = moments.figures()
    figures |= SsimSums.of(original, reconstruction, valid).figures()
    figures["ms_ssim_10k"] = ms_ssim(original, reconstruction, valid)
    angles = spectral_angle_deg(original, reconstruction, -sensor.lowest)[valid]
    one_band = len(original) == 1  # whose angle is 0 whatever it shows
    figures["sam_deg"] = float(angles.mean()) if angles.size and not one_band else float("nan")
    figures |= _by_kind(original, reconstruction, valid, sensor, angles)
    errors = ndvi_errors(sensor, spectra(original, valid), spectra(reconstruction, valid))
    figures["ndvi_mae"] = float(errors.mean()) if errors.size else float("nan")
    figures["ndvi_p95"] = float(np.percentile(errors, 95)) if errors.size else float("nan")
    return figures | thematic.agreement(original, reconstruction, valid, classified)


def per_tile_summary(mse_dn2: Sequence[float], pixels: Sequence[int]) -> dict[str, float]:
    """Four PSNR (peak 10 000) over the tiles of one run: the mean of the tiles' PSNR and the PSNR of the pooled MSE
    differ by decibels where tiles differ in difficulty, so all are given."""
    if not mse_dn2:
        return dict.fromkeys(
            ("psnr_10k_mean_db", "psnr_10k_pooled_db", "psnr_10k_median_db", "psnr_10k_worst_db"), float("nan")
        )
    each = np.array([psnr_db(m) for m in mse_dn2])
    return {
        "psnr_10k_mean_db": float(each.mean()),
        "psnr_10k_pooled_db": psnr_db(float(np.average(mse_dn2, weights=pixels))),
        "psnr_10k_median_db": float(np.median(each)),
        "psnr_10k_worst_db": float(each.min()),
    }


def _by_kind(original: Dn, reconstruction: Dn, valid: Mask, sensor: Sensor, angles_deg: F64) -> dict[str, float]:
    found = KindFigures(sensor)
    found.add(original, reconstruction, valid, angle_histogram(angles_deg))
    return found.figures() if angles_deg.size else dict.fromkeys(found.figures(), float("nan"))


@dataclass(frozen=True)
class _Moments:
    """Exact integer sums over the valid samples of some pixels: addition is associative, so the order never matters."""

    pixels: int
    bands: int
    squared_error: int
    max_error: int
    sums: tuple[int, ...]  # per band, of the original
    squares: tuple[int, ...]

    @classmethod
    def of(cls, original: Dn, reconstruction: Dn, valid: Mask) -> "_Moments":
        _check_pair(original, reconstruction, valid)
        x = spectra(original, valid).astype(np.int64)
        error = np.abs(x - spectra(reconstruction, valid))
        return cls(
            pixels=x.shape[1],
            bands=len(x),
            squared_error=int((error * error).sum()),
            max_error=int(error.max(initial=0)),
            sums=tuple(int(v) for v in x.sum(axis=1)),
            squares=tuple(int(v) for v in (x * x).sum(axis=1)),
        )

    @classmethod
    def summed(cls, seen: PixelSums) -> "_Moments":
        x, squares, errors = seen.bands[:, 0], seen.bands[:, 2], seen.bands[:, 4]
        sums, of_squares = (tuple(int(value) for value in column) for column in (x, squares))
        return cls(seen.pixels, len(x), int(errors.sum()), seen.max_error, sums, of_squares)

    def __add__(self, other: "_Moments") -> "_Moments":
        return _Moments(
            self.pixels + other.pixels,
            self.bands,
            self.squared_error + other.squared_error,
            max(self.max_error, other.max_error),
            tuple(a + b for a, b in zip(self.sums, other.sums, strict=True)),
            tuple(a + b for a, b in zip(self.squares, other.squares, strict=True)),
        )

    @property
    def mse_dn2(self) -> float:
        return self.squared_error / (self.pixels * self.bands) if self.pixels else float("nan")

    @property
    def variance_dn2(self) -> float:
        """Mean over bands of each band's own variance: what standardising the bands would divide by."""
        n = self.pixels
        each = [
            (n * q - s * s) / (n * n) for s, q in zip(self.sums, self.squares, strict=True)
        ]  # exact up to the division
        return sum(each) / self.bands

    def figures(self) -> dict[str, float]:
        nan, mse = float("nan"), self.mse_dn2
        variance = self.variance_dn2 if self.pixels else nan
        return {
            "psnr_10k_db": psnr_db(mse, PEAK_10K),
            "psnr_65k_db": psnr_db(mse, PEAK_65K),
            "snr_db": float("inf") if mse == 0 else float(10 * np.log10(variance / mse)) if variance > 0 else nan,
            "rmse_reflectance": float(np.sqrt(mse)) * REFLECTANCE_PER_DN,
            "max_error_reflectance": self.max_error * REFLECTANCE_PER_DN if self.pixels else nan,
        }


@dataclass(frozen=True, eq=False)
class Look:
    """What one piece adds to the figures of its scene: the piece itself, and what takes long to find of it."""

    piece: tuple[Dn, Dn, Mask]
    pixels: PixelSums
    ssim: SsimSums = field(default_factory=SsimSums)
    samples: tuple[Dn, Dn] = field(default_factory=lambda: (np.zeros((0, 0), np.uint16), np.zeros((0, 0), np.uint16)))
    cover: CoverAgreement | None = None


class SceneQuality:
    """The figures of a whole scene from pieces (tiles or strips), with bounded memory.

    Pooled: MSE, max error, SNR, SAM and NDVI MAE over all valid pixels; NDVI p95 to 1e-4 from a histogram. SSIM over
    the windows inside each piece: windows across two pieces are not seen. Per piece: mean, median and worst PSNR.
    Thematic agreement on every 10th row and column only (1 % of the pixels, which are kept).
    """

    def __init__(self, sensor: Sensor) -> None:
        self._sensor = sensor
        self._moments: _Moments | None = None
        self._pieces: list[tuple[float, int]] = []  # MSE in DN^2 and pixels of every piece with a valid pixel
        self._angle_sum_deg = 0.0
        self._ndvi_error_sum = 0.0
        self._ndvi_histogram = np.zeros(2 * NDVI_BINS_PER_UNIT + 1, np.int64)
        self._ssim = SsimSums()
        self._samples: list[tuple[Dn, Dn]] = []  # pairs [n, B]
        self._cover, self._by_kind = CoverAgreement(sensor), KindFigures(sensor)

    def add(self, original: Dn, reconstruction: Dn, valid: Mask) -> None:
        """One more piece: both pictures uint16 [B, h, w], mask bool [h, w]."""
        self.take(self.look(original, reconstruction, valid))

    def look(self, original: Dn, reconstruction: Dn, valid: Mask) -> "Look":
        """What a piece adds, without adding it: any thread may look, and the order of `take` is what counts."""
        _check_pair(original, reconstruction, valid)
        piece = original, reconstruction, valid
        pixels = PixelSums.of(self._sensor, *piece)
        if not pixels.pixels:
            return Look(piece, pixels)
        samples = thematic.sample_pair(original, reconstruction, valid)
        return Look(piece, pixels, SsimSums.of(*piece), samples, CoverAgreement.of(self._sensor, *piece, pixels))

    def take(self, look: "Look") -> None:
        """Adds a piece that was looked at."""
        pixels, moments = look.pixels, _Moments.summed(look.pixels)
        self._moments = moments if self._moments is None else self._moments + moments
        if not pixels.pixels:
            return
        self._pieces.append((moments.mse_dn2, moments.pixels))
        self._angle_sum_deg += pixels.angle_deg
        self._ndvi_error_sum += pixels.ndvi_error
        self._ndvi_histogram += pixels.ndvi_histogram
        self._ssim += look.ssim
        if look.cover is not None:
            self._cover.merge(look.cover)
        self._by_kind.add(*look.piece, pixels.angle_histogram)
        self._samples.append(look.samples)

    def figures(self) -> dict[str, float]:
        """Everything so far. The same pieces in the same order give the same floats."""
        if self._moments is None or not self._moments.pixels:
            raise InputError(
                "no valid pixel was compared, wanted at least one; are all tiles withheld, lost or no data?"
            )
        pixels = self._moments.pixels
        figures = self._moments.figures() | per_tile_summary(*zip(*self._pieces, strict=True))
        figures |= self._ssim.figures()
        one_band = len(self._sensor.bands) == 1
        figures["sam_deg"] = float("nan") if one_band else self._angle_sum_deg / pixels
        figures |= self._ndvi_figures(pixels) | self._cover.figures() | self._by_kind.figures()
        pairs = [np.concatenate(side) for side in zip(*self._samples, strict=True)]
        return figures | thematic.sampled_agreement(pairs[0], pairs[1])

    def _ndvi_figures(self, pixels: int) -> dict[str, float]:
        if self._sensor.places("red", "nir") is None:
            return dict.fromkeys(("ndvi_mae", "ndvi_p95"), float("nan"))
        below = np.searchsorted(np.cumsum(self._ndvi_histogram), 0.95 * pixels)
        return {"ndvi_mae": self._ndvi_error_sum / pixels, "ndvi_p95": float(below) / NDVI_BINS_PER_UNIT}


def _check_pair(original: Dn, reconstruction: Dn, valid: Mask) -> None:
    if original.shape != reconstruction.shape or original.shape[1:] != valid.shape:
        raise InputError(
            f"original {list(original.shape)}, reconstruction {list(reconstruction.shape)}, mask {list(valid.shape)}: "
            "wanted [B, h, w] twice and [h, w]"
        )
    for label, picture in (("original", original), ("reconstruction", reconstruction)):
        if picture.dtype != np.uint16:
            raise InputError(f"{label} is {picture.dtype}, wanted DN as uint16: round and clip it before measuring")
