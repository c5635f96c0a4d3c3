"""Pictures of a task -> what a bundle makes of them at a compression ratio: decoded pixels, or features.

Small pictures are laid beside each other on tiles of the bundle; octets are those of the tile codes.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from payload.bundle import load_bundle
from payload.codec.features import KnowsFeatures
from payload.codec.registry import open_codec
from payload.engine import open_engine
from payload.errors import InputError
from payload.link import tile_code
from payload.link.tile_code import TileCode
from payload.pipeline import Payload
from payload.scene import Dn, Mask
from payload.tiles import Tile
from sim.archive.coding import POLICY
from sim.ground.decoder import FULL, Decoder

Values = TypeVar("Values", np.uint16, np.float32)
#: Steps at which the rate of some tiles is looked at, DN; between them log octets run straight over log steps.
STEPS_DN = tuple(float(8 * 2**k) for k in range(11))
SAMPLED_TILES = 12


@dataclass(eq=False)
class Coded:
    """What is made of pictures at a ratio against 16 bit; each of the two when it is first asked for."""

    cr: float
    decoded: Callable[[], Dn]
    levels: Callable[[], dict[int, NDArray[np.float32]]]

    @cached_property
    def pixels(self) -> Dn:
        """Decoded pixels [N, 4, H, W]."""
        return self.decoded()

    @cached_property
    def features(self) -> dict[int, NDArray[np.float32]]:
        """Features by stride in px, [N, C, H / stride, W / stride]."""
        return self.levels()


class BundleCoder:
    """One bundle at work on a task's pictures. `follows_ratio`: whether a ratio can be asked of it."""

    def __init__(self, name: str, engine: str = "openvino", decoder: str = FULL) -> None:
        self.bundle, runtime = load_bundle(name), open_engine(engine)
        self._payload, self._decoder = Payload(self.bundle, POLICY, runtime), Decoder(self.bundle, runtime, decoder)
        codec = open_codec(self.bundle)
        if not isinstance(codec, KnowsFeatures):
            raise InputError(f"bundle {name}: its codec shows no features; give edge or a corsa bundle")
        self._features, self._codec = codec, codec
        self.follows_ratio = self._payload.codec.follows_quality

    def code(self, pictures: Dn, cr: float | None, valid: Mask | None = None) -> Coded:
        """Pictures at a ratio (None: at the bundle's own rate). `valid` [N, H, W]: where there is data (None:
        everywhere); elsewhere decoded pixels are 0."""
        valid = np.ones((len(pictures), *pictures.shape[2:]), bool) if valid is None else valid
        tiles = list(_tiles(pictures, self.bundle.tile_px, valid))
        if cr is not None and self.follows_ratio:
            self._payload.policy = replace(POLICY, step_dn=self._step_for(tiles, cr))
        codes = [self._payload.encode_tile(tile) for tile in tiles]
        return Coded(_samples(tiles) * 2 / _octets(codes), lambda: self._decoded(codes, pictures.shape, valid),
                     lambda: self._features_of(codes, pictures.shape))  # fmt: skip

    def _decoded(self, codes: list[TileCode], shape: tuple[int, ...], valid: Mask) -> Dn:
        pixels = _pictures(np.stack([self._decoder.decode_tile(code) for code in codes]), shape)
        return np.where(valid[:, None], pixels, 0).astype(np.uint16)

    def _features_of(self, codes: list[TileCode], shape: tuple[int, ...]) -> dict[int, NDArray[np.float32]]:
        """Levels by stride; activity is a sum over others and left out."""
        found = [self._features.features(self._codec.decode(code.side, code.base_layers)) for code in codes]
        strides = {level.stride_px: k for k, level in enumerate(found[0]) if level.stride_px <= 8}
        return {
            stride: _pictures(np.stack([levels[k].values for levels in found]), shape, stride)
            for stride, k in strides.items()
        }

    def _step_for(self, tiles: list[Tile], cr: float) -> float:
        """The quantiser step at which the tiles come to a ratio: by a sample of them, then once by all."""
        at = np.unique(np.linspace(0, len(tiles) - 1, SAMPLED_TILES).round().astype(int))
        sample, known = [tiles[int(k)] for k in at], dict[float, float]()
        for step_dn in STEPS_DN:
            known[step_dn] = self._ratio(sample, step_dn)
            if known[step_dn] > cr:
                break
        first = _between(known, cr)
        return _between(known, cr * cr / self._ratio(tiles, first))

    def _ratio(self, tiles: list[Tile], step_dn: float) -> float:
        self._payload.policy = replace(POLICY, step_dn=step_dn)
        return _samples(tiles) * 2 / _octets([self._payload.encode_tile(tile) for tile in tiles])


