"""Tiles cover the scene once, in row order, a strip at a time."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toys import ArrayScene

from payload.scene import SceneInfo
from payload.sensor import RGBN
from payload.tiles import grid, split


def scene_of(height: int, width: int, seed: int = 0) -> ArrayScene:
    rng = np.random.default_rng(seed)
    dn = rng.integers(0, 65536, (4, height, width)).astype(np.uint16)
    return ArrayScene(SceneInfo("made up", height, width, RGBN, 10.0), dn, rng.random((height, width)) < 0.9)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.sampled_from([8, 16]))
def test_tiles_put_together_are_the_scene(height, width, tile_px) -> None:
    scene = scene_of(height, width)
    rows, cols = grid(scene.info, tile_px)
    tiles = list(split(scene, tile_px))
    assert [(t.row, t.col) for t in tiles] == [(r, c) for r in range(rows) for c in range(cols)]
    dn = np.zeros((4, rows * tile_px, cols * tile_px), np.uint16)
    valid = np.zeros(dn.shape[1:], bool)
    for tile in tiles:
        span = np.s_[tile.row * tile_px : (tile.row + 1) * tile_px, tile.col * tile_px : (tile.col + 1) * tile_px]
        dn[(slice(None), *span)], valid[span] = tile.dn, tile.valid
    assert np.array_equal(dn[:, :height, :width], scene.dn)
    assert np.array_equal(valid[:height, :width], scene.valid)
    assert not valid[height:].any() and not valid[:, width:].any()
    assert np.array_equal(dn[:, height:, :width], np.repeat(scene.dn[:, -1:], rows * tile_px - height, axis=1))
    assert np.array_equal(dn[:, :height, width:], np.repeat(scene.dn[:, :, -1:], cols * tile_px - width, axis=2))


@pytest.mark.parametrize(
    ("height", "width", "cells"), [(1, 1, (1, 1)), (256, 512, (1, 2)), (257, 513, (2, 3)), (10980, 10980, (43, 43))]
)
def test_grids_by_hand(height, width, cells) -> None:
    assert grid(SceneInfo("x", height, width, RGBN, 10.0), 256) == cells


def test_one_strip_is_read_at_a_time_and_only_when_it_is_needed() -> None:
    scene, read = scene_of(40, 24), []

    class Watched:
        info = scene.info

        def read(self, *window: int):
            read.append(window)
            return scene.read(*window)

    tiles = split(Watched(), 16)
    assert read == []
    next(tiles)
    assert read == [(0, 0, 16, 24)]
    rest = list(tiles)
    assert read == [(0, 0, 16, 24), (16, 0, 16, 24), (32, 0, 8, 24)] and len(rest) == 5


def test_a_tile_is_empty_when_no_pixel_is_valid() -> None:
    scene = scene_of(16, 32)
    scene.valid[:, 16:] = False
    assert [tile.empty for tile in split(scene, 16)] == [False, True]
