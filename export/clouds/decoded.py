"""Pictures as the ground sees them: coded by the shipped codec at some step, and decoded.

Ratios of about 10 to 100, from fine to what its coarsest step gives. The decoder is the one that runs no network.
"""

import numpy as np

from export.clouds.drawn import F32
from payload.bundle import load_bundle
from payload.codec.registry import open_codec
from payload.engine import NATIVE, open_engine
from payload.link.tile_code import Kind
from payload.native import library
from payload.pipeline import Payload
from payload.policy import SENDS_EVERYTHING, Policy
from payload.tiles import Tile

#: Quantiser steps, DN, drawn evenly in their logarithm.
STEPS_DN = (60.0, 320.0)
KINDS_OF_STEP = 6


class Decoded:
    """Codes and decodes windows, each at a step that is drawn."""

    def __init__(self, rng: np.random.Generator) -> None:
        bundle, engine = load_bundle(), open_engine(NATIVE if library.available else "openvino")
        self._rng = rng
        self._coders = [Payload(bundle, Policy(step_dn=step, gate=SENDS_EVERYTHING), engine) for step in steps_dn()]
        for coder in self._coders:
            coder.clouds = None
        self._codec = open_codec(bundle)

    def __call__(self, dn: F32) -> F32:
        """dn [4, 256, 256] -> the same, lossy."""
        whole = np.round(dn).clip(0, 65_535).astype(np.uint16)
        coder = self._coders[int(self._rng.integers(len(self._coders)))]
        code = coder.encode_tile(Tile(0, 0, whole, np.ones(whole.shape[1:], bool)))
        if code.kind is Kind.FALLBACK:
            return dn
        return np.asarray(self._codec.reconstruct(self._codec.decode(code.side, code.layers), None), np.float32)


def steps_dn() -> list[float]:
    return [float(step) for step in np.geomspace(*STEPS_DN, KINDS_OF_STEP)]
