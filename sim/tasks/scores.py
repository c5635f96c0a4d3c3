"""How tasks are judged: figures of truth and prediction, both [N, H, W], over what is not IGNORED."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from sim.tasks.task import IGNORED, Labels

#: A boundary counts as found within so many pixels; instances smaller than so many are no parcels.
TOLERANCE_PX, LEAST_PARCEL_PX = 2, 25


def f1(found: float, of_found: float, of_truth: float) -> float:
    """Harmonic mean of found / of_found and found / of_truth; 1 where there is nothing to find and nothing found."""
    return 2 * found / (of_found + of_truth) if of_found + of_truth else 1.0


def binary(truth: Labels, predicted: Labels) -> Mapping[str, float]:
    """F1, IoU and accuracy of class 1, by pixel."""
    known = truth != IGNORED
    wanted, got = truth[known] == 1, predicted[known] == 1
    hit = float((wanted & got).sum())
    either = float((wanted | got).sum())
    return {"f1": f1(hit, float(got.sum()), float(wanted.sum())), "iou": hit / either if either else 1.0,
            "accuracy": float((wanted == got).mean())}  # fmt: skip


def classes(truth: Labels, predicted: Labels) -> Mapping[str, float]:
    """Mean IoU over the classes that the truth holds, overall accuracy and the IoU of each class, by pixel."""
    known = truth != IGNORED
    wanted, got = truth[known], predicted[known]
    shares = {
        f"iou_{k}": float(((wanted == k) & (got == k)).sum()) / float(((wanted == k) | (got == k)).sum())
        for k in np.unique(wanted)
    }
    return {"miou": float(np.mean(list(shares.values()))), "accuracy": float((wanted == got).mean()), **shares}


def objects(truth: Labels, predicted: Labels) -> Mapping[str, float]:
    """F1, recall and precision of objects: connected pixels of class 1. One counts as found where a prediction touches
    it, a prediction as false where it touches none."""
    found = wanted = right = got = 0
    for one, other in zip(truth, predicted, strict=True):
        known = one != IGNORED
        targets, there = _connected((one == 1) & known)
        guesses, guessed = _connected((other == 1) & known)
        wanted, got = wanted + there, got + guessed
        found += len(np.unique(targets[(guesses > 0) & (targets > 0)]))
        right += len(np.unique(guesses[(guesses > 0) & (targets > 0)]))
    recall, precision = found / wanted if wanted else 1.0, right / got if got else 1.0
    return {"object_f1": f1(recall * precision, recall, precision) if recall + precision else 0.0,
            "recall": recall, "precision": precision}  # fmt: skip


def boundaries(truth: Labels, predicted: Labels) -> Mapping[str, float]:
    """F1 of boundaries (class 1) within TOLERANCE_PX, and the mean over parcels of their best overlap with a predicted
    one (IoU). Parcels: connected pixels of class 0."""
    hit = of_predicted = near = of_truth = 0.0
    overlaps: list[float] = []
    for one, other in zip(truth, predicted, strict=True):
        known = one != IGNORED
        lines, guesses = (one == 1) & known, (other == 1) & known
        hit, of_predicted = hit + float((guesses & _grown(lines)).sum()), of_predicted + float(guesses.sum())
        near, of_truth = near + float((lines & _grown(guesses)).sum()), of_truth + float(lines.sum())
        overlaps += _overlaps(_connected((one == 0) & known)[0], _connected((other == 0) & known)[0])
    precision = hit / of_predicted if of_predicted else 1.0
    recall = near / of_truth if of_truth else 1.0
    both = precision + recall
    return {"boundary_f1": 2 * precision * recall / both if both else 0.0,
            "parcel_iou": float(np.mean(overlaps)) if overlaps else 0.0}  # fmt: skip


def _overlaps(parcels: NDArray[np.int32], guesses: NDArray[np.int32]) -> list[float]:
    """Of every parcel the IoU with the guess that covers most of it."""
    sizes, guessed = np.bincount(parcels.ravel()), np.bincount(guesses.ravel())
    table = np.bincount(parcels.ravel() * len(guessed) + guesses.ravel(), minlength=len(sizes) * len(guessed))
    shared = table.reshape(len(sizes), len(guessed))[1:, 1:]
    if not shared.size:
        return [0.0] * int((sizes[1:] >= LEAST_PARCEL_PX).sum())
    share = (shared / (sizes[1:, None] + guessed[None, 1:] - shared)).max(axis=1)
    return [float(value) for value, size in zip(share, sizes[1:], strict=True) if size >= LEAST_PARCEL_PX]


def _connected(mask: NDArray[np.bool_]) -> tuple[NDArray[np.int32], int]:
    labelled, count = ndimage.label(mask)
    return labelled, int(count)


def _grown(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    return np.asarray(ndimage.maximum_filter(mask, size=2 * TOLERANCE_PX + 1), bool)
