"""A place on disk -> a scene that is read in windows: GeoTIFF/COG, Sentinel-2 product, or the generated `demo`.

Whatever the source, what comes out is DN = reflectance x 10 000 as uint16, offsets removed, bands in the order asked
for. A pixel is valid where every band asked for was measured.
"""

import math
import re
import threading
import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol, Self

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.enums import MaskFlags
from rasterio.errors import NotGeoreferencedWarning, RasterioError

from payload.errors import InputError
from payload.scene import RGBN, Dn, Mask, Scene, SceneInfo
from sim.scenes.block_rows import BlockRows
from sim.scenes.demo import demo_scene
from sim.scenes.sentinel2 import looks_like_safe, read_safe

#: GDAL would take a twentieth of the machine's memory. Blocks worth keeping are kept by `sim.scenes.block_rows`.
GDAL_CACHE_OCTETS = 48 * 2**20
#: A file whose smallest readable unit is larger than this cannot be read in windows.
BLOCK_LIMIT_OCTETS = 256 * 2**20
#: Assumed where a file has no georeference: the pixel of Sentinel-2's 10 m bands.
ASSUMED_GSD_M = 10.0
#: Reflectance 1.
DN_PER_REFLECTANCE = 10_000

#: Names in use -> Sentinel-2 names.
ALIASES = {
    "COASTAL": "B01", "BLUE": "B02", "GREEN": "B03", "RED": "B04", "NIR": "B08", "NIR1": "B08", "NEAR INFRARED": "B08",
    "NIR08": "B8A", "SWIR16": "B11", "SWIR22": "B12",
}  # fmt: skip
BAND_NAMES = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B10", "B11", "B12")


class OpenScene(Scene, Protocol):
    """A scene that holds files open until it is closed."""

    def close(self) -> None: ...
    def __enter__(self) -> Self: ...
    def __exit__(self, *failure: object) -> None: ...


def gdal_environment() -> rasterio.Env:
    """GDAL with a bounded block cache.

    One thread: with more, it logs damage in JPEG 2000 and gives zeros instead of raising (GDAL 3.10).
    """
    return rasterio.Env(GDAL_CACHEMAX=GDAL_CACHE_OCTETS, GDAL_NUM_THREADS="1", GDAL_PAM_ENABLED="NO")


def open_scene(
    where: str, bands: tuple[str, ...] | None = None, wanted: tuple[str, ...] = RGBN, seed: int = 0
) -> OpenScene:
    """Opens `demo` (`demo:SIZE` for SIZE x SIZE px), a GeoTIFF/COG, or a Sentinel-2 product (.SAFE directory or .zip).

    `bands` names the bands of a GeoTIFF whose descriptions do not; "-" skips one. `wanted` is what the scene will have,
    in that order. `seed` is the generated scene's. Raises InputError for all that cannot be used; reading does so for
    damage met later.
    """
    wanted = tuple(_canonical(where, name) for name in wanted)
    if bands is not None and (where.split(":")[0] == "demo" or looks_like_safe(Path(where))):
        raise InputError(f"{where}: names its own bands, so --bands has no use here; leave it out")
    if where.split(":")[0] == "demo" and not Path(where).exists():
        return _open_demo(where, wanted, seed)
    path = Path(where)
    if not path.exists():
        raise InputError(f"{where}: not found, wanted a GeoTIFF, a Sentinel-2 .SAFE or .zip, or `demo`")
    scene = _open_safe(path, wanted) if looks_like_safe(path) else _open_raster(path, bands, wanted)
    try:
        _refuse_all_nodata(scene)
    except InputError:
        scene.close()
        raise
    return scene


@dataclass(frozen=True, eq=False)
class _Source:
    """Bands of one file. DN = (raw + offset) x gain."""

    path: str
    file: rasterio.DatasetReader
    rows: BlockRows
    indexes: tuple[int, ...]  # from 1
    nodata: int | None
    offsets: tuple[float, ...]
    gains: tuple[float, ...]
    masked: bool  # the file carries a mask band

    def read(self, row_px: int, col_px: int, height_px: int, width_px: int) -> tuple[Dn, Mask]:
        """dn uint16 [b, h, w], valid bool [h, w]."""
        raw = self.rows.read(row_px, col_px, height_px, width_px)  # [b, h, w]
        if self.nodata is not None:
            valid = (raw != self.nodata).all(axis=0)
        elif self.masked:
            valid = np.ones(raw.shape[1:], bool)
        else:
            valid = raw.any(axis=0)  # no data declared: Sentinel-2's rule, 0 in every band
        if self.masked:
            window = (row_px, row_px + height_px), (col_px, col_px + width_px)
            valid &= (self.file.read_masks(self.indexes, window=window) > 0).all(axis=0)
        for plane, offset, gain in zip(raw, self.offsets, self.gains, strict=True):
            _rescale(plane, offset, gain)
        return raw, valid


