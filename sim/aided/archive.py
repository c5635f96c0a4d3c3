"""Older dates of a place: a folder of georeferenced rasters and `.nadir` files, laid over the tiles of a scene.

Each file is read as a scene is (DN, the bands of the bundle's sensor, its own no-data), in windows: a tile of another
grid is resampled by GDAL's warper (cubic). What is thick cloud in it to the ground's own mask counts as not there; thin
cloud and shadow are left to the trust that a date earns (sim/aided/refine.py).
"""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
from rasterio.crs import CRS
from rasterio.enums import Resampling
from rasterio.transform import Affine
from rasterio.warp import reproject, transform

from payload.bundle import Bundle
from payload.clouds.mask import THICK
from payload.codec.interface import Refinable
from payload.codec.registry import open_codec
from payload.errors import InputError, StreamError
from payload.scene import Dn, Mask, Scene, SceneInfo
from payload.sensor import Sensor
from sim.clouds.ground_mask import GroundMask
from sim.ground.place import wkt_of
from sim.scenes.open_scene import OpenScene, open_scene

log = logging.getLogger(__name__)

#: Who opens a file of a suffix, besides rasters and products.
Openers = Mapping[str, Callable[[str], OpenScene]]
SUFFIXES = (".tif", ".tiff", ".safe", ".zip")
#: Pixels that the warper looks at beyond a window.
MARGIN_PX = 4
#: A resampled pixel to which invalid ones contribute more than this is not there.
MOST_INVALID = 0.05
#: A tile of whose pixels a date shows less than this does not use it.
LEAST_SEEN = 0.2
#: Points of each side of a tile by which it is found in another projection.
EDGE_POINTS = 9


@dataclass(frozen=True, eq=False)
class Seen:
    """What one date shows of a tile: dn uint16 [B, T, T], and where it is there and clear [T, T]."""

    name: str
    dn: Dn
    clear: Mask


@dataclass(frozen=True)
class Archive:
    """A folder of older dates, and who opens what in it is no raster, by suffix."""

    folder: Path
    openers: Openers = field(default_factory=dict)

    @contextmanager
    def over(self, info: SceneInfo, bundle: Bundle) -> Iterator["Overlay"]:
        """The dates that lie over a scene, open. What cannot be used is noted; InputError where nothing is left, or
        where the bundle's codec has no coefficients to refine."""
        require_refinable(bundle)
        with ExitStack() as stack:
            scenes, refused = self._opened(stack, bundle.sensor)
            yield Overlay(self._overlapping(scenes, info), info, refused)

    def _opened(self, stack: ExitStack, sensor: Sensor) -> tuple[list[Scene], tuple[str, ...]]:
        found: list[Scene] = []
        refused: list[str] = []
        for path in self._files():
            try:
                found.append(stack.enter_context(self._scene(path, sensor)))
            except InputError as error:
                refused.append(f"{path.name} of the archive is left out: {str(error).removeprefix(f'{path}: ')}")
                log.warning("%s", refused[-1])
        if not found:
            first = f"; {refused[0]}" if refused else ""
            raise InputError(
                f"--archive {self.folder}: no usable raster (.tif, .SAFE, .zip) or .nadir file in it{first}; give a "
                "folder of older dates"
            )
        return found, tuple(refused)

    def _scene(self, path: Path, sensor: Sensor) -> OpenScene:
        opener = self.openers.get(path.suffix.lower())
        scene = opener(str(path)) if opener else open_scene(str(path), sensor=sensor)
        if scene.info.bands != sensor.names:
            wanted = ", ".join(sensor.names)
            raise InputError(f"has bands {', '.join(scene.info.bands)[:80]}, wanted {wanted[:80]}")
        if not _lies_somewhere(scene.info):
            raise InputError("has no projection and transform, so it lies nowhere; georeference it")
        return scene

    def _files(self) -> list[Path]:
        if not self.folder.is_dir():
            raise InputError(f"--archive {self.folder}: is no folder, wanted one of rasters or .nadir files")
        wanted = (*SUFFIXES, *self.openers)
        return sorted(p for p in self.folder.iterdir() if p.suffix.lower() in wanted and p.name[0] != ".")

    def _overlapping(self, scenes: Sequence[Scene], info: SceneInfo) -> tuple[Scene, ...]:
        if not _lies_somewhere(info):
            raise InputError(f"{info.name} has no projection and transform, so --archive cannot be laid over it")
        others = [scene for scene in scenes if not _is_same(scene.info, info)]
        size = info.height_px, info.width_px
        there = tuple(scene for scene in others if _window(scene.info, info, (0, 0), size) is not None)
        if not there:
            itself = "" if len(others) == len(scenes) else " but the scene itself, by its time"
            raise InputError(
                f"--archive {self.folder}: none of {len(scenes)} scenes overlaps {info.name}{itself}; give a folder "
                "with older dates of the place"
            )
        return there


