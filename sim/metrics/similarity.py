"""Structural similarity of two pictures, by the kernel where it was built, and over five scales (docs/metrics.md)."""

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from payload.native import library
from payload.native.library import BOOL, U16, call, span
from payload.scene import Dn, Mask, spectra

F64 = NDArray[np.float64]
PEAK_10K = 10_000.0  # reflectance 1.0: the first convention

#: SSIM after Wang et al. 2004: gaussian window of 11 x 11 px, sigma 1.5 px, K1 = 0.01, K2 = 0.03.
SSIM_RADIUS_PX, SSIM_SIGMA_PX, SSIM_K1, SSIM_K2 = 5, 1.5, 0.01, 0.03
#: MS-SSIM after Wang, Simoncelli and Bovik 2003, table of exponents, finest scale first.
MS_SSIM_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
SSIM_SLICE_PX = 1024  # widest piece that is filtered at once: bounds memory on a whole strip


def ssim(original: NDArray, reconstruction: NDArray, valid: Mask, data_range: float = PEAK_10K) -> float:
    """Structural similarity, mean over bands of the mean over windows that hold valid pixels only."""
    found = SsimSums.of(original, reconstruction, valid, data_range)
    return found.fixed_range / found.windows if found.windows else float("nan")


@dataclass(frozen=True)
class SsimSums:
    """Sums over windows of the band-mean SSIM, with a fixed range and with the span of each band of the original, and
    the number of windows. Pieces add up; a window across two of them is not seen."""

    fixed_range: float = 0.0
    own_range: float = 0.0
    windows: int = 0

    @classmethod
    def of(cls, original: NDArray, reconstruction: NDArray, valid: Mask, data_range: float = PEAK_10K) -> "SsimSums":
        """Of two pictures [B, h, w]; wide ones go through in slices."""
        known = spectra(original, valid)
        spans = np.ptp(known, axis=1) if known.size else np.zeros(len(original))
        fixed, own, windows = 0.0, 0.0, 0
        width, margin = valid.shape[1], 2 * SSIM_RADIUS_PX
        for left in range(0, max(width - margin, 0), SSIM_SLICE_PX):
            slices = slice(left, min(left + SSIM_SLICE_PX + margin, width))  # they overlap: no window is lost
            whole = _whole_windows(valid[:, slices])
            windows += int(whole.sum())
            for a, b, extent in zip(original[:, :, slices], reconstruction[:, :, slices], spans, strict=True):
                sums = _similarity_sums(a, b, whole, (data_range, max(float(extent), 1.0)))
                fixed, own = fixed + sums[0], own + sums[1]
        return cls(fixed / len(original), own / len(original), windows)

    def __add__(self, other: "SsimSums") -> "SsimSums":
        return SsimSums(
            self.fixed_range + other.fixed_range, self.own_range + other.own_range, self.windows + other.windows
        )

    def figures(self) -> dict[str, float]:
        if not self.windows:
            return dict.fromkeys(("ssim_10k", "ssim_own"), float("nan"))
        return {"ssim_10k": self.fixed_range / self.windows, "ssim_own": self.own_range / self.windows}


def ms_ssim(original: Dn, reconstruction: Dn, valid: Mask, data_range: float = PEAK_10K) -> float:
    """Multi-scale SSIM over five dyadic scales, mean over bands; NaN under 161 px, where the coarsest has no window."""
    return float(
        np.mean([_ms_ssim_band(a, b, valid, data_range) for a, b in zip(original, reconstruction, strict=True)])
    )


def _ms_ssim_band(original: Dn, reconstruction: Dn, valid: Mask, data_range: float) -> float:
    a, b, product = original.astype(np.float64), reconstruction.astype(np.float64), 1.0
    for scale, weight in enumerate(MS_SSIM_WEIGHTS):
        whole = _whole_windows(valid)
        if not whole.any():
            return float("nan")
        similarity, contrast = _similarity(_window_moments(a, b), data_range)
        last = scale == len(MS_SSIM_WEIGHTS) - 1
        mean = float((similarity if last else contrast)[whole].mean())
        product *= max(mean, 0.0) ** weight  # a negative mean has no real power; 0 is the customary floor
        a, b = _halve(a), _halve(b)
        valid = np.logical_and.reduce(_quarters(valid), axis=(1, 3))
    return product


