"""A place on disk -> a scene that is read in windows: GeoTIFF/COG, Sentinel-2 product, or the generated `demo`.

What was applied or assumed on the way stands in `SceneInfo.notes` and is logged (docs/scenes.md).
"""

import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol, Self

import rasterio
from rasterio.crs import CRS
from rasterio.errors import CRSError, RasterioError
from rasterio.transform import Affine

from payload.errors import InputError
from payload.scene import Scene, SceneInfo
from payload.sensor import RGBN, SENTINEL2_RGBN, Sensor
from sim.scenes.block_rows import BlockRows
from sim.scenes.demo import demo_scene
from sim.scenes.gdal_files import MAX_PIXELS, check_size, gdal_environment, open_file
from sim.scenes.place import Place, place_of, placed
from sim.scenes.radiometry import DN_PER_REFLECTANCE, Conversion
from sim.scenes.rasters import RasterScene, Source, look, open_raster
from sim.scenes.sentinel2 import SafeProduct, looks_like_safe, read_safe

DEMO = "demo"
log = logging.getLogger(__name__)


class OpenScene(Scene, Protocol):
    """A scene that holds files open until it is closed."""

    def close(self) -> None: ...
    def __enter__(self) -> Self: ...
    def __exit__(self, *failure: object) -> None: ...


def open_scene(
    where: str,
    bands: tuple[str, ...] | None = None,
    sensor: Sensor = SENTINEL2_RGBN,
    seed: int = 0,
    scale: float | None = None,
    offset: float | None = None,
    max_pixels: int = MAX_PIXELS,
) -> OpenScene:
    """Opens `demo` (`demo:SIZE` for SIZE x SIZE px), a GeoTIFF/COG, or a Sentinel-2 product (.SAFE directory or .zip).

    `bands` names the bands of a GeoTIFF whose descriptions do not; "-" skips one. The scene will have the bands of
    `sensor` in that order, in its DN. `seed` is the generated scene's. `scale` and `offset` say what the numbers of a
    GeoTIFF mean (reflectance, or the sensor's unit, = stored x scale + offset), before the file's own tags. Raises
    InputError for all that cannot be used; reading does so for damage met later.
    """
    if where.split(":")[0] == DEMO:
        return _open_demo(where, sensor, seed, _given(bands, scale, offset))
    path = _existing(where)
    if not looks_like_safe(path):
        scene = open_raster(path, bands, sensor, scale, offset, max_pixels)
    elif given := _given(bands, scale, offset):
        raise InputError(f"{where}: a product names its own bands and values, so {given} has no use here; leave it out")
    else:
        scene = _open_safe(path, sensor, max_pixels)
    for note in scene.info.notes:
        log.warning("%s: %s", scene.info.name, note)
    return scene


@dataclass(frozen=True)
class Reading:
    """How the user says that rasters are to be read; the arguments of `open_scene` of these names."""

    bands: tuple[str, ...] | None = None
    scale: float | None = None
    offset: float | None = None
    max_pixels: int = MAX_PIXELS

    def open(self, where: str, sensor: Sensor = SENTINEL2_RGBN, seed: int = 0) -> OpenScene:
        return open_scene(where, self.bands, sensor, seed, self.scale, self.offset, self.max_pixels)


#: Nothing is said: files speak for themselves.
AS_STORED = Reading()


def _existing(where: str) -> Path:
    path = Path(where)
    try:
        there = path.exists()
    except (OSError, ValueError) as error:  # a name too long for the file system, or with a NUL in it
        raise InputError(f"{where[:80]}: is no path ({getattr(error, 'strerror', error)}); give one") from None
    if not there:
        raise InputError(f"{where[:200]}: not found, wanted a GeoTIFF, a Sentinel-2 .SAFE or .zip, or `demo`")
    return path


def _given(bands: tuple[str, ...] | None, scale: float | None, offset: float | None) -> str:
    """The options that only a GeoTIFF has a use for."""
    options = {"--bands": bands, "--scale": scale, "--offset": offset}
    return ", ".join(name for name, value in options.items() if value is not None)


def _open_demo(where: str, sensor: Sensor, seed: int, given: str) -> OpenScene:
    if given:
        raise InputError(f"{where}: a generated scene names its own bands, so {given} has no use here; leave it out")
    if sensor.names != RGBN:
        raise InputError(
            f"{where}: has the bands {', '.join(RGBN)}, wanted those of sensor {sensor.name}, "
            f"{', '.join(sensor.names)[:100]}; give a scene of it, or fly a bundle of four bands (--bundle edge)"
        )
    if Path(where).exists():
        log.warning("%s: the generated scene is taken; ./%s is the file or folder of that name", where, where)
    if where == DEMO:
        return demo_scene(seed=seed)
    size = where.removeprefix(f"{DEMO}:")
    if not size.isascii() or not size.isdigit() or len(size) > 5 or not 64 <= int(size) <= 20_000:
        raise InputError(
            f"{where[:80]}: wanted `demo` or `demo:SIZE` with SIZE of 64 to 20000 px, as in demo:10980; "
            f"a file of that name is ./{where[:80]}"
        )
    return demo_scene(int(size), int(size), seed)


def _open_safe(path: Path, sensor: Sensor, max_pixels: int) -> RasterScene:
    wanted = sensor.names
    product = read_safe(path, wanted)
    sources: list[Source] = []
    try:
        for band in wanted:
            sources.append(_image_of(product, band))
            check_size(sources[-1].path, sources[-1].file, (1,), max_pixels)
            if sources[-1].file.shape != sources[0].file.shape:
                raise InputError(
                    f"{path}: {band} has {sources[-1].file.shape} px, {wanted[0]} {sources[0].file.shape}, wanted one "
                    "grid; download the product again"
                )
        samples, notes = look(sources, sources[0].file.shape, product.name)
        for band, part in zip(wanted, samples, strict=True):
            share = float((part == product.saturated).mean()) if part.size else 0.0
            if share:
                notes.append(f"{band}: {100 * share:.2g} % of the samples looked at are SATURATED, and kept so")
        info = _product_info(product, sources[0].file, sensor, (*_applied(product), *notes))
        place = _place_of_product(sources[0], product)
    except (InputError, RasterioError):
        for source in sources:
            source.file.close()
        raise
    return RasterScene(place.on(info), tuple(sources))


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


def _product_info(
    product: SafeProduct, file: rasterio.DatasetReader, sensor: Sensor, notes: tuple[str, ...]
) -> SceneInfo:
    height, width = file.shape
    return SceneInfo(
        product.name, height, width, sensor.names, 0.0, sensor.bits, product.sensed_at, nodata=product.nodata,
        notes=notes, sensor=sensor,
    )  # fmt: skip


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
