"""Tile -> cloud mask -> what to do with the tile. An INT8 network judges, integers and fixed tables do the rest.

    tile --input_planes--> u8 [2B, T/c, T/c] --network--> logits --softmax by table--> CloudMask --decide--> Decision

A tile that shows one single value per band (no data, saturated, constant) is not judged: probability 0, so it is sent.
It costs a few octets, and the gate throws away only what it has judged.
"""

from dataclasses import dataclass
from enum import Enum
from functools import partial

import numpy as np
from numpy.typing import NDArray

from payload.clouds import compiled
from payload.clouds.mask import CLASSES, CloudCounts, CloudMask
from payload.clouds.network import CloudNet, parts_shape, probabilities
from payload.clouds.planes import cell_sums, input_planes
from payload.errors import InputError
from payload.native import library
from payload.policy import Gate, Region
from payload.scene import Dn, Mask
from payload.tiles import Tile

#: The codec's transform block: what closed cloud is averaged over.
BLOCK_PX = 8
#: Closed cloud is flattened where so many of the AROUND x AROUND cells about it are closed (docs/clouds.md).
AROUND, LEAST_CLOSED = 5, 19


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
        told = logits.reshape(shape), net.exponentials
        counts = CloudCounts(*compiled.cloud_counts(*told, *thresholds), *told)
    return CloudMask(partial(probabilities, logits, net, size), tile.valid, *thresholds, seen, counts)


def flatten_clouds(tile: Tile, mask: CloudMask, thin_too: bool = True) -> Tile:
    """The tile with closed cloud smoothed, so that it costs few octets; every other pixel as it was.

    What is smoothed cannot be had back, so only cloud beyond doubt is: the gate's answer, not the mask's.
    """
    if mask.accused_fraction * mask.valid.size < BLOCK_PX**2:
        return tile  # less than one block
    if mask.counts is not None and mask.dn is not None:
        told = mask.counts.logits, mask.counts.exponentials
        flat = compiled.flattened(*told, mask.sure_above, thin_too, mask.dn, tile.dn)
    else:
        chosen = flattened_pixels(mask, thin_too)
        flat = _smoothed(tile.dn, chosen) if chosen.any() else None
    return tile if flat is None else Tile(tile.row, tile.col, flat, tile.valid)


def flattened_pixels(mask: CloudMask, thin_too: bool = True) -> Mask:
    """Pixels of closed cloud that `flatten_clouds` smooths, those of thin cloud where `thin_too`. [T, T]

    Cells with at least LEAST_CLOSED closed ones among the AROUND x AROUND about them, so that single cells in broken
    cloud and a cloud's rim keep their detail. Past the tile's edge its outermost cells go on.
    """
    if mask.accused_fraction * mask.valid.size < BLOCK_PX**2:
        return np.zeros(mask.valid.shape, bool)  # less than one block
    closed = mask.closed(thin_too)
    cells = closed & (_closed_around(closed) >= LEAST_CLOSED)
    return cells.repeat(mask.cell_px, axis=1).repeat(mask.cell_px, axis=0) & mask.valid


def _closed_around(closed: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """How many of the AROUND x AROUND cells about each are set. [n, n]"""
    n = len(closed)
    wide = np.pad(closed, AROUND // 2, mode="edge").view(np.uint8)
    lines = sum(wide[i : i + n] for i in range(1, AROUND)) + wide[:n]
    return np.asarray(sum(lines[:, i : i + n] for i in range(1, AROUND)) + lines[:, :n])


def _smoothed(dn: Dn, chosen: Mask) -> Dn:
    """The chosen pixels as averages of the chosen ones of a block, linear between blocks' centres. [B, T, T]

    Sums and counts are interpolated apart and then divided, so that ground never leaks into cloud. Band by band, which
    stays in the cache; every operation rounds once, so that every machine gives the same.
    """
    smooth = dn.copy()
    sums = cell_sums(dn * chosen, BLOCK_PX).astype(np.float32)
    counts = _between_centres(cell_sums(chosen[None].astype(np.uint16), BLOCK_PX)[0].astype(np.float32))
    np.maximum(counts, 0.25, out=counts)  # a chosen pixel has at least 81 / 256 here
    for band, blocks in zip(smooth, sums, strict=True):
        averages = _between_centres(blocks)
        averages /= counts
        averages += np.float32(0.5)
        np.copyto(band, averages.astype(np.uint16), where=chosen)
    return smooth


def _between_centres(blocks: NDArray[np.float32]) -> NDArray[np.float32]:
    """Blocks -> pixels, linear between the blocks' centres, constant beyond. [n, n] -> [8 n, 8 n]"""
    return _down(np.ascontiguousarray(_down(blocks.T).T))


def _down(blocks: NDArray[np.float32]) -> NDArray[np.float32]:
    """The same along the first axis alone. [n, w] -> [8 n, w]"""
    n, width = blocks.shape
    half = BLOCK_PX // 2
    pixels = np.empty((BLOCK_PX * n, width), np.float32)
    pixels[:half], pixels[-half:] = blocks[0], blocks[-1]
    between = pixels[half:-half].reshape(n - 1, BLOCK_PX, width)
    far = (np.arange(BLOCK_PX, dtype=np.float32) + 0.5) / BLOCK_PX
    np.multiply((blocks[1:] - blocks[:-1])[:, None], far[:, None], out=between)
    between += blocks[:-1, None]
    return pixels


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
    decision = decide(mask, gate, tile)
    flat = flatten_clouds(tile, mask, gate.thin_counts == 1.0) if _flattens(gate, decision, tile) else tile
    return decision, mask, flat


def pixels_without_detail(tile: Tile, mask: CloudMask, gate: Gate) -> Mask:
    """Pixels that `judge` smooths of a tile with this mask. [T, T]"""
    if not _flattens(gate, decide(mask, gate, tile), tile):
        return np.zeros(tile.valid.shape, bool)
    return flattened_pixels(mask, gate.thin_counts == 1.0)


def _flattens(gate: Gate, decision: Decision, tile: Tile) -> bool:
    """A tile in a region of interest keeps every detail, and so does one that is withheld, for the audit. (Thin cloud,
    through which ground shows, is smoothed only by a mission for which it counts in full.)"""
    if not gate.flatten_clouds or decision.action is Action.WITHHOLD:
        return False
    return not (gate.regions and touches_region(tile, gate))
