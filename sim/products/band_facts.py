"""What a GIS wants to know of a band: its colour, and where in the spectrum it lies (payload/sensor.py)."""

from collections.abc import Sequence

from rasterio.enums import ColorInterp

from payload.sensor import Band, Sensor

#: Role -> colour; a role that goes on after these letters has the same.
COLOURS = {
    "coastal": ColorInterp.coastal, "blue": ColorInterp.blue, "green": ColorInterp.green, "red": ColorInterp.red,
    "rededge": ColorInterp.rededge, "nir": ColorInterp.nir, "nir09": ColorInterp.other_ir,
    "cirrus": ColorInterp.other_ir, "swir": ColorInterp.swir, "pan": ColorInterp.pan,
}  # fmt: skip


def band_tags(band: Band) -> dict[str, str]:
    """Tags of one band, as GDAL's IMAGERY domain names them; none for a band that is nowhere in the spectrum."""
    if band.centre_nm is None or band.width_nm is None:
        return {}
    return {"CENTRAL_WAVELENGTH_UM": f"{band.centre_nm / 1000:.4f}", "FWHM_UM": f"{band.width_nm / 1000:.3f}"}


def colours(sensor: Sensor) -> list[ColorInterp]:
    """Colour of each band: red, green and blue in their places, whatever the order of the file."""
    return [_colour(band.role) for band in sensor.bands]


def picture_bands(sensor: Sensor) -> tuple[int, int, int]:
    """Which bands are shown as red, green and blue: those, else the first in all three."""
    red, green, blue = sensor.places("red", "green", "blue") or (0, 0, 0)
    return red, green, blue


def picture_layers(of_layers: Sequence[ColorInterp]) -> list[int]:
    """`picture_bands` of a raster by the colours of its layers, which count from 1."""
    order = (ColorInterp.red, ColorInterp.green, ColorInterp.blue)
    return [of_layers.index(colour) + 1 for colour in order] if set(order) <= set(of_layers) else [1, 1, 1]


def _colour(role: str) -> ColorInterp:
    found = COLOURS.get(role) or COLOURS.get(role.rstrip("0123456789"))
    return found or ColorInterp.undefined
