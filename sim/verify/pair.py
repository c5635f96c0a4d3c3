"""Two rasters of one grid, read side by side in blocks of whole rows, and the mask of what counts."""

import warnings
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.errors import NotGeoreferencedWarning, RasterioError

from payload.errors import InputError
from payload.scene import Mask
from sim.scenes.band_names import known_name
from sim.scenes.gdal_files import cause_of, check_size, gdal_environment
from sim.scenes.radiometry import MAX_PIXELS

#: Formats that are opened, by how their files begin: none that leads to other files.
DRIVERS = {
    b"II": "GTiff", b"MM": "GTiff", b"\x89PNG": "PNG", b"\x00\x00\x00\x0cjP": "JP2OpenJPEG",
    b"\xff\x4f": "JP2OpenJPEG",
}  # fmt: skip
WANTED = "a GeoTIFF, a JPEG 2000 or a PNG file"
#: Rows of one block where nothing asks for others.
ROWS_PX = 512


@dataclass(frozen=True, eq=False)
class Block:
    """Rows of both rasters [B, h, W] as stored, and what counts bool [h, W]."""

    row_px: int
    original: NDArray[Any]
    received: NDArray[Any]
    valid: Mask


class Pair:
    """Two open rasters. InputError where they cannot be compared. Used as a context."""

    def __init__(self, original: Path, received: Path, mask: Path | None = None, max_pixels: int = MAX_PIXELS) -> None:
        self._stack = ExitStack()
        try:
            self._stack.enter_context(gdal_environment())
            self.original, self.received = self._open(original), self._open(received)
            self.mask = self._open(mask) if mask is not None else None
            check_size(str(original), self.original, self.original.indexes, max_pixels)
            self._check(original, received, mask)
        except BaseException:
            self._stack.close()
            raise

    def _open(self, path: Path) -> rasterio.DatasetReader:
        if not path.is_file():
            raise InputError(f"{str(path)[:200]}: not found, wanted {WANTED}")
        with path.open("rb") as stream:
            start = stream.read(12)
        driver = next((name for magic, name in DRIVERS.items() if start.startswith(magic)), None)
        if driver is None:
            raise InputError(f"{path}: is none that can be read, wanted {WANTED}")
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", NotGeoreferencedWarning)
                return self._stack.enter_context(rasterio.open(path, driver=driver))
        except RasterioError as error:
            raise InputError(f"{path}: cannot be read ({cause_of(error)}), wanted {WANTED}") from None

    def _check(self, original: Path, received: Path, mask: Path | None) -> None:
        a, b = self.original, self.received
        if (a.count, *a.shape) != (b.count, *b.shape):
            raise InputError(
                f"{original} has {a.count} bands of {a.height} x {a.width} px, {received} {b.count} of {b.height} x "
                f"{b.width}, wanted one grid; resample one to the other with rio warp --like"
            )
        if a.transform != b.transform and a.crs and b.crs and not a.transform.almost_equals(b.transform, 1e-3):
            raise InputError(f"{original} and {received} lie in different places; resample with rio warp --like")
        for path, file in ((original, a), (received, b)):
            if any(np.dtype(kind).kind not in "uif" for kind in file.dtypes):
                raise InputError(f"{path}: holds {file.dtypes[0]}, wanted whole or floating-point numbers")
        if self.mask is not None and self.mask.shape != a.shape:
            raise InputError(f"{mask} has {self.mask.shape} px, wanted {a.shape} as {original} has")

    @property
    def bands(self) -> tuple[str, ...]:
        """Names of the bands by the original's descriptions, Sentinel-2's where they are known."""
        named = enumerate(self.original.descriptions, 1)
        return tuple(known_name(text or "") or text or f"band {index}" for index, text in named)

    @property
    def peak(self) -> float:
        """Range of the original's data type, as COPEX takes it; 1 for floating-point numbers."""
        kind = np.dtype(self.original.dtypes[0])
        return 1.0 if kind.kind == "f" else float(np.iinfo(kind).max) - float(np.iinfo(kind).min)

    def blocks(self, rows_px: int = ROWS_PX) -> Iterator[Block]:
        """From top to bottom."""
        for top in range(0, self.original.height, rows_px):
            window = (top, min(top + rows_px, self.original.height)), (0, self.original.width)
            valid = self._valid(window)
            yield Block(top, self.original.read(window=window), self.received.read(window=window), valid)

    def _valid(self, window: Any) -> Mask:
        """What both rasters hold, and what the mask lets through (its first band is not 0)."""
        masks = [file.dataset_mask(window=window).astype(bool) for file in (self.original, self.received)]
        valid: Mask = np.logical_and(*masks)
        return valid if self.mask is None else valid & (self.mask.read(1, window=window) != 0)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *details: object) -> None:
        self._stack.close()
