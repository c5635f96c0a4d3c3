"""A SAFE product, Sentinel-1's or Sentinel-2's -> a scene. Bands of 20 and 60 m are repeated on the finest grid asked
for."""

import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from rasterio.crs import CRS
from rasterio.errors import CRSError, RasterioError
from rasterio.transform import Affine

from payload.errors import InputError
from payload.scene import SceneInfo
from payload.sensor import Sensor
from sim.scenes.block_rows import BlockRows
from sim.scenes.gdal_files import cause_of, check_size, gdal_environment, open_file
from sim.scenes.place import Place, place_of, placed
from sim.scenes.radiometry import DN_PER_REFLECTANCE, Conversion
from sim.scenes.rasters import RasterScene, Source, look
from sim.scenes.safe.files import FolderFiles, ProductFiles, ZipFiles
from sim.scenes.safe.sentinel1 import GrdScene, is_grd, open_grd
from sim.scenes.safe.sentinel2 import OLD_METADATA, SafeProduct, is_metadata, read_safe


def looks_like_safe(path: Path) -> bool:
    """Whether a path is meant as a product: a directory, a zip, or a product's metadata file."""
    named = is_metadata(path.name) or OLD_METADATA.fullmatch(path.name) or path.name.casefold() == "manifest.safe"
    return path.is_dir() or path.suffix.lower() in (".safe", ".zip") or bool(named)


def open_safe(path: Path, sensor: Sensor, max_pixels: int) -> RasterScene | GrdScene:
    """Raises InputError for all that cannot be used."""
    path = path.parent if path.is_file() and path.suffix.lower() != ".zip" else path
    with _files(path) as files:
        if is_grd(files):
            return open_grd(path, files, sensor, max_pixels)
        product = read_safe(path, files, sensor)
    return _open_sentinel2(path, product, sensor, max_pixels)


@contextmanager
def _files(path: Path) -> Iterator[ProductFiles]:
    try:
        if path.is_dir():
            yield FolderFiles(path)
            return
        with zipfile.ZipFile(path) as archive:
            yield ZipFiles(path, archive)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error}); check the path and its rights") from None
    except (zipfile.BadZipFile, zlib.error, struct.error, UnicodeDecodeError, EOFError, NotImplementedError) as error:
        why = f"broken zip ({cause_of(error)})"
        raise InputError(f"{path}: {why}, wanted a whole product; download it again") from error
    except RuntimeError as error:  # zipfile has no error of its own for a password
        raise InputError(f"{path}: is encrypted, wanted a zip without a password; give the unzipped folder") from error


def _open_sentinel2(path: Path, product: SafeProduct, sensor: Sensor, max_pixels: int) -> RasterScene:
    sources: list[Source] = []
    try:
        for band in sensor.names:
            sources.append(_image_of(product, band))
            check_size(sources[-1].path, sources[-1].file, (1,), max_pixels)
        finest = max(sources, key=lambda source: source.file.height)
        sources = [_on_grid(path, source, finest) for source in sources]
        samples, notes = look(sources, finest.file.shape, product.name)
        for band, part in zip(sensor.names, samples, strict=True):
            share = float((part == product.saturated).mean()) if part.size else 0.0
            if share:
                notes.append(f"{band}: {100 * share:.2g} % of the samples looked at are SATURATED, and kept so")
        notes = [*_applied(product), *_repeated(sensor, sources), *notes]
        height, width = finest.file.shape
        info = SceneInfo(
            product.name, height, width, sensor.names, 0.0, sensor.bits, product.sensed_at, nodata=product.nodata,
            notes=tuple(notes), sensor=sensor,
        )  # fmt: skip
        return RasterScene(_place_of_product(finest, product).on(info), tuple(sources))
    except (InputError, RasterioError):
        for source in sources:
            source.file.close()
        raise


def _on_grid(path: Path, source: Source, finest: Source) -> Source:
    """The source with how often each of its pixels is repeated, along and across."""
    repeat, left = divmod(finest.file.height, source.file.height)
    if left or source.file.width * repeat != finest.file.width:
        raise InputError(
            f"{path}: {Path(source.path).name} has {source.file.shape} px, {Path(finest.path).name} "
            f"{finest.file.shape}, wanted one grid or whole multiples; download the product again"
        )
    return replace(source, repeat=repeat)


def _repeated(sensor: Sensor, sources: list[Source]) -> list[str]:
    bands = [f"{name} ({source.repeat} x)" for name, source in zip(sensor.names, sources, strict=True)
             if source.repeat > 1]  # fmt: skip
    return [f"coarser bands are repeated on the finest grid: {', '.join(bands)}"] if bands else []


def _image_of(product: SafeProduct, band: str) -> Source:
    where = product.images[band]
    file = open_file(where, "JP2OpenJPEG" if where.lower().endswith(".jp2") else "GTiff", "a product's image")
    if file.dtypes[0] != "uint16":
        file.close()
        raise InputError(f"{where}: is {file.dtypes[0]}, wanted uint16 as in every product; download it again")
    gain = DN_PER_REFLECTANCE / product.quantification
    conversion = Conversion((gain,), (product.offsets[band] * gain,))
    return Source(where, file, BlockRows(file, (1,)), (1,), conversion, (float(product.nodata),), (), False)


def _applied(product: SafeProduct) -> list[str]:
    """What of the metadata changed the numbers, and what it should have said but does not."""
    offsets = {band: offset for band, offset in product.offsets.items() if offset}
    notes = []
    if offsets:
        same = len(set(offsets.values())) == 1 and len(offsets) == len(product.offsets)
        said = f"{next(iter(offsets.values())):g}" if same else ", ".join(f"{b} {o:g}" for b, o in offsets.items())
        notes.append(f"baseline {product.baseline}: offset {said} added to the DN, as its metadata states")
    elif product.baseline >= "04.00" and product.baseline[:1].isdigit():
        notes.append(f"baseline {product.baseline} has offsets from 04.00 on, but its metadata states none: none added")
    return notes


def _place_of_product(source: Source, product: SafeProduct) -> Place:
    """The image's own place, else the granule's as its MTD_TL.xml states it."""
    file, tile = source.file, product.tile
    if file.crs is not None or tile is None:
        return place_of(source.path, file)
    try:
        with gdal_environment():
            crs = CRS.from_user_input(tile.crs)
    except CRSError as error:
        raise InputError(f"{source.path}: MTD_TL.xml names {tile.crs!r} ({error}), wanted an EPSG code") from None
    affine = Affine(tile.dx_m, 0, tile.x_m, 0, tile.dy_m, tile.y_m)
    found = placed(source.path, crs, affine, file.shape)
    return replace(found, notes=(*found.notes, f"images without a place: {tile.crs} and corner from MTD_TL.xml"))
