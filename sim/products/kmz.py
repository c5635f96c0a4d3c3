"""A picture -> `reconstruction.kmz`: a super-overlay for a globe, with regions, and the time it was taken.

The picture is stretched to 8 bit, warped to WGS 84 and cut by GDAL's KMLSUPEROVERLAY driver. What the driver cannot say
(the time, names as they are written) is put into its files afterwards, and they are packed with fixed dates: the same
picture gives the same octets.
"""

import tempfile
import zipfile
from pathlib import Path
from xml.sax.saxutils import escape

import numpy as np
import rasterio
import rasterio.shutil
from rasterio.errors import RasterioError
from rasterio.transform import Affine
from rasterio.vrt import WarpedVRT
from rasterio.windows import Window

from payload.errors import InputError
from sim.products.band_facts import picture_layers
from sim.products.footprint import WGS84
from sim.products.quicklooks import Stretch
from sim.scenes.gdal_files import GDAL_CACHE_OCTETS, cause_of

#: Longest side of the overlay. Larger scenes are reduced to it, so that its cost does not grow with theirs.
MAX_PX = 4096
ROWS_PX = 128
FIXED_DATE = (1980, 1, 1, 0, 0, 0)


def write_kmz(picture: Path, out: Path, stretch: Stretch, name: str, about: str, sensed_at: str | None) -> None:
    """picture: a COG with a place and a mask, red, green and blue marked as such.

    InputError where it cannot be written. The driver's own file is made in the system's temporary folder, as its
    path must hold no ".zip" or ".kmz".
    """
    try:
        _write(picture, out, stretch, name, about, sensed_at)
    except (RasterioError, OSError) as error:
        raise InputError(f"{out}: cannot be written ({cause_of(error)}), wanted room on the disk") from error


def _write(picture: Path, out: Path, stretch: Stretch, name: str, about: str, sensed_at: str | None) -> None:
    with (
        tempfile.TemporaryDirectory(prefix="nadir-overlay-") as folder,
        rasterio.Env(GDAL_CACHEMAX=GDAL_CACHE_OCTETS, GDAL_NUM_THREADS="1", GDAL_PAM_ENABLED="NO"),
    ):
        flat, packed = Path(folder) / "rgba.tif", Path(folder) / "overlay.kmz"
        _flatten(picture, flat, stretch)
        with rasterio.open(flat) as source, WarpedVRT(source, crs=WGS84) as warped:
            rasterio.shutil.copy(warped, packed, driver="KMLSUPEROVERLAY", FORMAT="AUTO")
        _repack(packed, out, name, about, sensed_at)


def _flatten(picture: Path, flat: Path, stretch: Stretch) -> None:
    """An RGBA picture of 8 bit, MAX_PX at most, transparent where nothing is known."""
    with rasterio.open(picture) as source:
        step = max(1.0, max(source.shape) / MAX_PX)
        height, width = (max(1, round(side / step)) for side in source.shape)
        place, wide, high = source.transform, source.width / width, source.height / height
        scaled = Affine(place.a * wide, place.b * high, place.c, place.d * wide, place.e * high, place.f)
        with rasterio.open(
            flat, "w", driver="GTiff", height=height, width=width, count=4, dtype="uint8", crs=source.crs,
            transform=scaled, photometric="RGB", alpha="yes", tiled=True, interleave="pixel",
        ) as target:  # fmt: skip
            for top in range(0, height, ROWS_PX):
                rows = min(ROWS_PX, height - top)
                window = Window(0, top * high, source.width, rows * high)
                target.write(_shown(source, window, (rows, width), stretch), window=Window(0, top, width, rows))


def _shown(source: rasterio.DatasetReader, window: Window, shape: tuple[int, int], stretch: Stretch) -> np.ndarray:
    """uint8 [4, h, w]"""
    dn = source.read(picture_layers(source.colorinterp), window=window, out_shape=(3, *shape)).astype(np.float32)
    scaled = (dn - stretch.low[:, None, None]) / (stretch.high - stretch.low)[:, None, None]
    shown = np.empty((4, *shape), np.uint8)
    shown[:3] = np.rint(255 * np.clip(scaled, 0, 1))
    shown[3] = 255 * (source.dataset_mask(window=window, out_shape=shape) > 0)
    return shown


def _repack(packed: Path, whole: Path, name: str, about: str, sensed_at: str | None) -> None:
    with zipfile.ZipFile(packed) as source, zipfile.ZipFile(whole, "w") as target:
        for entry in sorted(source.namelist(), key=lambda entry: (entry != "doc.kml", entry)):
            if entry.endswith("/"):
                continue
            octets = source.read(entry)
            if entry.endswith(".kml"):
                octets = _mended(octets.decode(), entry, name, about, sensed_at).encode()
            kind = zipfile.ZIP_DEFLATED if entry.endswith(".kml") else zipfile.ZIP_STORED
            target.writestr(zipfile.ZipInfo(entry, FIXED_DATE), octets, kind)


def _mended(text: str, entry: str, name: str, about: str, sensed_at: str | None) -> str:
    """A KML file with its name, and the time in its document and in every overlay."""
    stamp = f"<TimeStamp><when>{escape(sensed_at)}</when></TimeStamp>" if sensed_at is not None else ""
    said = escape(name) if entry == "doc.kml" else entry
    head, _, rest = text.partition("<Document>")
    for old in ("name", "description"):
        before, opened, behind = rest.partition(f"<{old}>")
        rest = before + (behind.partition(f"</{old}>")[2] if opened else "")
    front = f"<name>{said}</name>"
    if entry == "doc.kml":
        front += f"<description>{escape(about)}</description>"
    return f"{head}<Document>{front}{stamp}{rest.replace('<GroundOverlay>', f'<GroundOverlay>{stamp}')}"
