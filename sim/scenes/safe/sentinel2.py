"""A Sentinel-2 product (SAFE directory or zip, L1C or L2A) -> where its images lie, each band at its native resolution,
and what their numbers mean.

Only metadata is read here (MTD_MSIL1C.xml or MTD_MSIL2A.xml, and MTD_TL.xml for the place, as in the Sentinel-2
Products Specification Document): `sim.scenes.safe.open` opens the images. From processing baseline 04.00 on, an offset
of -1000 is to be added to every digital number: RADIO_ADD_OFFSET in L1C, BOA_ADD_OFFSET in L2A; older products do not
state any.
"""

import math
import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from xml.etree import ElementTree

from payload.errors import InputError
from payload.sensor import SENTINEL2, Sensor
from sim.scenes.safe.files import ProductFiles, check_jp2_whole, parse_xml

METADATA_NAMES = ("MTD_MSIL1C.xml", "MTD_MSIL2A.xml")
#: The order of `band_id` in the offset lists (Products Specification Document, table of spectral bands).
BAND_IDS = tuple(SENTINEL2)
#: Product metadata of the format before December 2016 (and of Sen2Cor 2.3 on such products).
OLD_METADATA = re.compile(r"S2[A-D]_(OPER|USER)_MTD_SAFL.*\.xml", re.IGNORECASE)
#: Some archives hold the images as GeoTIFF (imageFormat="GeoTIFF").
IMAGE_SUFFIXES = (".jp2", ".tif", ".tiff")


@dataclass(frozen=True)
class TilePlace:
    """Where a granule's finest grid asked for lies, from its MTD_TL.xml."""

    crs: str  # EPSG:code
    x_m: float  # upper left corner
    y_m: float
    dx_m: float
    dy_m: float


@dataclass(frozen=True)
class SafeProduct:
    """What the metadata says. Reflectance = (DN + offset) / quantification; `nodata` is the raw DN of no data."""

    name: str
    level: str  # L1C or L2A
    baseline: str
    sensed_at: str | None
    quantification: float
    nodata: int
    saturated: int  # the raw DN of a saturated sample
    images: dict[str, str]  # band -> path that GDAL opens
    offsets: dict[str, float]  # band -> DN to add
    tile: TilePlace | None  # for images without a georeference of their own


def read_safe(path: Path, files: ProductFiles, sensor: Sensor) -> SafeProduct:
    """Metadata of a product and the places of the sensor's bands; every image is checked to be whole.

    Raises InputError on a missing or damaged metadata file or image, and on the format of before December 2016.
    """
    strange = [band for band in sensor.names if band not in SENTINEL2]
    if strange:
        raise InputError(
            f"{path}: is a product of Sentinel-2, which has no {', '.join(strange)[:80]}; give a scene of sensor "
            f"{sensor.name}, or fly a bundle of Sentinel-2's bands (--bundle edge)"
        )
    return _read_product(path, files, sensor.names)


def is_metadata(name: str) -> bool:
    return name.casefold() in {known.casefold() for known in METADATA_NAMES}


def _read_product(path: Path, files: ProductFiles, wanted: tuple[str, ...]) -> SafeProduct:
    metadata = _find_metadata(path, files)
    root = parse_xml(path, files, metadata)
    level = PurePosixPath(metadata).stem.upper().removeprefix("MTD_MSI")
    listed, form = _listed_images(path, root, metadata)
    top = str(PurePosixPath(metadata).parent)
    if level == "L2A" and "B10" in wanted:
        raise InputError(
            f"{path}: level 2A has no B10; give the product of level 1C, or fly a bundle without it (sensor "
            "sentinel2-l2a-12)"
        )
    images = {band: _image(path, files, listed, band, top, form) for band in wanted}
    finest = min(wanted, key=lambda band: SENTINEL2[band].gsd_m)
    for name in images.values():
        if PurePosixPath(name).suffix.lower() == ".jp2":
            check_jp2_whole(path, files, name)
        else:
            files.open(name).close()  # a zip that inflates without end is refused here
    return SafeProduct(
        name=_text(root, ("PRODUCT_URI", "PRODUCT_URI_2A", "PRODUCT_URI_1C"), path.name).removesuffix(".SAFE"),
        level=level,
        baseline=_text(root, ("PROCESSING_BASELINE",), "unknown"),
        sensed_at=_text(root, ("PRODUCT_START_TIME",), "") or None,
        quantification=_quantification(path, root),
        nodata=_special_value(path, root, "NODATA", 0),
        saturated=_special_value(path, root, "SATURATED", 65_535),
        images={band: files.gdal_path(name) for band, name in images.items()},
        offsets={band: _offset(path, root, level, band) for band in wanted},
        tile=_tile_place(path, files, images[finest], SENTINEL2[finest].gsd_m),
    )


def _find_metadata(path: Path, files: ProductFiles) -> str:
    found = [name for name in files.names() if is_metadata(PurePosixPath(name).name)]
    if not found:
        raise InputError(_why_no_metadata(path, files))
    top = min(len(PurePosixPath(name).parts) for name in found)
    found = [name for name in found if len(PurePosixPath(name).parts) == top]
    if len(found) > 1:
        raise InputError(
            f"{path}: {len(found)} products in it ({', '.join(found)}), wanted one; give the path of one product"
        )
    return found[0]


