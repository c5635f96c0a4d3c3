"""Fields from pictures alone: watershed of the gradient over all dates, where no parcels were drawn."""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from payload.scene import Dn
from sim.tasks.task import Labels

SMOOTH_PX = 1.0
#: A marker is where the gradient lies below this share of all, or below this part of the strongest, which noise does;
#: markers smaller than so many pixels are none.
QUIET_SHARE, QUIET_PART, LEAST_MARKER_PX = 0.45, 0.03, 12


def boundaries_of(dn: Dn) -> Labels:
    """1 where two instances meet, [H, W], of pictures [dates, B, H, W] of one place."""
    instances = instances_of(dn)
    edge = np.zeros(instances.shape, bool)
    edge[:-1] |= instances[:-1] != instances[1:]
    edge[:, :-1] |= instances[:, :-1] != instances[:, 1:]
    return edge.astype(np.uint8)


def instances_of(dn: Dn) -> NDArray[np.int32]:
    """Numbers from 1, [H, W]."""
    gradient = _gradient(dn)
    quiet, strongest = np.quantile(gradient, (QUIET_SHARE, 0.999))
    markers, _ = ndimage.label(gradient < max(quiet, QUIET_PART * strongest))
    sizes = np.bincount(markers.ravel())
    markers[(sizes < LEAST_MARKER_PX)[markers]] = 0
    scaled = np.clip(gradient / strongest, 0, 1) * 65_535
    found: NDArray[np.int32] = ndimage.watershed_ift(scaled.astype(np.uint16), markers.astype(np.int32))
    return found


def _gradient(dn: Dn) -> NDArray[np.float64]:
    """Root of the squared slopes over all bands and dates, each band by its own deviation, [H, W]."""
    planes = np.sqrt(dn.reshape(-1, *dn.shape[2:]).astype(np.float64))
    planes /= planes.std(axis=(1, 2), keepdims=True) + 1e-9
    return np.sqrt(sum(ndimage.gaussian_gradient_magnitude(plane, SMOOTH_PX) ** 2 for plane in planes))
