"""Left-out tiles with their reference, from the data folder: what `sim evaluate-clouds` measures on.

The reference is Sen2Cor's scene classification (SCL), which is itself a detector and wrong in known ways, so it is read
in four ways, kept apart. `firm` is the one the requirements are held against, and the one the network learns from and
sets its thresholds by: clouds of medium and high confidence (8, 9) against ground (2 to 6), without

    7   unclassified: no statement
    10  thin cirrus, found at 1.38 um, where blue to near infrared often show plain ground
    11  snow: in labelled tiles, none of which lies in snow, it is bright cloud taken for it
    8   within 2 px of ground: the border where Sen2Cor itself has but medium confidence

Clear snow and sand are measured on tiles that are clear by eye instead. `all` takes every class at its word; `visible`
is `firm` with the borders; `sure` takes only what Sen2Cor is confident of.
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from payload.array_files import ArrayFileError, read_arrays
from payload.errors import InputError

TILES, FARMS = Path("train/tiles128.npz"), Path("cloud/worldcereal64.npz")
SNOW_13_BANDS = Path("cloud/l1c_13band_montcalm_20160112.npz")
SITES_13_BANDS = Path("downstream/terramind_multimodal_224.npz")
SCENE, SCENE_REFERENCE = Path("scenes/ebiederstadt_20190522.tif"), Path("cloud/ebiederstadt_20190522_reference.npz")

#: Reading -> classes that are cloud, classes that are known. The first is what the requirements are held against.
READINGS: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {
    "firm": ((8, 9), (2, 3, 4, 5, 6, 8, 9)),
    "all": ((8, 9, 10), (2, 3, 4, 5, 6, 8, 9, 10, 11)),
    "visible": ((8, 9), (2, 3, 4, 5, 6, 8, 9)),
    "sure": ((9,), (3, 4, 5, 6, 9)),
}
FIRM = "firm"
CLOUD_MEDIUM, GROUND, BORDER_PX = 8, (2, 3, 4, 5, 6), 2
#: SCL class -> place in payload.clouds.mask.CLASSES.
SCL_CLASSES = {2: 0, 4: 0, 5: 0, 6: 0, 11: 0, 9: 1, 8: 1, 10: 2, 3: 3}

#: Clear sites by what the gate might take for cloud. Looked at by eye; tiles of `cellula` by their own content.
SNOW = ("terramind_609U_541L", "montcalm")
SAND = ("terramind_282D_485L", "pilbara", "cloudmask_chip_101657")
URBAN = ("amsterdam", "terramind_433D_629L", "leipzig", "semarang")
SNOWY_SOURCES = ("cellula_138", "cellula_259", "cellula_37", "cellula_150")
#: Cloud without a classification; no reference, so no part of any figure.
UNLABELLED = ("cloudmask_chip_100909", "cloudmask_chip_102871", "montcalm_2016-01-12")


@dataclass(frozen=True, eq=False)
class CloudSample:
    """One tile. `scl` None: clear throughout, by eye. `slices`: kinds of clear ground it counts for."""

    name: str
    site: str
    dn: NDArray[np.uint16]  # [4, T, T]
    scl: NDArray[np.uint8] | None  # [T, T]
    gsd_m: int
    slices: tuple[str, ...] = ()
    level: str = "L2A"

    def reference(self, reading: str = FIRM) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """cloud [T, T] and where it is known [T, T]."""
        if self.scl is None:
            return np.zeros(self.dn.shape[1:], bool), np.ones(self.dn.shape[1:], bool)
        cloud, known = (np.isin(self.scl, classes) for classes in READINGS[reading])
        if reading == FIRM:
            border = (self.scl == CLOUD_MEDIUM) & _near(np.isin(self.scl, GROUND), BORDER_PX)
            return cloud, known & ~border
        return cloud, known


def _near(pixels: NDArray[np.bool_], by_px: int) -> NDArray[np.bool_]:
    """Pixels that are set or at most `by_px` rows and columns away from a set one."""
    wide = np.pad(pixels, by_px)
    windows = np.lib.stride_tricks.sliding_window_view(wide, (2 * by_px + 1, 2 * by_px + 1))
    return np.asarray(windows.any(axis=(2, 3)))


def data_folder(where: Path | None = None) -> Path:
    """The folder with the real data: as given, else NADIR_DATA, else `shared/data` next to the checkout."""
    beside = Path(__file__).resolve().parents[3] / "shared" / "data"
    folder = where or Path(os.environ.get("NADIR_DATA", beside))
    if not (folder / TILES).is_file():
        raise InputError(f"{folder}: no {TILES} there; give the folder with the Sentinel-2 tiles by --data")
    return folder


def read_named(path: Path, *names: str) -> list[NDArray[Any]]:
    """Arrays of a file, in this order. InputError where the file or one of them is not there."""
    arrays = _arrays(path, names)
    missing = [name for name in names if name not in arrays]
    if missing:
        raise InputError(f"{path}: no array {missing[0]}, wanted {', '.join(names)}; fetch the data folder again")
    return [arrays[name] for name in names]


def _arrays(path: Path, names: Sequence[str] | None = None) -> dict[str, NDArray[Any]]:
    try:
        return read_arrays(path, names, kinds="iufbSU")
    except ArrayFileError as error:
        raise InputError(f"{path}: not a usable .npz ({error}); fetch it again") from None


def load_samples(folder: Path, sites: set[str]) -> Iterator[CloudSample]:
    """Tiles of the sites, labelled or clear by eye, in the order of the archives."""
    columns = read_named(folder / TILES, "x", "scl", "water", "site", "src", "res_m", "level")
    for i, (dn, scl, water, site, src, gsd_m, level) in enumerate(zip(*columns, strict=True)):
        if site not in sites or site in UNLABELLED or src in UNLABELLED:
            continue
        labelled = bool((scl != 255).any())
        slices = () if labelled else _slices(str(site), str(src), dn, water)
        yield CloudSample(f"{src} {i}", str(site), dn, scl if labelled else None, int(gsd_m), slices, str(level))
    farms = read_named(folder / FARMS, "x", "scl", "site")
    for i, (dn, scl, site) in enumerate(zip(*farms, strict=True)):
        if site in sites:
            yield CloudSample(f"{site} {i}", str(site), dn, scl, 10)


def _slices(site: str, src: str, dn: NDArray[np.uint16], water: NDArray[np.uint8]) -> tuple[str, ...]:
    kinds = ["clear"]
    if site in SNOW or src in SNOWY_SOURCES:
        kinds.append("snow")
    if site in SAND or (site == "cellula" and _bare(dn)):
        kinds.append("sand")
    if site in URBAN:
        kinds.append("urban")
    if (water == 1).mean() > 0.3:
        kinds.append("water")
    return tuple(kinds)


def _bare(dn: NDArray[np.uint16]) -> bool:
    """Bright dry ground: red well above blue, hardly any vegetation."""
    blue, _, red, nir = (np.median(band) for band in dn.astype(np.float64))
    return bool(red > 1500 and red > 1.4 * blue and nir < 1.6 * red)


@dataclass(frozen=True, eq=False)
class ThirteenBands:
    """A top-of-atmosphere tile with every band s2cloudless needs."""

    name: str
    x: NDArray[np.uint16]  # [13, H, W], bands B01 .. B12 with B8A after B08 and B10 before B11
    site: str


def load_thirteen_bands(folder: Path) -> list[ThirteenBands]:
    """The L1C tiles with all 13 bands that are there."""
    found = []
    if (folder / SNOW_13_BANDS).is_file():
        (x,) = read_named(folder / SNOW_13_BANDS, "x")
        found.append(ThirteenBands("montcalm 2016-01-12", x, "montcalm"))
    if (folder / SITES_13_BANDS).is_file():
        names, tiles = read_named(folder / SITES_13_BANDS, "ids", "l1c13")
        found += [
            ThirteenBands(str(i), x, f"terramind_{str(i).rsplit('_', 2)[0]}") for i, x in zip(names, tiles, strict=True)
        ]
    return found


@dataclass(frozen=True, eq=False)
class HumanChip:
    """A picture whose clouds people drew. `shadow` None: nobody drew shadows."""

    name: str
    source: str  # of which file, so of which sensor and which people
    dn: NDArray[np.uint16]  # [4, H, W], reflectance x 10 000
    cloud: NDArray[np.bool_]  # [H, W]
    shadow: NDArray[np.bool_] | None
    gsd_m: float
    level: str


def load_human_chips(folder: Path) -> list[HumanChip]:
    """Every chip of `cloud/*human*.npz`: `x` [N, 4, H, W], `cloud` [N, H, W] and, where people drew them, `shadow`.

    `gsd_m` (10) and `level` (L2A) may stand beside them. Landsat's raw DN are told by the file's name and become
    reflectance at the top of the atmosphere (2e-5 DN - .1, before the sun's angle), pixels of 30 m.
    """
    return [chip for path in sorted((folder / "cloud").glob("*human*.npz")) for chip in _chips_of(path)]


def _chips_of(path: Path) -> Iterator[HumanChip]:
    data = _arrays(path)
    if not {"x", "cloud"} <= set(data):
        raise InputError(f"{path}: holds {', '.join(data)}, wanted x and cloud; see docs/clouds.md")
    x, cloud = data["x"], data["cloud"].astype(bool)
    shadow = data["shadow"].astype(bool) if "shadow" in data else None
    landsat = path.name.startswith("landsat")
    gsd_m = float(data["gsd_m"]) if "gsd_m" in data else 30.0 if landsat else 10.0
    level = str(data["level"]) if "level" in data else "L1C" if landsat else "L2A"
    if x.ndim != 4 or x.shape[1] != 4 or cloud.shape != (len(x), *x.shape[2:]):
        raise InputError(f"{path}: x {x.shape} and cloud {cloud.shape}, wanted [N, 4, H, W] and [N, H, W]")
    for i, dn in enumerate(x):
        seen = np.clip((2e-5 * dn - 0.1) * 10_000.0, 0, 65_535) if landsat else dn
        drawn = None if shadow is None else shadow[i]
        yield HumanChip(f"{path.stem} {i}", path.stem, seen.astype(np.uint16), cloud[i], drawn, gsd_m, level)
