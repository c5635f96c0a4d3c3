"""Tile -> cloud mask -> what to do with the tile. An INT8 network judges, integers and fixed tables do the rest.

    tile --input_planes--> u8 [2B, T/c, T/c] --network--> logits --softmax by table--> CloudMask --decide--> Decision

A tile that shows one single value per band (no data, saturated, constant) is not judged: probability 0, so it is sent.
It costs a few octets, and the gate throws away only what it has judged.
"""

from dataclasses import dataclass
from enum import Enum
from functools import partial

import numpy as np

from payload.clouds import compiled
from payload.clouds.mask import CLASSES, CloudCounts, CloudMask
from payload.clouds.network import CloudNet, parts_shape, probabilities
from payload.clouds.planes import input_planes
from payload.errors import InputError
from payload.native import library
from payload.policy import Gate, Region
from payload.scene import Dn, Mask
from payload.tiles import Tile

#: The codec's transform block.
BLOCK_PX = 8


def detect_clouds(tile: Tile, net: CloudNet) -> CloudMask:
    """Judges one tile. T must be a multiple of `stride_px`; a tile of one single value per band comes back unjudged."""
    settings = net.settings
    size = tile.valid.shape[0]
    if size % settings.stride_px or tile.valid.shape != (size, size):
        raise InputError(f"tile of {tile.valid.shape} pixels, wanted a square of a multiple of {settings.stride_px}")
    seen = net.looked_at(tile.dn)
    planes = input_planes(seen, tile.valid, settings)
    thresholds = settings.cloudy_above, settings.sure_above
    if planes is None:
        cells = size // settings.cell_px
        return CloudMask(np.zeros((len(CLASSES), 1, 1, cells, cells), np.float32), tile.valid, *thresholds, seen)
    logits = net.network.run(planes[None])[0][0]  # [4 s s, h, w], s sub-cells a side
    shape = parts_shape(logits, net, size)
    counts = None
    if library.available and tile.valid.all():
        counts = CloudCounts(*compiled.cloud_counts(logits.reshape(shape), net.exponentials, *thresholds))
    return CloudMask(partial(probabilities, logits, net, size), tile.valid, *thresholds, seen, counts)


def flatten_clouds(tile: Tile, mask: CloudMask) -> Tile:
    """The tile with closed cloud smoothed to its 8 px averages, so that it costs few octets; everything else untouched.

    What is smoothed cannot be had back, so only cloud beyond doubt is: the gate's answer, not the mask's.
    """
    if mask.accused_fraction * tile.valid.size < (3 * BLOCK_PX) ** 2:
        return tile  # less than one block and its neighbours
    chosen = flattened_pixels(mask)
    if not chosen.any():
        return tile
    return Tile(tile.row, tile.col, np.where(chosen, _smoothed(tile.dn), tile.dn), tile.valid)


def flattened_pixels(mask: CloudMask) -> Mask:
    """Pixels of closed cloud that `flatten_clouds` smooths. [T, T]

    Only blocks whose eight neighbours are cloud too: the codec's transform overlaps by half a block, so no pixel that
    shows ground is touched by a changed one. Cloud past the tile's edge is unknown, so blocks there are left alone.
    """
    n = mask.valid.shape[0] // BLOCK_PX
    closed = mask.sure.reshape(n, BLOCK_PX, n, BLOCK_PX).all(axis=(1, 3))
    inner = np.pad(closed, 1)
    inner = inner[:-2] & inner[1:-1] & inner[2:]
    inner = inner[:, :-2] & inner[:, 1:-1] & inner[:, 2:]
    return np.asarray(inner.repeat(BLOCK_PX, axis=0).repeat(BLOCK_PX, axis=1))


def _smoothed(dn: Dn) -> Dn:
    """Averages of 8 x 8 px, interpolated linearly between block centres. [B, T, T]"""
    bands, size, _ = dn.shape
    n = size // BLOCK_PX
    averages = dn.reshape(bands, n, BLOCK_PX, n, BLOCK_PX).mean(axis=(2, 4), dtype=np.float32)
    place = np.clip((np.arange(size) + 0.5) / BLOCK_PX - 0.5, 0.0, n - 1.0).astype(np.float32)
    low = np.minimum(place.astype(np.int64), n - 2)
    share = place - low
    rows = averages[:, low] * (1 - share)[:, None] + averages[:, low + 1] * share[:, None]
    wide = rows[:, :, low] * (1 - share) + rows[:, :, low + 1] * share
    return np.round(wide).astype(np.uint16)


class Action(Enum):
    """What becomes of a tile."""

    SEND = "send"
    REDUCE = "reduce"
    WITHHOLD = "withhold"


@dataclass(frozen=True)
class Decision:
    """The gate's word on one tile. `layers`: at most so many layers, None for all. Percentages of the valid pixels."""

    action: Action
    cloud_percent: float  # thick + thin
    thin_percent: float
    layers: int | None = None
    protected: bool = False  # would have been reduced or withheld, but touches a region of interest


def decide(mask: CloudMask, gate: Gate, tile: Tile | None = None) -> Decision:
    """Send, reduce or withhold by what is cloud beyond doubt; the percentages told are of all that is taken for cloud.

    `tile` is needed where the gate has regions; they must be in pixels by then.
    """
    cloud, thin = 100.0 * mask.cloud_fraction, 100.0 * mask.thin_fraction
    limits = (gate.withhold_above_percent, gate.reduce_above_percent)
    if 100.0 * mask.accused_fraction <= min(limit for limit in limits if limit is not None):
        return Decision(Action.SEND, cloud, thin)  # the second witness can only acquit, so it need not be heard
    counted = 100.0 * (mask.sure_fraction - (1.0 - gate.thin_counts) * mask.sure_thin_fraction)
    action = Action.SEND
    if counted > gate.withhold_above_percent:
        action = Action.WITHHOLD
    elif gate.reduce_above_percent is not None and counted > gate.reduce_above_percent:
        action = Action.REDUCE
    if action is Action.SEND:
        return Decision(action, cloud, thin)
    if gate.regions and touches_region(tile, gate):
        return Decision(Action.SEND, cloud, thin, protected=True)
    return Decision(action, cloud, thin, gate.reduced_layers if action is Action.REDUCE else None)


def touches_region(tile: Tile | None, gate: Gate) -> bool:
    """Whether a pixel of the tile lies in one of the gate's regions."""
    if tile is None:
        raise InputError("the gate has regions of interest, so decide() needs the tile and its place")
    size = tile.valid.shape[0]
    top, left = tile.row * size, tile.col * size
    for region in gate.regions:
        if not isinstance(region, Region):
            raise InputError(f"gate.regions: {region} is still in degrees; call regions_in_pixels with the scene first")
        rows_meet = region.top_px < top + size and region.bottom_px > top
        if rows_meet and region.left_px < left + size and region.right_px > left:
            return True
    return False


def judge(tile: Tile, net: CloudNet, gate: Gate) -> tuple[Decision, CloudMask, Tile]:
    """The gate's word on a tile, what it judged by, and the tile as it is to be coded."""
    mask = detect_clouds(tile, net)
    return decide(mask, gate, tile), mask, flatten_clouds(tile, mask) if gate.flatten_clouds else tile
