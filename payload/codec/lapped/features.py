"""Levels -> features: coefficients of the bands themselves, and how busy the ground is, on grids of blocks.

Every tile has a rotation of its own, so levels of two tiles do not compare. Undone, coefficient k of a band means the
same everywhere: the transform is nearly orthonormal, so its unit is that of the bands, companded DN. Coefficient 0 is
divided by the gain of its function, so that it is the block's average (weighted, over 16 x 16 px).
"""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from payload.codec.interface import FeatureLevel
from payload.codec.lapped.transform import BLOCK, COEFFICIENTS

#: Zones of a block by the sum of the two frequencies, ends not included. Block averages are a zone of their own.
ZONES = {"low": (1, 3), "middle": (3, 6), "high": (6, 2 * BLOCK)}
#: Activity is told per square of so many blocks: the grid of the second level.
SQUARE = BLOCK
UNIT = "companded DN (1500 / gamma (DN / 1500)^gamma); channel 00 of a band is its average"
ACTIVITY_UNIT = "mean: companded DN; else log2(1 + rms) of companded DN over 8 x 8 blocks"


def of_levels(
    levels: NDArray[np.float32], step_dn: float, inverse: NDArray[np.float32], means: NDArray[np.float32], gain: float,
    bands: tuple[str, ...],
) -> tuple[FeatureLevel, FeatureLevel]:  # fmt: skip
    """Coefficients [B * 64, h, w] and activity [B * 5, h / 8, w / 8] of levels [B * 64, h, w] in steps of `step_dn`.
    `inverse` [B, B] and `means` [B] undo the rotation; `gain`: what the first function makes of a constant 1."""
    cells = levels.shape[-1]
    turned = (inverse * np.float32(step_dn)) @ levels.reshape(len(bands), -1)
    coefficients = turned.astype(np.float32, copy=False).reshape(len(bands), COEFFICIENTS, cells, cells)
    coefficients[:, 0] = coefficients[:, 0] / np.float32(gain) + means[:, None, None]
    names = tuple(f"{band}_{v}{u}" for band in bands for v in range(BLOCK) for u in range(BLOCK))
    busy = ("mean", "averages", *ZONES)
    return (
        FeatureLevel("coefficients", BLOCK, names, UNIT, coefficients.reshape(-1, cells, cells), pooled=False),
        FeatureLevel(
            "activity", BLOCK * SQUARE, tuple(f"{band}_{zone}" for band in bands for zone in busy), ACTIVITY_UNIT,
            _activity(coefficients),
        ),
    )  # fmt: skip


def _activity(coefficients: NDArray[np.float32]) -> NDArray[np.float32]:
    """[B * 5, h / 8, w / 8] of coefficients [B, 64, h, w]."""
    averages = _squares(coefficients[:, 0])
    mean = averages.mean(axis=(3, 4))
    energies = [averages.var(axis=(3, 4))]
    energies += [_squares((coefficients[:, of_zone] ** 2).sum(axis=1)).mean(axis=(3, 4)) for of_zone in _zones()]
    busy = np.log2(1 + np.sqrt(np.stack(energies, axis=1)))
    return np.concatenate([mean[:, None], busy], axis=1).reshape(-1, *mean.shape[1:]).astype(np.float32)


def _squares(plane: NDArray[np.float32]) -> NDArray[np.float32]:
    """[B, h, w] -> [B, h / 8, w / 8, 8, 8]."""
    bands, height, width = plane.shape
    return plane.reshape(bands, height // SQUARE, SQUARE, width // SQUARE, SQUARE).swapaxes(2, 3)


@lru_cache(maxsize=1)
def _zones() -> tuple[NDArray[np.bool_], ...]:
    """Which coefficients [64] lie in each zone."""
    frequency = np.add.outer(np.arange(BLOCK), np.arange(BLOCK)).ravel()
    return tuple((frequency >= first) & (frequency < behind) for first, behind in ZONES.values())
