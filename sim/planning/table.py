"""Figures of coded tiles as arrays: K tiles of S distinct scenes, L layers."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

F64 = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class TileTable:
    """Octets on the link that each layer adds (0: there is none), and what is wrong after it; NaN where there is none.

    `value`: squared error that each layer removes per octet by the codec's own estimate, in DN^2 over all samples of a
    tile; it never rises along one (payload/link/pass_filling.py). `spread`: variance of the tile, the error of its mean
    alone. `keep`: layers that the gate lets through.
    """

    scene: NDArray[np.int64]  # [K]
    octets: F64  # [K, L]
    value: F64  # [K, L], DN^2 an octet; 0 of a codec that makes no estimate
    ndvi_mae: F64  # [K, L], over clear pixels
    mse: F64  # [K, L], DN^2
    spread: F64  # [K], DN^2
    clear_px: F64  # [K]
    valid_px: F64  # [K]
    withheld: NDArray[np.bool_]  # [K]
    keep: NDArray[np.int64]  # [K]
    record_octets: F64  # [S], scene headers
    answer_octets: F64 | None = None  # [S], all copies of the applications' records; None: none fly

    @property
    def layers(self) -> int:
        return self.octets.shape[1]

    def finest(self, values: F64) -> F64:
        """Of values [K, L] those of each tile's last layer [K]."""
        last = np.maximum((self.octets > 0).sum(axis=1) - 1, 0)
        return np.asarray(values[np.arange(len(values)), last])

    def tiles_of(self, scene: int) -> NDArray[np.int64]:
        return np.flatnonzero(self.scene == scene)
