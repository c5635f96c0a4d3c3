"""Tiles with what is known of them, for choosing thresholds: Sen2Cor's classification, tiles clear by eye, human chips.

The classification is a detector and not the truth, so one reading of it is used to choose and to measure (`firm`;
sim.clouds.samples says why).
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from export.clouds.windows import NO_SCL, UNLABELLED
from export.data import data_folder, pool_file, read_named

Bool = NDArray[np.bool_]

CLOUD_MEDIUM, CLEAR_CLASSES, CLOUD_CLASSES = 8, (2, 3, 4, 5, 6), (8, 9)
#: Medium-confidence cloud this near to clear ground is no reference.
BORDER_PX = 2


@dataclass(frozen=True, eq=False)
class ReferenceTile:
    """`labelled`: known from a classification, not by eye."""

    dn: NDArray[np.uint16]  # [4, T, T]
    cloud: Bool  # [T, T]
    known: Bool  # [T, T]
    site: str
    labelled: bool


def load_reference_tiles() -> Iterator[ReferenceTile]:
    """Every tile of the pool and of the farms of which anything is known."""
    pool = read_named(pool_file(), "x", "scl", "site", "src")
    for dn, scl, site, src in zip(*pool, strict=True):
        if (scl != NO_SCL).any():
            yield ReferenceTile(dn, *firm(scl), str(site), labelled=True)
        elif site not in UNLABELLED and src not in UNLABELLED:
            yield ReferenceTile(dn, np.zeros(scl.shape, bool), np.ones(scl.shape, bool), str(site), labelled=False)
    farms = read_named(data_folder() / "cloud" / "worldcereal64.npz", "x", "scl", "site")
    for dn, scl, site in zip(*farms, strict=True):
        yield ReferenceTile(dn, *firm(scl), str(site), labelled=True)


def load_human_chips() -> tuple[NDArray[np.uint16], Bool]:
    """The chips whose clouds people drew: dn [N, 4, 512, 512] at 10 m, cloud [N, 512, 512]. Never trained on."""
    dn, cloud = read_named(data_folder() / "cloud" / "human_cloud_512.npz", "x", "cloud")
    return dn, cloud.astype(bool)


def firm(scl: NDArray[np.uint8]) -> tuple[Bool, Bool]:
    """The reading of a classification [T, T]: which pixels are cloud, and of which that is known."""
    cloud, clear = np.isin(scl, CLOUD_CLASSES), np.isin(scl, CLEAR_CLASSES)
    border = (scl == CLOUD_MEDIUM) & _near(clear, BORDER_PX)
    return cloud, (cloud | clear) & ~border


def _near(pixels: Bool, by_px: int) -> Bool:
    """Pixels that are set or at most `by_px` rows and columns away from a set one."""
    wide = np.pad(pixels, by_px)
    height, width = pixels.shape
    rows = np.logical_or.reduce([wide[i : i + height] for i in range(2 * by_px + 1)])
    return np.asarray(np.logical_or.reduce([rows[:, i : i + width] for i in range(2 * by_px + 1)]))
