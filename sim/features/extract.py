"""Tile codes -> features, tile by tile: entropy decoding and dequantisation, no network and no pixel."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from payload.codec.features import FeatureLevel, KnowsFeatures
from payload.codec.registry import open_codec
from payload.errors import InputError, StreamError
from payload.link.tile_code import Kind
from payload.link.valid_mask import unpack_mask
from payload.scene import Mask
from sim.features.source import Source


@dataclass(frozen=True, eq=False)
class TileFeatures:
    """Levels of one tile; cells in which no pixel is valid, or that lie beyond the scene, are NaN."""

    row: int
    col: int
    levels: tuple[FeatureLevel, ...]
    valid_share: float  # of the tile's pixels inside the scene

    @property
    def embedding(self) -> NDArray[np.float32]:
        """Mean and standard deviation of every channel of the pooled levels, [2 channels]."""
        pooled = [level.values.reshape(len(level.values), -1) for level in self.levels if level.pooled]
        parts = [part for flat in pooled for part in (np.nanmean(flat, axis=1), np.nanstd(flat, axis=1))]
        return np.concatenate(parts).astype(np.float32)


def extract(source: Source, skipped: Counter[str] | None = None) -> Iterator[TileFeatures]:
    """Features of every tile that holds any, in row order. `skipped` counts the others by what they are: withheld,
    damaged and so on. InputError where the bundle's codec has no features."""
    codec = open_codec(source.bundle)
    if not isinstance(codec, KnowsFeatures):
        raise InputError(f"bundle {source.bundle.name}: its codec shows no features; give edge or a corsa bundle")
    skipped = Counter() if skipped is None else skipped
    for code in source.codes:
        if code.kind is not Kind.CODED or not code.layers:
            skipped[code.kind.name.lower() if code.kind is not Kind.CODED else "no layer arrived"] += 1
            continue
        try:
            levels = codec.features(codec.decode(code.side, code.base_layers))
            valid = unpack_mask(code.mask, source.bundle.tile_px)
        except StreamError:
            skipped["damaged"] += 1
            continue
        yield _of_scene(code.row, code.col, levels, _inside(source, code.row, code.col, valid))


def _inside(source: Source, row: int, col: int, valid: Mask) -> Mask:
    """The mask of a tile with what lies beyond the scene taken out."""
    side, inside = source.bundle.tile_px, np.zeros_like(valid)
    inside[: source.info.height_px - row * side, : source.info.width_px - col * side] = True
    return valid & inside


def _of_scene(row: int, col: int, levels: tuple[FeatureLevel, ...], valid: Mask) -> TileFeatures:
    masked = tuple(
        replace(level, values=np.where(cells_of(valid, level.stride_px), level.values, np.float32(np.nan)))
        for level in levels
    )
    return TileFeatures(row, col, masked, float(valid.mean()))


def cells_of(valid: Mask, stride_px: int) -> Mask:
    """Cells [T / stride, T / stride] in which any pixel of [T, T] is valid."""
    cells = len(valid) // stride_px
    return np.asarray(valid.reshape(cells, stride_px, cells, stride_px).any(axis=(1, 3)), bool)
