"""Training tiles: the pool, the split by site, and the rotation every tile gets before any network sees it.

The data folder is not part of the repository: `../shared/data` next to the checkout, or NADIR_DATA. A pool of one's own
is a .npz of the same arrays (docs/export.md lists them).
"""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from payload.array_files import ArrayFileError, read_arrays
from payload.codec.lapped.power_law import compand
from payload.codec.rotation import fit, rotate
from payload.errors import InputError
from payload.sensor import RGBN

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
#: Pixels coarser than this are neither trained on nor measured on.
COARSEST_TRAINING_M, COARSEST_VALIDATION_M = 63, 20
#: What a pool without an array `bands` is taken to hold.
USUAL_BANDS = RGBN
#: All arrays of a pool, unpacked: what a large workstation holds.
MOST_POOL_OCTETS = 2**35
WANTED = "wanted an .npz with x uint16 [N, bands, size, size]; docs/export.md lists its arrays"


@dataclass(frozen=True, eq=False)
class Pool:
    """Tiles dn uint16 [N, B, 128, 128], their rotated bands int32 [N, B, 128, 128], site and pixel size of each."""

    dn: NDArray[np.uint16]
    rotated: NDArray[np.int32]
    site: NDArray[np.str_]
    gsd_m: NDArray[np.uint16]
    digest: str

    @property
    def validation(self) -> NDArray[np.intp]:
        """Tiles of held-out sites, of fine pixels."""
        return np.flatnonzero(np.isin(self.site, VALIDATION_SITES) & (self.gsd_m <= COARSEST_VALIDATION_M))

    @property
    def training(self) -> NDArray[np.intp]:
        """Tiles of the other sites; of the coarse montcalm footprint, repeated ten times in the pool, every tenth."""
        return self.everywhere[~np.isin(self.site[self.everywhere], VALIDATION_SITES)]

    @property
    def everywhere(self) -> NDArray[np.intp]:
        """Training tiles, and those of the held-out sites: for what is not judged by them."""
        thinned = (self.site != "montcalm") | (np.arange(len(self.site)) % 10 == 0)
        return np.flatnonzero(thinned & (self.gsd_m <= COARSEST_TRAINING_M))

    @property
    def finest_m(self) -> int:
        """Pixel size of the finest training tiles."""
        return int(self.gsd_m[self.training].min())


@dataclass(frozen=True, eq=False)
class Tiles:
    """What every pool holds: dn uint16 [N, B, size, size], its bands, the sha256 of its file; and all of its arrays."""

    dn: NDArray[np.uint16]
    bands: tuple[str, ...]
    digest: str
    arrays: dict[str, NDArray[Any]]


