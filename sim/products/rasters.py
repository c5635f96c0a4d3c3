"""Pictures on the ground -> rasters on the scene's grid, written strip by strip: `reconstruction.tif`, `cloud.tif`,
`cloud-onboard.tif`, `provenance.tif`, and `overruled.tif` of an archive-aided picture.

All are Cloud Optimized GeoTIFFs. Strips go into an uncompressed tiled GeoTIFF in a hidden folder beside the target; at
the end GDAL's COG driver adds the overviews and the finished file is moved into place. Whatever goes wrong before that
leaves nothing behind. Memory is one strip and GDAL's bounded cache, whatever the scene's size.
"""

import shutil
import tempfile
import warnings
from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack
from functools import partial
from pathlib import Path
from typing import Any, Self

import numpy as np
import rasterio
import rasterio.shutil
from numpy.typing import NDArray
from rasterio.control import GroundControlPoint
from rasterio.enums import Resampling
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.rpc import RPC
from rasterio.transform import Affine
from rasterio.windows import Window

from payload.errors import InputError
from payload.scene import Dn, Mask, Scene, SceneInfo, spectra
from payload.sensor import Sensor
from sim.products.band_facts import band_tags, colours
from sim.products.origin import UNKNOWN, Origin
from sim.products.provenance import STATES
from sim.scenes.gdal_files import GDAL_CACHE_OCTETS, cause_of
from sim.spread import Spread

#: Marks no data in both cloud rasters.
CLOUD_NODATA = 255
OVERRULED_NODATA = 65_535
OVERRULED = ("DN by which what was sent overruled the archive, root mean square", "per cent of the archive followed")
#: Sides of blocks: of products, and of the strips' file, as high as the usual strip so that each is written once. Of
#: more than USUAL_BANDS they are smaller (`block_px`).
BLOCK_PX, STRIP_BLOCK_PX = 512, 256
USUAL_BANDS = 16
#: Deflate level. On noisy uint16 after the predictor, level 6 takes twice the time of level 1 and saves nothing.
DEFLATE_LEVEL = 1
ORIGINAL_FILE = "original.tif"


def block_px(side_px: int, bands: int) -> int:
    """The side of blocks of so many bands: halved until one holds no more than a block of USUAL_BANDS does. GDAL has
    several in memory when it packs a file."""
    most = USUAL_BANDS * side_px**2
    while bands * side_px**2 > most:
        side_px //= 2
    return side_px


def _writing_environment(threads: int = 1) -> rasterio.Env:
    return rasterio.Env(
        GDAL_CACHEMAX=GDAL_CACHE_OCTETS, GDAL_NUM_THREADS=str(threads), GDAL_TIFF_INTERNAL_MASK=True,
        GDAL_PAM_ENABLED="NO",
    )  # fmt: skip


def _place(info: SceneInfo) -> dict[str, Any]:
    """The scene's place as rasterio's profile takes it: a transform, or else ground control points; RPCs."""
    place: dict[str, Any] = {}
    if info.crs_wkt:
        place["crs"] = rasterio.crs.CRS.from_wkt(info.crs_wkt)
    if info.transform:
        place["transform"] = Affine(*info.transform)
    elif info.gcps:
        place["gcps"] = [GroundControlPoint(*point) for point in info.gcps]
    if info.rpcs:
        place["rpcs"] = RPC.from_gdal(dict(info.rpcs))
    return place


