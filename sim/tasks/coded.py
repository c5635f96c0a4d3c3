"""Pictures of a task -> what a bundle makes of them at a compression ratio: decoded pixels, or features.

Small pictures are laid beside each other on tiles of the bundle; octets are those of the tile codes.
"""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from payload.bundle import load_bundle
from payload.codec.features import KnowsFeatures
from payload.codec.registry import open_codec
from payload.engine import ENGINES, NATIVE, open_engine
from payload.errors import InputError
from payload.link import tile_code
from payload.link.tile_code import TileCode
from payload.native import library
from payload.pipeline import Payload
from payload.policy import Profile
from payload.scene import Dn, Mask
from payload.tiles import Tile
from sim.archive.coding import POLICY
from sim.ground.decoder import FULL, Decoder
from sim.spread import Spread

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
    """One bundle at work on a task's pictures. `follows_ratio`: whether a ratio can be asked of it. Nothing is coded
    twice: pictures are known by their content."""

    def __init__(self, name: str, spread: Spread | None = None, decoder: str = FULL, profile: Profile = "fast") -> None:
        self.bundle, runtime = load_bundle(name), open_engine(NATIVE if library.available else ENGINES[0])
        self._policy, self._decoder = replace(POLICY, profile=profile), Decoder(self.bundle, runtime, decoder)
        self._payload = Payload(self.bundle, self._policy, runtime)
        self._payload.clouds = None  # nothing is withheld, so nobody has to judge
        self._spread = spread or Spread()
        self._codes: dict[tuple[str, float | None], list[TileCode]] = {}
        self._ratios: dict[str, dict[float, float]] = {}  # of sampled tiles by step
        codec = open_codec(self.bundle)
        if not isinstance(codec, KnowsFeatures):
            raise InputError(f"bundle {name}: its codec shows no features; give edge or a corsa bundle")
        self._features, self._codec = codec, codec
        self.follows_ratio = self._payload.codec.follows_quality

    def code(self, pictures: Dn, cr: float | None, valid: Mask | None = None) -> Coded:
        """Pictures at a ratio (None: at the bundle's own rate). `valid` [N, H, W]: where there is data (None:
        everywhere); elsewhere decoded pixels are 0."""
        valid = np.ones((len(pictures), *pictures.shape[2:]), bool) if valid is None else valid
        tiles, content = list(_tiles(pictures, self.bundle.tile_px, valid)), digest_of(pictures, valid)
        if (content, cr) not in self._codes:
            self._codes[content, cr] = self._coded(tiles, cr, self._ratios.setdefault(content, {}))
        codes = self._codes[content, cr]
        return Coded(_ratio(tiles, codes), lambda: self._decoded(codes, pictures.shape, valid),
                     lambda: self._features_of(codes, pictures.shape))  # fmt: skip

    def _coded(self, tiles: list[Tile], cr: float | None, ratios: dict[float, float]) -> list[TileCode]:
        if cr is None or not self.follows_ratio:
            return [self._payload.encode_tile(tile) for tile in tiles]
        return self._at(tiles, self._step_for(tiles, cr, ratios))

    def _decoded(self, codes: list[TileCode], shape: tuple[int, ...], valid: Mask) -> Dn:
        pixels = _pictures(np.stack(list(self._spread.map(self._decoder.decode_tile, codes))), shape)
        return np.where(valid[:, None], pixels, 0).astype(np.uint16)

    def _features_of(self, codes: list[TileCode], shape: tuple[int, ...]) -> dict[int, NDArray[np.float32]]:
        """Levels by stride; activity is a sum over others and left out."""
        found = [self._features.features(self._codec.decode(code.side, code.base_layers)) for code in codes]
        strides = {level.stride_px: k for k, level in enumerate(found[0]) if level.stride_px <= 8}
        return {
            stride: _pictures(np.stack([levels[k].values for levels in found]), shape, stride)
            for stride, k in strides.items()
        }

    def _step_for(self, tiles: list[Tile], cr: float, ratios: dict[float, float]) -> float:
        """The quantiser step at which the tiles come to a ratio: by a sample of them, then once by all. `ratios` of the
        sample by step: those that are known; what is found is added."""
        at = np.unique(np.linspace(0, len(tiles) - 1, SAMPLED_TILES).round().astype(int))
        sample = [tiles[int(k)] for k in at]
        for step_dn in STEPS_DN:
            if step_dn not in ratios:
                ratios[step_dn] = _ratio(sample, self._at(sample, step_dn))
            if ratios[step_dn] > cr:
                break
        return _between(ratios, cr * cr / _ratio(tiles, self._at(tiles, _between(ratios, cr))))

    def _at(self, tiles: list[Tile], step_dn: float) -> list[TileCode]:
        self._payload.policy = replace(self._policy, step_dn=step_dn)
        return [self._payload.encode_tile(tile) for tile in tiles]


def _between(known: dict[float, float], cr: float) -> float:
    """The step at which ratios known by step, which grow with it, come to `cr`: their logarithms run straight."""
    steps = sorted(known)
    return float(np.exp(np.interp(np.log(cr), np.log([known[step] for step in steps]), np.log(steps))))


def _ratio(tiles: list[Tile], codes: list[TileCode]) -> float:
    """Of their samples at 16 bit to the octets of their codes."""
    samples = sum(len(tile.dn) * int(tile.valid.sum()) for tile in tiles)
    return 2 * samples / sum(len(tile_code.pack(code)) for code in codes)


def digest_of(pictures: Dn, valid: Mask | None) -> str:
    """Of the content of pictures and where there is data."""
    found = hashlib.sha256(np.ascontiguousarray(pictures).data)
    found.update(b"" if valid is None else np.ascontiguousarray(valid).data)
    return found.hexdigest()[:12]


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
