"""Features on disk: `features.zarr` (a group a level, for xarray), a GeoTIFF a level, `embeddings.parquet`.

Files are written tile by tile: memory is a tile, whatever the scene's size.
"""

import importlib
import json
import warnings
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.errors import NotGeoreferencedWarning
from rasterio.transform import Affine
from rasterio.windows import Window

from payload.codec.features import FeatureLevel
from payload.errors import InputError
from payload.scene import SceneInfo
from sim.features.extract import TileFeatures
from sim.features.source import Source
from sim.products.footprint import Placed, place_corners, tile_geometry
from sim.scenes.gdal_files import GDAL_CACHE_OCTETS

ZARR, PARQUET = "features.zarr", "embeddings.parquet"
BATCH = 1024
#: Sides of a block in a TIFF are multiples of this.
TIFF_BLOCK = 16


def need(name: str) -> ModuleType:
    """A library of the extra `features`."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError:
        raise InputError(f"{name} is not installed; pip install 'nadir-payload[features]'") from None


def transform_of(info: SceneInfo, stride_px: int) -> Affine | None:
    """From cells to the scene's CRS."""
    return Affine(*info.transform) @ Affine.scale(stride_px) if info.transform else None


def cells_of(info: SceneInfo, stride_px: int) -> tuple[int, int]:
    """Rows and columns of cells that hold pixels of the scene."""
    return -(-info.height_px // stride_px), -(-info.width_px // stride_px)


class Writer(Protocol):
    """What takes features tile by tile."""

    def write(self, tile: TileFeatures) -> None: ...
    def close(self) -> None: ...


class ZarrWriter:
    """A Zarr group (format 3) with a group for each level: `features` [channel, y, x] f32, NaN where nothing is known,
    coordinates of the cells' centres, the CRS as CF has it (`spatial_ref`)."""

    def __init__(self, folder: Path, source: Source) -> None:
        self._root = need("zarr").open_group(str(folder / ZARR), mode="w", zarr_format=3)
        self._root.attrs.update({"scene": source.info.name, "scene_id": source.scene_id, "bundle": source.bundle.name})
        self._source, self._arrays = source, dict[str, Any]()

    def write(self, tile: TileFeatures) -> None:
        for level in tile.levels:
            array = self._arrays.get(level.name)
            if array is None:
                array = self._arrays[level.name] = self._create(level)
            rows, cols, part = _place(tile, level, array.shape[1:])
            array[:, rows, cols] = part

    def close(self) -> None:
        """Every chunk is in its place when it is written."""

    def _create(self, level: FeatureLevel) -> Any:
        info, (channels, cells, _) = self._source.info, level.values.shape
        group, (height, width) = self._root.create_group(level.name), cells_of(info, level.stride_px)
        array = group.create_array(
            "features", shape=(channels, height, width), chunks=(channels, cells, cells), dtype="float32",
            fill_value=np.nan, dimension_names=("channel", "y", "x"),
        )  # fmt: skip
        array.attrs.update({"units": level.unit, "stride_px": level.stride_px, "grid_mapping": "spatial_ref"})
        self._coordinates(group, level, height, width)
        return array

    def _coordinates(self, group: Any, level: FeatureLevel, height: int, width: int) -> None:
        transform = transform_of(self._source.info, level.stride_px) or Affine.scale(level.stride_px)
        along = {"y": (np.arange(height) + 0.5) * transform.e + transform.f,
                 "x": (np.arange(width) + 0.5) * transform.a + transform.c}  # fmt: skip
        for axis, values in along.items():
            group.create_array(axis, data=values.astype(np.float64), dimension_names=(axis,))
        group.create_array("channel", data=np.arange(len(level.channels)), dimension_names=("channel",))
        group["channel"].attrs["names"] = list(level.channels)
        place = group.create_array("spatial_ref", shape=(), dtype="int64")
        place.attrs.update({"GeoTransform": " ".join(f"{v:.17g}" for v in transform.to_gdal())})
        if self._source.info.crs_wkt:
            place.attrs.update({"crs_wkt": self._source.info.crs_wkt, "spatial_ref": self._source.info.crs_wkt})


class TiffWriter:
    """A tiled GeoTIFF for each level, f32 with NaN for what is not known, a band for each channel."""

    def __init__(self, folder: Path, source: Source) -> None:
        self._folder, self._source, self._files = folder, source, dict[str, Any]()

    def write(self, tile: TileFeatures) -> None:
        for level in tile.levels:
            file = self._files.get(level.name)
            if file is None:
                file = self._files[level.name] = self._create(level)
            rows, cols, part = _place(tile, level, file.shape)
            file.write(part, window=Window(cols.start, rows.start, part.shape[2], part.shape[1]))

    def close(self) -> None:
        for file in self._files.values():
            file.close()

    def _create(self, level: FeatureLevel) -> Any:
        info, (height, width) = self._source.info, cells_of(self._source.info, level.stride_px)
        block = -(-level.values.shape[1] // TIFF_BLOCK) * TIFF_BLOCK
        with rasterio.Env(GDAL_CACHEMAX=GDAL_CACHE_OCTETS), warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            file = rasterio.open(
                self._folder / f"{level.name}.tif", "w", driver="GTiff", height=height, width=width,
                count=len(level.channels), dtype="float32", nodata=np.nan, crs=info.crs_wkt,
                transform=transform_of(info, level.stride_px), tiled=True, blockxsize=block, blockysize=block,
                compress="deflate", predictor=3, bigtiff="IF_SAFER", interleave="band", sparse_ok=True,
            )  # fmt: skip
        file.descriptions = level.channels
        file.update_tags(NADIR_UNIT=level.unit, NADIR_BUNDLE=self._source.bundle.name)
        return file


class ParquetWriter:
    """GeoParquet 1.1: a row for each tile with its embedding and its outline (WGS 84, null where the scene has no
    place)."""

    def __init__(self, folder: Path, source: Source) -> None:
        self._arrow, self._parquet = need("pyarrow"), need("pyarrow.parquet")
        self._source, self._path = source, folder / PARQUET
        self._placed = place_corners(source.info, source.bundle.tile_px)
        self._rows: list[dict[str, Any]] = []
        self._writer = self._open()

    def write(self, tile: TileFeatures) -> None:
        self._rows.append(self._row(tile))
        if len(self._rows) == BATCH:
            self._flush()

    def close(self) -> None:
        self._flush()
        self._writer.close()

    def _row(self, tile: TileFeatures) -> dict[str, Any]:
        source = self._source
        return {
            "scene": source.info.name, "scene_id": source.scene_id, "sensed_at": source.info.sensed_at,
            "bundle": source.bundle.name, "row": tile.row, "col": tile.col, "valid_share": tile.valid_share,
            "embedding": tile.embedding.tolist(), "geometry": _outline(self._placed, tile),
        }  # fmt: skip

    def _open(self) -> Any:
        arrow = self._arrow
        texts = [(name, arrow.string()) for name in ("scene", "scene_id", "sensed_at", "bundle")]
        numbers = [("row", arrow.int32()), ("col", arrow.int32()), ("valid_share", arrow.float32())]
        last = [("embedding", arrow.list_(arrow.float32())), ("geometry", arrow.binary())]
        schema = arrow.schema(texts + numbers + last, metadata={"geo": json.dumps(GEO)})
        return self._parquet.ParquetWriter(self._path, schema, compression="zstd")

    def _flush(self) -> None:
        self._writer.write_table(self._arrow.Table.from_pylist(self._rows, self._writer.schema))
        self._rows = []


#: GeoParquet's metadata; without a `crs` longitude and latitude are OGC:CRS84.
GEO = {
    "version": "1.1.0",
    "primary_column": "geometry",
    "columns": {"geometry": {"encoding": "WKB", "geometry_types": ["Polygon", "MultiPolygon"]}},
}


def _outline(placed: Placed | None, tile: TileFeatures) -> bytes | None:
    if placed is None:
        return None
    shapely = need("shapely.geometry")
    outline: bytes = shapely.shape(tile_geometry(placed, tile.row, tile.col)).wkb
    return outline


def _place(tile: TileFeatures, level: FeatureLevel, shape: tuple[int, int]) -> tuple[slice, slice, NDArray[np.float32]]:
    """Where a tile's cells lie in the scene's, and those that lie inside it."""
    cells = level.values.shape[1]
    top, left = tile.row * cells, tile.col * cells
    height, width = min(cells, shape[0] - top), min(cells, shape[1] - left)
    return slice(top, top + height), slice(left, left + width), level.values[:, :height, :width]