class _RasterWriter:
    """Strips from top to bottom -> one COG. Used as a context; leaving it by an exception writes nothing."""

    def __init__(
        self, path: Path, info: SceneInfo, bands: tuple[str, ...], dtype: str, nodata: int | None,
        classes: bool = False, threads: int = 1,
    ) -> None:  # fmt: skip
        """`classes`: the values are names, so that overviews pick one of them and average none."""
        self._path, self._threads = path, threads
        self._info, self._bands = info, len(bands)
        self._next_row_px = 0
        self._resampling = Resampling.nearest if classes else Resampling.average
        if not path.parent.is_dir():
            raise InputError(f"{path}: no folder {path.parent} to write to; make it first")
        try:
            self._folder = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
        except OSError as error:
            raise InputError(f"{path}: cannot be written ({cause_of(error)}), wanted a writable folder") from error
        try:
            self._file = self._create(bands, dtype, nodata)
        except (RasterioError, OSError) as error:
            shutil.rmtree(self._folder, ignore_errors=True)
            raise InputError(f"{path}: cannot be written ({cause_of(error)}), wanted room on the disk") from error

    def _create(self, bands: tuple[str, ...], dtype: str, nodata: int | None) -> rasterio.io.DatasetWriter:
        info = self._info
        with _writing_environment(), warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            file = rasterio.open(
                self._folder / "strips.tif",
                "w",
                **_place(info),
                driver="GTiff",
                height=info.height_px,
                width=info.width_px,
                count=len(bands),
                dtype=dtype,
                nodata=nodata,
                tiled=True,
                blockxsize=block_px(STRIP_BLOCK_PX, len(bands)),
                blockysize=block_px(STRIP_BLOCK_PX, len(bands)),
                interleave="pixel",
                bigtiff="IF_SAFER",
            )
            file.descriptions = bands
        return file

    def write(self, row_px: int, values: NDArray[np.generic], known: Mask | None) -> None:
        """values [B, h, W], known [h, W] or None for a raster without a mask; strips follow each other without gaps."""
        height = values.shape[1]
        if (
            row_px != self._next_row_px
            or row_px + height > self._info.height_px
            or values.shape[2] != self._info.width_px
        ):
            wanted = f"the whole width from row {self._next_row_px}"
            raise ValueError(f"{self._path.name}: strip {values.shape} at row {row_px}, wanted {wanted}")
        window = Window(0, row_px, self._info.width_px, height)
        try:
            with _writing_environment():
                self._file.write(values, window=window)
                if known is not None:
                    self._file.write_mask(known, window=window)
        except (RasterioError, OSError) as error:
            raise InputError(f"{self._path}: cannot be written ({cause_of(error)}), wanted room on the disk") from error
        self._next_row_px += height

    def describe(self, tags: dict[str, str], band: int | None = None) -> None:
        """Tags of the file, or of one band, counted from 1."""
        if band is None:
            self._file.update_tags(**tags)
        else:
            self._file.update_tags(band, **tags)

    def measure(self, sensor: Sensor) -> None:
        """Says what the samples are, and which colour each band is."""
        count = len(sensor.bands)
        self._file.colorinterp = colours(sensor)
        self._file.scales = (sensor.scale,) * count
        self._file.offsets = (sensor.offset + sensor.scale * sensor.lowest,) * count
        self._file.units = (sensor.unit,) * count

    def finish(self) -> None:
        """Strips -> COG -> its place."""
        if self._next_row_px != self._info.height_px:
            raise ValueError(f"{self._path.name}: {self._next_row_px} of {self._info.height_px} rows were written")
        try:
            with _writing_environment(self._threads):
                self._file.build_overviews(_overview_factors(self._info), self._resampling)
                self._file.close()
                rasterio.shutil.copy(
                    self._folder / "strips.tif",
                    self._folder / self._path.name,
                    driver="COG",
                    COMPRESS="DEFLATE",
                    LEVEL=str(DEFLATE_LEVEL),
                    PREDICTOR="YES",
                    BLOCKSIZE=str(block_px(BLOCK_PX, self._bands)),
                    BIGTIFF="IF_SAFER",
                )
            (self._folder / self._path.name).replace(self._path)
        except (RasterioError, OSError) as error:
            raise InputError(f"{self._path}: cannot be written ({cause_of(error)}), wanted room on the disk") from error

    def discard(self) -> None:
        """Removes all that is not in its place. Safe to call twice."""
        if not self._file.closed:
            with _writing_environment():
                self._file.close()
        shutil.rmtree(self._folder, ignore_errors=True)


