"""Heads: small networks from pixels, or from features, to labels. Trained by scikit-learn, the same way for all.

A head of pixels sees a window of the bands around a pixel and gives its label: the first layer is a convolution. A head
of features sees the block of a cell and, coarser, the blocks around it, and gives the labels of all 64 pixels at once:
as many parameters, a fraction of the work.
"""

import importlib
import warnings
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from payload.errors import InputError
from payload.scene import Dn
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
THRESHOLDS = np.round(np.arange(0.1, 0.96, 0.05), 2)
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Budget:
    """What training may take, for every head alike: units drawn from the labelled ones, rounds over them at two rates
    of learning."""

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
    pictures: tuple[int, ...] | None = None  # those that are predicted; None: all

    def of(self, chosen: NDArray[np.bool_]) -> "Units":
        """Those of the chosen pictures [N]."""
        return replace(self, pictures=tuple(np.flatnonzero(chosen).tolist()))


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


class Head:
    """One head of K classes. Deterministic by its seed. Of two classes, the one above a threshold of probability is
    taken that served best on a draw of the labels it learnt from."""

    def __init__(self, classes: int, budget: Budget, seed: int) -> None:
        self._classes, self._budget = classes, budget
        self._random, self._seed = np.random.default_rng(seed), seed
        self._threshold = 0.5
        self.parameters = 0
        self.macs_per_px = 0.0

    def fit(self, units: Units, labels: Labels) -> "Head":
        """Learns from units that have labels, as many of each class as can be; pixels without a label in a unit take
        that unit's commonest. InputError where there are none."""
        targets = _cut(labels, units)
        some = np.argwhere((targets != IGNORED).any(axis=-1))
        if not len(some):
            raise InputError("no labelled pixel to learn from; give more labels")
        at = tuple(some[self._drawn(targets[tuple(some.T)])].T)
        inputs = self._inputs(units, at)
        self._mean, self._scale = inputs.mean(axis=0), inputs.std(axis=0) + 1e-3
        self._train(self._scaled(inputs), self._hot(_filled(targets[at])), units)
        if self._classes == 2:
            at = tuple(some[self._random.integers(0, len(some), self._budget.units)].T)
            self._threshold = _best_threshold(self._scores(self._scaled(self._inputs(units, at))), targets[at])
        return self

    def _drawn(self, targets: Labels) -> NDArray[np.intp]:
        """Which of the labelled units [n, s] are learnt from: for each class an equal share of units that hold it."""
        held = [np.flatnonzero((targets == k).any(axis=1)) for k in range(self._classes)]
        held = [units for units in held if len(units)]
        share = -(-self._budget.units // len(held))
        return np.concatenate([units[self._random.integers(0, len(units), share)] for units in held])

    @staticmethod
    def _inputs(units: Units, at: tuple[NDArray[np.intp], ...]) -> Floats:
        return units.inputs[at].reshape(len(at[0]), -1)

    def predict(self, units: Units) -> Labels:
        """The likeliest class of every pixel of the pictures to be predicted, [N, H, W]."""
        count, height, width = units.inputs.shape[:3]
        side, rows = units.side, []
        for k in range(count) if units.pictures is None else units.pictures:  # one at a time: windows are copies
            scores = self._scores(self._scaled(units.inputs[k].reshape(height * width, -1)))
            rows.append(self._decided(scores).reshape(height, width, side, side))
        return np.stack(rows).swapaxes(2, 3).reshape(len(rows), height * side, width * side)

    def _train(self, inputs: Floats, targets: Labels, units: Units) -> None:
        budget = self._budget
        self._network = _classifier()(
            hidden_layer_sizes=_widths(units, inputs.shape[1], targets.shape[1]), batch_size=budget.batch,
            max_iter=budget.rounds, learning_rate_init=budget.rate, tol=0.0, n_iter_no_change=10**6,
            random_state=self._seed, warm_start=True,
        )  # fmt: skip
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it says that it was stopped, which it was
            self._network.fit(inputs, targets)
            self._network.set_params(learning_rate_init=budget.last_rate, max_iter=budget.last_rounds)
            self._network.fit(inputs, targets)
        weights = sum(layer.size for layer in self._network.coefs_)
        self.parameters = weights + sum(layer.size for layer in self._network.intercepts_)
        self.macs_per_px = weights / units.per_px + units.prepared_macs

    def _hot(self, targets: Labels) -> Labels:
        """Labels [n, s] -> one column for each label of two classes, K columns of more.

        scikit-learn numbers the columns in the dtype of what it is given: 8 bits are too few for them.
        """
        if self._classes == 2:
            return targets
        return (targets[..., None] == np.arange(self._classes)).reshape(len(targets), -1).astype(np.int32)

    def _decided(self, scores: Floats) -> Labels:
        if self._classes == 2:
            return (scores > self._threshold).astype(np.uint8)
        return scores.reshape(len(scores), -1, self._classes).argmax(axis=-1).astype(np.uint8)

    def _scores(self, inputs: Floats) -> Floats:
        found = self._network.predict_proba(inputs)
        return found[:, 1:] if self._network.out_activation_ == "logistic" and self._network.n_outputs_ == 1 else found

    def _scaled(self, inputs: Floats) -> Floats:
        return ((inputs - self._mean) / self._scale).astype(np.float32)


def _widths(units: Units, inputs: int, outputs: int) -> tuple[int, ...]:
    """Of the hidden layers."""
    if units.hidden != BLOCK_HIDDEN:
        return units.hidden
    return (min(BLOCK_HIDDEN[0], (BLOCK_PARAMETERS - outputs) // (inputs + 1 + outputs)),)


def _cut(labels: Labels, units: Units) -> Labels:
    """Labels [N, H, W] as the units give them, [N, h, w, side^2]; IGNORED beyond the edge."""
    count, height, width = units.inputs.shape[:3]
    side = units.side
    whole = np.full((count, height * side, width * side), IGNORED, np.uint8)
    whole[:, : labels.shape[1], : labels.shape[2]] = labels
    return whole.reshape(count, height, side, width, side).swapaxes(2, 3).reshape(count, height, width, side * side)


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


def _classifier() -> Any:
    try:
        return importlib.import_module("sklearn.neural_network").MLPClassifier
    except ModuleNotFoundError:
        raise InputError("scikit-learn is not installed; pip install 'nadir-payload[features]'") from None
