"""The mask that users read: what the network found, outlined as people draw it.

People draw a cloud to where its haze ends, some hundred metres beyond where a network is sure. Haze shows in the blue:
what a pixel's haze-optimised transform, blue - red / 2 (Zhang, Guindon and Cihlar 2002, Remote Sensing of Environment
82, 173-187), exceeds that of the clear ground of its tile. So a pixel is cloud

    where the network is sure of it, or
    near to where it suspects cloud, if the haze exceeds the ground's by HAZE_DN and by its usual scatter,

grown by `growth_m`, but beyond `rim_m` not over what the ground's own network is sure is shadow. Where more than half
of what is seen is ground, the cloud is thin. Shadow is believed only near cloud; of the network that flies on a far
smaller probability than cloud, because a gate that must not err was taught to be shy of it. Integers but for the
networks' probabilities. The thresholds are a convention and no skill: they were chosen once, on two chips whose clouds
people drew, and looked at on a Landsat chip and on clear ground; shadow's by ukis-csmask (docs/clouds.md).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt

from payload.clouds.mask import CLEAR, NO_CLASS, SHADOW, THICK, THIN, CloudMask
from payload.clouds.planes import BLUE, RED
from payload.native import library
from payload.native.library import BOOL, I32, call, span
from payload.scene import Dn, Mask

#: By how many DN haze exceeds the ground's.
HAZE_DN = 205
#: Haze of a cloud that hides half of the ground: the median over clouds drawn with known opacity (export/clouds/drawn).
HALF_HIDDEN_DN = 1100
#: Less clear ground than this share of a tile is nothing to compare with.
LEAST_GROUND = 0.05
#: Shadow that is likelier than everything else.
SURE_SHADOW = 0.5
#: How far from cloud shadow is believed.
SHADOW_REACH_M = 2000


@dataclass(frozen=True)
class Outline:
    """What a network's word is worth: probability from which it suspects cloud, from which it needs no haze to be
    believed, how far haze reaches from what it suspects, its shadow's probability against clear, and how far cloud
    grows over what is surely shadow; None: as far as over anything else."""

    suspected_above: float
    believed_above: float
    reach_m: int
    shadow_above: float
    rim_m: float | None = None


#: The network that flies, taught to be shy as a gate must be; the ground's own.
FLYING, GROUND = Outline(0.3, 0.8, 300, 0.004), Outline(0.65, 0.9, 200, 0.2, 30.0)
#: By how much the ground's own cloud grows.
GROUND_GROWTH_M = 40.0
#: Longest side of a picture that the kernel takes.
MOST_KERNEL_PX = 4096


def classes_as_drawn(mask: CloudMask, gsd_m: float, growth_m: float) -> NDArray[np.uint8]:
    """payload.clouds.mask.CLASSES of every pixel by the network that flies, NO_CLASS without data. [T, T]; gsd_m 0:
    unknown, nothing grows."""
    cells = mask.cells.repeat(mask.cell_px, axis=1).repeat(mask.cell_px, axis=2)
    return _drawn(cells, mask.probability, (mask.dn, mask.valid, gsd_m), FLYING, growth_m)


def ground_classes(told: NDArray[np.float32], dn: Dn, valid: Mask, gsd_m: float) -> NDArray[np.uint8]:
    """The same by the ground's own network: probabilities `told` [4, h, w] of a picture dn [4, h, w]. [h, w]"""
    return _drawn(told, (told[THICK] + told[THIN]) * valid, (dn, valid, gsd_m), GROUND, GROUND_GROWTH_M)


def _drawn(
    told: NDArray[np.float32], cloud: NDArray[np.float32], picture: tuple[Dn | None, Mask, float], by: Outline,
    growth_m: float,
) -> NDArray[np.uint8]:  # fmt: skip
    """Classes of a `picture`: its DN, where it has data, and its pixels in metres. `told`: probabilities [4, h, w];
    `cloud`: that of cloud, 0 without data."""
    dn, valid, gsd_m = picture
    found, haze = _cloud(cloud, dn, valid, gsd_m, by)
    thin = told[THIN] > told[THICK] if haze is None else haze < 2 * (HALF_HIDDEN_DN - HAZE_DN)
    clouds = within(found, growth_m, gsd_m)
    if by.rim_m is not None:
        clouds &= (told[SHADOW] <= SURE_SHADOW) | within(found, by.rim_m, gsd_m)
    shadow = told[SHADOW] > by.shadow_above * (told[SHADOW] + told[CLEAR])
    shadow &= within(clouds, SHADOW_REACH_M, gsd_m)
    ground = np.where(shadow, np.uint8(SHADOW), np.uint8(CLEAR))
    classes = np.where(clouds, np.where(thin, np.uint8(THIN), np.uint8(THICK)), ground)
    return np.where(valid, classes, np.uint8(NO_CLASS))


def _cloud(
    probability: NDArray[np.float32], dn: Dn | None, valid: Mask, gsd_m: float, by: Outline
) -> tuple[Mask, NDArray[np.int32] | None]:
    """Cloud before it is grown, and the haze over the ground. Without ground to compare with, by the network alone."""
    suspected = probability > by.suspected_above
    near = within(suspected, by.reach_m, gsd_m)
    haze = None if dn is None or not suspected.any() else haze_over_ground(dn, valid & ~near)
    if haze is None:
        return suspected, None
    return near & (haze > 0) | (probability > by.believed_above), haze


def haze_over_ground(dn: Dn, ground: Mask) -> NDArray[np.int32] | None:
    """Twice the DN by which a pixel's haze exceeds what the tile's clear ground may have. [B, T, T] -> [T, T]

    That is its median, 1.5 times its median deviation (its standard deviation, were it normal) and HAZE_DN. None where
    too little ground is clear.
    """
    haze = 2 * dn[BLUE].astype(np.int32) - dn[RED]
    clear = haze[ground]
    if clear.size <= LEAST_GROUND * haze.size:
        return None
    median = _median(clear)
    return haze - (median + 3 * _median(np.abs(clear - median)) // 2 + 2 * HAZE_DN)


def _median(values: NDArray[np.int32]) -> int:
    """The lower median: one of the values, so an integer."""
    middle = (values.size - 1) // 2
    return int(np.partition(values, middle)[middle])


def is_cloud(classes: NDArray[np.uint8]) -> Mask:
    """Thick or thin."""
    return np.asarray((classes == THICK) | (classes == THIN))


def within(pixels: Mask, metres: float, gsd_m: float) -> Mask:
    """Pixels at most so many metres from a set one; of an unknown gsd_m (0) the set ones alone. [T, T]"""
    if gsd_m <= 0.0 or metres < gsd_m or not pixels.any():
        return pixels
    if library.available and max(pixels.shape) <= MOST_KERNEL_PX:
        return _near(pixels, min(metres / gsd_m, 2 * MOST_KERNEL_PX))
    return np.asarray(distance_transform_edt(~pixels) <= metres / gsd_m)


def _near(pixels: Mask, radius_px: float) -> Mask:
    (height, width), reach = pixels.shape, int(radius_px)
    away, near = np.empty(height * width + width + 1, np.int32), np.empty(pixels.shape, bool)
    half_widths = np.sqrt(radius_px**2 - np.arange(reach + 1) ** 2).astype(np.int32)
    given = span(np.ascontiguousarray(pixels), BOOL), height, width, span(half_widths, I32), reach
    call("near", *given, span(away, I32), span(near, BOOL))
    return near
