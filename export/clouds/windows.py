"""The data folder -> windows of 256 x 256 px that the cloud network learns from, before anyone has labelled them.

Tiles that were cut from one picture are put together again, so that a window shows what lies around a cloud; tiles
that stand alone are mirrored. `kind` says what is known of a window besides the teacher's word:

    CLASSIFIED  Sen2Cor's scene classification (SCL), which is a detector and not the truth
    CLEAR       looked at by eye: no cloud
    UNKNOWN     cloud that nobody has drawn
    DRAWN       a cloud field drawn over clear ground: opacity and shadow are known
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from export.clouds.drawn import F32, bleach, compose, roofs, turned
from export.data import data_folder, pool_file, read_named

CLASSIFIED, CLEAR, UNKNOWN, DRAWN = range(4)
WINDOW_PX = 256
NO_SCL = 255
#: Cloud over sea, overcast, and a day of thin cloud over snow, without a classification.
OVER_SEA, OVERCAST = "cloudmask_chip_102871", "cloudmask_chip_100909"
UNLABELLED = (OVER_SEA, OVERCAST, "montcalm_2016-01-12")
#: Tiles of the pool side by side in one row of the picture they were cut from, by the beginning of `src`.
TILES_A_ROW = {
    "statue_of_unity": 9, "dryspy_": 6, "agriculai_": 9, "dsen2_": 4, "cloudmask_chip_": 4, "montcalm": 5,
    "mscomposer_T32TMT": 3,
}  # fmt: skip
#: How often a window goes side by side into a coarse one.
COARSER = (2, 4, 8)
#: How much less often clear windows do.
OF_CLEAR = 0.4
GROUND_CLASSES = (2, 4, 5, 6)
#: Classified tiles of which more than this is ground serve as ground for drawn clouds, too.
MOSTLY_GROUND = 0.97
BLEACHED, ROOFED = 0.18, 0.12
#: Brightness over the sea's of a cloud that hides it, DN.
OPAQUE_DN = 4500.0


@dataclass(frozen=True, eq=False)
class Window:
    """`level`: L1C or L2A, which of its two networks the teacher uses."""

    dn: F32  # [4, 256, 256]
    scl: NDArray[np.uint8]  # [256, 256]
    opacity: F32  # [256, 256], of drawn cloud
    cast: F32  # [256, 256], shadow of drawn cloud
    site: str
    gsd_m: int
    level: str
    kind: int


def real_windows() -> list[Window]:
    """Every window of the data folder's pool, the farms, and three small sources beside them."""
    return [*_pool_windows(), *_farm_windows(), *_other_windows()]


def _pool_windows() -> Iterator[Window]:
    x, scl, src, site, gsd_m, level = read_named(pool_file(), "x", "scl", "src", "site", "res_m", "level")
    pictures: dict[tuple[str, str], list[int]] = {}
    for i, name in enumerate(zip(src.tolist(), level.tolist(), strict=True)):
        pictures.setdefault(name, []).append(i)
    for (picture, of_level), tiles in pictures.items():
        labelled = bool((scl[tiles] != NO_SCL).any())
        unknown = picture in UNLABELLED or site[tiles[0]] in UNLABELLED
        kind = CLASSIFIED if labelled else UNKNOWN if unknown else CLEAR
        step = WINDOW_PX if kind == CLEAR else WINDOW_PX // 2
        for dn, classes in _cut(x[tiles], scl[tiles], _tiles_a_row(picture, len(tiles)), step):
            yield _plain(dn, classes, str(site[tiles[0]]), int(gsd_m[tiles[0]]), of_level, kind)


def _tiles_a_row(name: str, tiles: int) -> int:
    found = next((n for start, n in TILES_A_ROW.items() if name.startswith(start)), 1)
    return found if tiles % found == 0 else 1


def _cut(
    tiles: NDArray[np.uint16], scl: NDArray[np.uint8], a_row: int, step_px: int
) -> Iterator[tuple[NDArray[np.uint16], NDArray[np.uint8]]]:
    """Windows of tiles [N, 4, 128, 128] that lie `a_row` side by side; 1: each stands alone and is mirrored."""
    if a_row == 1:
        yield from ((mirrored(dn), mirrored(classes)) for dn, classes in zip(tiles, scl, strict=True))
        return
    picture, classes = mosaic(tiles, a_row), mosaic(scl, a_row)
    for top in range(0, picture.shape[1] - WINDOW_PX + 1, step_px):
        for left in range(0, picture.shape[2] - WINDOW_PX + 1, step_px):
            place = (..., slice(top, top + WINDOW_PX), slice(left, left + WINDOW_PX))
            yield picture[place], classes[place]


def mosaic(tiles: NDArray[Any], a_row: int) -> NDArray[Any]:
    """Tiles [N, ..., h, w] in reading order as one picture [..., H, W]."""
    rows = [np.concatenate(list(tiles[i : i + a_row]), axis=-1) for i in range(0, len(tiles), a_row)]
    return np.concatenate(rows, axis=-2)


def mirrored(tile: NDArray[Any]) -> NDArray[Any]:
    """A tile [..., h, w] and its mirror images, up to a window."""
    margins = [(0, 0)] * (tile.ndim - 2) + [(0, WINDOW_PX - side) for side in tile.shape[-2:]]
    return np.pad(tile, margins, mode="symmetric")


