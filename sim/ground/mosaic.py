"""Tiles -> the picture, strip by strip, with tile edges evened out so that independently coded tiles join without seam.

Each tile has its own rotation and quantiser, so the error jumps at its edge. The jump is what remains of the difference
across the edge after the local slope on both sides is taken off, smoothed along the edge and clipped to what the
quantiser can have caused; half of it goes to either side, fading over a few pixels.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter1d

from payload.errors import StreamError
from payload.link.tile_code import TileCode
from payload.link.valid_mask import unpack_mask
from payload.scene import Dn, Mask
from sim.ground.reception import PICTURED, SceneReception
from sim.spread import Spread

FADE_PX = 6
SMOOTH_PX = 9
#: Largest jump that is taken for an error, in quantiser steps of the coarser of the two tiles.
LIMIT_STEPS = 0.5
#: Share of the jump that is taken away: the rest may be the scene.
STRENGTH = 0.4


class TileDecoder(Protocol):
    """What makes tiles of tile codes, as sim.ground.decoder.Decoder does."""

    tile_px: int
    bands: int

    def decode_tile(self, code: TileCode) -> Dn: ...
    def step_of(self, code: TileCode) -> float: ...


@dataclass(frozen=True, eq=False)
class Strip:
    """One row of tiles as the ground sees it: dn uint16 [B, T, cols T], known bool [T, cols T]."""

    row: int
    dn: Dn
    known: Mask


#: What a tile became: DN [B, T, T], mask [T, T] and quantiser step; or why it did not decode; None: nothing arrived.
Decoded = tuple[Dn, Mask, float] | StreamError | None


def reconstruct(
    scene: SceneReception, decoder: TileDecoder, blend: bool = True, spread: Spread | None = None
) -> Iterator[Strip]:
    """Strips of tiles from north to south. Unknown pixels are 0; what does not decode is refused with its cause."""
    before: tuple[Strip, list[float]] | None = None
    for here in _rows(scene, decoder, spread or Spread()):
        if blend:
            even_out(here[0].dn, here[1], before[0].dn if before else None, before[1] if before else None)
        if before:
            yield before[0]
        before = here
    if before:
        yield before[0]


def _rows(scene: SceneReception, decoder: TileDecoder, spread: Spread) -> Iterator[tuple[Strip, list[float]]]:
    """Rows of tiles with their steps. Other threads are at the next row while this one is taken."""

    def begin(row: int) -> Iterator[Decoded]:
        codes = [scene.codes.get((row, col)) for col in range(scene.grid[1])]
        return spread.map(lambda code: _decoded(code, decoder), codes)

    rows = scene.grid[0]
    following = begin(0) if rows else iter(())
    for row in range(rows):
        tiles, following = following, begin(row + 1) if row + 1 < rows else iter(())
        yield _joined(scene, decoder, row, tiles)


def _joined(
    scene: SceneReception, decoder: TileDecoder, row: int, tiles: Iterator[Decoded]
) -> tuple[Strip, list[float]]:
    side, cols = decoder.tile_px, scene.grid[1]
    dn = np.zeros((decoder.bands, side, cols * side), np.uint16)
    known = np.zeros(dn.shape[1:], bool)
    steps = [0.0] * cols
    for col, tile in enumerate(tiles):
        span = slice(col * side, (col + 1) * side)
        if isinstance(tile, StreamError):
            scene.refuse((row, col), str(tile))
        elif tile is not None:
            dn[:, :, span], known[:, span], steps[col] = tile
    return Strip(row, dn, known), steps


def _decoded(code: TileCode | None, decoder: TileDecoder) -> Decoded:
    if code is None or code.kind not in PICTURED:
        return None
    try:
        return decoder.decode_tile(code), unpack_mask(code.mask, decoder.tile_px), decoder.step_of(code)
    except StreamError as error:
        return error


def even_out(
    dn: Dn, steps: Sequence[float], above: Dn | None = None, steps_above: Sequence[float] | None = None
) -> None:
    """Evens out, in place, the edges inside a strip [B, T, cols T] and those to the strip above.

    `steps`: quantiser step of each tile in DN; 0 for a tile that is not there, whose edges are left alone.
    """
    side = dn.shape[1]
    for col in range(1, len(steps)):
        if steps[col - 1] and steps[col]:
            limit = LIMIT_STEPS * max(steps[col - 1], steps[col])
            left = dn[:, :, (col - 1) * side : col * side]
            right = dn[:, :, col * side : (col + 1) * side]
            _even(left[:, :, ::-1].transpose(0, 2, 1), right.transpose(0, 2, 1), limit)
    if above is None or steps_above is None:
        return
    for col, (upper, lower) in enumerate(zip(steps_above, steps, strict=True)):
        if upper and lower:
            span = slice(col * side, (col + 1) * side)
            _even(above[:, ::-1, span], dn[:, :, span], LIMIT_STEPS * max(upper, lower))


def _even(near: Dn, far: Dn, limit: float) -> None:
    """near, far [B, depth, along]: pixels on the two sides of an edge, counted from the edge."""
    a, b = (side[:, :2].astype(np.float32) for side in (near, far))
    slope = 0.5 * ((a[:, 0] - a[:, 1]) + (b[:, 1] - b[:, 0]))
    jump: NDArray[np.float32] = uniform_filter1d(b[:, 0] - a[:, 0] - slope, SMOOTH_PX, axis=1, mode="nearest")
    half = 0.5 * STRENGTH * np.clip(jump, -limit, limit)
    fade = 1.0 - (np.arange(FADE_PX, dtype=np.float32) + 0.5) / FADE_PX
    for pixels, sign in ((near, 1.0), (far, -1.0)):
        mended = pixels[:, :FADE_PX].astype(np.float32) + sign * half[:, None] * fade[None, :, None]
        pixels[:, :FADE_PX] = np.clip(np.rint(mended), 0, 65535).astype(np.uint16)
