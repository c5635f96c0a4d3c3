"""A Sentinel-1 GRD product (SAFE) -> sigma nought in dB as counts of its sensor, noise removed, in windows.

    sigma nought = max(DN^2 - noise, 0) / A^2,   count = (10 log10(sigma nought) - offset) / scale

A is the calibration table's `sigmaNought`, noise that of range times that of azimuth, both interpolated linearly
between their entries (ESA, Sentinel-1 Product Specification, S1-RS-MDA-52-7441, calibration and noise annotation;
radiometric calibration of level 1, ESA-EOPG-CSCOP-TN-0002). DN 0 is no data. What falls to 0 or below becomes the
lowest count.
"""

import math
import threading
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path, PurePosixPath
from typing import Self
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray
from rasterio.errors import RasterioError

from payload.errors import InputError
from payload.scene import Dn, Mask, SceneInfo
from payload.sensor import Sensor
from sim.scenes.block_rows import BlockRows
from sim.scenes.gdal_files import cause_of, check_size, gdal_environment, open_file
from sim.scenes.place import place_of
from sim.scenes.safe.files import ProductFiles, parse_xml

F64 = NDArray[np.float64]
MOST_VECTORS, MOST_ENTRIES = 100_000, 100_000


@dataclass(frozen=True, eq=False)
class Table:
    """A look-up table of a product: at some lines, values at some pixels; linear in between, level beyond."""

    lines: F64  # [n], rising
    pixels: tuple[F64, ...]  # of each line
    values: tuple[F64, ...]

    def at(self, rows: F64, cols: F64) -> F64:
        """Values [h, w] at whole rows [h] and columns [w]."""
        last = len(self.lines) - 1
        below = np.clip(np.searchsorted(self.lines, rows, side="right") - 1, 0, last)
        above = np.minimum(below + 1, last)
        needed = np.unique(np.concatenate([below, above]))
        across = np.stack([np.interp(cols, self.pixels[n], self.values[n]) for n in needed])  # [needed, w]
        low, high = across[np.searchsorted(needed, below)], across[np.searchsorted(needed, above)]
        span = np.maximum(self.lines[above] - self.lines[below], 1.0)
        share = np.clip((rows - self.lines[below]) / span, 0.0, 1.0)[:, None]
        return low + share * (high - low)


@dataclass(frozen=True, eq=False)
class Swath:
    """What the noise of range is multiplied by in a block of a picture."""

    rows: tuple[int, int]  # first and last
    cols: tuple[int, int]
    lines: F64
    values: F64


@dataclass(frozen=True, eq=False)
class Polarisation:
    path: str
    rows: BlockRows
    amplitude: Table
    noise: Table
    swaths: tuple[Swath, ...]

    def sigma_nought(self, stored: F64, row_px: int, col_px: int) -> F64:
        """Of samples [h, w] at this place of the picture."""
        rows, cols = (np.arange(first, first + n, dtype=np.float64) for first, n in
                      zip((row_px, col_px), stored.shape, strict=True))  # fmt: skip
        noise = self.noise.at(rows, cols) * self._azimuth(rows, cols)
        return np.maximum(stored**2 - noise, 0.0) / self.amplitude.at(rows, cols) ** 2

    def _azimuth(self, rows: F64, cols: F64) -> F64:
        """Factors [h, w]; 1 where the product has none, as before March 2018."""
        factor = np.ones((len(rows), len(cols)))
        for swath in self.swaths:
            here = [(at >= first) & (at <= last) for at, (first, last) in ((rows, swath.rows), (cols, swath.cols))]
            if here[0].any() and here[1].any():
                factor[np.ix_(*here)] = np.interp(rows[here[0]], swath.lines, swath.values)[:, None]
        return factor


