"""What figures of single pixels are summed from: the kernel against numpy, and both against pixels worked by hand."""

from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from payload.errors import InputError
from payload.native import library
from payload.sensor import SENTINEL2_RGBN, Band, Sensor, sensor_of
from sim.metrics.by_kind import KindFigures
from sim.metrics.distortion import tile_figures
from sim.metrics.pixels import PixelSums, ndvi

SIGNED = Sensor("signed", "hyperspectral", (Band("C1", 1.0), Band("C2", 1.0)), bits=16, signed=True)
SIGNED_RGBN = replace(SENTINEL2_RGBN, name="signed", bits=16, signed=True, nodata=None)
SENSORS = {
    "four bands": SENTINEL2_RGBN,
    "no green": sensor_of(("B04", "B08")),
    "no index": sensor_of(("B02", "B03")),
    "signed": SIGNED,
    "signed with roles": SIGNED_RGBN,
    "one band": sensor_of(("PAN",)),
}
needs_kernel = pytest.mark.skipif(not library.available, reason="the kernel was not built: no C compiler at install")


def sums_of(sensor: Sensor, original: np.ndarray, received: np.ndarray, valid: np.ndarray) -> dict[str, object]:
    found = PixelSums.of(sensor, original, received, valid)
    return {field.name: getattr(found, field.name) for field in fields(found)}


@needs_kernel
@settings(max_examples=40, deadline=None)
@given(name=st.sampled_from(sorted(SENSORS)), seed=st.integers(0, 2**32 - 1), most=st.sampled_from([3, 900, 65535]))
def test_the_kernel_sums_what_numpy_sums(name: str, seed: int, most: int) -> None:
    sensor, rng = SENSORS[name], np.random.default_rng(seed)
    original, received = rng.integers(0, most, (2, len(sensor.bands), 21, 34), np.uint16, endpoint=True)
    received = np.where(rng.random(received.shape) < 0.5, original, received)
    valid = rng.random((21, 34)) < rng.choice([0.0, 0.6, 1.0])
    fast = sums_of(sensor, original, received, valid)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(library, "available", False)
        plain = sums_of(sensor, original, received, valid)
    for key, value in plain.items():
        if isinstance(value, float):
            assert fast[key] == pytest.approx(value, rel=1e-11, abs=1e-12), key
        else:
            assert np.array_equal(fast[key], value), key


def test_two_pixels_by_hand() -> None:
    original = np.array([[[400, 3000]], [[500, 4000]], [[300, 4000]], [[100, 5000]]], np.uint16)
    received = np.array([[[400, 3000]], [[500, 4000]], [[300, 4000]], [[900, 5000]]], np.uint16)
    found = PixelSums.of(SENTINEL2_RGBN, original, received, np.ones((1, 2), bool))
    assert found.bands.tolist()[3] == [5100, 5900, 25_010_000, 25_090_000, 640_000] and found.max_error == 800
    assert found.cover[0, 1] == found.cover[2, 2] == 1 and found.cover.sum() == 2  # water turns green; bright stays
    assert found.cover_squares.tolist() == [640_000, 0, 0, 0]
    assert found.ndvi_error == pytest.approx(1.0) and found.ndvi_histogram[10_000] == 1
    assert found.ndwi_error == pytest.approx(400 / 600 + 400 / 1400)


@pytest.mark.parametrize("kernel", [True, False])
def test_the_angle_of_signed_counts_is_taken_from_the_count_of_zero(kernel: bool, monkeypatch) -> None:
    """(3, 0) and (3, 3) lie 45 degrees apart; 32 768 more in every band would make it next to nothing."""
    monkeypatch.setattr(library, "available", kernel and library.available)
    original, received = (
        np.array(counts, np.uint16).reshape(2, 1, 1) + np.uint16(32768) for counts in ((3, 0), (3, 3))
    )
    found = PixelSums.of(SIGNED, original, received, np.ones((1, 1), bool))
    assert found.angle_deg == pytest.approx(45.0) and found.angle_histogram[4500] == 1


@needs_kernel
def test_the_kernel_refuses_a_band_that_is_not_there() -> None:
    arrays = [np.zeros(size, dtype) for size, dtype in ((8, "u2"), (8, "u2"), (4, "?"))]
    roles, sums = np.array([0, 1, 2], np.int32), np.zeros((2, 5), np.int64)
    rest = [np.zeros(size, np.int64) for size in (1, 16, 4)]
    errors, bins = np.zeros(3), [np.zeros(size, np.int64) for size in (20_001, 18_001)]
    spans = [library.span(array, array.dtype) for array in (*arrays, roles, sums, *rest, errors, *bins)]
    with pytest.raises(InputError, match="out of range"):
        library.call("agreement", *spans[:3], 2, 4, 0, *spans[3:])


@pytest.mark.parametrize("kernel", [True, False])
def test_ratios_of_signed_counts_are_those_of_the_same_counts_without_a_sign(kernel: bool, monkeypatch) -> None:
    """A level of 32 768 in every band made NDVI, NDWI and classes of cover all but blind."""
    monkeypatch.setattr(library, "available", kernel and library.available)
    rng = np.random.default_rng(5)
    original = rng.integers(100, 6000, (4, 20, 20), np.uint16)
    received = (original + rng.integers(0, 300, original.shape)).astype(np.uint16)
    valid, level = np.ones((20, 20), bool), np.uint16(32768)
    plain = PixelSums.of(SENTINEL2_RGBN, original, received, valid)
    signed = PixelSums.of(SIGNED_RGBN, original + level, received + level, valid)
    assert (signed.ndvi_error, signed.ndwi_error) == pytest.approx((plain.ndvi_error, plain.ndwi_error))
    assert np.array_equal(signed.cover, plain.cover) and plain.ndvi_error > 10


def test_indices_of_short_wave_bands_see_counts_too() -> None:
    sensor = sensor_of(("B08", "B11"))
    other, level = replace(sensor, bits=16, signed=True, nodata=None), np.uint16(32768)
    original = np.array([[[4000, 300]], [[1000, 900]]], np.uint16)
    received = np.array([[[3000, 300]], [[1500, 700]]], np.uint16)
    found = []
    for seen, more in ((sensor, np.uint16(0)), (other, level)):
        figures = KindFigures(seen)
        figures.add(original + more, received + more, np.ones((1, 2), bool), np.zeros(18_001, np.int64))
        found.append(figures.figures()["ndmi_mae"])
    assert found[1] == pytest.approx(found[0]) and found[0] > 0.1


def test_counts_below_zero_leave_an_index_between_minus_one_and_one() -> None:
    """Noise around 0: 10 and -9 would be 19."""
    dn = np.array([[100], [100], [-9], [10]], np.int64) + 32768
    assert ndvi(dn.astype(np.uint16), SIGNED_RGBN).tolist() == [1.0]


def test_k_means_needs_no_zero() -> None:
    """Distances do not see a level in common."""
    rng = np.random.default_rng(8)
    original = rng.integers(100, 3000, (4, 64, 64), np.uint16)
    received = (original + rng.integers(0, 500, original.shape)).astype(np.uint16)
    valid, level = np.ones((64, 64), bool), np.uint16(32768)
    plain = tile_figures(original, received, valid, SENTINEL2_RGBN)
    signed = tile_figures(original + level, received + level, valid, SIGNED_RGBN)
    assert signed["kmeans_oa"] == plain["kmeans_oa"] and signed["kmeans_fixed_oa"] == plain["kmeans_fixed_oa"]
