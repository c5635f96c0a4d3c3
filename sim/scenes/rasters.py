"""Raster files of one grid -> a scene that is read in windows.

Whatever the source, what comes out is DN = reflectance x 10 000 as uint16, offsets removed, bands in the order asked
for. One rule says what is no data (docs/scenes.md): a pixel is no data where every band asked for holds its no-data
value, where a mask band says so, or where a sample is no number.
"""

import math
import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Self

import numpy as np
import rasterio
from rasterio._err import CPLE_BaseError  # GDAL's own errors, which rasterio lets through
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.errors import RasterioError

from payload.errors import InputError
from payload.scene import Dn, Mask, SceneInfo
from payload.sensor import Sensor
from sim.scenes.band_names import choose_bands
from sim.scenes.block_rows import BlockRows, Samples
from sim.scenes.cubes import by_wavelength, open_layers, reflectance_scale, wavelengths
from sim.scenes.gdal_files import (
    broken_sidecar,
    cause_of,
    check_size,
    gdal_environment,
    scale_and_offset,
)
from sim.scenes.place import place_of
from sim.scenes.radiometry import Conversion, Stated, check_dn, conversion_for, counts_of, is_reflectance, stated

#: Scenes up to this size are looked at whole before the first tile is coded, larger ones in some windows, which are
#: smaller where there are many bands.
LOOK_PX, LOOK_SAMPLES = 2**20, 2**24
LOOK_WINDOW_PX = 256

#: Floating-point samples from here on are fill (1e20, 9.97e36, the lowest number) in any unit that is read.
FLOAT_LIMIT = 1e6
#: Tag of a GeoTIFF with the time it was taken, ISO 8601.
TIME_TAG = "ACQUISITIONDATETIME"


@dataclass(frozen=True, eq=False)
class Source:
    """Bands of one file."""

    path: str
    file: rasterio.DatasetReader
    rows: BlockRows
    indexes: tuple[int, ...]  # from 1
    conversion: Conversion
    nodata: tuple[float | None, ...]  # of each band, as stored
    fills: tuple[float, ...]  # where no band has one: values that mean no data if all bands hold the same
    masked: bool  # the file carries a mask of all bands
    alpha: int | None = None  # a layer that is a mask: 0 where there is nothing
    repeat: int = 1  # how often each pixel stands on the scene's grid, along and across

    def stored(self, row_px: int, col_px: int, height_px: int, width_px: int) -> tuple[Samples, Mask, Mask]:
        """Samples [b, h, w], where all bands say no data bool [h, w], what is usable bool [h, w]."""
        stored = self._on_grid(row_px, col_px, height_px, width_px)
        usable = np.ones(stored.shape[1:], bool)
        if stored.dtype.kind == "f":
            usable &= (np.abs(stored) < FLOAT_LIMIT).all(axis=0)  # false for NaN, too
        window = (row_px, row_px + height_px), (col_px, col_px + width_px)
        if self.masked:
            usable &= self.file.read_masks(self.indexes[0], window=window) > 0
        if self.alpha is not None:
            usable &= self.file.read(self.alpha, window=window) > 0
        return stored, self._all_empty(stored), usable

    def _on_grid(self, row_px: int, col_px: int, height_px: int, width_px: int) -> Samples:
        if self.repeat == 1:
            return self.rows.read(row_px, col_px, height_px, width_px)
        n = self.repeat
        spans = (row_px, height_px), (col_px, width_px)
        rows, cols = (np.arange(first, first + count) // n for first, count in spans)
        coarse = self.rows.read(rows[0], cols[0], 1 + rows[-1] - rows[0], 1 + cols[-1] - cols[0])
        return coarse[:, (rows - rows[0])[:, None], cols - cols[0]]

    def _all_empty(self, stored: Samples) -> Mask:
        """Where every band holds its no-data value; bands without one go along with those that have one."""
        declared = [(plane, value) for plane, value in zip(stored, self.nodata, strict=True) if value is not None]
        if declared:
            return np.logical_and.reduce([_equal(plane, value) for plane, value in declared])
        empty = np.zeros(stored.shape[1:], bool)
        for fill in self.fills:
            if (first := _equal(stored[0], fill)).any():
                empty |= first & np.logical_and.reduce([_equal(plane, fill) for plane in stored])
        return empty


class RasterScene:
    """A scene in one or several files of one grid. Reads are safe from several threads, one at a time."""

    def __init__(self, info: SceneInfo, sources: tuple[Source, ...]) -> None:
        self.info = info
        self._sources = sources
        self._lock = threading.Lock()

    def read(self, row_px: int, col_px: int, height_px: int, width_px: int) -> tuple[Dn, Mask]:
        """dn uint16 [B, h, w] and valid bool [h, w]. Raises InputError where the file is damaged."""
        if (
            min(row_px, col_px) < 0
            or row_px + height_px > self.info.height_px
            or col_px + width_px > self.info.width_px
        ):
            raise ValueError(f"window {row_px, col_px, height_px, width_px} reaches out of {self.info.name}")
        with self._lock:
            stored, valid = read_stored(self._sources, row_px, col_px, height_px, width_px)
        dn = [source.conversion.apply(part) for source, part in zip(self._sources, stored, strict=True)]
        return (dn[0] if len(dn) == 1 else np.concatenate(dn)), valid

    def close(self) -> None:
        for source in self._sources:
            source.file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *failure: object) -> None:
        self.close()


