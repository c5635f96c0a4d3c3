"""Networks of the user's own, as ONNX: a frozen classifier of pixels or tiles, and LPIPS with its weights."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from payload.errors import InputError

F32 = NDArray[np.float32]
FREE_SIDE_PX = 256


class Classifier:
    """reflectance float32 [1, B, T, T] -> scores [1, K, T, T] or [1, K]."""

    def __init__(self, path: Path, bands: int) -> None:
        self._session, (entry,) = open_onnx(path, 1)
        shape = entry.shape
        if len(shape) != 4 or (isinstance(shape[1], int) and shape[1] != bands):
            raise InputError(f"{path}: takes {shape}, wanted [1, {bands}, h, w] for rasters of {bands} bands")
        self._path, self._name = path, entry.name
        self.side_px = shape[2] if isinstance(shape[2], int) else FREE_SIDE_PX
        if self.side_px != (shape[3] if isinstance(shape[3], int) else FREE_SIDE_PX):
            raise InputError(f"{path}: takes {shape}, wanted squares")
        self.classes = self._scores(np.zeros((bands, self.side_px, self.side_px), np.float32)).shape[0]

    def classify(self, reflectance: F32) -> NDArray[np.intp]:
        """Class of each pixel [T, T]; one class for all of them where the network judges tiles."""
        best = self._scores(reflectance).argmax(axis=0)
        return np.broadcast_to(best, reflectance.shape[1:]) if best.ndim == 0 else best

    def _scores(self, reflectance: F32) -> NDArray[Any]:
        (scores,) = self._session.run(None, {self._name: reflectance[None]})[:1]
        if scores.ndim not in (2, 4) or (scores.ndim == 4 and scores.shape[2:] != reflectance.shape[1:]):
            raise InputError(f"{self._path}: gives {list(scores.shape)}, wanted [1, K, h, w] or [1, K]")
        return scores[0]


class Lpips:
    """LPIPS of two bands: two pictures float32 [1, 3, h, w] in -1..1 -> one number, as ONNX with its own weights."""

    def __init__(self, path: Path) -> None:
        self._session, entries = open_onnx(path, 2)
        self._names = [entry.name for entry in entries]

    def distance(self, a: NDArray[Any], b: NDArray[Any]) -> float:
        """Of one band [h, w] each, stretched to -1..1 by its own extremes and repeated, as COPEX does."""
        pictures = {name: _stretched(v) for name, v in zip(self._names, (a, b), strict=True)}
        return float(np.asarray(self._session.run(None, pictures)[0]).ravel()[0])


def open_onnx(path: Path, inputs: int) -> tuple[Any, Any]:
    """A session of ONNX Runtime on one thread, and its inputs. InputError where it is none, or takes another number."""
    import onnxruntime

    if not path.is_file():
        raise InputError(f"{path}: not found, wanted an ONNX model")
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = 1
    try:
        session = onnxruntime.InferenceSession(str(path), settings, providers=["CPUExecutionProvider"])
    except Exception as error:  # the runtime's own exceptions have no common class
        raise InputError(f"{path}: is no ONNX model that this runtime reads ({str(error)[:120]})") from None
    if len(session.get_inputs()) != inputs:
        raise InputError(f"{path}: has {len(session.get_inputs())} inputs, wanted {inputs}")
    return session, session.get_inputs()


def _stretched(band: NDArray[Any]) -> F32:
    values = band.astype(np.float32)
    span = float(values.max() - values.min())
    scaled = (values - values.min()) / span if span else values
    return np.repeat((2 * scaled - 1)[None, None], 3, axis=1).astype(np.float32)
