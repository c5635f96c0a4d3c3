"""The tasks on real data: water, land cover twice, clouds, objects on water, parcels, super-resolution.

`data` is a folder with the arrays that docs/tasks.md names. Every split is by place: what is judged lies apart from
what is learnt from.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from payload.array_files import ArrayFileError, read_arrays
from payload.errors import InputError
from payload.scene import Dn, Mask
from sim.tasks import scores
from sim.tasks.task import IGNORED, Labels, Task
from sim.tasks.truth import boundaries_of, with_objects

TILES, WORLDCEREAL = "train/tiles128.npz", "cloud/worldcereal64.npz"
TERRAMIND, SUNDARBANS = "downstream/terramind_multimodal_224.npz", "downstream/sundarbans_seg.npz"
FIELDS = "downstream/fields_two_dates_379x578.npz"
#: Blocks that the flood chips are cut into, in the order of their names; every so many is judged.
WATER_BLOCKS, JUDGED_EVERY = 10, 3
#: Classes of Sen2Cor's scene classification.
CLOUD, CLEAR = (8, 9, 10), (4, 5, 6, 7)
#: Share of an unlabelled strip between what is learnt from and what is judged, in px.
GAP_PX = 16
#: The class of the Sundarbans' map that is no class: there are no data.
NO_DATA = 2
#: Side of the square by whose majority that map is generalised.
UNIT_PX = 5
#: How far a picture is coarsened for super-resolution.
COARSER = 4
RGBN_OF_12 = (1, 2, 3, 7)


def load_task(name: str, data: Path) -> Task:
    """A task by name. InputError where there is none of that name, or its file is not there."""
    if name not in TASKS:
        raise InputError(f"task {name[:40]!r} is unknown, wanted some of {', '.join(TASKS)}")
    return TASKS[name](data)


def water(data: Path) -> Task:
    """Floods, rivers and coasts: masks of the source, split by blocks of neighbouring chips."""
    dn, labels = _cellula(data)
    learn, judge = _by_blocks(labels)
    return Task("water", "Water", dn, learn, judge, ("land", "water"), "f1", scores.binary,
                f"{len(dn)} chips of 128 px; {WATER_BLOCKS} blocks of neighbours, every third judged, the chips "
                "at their borders left out. The masks are the source's, not exact: no input comes near 1.")  # fmt: skip


def super_resolution(data: Path) -> Task:
    """Water at 10 m from pictures of 40 m: 4 x finer labels than pixels."""
    dn, labels = _cellula(data)
    learn, judge = _by_blocks(labels)
    coarse = _coarsened(dn)
    return Task("super-resolution", "Water at 4 x the resolution", coarse, learn, judge, ("land", "water"), "f1",
                scores.binary, "The chips of `water` averaged to 40 m and coded so; labels and pictures judged at 10 "
                "m, as 2.5 m would be from 10 m.", COARSER, dn)  # fmt: skip


def land_cover(data: Path) -> Task:
    """TerraMind's land use and land cover of four places."""
    arrays = _read(data / TERRAMIND, ("l2a12", "lulc"))
    dn, labels = arrays["l2a12"][:, RGBN_OF_12].astype(np.uint16), arrays["lulc"][:, 0].astype(np.uint8)
    present = np.unique(labels)
    labels = np.searchsorted(present, labels).astype(np.uint8)
    learn, judge = _by_columns(labels, 0.65)
    return Task("land-cover", "Land cover", dn, learn, judge, tuple(f"class {k}" for k in present), "miou",
                scores.classes, "4 places of 224 px (TerraMind's examples): the left of each is learnt from, the right "
                "judged. Small, and its labels are a global map's.")  # fmt: skip


def mangrove(data: Path) -> Task:
    """The Sundarbans' map of five classes."""
    dn, labels, names = _sundarbans(data)
    learn, judge = _by_rows(labels)
    return Task("mangrove", "Mangrove and water classes", dn, learn, judge, names, "miou", scores.classes,
                f"One scene of 954 x 298 px (Sundarbans, some 18.5 m) in {WATER_BLOCKS} strips, every third judged. "
                "The map is no truth on the ground: it is six clusters of the spectra themselves, pixel by pixel "
                "(k-means of the twelve standardised bands gives 99.7 % of it), one of them where there are no data, "
                "which nobody judges.", valid=_with_data(dn))  # fmt: skip


