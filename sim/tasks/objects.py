"""Bright compact objects, ships or floating structures, put on real water with known truth."""

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