def _overview_factors(info: SceneInfo) -> list[int]:
    """Halvings until the longer side fits a block. Made of the plain strips they take a third of the time that GDAL's
    COG driver takes for them when it packs a file."""
    return [1 << k for k in range(1, 16) if max(info.height_px, info.width_px) >> (k - 1) > BLOCK_PX]


class _Product:
    """A raster that is in its place, whole, when the context is left well, and nowhere when it is not."""

    _raster: _RasterWriter

    def __enter__(self) -> Self:
        return self

    def before_the_end(self) -> None:
        """What can be said only when all strips are written."""

    def __exit__(self, kind: type[BaseException] | None, *details: object) -> None:
        try:
            if kind is None:
                self.before_the_end()
                self._raster.finish()
        finally:
            self._raster.discard()


class AtOnce:
    """Products whose ends, where overviews are made and files packed, do not wait for each other. Used as a context."""

    def __init__(self, products: Sequence[AbstractContextManager[Any]], spread: Spread) -> None:
        self._products, self._spread = products, spread

    def __enter__(self) -> None:
        for product in self._products:
            product.__enter__()

    def __exit__(self, *details: Any) -> None:
        with ExitStack() as ends:
            for product in self._products:
                ends.callback(self._spread.aside(partial(product.__exit__, *details)))


class Statistics:
    """Least, greatest, mean and deviation of each band over what is known, from exact sums: the order of the strips
    does not matter."""

    def __init__(self, bands: int) -> None:
        self._count, self._sum, self._squares = 0, [0] * bands, [0] * bands
        self._least, self._most = [65_535] * bands, [0] * bands

    def add(self, dn: Dn, known: Mask) -> None:
        """dn uint16 [B, h, W], known bool [h, W]."""
        if not known.any():
            return
        self._count += int(known.sum())
        for band, values in enumerate(spectra(dn, known)):
            wide = values.astype(np.int64)
            self._sum[band] += int(wide.sum())
            self._squares[band] += int(wide @ wide)
            self._least[band] = min(self._least[band], int(values.min()))
            self._most[band] = max(self._most[band], int(values.max()))

    def tags(self, band: int, pixels: int) -> dict[str, str]:
        """As GDAL names them, of one band counted from 0; none where nothing is known."""
        n = self._count
        if not n:
            return {}
        variance = (n * self._squares[band] - self._sum[band] ** 2) / n**2
        figures = {"MINIMUM": self._least[band], "MAXIMUM": self._most[band], "MEAN": self._sum[band] / n,
                   "STDDEV": variance**0.5, "VALID_PERCENT": 100 * n / pixels}  # fmt: skip
        return {f"STATISTICS_{name}": f"{value:.9g}" for name, value in figures.items()}


class PictureWriter(_Product):
    """`reconstruction.tif`: uint16 DN on the scene's grid, its nodata and band names, what is known as internal mask,
    and in its tags what a GIS wants: colours, wavelengths, scale, statistics, origin.

    Raises InputError where the file cannot be written.
    """

    def __init__(self, path: Path, info: SceneInfo, origin: Origin = UNKNOWN, threads: int = 1) -> None:
        self._info, self._nodata = info, info.nodata
        self._statistics = Statistics(len(info.bands))
        self._raster = _RasterWriter(path, info, info.bands, "uint16", info.nodata, threads=threads)
        self._raster.measure(info.sensor)
        self._raster.describe(origin.tags(info))

    def write_strip(self, row_px: int, dn: Dn, known: Mask) -> None:
        """dn uint16 [B, h, W], known bool [h, W], for rows row_px .. row_px + h - 1. Strips come from top to bottom.

        Unknown pixels become nodata (0 if the scene has none). A known DN that happens to be the nodata value moves by
        one, so that readers that look at nodata instead of the mask see the pixel.
        """
        hole = 0 if self._nodata is None else self._nodata
        filled = np.where(known, dn, np.uint16(hole))
        if self._nodata is not None:
            near = hole + 1 if hole < 65535 else hole - 1
            filled[(filled == hole) & known] = near
        self._statistics.add(filled, known)
        self._raster.write(row_px, filled, known)

    def before_the_end(self) -> None:
        pixels = self._info.height_px * self._info.width_px
        for number, band in enumerate(self._info.sensor.bands):
            self._raster.describe(band_tags(band) | self._statistics.tags(number, pixels), number + 1)


