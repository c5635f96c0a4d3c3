"""Decoder `best`: the mean of a network's answers over the eight turns of a tile."""

import numpy as np
import pytest

from payload.bundle import load_bundle
from payload.codec.interface import Quality
from payload.codec.registry import open_codec
from payload.engine import open_engine
from payload.errors import InputError
from payload.stopwatch import Stopwatch
from payload.tiles import split
from sim.ground.averaged_network import TURNS, AveragedNetwork, turned, turned_back, turned_levels
from sim.ground.decoder import Decoder
from sim.scenes.demo import demo_scene

DEPTH = np.zeros((1, 1, 1, 1), np.float32)


class Corner:
    """Adds what it is told of the first block to the first pixel: an answer that no turn leaves as it is."""

    def run(self, plain, levels, depth):
        answer = plain.copy()
        answer[0, :, 0, 0] += levels[0, 1::64, 0, 0]
        return [answer]


@pytest.mark.parametrize("turn", TURNS)
def test_turns_are_undone(turn) -> None:
    picture = np.random.default_rng(1).normal(size=(1, 2, 16, 16)).astype(np.float32)
    assert np.array_equal(turned_back(turned(picture, turn), turn), picture)


def test_mirrored_columns_negate_what_is_odd_across_and_an_exchange_swaps_functions() -> None:
    levels = np.zeros((1, 64, 2, 2), np.float32)
    levels[0, 8 * 2 + 1, 0, 0] = 3  # even down, odd across
    mirrored, exchanged = turned_levels(levels, (False, True, False)), turned_levels(levels, (False, False, True))
    assert mirrored[0, 17, 0, 1] == -3 and np.count_nonzero(mirrored) == 1
    assert exchanged[0, 8 * 1 + 2, 0, 0] == 3 and np.count_nonzero(exchanged) == 1


def test_the_mean_by_hand() -> None:
    levels = np.zeros((1, 64, 2, 2), np.float32)
    levels[0, 1, 0, 0] = 8  # of the first block, odd across: four turns bring its corner to the first pixel, or not
    (answer,) = AveragedNetwork(Corner()).run(np.zeros((1, 1, 16, 16), np.float32), levels, DEPTH)
    # The block lies first in the picture as it is and, its functions exchanged, in the transposed one, where channel 1
    # has what channel 8 had: nothing. Mirrored pictures have other blocks first, which hold nothing.
    assert answer[0, 0, 0, 0] == 1 and np.count_nonzero(answer) == 1


def test_best_is_closer_than_full(tmp_path) -> None:
    bundle, (tile,) = load_bundle("edge"), split(demo_scene(256, 256, 3), 256)
    coded = open_codec(bundle, open_engine()).encode(tile, Quality(300.0), Stopwatch())
    errors = {}
    for kind in ("best", "full", "fast"):
        codec, network = Decoder(bundle, open_engine(), kind).own()
        dn = codec.reconstruct(codec.decode(coded.side, coded.layers), network)
        errors[kind] = np.mean((dn.astype(np.float64) - tile.dn) ** 2)
    assert errors["best"] < errors["full"] < errors["fast"]


def test_a_codec_whose_levels_are_no_transform_s_has_no_best() -> None:
    with pytest.raises(InputError, match="no decoder 'best'; choose full"):
        Decoder(load_bundle("corsa-fpn3-256"), open_engine(), "best")
