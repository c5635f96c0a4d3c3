"""scikit-learn's multi-layer perceptrons, as heads use them: rounds over ever new draws at each of several rates of
learning, and inputs that come as they are."""

import importlib
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from payload.errors import InputError

Floats = NDArray[np.float32]
#: Inputs and what they shall give.
Draw = tuple[Floats, NDArray[Any]]


class Perceptron:
    """Rectified hidden layers of these widths; outputs are probabilities where it is `logistic`, linear elsewhere.
    Deterministic by its seed."""

    def __init__(self, hidden: Sequence[int], seed: int, logistic: bool = True) -> None:
        kind = "MLPClassifier" if logistic else "MLPRegressor"
        self._network = _of_scikit_learn(kind)(
            hidden_layer_sizes=tuple(hidden), tol=0.0, n_iter_no_change=10**6, random_state=seed, warm_start=True
        )
        self._logistic, self._one = logistic, False

    def fit(self, draws: Iterable[Draw], batch: int, rate: float) -> None:
        """One round over each of the draws: inputs f32 [n, F] and what they shall give, [n, K]; goes on from where it
        stands. The first begins the steps at a new rate, the others go on with them."""
        self._network.set_params(batch_size=batch, max_iter=1, learning_rate_init=rate)
        begun = False
        for inputs, targets in draws:
            self._one = targets.shape[1] == 1
            # scikit-learn numbers columns in the dtype of the targets: 8 bits are too few for them
            wanted = targets.astype(np.int32) if self._logistic else targets
            learn = self._network.partial_fit if begun else self._network.fit
            learn(inputs, wanted[:, 0] if self._one else wanted)
            begun = True

    @property
    def weights(self) -> int:
        """How many, biases left out."""
        return sum(layer.size for layer in self._network.coefs_)

    @property
    def parameters(self) -> int:
        return self.weights + sum(layer.size for layer in self._network.intercepts_)

    def take_in(self, mean: Floats, scale: Floats) -> None:
        """From now on it is given inputs x as they are, where it learnt from (x - mean) / scale."""
        weights, bias = self._network.coefs_[0], self._network.intercepts_[0]
        weights /= scale[:, None]
        bias -= mean @ weights

    def predict(self, inputs: Floats) -> Floats:
        """Outputs of inputs [n, F], [n, K]."""
        ask = self._network.predict_proba if self._logistic else self._network.predict
        found = np.asarray(ask(inputs), np.float32)
        return found.reshape(len(found), -1)[:, -1:] if self._one else found


def _of_scikit_learn(kind: str) -> Any:
    try:
        return getattr(importlib.import_module("sklearn.neural_network"), kind)
    except ModuleNotFoundError:
        raise InputError("scikit-learn is not installed; pip install 'nadir-payload[features]'") from None