def mangrove_units(data: Path) -> Task:
    """The same map, generalised as maps of cover are: no patch smaller than a mapping unit."""
    dn, labels, names = _sundarbans(data)
    learn, judge = _by_rows(_generalised(labels, len(names)))
    return Task("mangrove-units", "Mangrove and water classes, generalised", dn, learn, judge, names, "miou",
                scores.classes, f"The map of `mangrove` with the commonest class of {UNIT_PX} x {UNIT_PX} px in each "
                "pixel: what is left when single pixels do not decide.", valid=_with_data(dn))  # fmt: skip


def cloud(data: Path) -> Task:
    """Clouds over two farms, by Sen2Cor's classes; one is learnt from, the other judged."""
    arrays = _read(data / WORLDCEREAL, ("x", "scl", "site"))
    scl, site = arrays["scl"], arrays["site"]
    labels = np.where(np.isin(scl, CLOUD), 1, np.where(np.isin(scl, CLEAR), 0, IGNORED)).astype(np.uint8)
    here = (site == np.unique(site)[0])[:, None, None]
    return Task("cloud", "Cloud", arrays["x"], np.where(here, labels, IGNORED).astype(np.uint8),
                np.where(here, IGNORED, labels).astype(np.uint8), ("clear", "cloud"), "f1", scores.binary,
                f"{len(scl)} pictures of 64 px of two farms, one learnt from, one judged; Sen2Cor's classes are a "
                "reference, not ground truth.")  # fmt: skip


def objects(data: Path) -> Task:
    """Bright compact objects put on real water."""
    dn, labels = _cellula(data)
    wet = np.flatnonzero((labels == 1).mean(axis=(1, 2)) > 0.35)
    pictures, truth = with_objects(dn[wet], labels[wet] == 1, seed=7)
    learn, judge = _by_blocks(truth)
    return Task("objects", "Compact objects on water", pictures, learn, judge, ("none", "object"), "object_f1",
                scores.objects, "Rectangles of 1 to 5 px, 0.06 to 0.4 brighter, blurred, composited with known truth "
                f"on the water of {len(wet)} real chips: no real ship is among them. By object.")  # fmt: skip