def _window_moments(a: F64, b: F64) -> tuple[F64, F64, F64, F64]:
    """Means of both, sum of their variances, and covariance, at every whole window: float64 [h - 10, w - 10] each."""
    mean_a, mean_b = _window_mean(a), _window_mean(b)
    spread = _window_mean(a * a) + _window_mean(b * b) - mean_a**2 - mean_b**2
    return mean_a, mean_b, spread, _window_mean(a * b) - mean_a * mean_b


def _similarity(moments: tuple[F64, F64, F64, F64], data_range: float) -> tuple[F64, F64]:
    """SSIM and its contrast-structure factor of one band at every whole window: two float64 [h - 10, w - 10]."""
    c1, c2 = (SSIM_K1 * data_range) ** 2, (SSIM_K2 * data_range) ** 2
    mean_a, mean_b, spread, covariance = moments
    contrast = (2 * covariance + c2) / (spread + c2)
    luminance = (2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1)
    return luminance * contrast, contrast


def _similarity_sums(a: NDArray, b: NDArray, whole: Mask, ranges: tuple[float, float]) -> tuple[float, float]:
    """SSIM summed over the windows of a band that count, for two ranges; by the kernel where it can."""
    if not library.available or not whole.any() or a.dtype != np.uint16 or b.dtype != np.uint16:
        moments = _window_moments(a.astype(np.float64), b.astype(np.float64))
        first, second = (float(_similarity(moments, extent)[0][whole].sum()) for extent in ranges)
        return first, second
    sums, scratch = np.empty(2), np.empty((2 * SSIM_RADIUS_PX + 2, 5, whole.shape[1]))
    constants = np.square([[SSIM_K1 * extent, SSIM_K2 * extent] for extent in ranges])
    pair = [span(np.ascontiguousarray(side), U16) for side in (a, b)]
    call(
        "similarity", *pair, span(np.ascontiguousarray(whole), BOOL), span(_taps(), library.F64), *a.shape,
        span(constants, library.F64), span(scratch, library.F64), span(sums, library.F64),
    )  # fmt: skip
    return float(sums[0]), float(sums[1])


@cache
def _taps() -> F64:
    """The window along one axis, as scipy's gaussian_filter has it."""
    away = np.arange(-SSIM_RADIUS_PX, SSIM_RADIUS_PX + 1)
    weights = np.exp(-0.5 / SSIM_SIGMA_PX**2 * away**2)
    return np.asarray(weights / weights.sum())


def _window_mean(a: F64) -> F64:
    r = SSIM_RADIUS_PX
    return ndimage.gaussian_filter(a, SSIM_SIGMA_PX, radius=r)[r : a.shape[0] - r, r : a.shape[1] - r]


def _whole_windows(valid: Mask) -> Mask:
    """True at every 11 x 11 window that holds valid pixels only: bool [h - 10, w - 10]."""
    size = 2 * SSIM_RADIUS_PX + 1
    if min(valid.shape) < size:
        return np.zeros((max(valid.shape[0] - size + 1, 0), max(valid.shape[1] - size + 1, 0)), dtype=bool)
    r = SSIM_RADIUS_PX
    return ndimage.minimum_filter(valid, size=size)[r : valid.shape[0] - r, r : valid.shape[1] - r]


def _quarters(a: NDArray) -> NDArray:
    """A view as 2 x 2 blocks [h / 2, 2, w / 2, 2]; an odd last row or column is left out."""
    rows, cols = a.shape[0] // 2, a.shape[1] // 2
    return a[: 2 * rows, : 2 * cols].reshape(rows, 2, cols, 2)


def _halve(a: F64) -> F64:
    return _quarters(a).mean(axis=(1, 3))
