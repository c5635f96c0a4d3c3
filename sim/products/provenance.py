"""What became of every pixel, and how much of it arrived: the two bands of `provenance.tif`.

Band 1 is the state, band 2 the number of layers of its tile code that arrived whole (0 where there is no picture).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from payload.link.tile_code import Kind
from payload.scene import Mask
from sim.ground.reception import PICTURED, Address, SceneReception

U8 = NDArray[np.uint8]


@dataclass(frozen=True)
class State:
    value: int
    name: str
    meaning: str
    colour: str  # RGB, hexadecimal


STATES = (
    State(0, "no_data", "nothing was taken here", "18181c"),
    State(1, "coded", "decoded, with every layer that was sent", "4c8f4a"),
    State(2, "incomplete", "decoded, with fewer layers than were sent", "e0c34a"),
    State(3, "fallback", "decoded from a fallback tile", "2ab496"),
    State(4, "withheld", "too cloudy: kept on board", "eef0f4"),
    State(5, "omitted", "left out on board for the byte budget", "b094de"),
    State(6, "lost", "sent, and lost on the link", "e03028"),
    State(7, "refused", "arrived, and could not be decoded", "f09028"),
)
VALUE = {state.name: state.value for state in STATES}
_OF_KIND = {Kind.WITHHELD: "withheld", Kind.EMPTY: "no_data", Kind.OMITTED: "omitted", Kind.FALLBACK: "fallback"}


def state_of(scene: SceneReception, address: Address) -> tuple[str, int]:
    """State of a tile and the layers of it that arrived."""
    if address in scene.refused:
        return "refused", 0
    code = scene.codes.get(address)
    if code is None:
        return "lost", 0
    if code.kind not in PICTURED:
        return _OF_KIND[code.kind], 0
    state = _OF_KIND.get(code.kind, "incomplete" if code.incomplete else "coded")
    return state, len(code.layers)


def provenance(scene: SceneReception, row: int, known: Mask, tile_px: int) -> U8:
    """uint8 [2, h, W] of a strip of tiles: `known` bool [h, W] says which pixels of its pictures hold data."""
    each = [state_of(scene, (row, col)) for col in range(scene.grid[1])]
    states = np.array([VALUE[state] for state, _ in each], np.uint8).repeat(tile_px)[: known.shape[1]]
    layers = np.array([layers for _, layers in each], np.uint8).repeat(tile_px)[: known.shape[1]]
    hole = ~known & (layers > 0)
    strip = np.stack([np.broadcast_to(states, known.shape), np.broadcast_to(layers, known.shape)])
    strip[:, hole] = VALUE["no_data"]
    return strip
