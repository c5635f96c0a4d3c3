"""Every figure of sim/metrics against closed forms, hand-worked pixels or another library."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.signal import convolve2d
from skimage.metrics import structural_similarity
from sklearn.cluster import KMeans

from payload.errors import InputError
from payload.native import library
from payload.sensor import SENTINEL2_RGBN, sensor_of
from sim.metrics import distortion, pixels, similarity, thematic
from sim.metrics.cover import CoverAgreement
from sim.metrics.distortion import SceneQuality, tile_figures
from sim.metrics.similarity import SsimSums
from sim.report import comparison

SHAPE = (4, 64, 96)


def picture(seed, shape=SHAPE):
    """Smooth fields plus texture: DN [B, h, w]."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[: shape[1], : shape[2]]
    waves = [np.sin(x / (7 + 3 * b)) + np.cos(y / (9 + 2 * b) + seed) for b in range(shape[0])]
    noisy = 2000 + 600 * np.stack(waves) + random.normal(0, 120, shape)
    return np.clip(np.rint(noisy), 0, 65535).astype(np.uint16)


def disturbed(dn, seed, rms=60.0):
    noise = np.random.default_rng(seed).normal(0, rms, dn.shape)
    return np.clip(np.rint(dn + noise), 0, 65535).astype(np.uint16)


def everywhere(dn):
    return np.ones(dn.shape[1:], dtype=bool)


# --- pixels worked by hand ----------------------------------------------------------------------


def test_two_pixels_by_hand():
    # bands B02 B03 B04 B08, two pixels; errors 0 3 / 0 0 / 0 4 / 0 12
    original = np.array([[[100, 200]], [[100, 200]], [[100, 300]], [[300, 500]]], np.uint16)
    reconstruction = np.array([[[100, 203]], [[100, 200]], [[100, 296]], [[300, 512]]], np.uint16)
    figures = tile_figures(original, reconstruction, everywhere(original), SENTINEL2_RGBN)
    mse = (9 + 16 + 144) / 8  # eight samples
    assert figures["psnr_10k_db"] == pytest.approx(10 * math.log10(1e8 / mse))
    assert figures["psnr_65k_db"] == pytest.approx(10 * math.log10(65535**2 / mse))
    variance = (50**2 + 50**2 + 100**2 + 100**2) / 4  # of two values a, b: ((b - a) / 2)^2
    assert figures["snr_db"] == pytest.approx(10 * math.log10(variance / mse))
    assert figures["rmse_reflectance"] == pytest.approx(math.sqrt(mse) / 10_000)
    assert figures["max_error_reflectance"] == pytest.approx(0.0012)
    # NDVI of the first pixel is 200/400 in both; of the second 200/800 against 216/808
    assert figures["ndvi_mae"] == pytest.approx((216 / 808 - 0.25) / 2)
    dot = 200 * 203 + 200 * 200 + 300 * 296 + 500 * 512
    norms = (200**2 * 2 + 300**2 + 500**2) * (203**2 + 200**2 + 296**2 + 512**2)
    assert figures["sam_deg"] == pytest.approx(math.degrees(math.acos(dot / math.sqrt(norms))) / 2)


def test_the_two_peaks_lie_16_db_apart():
    assert distortion.psnr_db(50.0, 65535) - distortion.psnr_db(50.0, 10_000) == pytest.approx(20 * math.log10(6.5535))


def test_a_lossless_picture_is_perfect_in_every_figure():
    dn = picture(1, (4, 176, 176))
    figures = tile_figures(dn, dn, everywhere(dn), SENTINEL2_RGBN)
    assert figures["psnr_10k_db"] == figures["psnr_65k_db"] == figures["snr_db"] == float("inf")
    for name in ("ssim_10k", "ms_ssim_10k", "kmeans_oa", "kmeans_fixed_oa"):
        assert figures[name] == pytest.approx(1.0), name
    for name in ("rmse_reflectance", "max_error_reflectance", "ndvi_mae", "ndvi_p95"):
        assert figures[name] == 0.0, name
    # acos near 1 turns one unit in the last place into sqrt(2 eps) radians
    assert figures["sam_deg"] == pytest.approx(0.0, abs=math.degrees(math.sqrt(2 * 2**-52)))


