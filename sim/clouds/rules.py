"""Published cloud rules on blue, green, red and near infrared: the opponents of the network, and the audit's judge.

Fixed formulas on reflectance, no training, no context. Input dn uint16 [4, ...] in payload.sensor.RGBN's order with
DN = reflectance x 10 000; output bool [...].
"""

import numpy as np
from numpy.typing import NDArray

from payload.scene import Dn, Mask

BLUE, GREEN, RED, NIR = range(4)


def braaten_cohen_yang(dn: Dn) -> Mask:
    """Braaten, Cohen and Yang 2015 (Remote Sensing of Environment 169, 128-138), the cloud core test for green and red.

    Made for Landsat MSS; the thresholds are those of the Sentinel-2 adaptation in wide use: green as a ratio between
    .175 and .39, cloud above it, or within it where green exceeds red.
    """
    green, red = _reflectance(dn[GREEN]), _reflectance(dn[RED])
    ratio = (green - 0.175) / (0.39 - 0.175)
    greenness = green - red  # the sign of the normalised difference
    return np.asarray((ratio > 1.0) | ((ratio > 0.0) & (greenness > 0.0)))


def hot_whiteness(dn: Dn) -> Mask:
    """Fmask's visible tests: Zhu and Woodcock 2012 (Remote Sensing of Environment 118, 83-94), equations 2 and 3.

    Haze-optimised: blue - red / 2 - .08 > 0. White: sum |band - mean| / mean < .7 over the visible bands. The tests
    that need short-wave infrared or temperature are left out.
    """
    visible = np.stack([_reflectance(dn[band]) for band in (BLUE, GREEN, RED)])
    mean = np.maximum(visible.mean(axis=0), 1e-6)
    white = (np.abs(visible - mean).sum(axis=0) / mean) < 0.7
    haze = visible[BLUE] - 0.5 * visible[RED] - 0.08 > 0.0
    return np.asarray(white & haze)


def _reflectance(dn: NDArray[np.uint16]) -> NDArray[np.float32]:
    return dn.astype(np.float32) / np.float32(10000.0)
