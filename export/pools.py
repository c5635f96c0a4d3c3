"""A pool of one's own: pictures of a sensor by site, from an .npz, a Zarr group or a folder of GeoTIFFs.

    pool.npz, pool.zarr    x [N, B, h, w] whole numbers, site [N]; `has` [N, B] where bands are missing
    folder/splits.toml     [sites] with a list of files for each, and held_out = [...]

Pictures are cut into squares. Sites, never squares, are held out: neighbours of a square show the same ground.
"""

import hashlib
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from payload.array_files import ArrayFileError, read_arrays
from payload.errors import InputError
from payload.sensor import Sensor

#: Sides of squares in px: the larger one where every picture has room for it.
SIDES_PX = (128, 64)
#: Every so many-th site is held out where nobody says which.
HELD_OUT_EVERY = 4
MOST_POOL_OCTETS = 2**35
SPLITS = "splits.toml"
WANTED = "wanted x [N, B, h, w] of whole numbers and site [N]; docs/your-own-sensor.md describes a pool"
#: In place of the sites to hold out: all are trained on, and the bundle is judged elsewhere.
NOTHING = "-"
TWO_PLACES = "give pictures of two places or more, by site, or --tables-of a bundle that ships, which needs none"
Pictures = Iterator[tuple[str, NDArray[Any]]]


@dataclass(frozen=True, eq=False)
class SensorPool:
    """Squares dn uint16 [N, B, S, S] of a sensor, and the site of each [N]."""

    dn: NDArray[np.uint16]
    site: NDArray[np.str_]
    held_out_sites: tuple[str, ...]
    digest: str

    @property
    def held_out(self) -> NDArray[np.intp]:
        return np.flatnonzero(np.isin(self.site, self.held_out_sites))

    @property
    def training(self) -> NDArray[np.intp]:
        return np.flatnonzero(~np.isin(self.site, self.held_out_sites))


def read_pool(where: Path, sensor: Sensor, held_out: Sequence[str] = ()) -> SensorPool:
    """A pool as it lies on disk. InputError says what was found, what was wanted, and how to mend it."""
    if not where.exists():
        raise InputError(f"{where}: no such file or folder; give a pool with --tiles")
    named: Sequence[str] = held_out
    if (where / SPLITS).is_file():
        table = _splits(where / SPLITS)
        pictures: Pictures = _of_folder(where, table["sites"])
        named = held_out or table.get("held_out", ())
    elif where.is_dir() and not (where / "zarr.json").is_file() and not (where / ".zgroup").is_file():
        raise InputError(f"{where}: a folder without {SPLITS}, and no Zarr group; name the files of every site in one")
    else:
        pictures = _of_arrays(where, _zarr(where) if where.is_dir() else _npz(where))
    found = [(site, to_dn(picture, sensor, where)) for site, picture in pictures]
    if not found:
        raise InputError(f"{where}: no picture that has all {len(sensor.bands)} bands; {WANTED}")
    dn, site = squares(found, where)
    return SensorPool(dn, site, _held_out(where, site, named), hashlib.sha256(dn.tobytes()).hexdigest())


def to_dn(picture: NDArray[Any], sensor: Sensor, where: Path) -> NDArray[np.uint16]:
    """Counts of a sensor [B, h, w] -> DN: signed ones are moved up by half of their range, in whole numbers."""
    wanted = f"wanted {len(sensor.bands)} bands of whole numbers from {sensor.lowest} to {sensor.lowest + 65535}"
    if picture.ndim != 3 or len(picture) != len(sensor.bands) or picture.dtype.kind not in "iu":
        raise InputError(f"{where}: a picture is {picture.dtype} {list(picture.shape)}, {wanted}; mend pool or sensor")
    dn = picture.astype(np.int64) - sensor.lowest
    if dn.min() < 0 or dn.max() > 65535:
        found = f"{int(picture.min())} to {int(picture.max())}"
        raise InputError(f"{where}: samples from {found}, {wanted}; set `signed` and `bits` of the sensor")
    return dn.astype(np.uint16)


