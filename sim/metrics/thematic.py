"""Thematic agreement: does a classification of the reconstruction say the same as one of the original?

The COPEX rule ("kmeans++-10-10-42" of VisioTerra's metrics library 0.5.5, thematic.py, multi-band): k-means++ with 10
clusters and seed 42 on every 10th row and column of the original; the original and the reconstruction are then each
re-fitted *on their own sample* starting from those centroids; the share of pixels with the same label is the overall
accuracy. Beside it the same with the original's centroids held fixed (no re-fit, so only the pixels can disagree), and
the re-seeding floor: how well two classifications of the very same original agree when only the seed differs. A loss
under the COPEX rule is large or small against 1 minus that floor, not against 0.

k-means follows scikit-learn (the library COPEX calls) step by step: greedy k-means++, Lloyd, tolerance 1e-4 of the mean
variance, empty clusters moved to the farthest samples. A test holds it to scikit-learn's own labels.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from payload.scene import Dn, Mask
from sim.metrics.radiometry import kappa

F64 = NDArray[np.float64]
Labels = NDArray[np.intp]

CLUSTERS, INTERVAL_PX, SEED = 10, 10, 42
FLOOR_SEEDS = (43, 44, 45)
MAX_ITERATIONS, TOLERANCE = 300, 1e-4
SCENE_SAMPLES = 65_536  # a whole scene's every-10th sample is thinned evenly to this many pixels
NAMES = ("kmeans_oa", "kmeans_fixed_oa", "kmeans_reseeding_floor", "kmeans_kappa")


@dataclass(frozen=True, eq=False)
class Reference:
    """The original, classified once; every reconstruction of it is compared with this."""

    start: F64  # [K, B] centroids of k-means++ with seed 42
    fitted: F64  # [K, B] re-fitted from `start`, as the COPEX rule does with the original too
    labels: Labels  # [n] of the original's pixels
    reseeding_floor: float

    @classmethod
    def of(cls, sample: F64, pixels: F64) -> "Reference | None":
        """From the sample [m, B] to fit on and the pixels [n, B] to label; None with fewer samples than clusters."""
        if len(sample) < CLUSTERS:
            return None
        start = fit(sample, seed_centroids(sample, SEED))
        fitted = fit(sample, start)
        labels = classify(pixels, fitted)
        others = (classify(pixels, fit(sample, seed_centroids(sample, seed))) for seed in FLOOR_SEEDS)
        floor = float(np.mean([matched_agreement(labels, other) for other in others]))
        return cls(start, fitted, labels, floor)

    def agreement(self, sample: F64, pixels: F64) -> dict[str, float]:
        """Shares in 0..1 for a reconstruction's sample [m, B] and pixels [n, B]."""
        copex = classify(pixels, fit(sample, self.start))
        fixed = classify(pixels, self.fitted)
        table = np.bincount(self.labels * CLUSTERS + copex, minlength=CLUSTERS**2).reshape(CLUSTERS, CLUSTERS)
        same, kept = (copex == self.labels).mean(), (fixed == self.labels).mean()
        shares = same, kept, self.reseeding_floor, kappa(table)
        return dict(zip(NAMES, map(float, shares), strict=True))


def reference(original: Dn, valid: Mask) -> Reference | None:
    """The classified original of one tile: dn [B, h, w], mask [h, w]."""
    return Reference.of(_spectra(original, _sampled(valid)), _spectra(original, valid))


def agreement(original: Dn, reconstruction: Dn, valid: Mask, known: Reference | None = None) -> dict[str, float]:
    """The figures of NAMES for one tile; NaN with under 10 samples."""
    known = known or reference(original, valid)
    if known is None:
        return dict.fromkeys(NAMES, float("nan"))
    return known.agreement(_spectra(reconstruction, _sampled(valid)), _spectra(reconstruction, valid))


def sample_pair(original: Dn, reconstruction: Dn, valid: Mask) -> tuple[Dn, Dn]:
    """Every 10th row and column of a piece of a scene, valid pixels only: two uint16 [n, B]."""
    chosen = _sampled(valid)
    return original[:, chosen].T.copy(), reconstruction[:, chosen].T.copy()


