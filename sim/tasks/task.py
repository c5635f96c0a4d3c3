"""What a downstream task is: pictures, labels to learn from, labels to be judged by, and a score."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from payload.scene import Dn, Mask

#: Marks a pixel that no one learns from or is judged by.
IGNORED = 255
Labels = NDArray[np.uint8]
#: Truth [N, H, W] (IGNORED where nobody judges) and prediction [N, H, W] -> figures by name.
Score = Callable[[Labels, Labels], Mapping[str, float]]


@dataclass(frozen=True, eq=False)
class Task:
    """Dense labelling: pictures [N, 4, H, W] in DN, labels `learn` and `judge` [N, u H, u W], each IGNORED where the
    other holds. `metric`: the score's figure that the table shows, as a share. `finer`: u, cells of a label along a
    pixel (4: super-resolution). `truth_dn`: the pictures on the labels' grid, where the task is to restore them.
    `valid` [N, H, W]: where there is data (None: everywhere)."""

    name: str
    title: str
    pictures: Dn
    learn: Labels
    judge: Labels
    classes: tuple[str, ...]
    metric: str
    score: Score
    note: str
    finer: int = 1
    truth_dn: Dn | None = None
    valid: Mask | None = None

    def with_share(self, share: float, seed: int) -> "Task":
        """The task with a share of its labels, drawn in squares of 32 px so that few labels are few places."""
        if share >= 1:
            return self
        side = 32 * self.finer
        rows, cols = (-(-size // side) for size in self.learn.shape[1:])
        known = [k for k, square in enumerate(_squares(self.learn, side)) if (square != IGNORED).any()]
        kept = np.random.default_rng(seed).permutation(known)[: max(1, round(share * len(known)))]
        chosen = np.zeros(len(self.learn) * rows * cols, bool)
        chosen[kept] = True
        mask = chosen.reshape(len(self.learn), rows, cols).repeat(side, axis=1).repeat(side, axis=2)
        height, width = self.learn.shape[1:]
        return replace(self, learn=np.where(mask[:, :height, :width], self.learn, IGNORED).astype(np.uint8))

    def first(self, pictures: int) -> "Task":
        """The task with so many pictures at most, half of them to learn from and half to judge, evenly taken: for a
        quick look."""
        if len(self.pictures) <= pictures:
            return self
        at = np.union1d(_evenly(self.learn, (pictures + 1) // 2), _evenly(self.judge, pictures // 2))
        truth = None if self.truth_dn is None else self.truth_dn[at]
        valid = None if self.valid is None else self.valid[at]
        return replace(self, pictures=self.pictures[at], learn=self.learn[at], judge=self.judge[at], truth_dn=truth,
                       valid=valid)  # fmt: skip


def _evenly(labels: Labels, count: int) -> NDArray[np.intp]:
    """So many of the pictures [N, H, W] that have a label, or all of them."""
    labelled = np.flatnonzero((labels != IGNORED).any(axis=(1, 2)))
    return labelled[np.linspace(0, len(labelled) - 1, min(count, len(labelled))).round().astype(int)]


def _squares(labels: Labels, side: int) -> list[Labels]:
    """Squares of labels [N, H, W], picture by picture, row by row."""
    _, height, width = labels.shape
    places = [(top, left) for top in range(0, height, side) for left in range(0, width, side)]
    return [picture[top : top + side, left : left + side] for picture in labels for top, left in places]
