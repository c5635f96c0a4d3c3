"""Output of the transform network -> latents -> signed indices -> latents again, for the proofs."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from payload.codec.interface import LatentQuantiser
from payload.codec.lapped import quantiser
from payload.codec.lapped.transform import LATENT_BITS, Latents, encode


class _Given:
    """Stands in for a network whose output is known."""

    def __init__(self, outputs: list[NDArray[Any]]) -> None:
        self._outputs = outputs

    def run(self, *inputs: NDArray[Any]) -> list[NDArray[Any]]:
        return self._outputs


def latent_quantiser(bands: int, tile_px: int, step_dn: float) -> LatentQuantiser:
    """All layers of the nested quantiser at the step nearest to `step_dn`."""
    index = quantiser.step_index(step_dn)
    step = quantiser.step_units(index)
    blank = np.zeros((bands, tile_px, tile_px), np.int32)

    def indices(latents: NDArray[Any]) -> NDArray[Any]:
        found = quantiser.quantise(Latents(latents), index)
        return np.where(found.negative, -found.magnitude.astype(np.int64), found.magnitude)

    def rebuilt(values: NDArray[Any]) -> NDArray[Any]:
        levels = quantiser.dequantise(quantiser.Indices(np.abs(values).astype(np.uint16), values < 0))
        return (levels.astype(np.float64) * step).reshape(bands, -1, *values.shape[1:])

    return LatentQuantiser(
        f"nested, step {step_dn:g} DN",
        lambda outputs: encode(blank, _Given(outputs)).values,
        indices,
        rebuilt,
        2.0**-LATENT_BITS,
    )