def _plain(
    dn: NDArray[np.uint16], scl: NDArray[np.uint8] | None, site: str, gsd_m: int, level: str, kind: int
) -> Window:
    blank = np.zeros((WINDOW_PX, WINDOW_PX), np.float32)
    classes = np.full(blank.shape, NO_SCL, np.uint8) if scl is None else scl
    return Window(dn.astype(np.float32), classes, blank, blank, site, gsd_m, level, kind)


def _farm_windows() -> Iterator[Window]:
    farms = read_named(data_folder() / "cloud" / "worldcereal64.npz", "x", "scl", "site")
    for dn, scl, site in zip(*farms, strict=True):
        yield _plain(mirrored(dn), mirrored(scl), str(site), 10, "L2A", CLASSIFIED)


def _other_windows() -> Iterator[Window]:
    """Two sites with and without cloud, and fields on the Danube in two seasons."""
    clear, cloudy = read_named(data_folder() / "sensors" / "sen12mscr_l1c13_s1_256.npz", "clear", "cloudy")
    for dn in clear:
        yield _plain(dn[[1, 2, 3, 7]], None, "sen12mscr", 10, "L1C", CLEAR)
    yield _plain(cloudy[0][[1, 2, 3, 7]], None, "sen12mscr", 10, "L1C", UNKNOWN)
    (fields,) = read_named(data_folder() / "downstream" / "fields_two_dates_379x578.npz", "x")
    for dn in np.nan_to_num(fields).clip(0, 65_535).astype(np.uint16)[:, [2, 1, 0, 3]]:
        for left in (0, WINDOW_PX):
            yield _plain(dn[:, :WINDOW_PX, left : left + WINDOW_PX], None, "fields", 10, "L2A", CLEAR)


class Painter:
    """Draws clouds over the clear windows, each site as often as the root of its windows."""

    def __init__(self, windows: list[Window]) -> None:
        self.ground = [w for w in windows if w.kind == CLEAR and w.gsd_m <= 20]
        self.ground += [w for w in windows if w.kind == CLASSIFIED and w.gsd_m == 10 and _is_ground(w)]
        _, place, counts = np.unique([w.site for w in self.ground], return_inverse=True, return_counts=True)
        self._often = np.cumsum(1.0 / np.sqrt(counts[place]))
        self._textures = [w.dn for w in windows if w.site == OVERCAST]
        self._real = _opacity_over_sea()

    def draw(self, rng: np.random.Generator) -> Window:
        start = self.ground[int(np.searchsorted(self._often, rng.random() * self._often[-1]))]
        dn, other = turned(start.dn, int(rng.integers(4)), False), rng.random()
        if other < BLEACHED:
            dn = bleach(dn, rng)
        elif other < BLEACHED + ROOFED:
            dn = roofs(dn, rng)
        dn, opacity, cast = compose(dn, self._textures, self._real, rng)
        noisy = np.clip(dn + rng.normal(0.0, rng.uniform(0.0, 15.0), dn.shape), 0.0, 16_000.0)
        blank = np.full(opacity.shape, NO_SCL, np.uint8)
        return Window(noisy.astype(np.float32), blank, opacity, cast, start.site, start.gsd_m, start.level, DRAWN)


class Coarse:
    """Windows of coarser pixels: windows of one site and kind side by side, turned, each averaged."""

    def __init__(self, windows: list[Window]) -> None:
        self._groups: dict[tuple[str, int], list[Window]] = {}
        for window in windows:
            self._groups.setdefault((window.site, window.kind), []).append(window)
        often = [OF_CLEAR**(kind == CLEAR) * len(group) ** 0.5 for (_, kind), group in self._groups.items()]
        self._shares = np.array(often) / sum(often)

    def draw(self, rng: np.random.Generator) -> Window:
        times = int(rng.choice(COARSER))
        group = list(self._groups.values())[int(rng.choice(len(self._groups), p=self._shares))]
        chosen = [group[int(i)] for i in rng.integers(len(group), size=times**2)]
        turns = [(int(turn), bool(flip)) for turn, flip in rng.integers((4, 2), size=(times**2, 2))]

        def side_by_side(name: str, make: Callable[[NDArray[Any], int], NDArray[Any]]) -> NDArray[Any]:
            parts = zip(chosen, turns, strict=True)
            return mosaic(np.stack([turned(make(getattr(w, name), times), *turn) for w, turn in parts]), times)

        first = chosen[0]
        return Window(
            side_by_side("dn", averaged), side_by_side("scl", lambda classes, n: classes[::n, ::n]),
            side_by_side("opacity", averaged), side_by_side("cast", averaged),
            first.site, first.gsd_m * times, first.level, first.kind,
        )  # fmt: skip


def averaged(pixels: F32, times: int) -> F32:
    """Means over times x times pixels. [..., h, w] -> [..., h / times, w / times]"""
    h, w = (side // times for side in pixels.shape[-2:])
    return np.asarray(pixels.reshape(*pixels.shape[:-2], h, times, w, times).mean(axis=(-3, -1)), np.float32)


def _is_ground(window: Window) -> bool:
    return bool(np.isin(window.scl, GROUND_CLASSES).mean() > MOSTLY_GROUND)


def _opacity_over_sea() -> F32:
    """Opacity of the cloud field over dark sea: how much brighter than the sea it is. [512, 512]"""
    x, site = read_named(pool_file(), "x", "site")
    tiles = x[site == OVER_SEA]
    bright = mosaic(tiles, _tiles_a_row(OVER_SEA, len(tiles)))[:3].mean(axis=0)
    return np.clip((bright - np.percentile(bright, 8)) / OPAQUE_DN, 0.0, 1.0).astype(np.float32)