def data_folder() -> Path:
    """Where the real data lies. InputError if it is not there."""
    folder = Path(os.environ.get("NADIR_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))
    if not folder.is_dir():
        raise InputError(f"no data folder at {folder}; put the Sentinel-2 data there or set NADIR_DATA")
    return folder


def pool_file(path: Path | None = None) -> Path:
    """The pool given, or the training pool of the data folder."""
    return path or data_folder() / "train" / "tiles128.npz"


def read_tiles(path: Path) -> Tiles:
    """A pool as it lies on disk. InputError that says what was found and what was wanted."""
    if not path.is_file():
        raise InputError(f"{path}: no pool of tiles there; give one with --pool FILE.npz, or set NADIR_DATA")
    arrays = _arrays(path, "a pool of tiles", WANTED)
    dn = arrays.get("x")
    if dn is None:
        raise InputError(f"{path}: holds {', '.join(arrays) or 'nothing'} and no x; {WANTED}")
    if dn.dtype.kind == "f" and not np.isfinite(dn).all():
        raise InputError(f"{path}: x is {dn.dtype} with NaN or infinite samples; leave those tiles out, then {WANTED}")
    if dn.ndim != 4 or dn.dtype != np.uint16 or dn.shape[2] != dn.shape[3] or not len(dn):
        raise InputError(f"{path}: x is {dn.dtype} {dn.shape}; {WANTED}")
    bands = tuple(str(band) for band in arrays["bands"]) if "bands" in arrays else USUAL_BANDS
    if len(bands) != dn.shape[1]:
        raise InputError(f"{path}: x holds {dn.shape[1]} bands, named {', '.join(bands)}; name every band in `bands`")
    return Tiles(dn, bands, hashlib.sha256(path.read_bytes()).hexdigest(), arrays)


def read_all(path: Path) -> dict[str, NDArray[Any]]:
    """Every array of a file that the workshop wrote. InputError where it is not whole."""
    return _arrays(path, "what was written", "wanted an .npz of arrays; make it again")


def read_named(path: Path, *names: str) -> list[NDArray[Any]]:
    """Arrays of a file of the data folder, in this order. InputError where the file or one of them is not there."""
    wanted = f"wanted an .npz with {', '.join(names)}; fetch the data folder again"
    arrays = _arrays(path, "a file of the data folder", wanted, names)
    missing = [name for name in names if name not in arrays]
    if missing:
        raise InputError(f"{path}: no array {missing[0]}; {wanted}")
    return [arrays[name] for name in names]


def _arrays(path: Path, what: str, wanted: str, names: Sequence[str] | None = None) -> dict[str, NDArray[Any]]:
    try:
        return read_arrays(path, names, kinds="iufbSU", most_octets=MOST_POOL_OCTETS)
    except ArrayFileError as error:
        why = "it holds Python objects, not numbers" if str(error).startswith("object ") else str(error)
        raise InputError(f"{path}: not {what} ({why}); {wanted}") from None


def load_pool(bands: Sequence[str], gamma: float | None = None, path: Path | None = None) -> Pool:
    """The training pool with every tile companded by `gamma` and rotated; None: `rotated` holds no tiles.

    `bands`: of the recipe, which must be the pool's. InputError where nothing could be trained or measured.
    """
    path = pool_file(path)
    tiles = read_tiles(path)
    _check_bands(path, tiles.bands, bands)
    count = len(tiles.dn)
    site, gsd_m = (_per_tile(path, tiles, key, kind) for key, kind in (("site", "U"), ("res_m", "iu")))
    rotated = np.zeros((0, *tiles.dn.shape[1:]), np.int32)
    pool = Pool(tiles.dn, rotated, site, gsd_m, tiles.digest)
    _check_split(path, pool)
    if gamma is None:
        return pool
    everywhere = np.ones(tiles.dn.shape[2:], bool)
    companded = compand(tiles.dn, gamma)
    rotated = np.stack([rotate(companded[k], everywhere, fit(companded[k], everywhere)) for k in range(count)])
    return Pool(tiles.dn, rotated, site, gsd_m, tiles.digest)


def _check_bands(path: Path, held: Sequence[str], wanted: Sequence[str]) -> None:
    if list(held) != list(wanted):
        raise InputError(
            f"{path}: the pool holds {', '.join(held)}, the recipe wants {', '.join(wanted)}; "
            "give a pool of the recipe's bands with --pool, or set `bands` in the recipe"
        )


def _per_tile(path: Path, tiles: Tiles, key: str, kind: str) -> NDArray[Any]:
    """One value a tile. `kind`: numpy's letters of the dtypes that will do."""
    values = tiles.arrays.get(key)
    if values is None or values.shape != (len(tiles.dn),) or values.dtype.kind not in kind:
        found = "missing" if values is None else f"{values.dtype} {values.shape}"
        what = {"site": "the name of its place (the unit of the split)", "res_m": "its pixel size in whole metres"}[key]
        raise InputError(f"{path}: {key} is {found}; wanted for each of the {len(tiles.dn)} tiles {what}")
    return values


def _check_split(path: Path, pool: Pool) -> None:
    if not len(pool.training):
        raise InputError(
            f"{path}: no tile to train on: every one is of a held-out site or coarser than {COARSEST_TRAINING_M} m"
        )
    if not len(pool.validation):
        raise InputError(
            f"{path}: no tile to measure on: none of the held-out sites has pixels of {COARSEST_VALIDATION_M} m or "
            f"finer; give some tiles, of places that no other tile shows, one of these sites: "
            f"{', '.join(VALIDATION_SITES)}"
        )
