"""The shipped reference system through the whole line: tile, packets, ground, with and without its finer layers."""

from dataclasses import replace

import numpy as np
import pytest

from payload.bundle import load_bundle, shipped_bundles
from payload.engine import open_engine
from payload.link import tile_code
from payload.link.space_packet import SequenceCounter, segment
from payload.pipeline import Payload
from payload.policy import Policy
from payload.tiles import Tile
from sim.ground.decoder import Decoder
from sim.ground.mosaic import reconstruct
from sim.ground.reception import by_id, receive
from sim.metrics.distortion import psnr_db

NAME = "corsa-fpn3-512"
pytestmark = pytest.mark.skipif(NAME not in shipped_bundles(), reason=f"bundle {NAME} is not shipped in this tree")


@pytest.fixture(scope="module")
def line():
    bundle, engine = load_bundle(NAME), open_engine()
    return bundle, Payload(bundle, Policy(), engine), Decoder(bundle, engine)


def landscape() -> Tile:
    """Fields of 24 px with their own reflectances, a bright road, a little texture."""
    rng = np.random.default_rng(4)
    fields = np.kron(rng.uniform(0.7, 1.5, (11, 11)), np.ones((24, 24)))[:256, :256]
    fields[:, 120:124] = 2.5
    bands = np.array([500, 750, 800, 2400])[:, None, None] * fields + rng.normal(0, 15, (4, 256, 256))
    return Tile(0, 0, bands.astype(np.uint16), np.ones((256, 256), bool))


def error_db(tile: Tile, dn: np.ndarray) -> float:
    return psnr_db(float(np.mean((tile.dn.astype(np.float64) - dn) ** 2)))


def test_tile_survives_packets_and_every_layer_makes_it_better(line):
    bundle, payload, decoder = line
    tile = landscape()
    code = payload.encode_tile(tile)
    packets = list(segment(tile_code.pack(code), SequenceCounter(1), 1024))
    (strip,) = reconstruct(receive(packets, by_id([bundle]), 1).scene(None), decoder)
    assert strip.known.all() and np.array_equal(strip.dn, decoder.decode_tile(code))
    qualities = [error_db(tile, decoder.decode_tile(replace(code, layers=code.layers[:n]))) for n in (1, 2, 3)]
    assert qualities[0] + 1 < qualities[1] and qualities[1] + 1 < qualities[2]
    assert qualities[2] > 32, "a trained system: random weights stay under 20 dB"


def test_rate_is_fixed_whatever_the_tile(line):
    _, payload, _ = line
    noise = np.random.default_rng(1).integers(0, 15_000, (4, 256, 256)).astype(np.uint16)
    codes = [payload.encode_tile(t) for t in (landscape(), replace(landscape(), dn=noise))]
    sizes = [[len(layer) for layer in code.layers] for code in codes]
    assert sizes[0] == sizes[1] == [1152, 4608, 18432]  # 9 bits x 32^2, 64^2, 128^2, in octets
