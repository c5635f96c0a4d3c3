"""Blocks of the generated scene: each is drawn once, whatever is read between."""

import tempfile

import numpy as np
import pytest

from sim.scenes.drawn_blocks import Block, DrawnBlocks, Truth

SIDE = 16


class Draws:
    def __init__(self) -> None:
        self.asked: list[tuple[int, int]] = []

    def __call__(self, row: int, col: int) -> Block:
        self.asked.append((row, col))
        rng = np.random.default_rng((row, col))
        truth = Truth(*(rng.random((3, SIDE, SIDE)) < 0.5))
        return Block(rng.integers(0, 65536, (4, SIDE, SIDE), np.uint16), truth)


def read_twice(blocks: DrawnBlocks) -> None:
    for _ in range(2):
        for row in range(3):
            for col in range(4):
                found, wanted = blocks.get(row, col), Draws()(row, col)
                assert np.array_equal(found.dn, wanted.dn)
                assert all(np.array_equal(a, b) for a, b in zip(found.truth, wanted.truth, strict=True))


@pytest.mark.parametrize("in_memory", [1, 5, 12])
def test_every_block_is_drawn_once_and_comes_back_as_it_was(in_memory: int) -> None:
    draws = Draws()
    blocks = DrawnBlocks(draws, SIDE, in_memory)
    read_twice(blocks)
    assert len(draws.asked) == 12
    blocks.close()
    blocks.get(0, 0)
    assert len(draws.asked) == 13


def test_a_disk_without_room_costs_time_only(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(prefix: str) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tempfile, "TemporaryFile", full)
    draws = Draws()
    read_twice(DrawnBlocks(draws, SIDE, 5))
    assert len(draws.asked) == 24
