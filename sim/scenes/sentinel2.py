"""A Sentinel-2 product (SAFE directory or zip, L1C or L2A) -> where its 10 m images lie and what their numbers mean.

Only the product's metadata is read here (MTD_MSIL1C.xml or MTD_MSIL2A.xml, as in the Sentinel-2 Products Specification
Document): `sim.scenes.rasters` opens the images. From processing baseline 04.00 on, an offset of -1000 is
to be added to every digital number: RADIO_ADD_OFFSET in L1C, BOA_ADD_OFFSET in L2A; older products do not state any.
"""

import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO
from xml.etree import ElementTree

from payload.errors import InputError

METADATA_NAMES = ("MTD_MSIL1C.xml", "MTD_MSIL2A.xml")
#: The four bands that exist at 10 m in both levels.
BANDS_10M = ("B02", "B03", "B04", "B08")
#: The order of `band_id` in the offset lists (Products Specification Document, table of spectral bands).
BAND_IDS = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B10", "B11", "B12")
#: Real metadata has some 60 KB; this is what a hostile zip may make us inflate.
METADATA_LIMIT_OCTETS = 64 * 2**20


@dataclass(frozen=True)
class SafeProduct:
    """What the metadata says. Reflectance = (DN + offset) / quantification; `nodata` is the raw DN of no data."""

    name: str
    level: str  # L1C or L2A
    baseline: str
    sensed_at: str | None
    quantification: float
    nodata: int
    images: dict[str, str]  # band -> path that GDAL opens
    offsets: dict[str, float]  # band -> DN to add


@dataclass(frozen=True)
class _Folder:
    """The files of a product in a directory."""

    root: Path

    def names(self) -> Iterator[str]:
        for pattern in ("*.xml", "*/*.xml"):
            yield from (path.relative_to(self.root).as_posix() for path in sorted(self.root.glob(pattern)))

    def has(self, name: str) -> bool:
        return (self.root / name).is_file()

    def size(self, name: str) -> int:
        return (self.root / name).stat().st_size

    def open(self, name: str) -> IO[bytes]:
        return (self.root / name).open("rb")

    def gdal_path(self, name: str) -> str:
        return str(self.root / name)


@dataclass(frozen=True)
class _Zip:
    """The files of a product in a zip."""

    path: Path
    archive: zipfile.ZipFile

    def names(self) -> Iterator[str]:
        yield from self.archive.namelist()

    def has(self, name: str) -> bool:
        return name in self.archive.NameToInfo

    def size(self, name: str) -> int:
        return self.archive.getinfo(name).file_size

    def open(self, name: str) -> IO[bytes]:
        return self.archive.open(name)

    def gdal_path(self, name: str) -> str:
        return f"/vsizip/{{{self.path.resolve()}}}/{name}"


def looks_like_safe(path: Path) -> bool:
    """Whether a path is meant as a Sentinel-2 product: a directory, a zip, or a product's metadata file."""
    return path.is_dir() or path.suffix.lower() in (".safe", ".zip") or path.name in METADATA_NAMES


def read_safe(path: Path, wanted: tuple[str, ...]) -> SafeProduct:
    """Metadata of a product and the places of the `wanted` bands (10 m only); every image is checked to be whole.

    Raises InputError on a missing or damaged metadata file, image or zip.
    """
    for band in wanted:
        if band not in BANDS_10M:
            raise InputError(f"{path}: band {band} is not at 10 m, wanted of {', '.join(BANDS_10M)}")
    if path.name in METADATA_NAMES:
        path = path.parent
    if path.is_dir():
        return _read_product(path, _Folder(path), wanted)
    try:
        with zipfile.ZipFile(path) as archive:
            return _read_product(path, _Zip(path, archive), wanted)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise InputError(f"{path}: broken zip ({error}), wanted a whole product; download it again") from error