def write_scene(path: Path, scene: Scene, origin: Origin = UNKNOWN) -> None:
    """A scene as it is, beside what was received of it: for a viewer that shows both."""
    info = scene.info
    with PictureWriter(path, info, origin) as writer:
        strip_px = block_px(STRIP_BLOCK_PX, len(info.bands))
        for top in range(0, info.height_px, strip_px):
            height = min(strip_px, info.height_px - top)
            writer.write_strip(top, *scene.read(top, 0, height, info.width_px))


class _CloudRaster(_Product):
    """One octet a pixel on the scene's grid; CLOUD_NODATA where there is none."""

    meaning, classes = "", False

    def __init__(self, path: Path, info: SceneInfo, origin: Origin = UNKNOWN) -> None:
        self._raster = _RasterWriter(path, info, (self.meaning,), "uint8", CLOUD_NODATA, self.classes)
        self._raster.describe(origin.tags(info))

    def write_strip(self, row_px: int, values: NDArray[np.uint8]) -> None:
        """uint8 [h, W] for rows row_px .. row_px + h - 1. Strips come from top to bottom."""
        self._raster.write(row_px, values[None], None)


class CloudProbabilityWriter(_CloudRaster):
    """`cloud-onboard.tif`: cloud probability on board, per cent 0..100. Never sent; a simulation keeps it."""

    meaning = "cloud probability on board, per cent (never sent)"


class CloudClassWriter(_CloudRaster):
    """`cloud.tif`: the ground's classes: 0 clear, 1 cloud, 2 thin cloud, 3 shadow, 4 withheld as cloud."""

    meaning, classes = "ground mask: 0 clear, 1 cloud, 2 thin cloud, 3 shadow, 4 withheld as cloud", True


class ProvenanceWriter(_Product):
    """`provenance.tif`: state of every pixel and layers received, uint8, no value of which is missing."""

    def __init__(self, path: Path, info: SceneInfo, origin: Origin = UNKNOWN) -> None:
        named = ", ".join(f"{state.value} {state.name}" for state in STATES)
        self._raster = _RasterWriter(path, info, (f"state: {named}", "layers received"), "uint8", None, classes=True)
        self._raster.describe(origin.tags(info))
        self._raster.describe({f"STATE_{state.value}": state.meaning for state in STATES}, 1)

    def write_strip(self, row_px: int, values: NDArray[np.uint8]) -> None:
        """uint8 [2, h, W] for rows row_px .. row_px + h - 1. Strips come from top to bottom."""
        self._raster.write(row_px, values, None)


class OverruledWriter(_Product):
    """`overruled.tif`: where what was sent overruled an archive, uint16; OVERRULED_NODATA where no date was at hand."""

    def __init__(self, path: Path, info: SceneInfo, origin: Origin = UNKNOWN) -> None:
        self._raster = _RasterWriter(path, info, OVERRULED, "uint16", OVERRULED_NODATA)
        self._raster.describe(origin.tags(info))

    def write_strip(self, row_px: int, values: NDArray[np.uint16]) -> None:
        """uint16 [2, h, W] for rows row_px .. row_px + h - 1. Strips come from top to bottom."""
        self._raster.write(row_px, values, None)