class RasterScene:
    """A scene in one or several files of one grid. Reads are safe from several threads, one at a time."""

    def __init__(self, info: SceneInfo, sources: tuple[_Source, ...]) -> None:
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
        dn: list[Dn] = []
        valid = np.ones((height_px, width_px), bool)
        with self._lock, gdal_environment():
            for source in self._sources:
                try:
                    part, measured = source.read(row_px, col_px, height_px, width_px)
                except (RasterioError, OSError) as error:
                    raise InputError(
                        f"{source.path}: damaged at rows {row_px} to {row_px + height_px - 1} ({cause_of(error)}); "
                        "wanted a whole file, fetch it again"
                    ) from error
                dn.append(part)
                valid &= measured
        return (dn[0] if len(dn) == 1 else np.concatenate(dn)), valid

    def close(self) -> None:
        for source in self._sources:
            source.file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *failure: object) -> None:
        self.close()


def _rescale(plane: NDArray[np.uint16], offset: float, gain: float) -> None:
    """DN = (raw + offset) x gain in place, clipped to 0..65535. plane uint16 [h, w]."""
    if gain == 1.0 and offset == int(offset) <= 0:
        np.maximum(plane, np.uint16(-offset), out=plane)
        np.subtract(plane, np.uint16(-offset), out=plane)
    else:
        np.copyto(plane, np.clip(np.rint((plane + np.float64(offset)) * gain), 0, 65535), casting="unsafe")


def _open_demo(where: str, wanted: tuple[str, ...], seed: int) -> OpenScene:
    if wanted != RGBN:
        raise InputError(f"{where}: has the bands {', '.join(RGBN)}, wanted {', '.join(wanted)}")
    if where == "demo":
        return demo_scene(seed=seed)
    size = where.removeprefix("demo:")
    if not size.isascii() or not size.isdigit() or not 64 <= int(size) <= 20_000:
        raise InputError(f"{where}: wanted `demo` or `demo:SIZE` with SIZE of 64 to 20000 px, as in demo:10980")
    return demo_scene(int(size), int(size), seed)


def _open_safe(path: Path, wanted: tuple[str, ...]) -> RasterScene:
    product = read_safe(path, wanted)
    sources: list[_Source] = []
    try:
        for band in wanted:
            file = _open_file(product.images[band], "JP2OpenJPEG")
            offset, gain = product.offsets[band], DN_PER_REFLECTANCE / product.quantification
            rows = BlockRows(file, (1,))
            sources.append(_Source(product.images[band], file, rows, (1,), product.nodata, (offset,), (gain,), False))
            _check_raster(sources[-1])
            if file.shape != sources[0].file.shape:
                raise InputError(
                    f"{path}: {band} has {file.shape} px, {wanted[0]} {sources[0].file.shape}, wanted one grid; "
                    "download the product again"
                )
    except InputError:
        for source in sources:
            source.file.close()
        raise
    info = replace(_info(product.name, sources[0].file, wanted), sensed_at=product.sensed_at, nodata=product.nodata)
    return RasterScene(info, tuple(sources))


def _open_raster(path: Path, bands: tuple[str, ...] | None, wanted: tuple[str, ...]) -> RasterScene:
    file = _open_file(str(path), "GTiff")
    try:
        indexes = _choose_bands(str(path), file, bands, wanted)
        scale = [(file.scales[index - 1], file.offsets[index - 1]) for index in indexes]
        source = _Source(
            path=str(path),
            file=file,
            rows=BlockRows(file, indexes),
            indexes=indexes,
            nodata=_nodata(file),
            offsets=tuple(0.0 if scale == (1.0, 0.0) else offset / gain for gain, offset in scale),
            gains=tuple(1.0 if (gain, offset) == (1.0, 0.0) else gain * DN_PER_REFLECTANCE for gain, offset in scale),
            masked=any(MaskFlags.per_dataset in file.mask_flag_enums[index - 1] for index in indexes),
        )
        _check_raster(source)
    except InputError:
        file.close()
        raise
    return RasterScene(_info(path.stem, file, wanted), (source,))


def _open_file(path: str, driver: str) -> rasterio.DatasetReader:
    try:
        with gdal_environment(), warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            return rasterio.open(path, driver=driver)
    except (RasterioError, OSError) as error:
        raise InputError(
            f"{path}: not readable ({cause_of(error)}), wanted GeoTIFF, COG or Sentinel-2 product"
        ) from error


def _check_raster(source: _Source) -> None:
    for index in source.indexes:
        dtype = source.file.dtypes[index - 1]
        if dtype != "uint16":
            raise InputError(
                f"{source.path}: band {index} is {dtype}, wanted uint16 with DN = reflectance x {DN_PER_REFLECTANCE}; "
                "convert it with gdal_translate -ot UInt16 -scale"
            )
        block = source.file.block_shapes[index - 1]
        if 2 * math.prod(block) * len(source.indexes) > BLOCK_LIMIT_OCTETS:
            raise InputError(
                f"{source.path}: stored in blocks of {block[0]} x {block[1]} px, too large to read in windows; "
                "rewrite it with gdal_translate -of COG"
            )


