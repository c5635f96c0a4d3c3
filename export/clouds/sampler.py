"""Labelled windows -> training batches: planes as the payload makes them, soft targets, how much each cell counts.

Where the teacher, a classification, an eye or the painter agree, a cell counts more; where they do not, its target is
the mixture of both and it counts less. The teacher labels a window as it is; gains, haze, noise, another ground
sampling distance and bands out of register come after, so that the student learns to be steadier than its teacher.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from export.clouds.drawn import F32, turned
from export.clouds.windows import CLASSIFIED, CLEAR, DRAWN, UNKNOWN
from payload.clouds.planes import CloudSettings, detail_of, planes_of

#: What the teacher tells apart, in its order.
TEACHER_CLASSES = ("clear", "cloud", "shadow")
T_CLEAR, T_CLOUD, T_SHADOW = range(3)
SCL_CLOUD, SCL_CLEAR, SCL_HIGH, SCL_CIRRUS = (8, 9), (2, 4, 5, 6), 9, 10
#: Opacity from which a drawn cloud is cloud, below which it is none; shadow from which, below which; and from which
#: opacity on the ground no longer shows.
CLOUD_FROM, NO_CLOUD_TO, SHADOW_FROM, NO_SHADOW_TO, THICK_FROM = 0.22, 0.06, 0.45, 0.1, 0.55
#: Share of the other reference in a target where there is one; of the classification little, as it under-calls edges.
TRUST = {CLASSIFIED: 0.15, CLEAR: 0.8, DRAWN: 0.6, UNKNOWN: 0.0}
#: How much a cell counts: both agree, they differ, the teacher stands alone, cirrus that perhaps cannot be seen.
AGREED, DIFFERING, ALONE, DOUBTFUL = 1.3, 0.6, 0.7, 0.4
#: How often a kind of window is drawn.
OFTEN = {CLASSIFIED: 1.6, CLEAR: 1.0, UNKNOWN: 1.5, DRAWN: 1.0}
#: Cells of 2 px along a crop, how often; and how much larger the ground it is taken from, how often.
SIZES, SIZE_SHARES = (128, 64, 32), (0.45, 0.45, 0.1)
ZOOMS = {
    128: ((0.5, 1.0), (0.15, 0.85)),
    64: ((0.5, 1.0, 1.5, 2.0), (0.15, 0.5, 0.2, 0.15)),
    32: ((1.0, 2.0, 3.0), (0.6, 0.25, 0.15)),
}
#: Rayleigh scattering of a clear sky, DN.
AIR_DN = (700.0, 350.0, 180.0, 60.0)


@dataclass(frozen=True, eq=False)
class Targets:
    """Per cell: teacher's classes [3, n, n], weights [n, n]; share of thin cloud [n, n] and how much that counts."""

    classes: F32
    weights: F32
    thin: F32
    thin_weights: F32

    def stacked(self) -> F32:
        """[6, n, n]"""
        return np.concatenate([self.classes, self.weights[None], self.thin[None], self.thin_weights[None]])


def targets_of(
    teacher: NDArray[np.uint8], scl: NDArray[np.uint8], opacity: NDArray[np.uint8], cast: NDArray[np.uint8], kind: int
) -> Targets:
    """What is learnt from cells [n, n] of a window of `kind`; shares are octets."""
    told = teacher.astype(np.float32) / 255.0
    told /= told.sum(axis=0) + 1e-6
    truth = np.zeros_like(told)
    weights = np.full(scl.shape, ALONE if kind in (CLASSIFIED, CLEAR) else 1.0, np.float32)
    thin, thin_weights = np.zeros_like(weights), np.zeros_like(weights)
    if kind == CLASSIFIED:
        truth[T_CLOUD], truth[T_CLEAR] = np.isin(scl, SCL_CLOUD), np.isin(scl, SCL_CLEAR)
        thin = (scl == SCL_CIRRUS).astype(np.float32)
        thin_weights = 0.3 * ((scl == SCL_HIGH) | (scl == SCL_CIRRUS)).astype(np.float32)
        weights[scl == SCL_CIRRUS] = DOUBTFUL
    elif kind == CLEAR:
        truth[T_CLEAR] = 1.0
    elif kind == DRAWN:
        truth, thin = _drawn_truth(_shares(opacity), _shares(cast))
        thin_weights, weights[:] = truth[T_CLOUD], 0.5
    known = truth.sum(axis=0) > 0
    agreed = known & (truth.argmax(axis=0) == told.argmax(axis=0))
    trust = np.float32(TRUST[kind])
    weights = np.where(agreed, AGREED, np.where(known, 1.0 if kind == CLEAR else DIFFERING, weights))
    classes = np.where(known, trust * truth + (1 - trust) * told, told)
    return Targets(classes.astype(np.float32), weights.astype(np.float32), thin, thin_weights)


