"""Cloud masks tile by tile -> strips of `cloud-onboard.tif`: what the payload judged by, never downlinked.

And where the gate took the detail out of closed cloud, which only a simulation knows.
"""

import zlib
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import rasterio
from numpy.typing import NDArray

from payload.clouds.gate import pixels_without_detail
from payload.clouds.mask import CloudMask
from payload.policy import Gate
from payload.scene import Mask, SceneInfo
from payload.tiles import Tile, grid
from sim.products.rasters import CLOUD_NODATA, CloudProbabilityWriter
from sim.progress import Progress

ONBOARD_CLOUD_FILE = "cloud-onboard.tif"


class FlattenedPixels:
    """Pixels whose detail the gate gave up, tile by tile; packed, because a scene has many."""

    def __init__(self, tile_px: int) -> None:
        self._side, self._tiles = tile_px, dict[tuple[int, int], bytes]()

    def add(self, tile: Tile, pixels: Mask) -> None:
        """pixels: bool [T, T]"""
        if pixels.any():
            self._tiles[tile.row, tile.col] = zlib.compress(np.packbits(pixels).tobytes(), 1)

    def strip(self, row: int, height_px: int, width_px: int) -> Mask:
        """Of a row of tiles. bool [h, W]"""
        side = self._side
        found = np.zeros((height_px, width_px), bool)
        for col in range(-(-width_px // side)):
            if (packed := self._tiles.get((row, col))) is not None:
                bits = np.unpackbits(np.frombuffer(zlib.decompress(packed), np.uint8), count=side * side)
                part = found[:, col * side : (col + 1) * side]
                part[:] = bits.reshape(side, side)[: part.shape[0], : part.shape[1]]
        return found


class CloudStrips:
    """Used as a context: the raster is in its place, whole, when that is left well."""

    def __init__(self, path: Path, info: SceneInfo, tile_px: int, gate: Gate, progress: Progress) -> None:
        self._writer, self._gate = CloudProbabilityWriter(path, info), gate
        self.flattened = FlattenedPixels(tile_px)
        self._info, self._side, self._progress = info, tile_px, progress
        self._rows, self._cols = grid(info, tile_px)
        self._row = 0
        self._strip = self._blank()

    def __enter__(self) -> Self:
        self._writer.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            while kind is None and self._row < self._rows:
                self._flush()
        finally:
            self._writer.__exit__(kind, error, trace)

    def observe(self, tile: Tile, mask: CloudMask) -> None:
        """Takes the mask of a tile; tiles come in row order."""
        while self._row < tile.row:
            self._flush()
        self.flattened.add(tile, pixels_without_detail(tile, mask, self._gate))
        percent = np.rint(100.0 * mask.probability).astype(np.uint8)
        self._strip[:, tile.col * self._side :][:, : self._side] = np.where(tile.valid, percent, CLOUD_NODATA)

    def _blank(self) -> NDArray[np.uint8]:
        return np.full((self._side, self._cols * self._side), CLOUD_NODATA, np.uint8)

    def _flush(self) -> None:
        top = self._row * self._side
        height = min(self._side, self._info.height_px - top)
        self._writer.write_strip(top, self._strip[:height, : self._info.width_px])
        self._row += 1
        self._strip = self._blank()
        self._progress("on board", self._rows)


class CloudReader:
    """Strips of a cloud raster, read back on a grid that it need not cover. Used as a context."""

    def __init__(self, path: Path, width_px: int) -> None:
        self._file, self._width_px = rasterio.open(path), width_px

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *details: object) -> None:
        self._file.close()

    def read(self, row_px: int, height_px: int) -> NDArray[np.uint8]:
        """uint8 [h, W], CLOUD_NODATA where there is none."""
        found = np.full((height_px, self._width_px), CLOUD_NODATA, np.uint8)
        height, width = min(height_px, self._file.height - row_px), min(self._width_px, self._file.width)
        if height > 0:
            found[:height, :width] = self._file.read(1, window=((row_px, row_px + height), (0, width)))
        return found