def sampled_agreement(original: Dn, reconstruction: Dn) -> dict[str, float]:
    """The same figures over a scene's sampled pixels alone: two uint16 [n, B]."""
    thin = slice(None, None, -(-len(original) // SCENE_SAMPLES) or 1)
    a, b = original[thin].astype(np.float64), reconstruction[thin].astype(np.float64)
    known = Reference.of(a, a)
    return dict.fromkeys(NAMES, float("nan")) if known is None else known.agreement(b, b)


def seed_centroids(sample: F64, seed: int, clusters: int = CLUSTERS) -> F64:
    """Greedy k-means++ (Arthur and Vassilvitskii 2007, with 2 + ln K trials a step): centroids [K, B] out of [m, B]."""
    random = np.random.RandomState(seed)  # the legacy generator: the COPEX rule's seed 42 means this stream
    trials = 2 + int(np.log(clusters))
    centred = sample - sample.mean(axis=0)
    weights = np.full(len(sample), 1 / len(sample))
    chosen = [int(random.choice(len(sample), p=weights))]
    nearest = _squared_distances(centred[chosen], centred)[0]  # [m]
    for _ in range(1, clusters):
        drawn = np.searchsorted(np.cumsum(nearest), random.uniform(size=trials) * nearest.sum())
        drawn = np.clip(drawn, None, len(sample) - 1)
        candidates = np.minimum(nearest, _squared_distances(centred[drawn], centred))  # [trials, m]
        best = int(np.argmin(candidates.sum(axis=1)))
        nearest = candidates[best]
        chosen.append(int(drawn[best]))
    return sample[chosen]


def fit(sample: F64, start: F64) -> F64:
    """Lloyd's iterations from `start` [K, B] on `sample` [m, B] until labels stand still or centroids barely move."""
    offset = sample.mean(axis=0)  # centred for the precision of the distances
    x, centroids = sample - offset, start - offset
    tolerance = TOLERANCE * sample.var(axis=0).mean()
    labels: Labels | None = None
    for _ in range(MAX_ITERATIONS):
        previous, labels = labels, classify(x, centroids)
        moved = _means(x, labels, centroids)
        shift = ((moved - centroids) ** 2).sum()
        centroids = moved
        if (previous is not None and np.array_equal(labels, previous)) or shift <= tolerance:
            break
    return centroids + offset


def classify(pixels: F64, centroids: F64) -> Labels:
    """Index of the nearest centroid [K, B] of each pixel [n, B]."""
    return np.argmin((centroids**2).sum(axis=1) - 2 * pixels @ centroids.T, axis=1)


def matched_agreement(a: Labels, b: Labels, clusters: int = CLUSTERS) -> float:
    """Share of equal labels after the best one-to-one renaming of clusters: k-means numbers them at random."""
    table = np.bincount(a * clusters + b, minlength=clusters * clusters).reshape(clusters, clusters)
    rows, cols = linear_sum_assignment(table, maximize=True)
    return float(table[rows, cols].sum() / len(a))


def _means(x: F64, labels: Labels, centroids: F64) -> F64:
    clusters = len(centroids)
    counts = np.bincount(labels, minlength=clusters).astype(np.float64)  # [K]
    sums = np.stack([np.bincount(labels, weights=band, minlength=clusters) for band in x.T], axis=1)  # [K, B]
    empty = np.flatnonzero(counts == 0)
    distances = ((x - centroids[labels]) ** 2).sum(axis=1) if len(empty) else np.zeros(1)
    if distances.max() > 0:
        farthest = np.argpartition(distances, -len(empty))[: -len(empty) - 1 : -1]
        for cluster, sample in zip(empty, farthest, strict=True):
            sums[labels[sample]] -= x[sample]
            counts[labels[sample]] -= 1
            sums[cluster], counts[cluster] = x[sample], 1
    means = sums / np.maximum(counts, 1)[:, None]
    means[counts == 0] = means[np.argmax(counts)]  # fewer distinct samples than clusters: spare ones sit on the largest
    return means


def _squared_distances(centroids: F64, x: F64) -> F64:
    """[K, m]"""
    squares = (centroids**2).sum(axis=1)[:, None] - 2 * centroids @ x.T + (x**2).sum(axis=1)
    return np.maximum(squares, 0)


def _sampled(valid: Mask) -> Mask:
    chosen = np.zeros_like(valid)
    chosen[::INTERVAL_PX, ::INTERVAL_PX] = valid[::INTERVAL_PX, ::INTERVAL_PX]
    return chosen


def _spectra(dn: Dn, chosen: Mask) -> F64:
    """[n, B] of the chosen pixels."""
    return dn[:, chosen].T.astype(np.float64)