def _shares(octets: NDArray[np.uint8]) -> F32:
    return octets.astype(np.float32) / np.float32(255)


def _drawn_truth(opacity: F32, cast: F32) -> tuple[F32, F32]:
    """Classes [3, n, n], none where a cloud is faint or a shadow half one, and thin cloud [n, n]."""
    truth = np.zeros((len(TEACHER_CLASSES), *opacity.shape), np.float32)
    bare = opacity < NO_CLOUD_TO
    truth[T_CLOUD] = opacity > CLOUD_FROM
    truth[T_CLEAR], truth[T_SHADOW] = bare & (cast < NO_SHADOW_TO), bare & (cast > SHADOW_FROM)
    return truth, (opacity < THICK_FROM).astype(np.float32)


def loss(logits: torch.Tensor, batch: tuple[torch.Tensor, ...]) -> torch.Tensor:
    """Cross-entropy against the teacher's classes, thick and thin cloud together, and of thin against thick.

    Logits [N, 4, n, n]; the batch as `Sampler.batch` gives it, less the planes.
    """
    classes, weights, thin, thin_weights = batch
    log_p = functional.log_softmax(logits, dim=1)
    cloud = torch.logsumexp(log_p[:, 1:3], dim=1)
    per_cell = -(classes * torch.stack([log_p[:, 0], cloud, log_p[:, 3]], dim=1)).sum(dim=1)
    thick_of_cloud, thin_of_cloud = (log_p[:, 1:3] - cloud[:, None]).unbind(dim=1)
    kinds = -((1 - thin) * thick_of_cloud + thin * thin_of_cloud) * classes[:, 1]
    total = (per_cell * weights).sum() + 0.4 * (kinds * thin_weights).sum()
    return torch.as_tensor(total / weights.sum().clamp(min=1.0))