def _between(known: dict[float, float], cr: float) -> float:
    """The step at which ratios known by step, which grow with it, come to `cr`: their logarithms run straight."""
    steps = sorted(known)
    return float(np.exp(np.interp(np.log(cr), np.log([known[step] for step in steps]), np.log(steps))))


def _octets(codes: list[TileCode]) -> int:
    return sum(len(tile_code.pack(code)) for code in codes)


def _samples(tiles: list[Tile]) -> int:
    return sum(len(tile.dn) * int(tile.valid.sum()) for tile in tiles)


def cell_of(height: int, width: int, tile_px: int) -> tuple[int, int]:
    """What a picture takes on the tiles: a square that divides a tile where it fits into one, else whole tiles."""
    side = tile_px
    while side // 2 >= max(height, width):
        side //= 2
    return (side, side) if max(height, width) <= tile_px else (-(-height // side) * side, -(-width // side) * side)


def _tiles(pictures: Dn, tile_px: int, there: Mask) -> Iterator[Tile]:
    """Tiles of the pictures with data where it is `there`; what pads them is not valid, nor is a place without one."""
    height, width = pictures.shape[2:]
    tall, wide = cell_of(height, width, tile_px)
    padded = np.pad(pictures, ((0, 0), (0, 0), (0, tall - height), (0, wide - width)), mode="edge")
    valid = np.zeros((len(pictures), tall, wide), bool)
    valid[:, :height, :width] = there
    if max(tall, wide) < tile_px:
        padded, valid = _together(padded, valid, tile_px)
    for picture, mask in zip(padded, valid, strict=True):
        for top in range(0, picture.shape[1], tile_px):
            for left in range(0, picture.shape[2], tile_px):
                square = (slice(top, top + tile_px), slice(left, left + tile_px))
                yield Tile(0, 0, np.ascontiguousarray(picture[:, *square]), np.ascontiguousarray(mask[square]))


def _together(cells: Dn, valid: Mask, tile_px: int) -> tuple[Dn, Mask]:
    """Square cells [N, B, s, s], as many on a tile as fit; the last tile is filled up with its last cell."""
    count, bands, side, _ = cells.shape
    along = tile_px // side
    short = -count % along**2
    cells = np.concatenate([cells, np.repeat(cells[-1:], short, axis=0)])
    valid = np.concatenate([valid, np.zeros((short, side, side), bool)])
    grid = cells.reshape(-1, along, along, bands, side, side).transpose(0, 3, 1, 4, 2, 5)
    masks = valid.reshape(-1, along, along, side, side).swapaxes(2, 3)
    return grid.reshape(-1, bands, tile_px, tile_px), masks.reshape(-1, tile_px, tile_px)


def _pictures(tiles: NDArray[Values], shape: tuple[int, ...], stride: int = 1) -> NDArray[Values]:
    """Inverse of `_tiles` for what was made of the tiles, [n, C, T / stride, T / stride] -> [N, C, H / stride, ...]."""
    count, _, height, width = shape
    tile, channels = tiles.shape[-1], tiles.shape[1]
    tall, wide = (size // stride for size in cell_of(height, width, tile * stride))
    if max(tall, wide) < tile:
        along = tile // tall
        cells = tiles.reshape(-1, channels, along, tall, along, tall).transpose(0, 2, 4, 1, 3, 5)
        found = cells.reshape(-1, channels, tall, tall)[:count]
    else:
        rows, cols = tall // tile, wide // tile
        grid = tiles.reshape(count, rows, cols, channels, tile, tile).transpose(0, 3, 1, 4, 2, 5)
        found = grid.reshape(count, channels, tall, wide)
    return np.ascontiguousarray(found[:, :, : -(-height // stride), : -(-width // stride)])
