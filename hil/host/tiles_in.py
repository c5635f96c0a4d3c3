"""Where the tiles of a run come from: a scene file, or an .npz with an array of tiles.

Scenes are read by whoever has registered a reader under the entry point `nadir.scenes` (the ground package does): the
bench then sees the very tiles that `sim downlink` sees, without knowing the ground, and a board's agent needs neither.
"""

import zipfile
from collections.abc import Callable, Iterator
from importlib.metadata import entry_points
from pathlib import Path

import numpy as np

from payload.errors import InputError
from payload.scene import Scene
from payload.tiles import Tile, split

READERS = "nadir.scenes"


def scene_tiles(where: str, tile_px: int) -> Iterator[Tile]:
    """Tiles of a scene (a path, or `demo`) in row order."""
    yield from split(_reader()(where), tile_px)


def npz_tiles(path: Path, tile_px: int, bands: tuple[str, ...]) -> Iterator[Tile]:
    """Tiles of an .npz: `x` uint16 [N, B, H, W], cut to the top left tile_px square; `bands` picks and orders.

    Tile n gets row n // 256, column n % 256. Every pixel counts as valid.
    """
    x = _pixels(path, bands)
    if min(x.shape[2:]) < tile_px:
        raise InputError(
            f"{path}: tiles of {x.shape[2]} x {x.shape[3]} px, the bundle wants {tile_px} x {tile_px} at least"
        )
    valid = np.ones((tile_px, tile_px), bool)
    for n, dn in enumerate(x):
        yield Tile(n // 256, n % 256, np.ascontiguousarray(dn[:, :tile_px, :tile_px]), valid)


def _pixels(path: Path, bands: tuple[str, ...]) -> "np.ndarray[tuple[int, ...], np.dtype[np.uint16]]":
    try:
        with np.load(path, allow_pickle=False) as arrays:
            x, names = arrays["x"], [str(name) for name in arrays["bands"]] if "bands" in arrays else list(bands)
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(
            f"{path}: not an .npz with an array x ({error}); wanted x uint16 [N, bands, height, width]"
        ) from None
    if x.ndim != 4 or x.dtype != np.uint16 or x.shape[1] != len(names):
        raise InputError(
            f"{path}: x is {x.dtype} {x.shape} with {len(names)} bands, wanted uint16 [N, bands, height, width]"
        )
    missing = [band for band in bands if band not in names]
    if missing:
        raise InputError(f"{path}: band {missing[0]} is not among {', '.join(names)}; use a file that has it")
    return x[:, [names.index(band) for band in bands]]


def _reader() -> Callable[[str], Scene]:
    found = entry_points(group=READERS)
    if not found:
        raise InputError(
            "no reader of scenes is installed; pip install 'nadir-payload[ground]', or give --tiles FILE.npz"
        )
    try:
        reader: Callable[[str], Scene] = next(iter(found)).load()
    except ImportError as error:
        raise InputError(
            f"the reader of scenes misses {error.name}; pip install 'nadir-payload[ground]', or give --tiles FILE.npz"
        ) from None
    return reader