def test_black_pixels_have_defined_ndvi_and_angle():
    black, lit = np.zeros((4, 1, 1), np.uint16), np.full((4, 1, 1), 7, np.uint16)
    assert pixels.ndvi(black, SENTINEL2_RGBN)[0, 0] == 0.0
    assert distortion.spectral_angle_deg(black, black)[0, 0] == 0.0
    assert distortion.spectral_angle_deg(black, lit)[0, 0] == 90.0


@given(st.integers(2, 9))
def test_the_spectral_angle_does_not_see_brightness(factor):
    dn = picture(3)
    assert distortion.spectral_angle_deg(dn, (dn * factor).astype(np.uint16)).max() < 1e-5


def test_ndvi_needs_red_and_near_infrared():
    with pytest.raises(InputError, match="none is the nir one"):
        pixels.ndvi(picture(1)[:3], sensor_of(("B02", "B03", "B04")))


def test_rates_by_hand():
    # 1000 octets for 100 x 40 px of 4 bands, a 12-bit sensor: 8000 bits over 4000 px
    figures = distortion.rate_figures(1000, 4000, 4, 12)
    assert figures == {"bpp": 2.0, "bpppb": 0.5, "cr16": 32.0, "cr_sensor": 24.0}


def test_four_ways_to_average_psnr():
    # two tiles of equal size at 40 and 20 dB (peak 10 000): MSE 1e4 and 1e6, pooled 505 000
    figures = distortion.per_tile_summary([1e4, 1e6], [10, 10])
    assert figures["psnr_10k_mean_db"] == pytest.approx(30.0)
    assert figures["psnr_10k_median_db"] == pytest.approx(30.0)
    assert figures["psnr_10k_worst_db"] == pytest.approx(20.0)
    assert figures["psnr_10k_pooled_db"] == pytest.approx(10 * math.log10(1e8 / 505_000))


# --- SSIM ---------------------------------------------------------------------------------------


