"""Every figure of quality and of rate: its key, name, unit, convention, and whether a mission may set a limit to it.

The one list that reports, comparisons, missions and docs read. A figure is computed under its key by
sim/metrics/distortion.py, sim/metrics/thematic.py or the report's counting; a requirement is the key with `min_` or
`max_` in front (sim/mission/spec.py). A new metric is an entry here and the function that computes it.
"""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Metric:
    key: str
    name: str
    unit: str  # "" for a bare number
    convention: str
    limit: Literal["min", "max", ""] = ""  # what a mission may require of it
    most: float = 1.0  # the largest limit that makes sense
    decimals: int = 3
    more_is_better: bool = True


_SSIM = "gaussian window of 11 px, sigma 1.5 px, mean over bands"
_KMEANS = "k-means++, 10 clusters, every 10th row and column, seed 42"
_COVER = "water, vegetation, bright, other by a frozen rule on NDVI, NDWI and brightness, in both pictures"
_MTF = "|mean of conj(X) Y| / mean of |X|^2 over windows of 64 px, mean over bands"
_LOOKS = "mean^2 / variance of intensity in windows of 16 px; median of the tenth that is most even in the original"
_NDVI = "(NIR - red) / (NIR + red)"

#: Distortion, in the order of the report. `SCENE` figures exist for whole scenes, `TILE` figures for every tile.
DISTORTION = (
    Metric("psnr_10k_db", "PSNR, peak 10 000", "dB",
           "10 log10(10 000^2 / MSE), MSE over all bands and compared pixels", "min", 200, 2),
    Metric("psnr_65k_db", "PSNR, peak 65 535", "dB",
           "the same error against the container's full scale: 16.3 dB kinder", "min", 200, 2),
    Metric("psnr_10k_mean_db", "PSNR, mean over tiles", "dB", "peak 10 000", decimals=2),
    Metric("psnr_10k_pooled_db", "PSNR of the pooled MSE", "dB", "peak 10 000, over all tiles", decimals=2),
    Metric("psnr_10k_median_db", "PSNR, median tile", "dB", "peak 10 000", decimals=2),
    Metric("psnr_10k_worst_db", "PSNR, worst tile", "dB", "peak 10 000", "min", 200, 2),
    Metric("snr_db", "SNR", "dB", "10 log10(variance / MSE), variance of each band, mean over bands", decimals=2),
    Metric("ssim_10k", "SSIM", "", f"{_SSIM}, range 10 000", "min"),
    Metric("ssim_own", "SSIM, own range", "",
           f"{_SSIM}, range from the least to the largest DN of each band in the original tile: far stricter", "min"),
    Metric("ms_ssim_10k", "MS-SSIM", "", "five scales, range 10 000"),
    Metric("rmse_reflectance", "RMSE", "reflectance", "root of the MSE / 10 000", "max", 10, 4, False),
    Metric("max_error_reflectance", "largest error", "reflectance",
           "over all bands and compared pixels", "max", 10, 4, False),
    Metric("ndvi_mae", "NDVI, mean absolute error", "", _NDVI, "max", 2, 4, False),
    Metric("ndvi_p95", "NDVI, 95th percentile of the error", "", f"{_NDVI}; of a scene to 1e-4",
           decimals=4, more_is_better=False),
    Metric("ndwi_mae", "NDWI, mean absolute error", "", "(green - NIR) / (green + NIR)", decimals=4,
           more_is_better=False),
    Metric("sam_deg", "spectral angle", "deg", "mean over compared pixels", "max", 180, 2, False),
    Metric("kmeans_oa", "k-means agreement", "", f"{_KMEANS} (COPEX rule): both pictures fitted"),
    Metric("kmeans_kappa", "k-means agreement, Cohen's kappa", "", f"{_KMEANS} (COPEX rule)"),
    Metric("kmeans_fixed_oa", "k-means agreement, fixed centroids", "", f"{_KMEANS}; the original's centroids"),
    Metric("kmeans_reseeding_floor", "k-means re-seeding floor", "", f"{_KMEANS}; the original re-seeded"),
    Metric("cover_oa", "land cover agreement", "", _COVER),
    Metric("cover_kappa", "land cover agreement, Cohen's kappa", "", _COVER),
    Metric("mtf_ratio_half_nyquist", "MTF ratio at half Nyquist", "", _MTF),
    Metric("mtf_ratio_nyquist", "MTF ratio near Nyquist", "", _MTF),
    Metric("largest_bias_reflectance", "largest bias of a band", "reflectance",
           "absolute mean of reconstruction - original", decimals=5, more_is_better=False),
    Metric("lpips", "LPIPS", "", "not computed: its AlexNet weights cannot be shipped with Nadir; "
           "sim verify --lpips-weights takes them", more_is_better=False),
)  # fmt: skip
#: Figures that only some sensors have the bands for (sim/metrics/by_kind.py): shown where they are there.
BY_KIND = (
    Metric("sam_p95_deg", "spectral angle, 95th percentile", "deg", "over compared pixels, to 0.01 degrees", "max",
           180, 2, False),
    Metric("ndmi_mae", "NDMI, mean absolute error", "", "(NIR - SWIR 1.6) / (NIR + SWIR 1.6)", decimals=4,
           more_is_better=False),
    Metric("nbr_mae", "NBR, mean absolute error", "", "(NIR - SWIR 2.2) / (NIR + SWIR 2.2)", decimals=4,
           more_is_better=False),
    Metric("ndsi_mae", "NDSI, mean absolute error", "", "(green - SWIR 1.6) / (green + SWIR 1.6)", decimals=4,
           more_is_better=False),
    Metric("ndre_mae", "NDRE, mean absolute error", "", "(NIR - red edge 705) / (NIR + red edge 705)", decimals=4,
           more_is_better=False),
    Metric("enl_before", "equivalent looks, original", "", _LOOKS, decimals=2),
    Metric("enl_after", "equivalent looks, received", "", _LOOKS, decimals=2),
    Metric("ratio_mean", "ratio image, mean", "", "received over original intensity, all bands; 1 is unbiased"),
    Metric("ratio_spread", "ratio image, standard deviation", "", "received over original intensity, all bands",
           more_is_better=False),
    Metric("vv_vh_mae_db", "VV / VH, mean absolute error", "dB", "of the ratio of the two in dB", "max", 60, 3, False),
    Metric("edge_correlation", "edges, correlation", "", "of Sobel's magnitudes in dB, all bands"),
)  # fmt: skip
RATE = (
    Metric(
        "cr16", "compression ratio against 16 bit", "", "16 bit a sample over every octet downlinked", "min", 1e6, 1
    ),
    Metric("cr_sensor", "compression ratio against the sensor's bits", "", "the sensor's bits a sample", "min", 1e6, 1),
    Metric("bpp", "bits per pixel, all bands", "bit/px", "octets x 8 over pixels", "max", 200, 3, False),
    Metric("bpppb", "bits per pixel and band", "bit", "mean over bands", decimals=3, more_is_better=False),
)
DELIVERY = (
    Metric("lost_fraction", "share of tiles lost", "", "lost or refused, of those sent", "max", more_is_better=False),
    Metric("incomplete_fraction", "share of tiles incomplete", "",
           "cut short on the link, of those sent", "max", more_is_better=False),
    Metric("withheld_fraction", "share of tiles withheld", "",
           "too cloudy, of those that hold data", "max", more_is_better=False),
    Metric("false_discard_fraction", "share of audited discards that were good data", "",
           "not found cloudy, of the withheld tiles that were audited", "max", more_is_better=False),
)  # fmt: skip
EVERY = (*DISTORTION, *BY_KIND, *RATE, *DELIVERY)
BY_KEY = {metric.key: metric for metric in EVERY}

#: What a report on a scene shows, in its order.
REPORTED = tuple(metric for metric in DISTORTION if metric.key not in (
    "psnr_10k_pooled_db", "ms_ssim_10k", "kmeans_fixed_oa", "kmeans_reseeding_floor"
))  # fmt: skip
#: What every row of a comparison has and is averaged over tiles.
COMPARED = tuple(BY_KEY[key] for key in (
    "psnr_10k_db", "psnr_65k_db", "snr_db", "rmse_reflectance", "ssim_10k", "ssim_own", "ms_ssim_10k",
    "sam_deg", "ndvi_mae", "ndvi_p95", "kmeans_oa", "kmeans_fixed_oa",
))  # fmt: skip


def requirement(metric: Metric) -> str:
    """The name of the limit that a mission may set: min_psnr_10k_db, max_error_reflectance, ..."""
    return metric.key if metric.key.startswith(f"{metric.limit}_") else f"{metric.limit}_{metric.key}"


REQUIREMENTS = {requirement(metric): metric for metric in EVERY if metric.limit}


def conventions() -> dict[str, str]:
    """What each figure of a comparison is, by its key."""
    return {m.key: f"{m.name}: {m.convention}" for m in (*DISTORTION, *BY_KIND, *RATE)}