class GrdScene:
    """A scene of one or two polarisations. Reads are safe from several threads, one at a time."""

    def __init__(self, info: SceneInfo, bands: tuple[Polarisation, ...], files: tuple[object, ...]) -> None:
        self.info, self._bands, self._files, self._lock = info, bands, files, threading.Lock()

    def read(self, row_px: int, col_px: int, height_px: int, width_px: int) -> tuple[Dn, Mask]:
        """dn uint16 [B, h, w] and valid bool [h, w]. Raises InputError where a file is damaged."""
        stored = [self._stored(band, row_px, col_px, height_px, width_px) for band in self._bands]
        valid = np.logical_and.reduce([plane > 0 for plane in stored])
        pairs = zip(self._bands, stored, strict=True)
        return np.stack([self._counts(band.sigma_nought(plane, row_px, col_px)) for band, plane in pairs]), valid

    def _counts(self, sigma: F64) -> Dn:
        sensor = self.info.sensor
        lowest = (sensor.nodata_dn or 0) + 1
        db = 10.0 * np.log10(np.maximum(sigma, 1e-30))
        counts = np.rint((db - sensor.offset) / sensor.scale - sensor.lowest)
        return np.clip(counts, lowest, sensor.highest_dn).astype(np.uint16)

    def _stored(self, band: Polarisation, *window: int) -> F64:
        with self._lock, gdal_environment():
            try:
                return band.rows.read(*window)[0].astype(np.float64)
            except (RasterioError, OSError) as error:
                raise InputError(
                    f"{band.path}: damaged at rows {window[0]} to {window[0] + window[2] - 1} ({cause_of(error)}); "
                    "wanted a whole file, download the product again"
                ) from error

    def close(self) -> None:
        for file in self._files:
            file.close()  # type: ignore[attr-defined]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *failure: object) -> None:
        self.close()


def is_grd(files: ProductFiles) -> bool:
    """Whether these are the files of a Sentinel-1 product with measurements in GeoTIFF."""
    return any("measurement" in PurePosixPath(name.casefold()).parts for name in files.names())


def open_grd(path: Path, files: ProductFiles, sensor: Sensor, max_pixels: int) -> GrdScene:
    """Raises InputError where the product or the sensor cannot be used."""
    if sensor.kind != "radar" or sensor.unit != "dB":
        raise InputError(
            f"{path}: is a product of Sentinel-1, wanted a scene of sensor {sensor.name}; fly a bundle of radar in dB "
            "(sensor sentinel1-grd), or give another scene"
        )
    opened, bands = [], []
    try:
        for band in sensor.bands:
            where = _measurement(path, files, band.role or band.name)
            opened.append(open_file(files.gdal_path(where), "GTiff", "a measurement of Sentinel-1 GRD"))
            check_size(files.gdal_path(where), opened[-1], (1,), max_pixels)
            _check_measurement(path, where, opened[-1], opened[0])
            bands.append(_polarisation(path, files, where, BlockRows(opened[-1], (1,)), files.gdal_path(where)))
        annotation = parse_xml(path, files, _beside(path, files, where, "annotation", ""))
        info = _info(path, annotation, opened[0].shape, sensor)
        place = place_of(str(path), opened[0])
        spacing = _number(path, annotation, "rangePixelSpacing")
        return GrdScene(replace(place, gsd_m=spacing).on(info), tuple(bands), tuple(opened))
    except (InputError, RasterioError):
        for file in opened:
            file.close()
        raise


def _check_measurement(path: Path, where: str, file: object, first: object) -> None:
    shape, dtypes = file.shape, file.dtypes  # type: ignore[attr-defined]
    if dtypes != ("uint16",) or shape != first.shape:  # type: ignore[attr-defined]
        raise InputError(
            f"{path}: {PurePosixPath(where).name} is {', '.join(dtypes)} {list(shape)}, wanted uint16 on one grid "
            "(GRD, detected amplitude); take a GRD product, or download it again"
        )


def _info(path: Path, annotation: ElementTree.Element, shape: tuple[int, int], sensor: Sensor) -> SceneInfo:
    kind = annotation.findtext(".//productType", "")
    if kind != "GRD":
        raise InputError(f"{path}: its annotation says product type {kind!r}, wanted GRD; take the GRD product")
    start = annotation.findtext(".//startTime", "")
    said = "sigma nought in dB from the calibration and noise tables, in counts of " + sensor.name
    return SceneInfo(
        path.name.removesuffix(".SAFE").removesuffix(".zip"), *shape, sensor.names, 0.0, sensor.bits,
        f"{start}Z" if start and not start.endswith("Z") else start or None, nodata=sensor.nodata_dn, notes=(said,),
        sensor=sensor,
    )  # fmt: skip


