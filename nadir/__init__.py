"""Archived scenes as arrays, without GDAL: `nadir.open(path)[bands, rows, cols]`, and `engine="nadir"` for xarray.

    import nadir

    with nadir.open("https://example.org/scene.nadir", psnr_db=38) as scene:
        scene.shape, scene.bands, scene.info.crs_wkt
        window = scene[:, 2048:3072, 0:1024]          # uint16 [4, 1024, 1024]

docs/archive.md has the rest.
"""

from typing import Any

from payload.version import VERSION
from sim.archive.reader import SceneFile
from sim.ground.decoder import FAST

__version__ = VERSION
__all__ = ["SceneFile", "open"]


def open(
    where: str, *, bundle: str | None = None, decoder: str = FAST, layers: int | None = None,
    psnr_db: float | None = None, engine: str = "openvino", options: dict[str, Any] | None = None,
) -> SceneFile:  # fmt: skip
    """A scene file at a path or at any address that fsspec knows; nothing but its head is read.

    `decoder`: fast (the transform undone) or full (the bundle's network, some tenths of a dB better and slower).
    `layers` or `psnr_db`: fetch and decode no more of each tile than the first so many layers, or than the index says
    are needed for that PSNR (peak 10 000). `bundle`: its folder, where the file was coded with one that does not ship.
    `options` go to fsspec. InputError where the file cannot be read, BundleError where its bundle is not at hand.
    """
    return SceneFile(str(where), bundle, decoder, layers, psnr_db, engine, options)