def parcels(data: Path) -> Task:
    """Field boundaries of one site in two seasons."""
    arrays = _read(data / FIELDS, ("x",))
    height, width = (size // 8 * 8 for size in arrays["x"].shape[2:])
    dn = arrays["x"][:, [2, 1, 0, 3], :height, :width]
    labels = np.stack([boundaries_of(dn)] * len(dn))
    learn, judge = _by_columns(labels, 0.6)
    return Task("parcels", "Parcel boundaries", dn, learn, judge, ("inside", "boundary"), "boundary_f1",
                scores.boundaries, "Fields on the Danube in two seasons. No labels are at hand: instances are derived "
                "at full resolution from the originals of both seasons (watershed of their gradient), so this "
                "measures what is kept of them. Within 2 px; the west is learnt from, the east judged.")  # fmt: skip


TASKS: Mapping[str, Callable[[Path], Task]] = {
    "water": water, "mangrove": mangrove, "mangrove-units": mangrove_units, "land-cover": land_cover, "cloud": cloud,
    "super-resolution": super_resolution, "parcels": parcels, "objects": objects,
}  # fmt: skip


def _cellula(data: Path) -> tuple[Dn, Labels]:
    arrays = _read(data / TILES, ("x", "water", "site"))
    chosen = arrays["site"] == "cellula"
    return arrays["x"][chosen], arrays["water"][chosen]


def _sundarbans(data: Path) -> tuple[Dn, Labels, tuple[str, ...]]:
    """Pictures, labels without `NO_DATA`, and what the classes are called."""
    arrays = _read(data / SUNDARBANS, ("x", "gt"))
    height, width = (size // 8 * 8 for size in arrays["x"].shape[2:])
    dn, given = arrays["x"][:, :, :height, :width], arrays["gt"][:, :height, :width]
    kept = [k for k in np.unique(given) if k != NO_DATA]
    is_one = _with_data(dn) & (given != NO_DATA)
    labels = np.where(is_one, np.searchsorted(kept, given), IGNORED).astype(np.uint8)
    return dn, labels, tuple(f"class {k}" for k in kept)


def mangrove_bands(data: Path) -> tuple[NDArray[np.float64], Labels]:
    """All twelve bands of the picture of `mangrove` [12, H, W] in DN, and its map [H, W]."""
    _, labels, _ = _sundarbans(data)
    bands = _read(data / SUNDARBANS, ("full",))["full"][0]
    return bands[:, : labels.shape[1], : labels.shape[2]].astype(np.float64), labels[0]


def _with_data(dn: Dn) -> Mask:
    """Pixels that are not 0 in every band, [N, H, W]."""
    return np.asarray(dn.any(axis=1), bool)


def _generalised(labels: Labels, classes: int) -> Labels:
    """The commonest class around each labelled pixel."""
    shares = [ndimage.uniform_filter((labels == k).astype(np.float32), (0, UNIT_PX, UNIT_PX)) for k in range(classes)]
    return np.where(labels == IGNORED, IGNORED, np.argmax(shares, axis=0)).astype(np.uint8)


def _by_rows(labels: Labels) -> tuple[Labels, Labels]:
    """Labels of strips of rows as `_by_blocks` has them of pictures; `GAP_PX` between the two are in neither."""
    height = labels.shape[1]
    judged = np.arange(height) * WATER_BLOCKS // height % JUDGED_EVERY == 1
    ahead, behind = (ndimage.minimum_filter1d(one, GAP_PX + 1, mode="nearest") for one in (judged, ~judged))
    learn, judge = (np.where(kept[None, :, None], labels, IGNORED).astype(np.uint8) for kept in (behind, ahead))
    return learn, judge


def _by_blocks(labels: Labels) -> tuple[Labels, Labels]:
    """Labels to learn from and to be judged by, by blocks of neighbours; chips beside another kind are in neither."""
    block = np.arange(len(labels)) * WATER_BLOCKS // len(labels)
    judged = block % JUDGED_EVERY == 1
    border = np.zeros(len(labels), bool)
    border[1:] |= judged[1:] != judged[:-1]
    border[:-1] |= judged[:-1] != judged[1:]
    return _only(labels, ~judged & ~border), _only(labels, judged & ~border)


def _by_columns(labels: Labels, share: float) -> tuple[Labels, Labels]:
    """Labels left and right of a column, with a gap between them."""
    at = round(labels.shape[2] * share) // 8 * 8
    left, right = labels.copy(), labels.copy()
    left[:, :, at:], right[:, :, : at + GAP_PX] = IGNORED, IGNORED
    return left, right


def _only(labels: Labels, chosen: NDArray[np.bool_]) -> Labels:
    return np.where(chosen[:, None, None], labels, IGNORED).astype(np.uint8)


def _coarsened(dn: Dn) -> Dn:
    count, bands, height, width = dn.shape
    cells = dn.reshape(count, bands, height // COARSER, COARSER, width // COARSER, COARSER).astype(np.float64)
    return np.rint(cells.mean(axis=(3, 5))).astype(np.uint16)


def _read(path: Path, names: tuple[str, ...]) -> dict[str, NDArray[Any]]:
    """Arrays of a file of the data folder. InputError where it is not there or lacks one."""
    try:
        arrays = read_arrays(path, names, kinds="iufSU")
    except ArrayFileError as error:
        raise InputError(f"{path}: not readable ({error}); give the data folder as --data") from None
    missing = [name for name in names if name not in arrays]
    if missing:
        raise InputError(f"{path}: no array {missing[0]}, wanted {', '.join(names)}; give the data folder as --data")
    return arrays
