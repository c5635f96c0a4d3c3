"""A multi-layer perceptron that learns as scikit-learn's MLPClassifier and MLPRegressor do: the same draws, the same
steps, to rounding the same weights, in a third of the time. Rectified layers, logistic or linear outputs, Adam.

All parameters are one array, so that a step is a few passes over it, and no loss is computed that nobody reads.
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

Floats = NDArray[np.float32]
#: Weights and biases of a layer.
Layer = tuple[Floats, Floats]
#: scikit-learn's: L2 penalty, decay of Adam's two moments (Kingma and Ba 2014, arXiv:1412.6980), what keeps from 0 / 0.
PENALTY, DECAY, DECAY_SQUARE, TINY = 1e-4, 0.9, 0.999, 1e-8
#: Rows predicted at a time: what lies between layers stays near the processor.
ROWS = 2048


class Perceptron:
    """A network of `widths`: inputs, hidden layers, outputs, which are probabilities where it is `logistic`.
    Deterministic by its seed."""

    def __init__(self, widths: Sequence[int], seed: int, logistic: bool = True) -> None:
        self._logistic = logistic
        self._seed, self._random = seed, np.random.RandomState(seed)
        shapes = list(pairwise(widths))
        self._flat = np.concatenate([self._begun(*shape) for shape in shapes])
        self._slope = np.empty_like(self._flat)
        self._layers, self._slopes = _layers(self._flat, shapes), _layers(self._slope, shapes)

    def _begun(self, inputs: int, outputs: int) -> Floats:
        """Parameters of a layer, evenly drawn between bounds (Glorot and Bengio 2010)."""
        bound = np.sqrt(6 / (inputs + outputs))
        return self._random.uniform(-bound, bound, (inputs + 1) * outputs).astype(np.float32)

    @property
    def weights(self) -> int:
        """How many, biases left out."""
        return sum(weights.size for weights, _ in self._layers)

    @property
    def parameters(self) -> int:
        return self._flat.size

    def fit(self, inputs: Floats, targets: NDArray[np.bool_] | Floats, batch: int, rounds: int, rate: float) -> None:
        """So many rounds over inputs f32 [n, F] and what they shall give, [n, K]."""
        moment, square, step = np.zeros_like(self._flat), np.zeros_like(self._flat), np.empty_like(self._flat)
        for number, chosen in enumerate(self._batches(len(inputs), batch, rounds), 1):
            self._find_slope(inputs[chosen], targets[chosen])
            moment *= DECAY
            moment += np.multiply(self._slope, 1 - DECAY, out=step)
            square *= DECAY_SQUARE
            square += np.multiply(np.square(self._slope, out=step), 1 - DECAY_SQUARE, out=step)
            np.sqrt(square, out=step)
            step += TINY
            np.divide(moment, step, out=step)
            step *= rate * (1 - DECAY_SQUARE**number) ** 0.5 / (1 - DECAY**number)
            self._flat -= step

    def _batches(self, count: int, batch: int, rounds: int) -> Iterator[NDArray[np.intp]]:
        """Rows in an order of their own each round; the next `fit` draws the first orders once more."""
        order = np.arange(count)
        for _ in range(rounds):
            shuffled = np.arange(count)
            self._random.shuffle(shuffled)
            order = order[shuffled]
            yield from (order[first : first + batch] for first in range(0, count, batch))
        self._random = np.random.RandomState(self._seed)

    def _find_slope(self, inputs: Floats, targets: NDArray[np.bool_] | Floats) -> None:
        """Gradient of the penalty and of the cross-entropy, of linear outputs half the squared error."""
        values = self._values(inputs)
        delta = values[-1] - targets
        for (weights, _), (of_weights, of_bias), below in zip(
            reversed(self._layers), reversed(self._slopes), reversed(values[:-1]), strict=True
        ):
            np.matmul(below.T, delta, out=of_weights)
            of_weights += PENALTY * weights
            np.sum(delta, axis=0, out=of_bias)
            if below is not inputs:
                delta = (delta @ weights.T) * (below > 0)
        self._slope /= len(inputs)

    def _values(self, inputs: Floats) -> list[Floats]:
        """Of every layer, the inputs first, [n, width]."""
        values = [inputs]
        for weights, bias in self._layers:
            found = values[-1] @ weights
            found += bias
            values.append(np.maximum(found, 0, out=found) if len(values) < len(self._layers) else found)
        if self._logistic:
            expit(values[-1], out=values[-1])
        return values

    def take_in(self, mean: Floats, scale: Floats) -> None:
        """From now on it is given inputs x as they are, where it learnt from (x - mean) / scale."""
        weights, bias = self._layers[0]
        weights /= scale[:, None]
        bias -= mean @ weights

    def predict(self, inputs: Floats) -> Floats:
        """Outputs of inputs [n, F], [n, K]."""
        return np.concatenate([self._values(inputs[k : k + ROWS])[-1] for k in range(0, len(inputs), ROWS)])


def _layers(flat: Floats, shapes: Sequence[tuple[int, int]]) -> list[Layer]:
    """Views of the parameters."""
    ends = np.cumsum([(inputs + 1) * outputs for inputs, outputs in shapes])
    parts = np.split(flat, ends[:-1])
    return [(part[: i * o].reshape(i, o), part[i * o :]) for part, (i, o) in zip(parts, shapes, strict=True)]
