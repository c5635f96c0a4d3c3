"""What a decoder knows of a tile before it makes pixels: levels of features, and those of a block transform.

Every tile of such a codec has a rotation of its own, so coefficients of two tiles do not compare. With the rotation
undone, coefficient k of a band means the same everywhere: a nearly orthonormal transform's unit is that of the bands.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

#: Blocks of the transform, in pixels, and coefficients of one.
BLOCK, COEFFICIENTS = 8, 64
#: Zones of a block by the sum of the two frequencies, ends not included. Block averages are a zone of their own.
ZONES = {"low": (1, 3), "middle": (3, 6), "high": (6, 2 * BLOCK)}
#: Activity is told per square of so many blocks: the grid of the second level.
SQUARE = BLOCK
UNIT = "companded DN (1500 / gamma (DN / 1500)^gamma); channel 00 of a band is its average"
ACTIVITY_UNIT = "mean: companded DN; else log2(1 + rms) of companded DN over 8 x 8 blocks"


@dataclass(frozen=True, eq=False)
class FeatureLevel:
    """What a decoder knows of a tile before it makes pixels, on one grid: f32 [C, T / stride, T / stride], cell (i, j)
    over pixels from (i stride, j stride) on. `pooled`: its means and deviations go into the tile's embedding."""

    name: str
    stride_px: int
    channels: tuple[str, ...]
    unit: str
    values: NDArray[np.float32]
    pooled: bool = True


@runtime_checkable
class KnowsFeatures(Protocol):
    """A codec that has features to show. Those that ship with bundles do; yours may."""

    def features(self, indices: Any) -> tuple[FeatureLevel, ...]:
        """What `decode` gave -> features, coarse or fine first as the codec has them; levels that did not arrive are
        not there."""


def of_blocks(coefficients: NDArray[np.float32], bands: tuple[str, ...]) -> tuple[FeatureLevel, FeatureLevel]:
    """Coefficients [B, 64, h, w] of bands, averages first, as they are, and their activity [B * 5, h / 8, w / 8]."""
    cells = coefficients.shape[-1]
    names = tuple(f"{band}_{v}{u}" for band in bands for v in range(BLOCK) for u in range(BLOCK))
    busy = tuple(f"{band}_{zone}" for band in bands for zone in ("mean", "averages", *ZONES))
    flat = coefficients.reshape(-1, cells, cells)
    return (
        FeatureLevel("coefficients", BLOCK, names, UNIT, flat, pooled=False),
        FeatureLevel("activity", BLOCK * SQUARE, busy, ACTIVITY_UNIT, _activity(coefficients)),
    )


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