class Sampler:
    """Draws training batches of the flying network; everything random comes from the generator given."""

    def __init__(self, windows: dict[str, NDArray[Any]], settings: CloudSettings) -> None:
        self.windows, self.settings = windows, settings
        self._sums = np.cumsum(how_often(windows))

    def _crop(self, size: int, zoom: float, rng: np.random.Generator) -> tuple[F32, F32]:
        """A crop of a window, seen from `zoom` times as far, turned: dn [4, n, n], stacked targets [6, n, n]."""
        i = min(int(np.searchsorted(self._sums, rng.random() * self._sums[-1])), len(self._sums) - 1)
        taken = round(size * zoom)
        top, left = rng.integers(self.windows["dn"].shape[-1] - taken + 1, size=2)
        place = (i, ..., slice(top, top + taken), slice(left, left + taken))
        teacher, scl, opacity, cast = (self.windows[key][place] for key in ("teacher", "scl", "opacity", "cast"))
        targets = targets_of(teacher, scl, opacity, cast, int(self.windows["kind"][i]))
        every = np.concatenate([self.windows["dn"][place].astype(np.float32), targets.stacked()])
        every = turned(_resized(every, size), int(rng.integers(4)), bool(rng.integers(2)))
        return every[:4], every[4:]

    def batch(self, rng: np.random.Generator, tiles: int) -> tuple[torch.Tensor, ...]:
        """As much as `tiles` tiles of 256 px: planes [N, P, n, n] as integers, classes [N, 3, n, n], then weights, thin
        and weights of thin [N, n, n]."""
        size = int(rng.choice(SIZES, p=SIZE_SHARES))
        count = tiles * (SIZES[0] // size) if size >= SIZES[1] else 2 * tiles
        columns = zip(*(self._sample(size, rng) for _ in range(count)), strict=True)
        return tuple(torch.from_numpy(np.stack(column).astype(np.float32)) for column in columns)

    def _sample(self, size: int, rng: np.random.Generator) -> tuple[NDArray[Any], ...]:
        dn, labels = self._crop(size, float(rng.choice(ZOOMS[size][0], p=ZOOMS[size][1])), rng)
        dn, seen = degrade(dn, rng), None
        if rng.random() < 0.05:  # the swath ends inside the tile
            seen = np.ones((size, size), bool)
            seen[:, int(rng.integers(size // 8, size)) :] = False
            labels[3:] *= seen
        planes = self._planes(dn, seen)
        classes, weights, thin, thin_weights = _cells(labels)
        if planes is None:
            planes, weights = np.zeros((12, size // 2, size // 2), np.uint8), 0.0 * weights
        return planes, classes, weights, thin, thin_weights

    def _planes(self, dn: F32, seen: NDArray[np.bool_] | None) -> NDArray[np.uint8] | None:
        quarters = np.round(4.0 * dn).astype(np.uint32)  # four times the averages of 2 x 2 px
        n = dn.shape[1] // 2
        sums = quarters.reshape(len(dn), n, 2, n, 2).sum(axis=(2, 4), dtype=np.uint32) // np.uint32(4)
        planes = planes_of(sums, None if seen is None else seen[::2, ::2], self.settings)
        return None if planes is None else np.concatenate([planes, detail_of(quarters[:1], seen)])


def how_often(windows: dict[str, NDArray[Any]]) -> NDArray[np.float64]:
    """Partly cloudy windows more often; those of large sites and of coarse pixels less."""
    kind, site = windows["kind"], windows["site"]
    often = np.array([OFTEN[int(k)] for k in kind])
    cover = (windows["teacher"][:, T_CLOUD, ::4, ::4] > 100).mean(axis=(1, 2))
    often *= np.where((kind == CLASSIFIED) & (cover > 0.03) & (cover < 0.97), 2.0, 1.0)
    for wanted in (CLASSIFIED, CLEAR):
        for name in np.unique(site[kind == wanted]):
            here = (site == name) & (kind == wanted)
            often[here] *= min(1.0, (40.0 / here.sum()) ** 0.5)
    return np.asarray(often * np.where(windows["gsd_m"] > 20, 0.5, 1.0))


def _resized(planes: F32, size: int) -> F32:
    if planes.shape[-1] == size:
        return planes
    smaller = {"mode": "area"} if planes.shape[-1] > size else {"mode": "bilinear", "align_corners": False}
    return np.asarray(functional.interpolate(torch.from_numpy(planes)[None], size=(size, size), **smaller)[0].numpy())


def _cells(labels: F32) -> tuple[F32, F32, F32, F32]:
    """Stacked targets of cells of 2 px [6, n, n] -> those of cells of 4 px; classes by their weights."""
    n = labels.shape[-1] // 2
    blocks = labels.reshape(len(labels), n, 2, n, 2)
    weights = blocks[3].mean(axis=(1, 3))
    classes = (blocks[:3] * blocks[3:4]).mean(axis=(2, 4)) / np.maximum(weights, 1e-3)
    return classes, weights, blocks[4].mean(axis=(1, 3)), blocks[5].mean(axis=(1, 3))


def degrade(dn: F32, rng: np.random.Generator) -> F32:
    """Another sensor, another sky: gains of x0.5 to x2, path radiance, haze, noise, bands out of register, clipping."""
    gain = np.exp(np.clip(rng.normal(0.0, 0.22), -0.7, 0.7) + rng.normal(0.0, 0.05, 4))
    dn = dn * gain[:, None, None].astype(np.float32)
    if rng.random() < 0.25:  # top of the atmosphere instead of the ground
        dn = dn + (rng.uniform(0.2, 1.0) * np.array(AIR_DN, np.float32))[:, None, None].astype(np.float32)
    if rng.random() < 0.15:  # even haze
        haze = rng.uniform(0.03, 0.15)
        dn = dn * (1.0 - haze) + haze * rng.uniform(3000.0, 7000.0)
    if rng.random() < 0.3:
        dn = dn + rng.normal(0.0, rng.uniform(3.0, 30.0), dn.shape).astype(np.float32)
    if rng.random() < 0.25:
        dn = _shifted(dn, rng)
    ceiling = 10_000.0 if rng.random() < 0.3 else 65_535.0
    return np.asarray(np.clip(dn, 0.0, ceiling), np.float32)


def _shifted(dn: F32, rng: np.random.Generator) -> F32:
    """One band moved by a cell of 2 px, half of the time smeared by one, too."""
    moved, band = dn.copy(), int(rng.integers(len(dn)))
    moved[band] = np.roll(dn[band], int(rng.choice((-1, 1))), axis=int(rng.integers(2)))
    if rng.random() < 0.5:
        moved[band] = 0.5 * (moved[band] + np.roll(moved[band], 1, axis=0))
    return moved