def _why_no_metadata(path: Path, files: ProductFiles) -> str:
    old = [name for name in files.names() if OLD_METADATA.fullmatch(PurePosixPath(name).name)]
    if old:
        return (
            f"{path}: {PurePosixPath(old[0]).name} is of the format before December 2016, which is not read; "
            "take the reprocessed product (Collection 1, baseline 05.00) of the same day, or a GeoTIFF of its bands"
        )
    missing = f"{path}: no {' or '.join(METADATA_NAMES)} in it, wanted a whole Sentinel-2 product"
    if any(PurePosixPath(name).suffix.lower() in IMAGE_SUFFIXES for name in files.names()):
        return f"{missing}; give the folder with that file (.SAFE), or download it again"
    return f"{missing}; download it again"


def _listed_images(path: Path, root: ElementTree.Element, metadata: str) -> tuple[list[str], str]:
    """Images that the metadata lists, and their format. Sen2Cor 2.3 lists a granule once for each resolution."""
    granules = [entry for tag in ("Granule", "Granules") for entry in root.iter(tag)]
    names = {granule.get("granuleIdentifier") for granule in granules}
    if len(names) != 1:
        raise InputError(
            f"{path}: {len(names)} granules in {metadata}, wanted one tile per product (format of 2016-12 on); "
            "take the tile's own product"
        )
    tags = ("IMAGE_FILE", "IMAGE_FILE_2A", "IMAGE_ID", "IMAGE_ID_2A")
    images = [(entry.text or "").strip() for granule in granules for tag in tags for entry in granule.iter(tag)]
    return list(dict.fromkeys(images)), granules[0].get("imageFormat") or "JPEG2000"


def _image(path: Path, files: ProductFiles, listed: list[str], band: str, top: str, form: str) -> str:
    gsd_m = f"{SENTINEL2[band].gsd_m:g}"
    endings = (f"_{band}".casefold(), f"_{band}_{gsd_m}m".casefold())
    named = [name for name in listed if name.casefold().endswith(endings)]
    if len(named) != 1:
        raise InputError(
            f"{path}: metadata lists {len(named)} {gsd_m} m images of {band}, wanted 1; download the product again"
        )
    tried = [str(PurePosixPath(top) / f"{named[0]}{suffix}") for suffix in IMAGE_SUFFIXES]
    image = next((found for name in tried if (found := files.find(name))), None)
    if image is None:
        raise InputError(
            f"{path}: image of {band} missing ({tried[0]} or .tif; imageFormat says {form}), wanted a whole product; "
            "download it again"
        )
    return image


def _tile_place(path: Path, files: ProductFiles, image: str, gsd_m: float) -> TilePlace | None:
    """EPSG code and corner from the granule's MTD_TL.xml; None where it is missing or says nothing."""
    for folder in PurePosixPath(image).parents:
        found = files.find(str(folder / "MTD_TL.xml"))
        if found:
            break
    else:
        return None
    try:
        root = parse_xml(path, files, found)
        crs = _text(root, ("HORIZONTAL_CS_CODE",), "")
        at = next(entry for entry in root.iter("Geoposition") if entry.get("resolution") == f"{gsd_m:g}")
        numbers = (float(_text(at, (tag,), "")) for tag in ("ULX", "ULY", "XDIM", "YDIM"))
        return TilePlace(crs, *numbers) if crs else None
    except (InputError, StopIteration, ValueError):
        return None


def _quantification(path: Path, root: ElementTree.Element) -> float:
    tags = ("BOA_QUANTIFICATION_VALUE", "L2A_BOA_QUANTIFICATION_VALUE", "QUANTIFICATION_VALUE")
    tag = next((tag for tag in tags if root.find(f".//{tag}") is not None), tags[-1])
    value = _number(path, tag, _text(root, (tag,), ""))
    if not 0 < value < math.inf:
        raise InputError(f"{path}: {tag} is {value:g}, wanted above 0")
    return value


def _offset(path: Path, root: ElementTree.Element, level: str, band: str) -> float:
    tag = "RADIO_ADD_OFFSET" if level == "L1C" else "BOA_ADD_OFFSET"
    stated = {entry.get("band_id"): (entry.text or "").strip() for entry in root.iter(tag)}
    if not stated:
        return 0.0  # baseline before 04.00
    value = stated.get(str(BAND_IDS.index(band)))
    if value is None:
        raise InputError(f"{path}: metadata states {tag} but none for {band}; download the product again")
    number = _number(path, tag, value)
    if not -65_535 <= number <= 65_535:
        raise InputError(f"{path}: {tag} of {band} is {number:g}, wanted DN; download the product again")
    return number


def _special_value(path: Path, root: ElementTree.Element, name: str, usual: int) -> int:
    """The raw DN that stands for `name`: NODATA or SATURATED."""
    for special in root.iter("Special_Values"):
        if _text(special, ("SPECIAL_VALUE_TEXT",), "") == name:
            value = _number(path, "SPECIAL_VALUE_INDEX", _text(special, ("SPECIAL_VALUE_INDEX",), ""))
            if not 0 <= value <= 65_535:
                raise InputError(f"{path}: {name} is {value:g}, wanted 0 to 65535; download the product again")
            return int(value)
    return usual


def _text(root: ElementTree.Element, tags: tuple[str, ...], otherwise: str) -> str:
    """Text of the first of these elements that is there."""
    found = next((entry for tag in tags for entry in root.iter(tag)), None)
    return otherwise if found is None else (found.text or "").strip() or otherwise


def _number(path: Path, tag: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise InputError(
            f"{path}: {tag} is {text!r} in the metadata, wanted a number; download the product again"
        ) from None
