"""Figures by kind of sensor, against closed forms and drawn pictures whose figures are known."""

from dataclasses import replace

import numpy as np
import pytest

from payload.sensor import sensor_of
from sim.metrics.by_kind import RadarFigures, looks
from sim.metrics.catalogue import BY_KEY, BY_KIND
from sim.metrics.distortion import SceneQuality, spectral_angle_deg, tile_figures
from sim.scenes.imager.sensor_files import load_sensor, shipped_sensors

RADAR, TWELVE = load_sensor("sentinel1-grd"), load_sensor("sentinel2-l2a-12")
ALL = np.ones((128, 128), bool)


def drawn(bands: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(900, 5000, (bands, 128, 128)).astype(np.uint16)


def speckle(number: float, seed: int) -> np.ndarray:
    """Intensity of mean 0.1 with so many looks, as counts [2, 128, 128]."""
    power = np.random.default_rng(seed).gamma(number, 0.1 / number, (2, 128, 128))
    return np.rint((10 * np.log10(power) + 60) * 100).clip(1, 10_000).astype(np.uint16)


def scene_figures(sensor, dn, seen, pieces: int = 1) -> dict[str, float]:
    quality = SceneQuality(sensor)
    for part in np.split(np.arange(128), pieces):
        quality.add(dn[:, part], seen[:, part], ALL[part])
    return quality.figures()


@pytest.mark.parametrize("name", [name for name in shipped_sensors() if name != "hyperspectral-generic"])
def test_figures_are_there_where_the_bands_are_and_all_are_in_the_catalogue(name: str) -> None:
    sensor = load_sensor(name)
    dn = drawn(len(sensor.bands))
    found = scene_figures(sensor, dn, dn)
    assert found.keys() <= BY_KEY.keys()
    kinds = {metric.key for metric in BY_KIND} & found.keys()
    optical = {"sam_p95_deg"} | ({"ndre_mae"} if "RE1" in sensor.names or "B05" in sensor.names else set())
    swir = {"ndmi_mae", "nbr_mae", "ndsi_mae"} if "B12" in sensor.names else set()
    radar = {m.key for m in BY_KIND if m.key.startswith(("enl", "ratio", "vv", "edge"))} | {"sam_p95_deg"}
    wanted = {"radar": radar, "panchromatic": set()}.get(sensor.kind, optical | swir)
    assert kinds == wanted and tile_figures(dn, dn, ALL, sensor).keys() >= wanted


def test_the_95th_percentile_of_the_spectral_angle_is_to_a_hundredth_of_a_degree() -> None:
    dn = drawn(12)
    seen = (dn + np.random.default_rng(1).integers(0, 300, dn.shape)).astype(np.uint16)
    wanted = np.percentile(spectral_angle_deg(dn, seen), 95)
    assert scene_figures(TWELVE, dn, seen, 2)["sam_p95_deg"] == pytest.approx(wanted, abs=0.0101)


def test_an_index_s_error_is_by_hand() -> None:
    sensor = sensor_of(("B08", "B11"))
    dn = np.stack([np.full((128, 128), v, np.uint16) for v in (3000, 1000)])
    seen = np.stack([np.full((128, 128), v, np.uint16) for v in (3000, 2000)])
    assert tile_figures(dn, seen, ALL, sensor)["ndmi_mae"] == pytest.approx(0.5 - 0.2)


@pytest.mark.parametrize("number", [1.0, 4.4])
def test_looks_of_speckle_are_those_it_was_drawn_with(number: float) -> None:
    power = np.random.default_rng(2).gamma(number, 1 / number, (512, 512))
    assert np.median(looks(power, np.ones(power.shape, bool))) == pytest.approx(number, rel=0.03)


def test_looks_of_windows_with_gaps_do_not_count() -> None:
    valid = np.ones((40, 40), bool)
    valid[3, 20] = False
    assert len(looks(np.ones((40, 40)), valid)) == 3


def test_a_picture_that_is_as_it_was_has_a_ratio_of_1_and_its_edges() -> None:
    dn = speckle(4.4, 1)
    found = scene_figures(RADAR, dn, dn)
    assert (found["ratio_mean"], found["ratio_spread"], found["vv_vh_mae_db"]) == (1.0, 0.0, 0.0)
    assert found["edge_correlation"] == pytest.approx(1) and found["enl_after"] == found["enl_before"]


def test_a_gain_of_one_polarisation_is_seen_in_the_ratios_and_not_in_edges_or_looks() -> None:
    dn = speckle(4.4, 1)
    seen = dn.copy()
    seen[0] += 100  # VV by 1 dB
    found = scene_figures(RADAR, dn, seen, 4)
    gain = 10**0.1
    assert found["vv_vh_mae_db"] == pytest.approx(1.0)
    assert found["ratio_mean"] == pytest.approx((1 + gain) / 2)
    assert found["ratio_spread"] == pytest.approx((gain - 1) / 2)
    assert found["enl_after"] == pytest.approx(found["enl_before"]) and found["edge_correlation"] > 0.999


def test_smoothing_raises_looks_and_loses_edges() -> None:
    smooth = speckle(40, 2)
    found = scene_figures(RADAR, speckle(4.4, 1), smooth)
    assert found["enl_after"] > 5 * found["enl_before"] and abs(found["edge_correlation"]) < 0.05


def test_nothing_compared_is_no_number() -> None:
    empty = RadarFigures(replace(RADAR))
    empty.add(speckle(1, 1), speckle(1, 1), np.zeros((128, 128), bool))
    assert all(np.isnan(value) for value in empty.figures().values())
    assert np.isnan(tile_figures(drawn(2), drawn(2), np.zeros((128, 128), bool), RADAR)["sam_p95_deg"])
