"""Files -> tiles to be coded: .npz of tiles, GeoTIFFs, Sentinel-2 products; RGB-NIR, whole and valid tiles only."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from payload.errors import InputError
from payload.scene import RGBN, Dn
from payload.tiles import split

TILE_PX = 256
SENSOR_BITS = 12  # of Sentinel-2's MSI; what an .npz of tiles is taken to hold


@dataclass(frozen=True, eq=False)
class BenchTile:
    """One tile to be coded; all of its pixels are valid."""

    name: str
    dn: Dn  # [4, T, T], B02 B03 B04 B08
    sensor_bits: int = SENSOR_BITS


def read_tiles(paths: Sequence[Path], tile_px: int = TILE_PX, limit: int | None = None) -> list[BenchTile]:
    """The tiles of .npz files (`x` [N, B, H, W] uint16, `bands`) and of rasters, cut from the top left.

    What does not fill a tile, and tiles with invalid pixels, are left out: a rate needs real pixels under it.
    """
    if not paths:
        raise InputError("--tiles names no file, wanted an .npz of tiles or one or more GeoTIFFs")
    tiles: list[BenchTile] = []
    for path in paths:
        tiles += _npz_tiles(path, tile_px) if path.suffix == ".npz" else _raster_tiles(path, tile_px)
    if not tiles:
        raise InputError(f"{paths[0]}: no whole tile of {tile_px} x {tile_px} valid pixels; give larger pictures")
    return tiles[:limit]


def _npz_tiles(path: Path, tile_px: int) -> Iterator[BenchTile]:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            missing = [name for name in ("x", "bands") if name not in arrays]
            if missing:
                raise InputError(f"{path}: no array {' and no array '.join(missing)}, wanted x [N,B,H,W] and bands")
            x, bands = arrays["x"], [str(band) for band in arrays["bands"]]
            names = (
                [str(n) for n in arrays["names"]] if "names" in arrays else [f"{path.stem}_{i}" for i in range(len(x))]
            )
    except (OSError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"{path}: not readable as an .npz of plain arrays ({error}); write it with numpy.savez"
        ) from None
    if x.ndim != 4 or x.dtype != np.uint16 or x.shape[1] != len(bands):
        got = f"x is {x.dtype} {list(x.shape)} with {len(bands)} band names"
        raise InputError(f"{path}: {got}, wanted uint16 [N, B, H, W] and B names; store DN = reflectance x 10 000")
    absent = [band for band in RGBN if band not in bands]
    if absent:
        raise InputError(f"{path}: bands are {', '.join(bands)}; {', '.join(absent)} missing, wanted RGB and NIR")
    chosen = x[:, [bands.index(band) for band in RGBN]]
    for name, picture in zip(names, chosen, strict=True):
        yield from _cut(name, picture, tile_px)


def _cut(name: str, picture: Dn, tile_px: int) -> Iterator[BenchTile]:
    rows, cols = picture.shape[1] // tile_px, picture.shape[2] // tile_px
    for row in range(rows):
        for col in range(cols):
            square = picture[:, row * tile_px : (row + 1) * tile_px, col * tile_px : (col + 1) * tile_px]
            label = name if rows * cols == 1 else f"{name}_r{row}c{col}"
            yield BenchTile(label, np.ascontiguousarray(square))


def _raster_tiles(path: Path, tile_px: int) -> Iterator[BenchTile]:
    from sim.scenes.rasters import open_scene

    with open_scene(str(path)) as scene:
        info = scene.info
        for tile in split(scene, tile_px):
            if tile.valid.all():  # tiles that stick out of the scene are padded, hence not valid
                yield BenchTile(f"{path.stem}_r{tile.row}c{tile.col}", tile.dn, info.bits)


def digest(path: Path) -> str | None:
    """sha256 of a file, so that a result names its input; None for what is no file: a product's folder, `demo`."""
    if not path.is_file():
        return None
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
