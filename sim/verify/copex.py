"""The metrics of the COPEX project (VisioTerra's library 0.5.5), under its conventions and in its JSON.

Every band on its own and over all pixels, masked or not, as that library knows no mask: RMSE in stored units; PSNR and
SSIM against the whole range of the data type; SSIM with a uniform window of 11 px in blocks of 2 500 px, mean of the
blocks; k-means++ (kmeans++-10-10-42) over all bands, both pictures fitted, overall accuracy and Cohen's kappa.
"""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter

from payload.version import VERSION
from sim.metrics import thematic
from sim.metrics.radiometry import kappa
from sim.verify.pair import Pair

F64 = NDArray[np.float64]
BLOCK_PX, WINDOW_PX, K1, K2 = 2500, 11, 0.01, 0.03
THEMATIC = f"kmeans++-{thematic.INTERVAL_PX}-{thematic.CLUSTERS}-{thematic.SEED}"


def figures(pair: Pair) -> dict[str, Any]:
    """Per band `rmse`, `psnr_db`, `ssim`, and `overall_accuracy` and `kappa_coefficient` of all bands."""
    squares = np.zeros(len(pair.bands))
    ssims: list[list[float]] = [[] for _ in pair.bands]
    for block in pair.blocks(BLOCK_PX):
        x, y = block.original.astype(np.float64), block.received.astype(np.float64)
        squares += ((x - y) ** 2).sum(axis=(1, 2))
        for left in range(0, x.shape[2], BLOCK_PX):
            span = slice(left, left + BLOCK_PX)
            if min(x[0, :, span].shape) < WINDOW_PX:
                continue  # a rest at the edge without a whole window; the library stops with an error there
            for found, a, b in zip(ssims, x[:, :, span], y[:, :, span], strict=True):
                found.append(ssim(a, b, pair.peak))
    pixels = pair.original.height * pair.original.width
    rmse = np.sqrt(squares / pixels)
    return {
        "rmse": [float(value) for value in rmse],
        "psnr_db": [20 * math.log10(pair.peak / value) if value else math.inf for value in rmse],
        "ssim": [float(np.mean(found)) if found else math.nan for found in ssims],
        **dict(zip(("overall_accuracy", "kappa_coefficient"), _agreement(pair), strict=True)),
    }


def ssim(a: F64, b: F64, peak: float) -> float:
    """SSIM of one block [h, w] with a uniform window and population covariance, mean over whole windows."""
    mean_a, mean_b = (uniform_filter(v, WINDOW_PX) for v in (a, b))
    var_a, var_b = uniform_filter(a * a, WINDOW_PX) - mean_a**2, uniform_filter(b * b, WINDOW_PX) - mean_b**2
    covariance = uniform_filter(a * b, WINDOW_PX) - mean_a * mean_b
    c1, c2 = (K1 * peak) ** 2, (K2 * peak) ** 2
    top = (2 * mean_a * mean_b + c1) * (2 * covariance + c2)
    similarity = top / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2))
    edge = (WINDOW_PX - 1) // 2
    return float(similarity[edge:-edge, edge:-edge].mean())


def _agreement(pair: Pair) -> tuple[float, float]:
    """Overall accuracy and kappa of k-means of both, fitted on every 10th row and column of the whole pictures."""
    parts = [(_sampled(b.row_px, b.original), _sampled(b.row_px, b.received)) for b in pair.blocks()]
    first, second = (np.concatenate(side).astype(np.float64) for side in zip(*parts, strict=True))
    if len(first) < thematic.CLUSTERS:
        return math.nan, math.nan
    start = thematic.fit(first, thematic.seed_centroids(first, thematic.SEED))
    before, after = thematic.fit(first, start), thematic.fit(second, start)
    table = np.zeros((thematic.CLUSTERS,) * 2, np.int64)
    for block in pair.blocks():
        labels = [thematic.classify(_spectra(picture), centroids)
                  for picture, centroids in ((block.original, before), (block.received, after))]  # fmt: skip
        flat = labels[0] * thematic.CLUSTERS + labels[1]
        table += np.bincount(flat, minlength=table.size).reshape(table.shape)
    return float(np.trace(table) / table.sum()), kappa(table)


def _sampled(row_px: int, picture: NDArray[Any]) -> NDArray[Any]:
    """Every 10th row and column of the whole picture, of those in this block: [n, B]."""
    first = -row_px % thematic.INTERVAL_PX
    return picture[:, first :: thematic.INTERVAL_PX, :: thematic.INTERVAL_PX].reshape(len(picture), -1).T


def _spectra(picture: NDArray[Any]) -> F64:
    return picture.reshape(len(picture), -1).T.astype(np.float64)


def document(found: dict[str, Any], bands: tuple[str, ...], sizes: dict[str, Any], lpips: list[float] | None) -> Any:
    """COPEX's JSON: `metrics` by band with average and standard deviation, `thematics` of all bands."""
    by_name: dict[str, list[float]] = {"RMSE": found["rmse"], "PSNR": found["psnr_db"], "SSIM": found["ssim"]}
    if lpips is not None:
        by_name["LPIPS"] = lpips
    of_type = {"data range mode": "data_type"}
    more: dict[str, dict[str, Any]] = {"SSIM": {"block size": BLOCK_PX, **of_type}, "PSNR": of_type}
    library: dict[str, Any] = {
        "library": "nadir-payload", "version": VERSION, "COPEX high compression library version": "0.5.5",
    }  # fmt: skip
    metrics = {name: library | more.get(name, {}) | _results(values, bands) for name, values in by_name.items()}
    scores = {name: {"results": {"all": found[name]}} for name in ("overall_accuracy", "kappa_coefficient")}
    thematics = {THEMATIC: library | {"original bands": list(bands), "metrics": scores}}
    return {**sizes, "metrics": metrics, "thematics": thematics}


def _results(values: list[float], bands: tuple[str, ...]) -> dict[str, Any]:
    """Infinite figures are text, as there; average and deviation rounded to 3 digits, "None" where one is infinite."""
    results = {band: str(value) if math.isinf(value) else value for band, value in zip(bands, values, strict=True)}
    if not all(map(math.isfinite, values)):
        return {"results": results, "average": "None", "stdev": "None"}
    return {"results": results, "average": round(float(np.mean(values)), 3), "stdev": round(float(np.std(values)), 3)}
