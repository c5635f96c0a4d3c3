"""What a GIS wants to know of a band: its colour, and where in the spectrum it lies.

Wavelengths are published: ESA, Sentinel-2 MSI, spectral bands of Sentinel-2A. Bands go by Sentinel-2's names
(payload/sensor.py); a scene of another imager under these names has wavelengths near these.
"""

from dataclasses import dataclass

from rasterio.enums import ColorInterp


@dataclass(frozen=True)
class BandFacts:
    common_name: str  # of STAC's eo extension
    centre_nm: float
    fwhm_nm: float
    colour: ColorInterp = ColorInterp.undefined


FACTS = {
    "B01": BandFacts("coastal", 442.7, 20, ColorInterp.coastal),
    "B02": BandFacts("blue", 492.7, 65, ColorInterp.blue),
    "B03": BandFacts("green", 559.8, 35, ColorInterp.green),
    "B04": BandFacts("red", 664.6, 30, ColorInterp.red),
    "B05": BandFacts("rededge071", 704.1, 14, ColorInterp.rededge),
    "B06": BandFacts("rededge075", 740.5, 14, ColorInterp.rededge),
    "B07": BandFacts("rededge078", 782.8, 19, ColorInterp.rededge),
    "B08": BandFacts("nir", 832.8, 105, ColorInterp.nir),
    "B8A": BandFacts("nir08", 864.7, 21, ColorInterp.nir),
    "B09": BandFacts("nir09", 945.1, 19, ColorInterp.other_ir),
    "B10": BandFacts("cirrus", 1373.5, 29, ColorInterp.other_ir),
    "B11": BandFacts("swir16", 1613.7, 90, ColorInterp.swir),
    "B12": BandFacts("swir22", 2202.4, 174, ColorInterp.swir),
}


def band_tags(band: str) -> dict[str, str]:
    """Tags of one band, as GDAL's IMAGERY domain names them; none for a band that nobody knows."""
    facts = FACTS.get(band)
    if facts is None:
        return {}
    return {"CENTRAL_WAVELENGTH_UM": f"{facts.centre_nm / 1000:.4f}", "FWHM_UM": f"{facts.fwhm_nm / 1000:.3f}"}


def colours(bands: tuple[str, ...]) -> list[ColorInterp]:
    """Colour of each band: red, green and blue in their places, whatever the order of the file."""
    return [FACTS[band].colour if band in FACTS else ColorInterp.undefined for band in bands]
