"""How firm the map is that `mangrove` is judged by: what its own rule makes of another look at the same ground.

The map's classes are clusters of the twelve standardised bands, pixel by pixel. Here the nearest of their centres is
taken for the bands as they are, and for the bands as another date would show them: with noise, and moved by parts of a
pixel. Each is judged as heads are. What a second look changes, no head can be asked to keep.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from sim.tasks import scores
from sim.tasks.data import load_task, mangrove_bands
from sim.tasks.task import IGNORED, Labels

Bands = NDArray[np.float64]
#: Steps from the classes' means to the centres of clusters: they stand still long before.
STEPS = 30
#: Noise is that of the flattest tenth of the squares of so many differences along diagonals.
SQUARE, FLATTEST_PERCENT = 4, 10
#: 3 m of 18.5: what Sentinel-2 asks of two dates (0.3 px of 10 m).
BETWEEN_DATES_PX = 0.16
MOVED_PX = (0.1, 0.2, 0.3, 0.5)
AXES = ((1, 0), (-1, 0), (0, 1), (0, -1))
EIGHT = (*AXES, (1, 1), (-1, -1), (1, -1), (-1, 1))


@dataclass(frozen=True, eq=False)
class Rule:
    """The nearest of `centres` [K, B], in standard deviations of each band over the pixels with data [H, W]."""

    centres: Bands
    mean: Bands
    deviation: Bands
    there: NDArray[np.bool_]

    def classes(self, bands: Bands) -> Labels:
        """Classes [H, W] of bands [B, H, W], IGNORED where there are no data."""
        found = np.full(self.there.shape, IGNORED, np.uint8)
        found[self.there] = _nearest((bands[:, self.there].T - self.mean) / self.deviation, self.centres)
        return found


def second_looks(data: Path, seed: int = 0) -> list[dict[str, float | str]]:
    """Points (hundredths of mean IoU on the judged pixels) of the map by each look."""
    task, bands, labels = load_task("mangrove", data), *mangrove_bands(data)
    truth = task.judge[0]
    rule = rule_of(bands, labels, np.asarray(bands.any(axis=0)))
    judged = truth != IGNORED

    def points(look: Bands) -> float:
        return 100 * float(scores.classes(truth[judged], rule.classes(look)[judged])["miou"])

    return [{"look": name, "points": round(points(look), 2)} for name, look in _looks(bands, rule.there, seed)]


def rule_of(bands: Bands, labels: Labels, there: NDArray[np.bool_]) -> Rule:
    """The rule that the map [H, W] follows: centres that start at its classes' means and settle."""
    known = bands[:, there].T
    mean, deviation = known.mean(axis=0), known.std(axis=0)
    values, given = (known - mean) / deviation, labels[there]
    for _ in range(STEPS):
        kinds = np.unique(given[given != IGNORED])
        centres = np.stack([values[given == k].mean(axis=0) for k in kinds])
        given = _nearest(values, centres)
    return Rule(centres, mean, deviation, there)


def noise_of(bands: Bands, there: NDArray[np.bool_]) -> Bands:
    """Standard deviation of each band's noise, [B]: differences along diagonals where a picture is flattest."""
    corners = [(slice(top, None, 2), slice(left, None, 2)) for top in (0, 1) for left in (0, 1)]
    size = tuple(n // (2 * SQUARE) * SQUARE for n in there.shape)
    a, b, c, d = (bands[:, *corner][:, : size[0], : size[1]] for corner in corners)
    known = np.stack([there[corner][: size[0], : size[1]] for corner in corners])
    squares = _squares(((a - b - c + d) / 2) ** 2).mean(axis=-1)
    whole = np.asarray(_squares(known).all(axis=(0, 2)))
    return np.sqrt(np.percentile(squares[:, whole], FLATTEST_PERCENT, axis=1))


def _looks(bands: Bands, there: NDArray[np.bool_], seed: int) -> Iterator[tuple[str, Bands]]:
    random, noise = np.random.default_rng(seed), noise_of(bands, there)[:, None, None]

    def noisy() -> Bands:
        return np.asarray(bands + noise * random.standard_normal(bands.shape))

    yield "as it is", bands
    yield "with noise", noisy()
    for px in MOVED_PX:
        yield from ((f"moved by {px} px", _moved(bands, px, axis)) for axis in AXES)
    for axis in EIGHT:
        yield f"moved by {BETWEEN_DATES_PX} px, with noise", _moved(noisy(), BETWEEN_DATES_PX, axis)


def _moved(bands: Bands, px: float, axis: tuple[int, int]) -> Bands:
    by = tuple(px * way for way in axis)
    return np.stack([ndimage.shift(band, by, order=3, mode="nearest") for band in bands])


def _nearest(values: Bands, centres: Bands) -> Labels:
    """Of values [n, B] the nearest of centres [K, B]."""
    return np.asarray(((values[:, None] - centres[None]) ** 2).sum(axis=2).argmin(axis=1), np.uint8)


def _squares(values: NDArray) -> NDArray:
    """[B, h, w] -> [B, squares, SQUARE^2]."""
    count, height, width = values.shape
    cells = values.reshape(count, height // SQUARE, SQUARE, width // SQUARE, SQUARE)
    return cells.swapaxes(2, 3).reshape(count, -1, SQUARE**2)