@dataclass(frozen=True, eq=False)
class Overlay:
    """Older dates over one scene. Safe to read from several threads, as their scenes are."""

    scenes: tuple[Scene, ...]
    info: SceneInfo
    left_out: tuple[str, ...] = ()
    damaged: dict[str, str] = field(default_factory=dict)  # of dates that could not be read everywhere: the last cause

    @property
    def names(self) -> tuple[str, ...]:
        """Of every date, with its time where it is known."""
        return tuple(name_of(scene.info) for scene in self.scenes)

    @property
    def notes(self) -> tuple[str, ...]:
        """What of the archive was not used, and why."""
        return self.left_out + tuple(f"{name} was left out of some tiles: {why}" for name, why in self.damaged.items())

    def tile(self, row: int, col: int, tile_px: int, mask: GroundMask) -> Iterator[Seen]:
        """What each date shows of a tile, where it shows enough of it."""
        for scene in self.scenes:
            name = name_of(scene.info)
            try:
                dn, there = _resampled(scene, self.info, (row * tile_px, col * tile_px), tile_px)
            except (InputError, StreamError) as error:
                self.damaged[name] = str(error)
                continue
            if there.any():
                clear = there & (mask.judge(dn, there, self.info.gsd_m) != THICK)
                if clear.sum() >= LEAST_SEEN * self._pixels(row, col, tile_px):
                    yield Seen(name, dn, clear)

    def _pixels(self, row: int, col: int, side: int) -> int:
        """Of a tile, those inside the scene."""
        return min(side, self.info.height_px - row * side) * min(side, self.info.width_px - col * side)


def laid_over(info: SceneInfo, archive: Archive | None, bundle: Bundle) -> AbstractContextManager[Overlay | None]:
    """As Archive.over; None where nobody named an archive."""
    return nullcontext() if archive is None else archive.over(info, bundle)


def name_of(info: SceneInfo) -> str:
    """A date as reports and tags name it."""
    return info.name if info.sensed_at is None else f"{info.name} ({info.sensed_at})"


def require_refinable(bundle: Bundle) -> None:
    """InputError where an archive is of no use to a bundle's tiles."""
    codec = open_codec(bundle)
    if not isinstance(codec, Refinable) or codec.refining(None) is None:
        raise InputError(
            f"--archive: tiles of bundle {bundle.name} have no coefficients that an archive could refine; fly edge, or "
            "leave it out"
        )


def _lies_somewhere(info: SceneInfo) -> bool:
    return info.transform is not None and wkt_of(info.crs_wkt) is not None


def _is_same(older: SceneInfo, info: SceneInfo) -> bool:
    return older.sensed_at is not None and older.sensed_at == info.sensed_at


def _resampled(scene: Scene, info: SceneInfo, corner: tuple[int, int], side: int) -> tuple[Dn, Mask]:
    """A tile's pixels [B, side, side] as an older date has them, and where it has them."""
    dn, there = np.zeros((len(info.bands), side, side), np.uint16), np.zeros((side, side), bool)
    window = _window(scene.info, info, corner, (side, side))
    if window is None:
        return dn, there
    top, left, height, width = window
    own, valid = scene.read(top, left, height, width)
    warp = partial(
        reproject, src_transform=_affine(scene.info) @ Affine.translation(left, top), src_crs=_crs(scene.info),
        dst_transform=_affine(info) @ Affine.translation(corner[1], corner[0]), dst_crs=_crs(info),
        resampling=Resampling.cubic,
    )  # fmt: skip
    invalid = np.ones((side, side), np.float32)
    warp((~valid).astype(np.float32), invalid, init_dest_nodata=False)
    warp(own, dn)
    return dn, np.abs(invalid) <= MOST_INVALID


def _window(
    older: SceneInfo, info: SceneInfo, corner: tuple[int, int], size: tuple[int, int]
) -> tuple[int, int, int, int] | None:
    """First row and column, height and width of the part of an older scene under a window of a scene; None: none."""
    rows, cols = _edge(*corner, *size)
    xs, ys = _affine(info) @ (cols, rows)
    if older.crs_wkt != info.crs_wkt:
        xs, ys = map(np.asarray, transform(_crs(info), _crs(older), xs, ys))
    there_cols, there_rows = ~_affine(older) @ (xs, ys)
    if not (np.isfinite(there_rows).all() and np.isfinite(there_cols).all()):
        return None
    top, left = (max(0, int(np.floor(v.min())) - MARGIN_PX) for v in (there_rows, there_cols))
    bottom = min(older.height_px, int(np.ceil(there_rows.max())) + MARGIN_PX)
    right = min(older.width_px, int(np.ceil(there_cols.max())) + MARGIN_PX)
    apart = there_rows.min() >= older.height_px or there_cols.min() >= older.width_px or max(
        -there_rows.max(), -there_cols.max()
    ) >= 0  # fmt: skip
    return None if apart or bottom <= top or right <= left else (top, left, bottom - top, right - left)


def _edge(top: int, left: int, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Points along the edge of a window: rows and columns."""
    along = np.linspace(0.0, 1.0, EDGE_POINTS)
    flat = np.concatenate([along, along, np.zeros_like(along), np.ones_like(along)])
    upright = np.concatenate([np.zeros_like(along), np.ones_like(along), along, along])
    return top + height * upright, left + width * flat


def _affine(info: SceneInfo) -> Affine:
    return Affine(*(info.transform or ()))


def _crs(info: SceneInfo) -> CRS:
    return CRS.from_user_input(info.crs_wkt)