def test_ssim_is_scikit_images():
    dn = picture(5)
    seen = disturbed(dn, 6, rms=200)
    options = {"data_range": 10_000, "gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    theirs = np.mean([structural_similarity(a, b, **options) for a, b in zip(dn, seen, strict=True)])
    assert similarity.ssim(dn, seen, everywhere(dn)) == pytest.approx(theirs, abs=1e-12)


def test_ssim_of_a_wide_strip_does_not_depend_on_its_slices(monkeypatch):
    dn = picture(5, (4, 24, 300))
    seen = disturbed(dn, 6, rms=200)
    whole = similarity.SsimSums.of(dn, seen, everywhere(dn))
    monkeypatch.setattr(similarity, "SSIM_SLICE_PX", 37)
    sliced = similarity.SsimSums.of(dn, seen, everywhere(dn))
    assert sliced.fixed_range == pytest.approx(whole.fixed_range, rel=1e-12)
    assert sliced.own_range == pytest.approx(whole.own_range, rel=1e-12)
    assert sliced.windows == whole.windows == 14 * 290


def test_ssim_of_the_own_range_is_scikit_images_with_each_bands_span():
    dn = picture(5)
    seen = disturbed(dn, 6, rms=200)
    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    theirs = np.mean([
        structural_similarity(a, b, data_range=int(a.max()) - int(a.min()), **options)
        for a, b in zip(dn, seen, strict=True)
    ])  # fmt: skip
    figures = distortion.tile_figures(dn, seen, everywhere(dn), SENTINEL2_RGBN)
    assert figures["ssim_own"] == pytest.approx(theirs, abs=1e-12)
    assert figures["ssim_own"] < figures["ssim_10k"]


def test_ssim_of_flat_pictures_is_the_luminance_term():
    a, b = np.full((1, 32, 32), 1000, np.uint16), np.full((1, 32, 32), 3000, np.uint16)
    c1 = (0.01 * 10_000) ** 2
    wanted = (2 * 1000 * 3000 + c1) / (1000**2 + 3000**2 + c1)
    assert similarity.ssim(a, b, everywhere(a)) == pytest.approx(wanted, rel=1e-9)


def ms_ssim_from_the_paper(a, b):
    """Wang, Simoncelli and Bovik 2003, equation 7, with plain two-dimensional convolutions."""
    offsets = np.arange(-5, 6)
    window = np.exp(-(offsets[:, None] ** 2 + offsets**2) / (2 * 1.5**2))
    window /= window.sum()
    a, b, product = a.astype(float), b.astype(float), 1.0
    for scale, weight in enumerate((0.0448, 0.2856, 0.3001, 0.2363, 0.1333)):
        mean_a, mean_b = (convolve2d(p, window, "valid") for p in (a, b))
        var_a, var_b = convolve2d(a * a, window, "valid") - mean_a**2, convolve2d(b * b, window, "valid") - mean_b**2
        cov = convolve2d(a * b, window, "valid") - mean_a * mean_b
        cs = (2 * cov + 300**2) / (var_a + var_b + 300**2)
        luminance = (2 * mean_a * mean_b + 100**2) / (mean_a**2 + mean_b**2 + 100**2)
        product *= np.mean(cs if scale < 4 else cs * luminance) ** weight
        if scale == 4:
            break
        a, b = ((p[::2, ::2] + p[1::2, ::2] + p[::2, 1::2] + p[1::2, 1::2]) / 4 for p in (a, b))
    return product


def test_ms_ssim_is_the_papers():
    dn = picture(7, (2, 176, 192))
    seen = disturbed(dn, 8, rms=300)
    wanted = np.mean([ms_ssim_from_the_paper(a, b) for a, b in zip(dn, seen, strict=True)])
    assert similarity.ms_ssim(dn, seen, everywhere(dn)) == pytest.approx(wanted, rel=1e-9)


def test_ms_ssim_is_not_defined_where_the_coarsest_scale_has_no_window():
    dn = picture(7, (1, 160, 400))
    assert math.isnan(similarity.ms_ssim(dn, dn, everywhere(dn)))


# --- the mask -----------------------------------------------------------------------------------


def half_mask(shape):
    valid = np.ones(shape, dtype=bool)
    valid[:, : shape[1] // 2] = False
    valid[10:13, -20:-10] = False
    return valid


@settings(max_examples=10, deadline=None)
@given(arrays(np.uint16, (4, 176, 200)))
def test_what_lies_outside_the_mask_counts_nowhere(garbage):
    dn = picture(9, (4, 176, 200))
    seen, valid = disturbed(dn, 10), half_mask((176, 200))
    clean = tile_figures(dn, seen, valid, SENTINEL2_RGBN)
    dirty = tile_figures(dn, np.where(valid, seen, garbage), valid, SENTINEL2_RGBN)
    assert all(dirty[name] == clean[name] or math.isnan(clean[name]) for name in clean)


def test_a_masked_picture_is_the_cut_picture():
    dn, seen = picture(11, (4, 60, 200)), disturbed(picture(11, (4, 60, 200)), 12)
    valid = np.zeros((60, 200), dtype=bool)
    valid[:, 100:] = True  # column 100 is on the grid of every 10th pixel
    masked = tile_figures(dn, seen, valid, SENTINEL2_RGBN)
    cut = tile_figures(dn[:, :, 100:], seen[:, :, 100:], everywhere(dn[:, :, 100:]), SENTINEL2_RGBN)
    for name, value in cut.items():
        assert masked[name] == pytest.approx(value, rel=1e-12, nan_ok=True), name


def test_no_valid_pixel_is_no_figure():
    dn = picture(1)
    figures = tile_figures(dn, dn, np.zeros(dn.shape[1:], dtype=bool), SENTINEL2_RGBN)
    assert all(math.isnan(value) for value in figures.values())


def test_pictures_that_do_not_fit_are_refused():
    dn = picture(1)
    with pytest.raises(InputError, match="wanted"):
        tile_figures(dn, dn[:, 1:], everywhere(dn), SENTINEL2_RGBN)
    with pytest.raises(InputError, match="float64"):
        tile_figures(dn, dn.astype(float), everywhere(dn), SENTINEL2_RGBN)


# --- thematic agreement -------------------------------------------------------------------------


def copex_rule(original, reconstruction):
    """VisioTerra's thematic.py, compute_kmeans_multiband and accuracy_score, with scikit-learn as there."""

    def classes(picture, start=None):
        image = np.moveaxis(picture, 0, -1)
        sample = image[::10, ::10, :].reshape(-1, image.shape[2])
        if start is None:
            start = KMeans(n_clusters=10, init="k-means++", random_state=42).fit(sample).cluster_centers_
        fitted = KMeans(n_clusters=10, init=start, random_state=42).fit(sample)
        return fitted.predict(image.reshape(-1, image.shape[2])), start

    original_classes, start = classes(original)
    return (original_classes == classes(reconstruction, start)[0]).mean()


@pytest.mark.parametrize("seed", range(6))
def test_kmeans_agreement_is_the_copex_rule_on_scikit_learn(seed):
    dn = picture(seed, (4, 120, 130))
    seen = disturbed(dn, seed + 50, rms=40 * (seed + 1))
    assert thematic.agreement(dn, seen, everywhere(dn))["kmeans_oa"] == pytest.approx(copex_rule(dn, seen), abs=1e-12)


def ten_fields():
    """Ten flat fields of 10 x 100 px, DN 1000 apart: k-means++ has one right answer."""
    rows = np.repeat(np.arange(10) * 1000 + 500, 10)
    return np.broadcast_to(rows[None, :, None], (4, 100, 100)).astype(np.uint16)


def test_a_field_that_changes_class_costs_its_share():
    dn = ten_fields()
    seen = dn.copy()
    seen[:, 20:25] = dn[:, 70:75]  # 500 of 10 000 px now look like another field
    figures = thematic.agreement(dn, seen, everywhere(dn))
    assert figures["kmeans_fixed_oa"] == 0.95
    assert figures["kmeans_oa"] <= 0.95
    assert figures["kmeans_reseeding_floor"] == 1.0  # any seed finds the same ten fields


def test_a_brightness_shift_moves_every_field_but_the_brightest():
    dn = ten_fields()
    seen = (dn + 600).astype(np.uint16)  # nearer to the next field
    figures = thematic.agreement(dn, seen, everywhere(dn))
    assert figures["kmeans_fixed_oa"] == pytest.approx(0.1)  # the brightest field has no neighbour above
    # the re-fit starts with an empty cluster, which scikit-learn moves to the farthest sample
    assert figures["kmeans_oa"] == pytest.approx(copex_rule(dn, seen))


def test_fewer_distinct_spectra_than_clusters():
    dn = np.full((4, 100, 100), 800, np.uint16)
    dn[:, 50:] = 900
    figures = thematic.agreement(dn, dn, everywhere(dn))
    assert figures == {
        "kmeans_oa": 1.0, "kmeans_fixed_oa": 1.0, "kmeans_reseeding_floor": 1.0, "kmeans_kappa": 1.0,
    }  # fmt: skip


def test_under_ten_samples_there_is_no_agreement():
    dn = picture(1, (4, 30, 30))  # nine samples
    assert all(math.isnan(v) for v in thematic.agreement(dn, dn, everywhere(dn)).values())


def test_renaming_clusters_is_no_disagreement():
    labels = np.random.default_rng(1).integers(0, 10, 1000)
    renamed = np.random.default_rng(2).permutation(10)[labels]
    assert thematic.matched_agreement(labels, renamed) == 1.0


# --- scenes -------------------------------------------------------------------------------------


def streamed(dn, seen, valid, rows_px, cols_px):
    scene = SceneQuality(SENTINEL2_RGBN)
    for top in range(0, dn.shape[1], rows_px):
        for left in range(0, dn.shape[2], cols_px):
            where = slice(top, top + rows_px), slice(left, left + cols_px)
            scene.add(dn[:, *where], seen[:, *where], valid[where])
    return scene.figures()


def test_a_scene_of_one_piece_is_that_piece():
    dn = picture(13, (4, 100, 180))
    seen, valid = disturbed(dn, 14), half_mask((100, 180))
    whole, exact = streamed(dn, seen, valid, 100, 180), tile_figures(dn, seen, valid, SENTINEL2_RGBN)
    for name in ("psnr_10k_db", "psnr_65k_db", "snr_db", "max_error_reflectance", "ssim_10k", "sam_deg", "ndvi_mae"):
        assert whole[name] == pytest.approx(exact[name], rel=1e-12), name
    one_bin = 1e-4
    assert whole["ndvi_p95"] == pytest.approx(exact["ndvi_p95"], abs=one_bin)


@pytest.mark.parametrize(("rows_px", "cols_px"), [(20, 180), (50, 60), (100, 30)])
def test_how_a_scene_is_cut_does_not_change_what_is_pooled(rows_px, cols_px):
    dn = picture(13, (4, 100, 180))
    seen, valid = disturbed(dn, 14), half_mask((100, 180))
    whole, cut = streamed(dn, seen, valid, 100, 180), streamed(dn, seen, valid, rows_px, cols_px)
    for name in (
        "psnr_10k_db",
        "snr_db",
        "rmse_reflectance",
        "max_error_reflectance",
        "ndvi_p95",
        "psnr_10k_pooled_db",
    ):
        assert cut[name] == whole[name], name  # integers underneath
    for name in ("sam_deg", "ndvi_mae"):
        assert cut[name] == pytest.approx(whole[name], rel=1e-12), name


def test_thematic_figures_of_a_scene_are_those_of_its_sampled_pixels():
    dn = picture(13, (4, 100, 180))
    seen = disturbed(dn, 14)
    sampled = [p[:, ::10, ::10].reshape(4, -1).T.astype(float) for p in (dn, seen)]
    known = thematic.Reference.of(sampled[0], sampled[0])
    wanted = known.agreement(sampled[1], sampled[1])
    assert {k: v for k, v in streamed(dn, seen, everywhere(dn), 100, 180).items() if k in wanted} == wanted


def test_pieces_of_a_scene_are_summed_up():
    dn = np.full((4, 40, 40), 1000, np.uint16)
    seen = dn.copy()
    seen[:, :, :20] += 100  # MSE 10 000: 40 dB
    seen[:, :, 20:] += 10  # MSE 100: 60 dB
    figures = streamed(dn, seen, everywhere(dn), 40, 20)
    assert figures["psnr_10k_mean_db"] == pytest.approx(50.0)
    assert figures["psnr_10k_worst_db"] == pytest.approx(40.0)
    assert figures["psnr_10k_pooled_db"] == figures["psnr_10k_db"] == pytest.approx(10 * math.log10(1e8 / 5050))


def test_a_scene_without_a_valid_pixel_is_refused():
    scene = SceneQuality(SENTINEL2_RGBN)
    dn = picture(1)
    scene.add(dn, dn, np.zeros(dn.shape[1:], dtype=bool))
    with pytest.raises(InputError, match="no valid pixel"):
        scene.figures()


def test_psnr_of_a_tile_in_a_report_by_hand():
    # every band 10 DN off where known: MSE 100, 10 log10(1e8 / 100) = 60 dB; what is not known does not count
    original = np.full((4, 8, 8), 1000, np.uint16)
    seen, known = original + np.uint16(10), np.ones((8, 8), bool)
    seen[:, 0], known[0] = 60_000, False
    assert comparison._tile_psnr_db(original, seen, known) == pytest.approx(60.0, abs=1e-9)


@pytest.mark.skipif(not library.available, reason="the kernel was not built: no C compiler at install")
@pytest.mark.parametrize(("height", "width"), [(11, 11), (40, 1100), (64, 37)])
def test_the_kernels_ssim_is_that_of_numpy(monkeypatch: pytest.MonkeyPatch, height: int, width: int) -> None:
    rng = np.random.default_rng(height)
    original = rng.integers(0, 65536, (2, height, width), np.uint16)
    received = np.clip(original + rng.normal(0, 900, original.shape), 0, 65535).astype(np.uint16)
    valid = np.ones((height, width), bool)
    valid[height // 2, width // 3 :: 17] = height <= 11
    fast = SsimSums.of(original, received, valid)
    monkeypatch.setattr(library, "available", False)
    plain = SsimSums.of(original, received, valid)
    assert fast.windows == plain.windows > 0
    assert fast.fixed_range == pytest.approx(plain.fixed_range, rel=1e-12)
    assert fast.own_range == pytest.approx(plain.own_range, rel=1e-12)


def test_pieces_looked_at_apart_give_the_cover_of_all_of_them() -> None:
    rng = np.random.default_rng(3)
    original, received = rng.integers(1, 9000, (2, 4, 256, 256), np.uint16)
    masks = [np.ones((256, 256), bool), rng.random((256, 256)) < 0.7]
    whole, parts = CoverAgreement(SENTINEL2_RGBN), CoverAgreement(SENTINEL2_RGBN)
    for valid in masks:
        whole.add(original, received, valid)
        parts.merge(CoverAgreement.of(SENTINEL2_RGBN, original, received, valid))
    assert parts.figures() == pytest.approx(whole.figures(), rel=1e-12)


def test_one_band_has_no_spectral_angle() -> None:
    rng, sensor = np.random.default_rng(0), sensor_of(("PAN",))
    a, b = rng.integers(1, 4096, (2, 1, 32, 32)).astype(np.uint16)
    valid = np.ones((32, 32), bool)
    scene = SceneQuality(sensor)
    scene.add(a, b, valid)
    assert math.isnan(tile_figures(a, b, valid, sensor)["sam_deg"]) and math.isnan(scene.figures()["sam_deg"])
