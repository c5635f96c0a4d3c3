"""What a network under test is fed: real tiles through the payload's own front end, or seeded random integers.

A feeder maps a tile number to the arrays of one run, in the order of the network's inputs. It is deterministic, so that
every runtime sees the same tiles.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from export.data import pool_file, read_tiles
from export.graphs.graph import Graph
from payload.errors import InputError
from payload.tiles import Tile

Arrays = tuple[NDArray[Any], ...]
FrontEnd = Callable[[Tile], Arrays]


@dataclass(frozen=True, eq=False)
class Feeder:
    """`arrays(i)` gives the inputs of run i; `source` says in the report where they come from."""

    name: str
    source: str
    real: bool
    arrays: Callable[[int], Arrays]


@dataclass(frozen=True, eq=False)
class TilePool:
    """Real 4-band tiles dn uint16 [N, B, 128, 128] and the sha256 of their file."""

    dn: NDArray[np.uint16]
    digest: str

    def tile(self, index: int, tile_px: int) -> Tile:
        """Tile `index` of tile_px: a mosaic of neighbours in the pool where they are smaller, a crop where larger."""
        count, bands, size, _ = self.dn.shape
        if tile_px <= size:
            dn = self.dn[index % count, :, :tile_px, :tile_px]
        elif tile_px % size:
            raise InputError(
                f"tiles of {tile_px} px cannot be assembled from tiles of {size} px; choose a multiple of it"
            )
        else:
            side = tile_px // size
            chosen = self.dn[(index + np.arange(side * side)) % count]  # [side^2, B, size, size]
            dn = chosen.reshape(side, side, bands, size, size).transpose(2, 0, 3, 1, 4).reshape(bands, tile_px, tile_px)
        return Tile(0, index, np.ascontiguousarray(dn), np.ones(dn.shape[1:], bool))


def real_pool(path: Path | None = None) -> TilePool:
    """The pool given, or the training pool of the data folder. InputError naming what is missing."""
    tiles = read_tiles(pool_file(path))
    return TilePool(tiles.dn, tiles.digest)


def real_feeder(front_end: FrontEnd, tile_px: int, pool: TilePool) -> Feeder:
    """Real tiles through a payload front end (what turns a tile into a network's inputs)."""
    source = f"{len(pool.dn)} real tiles, sha256 {pool.digest[:12]}"
    return Feeder("real", source, True, lambda index: front_end(pool.tile(index, tile_px)))


def random_feeder(graph: Graph, seed: int = 0) -> Feeder:
    """Random integers over the whole range of each input's first quantiser (0..255 where it has none)."""
    ranges = {name: input_range(graph, name) for name in graph.inputs}

    def arrays(index: int) -> Arrays:
        rng = np.random.default_rng([seed, index])
        return tuple(
            rng.integers(*ranges[name], graph.shapes[name], endpoint=True).astype(graph.input_type(name))
            for name in graph.inputs
        )

    return Feeder("random", f"seeded random integers (seed {seed})", False, arrays)


def input_range(graph: Graph, name: str) -> tuple[int, int]:
    """Integers that an input's quantiser takes without saturating."""
    if graph.input_type(name).kind in "iu":
        return int(np.iinfo(graph.input_type(name)).min), int(np.iinfo(graph.input_type(name)).max)
    for node in graph.consumers().get(name, []):
        if node.op_type == "QuantizeLinear":
            info = np.iinfo(graph.constants[node.input[2]].dtype)
            step = float(graph.constants[node.input[1]])
            return int(np.ceil(info.min * step)), int(np.floor(info.max * step))
    return 0, 255
