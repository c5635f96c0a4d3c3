"""4 x super-resolution of pictures: a small head on cubic interpolation, judged by PSNR at the finer grid."""

from itertools import chain

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from payload.scene import Dn
from sim.metrics.distortion import psnr_db
from sim.tasks.learning.heads import PIXEL_HIDDEN, Budget, of_pixels
from sim.tasks.learning.perceptron import Draw, Perceptron
from sim.tasks.task import IGNORED, Task


class Restoration:
    """Pictures [N, B, H, W] that a head restores: what cubic interpolation makes of them is made once."""

    def __init__(self, task: Task, seen: Dn) -> None:
        if task.truth_dn is None:
            raise ValueError(f"task {task.name} has no finer pictures")
        self._learn, self._judge = ((labels != IGNORED).any(axis=(1, 2)) for labels in (task.learn, task.judge))
        self._finer, self._truth = task.finer, task.truth_dn
        self._smooth, self._inputs = _cubic(seen, task.finer), of_pixels(seen).inputs
        rest = np.sqrt(task.truth_dn.astype(np.float32)) - self._smooth
        self._rest = _cells(rest, task.finer)  # [N, h, w, B u u]

    def db(self, budget: Budget, seed: int) -> dict[str, float]:
        """PSNR (peak 10 000) of what a head makes of the pictures that the task judges, and of cubic interpolation
        alone."""
        rng, rounds = np.random.default_rng(seed), budget.rounds + budget.last_rounds
        first = self._drawn(budget.units, rng)
        mean, scale, spread = first[0].mean(axis=0), first[0].std(axis=0) + 1e-3, first[1].std()
        others = (self._drawn(budget.units, rng) for _ in range(rounds - 1))
        draws = (((known - mean) / scale, rest / spread) for known, rest in chain([first], others))
        network = Perceptron(PIXEL_HIDDEN, seed, logistic=False)
        network.fit(draws, budget.batch, budget.last_rate)
        network.take_in(mean, scale)
        places = self._inputs.shape[1:3]
        asked = (self._inputs[k].reshape(places[0] * places[1], -1) for k in np.flatnonzero(self._judge))
        added = np.stack([network.predict(one) * spread for one in asked])
        smooth, truth = self._smooth[self._judge], self._truth[self._judge]
        better = smooth + _pictures(added.reshape(len(truth), *places, -1), self._finer)
        return {"psnr_10k_db": _psnr_db(truth, better), "cubic_psnr_10k_db": _psnr_db(truth, smooth)}

    def _drawn(self, count: int, rng: np.random.Generator) -> Draw:
        """What heads see of so many pixels that are learnt from, and what is to be added there."""
        pictures = rng.choice(np.flatnonzero(self._learn), count)
        at = (pictures, *rng.integers(0, self._inputs.shape[1:3], (count, 2)).T)
        return self._inputs[at].reshape(count, -1), self._rest[at]


def _psnr_db(truth: Dn, roots: NDArray[np.float32]) -> float:
    """PSNR of pictures given by the square roots of their DN."""
    dn = np.clip(np.rint(np.maximum(roots, 0) ** 2), 0, 65_535)
    return psnr_db(float(((dn - truth.astype(np.float64)) ** 2).mean()))


def _cubic(dn: Dn, times: int) -> NDArray[np.float32]:
    """Square roots of DN on a grid `times` finer, the corners of pixels held."""
    roots = np.sqrt(dn.astype(np.float32))
    return np.stack([[ndimage.zoom(p, times, order=3, mode="nearest", grid_mode=True) for p in one] for one in roots])


def _cells(values: NDArray[np.float32], times: int) -> NDArray[np.float32]:
    """[N, B, u h, u w] -> [N, h, w, B u u]."""
    count, bands, height, width = values.shape
    cells = values.reshape(count, bands, height // times, times, width // times, times)
    return cells.transpose(0, 2, 4, 1, 3, 5).reshape(count, height // times, width // times, -1)


def _pictures(cells: NDArray[np.float32], times: int) -> NDArray[np.float32]:
    """Inverse of `_cells`."""
    count, height, width, values = cells.shape
    parts = cells.reshape(count, height, width, values // times**2, times, times)
    return parts.transpose(0, 3, 1, 4, 2, 5).reshape(count, -1, height * times, width * times)
