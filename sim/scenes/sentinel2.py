"""A Sentinel-2 product (SAFE directory or zip, L1C or L2A) -> where its 10 m images lie and what their numbers mean.

Only metadata is read here (MTD_MSIL1C.xml or MTD_MSIL2A.xml, and MTD_TL.xml for the place, as in the Sentinel-2
Products Specification Document): `sim.scenes.open_scene` opens the images. From processing baseline 04.00 on, an offset
of -1000 is to be added to every digital number: RADIO_ADD_OFFSET in L1C, BOA_ADD_OFFSET in L2A; older products do not
state any.
"""

import math
import re
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from xml.etree import ElementTree

from payload.errors import InputError
from sim.scenes.safe_files import FolderFiles, ProductFiles, ZipFiles, check_jp2_whole

METADATA_NAMES = ("MTD_MSIL1C.xml", "MTD_MSIL2A.xml")
#: The four bands that exist at 10 m in both levels.
BANDS_10M = ("B02", "B03", "B04", "B08")
#: The order of `band_id` in the offset lists (Products Specification Document, table of spectral bands).
BAND_IDS = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B10", "B11", "B12")
#: Real metadata has some 60 KB; this is what a hostile zip may make us inflate.
METADATA_LIMIT_OCTETS = 64 * 2**20
#: Product metadata of the format before December 2016 (and of Sen2Cor 2.3 on such products).
OLD_METADATA = re.compile(r"S2[A-D]_(OPER|USER)_MTD_SAFL.*\.xml", re.IGNORECASE)
#: Some archives hold the images as GeoTIFF (imageFormat="GeoTIFF").
IMAGE_SUFFIXES = (".jp2", ".tif", ".tiff")


@dataclass(frozen=True)
class TilePlace:
    """Where a granule's 10 m grid lies, from its MTD_TL.xml."""

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


def looks_like_safe(path: Path) -> bool:
    """Whether a path is meant as a Sentinel-2 product: a directory, a zip, or a product's metadata file."""
    return (
        path.is_dir()
        or path.suffix.lower() in (".safe", ".zip")
        or _is_metadata(path.name)
        or bool(OLD_METADATA.fullmatch(path.name))
    )


def read_safe(path: Path, wanted: tuple[str, ...]) -> SafeProduct:
    """Metadata of a product and the places of the `wanted` bands (10 m only); every image is checked to be whole.

    Raises InputError on a missing or damaged metadata file, image or zip, and on the format of before December 2016.
    """
    for band in wanted:
        if band not in BANDS_10M:
            raise InputError(
                f"{path}: band {band} is not at 10 m, wanted of {', '.join(BANDS_10M)}; fly a bundle of these "
                "(--bundle edge), or give a GeoTIFF of all bands on one grid"
            )
    if _is_metadata(path.name) or OLD_METADATA.fullmatch(path.name):
        path = path.parent
    try:
        if path.is_dir():
            return _read_product(path, FolderFiles(path), wanted)
        with zipfile.ZipFile(path) as archive:
            return _read_product(path, ZipFiles(path, archive), wanted)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error}); check the path and its rights") from None
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
        raise InputError(f"{path}: broken zip ({error}), wanted a whole product; download it again") from error
    except RuntimeError as error:  # zipfile has no error of its own for a password
        raise InputError(f"{path}: is encrypted, wanted a zip without a password; give the unzipped folder") from error


def _is_metadata(name: str) -> bool:
    return name.casefold() in {known.casefold() for known in METADATA_NAMES}


def _read_product(path: Path, files: ProductFiles, wanted: tuple[str, ...]) -> SafeProduct:
    metadata = _find_metadata(path, files)
    root = _parse(path, files, metadata)
    level = PurePosixPath(metadata).stem.upper().removeprefix("MTD_MSI")
    listed, form = _listed_images(path, root, metadata)
    top = str(PurePosixPath(metadata).parent)
    images = {band: _image(path, files, listed, band, top, form) for band in wanted}
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
        tile=_tile_place(path, files, images[wanted[0]]),
    )


def _find_metadata(path: Path, files: ProductFiles) -> str:
    found = [name for name in files.names() if _is_metadata(PurePosixPath(name).name)]
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


def _parse(path: Path, files: ProductFiles, metadata: str) -> ElementTree.Element:
    if files.size(metadata) > METADATA_LIMIT_OCTETS:
        raise InputError(
            f"{path}: {metadata} has {files.size(metadata)} octets, wanted product metadata of under 64 MiB"
        )
    try:
        with files.open(metadata) as stream:
            return ElementTree.fromstring(stream.read(METADATA_LIMIT_OCTETS))
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: {metadata} is not whole XML ({error}); download the product again") from error


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
    endings = (f"_{band}".casefold(), f"_{band}_10m".casefold())
    named = [name for name in listed if name.casefold().endswith(endings)]
    if len(named) != 1:
        raise InputError(
            f"{path}: metadata lists {len(named)} 10 m images of {band}, wanted 1; download the product again"
        )
    tried = [str(PurePosixPath(top) / f"{named[0]}{suffix}") for suffix in IMAGE_SUFFIXES]
    image = next((found for name in tried if (found := files.find(name))), None)
    if image is None:
        raise InputError(
            f"{path}: image of {band} missing ({tried[0]} or .tif; imageFormat says {form}), wanted a whole product; "
            "download it again"
        )
    return image


def _tile_place(path: Path, files: ProductFiles, image: str) -> TilePlace | None:
    """EPSG code and corner from the granule's MTD_TL.xml; None where it is missing or says nothing."""
    for folder in PurePosixPath(image).parents:
        found = files.find(str(folder / "MTD_TL.xml"))
        if found:
            break
    else:
        return None
    try:
        root = _parse(path, files, found)
        crs = _text(root, ("HORIZONTAL_CS_CODE",), "")
        at = next(entry for entry in root.iter("Geoposition") if entry.get("resolution") == "10")
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
