"""Files -> tiles to be coded: .npz of tiles, GeoTIFFs, Sentinel-2 products; RGB-NIR, whole and valid tiles only."""

import hashlib
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from payload.array_files import ArrayFileError, read_arrays
from payload.errors import InputError
from payload.scene import Dn
from payload.sensor import SENTINEL2_RGBN, Sensor
from payload.tiles import split
from sim.scenes.open_scene import open_reading
from sim.scenes.radiometry import AS_STORED, Reading, is_reflectance

TILE_PX = 256
log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class BenchTile:
    """One tile to be coded; all of its pixels are valid."""

    name: str
    dn: Dn  # [B, T, T]
    sensor: Sensor = SENTINEL2_RGBN


def read_tiles(
    paths: Sequence[Path],
    tile_px: int = TILE_PX,
    limit: int | None = None,
    reading: Reading = AS_STORED,
    sensor: Sensor = SENTINEL2_RGBN,
) -> list[BenchTile]:
    """The tiles of .npz files (`x` [N, B, H, W] uint16, `bands`) and of rasters, cut from the top left, in the
    `sensor`'s bands.

    What does not fill a tile, and tiles with invalid pixels, are left out: a rate needs real pixels under it. How many
    were is logged. `reading` says how rasters are read.
    """
    if not paths:
        raise InputError("--tiles names no file, wanted an .npz of tiles or one or more GeoTIFFs")
    tiles: list[BenchTile] = []
    for path in paths:
        npz = path.suffix == ".npz"
        cut = _npz_tiles(path, tile_px, sensor) if npz else _raster_tiles(path, tile_px, reading, sensor)
        tiles += _whole(path, cut)
    if not tiles:
        raise InputError(f"{paths[0]}: no whole tile of {tile_px} x {tile_px} valid pixels; give larger pictures")
    return tiles[:limit]


def _whole(path: Path, cut: Iterator[tuple[BenchTile, bool]]) -> list[BenchTile]:
    """The tiles whose pixels are all valid."""
    tiles, left_out = [], 0
    for tile, valid in cut:
        if valid:
            tiles.append(tile)
        else:
            left_out += 1
    if left_out:
        log.warning(
            "%s: %d of %d tiles left out, not all of their pixels are valid", path, left_out, left_out + len(tiles)
        )
    return tiles


def _npz_tiles(path: Path, tile_px: int, sensor: Sensor) -> Iterator[tuple[BenchTile, bool]]:
    x, held, names = _npz_arrays(path)
    absent = [band for band in sensor.names if band not in held]
    if absent:
        wanted = f"{', '.join(absent)[:200]} missing, wanted {', '.join(sensor.names)[:200]}"
        raise InputError(f"{path}: bands are {', '.join(held)[:200]}; {wanted}; give tiles that hold them")
    chosen = x[:, [held.index(band) for band in sensor.names]]
    for name, picture in zip(names, chosen, strict=True):
        yield from _cut(name, picture, tile_px, sensor)


def _npz_arrays(path: Path) -> tuple[Dn, list[str], list[str]]:
    """Pictures [N, B, H, W], names of their bands, and of the pictures."""
    try:
        arrays = read_arrays(path, ("x", "bands", "names"), kinds="iufSU")
    except ArrayFileError as error:
        raise InputError(
            f"{path}: not readable as an .npz of plain arrays ({error}); write it with numpy.savez"
        ) from None
    missing = [name for name in ("x", "bands") if name not in arrays]
    if missing:
        raise InputError(f"{path}: no array {' and no array '.join(missing)}, wanted x [N,B,H,W] and bands")
    x, bands = arrays["x"], [str(band) for band in arrays["bands"].ravel().astype(str)]
    if x.ndim != 4 or x.dtype != np.uint16 or x.shape[1] != len(bands):
        got = f"x is {x.dtype} {list(x.shape)} with {len(bands)} band names"
        raise InputError(f"{path}: {got}, wanted uint16 [N, B, H, W] and B names; store DN = reflectance x 10 000")
    if "names" not in arrays:
        return x, bands, [f"{path.stem}_{i}" for i in range(len(x))]
    if arrays["names"].size != len(x):
        raise InputError(f"{path}: {arrays['names'].size} names for {len(x)} pictures, wanted one each")
    return x, bands, [str(name) for name in arrays["names"].ravel().astype(str)]


def _cut(name: str, picture: Dn, tile_px: int, sensor: Sensor) -> Iterator[tuple[BenchTile, bool]]:
    """Tiles of a picture, and whether no pixel is fill in every band (docs/scenes.md): of reflectance 0 or 65 535, of
    counts what the sensor says is none."""
    gaps = (0, 65_535) if is_reflectance(sensor) else (sensor.nodata_dn,)
    rows, cols = picture.shape[1] // tile_px, picture.shape[2] // tile_px
    for row in range(rows):
        for col in range(cols):
            square = picture[:, row * tile_px : (row + 1) * tile_px, col * tile_px : (col + 1) * tile_px]
            label = name if rows * cols == 1 else f"{name}_r{row}c{col}"
            whole = not any((square == gap).all(axis=0).any() for gap in gaps if gap is not None)
            yield BenchTile(label, np.ascontiguousarray(square), sensor), whole


def _raster_tiles(
    path: Path, tile_px: int, reading: Reading, sensor: Sensor
) -> Iterator[tuple[BenchTile, bool]]:
    with open_reading(reading, str(path), sensor) as scene:
        info = scene.info
        for tile in split(scene, tile_px):
            inside = (tile.row + 1) * tile_px <= info.height_px and (tile.col + 1) * tile_px <= info.width_px
            if inside:  # what sticks out of the scene does not fill a tile
                label = f"{path.stem}_r{tile.row}c{tile.col}"
                yield BenchTile(label, tile.dn, sensor), bool(tile.valid.all())


def digest(path: Path) -> str | None:
    """sha256 of a file, so that a result names its input; None for what is no file: a product's folder, `demo`."""
    if not path.is_file():
        return None
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
