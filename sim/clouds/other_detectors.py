"""Detectors of others: the network's opponents, and the audit's judge.

Two published rules on colour are fixed formulas on reflectance, without training or context: dn uint16 [4, ...] in
payload.sensor.RGBN's order with DN = reflectance x 10 000 -> bool [...]. s2cloudless on 13 bands and ukis-csmask on
four (extra `clouds`) are optional: without them their columns are empty.
"""

import importlib.util
import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from payload.clouds.mask import grown
from payload.scene import Dn, Mask

#: s2cloudless' own defaults: threshold .4; window and dilation scaled from 60 m as its makers advise for 10 m.
S2CLOUDLESS_THRESHOLD, S2CLOUDLESS_AVERAGE_PX, S2CLOUDLESS_DILATION_PX = 0.4, 22, 11
#: Of ukis-csmask: pixels along a window, and the outline that comes nearest to the one people draw (docs/clouds.md).
WINDOW_PX, OUTLINE_ABOVE, OUTLINE_GROWTH_M = 256, 0.3, 30.0
CS_CLEAR, CS_CLOUD, CS_SHADOW = range(3)
BLUE, GREEN, RED = range(3)


def braaten_cohen_yang(dn: Dn) -> Mask:
    """Braaten, Cohen and Yang 2015 (Remote Sensing of Environment 169, 128-138), the cloud core test for green and red.

    Made for Landsat MSS; the thresholds are those of the Sentinel-2 adaptation in wide use: green as a ratio between
    .175 and .39, cloud above it, or within it where green exceeds red.
    """
    green, red = _reflectance(dn[GREEN]), _reflectance(dn[RED])
    ratio = (green - 0.175) / (0.39 - 0.175)
    greenness = green - red  # the sign of the normalised difference
    return np.asarray((ratio > 1.0) | ((ratio > 0.0) & (greenness > 0.0)))


def hot_whiteness(dn: Dn) -> Mask:
    """Fmask's visible tests: Zhu and Woodcock 2012 (Remote Sensing of Environment 118, 83-94), equations 2 and 3.

    Haze-optimised: blue - red / 2 - .08 > 0. White: sum |band - mean| / mean < .7 over the visible bands. The tests
    that need short-wave infrared or temperature are left out.
    """
    visible = np.stack([_reflectance(dn[band]) for band in (BLUE, GREEN, RED)])
    mean = np.maximum(visible.mean(axis=0), 1e-6)
    white = (np.abs(visible - mean).sum(axis=0) / mean) < 0.7
    haze = visible[BLUE] - 0.5 * visible[RED] - 0.08 > 0.0
    return np.asarray(white & haze)


def _reflectance(dn: NDArray[np.uint16]) -> NDArray[np.float32]:
    return dn.astype(np.float32) / np.float32(10000.0)


def s2cloudless_probability(x: NDArray[np.uint16]) -> NDArray[np.float32] | None:
    """Cloud probability by s2cloudless of a 13-band top-of-atmosphere image [13, H, W]; None if not installed."""
    try:
        from s2cloudless import S2PixelCloudDetector
    except ImportError:
        return None
    detector = S2PixelCloudDetector(
        threshold=S2CLOUDLESS_THRESHOLD, average_over=S2CLOUDLESS_AVERAGE_PX,
        dilation_size=S2CLOUDLESS_DILATION_PX, all_bands=True,
    )  # fmt: skip
    reflectance = x.transpose(1, 2, 0)[None].astype(np.float32) / 10_000.0
    return np.asarray(detector.get_cloud_probability_maps(reflectance)[0], np.float32)


def csmask_is_there() -> bool:
    return importlib.util.find_spec("ukis_csmask") is not None


@cache
def _session(level: str) -> tuple[Any, NDArray[np.float32], NDArray[np.float32]]:
    """One of its networks, and the mean and deviation [4, 1, 1] of the reflectance it takes."""
    import onnxruntime

    found = importlib.util.find_spec("ukis_csmask")
    if found is None or not found.submodule_search_locations:
        raise ImportError("ukis-csmask is not installed")
    path = Path(found.submodule_search_locations[0]) / f"model_4b_{level}"
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path.with_suffix(".onnx")), options, providers=["CPUExecutionProvider"])
    statistics = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))["data"]["dataset_statistics"]["img"]
    mean, deviation = (np.array(values, np.float32)[:, None, None] for values in statistics)
    return session, mean, deviation


def csmask_probabilities(dn: NDArray[np.uint16], level: str) -> NDArray[np.float32]:
    """Probabilities of clear, cloud and shadow by ukis-csmask [3, H, W]: means over windows at half overlap.

    dn [4, H, W]; level L1C takes the network for the top of the atmosphere, any other the one for the ground.
    ImportError where the package is not installed.
    """
    session, mean, deviation = _session("l1c" if level == "L1C" else "l2a")
    height, width = dn.shape[1:]
    step = WINDOW_PX // 2
    rows, cols = (max(WINDOW_PX, -(-side // step) * step) for side in (height, width))
    margins = ((0, 0), (0, rows - height), (0, cols - width))
    values = (np.pad(dn.astype(np.float32) / 10_000.0, margins, mode="symmetric") - mean) / deviation
    sums, seen = np.zeros((3, rows, cols), np.float32), np.zeros((rows, cols), np.float32)
    for top in range(0, rows - step, step):
        for left in range(0, cols - step, step):
            place = (..., slice(top, top + WINDOW_PX), slice(left, left + WINDOW_PX))
            sums[place] += _softmax(session.run(None, {"input": values[place][None]})[0][0])
            seen[place[1:]] += 1.0
    return np.asarray((sums / seen)[:, :height, :width])


def _softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    weights = np.exp(logits - logits.max(axis=0))
    return np.asarray(weights / weights.sum(axis=0))


def csmask_classes(dn: NDArray[np.uint16], level: str) -> NDArray[np.uint8]:
    """Clear 0, cloud 1, shadow 2: the likeliest of each pixel. [H, W]"""
    return csmask_probabilities(dn, level).argmax(axis=0).astype(np.uint8)


def csmask_outline(probabilities: NDArray[np.float32], gsd_m: float) -> NDArray[np.bool_]:
    """Cloud as people draw it: from a lower probability on, grown by the soft edge. [3, H, W] -> [H, W]

    gsd_m 0: unknown, and nothing is grown."""
    return grown(probabilities[CS_CLOUD] > OUTLINE_ABOVE, OUTLINE_GROWTH_M / gsd_m if gsd_m > 0.0 else 0.0)
