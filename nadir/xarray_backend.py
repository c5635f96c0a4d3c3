"""`xr.open_dataset("scene.nadir", engine="nadir", chunks={})`: lazy, one chunk a tile where dask is asked for."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from xarray.backends import BackendArray, BackendEntrypoint
from xarray.core import indexing

import nadir
from nadir import SceneFile


class _Pixels(BackendArray):
    """DN of a scene file, read when they are looked at. Goes to other processes by its address."""

    def __init__(self, where: str, settings: dict[str, Any]) -> None:
        self._given = where, settings
        self.scene = nadir.open(where, **settings)
        self.shape, self.dtype = self.scene.shape, self.scene.dtype

    def __getitem__(self, key: indexing.ExplicitIndexer) -> NDArray[Any]:
        found: NDArray[Any] = indexing.explicit_indexing_adapter(
            key, self.shape, indexing.IndexingSupport.OUTER, self._read
        )
        return found

    def _read(self, key: tuple[Any, ...]) -> NDArray[np.uint16]:
        return self.scene[key]

    def __reduce__(self) -> tuple[Any, ...]:
        return _Pixels, self._given


class NadirBackend(BackendEntrypoint):
    """xarray's door to `.nadir` scene files."""

    description = "Scenes archived by `sim archive put`"
    open_dataset_parameters = ("filename_or_obj", "drop_variables", "bundle", "decoder", "layers", "psnr_db", "options")

    def open_dataset(  # type: ignore[override]
        self, filename_or_obj: Any, *, drop_variables: str | Iterable[str] | None = None, bundle: str | None = None,
        decoder: str = "fast", layers: int | None = None, psnr_db: float | None = None,
        options: dict[str, Any] | None = None,
    ) -> xr.Dataset:  # fmt: skip
        """One variable `dn` uint16 [band, y, x]; x and y of pixel centres where the scene lies along its map's axes."""
        settings = {"bundle": bundle, "decoder": decoder, "layers": layers, "psnr_db": psnr_db, "options": options}
        pixels = _Pixels(str(filename_or_obj), settings)
        scene, side = pixels.scene, pixels.scene.tile_px
        variable = xr.Variable(("band", "y", "x"), indexing.LazilyIndexedArray(pixels), _attributes(scene))
        variable.encoding = {"preferred_chunks": {"band": len(scene.bands), "y": side, "x": side}}
        dataset = xr.Dataset({"dn": variable}, _coordinates(scene), {"title": scene.info.name})
        dropped = [drop_variables] if isinstance(drop_variables, str) else list(drop_variables or ())
        return dataset.drop_vars(dropped, errors="ignore")

    def guess_can_open(self, filename_or_obj: Any) -> bool:
        return str(filename_or_obj).lower().endswith(".nadir")


def _attributes(scene: SceneFile) -> dict[str, Any]:
    info = scene.info
    known = {
        "long_name": "reflectance x 10 000", "scale_factor_to_reflectance": 1e-4, "sensing_time": info.sensed_at,
        "crs": info.crs_wkt, "transform": info.transform, "_FillValue_dn": info.nodata, "gsd_m": info.gsd_m or None,
    }  # fmt: skip
    return {name: value for name, value in known.items() if value is not None}


def _coordinates(scene: SceneFile) -> dict[str, Any]:
    """Band names; x and y where rows and columns run along the map's axes."""
    found: dict[str, Any] = {"band": list(scene.bands)}
    if scene.info.transform is not None:
        a, b, c, d, e, f = scene.info.transform
        if b == 0 and d == 0:
            found["y"] = f + e * (np.arange(scene.shape[1]) + 0.5)
            found["x"] = c + a * (np.arange(scene.shape[2]) + 0.5)
    return found