def _of_arrays(where: Path, arrays: Mapping[str, NDArray[Any]]) -> Pictures:
    x, site = arrays.get("x"), arrays.get("site")
    if x is None or site is None or x.ndim != 4 or site.shape != (len(x),):
        held = ", ".join(f"{name} {list(array.shape)}" for name, array in arrays.items())
        raise InputError(f"{where}: holds {held or 'nothing'}; {WANTED}")
    whole = arrays["has"].all(axis=1) if "has" in arrays else np.ones(len(x), bool)
    yield from ((str(site[k]), x[k]) for k in np.flatnonzero(whole))


def _npz(path: Path) -> Mapping[str, NDArray[Any]]:
    try:
        return read_arrays(path, kinds="iufbSU", most_octets=MOST_POOL_OCTETS)
    except ArrayFileError as error:
        raise InputError(f"{path}: not readable as an .npz of plain arrays ({error}); {WANTED}") from None


def _zarr(folder: Path) -> Mapping[str, NDArray[Any]]:
    import zarr

    group = zarr.open_group(str(folder), mode="r")
    found = {name: np.asarray(group[name][...]) for name in ("x", "site", "has") if name in group}  # type: ignore[index]
    return {name: array.astype(str) if name == "site" else array for name, array in found.items()}


def _splits(path: Path) -> dict[str, Any]:
    wanted = 'wanted [sites] with a list of files each, as in sites.alps = ["a.tif"], and held_out = ["alps"]'
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: not readable as TOML ({error}); {wanted}") from None
    sites = table.get("sites")
    if not isinstance(sites, dict) or not sites or not all(isinstance(files, list) for files in sites.values()):
        raise InputError(f"{path}: sites is {str(sites)[:60]!r}; {wanted}")
    return table


def _of_folder(folder: Path, sites: Mapping[str, Sequence[str]]) -> Pictures:
    import rasterio
    from rasterio.errors import RasterioError

    for site, files in sites.items():
        for name in files:
            try:
                with rasterio.open(folder / name) as raster:
                    yield site, raster.read()
            except RasterioError as error:
                raise InputError(f"{folder / name}: not readable ({error}); mend {folder / SPLITS}") from None


def squares(
    pictures: Sequence[tuple[str, NDArray[Any]]], where: Path, largest: int = SIDES_PX[0]
) -> tuple[NDArray[Any], NDArray[np.str_]]:
    """Squares [N, B, S, S] that cover every picture, its last row and column moved in so that they fit; their sites."""
    least = min(min(picture.shape[1:]) for _, picture in pictures)
    side = next((side for side in SIDES_PX if side <= min(least, largest)), None)
    if side is None:
        raise InputError(f"{where}: a picture of {least} px, wanted {SIDES_PX[-1]} px or more a side; leave it out")
    cut, sites = [], []
    for site, picture in pictures:
        for top in _places(picture.shape[1], side):
            for left in _places(picture.shape[2], side):
                cut.append(picture[:, top : top + side, left : left + side])
                sites.append(site)
    return np.stack(cut), np.array(sites)


def _places(length: int, side: int) -> list[int]:
    count = -(-length // side) if length % side > side // 2 or length < side else length // side
    return [round(k * (length - side) / max(1, count - 1)) for k in range(count)]


def _held_out(where: Path, site: NDArray[np.str_], named: Sequence[str]) -> tuple[str, ...]:
    sites = sorted(set(site.tolist()))
    if tuple(named) == (NOTHING,):
        return ()
    unknown = [name for name in named if name not in sites]
    if unknown:
        raise InputError(f"{where}: no site {', '.join(unknown)} to hold out; there are {', '.join(sites)}")
    chosen = tuple(named) or tuple(sites[HELD_OUT_EVERY - 1 :: HELD_OUT_EVERY]) or tuple(sites[-1:])
    if len(chosen) == len(sites):
        raise InputError(f"{where}: {len(sites)} site, all held out; {TWO_PLACES}")
    return chosen
