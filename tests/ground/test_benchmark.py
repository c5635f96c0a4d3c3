"""The benchmark's arithmetic: the setting nearest to the same octets, ratios to the yardstick, the memory verdict."""

import json
import os
from dataclasses import dataclass

import numpy as np
import pytest

from payload.bundle import load_bundle
from payload.engine import open_engine
from payload.errors import InputError
from payload.link import tile_code
from payload.pipeline import Payload
from payload.tiles import Tile
from sim.compare.protection_cost import percent_more
from sim.compare.speed import (
    EVERYTHING,
    Benchmark,
    Memory,
    Speed,
    _against,
    _decoders_at_one_rate,
    _setting_near,
    _time_coder,
    as_text,
    measure_memory,
)
from sim.ground.decoder import Decoder


@dataclass(frozen=True)
class Counting:
    """A coder whose output has as many octets as its setting says; coarse first."""

    name: str = "counting"
    note: str = ""
    settings: tuple[float, ...] = (1, 5, 10, 50, 100, 500)

    def encode(self, dn: np.ndarray, setting: float) -> bytes:
        return bytes(int(setting))

    def decode(self, octets: bytes) -> np.ndarray:
        raise AssertionError("the benchmark only encodes")


TILES = [Tile(0, col, np.zeros((4, 64, 64), np.uint16), np.ones((64, 64), bool)) for col in range(8)]


@pytest.mark.parametrize(("octets_a_tile", "setting"), [(0, 1), (1, 1), (500, 500), (10_000, 500)])
def test_the_setting_stays_within_the_codecs_own(octets_a_tile: int, setting: float) -> None:
    assert _setting_near(Counting(), TILES, octets_a_tile * len(TILES)) == setting


@pytest.mark.parametrize("octets_a_tile", [3, 6, 50, 99, 333])
def test_the_setting_comes_near_the_octets_from_above(octets_a_tile: int) -> None:
    found = len(Counting().encode(TILES[0].dn, _setting_near(Counting(), TILES, octets_a_tile * len(TILES))))
    assert octets_a_tile <= found <= octets_a_tile * 1.12 + 1


def test_a_coder_is_timed_over_all_tiles() -> None:
    speed = _time_coder(Counting(), TILES, 50)
    assert speed.octets == 8 * 50
    assert speed.mpx_s == pytest.approx(8 * 64 * 64 / 1e6 / speed.seconds)


def test_twice_as_fast_is_a_ratio_of_two() -> None:
    assert _against(Speed("a", 2.0, 1.0, None, 9), 4.0).ratio == 2.0


@pytest.mark.parametrize(("peak_mib", "held"), [(1535.9, True), (1536.0, False)])
def test_memory_is_held_below_its_limit(peak_mib: float, held: bool) -> None:
    memory = Memory(10_980, 0, 60.0, peak_mib)
    result = Benchmark("host", "scene", (), (Speed("a", 1.0, 1.0, 1.0, 10),), memory)
    assert memory.held == result.held == held
    assert ("FAILED" in as_text(result)) != held
    assert json.loads(json.dumps(result.as_dict()))["held"] == held


@pytest.mark.skipif(not hasattr(os, "wait4"), reason="this system does not tell a child's memory")
def test_a_run_that_cannot_start_is_bad_input() -> None:
    with pytest.raises(InputError, match=r"demo:256 ended with 2 and said: .*no such bundle"):
        measure_memory(256, "no such bundle", "openvino")


def test_a_disturbed_round_does_not_change_what_the_guard_costs() -> None:
    """Two rounds of seven are disturbed, one for each payload; the last tile has what comes once a scene."""
    taken_s = np.full((7, 10, 2), 0.010)
    taken_s[:, :, 1] += 0.0001
    taken_s[:, -1, 1] += 0.001
    taken_s[2, 3, 1] = taken_s[4, 5, 0] = 0.2
    low, percent, high = percent_more(taken_s)
    assert percent == pytest.approx(2.0) == low and 1.99 < high < 25


def test_the_decoders_are_timed_beside_openjpeg_on_the_same_pixels() -> None:
    pixels = np.random.default_rng(1).integers(300, 3000, (4, 16, 16), dtype=np.uint16).repeat(16, 1).repeat(16, 2)
    tile = Tile(0, 0, pixels, np.ones((256, 256), bool))
    bundle = load_bundle("edge")
    code = Payload(bundle, EVERYTHING, open_engine("native", threads=1)).encode_tile(tile)
    peer, *own = _decoders_at_one_rate(bundle, [tile], [code])
    assert [row.decoder for row in own] == ["fast", "full", "best"]
    dn = Decoder(bundle, open_engine("openvino"), "fast").decode_tile(code).astype(np.float64)
    assert own[0].psnr_10k_db == pytest.approx(10 * np.log10(1e8 / np.mean((dn - pixels) ** 2)))
    for row in own:
        assert row.ratio == pytest.approx(row.mpx_s / peer.mpx_s)
        assert row.cr16 == 2 * pixels.size / len(tile_code.pack(code))
