"""The compiled twins of what stands around the cloud network: its planes, and the cells it finds cloudy counted."""

import ctypes

import numpy as np
from numpy.typing import NDArray

from payload.native.library import BOOL, F32, I8, I32, U8, U16, call, span
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
) -> tuple[int, int, int, int, NDArray[np.bool_]]:
    """Cells of logits [4, s, s, h, w]: all, cloud, thin cloud, cloud beyond doubt, as payload.clouds.CloudMask counts
    them; and which are cloud. [s, s, h, w]"""
    counts, is_cloudy = np.empty(3, np.int32), np.empty(logits.shape[1:], np.bool_)
    call(
        "cloud_counts", span(np.ascontiguousarray(logits), I8), span(exponentials, F32), is_cloudy.size,
        ctypes.c_float(cloudy_above), ctypes.c_float(sure_above), span(counts, I32),
        span(is_cloudy, BOOL),
    )  # fmt: skip
    cloudy, thin, sure = counts.tolist()
    return is_cloudy.size, cloudy, thin, sure, is_cloudy


def flattened(
    logits: NDArray[np.int8], exponentials: NDArray[np.float32], sure_above: float, thin_too: bool, seen: Dn, dn: Dn
) -> Dn | None:
    """As payload.clouds.gate.flatten_clouds, of a tile dn [B, T, T] whose pixels are all valid; None where nothing is
    flattened. Logits [4, s, s, h, w]; `seen`: what the witness looks at."""
    _, s, _, h, w = logits.shape
    bands, size, _ = dn.shape
    cell_px, blocks = size // (s * w), size // 8
    cells, chosen = np.empty((2, s * h, s * w), np.uint8), np.empty((size, size), np.uint16)
    rows, flat = np.empty((2, blocks, size), np.float32), np.empty(dn.shape, np.uint16)
    smoothed = call(
        "flatten", span(np.ascontiguousarray(logits), I8), span(exponentials, F32), s, h, w, ctypes.c_float(sure_above),
        int(thin_too), span(np.ascontiguousarray(seen), U16), cell_px, span(np.ascontiguousarray(dn), U16), bands,
        span(cells, U8), span(chosen, U16), span(rows, F32), span(flat, U16),
    )  # fmt: skip
    return flat if smoothed else None
