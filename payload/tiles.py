"""Scene -> tiles. A tile is the unit of everything that follows: gate, code, packet, loss. Tiles come in row order."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from payload.errors import InputError
from payload.scene import Dn, Mask, Scene, SceneInfo


@dataclass(frozen=True, eq=False)
class Tile:
    """One square of the scene. Pixels past the scene's edge repeat the edge and are not valid."""

    row: int  # tile row, not pixels
    col: int
    dn: Dn  # [B, T, T]
    valid: Mask  # [T, T]

    @property
    def empty(self) -> bool:
        return not self.valid.any()


def require_tile(tile: Tile, bands: int, tile_px: int) -> None:
    """InputError unless a tile is what a bundle of so many bands and pixels takes: the loops behind rely on it."""
    wanted = (bands, tile_px, tile_px)
    if tile.dn.shape != wanted or tile.dn.dtype != np.uint16:
        raise InputError(_misfit(tile.dn, "uint16", wanted))
    if tile.valid.shape != wanted[1:] or tile.valid.dtype != np.bool_:
        raise InputError(_misfit(tile.valid, "valid bits", wanted[1:]))


def _misfit(found: NDArray[Any], dtype: str, wanted: tuple[int, ...]) -> str:
    return (
        f"tile of {found.dtype} {list(found.shape)}, this bundle takes {dtype} {list(wanted)}; "
        "cut the scene by the bundle's tile size and bands"
    )


def grid(info: SceneInfo, tile_px: int) -> tuple[int, int]:
    """Rows and columns of tiles that cover the scene."""
    return -(-info.height_px // tile_px), -(-info.width_px // tile_px)


def split(scene: Scene, tile_px: int) -> Iterator[Tile]:
    """Tiles of tile_px x tile_px in row order; one strip of tiles is in memory at a time."""
    rows, cols = grid(scene.info, tile_px)
    for row in range(rows):
        top = row * tile_px
        height = min(tile_px, scene.info.height_px - top)
        strip, strip_valid = scene.read(top, 0, height, scene.info.width_px)
        for col in range(cols):
            span = slice(col * tile_px, min((col + 1) * tile_px, scene.info.width_px))
            yield _square(row, col, strip[:, :, span], strip_valid[:, span], tile_px)


def cut(scene: Scene, row: int, col: int, tile_px: int) -> Tile:
    """One tile of those that `split` gives, read on its own."""
    top, left = row * tile_px, col * tile_px
    height, width = min(tile_px, scene.info.height_px - top), min(tile_px, scene.info.width_px - left)
    dn, valid = scene.read(top, left, height, width)
    return _square(row, col, dn, valid, tile_px)


def _square(row: int, col: int, dn: Dn, valid: Mask, tile_px: int) -> Tile:
    down, right = tile_px - dn.shape[1], tile_px - dn.shape[2]
    if down or right:
        dn = np.pad(dn, ((0, 0), (0, down), (0, right)), mode="edge")
        valid = np.pad(valid, ((0, down), (0, right)))
    return Tile(row, col, np.ascontiguousarray(dn), np.ascontiguousarray(valid))
