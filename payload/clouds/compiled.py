"""The compiled twins of what stands around the cloud network: its planes, and the cells it finds cloudy counted."""

import ctypes

import numpy as np
from numpy.typing import NDArray

from payload.native.library import F32, I8, I32, U8, U16, call, span
from payload.scene import Dn


def cloud_planes(
    dn: Dn, cell_px: int, detail: bool, low_permille: int, high_permille: int, least_span: int
) -> NDArray[np.uint8] | None:
    """As payload.clouds.planes.input_planes, of a tile whose pixels are all valid. [B, T, T] -> [P, T/c, T/c]"""
    bands, size, _ = dn.shape
    n = size // cell_px
    planes = np.empty((2 * bands + 4 * detail, n, n), np.uint8)
    judged = call(
        "cloud_planes", span(np.ascontiguousarray(dn), U16), bands, n, cell_px, int(detail),
        low_permille, high_permille, least_span, span(planes, U8),
    )  # fmt: skip
    return planes if judged else None


def cloud_counts(
    logits: NDArray[np.int8], exponentials: NDArray[np.float32], cloudy_above: float, sure_above: float
) -> tuple[int, int, int, int]:
    """Cells of logits [4, n]: all, cloud, thin cloud, cloud beyond doubt; as payload.clouds.CloudMask counts them."""
    counts = np.empty(3, np.int32)
    call(
        "cloud_counts", span(np.ascontiguousarray(logits), I8), span(exponentials, F32), logits.shape[1],
        ctypes.c_float(cloudy_above), ctypes.c_float(sure_above), span(counts, I32),
    )  # fmt: skip
    cloudy, thin, sure = counts.tolist()
    return logits.shape[1], cloudy, thin, sure
