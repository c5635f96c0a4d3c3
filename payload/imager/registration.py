"""Bands that lie some pixels from each other -> registered to the first, by whole pixels, before tiles are cut.

The shift of a band is where the phase correlation (Kuglin and Hines 1975) of its gradients' magnitude with the first
band's peaks. Gradients, because a field that is bright in the near infrared is dark in red. Spectra of a few windows
are summed; a peak that does not stand out is no shift. The shifts go down in the scene header (docs/format.md).
"""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from payload.scene import Dn, Mask, Scene, SceneInfo

Shifts = tuple[tuple[int, int], ...]  # of each band: rows, columns
WINDOW_PX = 256
#: Shifts are looked for up to here. Published medians of PhiSat-2 reach 2.2 px.
REACH_PX = 8
#: A peak counts from so many standard deviations of the correlation on; noise alone reaches 4.
LEAST_PEAK = 8.0
#: Frequencies above this, in cycles a pixel, are noise and aliases.
HIGHEST_FREQUENCY = 0.35


class MovedBands:
    """A scene whose bands are read from beside the place that is asked for. Samples of the edge are repeated."""

    def __init__(self, scene: Scene, shifts: Shifts, info: SceneInfo) -> None:
        self._moved, self._shifts, self.info = scene, shifts, info
        self._reach = max(abs(by) for shift in shifts for by in shift)

    def read(self, row_px: int, col_px: int, height_px: int, width_px: int) -> tuple[Dn, Mask]:
        """dn uint16 [B, h, w]; valid bool [h, w] where every band is."""
        reach = self._reach
        rows = np.clip(np.arange(row_px - reach, row_px + height_px + reach), 0, self.info.height_px - 1)
        cols = np.clip(np.arange(col_px - reach, col_px + width_px + reach), 0, self.info.width_px - 1)
        dn, valid = self._moved.read(int(rows[0]), int(cols[0]), int(np.ptp(rows)) + 1, int(np.ptp(cols)) + 1)
        places = [
            np.ix_(rows[reach + y :][:height_px] - rows[0], cols[reach + x :][:width_px] - cols[0])
            for y, x in self._shifts
        ]
        planes = [plane[place] for plane, place in zip(dn, places, strict=True)]
        return np.stack(planes), np.logical_and.reduce([valid[place] for place in places])


def registered(scene: Scene) -> tuple[Shifts, SceneInfo]:
    """Where each band is to be read from, and the scene's description with it; no shifts where none is seen."""
    found = band_shifts(scene)
    if not any(any(shift) for shift in found):
        return (), scene.info
    said = ", ".join(f"{name} {y:+d} {x:+d}" for name, (y, x) in zip(scene.info.bands, found, strict=True) if y or x)
    note = f"bands registered on board, read from so many rows and columns away: {said}"
    return found, replace(scene.info, band_shifts=found, notes=(*scene.info.notes, note))


def band_shifts(scene: Scene) -> Shifts:
    """Rows and columns from which each band is to be read so that it lies on the first."""
    info = scene.info
    side = min(WINDOW_PX, info.height_px, info.width_px)
    cross = np.zeros((len(info.bands), side, side // 2 + 1), np.complex128)
    for top, left in _corners(info.height_px - side, info.width_px - side):
        dn, valid = scene.read(top, left, side, side)
        if valid.mean() >= 0.9:
            cross += _cross_spectra(dn)
    return tuple(_peak(spectrum, side) for spectrum in cross)


def _corners(rows: int, cols: int) -> list[tuple[int, int]]:
    """The middle, and a place in each quarter."""
    return [(rows // 2, cols // 2), *((rows * y // 8, cols * x // 8) for y in (1, 7) for x in (1, 7))]


def _cross_spectra(dn: Dn) -> NDArray[np.complex128]:
    """Phases of each band against the first, [B, h, w / 2 + 1]."""
    planes = dn.astype(np.float64)
    edges = np.hypot(np.gradient(planes, axis=1), np.gradient(planes, axis=2))
    taper = np.hanning(dn.shape[1])
    spectra = np.fft.rfft2((edges - edges.mean(axis=(1, 2), keepdims=True)) * np.outer(taper, taper))
    cross: NDArray[np.complex128] = spectra * np.conj(spectra[0])
    return cross / np.maximum(np.abs(cross), 1e-9)


def _peak(spectrum: NDArray[np.complex128], side: int) -> tuple[int, int]:
    """Rows and columns of the correlation's peak within REACH_PX; none where it does not stand out."""
    frequency = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side))
    plane = np.fft.irfft2(spectrum * (frequency < HIGHEST_FREQUENCY), s=(side, side))
    near = np.roll(plane, (REACH_PX, REACH_PX), (0, 1))[: 2 * REACH_PX + 1, : 2 * REACH_PX + 1]
    row, col = np.unravel_index(int(np.argmax(near)), near.shape)
    if near[row, col] < LEAST_PEAK * plane.std() or not plane.any():
        return 0, 0
    return int(row) - REACH_PX, int(col) - REACH_PX