def open_raster(
    path: Path, bands: tuple[str, ...] | None, sensor: Sensor, scale: float | None, offset: float | None,
    max_pixels: int,
) -> RasterScene:  # fmt: skip
    """A GeoTIFF or a cube as a scene. InputError where it cannot be used."""
    opened = open_layers(path, sensor)
    where, file = opened.path, opened.file
    try:
        indexes, named = _chosen(where, file, bands, sensor)
        check_size(where, file, indexes, max_pixels)
        with gdal_environment():  # a broken mask shows only here, and GDAL would tell of it in lines of its own
            source, tagged = _source(where, file, indexes, sensor)
        says = stated(_scales(file, indexes), scale, offset, _dtype(source))
        sample, partly = look((source,), file.shape, path.stem)
        conversion, read_as = _conversion(where, says, _dtype(source), sample[0], sensor)
        source = replace(source, conversion=conversion)
        notes = (*named, *tagged, *read_as, *partly, *broken_sidecar(where))
        return RasterScene(place_of(where, file).on(_info(path.stem, source, sensor, notes)), (source,))
    except (InputError, RasterioError):
        file.close()
        raise
    except CPLE_BaseError as error:
        file.close()
        raise InputError(f"{where}: damaged ({cause_of(error)}), wanted a whole file; fetch it again") from error


def _chosen(
    where: str, file: rasterio.DatasetReader, bands: tuple[str, ...] | None, sensor: Sensor
) -> tuple[tuple[int, ...], list[str]]:
    """The layers of the sensor's bands: of a spectrometer by their wavelengths, else by their names."""
    if bands is None and sensor.kind == "hyperspectral":
        layers = by_wavelength(where, sensor, wavelengths(file))
        if layers is not None:
            return layers, [f"of {file.count} layers the {len(layers)} nearest to {sensor.name}'s bands were taken"]
    return choose_bands(where, _descriptions(file), bands, sensor)


def _descriptions(file: rasterio.DatasetReader) -> tuple[str | None, ...]:
    """What the file calls its layers. Names that are no text are none: `--bands` can say them."""
    try:
        return tuple(file.descriptions)
    except UnicodeDecodeError:
        return (None,) * file.count


def _scales(file: rasterio.DatasetReader, indexes: tuple[int, ...]) -> list[tuple[float, float]]:
    found = [scale_and_offset(file, i) for i in indexes]
    header = reflectance_scale(file)
    return found if header is None or set(found) != {(1.0, 0.0)} else [(header, 0.0)] * len(found)


