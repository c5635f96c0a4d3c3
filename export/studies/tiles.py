"""Tiles of the training pool as the studies see them: rotated as the payload does, held-out ones with what undoes that.

Four held-out tiles of one site, each transformed alone, are coded as one tile of 256 px: so layers' heads weigh what
they weigh on the link.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from export.data import Pool, load_pool
from payload.codec.band_statistics import DISTANCE_PX
from payload.codec.lapped.power_law import compand
from payload.codec.rotation import Rotation, fit, rotate

#: Tiles of 128 px in a mosaic, two by two.
FOUR = 4


@dataclass(frozen=True, eq=False)
class Held:
    """One mosaic: dn uint16 [4, B, 128, 128], the same rotated f32, and the rotation of each."""

    site: str
    dn: NDArray[np.uint16]
    rotated: Tensor
    rotations: tuple[Rotation, ...]


def training_tiles(recipe: dict[str, object]) -> tuple[Tensor, tuple[Held, ...]]:
    """Rotated training tiles [N, B, 128, 128] int16, and the mosaics of held-out sites."""
    gamma = float(str(recipe["compand"]))
    pool = load_pool(list(recipe["bands"]))  # type: ignore[call-overload]
    train = np.stack([_rotated(pool.dn[i], gamma)[0] for i in pool.training])
    return torch.from_numpy(train), tuple(_mosaics(pool, gamma))


def _mosaics(pool: Pool, gamma: float) -> list[Held]:
    found = []
    for site in np.unique(pool.site[pool.validation]):
        of_site = pool.validation[pool.site[pool.validation] == site]
        for four in of_site[: len(of_site) // FOUR * FOUR].reshape(-1, FOUR):
            rotated, rotations = zip(*(_rotated(pool.dn[i], gamma) for i in four), strict=True)
            found.append(Held(str(site), pool.dn[four], torch.from_numpy(np.stack(rotated)).float(), rotations))
    return found


def _rotated(dn: NDArray[np.uint16], gamma: float) -> tuple[NDArray[np.int16], Rotation]:
    values, everywhere = compand(dn, gamma), np.ones(dn.shape[1:], bool)
    rotation = fit(values, everywhere, distance_px=DISTANCE_PX)
    return rotate(values, everywhere, rotation).astype(np.int16), rotation


def side_by_side(coefficients: Tensor) -> Tensor:
    """Coefficients of four tiles [4, B, C, h, w] as those of one, [B, C, 2h, 2w]."""
    (a, b, c, d) = coefficients
    return torch.cat([torch.cat([a, b], 3), torch.cat([c, d], 3)], 2)


def apart(coefficients: Tensor) -> Tensor:
    """Inverse of `side_by_side`."""
    h, w = (side // 2 for side in coefficients.shape[2:])
    rows = coefficients[:, :, :h], coefficients[:, :, h:]
    return torch.stack([part for row in rows for part in (row[..., :w], row[..., w:])])
