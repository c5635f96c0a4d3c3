"""Truth where nobody drew any: objects put on real water, and fields told apart from pictures alone."""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from payload.scene import Dn, Mask
from sim.tasks.task import Labels

EACH = 12  # objects a picture, where its water has room
SHORT_PX, LONG_PX = (1, 2), (1, 5)
#: Reflectance above the water, in DN, and the same in each band but for a tenth.
BRIGHTER_DN = (600, 4000)
BLUR_PX = 0.5
#: Free water around an object, so that no two are one.
ROOM_PX = 5
SMOOTH_PX = 1.0
#: A marker is where the gradient lies below this share of all, or below this part of the strongest, which noise does;
#: markers smaller than so many pixels are none.
QUIET_SHARE, QUIET_PART, LEAST_MARKER_PX = 0.45, 0.03, 12


def with_objects(dn: Dn, water: Mask, seed: int) -> tuple[Dn, Labels]:
    """Pictures [N, B, H, W] with objects on their water [N, H, W], and where these lie, [N, H, W]. Same seed, same
    objects."""
    rng = np.random.default_rng(seed)
    truth = np.zeros(water.shape, np.uint8)
    added = np.zeros(dn.shape, np.float32)
    for k, mask in enumerate(water):
        room = ndimage.minimum_filter(mask, size=2 * ROOM_PX + 1)
        for _ in range(EACH):
            places = np.argwhere(room)
            if len(places):
                _put(added[k], truth[k], room, places[rng.integers(len(places))], rng)
    blurred = ndimage.gaussian_filter(added, (0, 0, BLUR_PX, BLUR_PX))
    return np.clip(np.rint(dn + blurred), 0, 65_535).astype(np.uint16), truth


def _put(
    added: NDArray[np.float32], truth: Labels, room: Mask, place: NDArray[np.intp], rng: np.random.Generator
) -> None:
    """One object; the water around it is taken."""
    size = rng.integers(SHORT_PX[0], SHORT_PX[1] + 1), rng.integers(LONG_PX[0], LONG_PX[1] + 1)
    tall, wide = size if rng.random() < 0.5 else size[::-1]
    (row, col), brighter_dn = place, rng.uniform(*BRIGHTER_DN)
    spot = (slice(row, row + tall), slice(col, col + wide))
    added[:, *spot] = (brighter_dn * rng.uniform(0.9, 1.1, len(added)))[:, None, None]
    truth[spot] = 1
    reach = ROOM_PX + LONG_PX[1]
    room[max(0, row - reach) : row + reach, max(0, col - reach) : col + reach] = False


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
