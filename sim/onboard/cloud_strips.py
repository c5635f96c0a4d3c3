"""Cloud masks tile by tile -> strips of `cloud.tif`: the mask that the payload judged by, which is never downlinked."""

from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import rasterio
from numpy.typing import NDArray

from payload.clouds.mask import CloudMask
from payload.scene import SceneInfo
from payload.tiles import Tile, grid
from sim.products.rasters import CLOUD_NODATA, CloudWriter
from sim.progress import Progress

CLOUD_FILE = "cloud.tif"


class CloudStrips:
    """Used as a context: the raster is in its place, whole, when that is left well."""

    def __init__(self, path: Path, info: SceneInfo, tile_px: int, progress: Progress) -> None:
        self._writer, self._info, self._side, self._progress = CloudWriter(path, info), info, tile_px, progress
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
        self._progress("on board", 2 * self._rows)


class CloudReader:
    """Strips of cloud.tif, read back for the pictures. Used as a context."""

    def __init__(self, path: Path) -> None:
        self._file = rasterio.open(path)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *details: object) -> None:
        self._file.close()

    def read(self, row_px: int, height_px: int) -> NDArray[np.uint8]:
        """Cloud probability in per cent uint8 [h, W], 255 where there is none."""
        percent: NDArray[np.uint8] = self._file.read(1, window=((row_px, row_px + height_px), (0, self._file.width)))
        return percent
