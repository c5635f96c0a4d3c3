"""A picture whose bands have several resolutions: a file for each of its grids.

    reconstruction.tif        the bands of the finest grid
    reconstruction-20m.tif    those of group 20m, on their own grid: nothing is resampled

A picture of one grid is one file. `one_grid` asks for that of any picture: pixels of coarser bands are repeated.
"""

import re
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import numpy as np

from payload.codec.interface import Grid
from payload.scene import Dn, Mask, SceneInfo
from sim.products.origin import Origin
from sim.products.rasters import PictureWriter

PICTURE_FILE = "reconstruction.tif"
#: Pictures of coarser grids.
OTHER_FILE = re.compile(r"reconstruction-([A-Za-z0-9_-]+)\.tif")


@dataclass(frozen=True)
class GridFile:
    """One file of a picture: which bands it has, of what grid."""

    path: Path
    places: tuple[int, ...]
    times: int


def files_of(folder: Path, grids: Sequence[Grid], bands: int, one_grid: bool) -> tuple[GridFile, ...]:
    """The files of a picture of so many bands, that of the finest grid first."""
    if one_grid or not grids:
        return (GridFile(folder / PICTURE_FILE, tuple(range(bands)), 1),)
    names = [PICTURE_FILE, *(f"reconstruction-{grid.name}.tif" for grid in grids[1:])]
    return tuple(GridFile(folder / name, grid.places, grid.times) for name, grid in zip(names, grids, strict=True))


def info_on(info: SceneInfo, file: GridFile) -> SceneInfo:
    """The scene as it is on the grid of a file."""
    if file.times == 1 and len(file.places) == len(info.bands):
        return info
    times, moved = file.times, info.transform
    if moved is not None:
        a, b, c, d, e, f = moved
        moved = (a * times, b * times, c, d * times, e * times, f)
    return replace(
        info, height_px=-(-info.height_px // times), width_px=-(-info.width_px // times),
        bands=tuple(info.bands[place] for place in file.places), gsd_m=info.gsd_m * times, transform=moved,
        sensor=info.sensor.only(file.places),
        gcps=tuple((r / times, c / times, x, y, z) for r, c, x, y, z in info.gcps),
        rpcs=info.rpcs if times == 1 else (), band_shifts=(),
    )  # fmt: skip


class PictureFiles:
    """Strips of all bands on the finest grid -> the files of a picture. Used as a context."""

    def __init__(self, files: Sequence[GridFile], info: SceneInfo, origin: Origin, jobs: int = 1) -> None:
        self._files, self._stack = files, ExitStack()
        self._writers = [PictureWriter(file.path, info_on(info, file), origin, jobs) for file in files]

    def __enter__(self) -> Self:
        for writer in self._writers:
            self._stack.enter_context(writer)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        self._stack.__exit__(kind, error, trace)  # type: ignore[arg-type]

    def write_strip(self, row_px: int, dn: Dn, known: Mask) -> None:
        """As PictureWriter has it. A coarse pixel is known where one that it covers is."""
        for file, writer in zip(self._files, self._writers, strict=True):
            times = file.times
            writer.write_strip(row_px // times, dn[list(file.places), ::times, ::times], _any(known, times))


def _any(known: Mask, times: int) -> Mask:
    rows, cols = known.shape
    whole = np.pad(known, ((0, -rows % times), (0, -cols % times)))
    return np.asarray(whole.reshape(-(-rows // times), times, -1, times).any(axis=(1, 3)))
