"""The start of every adaptation: the shipped four-band context model, read for any number of rotated bands.

A rotated band is known by its rank, the strongest first, and by how busy it is, which every tile code says; not by the
sensor's band, since every tile has a rotation of its own. So band 0, 1 and 2 begin as those of the shipped model, all
others as its last, each looking at the two bands before it and at the next (export/lapped/context_model.py).
"""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor

from export.lapped.context_model import ContextModel, LayerContext, turns_of
from payload.codec.lapped.context_model import parts
from payload.codec.lapped.transform import COEFFICIENTS

START = Path(__file__).parents[1] / "checkpoints" / "edge"
KNOWN_BANDS = 4


def universal_context(order: NDArray[np.int64], starts: list[int]) -> ContextModel:
    """A context model for `order` of B * 64 channels, its weights the shipped ones by rank of the rotated band."""
    state = load_file(START / "context.safetensors")
    state.pop("step_no")
    layers = 1 + max(int(name.split(".")[1]) for name in state if name.startswith("layers."))
    shipped = ContextModel(layers, KNOWN_BANDS * COEFFICIENTS, np.arange(KNOWN_BANDS * COEFFICIENTS), [0])
    shipped.load_state_dict(state | {"order": shipped.order})
    made = ContextModel(layers, len(order), order, starts)
    with torch.no_grad():
        for new, old in zip(made.layers, shipped.layers, strict=True):
            assert isinstance(new, LayerContext) and isinstance(old, LayerContext)
            _fill(new, old, len(order) // COEFFICIENTS)
    return made


def _fill(new: LayerContext, old: LayerContext, bands: int) -> None:
    rank = np.minimum(np.arange(bands), KNOWN_BANDS - 1)
    channels = torch.from_numpy((rank[:, None] * COEFFICIENTS + np.arange(COEFFICIENTS)).ravel())
    for name in ("base", "activity", "gain"):
        getattr(new, name).copy_(getattr(old, name)[channels])
    for name in ("shared_base", "shared_activity", "shared_gain", "floor"):
        getattr(new, name).copy_(getattr(old, name))
    new.position.copy_(old.position[torch.from_numpy(rank)])
    own, of_block = _edges(new), _edges(old)
    weights = old.weights()
    new.shared_weight.zero_()
    for to, source in ((slice(0, own[0]), slice(0, of_block[0])), (slice(own[1], None), slice(of_block[1], None))):
        new.weight[:, to], new.mix[to] = weights[channels, source], old.mix[source]
    for place, turn in enumerate(turns_of(bands)):
        _fill_turn(new, old, bands, (place, turn))


def _edges(layer: LayerContext) -> tuple[int, int]:
    """Where the features of the other bands begin and end."""
    return layer.parts[2]


def _fill_turn(new: LayerContext, old: LayerContext, bands: int, which: tuple[int, int]) -> None:
    """The features of the band `turn` further on: those of the shipped model where as near a one is as far away."""
    place, turn = which
    at, begin = _edges(new)[0] + 2 * place, parts(KNOWN_BANDS)[2][0]
    weights: Tensor = old.weights()
    nearest = turn if turn <= bands // 2 else turn - bands
    for band in range(bands):
        away = (band + turn) % bands - band
        rows = slice(band * COEFFICIENTS, (band + 1) * COEFFICIENTS)
        if not 0 < abs(away) < KNOWN_BANDS:
            new.weight[rows, at : at + 2] = 0.0
            continue
        like = min(band, KNOWN_BANDS - 1 - max(0, away))
        source = begin + 2 * (away % KNOWN_BANDS - 1)
        new.weight[rows, at : at + 2] = weights[like * COEFFICIENTS : (like + 1) * COEFFICIENTS, source : source + 2]
    source = begin + 2 * (nearest % KNOWN_BANDS - 1)
    new.mix[at : at + 2] = old.mix[source : source + 2]


