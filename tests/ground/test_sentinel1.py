"""Sentinel-1 GRD: a small made-up product in the layout of real ones, its counts against the formula by hand."""

from pathlib import Path

import numpy as np
import pytest
import rasterio
from numpy.typing import NDArray
from rasterio.control import GroundControlPoint

from payload.errors import InputError
from payload.sensor import SENTINEL2_RGBN
from sim.scenes.imager.sensor_files import load_sensor
from sim.scenes.open_scene import open_scene

RADAR = load_sensor("sentinel1-grd")
ROWS, COLS = 60, 80
STEM = "s1a-iw-grd-{0}-20260418t053021-20260418t053046-000001-000001-00{1}"
LINES, PIXELS = (0, 30, 59), (0, 40, 79)


def raw(number: int) -> NDArray[np.uint16]:
    """Amplitudes uint16 [ROWS, COLS]; the first column holds nothing."""
    values = np.random.default_rng(number).integers(40, 900, (ROWS, COLS)).astype(np.uint16)
    values[:, 0] = 0
    return values


def table(tag: str, name: str, value: float) -> str:
    """A vector at each of LINES with values that rise along and across."""
    pixels = " ".join(map(str, PIXELS))
    return "".join(
        f"<{tag}><line>{line}</line><pixel count=\"3\">{pixels}</pixel>"
        f"<{name} count=\"3\">{' '.join(str(value + line + 2 * pixel) for pixel in PIXELS)}</{name}></{tag}>"
        for line in LINES
    )


def make_product(root: Path, polarisations: tuple[str, ...] = ("vv", "vh"), azimuth: bool = True) -> Path:
    product = root / "S1A_IW_GRDH_1SDV_20260418T053021_20260418T053046_000001_000001_0001.SAFE"
    for folder in ("measurement", "annotation/calibration"):
        (product / folder).mkdir(parents=True)
    points = [GroundControlPoint(r, c, 10 + c / 1e4, 50 - r / 1e4, 0) for r in (0, ROWS) for c in (0, COLS)]
    for number, polarisation in enumerate(polarisations, 1):
        stem = STEM.format(polarisation, number)
        with rasterio.open(
            product / "measurement" / f"{stem}.tiff", "w", driver="GTiff", height=ROWS, width=COLS, count=1,
            dtype="uint16", gcps=points, crs="EPSG:4326",
        ) as file:  # fmt: skip
            file.write(raw(number), 1)
        annotation = "<product><adsHeader><startTime>2026-04-18T05:30:21.5</startTime><productType>GRD</productType>"
        annotation += "</adsHeader><rangePixelSpacing>1.0e+01</rangePixelSpacing></product>"
        (product / "annotation" / f"{stem}.xml").write_text(annotation, encoding="utf-8")
        folder = product / "annotation" / "calibration"
        calibration = f"<calibration>{table('calibrationVector', 'sigmaNought', 300.0)}</calibration>"
        (folder / f"calibration-{stem}.xml").write_text(calibration, encoding="utf-8")
        vectors = table("noiseRangeVector", "noiseRangeLut", 500.0) if azimuth else ""
        vectors = vectors or table("noiseVector", "noiseLut", 500)
        if azimuth:
            vectors += (
                "<noiseAzimuthVector><firstAzimuthLine>0</firstAzimuthLine><lastAzimuthLine>59</lastAzimuthLine>"
                "<firstRangeSample>0</firstRangeSample><lastRangeSample>39</lastRangeSample>"
                "<line count=\"2\">0 59</line><noiseAzimuthLut count=\"2\">1.0 2.0</noiseAzimuthLut>"
                "</noiseAzimuthVector>"
            )
        (folder / f"noise-{stem}.xml").write_text(f"<noise>{vectors}</noise>", encoding="utf-8")
    return product


def by_hand(number: int, azimuth: bool = True) -> NDArray[np.float64]:
    """Sigma nought [ROWS, COLS]: the tables are planes, so interpolation between their entries is exact."""
    row, col = np.mgrid[:ROWS, :COLS].astype(float)
    noise = 500.0 + row + 2 * col
    if azimuth:
        noise *= np.where(col < 40, 1 + row / 59, 1.0)
    return np.maximum(raw(number).astype(float) ** 2 - noise, 0) / (300.0 + row + 2 * col) ** 2


@pytest.mark.parametrize("azimuth", [True, False])
def test_counts_are_sigma_nought_in_hundredths_of_a_db(tmp_path: Path, azimuth: bool) -> None:
    with open_scene(str(make_product(tmp_path, azimuth=azimuth)), sensor=RADAR) as scene:
        dn, valid = scene.read(0, 0, ROWS, COLS)
        part, _ = scene.read(17, 23, 20, 31)
        info = scene.info
    for number in (1, 2):
        sigma = by_hand(number, azimuth)
        counts = np.clip(np.rint((10 * np.log10(np.maximum(sigma, 1e-30)) + 60) * 100), 1, 10_000)
        assert np.array_equal(dn[number - 1], counts)
    assert np.array_equal(part, dn[:, 17:37, 23:54])
    assert not valid[:, 0].any() and valid[:, 1:].all()
    assert (info.bands, info.bits, info.gsd_m, info.nodata) == (("VV", "VH"), 14, 10.0, 0)
    assert info.sensed_at == "2026-04-18T05:30:21.5Z" and len(info.gcps) == 4 and info.name.startswith("S1A_IW_GRDH")


def test_a_polarisation_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"0 measurements of VH \(it has VV\), wanted one"):
        open_scene(str(make_product(tmp_path, ("vv",))), sensor=RADAR)


def test_a_sensor_of_colours_does_not_read_radar(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is a product of Sentinel-1, wanted a scene of sensor sentinel2-rgbn"):
        open_scene(str(make_product(tmp_path)), sensor=SENTINEL2_RGBN)


@pytest.mark.parametrize(
    ("of", "old", "new", "words"),
    [
        ("annotation/calibration/calibration", "sigmaNought", "sigma", "sigmaNought is '' in the metadata"),
        ("annotation/calibration/calibration", ">300.0 ", ">x ", "wanted numbers; download the product again"),
        ("annotation/calibration/calibration", ">300.0 ", ">-300.0 ", "sigmaNought of 0 or below"),
        ("annotation/calibration/calibration", "<line>30<", "<line>0<", "does not have a sigmaNought for each"),
        ("annotation/calibration/noise", "noiseRangeVector", "other", "no noiseVector in its calibration or noise"),
        ("annotation/calibration/noise", ">1.0 2.0<", ">1.0<", "noiseAzimuthLut does not fit its lines"),
        ("annotation/calibration/noise", "</noise>", "", "is not whole XML"),
        ("annotation", "GRD<", "SLC<", "product type 'SLC', wanted GRD; take the GRD product"),
    ],
)
def test_damaged_metadata_is_one_line(tmp_path: Path, of: str, old: str, new: str, words: str) -> None:
    product = make_product(tmp_path)
    found = sorted(product.glob(f"{of}*.xml" if of.count("/") > 1 else f"{of}/*.xml"))
    for path in found:
        path.write_text(path.read_text(encoding="utf-8").replace(old, new), encoding="utf-8")
    with pytest.raises(InputError) as caught:
        open_scene(str(product), sensor=RADAR)
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_a_missing_table_is_named(tmp_path: Path) -> None:
    product = make_product(tmp_path)
    next((product / "annotation" / "calibration").glob("noise-*vh*")).unlink()
    with pytest.raises(InputError, match=r"noise-s1a-iw-grd-vh-.*\.xml is missing from calibration"):
        open_scene(str(product), sensor=RADAR)
