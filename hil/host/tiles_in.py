"""Where the tiles of a run come from: a scene file, or an .npz with an array of tiles.

Scenes are read by whoever has registered a reader under the entry point `nadir.scenes` (the ground package does): the
bench then sees the very tiles that `sim downlink` sees, without knowing the ground, and a board's agent needs neither.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import entry_points
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from payload.array_files import ArrayFileError, read_arrays
from payload.errors import InputError
from payload.scene import Scene
from payload.sensor import Sensor
from payload.tiles import Tile, split

READERS = "nadir.scenes"


class ReadScene(Protocol):
    """What is registered: a path or a name, and how its numbers are to be read -> scene."""

    def __call__(
        self,
        where: str,
        bands: tuple[str, ...] | None,
        sensor: Sensor,
        *,
        scale: float | None,
        offset: float | None,
    ) -> Scene: ...


@dataclass(frozen=True)
class FileReading:
    """What a raster does not say of itself: its bands' names, and reflectance = stored x scale + offset."""

    bands: tuple[str, ...] | None = None
    scale: float | None = None
    offset: float | None = None


AS_IT_SAYS = FileReading()


@dataclass(frozen=True)
class TileSource:
    """Tiles that stream, and how many they are."""

    total: int
    tiles: Iterator[Tile]

    def first(self, limit: int | None) -> "TileSource":
        """At most so many of them."""
        return self if limit is None else TileSource(min(limit, self.total), islice(self.tiles, limit))


def scene_tiles(where: str, tile_px: int, sensor: Sensor, reading: FileReading = AS_IT_SAYS) -> TileSource:
    """Tiles of a scene (a path, or `demo`) in row order, opened at once."""
    scene = _reader()(where, reading.bands, sensor, scale=reading.scale, offset=reading.offset)
    rows, cols = -(-scene.info.height_px // tile_px), -(-scene.info.width_px // tile_px)
    return TileSource(rows * cols, split(scene, tile_px))


def npz_tiles(path: Path, tile_px: int, bands: tuple[str, ...]) -> TileSource:
    """Tiles of an .npz: `x` uint16 [N, B, H, W], cut to the top left tile_px square; `bands` picks and orders.

    Tile n gets row n // 256, column n % 256. Pixels that are 0 or 65 535 in every band are fill, as everywhere
    (docs/scenes.md), and not valid.
    """
    x = _pixels(path, bands)
    if min(x.shape[2:]) < tile_px:
        raise InputError(
            f"{path}: tiles of {x.shape[2]} x {x.shape[3]} px, the bundle wants {tile_px} x {tile_px} at least"
        )
    cut = (np.ascontiguousarray(dn[:, :tile_px, :tile_px]) for dn in x)
    return TileSource(len(x), (Tile(n // 256, n % 256, dn, ~_fill(dn)) for n, dn in enumerate(cut)))


def _fill(dn: "np.ndarray[tuple[int, ...], np.dtype[np.uint16]]") -> "np.ndarray[tuple[int, ...], np.dtype[np.bool_]]":
    filled: np.ndarray[tuple[int, ...], np.dtype[np.bool_]] = (dn == 0).all(axis=0) | (dn == 65_535).all(axis=0)
    return filled


def _pixels(path: Path, bands: tuple[str, ...]) -> "np.ndarray[tuple[int, ...], np.dtype[np.uint16]]":
    try:
        arrays = read_arrays(path, ("x", "bands"), kinds="iufSU")
    except ArrayFileError as error:
        raise InputError(f"{path}: not a usable .npz ({error}); wanted x uint16 [N, bands, height, width]") from None
    if "x" not in arrays:
        raise InputError(f"{path}: no array x; wanted x uint16 [N, bands, height, width]")
    x, names = arrays["x"], _names(arrays["bands"]) if "bands" in arrays else list(bands)
    if not x.size:
        raise InputError(f"{path}: x is {x.dtype} {x.shape} and holds nothing; wanted one tile at least")
    if x.ndim != 4 or x.dtype != np.uint16 or x.shape[1] != len(names):
        raise InputError(
            f"{path}: x is {x.dtype} {x.shape} with {len(names)} bands, wanted uint16 [N, bands, height, width]"
        )
    missing = [band for band in bands if band not in names]
    if missing:
        raise InputError(f"{path}: band {missing[0]} is not among {', '.join(names)}; use a file that has it")
    return x[:, [names.index(band) for band in bands]]


def _names(bands: "np.ndarray[tuple[int, ...], np.dtype[Any]]") -> list[str]:
    """Names of bands as text, whether they were stored as text or as octets."""
    values = bands.ravel().tolist()
    return [value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value) for value in values]


def _reader() -> ReadScene:
    found = entry_points(group=READERS)
    if not found:
        raise InputError(
            "no reader of scenes is installed; pip install 'nadir-payload[ground]', or give --tiles FILE.npz"
        )
    try:
        reader: ReadScene = next(iter(found)).load()
    except ImportError as error:
        raise InputError(
            f"the reader of scenes misses {error.name}; pip install 'nadir-payload[ground]', or give --tiles FILE.npz"
        ) from None
    return reader
