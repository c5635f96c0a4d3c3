"""Raster files through GDAL: opened read-only with bounded memory, refused in one line where they cannot be used."""

import logging
import math
import os
import stat
import warnings
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import rasterio
from rasterio.errors import NotGeoreferencedWarning, RasterioError

from payload.errors import InputError
from sim.scenes.block_rows import unit_px
from sim.scenes.radiometry import MAX_PIXELS

#: GDAL would take a twentieth of the machine's memory. This is a row of blocks of a product of 10 980 px; others worth
#: keeping are kept by `sim.scenes.block_rows`.
GDAL_CACHE_OCTETS = 64 * 2**20
os.environ.setdefault("GDAL_CACHEMAX", str(GDAL_CACHE_OCTETS))  # outside of an environment of ours, too
#: A row of blocks is held while strips pass through it; this is what it may take.
STRIP_LIMIT_OCTETS = 256 * 2**20
#: A file whose pixels take this many times its own octets holds nearly nothing, or is meant to exhaust the reader.
EXPANSION_LIMIT = 256
#: Below this size a file that expands strongly does no harm.
EXPANSION_FREE_PIXELS = 2**26
#: Characters of a library's message that a line of ours repeats.
MOST_OF_A_CAUSE = 160

# What GDAL has to say reaches the user in our own errors; its log lines come with -v only.
logging.getLogger("rasterio").addHandler(logging.NullHandler())


def gdal_environment() -> rasterio.Env:
    """GDAL with a bounded block cache; sidecar files (.aux.xml) are read.

    Nothing here makes GDAL compute statistics, so it has no reason to write a sidecar. One thread: with more, it logs
    damage in JPEG 2000 and gives zeros instead of raising (GDAL 3.10).
    """
    return rasterio.Env(
        GDAL_CACHEMAX=GDAL_CACHE_OCTETS,
        GDAL_NUM_THREADS="1",
        GDAL_PAM_ENABLED="YES",
        GDAL_DISABLE_READDIR_ON_OPEN="FALSE",
    )


def open_file(path: str, driver: str, wanted: str, name: str | None = None) -> rasterio.DatasetReader:
    """Opens a raster read-only, or the dataset in it that GDAL calls `name`. InputError where it is not of GDAL's
    format `driver`; `wanted` is for the message."""
    try:
        if not path.startswith("/vsi") and not stat.S_ISREG(Path(path).stat().st_mode):
            raise InputError(f"{path}: is no regular file, wanted {wanted}")
        with gdal_environment(), warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            return rasterio.open(name or path, driver=driver)
    except (RasterioError, OSError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: not readable ({cause_of(error)}), wanted {wanted}") from error


def check_size(path: str, file: rasterio.DatasetReader, indexes: tuple[int, ...], max_pixels: int) -> None:
    """InputError where a scene has more pixels than allowed, holds nearly nothing, or wants too much memory."""
    height, width = file.shape
    pixels = height * width
    shape = f"{path}: {height} x {width} px"
    if pixels > max_pixels:
        raise InputError(f"{shape}, wanted at most {max_pixels}; allow it with --max-pixels {pixels}")
    octets_px = sum(_sample_octets(file.dtypes[index - 1]) for index in indexes)
    size = _stored_octets(path)
    if pixels > EXPANSION_FREE_PIXELS and max_pixels == MAX_PIXELS and size * EXPANSION_LIMIT < pixels * octets_px:
        raise InputError(
            f"{shape} in a file of {size} octets: nearly empty, or made to exhaust its reader; "
            f"allow it with --max-pixels {pixels}"
        )
    blocks = [file.block_shapes[index - 1] for index in indexes]
    unit = unit_px(max(block[0] for block in blocks))
    if unit * width * octets_px > STRIP_LIMIT_OCTETS:
        fitting = max(256, STRIP_LIMIT_OCTETS // (256 * octets_px))
        if width <= fitting:  # the blocks are too high
            raise InputError(
                f"{path}: stored in blocks of {blocks[0][0]} x {blocks[0][1]} px, too large to read in windows; "
                f"rewrite it with: gdal_translate -of COG {path} smaller-blocks.tif"
            )
        raise InputError(
            f"{shape}: a strip of it takes {unit * width * octets_px / 2**20:.0f} MiB, wanted at most "
            f"{STRIP_LIMIT_OCTETS // 2**20}; cut it with: "
            f"gdal_translate -of COG -srcwin 0 0 {fitting} {height} {path} part.tif"
        )


def scale_and_offset(file: rasterio.DatasetReader, layer: int) -> tuple[float, float]:
    """Of one layer, as GDAL reads them, else by the names of netCDF (CF), which xarray leaves among a file's tags."""
    scale, offset = file.scales[layer - 1], file.offsets[layer - 1]
    tags = file.tags() | file.tags(layer)
    if (scale, offset) == (1.0, 0.0) and tags.keys() & {"scale_factor", "add_offset"}:
        return _number(tags.get("scale_factor", "1")), _number(tags.get("add_offset", "0"))
    return scale, offset


def _number(text: str) -> float:
    """NaN for what is no number: it is refused as a scale of NaN is."""
    try:
        return float(text)
    except ValueError:
        return math.nan


def broken_sidecar(path: str) -> list[str]:
    """What is to be said where a file's .aux.xml cannot be read: GDAL goes on without it, and without a word."""
    sidecar = Path(f"{path}.aux.xml")
    try:
        if sidecar.is_file():
            ElementTree.parse(sidecar)
    except (ElementTree.ParseError, OSError, ValueError) as error:
        return [f"{sidecar.name} is left out with all that it says: not readable as XML ({cause_of(error)})"]
    return []


def cause_of(error: BaseException) -> str:
    """The innermost message of an error on one line: rasterio's own only points to it. Cut off where a library repeats
    the file's octets in it."""
    while error.__cause__ is not None:
        error = error.__cause__
    return " ".join(str(error).split())[:MOST_OF_A_CAUSE]


def _sample_octets(dtype: str) -> int:
    return np.dtype(dtype).itemsize


def _stored_octets(path: str) -> int:
    """Size of a file; of one in a zip, what it takes there is not known: infinite."""
    return 2**62 if path.startswith("/vsi") else Path(path).stat().st_size