def _read_product(path: Path, files: _Folder | _Zip, wanted: tuple[str, ...]) -> SafeProduct:
    metadata = _find_metadata(path, files)
    root = _parse(path, files, metadata)
    level = PurePosixPath(metadata).stem.removeprefix("MTD_MSI")
    granules = list(root.iter("Granule"))
    if len(granules) != 1:
        raise InputError(
            f"{path}: {len(granules)} granules in {metadata}, wanted one tile per product (format of 2016-12 on)"
        )
    top = str(PurePosixPath(metadata).parent)
    images = {band: _image(path, files, granules[0], band, top) for band in wanted}
    for name in images.values():
        _check_whole(path, files, name)
    return SafeProduct(
        name=_text(root, "PRODUCT_URI", path.name).removesuffix(".SAFE"),
        level=level,
        baseline=_text(root, "PROCESSING_BASELINE", "unknown"),
        sensed_at=_text(root, "PRODUCT_START_TIME", "") or None,
        quantification=_quantification(path, root, level),
        nodata=_nodata(path, root),
        images={band: files.gdal_path(name) for band, name in images.items()},
        offsets={band: _offset(path, root, level, band) for band in wanted},
    )


def _find_metadata(path: Path, files: _Folder | _Zip) -> str:
    found = [name for name in files.names() if PurePosixPath(name).name in METADATA_NAMES]
    if not found:
        raise InputError(
            f"{path}: no {' or '.join(METADATA_NAMES)} in it, wanted a whole Sentinel-2 product; download it again"
        )
    top = min(len(PurePosixPath(name).parts) for name in found)
    found = [name for name in found if len(PurePosixPath(name).parts) == top]
    if len(found) > 1:
        raise InputError(
            f"{path}: {len(found)} products in it ({', '.join(found)}), wanted one; give the path of one product"
        )
    return found[0]


def _parse(path: Path, files: _Folder | _Zip, metadata: str) -> ElementTree.Element:
    if files.size(metadata) > METADATA_LIMIT_OCTETS:
        raise InputError(
            f"{path}: {metadata} has {files.size(metadata)} octets, wanted product metadata of under 64 MiB"
        )
    try:
        with files.open(metadata) as stream:
            return ElementTree.fromstring(stream.read())
    except ElementTree.ParseError as error:
        raise InputError(f"{path}: {metadata} is not whole XML ({error}); download the product again") from error


def _image(path: Path, files: _Folder | _Zip, granule: ElementTree.Element, band: str, top: str) -> str:
    listed = [(entry.text or "").strip() for entry in granule.iter("IMAGE_FILE")]
    named = [name for name in listed if name.endswith((f"_{band}", f"_{band}_10m"))]
    if len(named) != 1:
        raise InputError(
            f"{path}: metadata lists {len(named)} 10 m images of {band}, wanted 1; download the product again"
        )
    image = str(PurePosixPath(top) / f"{named[0]}.jp2")
    if not files.has(image):
        raise InputError(f"{path}: image of {band} missing ({image}), wanted a whole product; download it again")
    return image


def _check_whole(path: Path, files: _Folder | _Zip, name: str) -> None:
    """Walks the JP2 boxes (ISO/IEC 15444-1 annex I) to the codestream and sees that all of it is there."""
    size = files.size(name)
    with files.open(name) as stream:
        start = 0
        while start + 8 <= size:
            stream.seek(start)
            header = stream.read(16)
            length, kind = int.from_bytes(header[:4], "big"), header[4:8]
            if length == 1:  # the length did not fit in 32 bits
                length = int.from_bytes(header[8:16], "big")
            if kind == b"jp2c" and length == 0:  # to the end of the file, which is the end-of-codestream marker
                stream.seek(size - 2)
                if stream.read(2) == b"\xff\xd9":
                    return
                break
            if length < 8 or start + length > size:
                break
            if kind == b"jp2c":
                return
            start += length
    raise InputError(f"{path}: {PurePosixPath(name).name} is truncated ({size} octets); download the product again")


def _quantification(path: Path, root: ElementTree.Element, level: str) -> float:
    tag = "QUANTIFICATION_VALUE" if level == "L1C" else "BOA_QUANTIFICATION_VALUE"
    value = _number(path, tag, _text(root, tag, ""))
    if not value > 0:
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
    return _number(path, tag, value)


def _nodata(path: Path, root: ElementTree.Element) -> int:
    for special in root.iter("Special_Values"):
        if _text(special, "SPECIAL_VALUE_TEXT", "") == "NODATA":
            return int(_number(path, "SPECIAL_VALUE_INDEX", _text(special, "SPECIAL_VALUE_INDEX", "")))
    return 0


def _text(root: ElementTree.Element, tag: str, otherwise: str) -> str:
    found = next(root.iter(tag), None)
    return otherwise if found is None else (found.text or "").strip() or otherwise


def _number(path: Path, tag: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise InputError(
            f"{path}: {tag} is {text!r} in the metadata, wanted a number; download the product again"
        ) from None
