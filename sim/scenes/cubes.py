"""Cubes in other formats than GeoTIFF: ENVI (bil, bip, bsq), and HDF5 or netCDF where the sensor's file names the
dataset; and which of a file's layers lies where in the spectrum."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import rasterio

from payload.errors import InputError
from payload.sensor import Sensor
from sim.scenes.band_names import OWN_BUNDLE
from sim.scenes.gdal_files import gdal_environment, open_file

WANTED = "GeoTIFF, COG, ENVI, HDF5, netCDF or product of Sentinel-1 or 2"
HDF5, NETCDF = (".h5", ".he5", ".hdf5", ".hdf"), (".nc", ".nc4")
#: Endings of the samples beside an ENVI header.
ENVI_ENDINGS = ("", ".img", ".dat", ".raw", ".bil", ".bip", ".bsq")
PER_NM = {"nanometers": 1.0, "nm": 1.0, "micrometers": 1000.0, "um": 1000.0, "microns": 1000.0}


@dataclass(frozen=True)
class Opened:
    path: str  # of the samples
    file: rasterio.DatasetReader


def open_layers(path: Path, sensor: Sensor) -> Opened:
    """A file by what its name says that it is; a GeoTIFF where it says nothing. InputError where it is not that."""
    suffix = path.suffix.lower()
    if suffix in HDF5 + NETCDF:
        return _open_dataset(path, sensor, "NETCDF" if suffix in NETCDF else "HDF5")
    samples = _samples_of(path) if suffix == ".hdr" else path
    if suffix not in (".tif", ".tiff") and _has_header(samples):
        return Opened(str(samples), open_file(str(samples), "ENVI", WANTED))
    return Opened(str(path), open_file(str(path), "GTiff", WANTED))


def wavelengths(file: rasterio.DatasetReader) -> list[float | None]:
    """Centre of each layer in nm, as ENVI headers and GDAL's IMAGERY domain say it; None where nobody says."""
    with gdal_environment():
        return [_wavelength(file, layer) for layer in file.indexes]


def by_wavelength(where: str, sensor: Sensor, found: Sequence[float | None]) -> tuple[int, ...] | None:
    """Layers (from 1) nearest to the sensor's bands; None where sensor or file does not say where its bands lie.
    InputError where a band has none within half its width."""
    known = [(nm, layer) for layer, nm in enumerate(found, 1) if nm is not None]
    if len(known) < len(found) or any(band.centre_nm is None for band in sensor.bands):
        return None
    chosen = []
    for band in sensor.bands:
        centre = band.centre_nm or 0.0
        nm, layer = min((abs(nm - centre), layer) for nm, layer in known)
        if nm > max(1.0, (band.width_nm or 0.0) / 2):
            raise InputError(
                f"{where}: no layer within {max(1.0, (band.width_nm or 0.0) / 2):g} nm of {band.name} at {centre:g} nm "
                f"(it has {len(found)} from {min(known)[0]:g} to {max(known)[0]:g} nm), wanted those of sensor "
                f"{sensor.name}; {OWN_BUNDLE}"
            )
        chosen.append(layer)
    if len(set(chosen)) < len(chosen):
        raise InputError(
            f"{where}: its {len(found)} layers are fewer than the bands of sensor {sensor.name} there; {OWN_BUNDLE}"
        )
    return tuple(chosen)


def reflectance_scale(file: rasterio.DatasetReader) -> float | None:
    """1 / what an ENVI header calls its reflectance scale factor."""
    factor = _number(file.tags(ns="ENVI").get("reflectance_scale_factor", ""))
    return 1.0 / factor if factor is not None and factor > 0 else None


def _open_dataset(path: Path, sensor: Sensor, form: str) -> Opened:
    if not path.is_file() or '"' in str(path):
        raise InputError(f"{path}: is no regular file with a plain name, wanted {WANTED}; rename it")
    if not sensor.dataset:
        raise InputError(
            f"{path}: sensor {sensor.name} names no dataset in it; copy its file (sim sensors), add dataset = \"...\" "
            f"(gdalinfo {path.name} lists them), and make a bundle of it; or convert the scene with gdal_translate"
        )
    name = f'{form}:"{path}":{"//" if form == "HDF5" else ""}{sensor.dataset.lstrip("/")}'
    driver = "HDF5Image" if form == "HDF5" else "netCDF"
    return Opened(str(path), open_file(str(path), driver, f"the dataset {sensor.dataset} of {sensor.name}", name))


def _samples_of(header: Path) -> Path:
    for ending in ENVI_ENDINGS:
        samples = header.with_suffix(ending)
        if samples.is_file() and samples != header:
            return samples
    raise InputError(f"{header}: no samples beside this header, wanted {header.stem} or {header.stem}.img; fetch them")


def _has_header(path: Path) -> bool:
    return path.with_suffix(".hdr").is_file() or Path(f"{path}.hdr").is_file()


def _wavelength(file: rasterio.DatasetReader, layer: int) -> float | None:
    tags, imagery = file.tags(layer), file.tags(layer, ns="IMAGERY")
    micrometres = _number(imagery.get("CENTRAL_WAVELENGTH_UM", tags.get("CENTRAL_WAVELENGTH_UM", "")))
    if micrometres is not None:
        return 1000.0 * micrometres
    value = _number(tags.get("wavelength", ""))
    unit = PER_NM.get(tags.get("wavelength_units", "").casefold())
    if value is None:
        return None
    return value * (unit if unit is not None else 1000.0 if value < 100 else 1.0)


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None