def _choose_bands(
    path: str, file: rasterio.DatasetReader, bands: tuple[str, ...] | None, wanted: tuple[str, ...]
) -> tuple[int, ...]:
    """Indexes (from 1) of the wanted bands in a file."""
    if bands is not None:
        if len(bands) != file.count:
            raise InputError(
                f"{path}: --bands names {len(bands)} of {file.count} bands; name all in the file's order, - to skip one"
            )
        names: list[str | None] = [None if name.strip() == "-" else _canonical(path, name) for name in bands]
    else:
        names = [_known_name(text or "") for text in file.descriptions]
    for band in wanted:
        if names.count(band) > 1:
            raise InputError(f"{path}: {names.count(band)} bands are called {band}, wanted one; name them with --bands")
    missing = [band for band in wanted if band not in names]
    if missing:
        raise InputError(_missing_bands(path, file, names, missing, wanted))
    return tuple(names.index(band) + 1 for band in wanted)


def _missing_bands(
    path: str, file: rasterio.DatasetReader, names: list[str | None], missing: list[str], wanted: tuple[str, ...]
) -> str:
    short = [f"{band} (near infrared)" if band == "B08" else band for band in missing]
    found = ", ".join(name for name in names if name) or "none with a known name"
    if file.count < len(wanted):
        return f"{path}: has {file.count} band(s) ({found}), wanted {', '.join(wanted)}; stack them in one file"
    example = ",".join((*wanted, *["-"] * (file.count - len(wanted))))
    return (
        f"{path}: no {', '.join(short)} among its {file.count} bands ({found}); "
        f"name them in the file's order, as in --bands {example}"
    )


def _canonical(where: str, name: str) -> str:
    known = _known_name(name)
    if known is None:
        raise InputError(
            f"{where}: unknown band {name.strip()!r}, wanted of {', '.join(BAND_NAMES)} or blue, green, red, nir"
        )
    return known


def _known_name(text: str) -> str | None:
    """Sentinel-2 name of a band description (B2, b02, "B2, central wavelength 490 nm", blue); None if it has none."""
    head = re.split(r"[,;(]", text)[0].strip().upper().replace("_", " ")
    number = re.fullmatch(r"(?:BAND ?|B)0*(\d{1,2}A?)", head)
    name = f"B{number[1].zfill(2)}" if number else ALIASES.get(head)
    return name if name in BAND_NAMES else None


def _nodata(file: rasterio.DatasetReader) -> int | None:
    value = file.nodata
    return int(value) if value is not None and 0 <= value <= 65535 and value == int(value) else None


def _info(name: str, file: rasterio.DatasetReader, bands: tuple[str, ...]) -> SceneInfo:
    placed = file.crs is not None or not file.transform.is_identity
    return SceneInfo(
        name=name,
        height_px=file.height,
        width_px=file.width,
        bands=bands,
        gsd_m=_gsd_m(file) if placed else ASSUMED_GSD_M,
        crs_wkt=file.crs.to_wkt() if file.crs else None,
        transform=tuple(file.transform)[:6] if placed else None,
        nodata=_nodata(file),
    )


def _gsd_m(file: rasterio.DatasetReader) -> float:
    """Side in metres of a square of the pixel's area; degrees are converted at the middle of the scene."""
    side = math.sqrt(abs(file.transform.determinant))
    if file.crs is None:
        return side
    if not file.crs.is_geographic:
        return side * file.crs.linear_units_factor[1]
    _, south_edge, _, north_edge = file.bounds
    phi = math.radians((south_edge + north_edge) / 2)
    # Metres per degree on WGS 84, series of the meridian and of the parallel.
    along = 111132.954 - 559.822 * math.cos(2 * phi) + 1.175 * math.cos(4 * phi)
    across = 111412.84 * math.cos(phi) - 93.5 * math.cos(3 * phi) + 0.118 * math.cos(5 * phi)
    return side * math.sqrt(along * across)


def _refuse_all_nodata(scene: RasterScene) -> None:
    """Stops at the first valid pixel: nearly always in the block in the middle; only an empty scene is read whole."""
    info = scene.info
    side = 256
    row, col = max(0, (info.height_px - side) // 2), max(0, (info.width_px - side) // 2)
    if scene.read(row, col, min(side, info.height_px), min(side, info.width_px))[1].any():
        return
    for top in range(0, info.height_px, side):
        if scene.read(top, 0, min(side, info.height_px - top), info.width_px)[1].any():
            return
    raise InputError(
        f"{info.name}: all {info.height_px} x {info.width_px} px are no data, wanted measured pixels; check the file"
    )


def cause_of(error: BaseException) -> str:
    """The innermost message of an error on one line: rasterio's own only points to it."""
    while error.__cause__ is not None:
        error = error.__cause__
    return " ".join(str(error).split())