def _conversion(
    where: str, says: Stated, stored: np.dtype[Any], sample: Samples, sensor: Sensor
) -> tuple[Conversion, list[str]]:
    if not is_reflectance(sensor):
        return counts_of(where, says, stored, sample, sensor)
    conversion, read_as = conversion_for(where, says, stored, sample)
    return conversion, read_as + check_dn(where, conversion, says, sensor.names, sample)


def read_stored(
    sources: Sequence[Source], row_px: int, col_px: int, height_px: int, width_px: int
) -> tuple[list[Samples], Mask]:
    """Samples [b, h, w] of each file as stored, and valid bool [h, w] by the one rule."""
    stored: list[Samples] = []
    empty, usable = np.ones((height_px, width_px), bool), np.ones((height_px, width_px), bool)
    with gdal_environment():
        for source in sources:
            try:
                part, says_empty, says_usable = source.stored(row_px, col_px, height_px, width_px)
            except (RasterioError, CPLE_BaseError, OSError) as error:
                raise InputError(
                    f"{source.path}: damaged at rows {row_px} to {row_px + height_px - 1} ({cause_of(error)}); "
                    "wanted a whole file, fetch it again"
                ) from error
            stored.append(part)
            empty &= says_empty
            usable &= says_usable
    return stored, usable & ~empty


def look(sources: Sequence[Source], shape: tuple[int, int], name: str) -> tuple[list[Samples], list[str]]:
    """Measured samples [b, n] of each file from all over the scene, and what is to be said of partly empty pixels.

    InputError if nothing is measured: an empty scene is read whole before that is said.
    """
    samples: list[list[Samples]] = [[] for _ in sources]
    partly = black = counted = 0
    for window in _windows(shape, sum(len(source.indexes) for source in sources)):
        stored, valid = read_stored(sources, *window)
        for kept, part in zip(samples, stored, strict=True):
            kept.append(part[:, valid])
        partly += int(_partly_empty(sources, stored, valid).sum())
        black += int((valid & ~np.logical_or.reduce([part.any(axis=0) for part in stored])).sum())
        counted += int(valid.sum())
    if not counted:
        return [_first_measured(sources, shape, name)[k] for k in range(len(sources))], []
    notes = []
    if partly:
        notes.append(
            f"{100 * partly / counted:.2g} % of the pixels looked at hold the no-data value in some bands only: "
            "they count as measured"
        )
    if black:
        notes.append(
            f"{100 * black / counted:.2g} % of the pixels looked at are 0 in every band, where the file's no data is "
            "declared otherwise: they count as measured"
        )
    return [np.concatenate(kept, axis=1) for kept in samples], notes


