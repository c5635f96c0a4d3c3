"""The shipped codec on the benchmark tiles: the project's own bar, every downlinked octet counted."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from payload.bundle import load_bundle
from payload.engine import open_engine
from payload.link.space_packet import octets_on_air
from payload.link.tile_code import pack
from payload.pipeline import Payload
from payload.policy import SENDS_EVERYTHING, Policy
from payload.tiles import Tile
from sim.ground.decoder import Decoder

pytestmark = [pytest.mark.slow, pytest.mark.realdata]
DATA = Path(os.environ.get("NADIR_DATA", Path(__file__).parents[2].parent / "shared" / "data"))


@pytest.fixture(scope="module")
def tiles() -> list[Tile]:
    if not DATA.is_dir():
        pytest.skip("no data folder next to the checkout (or in NADIR_DATA)")
    with np.load(DATA / "bench" / "rd20.npz") as data:
        order = [list(data["bands"]).index(band) for band in ("B02", "B03", "B04", "B08")]
        dn = data["x"][:, order, :256, :256]
    return [Tile(0, 0, np.ascontiguousarray(one), np.ones((256, 256), bool)) for one in dn]


@pytest.fixture(scope="module")
def line() -> tuple[Payload, Decoder, Policy]:
    bundle, engine = load_bundle(), open_engine()
    policy = Policy(step_dn=220.0, gate=SENDS_EVERYTHING)
    return Payload(bundle, policy, engine), Decoder(bundle, engine), policy


def test_41_db_at_a_ratio_of_20_or_more(tiles: list[Tile], line: tuple[Payload, Decoder, Policy]) -> None:
    payload, decoder, policy = line
    psnr_db, octets = [], 0
    for tile in tiles:
        code = payload.encode_tile(tile)
        octets += octets_on_air(len(pack(code)), policy.packet_octets)
        error = decoder.decode_tile(code).astype(np.float64) - tile.dn
        psnr_db.append(10 * np.log10(10_000**2 / (error**2).mean()))
    raw_octets = sum(tile.dn.nbytes for tile in tiles)  # 16 bit a sample
    assert raw_octets / octets >= 20.0
    assert np.mean(psnr_db) >= 41.0


def test_every_layer_brings_the_picture_closer(tiles: list[Tile], line: tuple[Payload, Decoder, Policy]) -> None:
    payload, decoder, _ = line
    for tile in tiles[::7]:
        code = payload.encode_tile(tile)
        errors = []
        for layers in range(1, len(code.layers) + 1):
            cut = replace(code, layers=code.layers[:layers], declared=layers)
            errors.append(((decoder.decode_tile(cut).astype(np.float64) - tile.dn) ** 2).mean())
        assert errors == sorted(errors, reverse=True)
