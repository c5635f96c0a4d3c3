"""What reaches the ground: levels behind the flight coder, which leaves out magnitudes that are not worth their octets.

The decoder learns from such levels; quantised coefficients as they are hold more than is ever sent.
"""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from payload.codec.lapped.compiled_layers import EntropyKernel
from payload.codec.lapped.layers import Plain
from payload.codec.lapped.quantiser import STEPS_PER_OCTAVE, dequantise, quantise, step_dn, step_index, within
from payload.codec.lapped.tables import load_tables
from payload.codec.lapped.transform import LATENT_BITS, Latents
from payload.native import library

#: So many tiles are coded as the payload codes them, at the step that was asked for; the others lose layers on the way.
AS_ASKED = 0.75


class Sender:
    """Codes tiles of `cells` x `cells` blocks at steps within `step_dn`, by the tables of a bundle."""

    def __init__(self, tables: Path, cells: int, step_dn: tuple[float, float]) -> None:
        model = load_tables(tables)
        self._coder = EntropyKernel(model, cells, cells) if library.available else Plain(model, cells)
        self._layers = len(model.layers)
        self._finest, self._coarsest = (step_index(step) for step in step_dn)

    def draw(self, count: int, rng: np.random.Generator) -> list[tuple[int, int, int]]:
        """Settings of tiles: finest step index, finer layers that stay unsent, layers that are lost on the way."""
        last = self._coarsest + STEPS_PER_OCTAVE * (self._layers - 1)
        asked = rng.integers(self._finest, last + 1, count)
        lost = np.where(rng.uniform(size=count) < AS_ASKED, 0, rng.integers(1, self._layers, count))
        settings = ((*within(int(index), self._coarsest), int(n)) for index, n in zip(asked, lost, strict=True))
        return [(index, unsent, min(n, self._layers - 1 - unsent)) for index, unsent, n in settings]

    def within(self, step_dn: float) -> tuple[int, int]:
        """Finest step index and unsent layers of a step asked for."""
        return within(step_index(step_dn), self._coarsest)

    def send(self, coefficients: Tensor, settings: list[tuple[int, int, int]]) -> tuple[Tensor, Tensor, Tensor]:
        """Coefficients [N, B, 64, h, w] with the second level in place -> levels [N, B, 64, h, w] alike; finest steps
        [N] in DN; missing layers [N]."""
        found = [self._sent(tile, *how) for tile, how in zip(coefficients.numpy(), settings, strict=True)]
        steps = [step_dn(index) for index, _, _ in settings]
        missing = [unsent + lost for _, unsent, lost in settings]
        return torch.from_numpy(np.stack(found)), torch.tensor(steps), torch.tensor(missing)

    def _sent(self, tile: NDArray[np.float32], index: int, unsent: int, lost: int) -> NDArray[np.float32]:
        latents = Latents(np.rint(tile * 2.0**LATENT_BITS).astype(np.int32))
        octets = self._coder.encode_layers(quantise(latents, index, unsent), self._layers - unsent)
        return dequantise(self._coder.decode_layers(octets[: len(octets) - lost])).reshape(tile.shape)
