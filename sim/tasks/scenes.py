"""Multi-label scene classification: what a picture shows, from means and deviations of its units, leaving one out."""

import importlib
import json
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from payload.array_files import ArrayFileError, read_arrays
from payload.errors import InputError
from payload.scene import Dn
from sim.tasks.learning.heads import Units
from sim.tasks.scores import f1

BIGEARTHNET = "downstream/bigearthnet_examples_120.npz"
#: A label counts where so many pictures have it, and so many have it not.
LEAST = 3
#: Inverse strength of the logistic regression's L2 penalty.
PENALTY = 0.1


@dataclass(frozen=True, eq=False)
class ScenePictures:
    """Pictures [N, 4, H, W] and which of the labels each bears, bool [N, K]."""

    pictures: Dn
    labels: NDArray[np.bool_]
    names: tuple[str, ...]
    note: str


def load_scenes(data: Path) -> ScenePictures:
    """BigEarthNet's examples with the labels that enough of them bear. InputError where the file is not there."""
    path = data / BIGEARTHNET
    try:
        arrays = read_arrays(path, ("x", "labels"), kinds="iufSU")
        told: list[list[str]] = json.loads(str(arrays["labels"]))
    except (ArrayFileError, KeyError, ValueError) as error:
        raise InputError(f"{path}: not readable ({error}); give the data folder as --data") from None
    names = sorted({name for picture in told for name in picture})
    bears = np.array([[name in picture for name in names] for picture in told])
    kept = (bears.sum(axis=0) >= LEAST) & (bears.sum(axis=0) <= len(bears) - LEAST)
    note = (
        f"{len(bears)} pictures of 120 px and {int(kept.sum())} labels: far too few to tell inputs apart. Each picture "
        "is judged by a head that learnt from the others. No seed: the fit has one answer."
    )
    return ScenePictures(arrays["x"], bears[:, kept], tuple(np.array(names)[kept]), note)


def figures(scenes: ScenePictures, units: Units) -> dict[str, float]:
    """Micro-averaged F1 and mean average precision, leaving one out, and the size of the heads."""
    vectors, metrics = pooled(units), importlib.import_module("sklearn.metrics")
    scores = np.stack([_left_out(vectors, of_label) for of_label in scenes.labels.T], axis=1)
    got, wanted = scores > 0.5, scenes.labels
    precisions = [metrics.average_precision_score(wanted[:, k], scores[:, k]) for k in range(wanted.shape[1])]
    return {
        "micro_f1": f1(float((got & wanted).sum()), float(got.sum()), float(wanted.sum())),
        "map": float(np.mean(precisions)), "parameters": float((vectors.shape[1] + 1) * wanted.shape[1]),
    }  # fmt: skip


def pooled(units: Units) -> NDArray[np.float32]:
    """Mean and deviation of every input over a picture's units, [N, 2 F]."""
    flat = [picture.reshape(-1, int(np.prod(picture.shape[2:]))) for picture in units.inputs]
    return np.stack([np.concatenate([one.mean(axis=0), one.std(axis=0)]) for one in flat]).astype(np.float32)


def _left_out(vectors: NDArray[np.float32], bears: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Probability of a label for each picture, by a regression over the others."""
    found = []
    for k in range(len(vectors)):
        others = np.arange(len(vectors)) != k
        mean, scale = vectors[others].mean(axis=0), vectors[others].std(axis=0) + 1e-3
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            fitted = _regression().fit((vectors[others] - mean) / scale, bears[others])
        found.append(fitted.predict_proba((vectors[k : k + 1] - mean) / scale)[0, 1])
    return np.array(found)


def _regression() -> Any:
    try:
        linear = importlib.import_module("sklearn.linear_model")
    except ModuleNotFoundError:
        raise InputError("scikit-learn is not installed; pip install 'nadir-payload[features]'") from None
    return linear.LogisticRegression(C=PENALTY, max_iter=500)
