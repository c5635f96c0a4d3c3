"""How the user says that rasters are to be read. Apart from what reads them: a command line needs no GDAL for it."""

from dataclasses import dataclass

#: Pixels of a scene; nine Sentinel-2 products. The option --max-pixels lifts it.
MAX_PIXELS = 2**30


@dataclass(frozen=True)
class Reading:
    """The arguments of `open_scene` of these names."""

    bands: tuple[str, ...] | None = None
    scale: float | None = None
    offset: float | None = None
    max_pixels: int = MAX_PIXELS


#: Nothing is said: files speak for themselves.
AS_STORED = Reading()