def _polarisation(path: Path, files: ProductFiles, where: str, rows: BlockRows, name: str) -> Polarisation:
    calibration = parse_xml(path, files, _beside(path, files, where, "calibration", "calibration-"))
    noise = parse_xml(path, files, _beside(path, files, where, "calibration", "noise-"))
    amplitude = _table(path, calibration, "calibrationVector", "sigmaNought")
    if any(values.min() <= 0 for values in amplitude.values):
        raise InputError(f"{path}: sigmaNought of 0 or below in its calibration; download the product again")
    tag, values = ("noiseRangeVector", "noiseRangeLut")
    if noise.find(f".//{tag}") is None:  # before March 2018
        tag, values = ("noiseVector", "noiseLut")
    swaths = tuple(_swath(path, vector) for vector in noise.iter("noiseAzimuthVector"))
    return Polarisation(name, rows, amplitude, _table(path, noise, tag, values), swaths)


def _table(path: Path, root: ElementTree.Element, tag: str, values: str) -> Table:
    vectors = list(root.iter(tag))[:MOST_VECTORS]
    if not vectors:
        raise InputError(f"{path}: no {tag} in its calibration or noise file; download the product again")
    lines = np.array([_number(path, vector, "line") for vector in vectors])
    pixels = tuple(_numbers(path, vector, "pixel") for vector in vectors)
    table = Table(lines, pixels, tuple(_numbers(path, vector, values) for vector in vectors))
    if any(len(a) != len(b) for a, b in zip(table.pixels, table.values, strict=True)) or not _rise((lines, *pixels)):
        raise InputError(f"{path}: {tag} does not have a {values} for each of its pixels; download the product again")
    return table


def _swath(path: Path, vector: ElementTree.Element) -> Swath:
    corners = [int(_number(path, vector, tag)) for tag in
               ("firstAzimuthLine", "lastAzimuthLine", "firstRangeSample", "lastRangeSample")]  # fmt: skip
    lines, values = _numbers(path, vector, "line"), _numbers(path, vector, "noiseAzimuthLut")
    if len(lines) != len(values) or not _rise((lines,)):
        raise InputError(f"{path}: noiseAzimuthLut does not fit its lines; download the product again")
    return Swath((corners[0], corners[1]), (corners[2], corners[3]), lines, values)


def _rise(series: tuple[F64, ...]) -> bool:
    return all(len(one) and all(a < b for a, b in pairwise(one.tolist())) for one in series)


def _numbers(path: Path, root: ElementTree.Element, tag: str) -> F64:
    text = root.findtext(f".//{tag}", "")
    try:
        found = np.array(text.split()[:MOST_ENTRIES], float)
        if found.size and np.isfinite(found).all():
            return found
    except ValueError:
        pass
    raise InputError(f"{path}: {tag} is {text[:40]!r} in the metadata, wanted numbers; download the product again")


def _number(path: Path, root: ElementTree.Element, tag: str) -> float:
    found = float(_numbers(path, root, tag)[0])
    if not math.isfinite(found):
        raise InputError(f"{path}: {tag} is {found}, wanted a number; download the product again")
    return found


def _measurement(path: Path, files: ProductFiles, polarisation: str) -> str:
    names = [name for name in files.names() if PurePosixPath(name).parent.name.casefold() == "measurement"]
    found = [name for name in names if f"-{polarisation.casefold()}-" in PurePosixPath(name).name.casefold()]
    if len(found) != 1:
        held = sorted({PurePosixPath(name).name.split("-")[3] for name in names if name.count("-") > 3})
        raise InputError(
            f"{path}: {len(found)} measurements of {polarisation.upper()} (it has "
            f"{', '.join(held).upper() or 'none'}), wanted one; "
            "take a product of this polarisation, or a sensor file and bundle of what it has"
        )
    return found[0]


def _beside(path: Path, files: ProductFiles, measurement: str, folder: str, prefix: str) -> str:
    """The XML file of a measurement in annotation/ or annotation/calibration/."""
    stem = prefix + PurePosixPath(measurement).stem.casefold()
    for name in files.names():
        place = PurePosixPath(name.casefold())
        if place.parent.name == folder and place.name == f"{stem}.xml":
            return name
    raise InputError(f"{path}: {stem}.xml is missing from {folder}, wanted a whole product; download it again")
