"""Training tiles: the pool, the split by site, and the rotation every tile gets before any network sees it.

The data folder is not part of the repository: `../shared/data` next to the checkout, or NADIR_DATA.
"""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from payload.codec.lapped.power_law import compand
from payload.codec.rotation import fit, rotate
from payload.errors import InputError

#: Sites held out of training, chosen for spread: alps, plains, coast, desert, mangrove, town, clouds.
VALIDATION_SITES = (
    "mscomposer_T32TNT",
    "t33uub",
    "aquileia",
    "pilbara",
    "terramind_433D_629L",
    "sundarbans",
    "cloudmask_chip_102871",
    "semarang",
)


@dataclass(frozen=True, eq=False)
class Pool:
    """Tiles dn uint16 [N, 4, 128, 128], their rotated bands int16 [N, 4, 128, 128] their sites and sources."""

    dn: NDArray[np.uint16]
    rotated: NDArray[np.int32]
    site: NDArray[np.str_]
    gsd_m: NDArray[np.uint16]
    digest: str

    @property
    def validation(self) -> NDArray[np.intp]:
        """Tiles of held-out sites at 20 m or finer."""
        return np.flatnonzero(np.isin(self.site, VALIDATION_SITES) & (self.gsd_m <= 20))

    @property
    def training(self) -> NDArray[np.intp]:
        """Tiles of the other sites; of the coarse montcalm footprint, repeated ten times in the pool, every tenth."""
        thinned = (self.site != "montcalm") | (np.arange(len(self.site)) % 10 == 0)
        return np.flatnonzero(~np.isin(self.site, VALIDATION_SITES) & thinned & (self.gsd_m <= 63))


def data_folder() -> Path:
    """Where the real data lies. InputError if it is not there."""
    folder = Path(os.environ.get("NADIR_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))
    if not folder.is_dir():
        raise InputError(f"no data folder at {folder}; put the Sentinel-2 data there or set NADIR_DATA")
    return folder


def load_pool(gamma: float | None = None) -> Pool:
    """The training pool with every tile companded by `gamma` and rotated; None: `rotated` holds no tiles."""
    path = data_folder() / "train" / "tiles128.npz"
    with np.load(path) as data:
        dn, site, gsd_m = data["x"], data["site"], data["res_m"]
    everywhere = np.ones(dn.shape[2:], bool)
    rotated = np.zeros((0, *dn.shape[1:]), np.int32)
    if gamma is not None:
        companded = compand(dn, gamma)
        rotated = np.stack([rotate(tile, everywhere, fit(tile, everywhere)) for tile in companded])
    return Pool(dn, rotated, site, gsd_m, hashlib.sha256(path.read_bytes()).hexdigest())