def _windows(shape: tuple[int, int], bands: int) -> list[tuple[int, int, int, int]]:
    height, width = shape
    if height * width <= min(LOOK_PX, LOOK_SAMPLES // bands):
        return [(0, 0, height, width)]
    side = min(LOOK_WINDOW_PX, math.isqrt(LOOK_SAMPLES // (16 * bands)))  # 256 px of up to 16 bands
    side_y, side_x = min(height, side), min(width, side)
    middle = (height - side_y) // 2, (width - side_x) // 2
    around = [(y * (height - side_y) // 8, x * (width - side_x) // 8) for y in (1, 7) for x in (1, 7)]
    return [(top, left, side_y, side_x) for top, left in (middle, *around)]


def _first_measured(sources: Sequence[Source], shape: tuple[int, int], name: str) -> list[Samples]:
    """Samples of the first strip that has any."""
    height, width = shape
    at_once = max(1, min(LOOK_WINDOW_PX, LOOK_SAMPLES // (width * sum(len(source.indexes) for source in sources))))
    for top in range(0, height, at_once):
        stored, valid = read_stored(sources, top, 0, min(at_once, height - top), width)
        if valid.any():
            return [part[:, valid] for part in stored]
    raise InputError(f"{name}: all {height} x {width} px are no data, wanted measured pixels; check the file")


def _partly_empty(sources: Sequence[Source], stored: Sequence[Samples], valid: Mask) -> Mask:
    """Valid pixels in which some band holds its no-data value."""
    some = np.zeros(valid.shape, bool)
    for source, part in zip(sources, stored, strict=True):
        for plane, value in zip(part, source.nodata, strict=True):
            if value is not None:
                some |= _equal(plane, value)
    return some & valid


def _source(
    where: str, file: rasterio.DatasetReader, indexes: tuple[int, ...], sensor: Sensor
) -> tuple[Source, list[str]]:
    """The bands of a GeoTIFF as they are stored, and what is to be said of its mask."""
    for i in indexes:
        if np.dtype(file.dtypes[i - 1]).kind not in "uif":
            raise InputError(f"{where}: band {i} is {file.dtypes[i - 1]}, wanted whole or floating-point numbers")
    flags = file.mask_flag_enums[indexes[0] - 1]
    alphas = [i for i, meaning in enumerate(file.colorinterp, 1) if meaning == ColorInterp.alpha]
    alpha = next((i for i in alphas if i not in indexes), None)
    masked = MaskFlags.per_dataset in flags and MaskFlags.alpha not in flags
    notes = [f"layer {i} is tagged as alpha but read as a band: its zeros mask nothing" for i in alphas if i in indexes]
    nodata = tuple(file.nodatavals[i - 1] for i in indexes)
    as_stored = Conversion((1.0,) * len(indexes), (0.0,) * len(indexes))
    has_mask = masked or alpha is not None
    fills = () if has_mask else _fills(np.dtype(file.dtypes[indexes[0] - 1]), sensor)
    rows = BlockRows(file, indexes)
    return Source(where, file, rows, indexes, as_stored, nodata, fills, masked, alpha), notes


def _fills(dtype: np.dtype[Any], sensor: Sensor) -> tuple[float, ...]:
    """Of reflectance what is usual; of counts the sensor's own no-data value alone, for a camera may well count 0."""
    if is_reflectance(sensor) or dtype.kind == "f":
        return _usual_fills(dtype)
    return () if sensor.nodata is None else (sensor.nodata,)


def _usual_fills(dtype: np.dtype[Any]) -> tuple[float, ...]:
    """What people fill with who declare no no-data value: counts only where every band holds it."""
    if dtype.kind == "f":
        return (0.0, -9999.0, -32768.0)
    limits = np.iinfo(dtype)
    signed = (-9999, limits.min) if dtype.kind == "i" else ()
    return (0, *signed, limits.max) if dtype.itemsize > 1 else (0, *signed[1:])


def _dtype(source: Source) -> np.dtype[Any]:
    return np.result_type(*(source.file.dtypes[i - 1] for i in source.indexes))


def _info(name: str, source: Source, sensor: Sensor, notes: tuple[str, ...]) -> SceneInfo:
    height, width = source.file.shape
    value = source.nodata[0] if is_reflectance(sensor) else sensor.nodata_dn
    marks = value is not None and 0 <= value <= 65_535 and value == int(value)
    return SceneInfo(
        name=name, height_px=height, width_px=width, bands=sensor.names, gsd_m=0.0, bits=sensor.bits, sensor=sensor,
        sensed_at=_sensed_at(source.file), nodata=int(value) if marks and value is not None else None, notes=notes,
    )  # fmt: skip


def _sensed_at(file: rasterio.DatasetReader) -> str | None:
    """When the scene was taken, where the file says it as GDAL's IMAGERY domain and our own products do."""
    said = file.tags(ns="IMAGERY").get(TIME_TAG) or file.tags().get(TIME_TAG)
    try:
        return None if said is None or not 1958 <= datetime.fromisoformat(said).year < 2137 else said
    except ValueError:
        return None


def _equal(plane: Samples, value: float) -> Mask:
    """Where samples [h, w] hold a no-data value, NaN included."""
    if np.isnan(value):
        return np.isnan(plane) if plane.dtype.kind == "f" else np.zeros(plane.shape, bool)
    if plane.dtype.kind != "f":
        limits = np.iinfo(plane.dtype)
        if not limits.min <= value <= limits.max or value != int(value):
            return np.zeros(plane.shape, bool)
    same: Mask = plane == plane.dtype.type(value)
    return same
