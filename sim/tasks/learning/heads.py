"""Heads: small networks from pixels, or from features, to labels, all trained by scikit-learn the same way.

A head of pixels sees a window of the bands around a pixel and gives its label: the first layer is a convolution. A head
of features sees the block of a cell and, coarser, the blocks around it, and gives the labels of all 64 pixels at once:
as many parameters, a fraction of the work.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from payload.errors import InputError
from payload.scene import Dn
from sim.spread import Spread
from sim.tasks.learning.perceptron import Draw, Perceptron
from sim.tasks.scores import f1
from sim.tasks.task import IGNORED, Labels

BLOCK = 8
#: A window reaches so far from its pixel.
REACH_PX = 2
#: Channels of features that a head sees, those that vary most: of its own block, of each beside it, at a corner.
OWN, BESIDE, CORNER = 64, 24, 12
PIXEL_HIDDEN, BLOCK_HIDDEN = (128, 112), (100,)
#: A head of features has fewer hidden units where its many classes would make it larger than a head of pixels.
BLOCK_PARAMETERS = 27_500
#: Of more than two classes each is weighed by its share of the labels over that of what was drawn, to this
#: power, chosen on strips of `mangrove` that are learnt from.
RARITY = 0.75
THRESHOLDS = np.round(np.arange(0.1, 0.96, 0.05), 2)
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Budget:
    """What training may take, for every head alike: rounds at two rates of learning, each over units drawn anew from
    the labelled ones."""

    units: int = 20_000
    rounds: int = 9
    last_rounds: int = 3
    batch: int = 256
    rate: float = 2e-3
    last_rate: float = 3e-4


@dataclass(frozen=True, eq=False)
class Units:
    """What heads see: inputs [N, h, w, F], each of which gives `side` x `side` labels; `prepared_macs`: work a pixel
    that made the inputs out of what the decoder has."""

    inputs: Floats
    side: int
    hidden: tuple[int, ...]
    per_px: float = 1.0  # pixels that one unit stands for
    prepared_macs: float = 0.0

    def at(self, places: tuple[NDArray[np.intp], ...]) -> Floats:
        """Inputs of some units, [n, F]."""
        return self.inputs[places].reshape(len(places[0]), -1)


def of_pixels(dn: Dn, finer: int = 1) -> Units:
    """Windows of square roots of DN (they even out noise), the values around every pixel of [N, B, H, W]."""
    r = REACH_PX
    padded = np.pad(np.sqrt(dn.astype(np.float32)), ((0, 0), (0, 0), (r, r), (r, r)), mode="edge")
    windows = np.lib.stride_tricks.sliding_window_view(padded, (2 * r + 1, 2 * r + 1), axis=(2, 3))
    inputs = windows.transpose(0, 2, 3, 1, 4, 5)  # a view: copied window by window as it is used
    return Units(inputs, finer, PIXEL_HIDDEN)


def of_features(levels: dict[int, Floats], bands: int) -> Units:
    """The strongest channels of every block of 8 px and of those around it. `levels`: [N, C, H / stride, W / stride] by
    stride; finer ones are folded into blocks."""
    folded = np.concatenate([_folded(values, BLOCK // stride) for stride, values in sorted(levels.items())], axis=1)
    order = np.argsort(-folded.var(axis=(0, 2, 3)), kind="stable")
    strongest = np.pad(folded[:, order[:OWN]], ((0, 0), (0, 0), (1, 1), (1, 1)), mode="edge")
    height, width = folded.shape[2:]
    parts = []
    for down in range(3):
        for right in range(3):
            kept = (CORNER, BESIDE, OWN)[(down == 1) + (right == 1)]
            parts.append(strongest[:, :kept, down : down + height, right : right + width])
    inputs = np.ascontiguousarray(np.concatenate(parts, axis=1).transpose(0, 2, 3, 1))
    return Units(inputs, BLOCK, BLOCK_HIDDEN, BLOCK**2, float(bands**2))  # the rotation undone: B x B a pixel


def _folded(values: Floats, times: int) -> Floats:
    """[N, C, h, w] -> [N, C times^2, h / times, w / times]."""
    count, channels, height, width = values.shape
    cells = values.reshape(count, channels, height // times, times, width // times, times)
    return cells.transpose(0, 1, 3, 5, 2, 4).reshape(count, -1, height // times, width // times)


@dataclass(frozen=True, eq=False)
class Labelled:
    """The units of a grid that have labels to learn from. `at`: places in [N, h, w] as one number, [n]; `targets` of
    their pixels, [n, side^2], IGNORED where there is none."""

    grid: tuple[int, ...]
    at: NDArray[np.intp]
    targets: Labels

    def of(self, chosen: NDArray[np.intp]) -> tuple[tuple[NDArray[np.intp], ...], Labels]:
        """Places, as numpy indexes them, and labels of some."""
        return np.unravel_index(self.at[chosen], self.grid), self.targets[chosen]

    def shares(self, classes: int) -> Floats:
        """Of the labels, each class's, [K]."""
        counts = np.bincount(self.targets[self.targets != IGNORED], minlength=classes)
        return (counts / counts.sum()).astype(np.float32)

    def drawn(self, count: int, classes: int, random: np.random.Generator) -> NDArray[np.intp]:
        """Which are learnt from: for each class an equal share of units that hold it."""
        held = [np.flatnonzero((self.targets == k).any(axis=1)) for k in range(classes)]
        held = [units for units in held if len(units)]
        share = -(-count // len(held))
        return np.concatenate([units[random.integers(0, len(units), share)] for units in held])


def labelled(labels: Labels, units: Units) -> Labelled:
    """Labels [N, H, W] as the units give them. InputError where there are none."""
    count, height, width = grid = units.inputs.shape[:3]
    side = units.side
    whole = np.full((count, height * side, width * side), IGNORED, np.uint8)
    whole[:, : labels.shape[1], : labels.shape[2]] = labels
    cells = whole.reshape(count, height, side, width, side).swapaxes(2, 3).reshape(-1, side * side)
    known = np.flatnonzero((cells != IGNORED).any(axis=1))
    if not len(known):
        raise InputError("no labelled pixel to learn from; give more labels")
    return Labelled(grid, known, cells[known])


class Head:
    """One head of K classes. Deterministic by its seed. Of two classes, the one above a threshold of probability is
    taken that served best on a draw of the labels it learnt from; of more, the likeliest by how often each is."""

    def __init__(self, classes: int, budget: Budget, seed: int) -> None:
        self._classes, self._budget, self._seed = classes, budget, seed
        self._threshold, self._weights = 0.5, np.ones(classes, np.float32)
        self.parameters = 0
        self.macs_per_px = 0.0

    def fit(self, units: Units, labels: Labelled) -> "Head":
        """Learns from units that have labels, as many of each class as can be; pixels without a label in a unit take
        that unit's commonest."""
        random, budget = np.random.default_rng(self._seed), self._budget
        first = self._drawn(units, labels, random)
        mean, scale = first[0].mean(axis=0), first[0].std(axis=0) + 1e-3
        network = self._network = Perceptron(_widths(units, len(mean), first[1].shape[1]), self._seed)

        def draws(rounds: int, *known: Draw) -> Iterator[Draw]:
            new = (self._drawn(units, labels, random) for _ in range(rounds - len(known)))
            return (((inputs - mean) / scale, targets) for inputs, targets in chain(known, new))

        network.fit(draws(budget.rounds, first), budget.batch, budget.rate)
        network.fit(draws(budget.last_rounds), budget.batch, budget.last_rate)
        network.take_in(mean, scale)
        self.parameters = network.parameters
        self.macs_per_px = network.weights / units.per_px + units.prepared_macs
        if self._classes > 2:
            drawn = first[1].reshape(-1, self._classes).mean(axis=0)
            self._weights = (labels.shares(self._classes) / np.maximum(drawn, 1e-9)) ** RARITY
        else:
            at, targets = labels.of(random.integers(0, len(labels.at), budget.units))
            self._threshold = _best_threshold(network.predict(units.at(at)), targets)
        return self

    def classes_of(self, inputs: Floats) -> Labels:
        """The likeliest class of every pixel of units [n, F], [n, side^2]."""
        scores = self._network.predict(inputs)
        if self._classes == 2:
            return (scores > self._threshold).astype(np.uint8)
        likely = scores.reshape(len(scores), -1, self._classes) * self._weights
        return likely.argmax(axis=-1).astype(np.uint8)

    def _drawn(self, units: Units, labels: Labelled, random: np.random.Generator) -> Draw:
        """Inputs of a round and their labels."""
        at, targets = labels.of(labels.drawn(self._budget.units, self._classes, random))
        return units.at(at), self._hot(_filled(targets))

    def _hot(self, targets: Labels) -> NDArray[np.bool_]:
        """Labels [n, s] -> one column for each label of two classes, K columns of more."""
        if self._classes == 2:
            return targets == 1
        return (targets[..., None] == np.arange(self._classes)).reshape(len(targets), -1)


def predicted(heads: Sequence[Head], units: Units, pictures: Sequence[int], spread: Spread) -> list[Labels]:
    """The likeliest class of every pixel of some pictures, [n, H, W], by each of the heads. What they see is copied
    once."""
    height, width = units.inputs.shape[1:3]
    side = units.side

    def of_picture(number: int) -> list[Labels]:
        inputs = units.inputs[number].reshape(height * width, -1)
        return [head.classes_of(inputs) for head in heads]

    found = np.stack(list(spread.map(of_picture, pictures)))  # [n, heads, units, side^2]
    cells = found.swapaxes(0, 1).reshape(len(heads), len(pictures), height, width, side, side)
    return list(cells.swapaxes(3, 4).reshape(len(heads), len(pictures), height * side, width * side))


def _widths(units: Units, inputs: int, outputs: int) -> tuple[int, ...]:
    """Of the hidden layers."""
    if units.hidden != BLOCK_HIDDEN:
        return units.hidden
    return (min(BLOCK_HIDDEN[0], (BLOCK_PARAMETERS - outputs) // (inputs + 1 + outputs)),)


def _filled(targets: Labels) -> Labels:
    """Labels [n, s] with what is IGNORED put to the commonest label of its unit."""
    counts = np.stack([(targets == k).sum(axis=1) for k in range(int(targets[targets != IGNORED].max()) + 1)], axis=1)
    return np.where(targets == IGNORED, counts.argmax(axis=1)[:, None], targets).astype(np.uint8)


def _best_threshold(scores: Floats, targets: Labels) -> float:
    """The probability above which class 1 is taken so that F1 over what is labelled is best."""
    known = targets != IGNORED
    score, truth = scores[known], targets[known] == 1
    values = [f1(float((truth & (score > t)).sum()), float((score > t).sum()), float(truth.sum())) for t in THRESHOLDS]
    return float(THRESHOLDS[int(np.argmax(values))])
