"""The bound on the error of every sample, over many tiles and many damaged streams.

    python tests/hostile/bounds.py [SAMPLES [DAMAGED [DATA]]]

Tiles of the generated scene, of noise of every strength, of steps and of extremes, with and without holes, at bounds
from 0 to 4095 DN go through payload and ground; every valid sample is held against the one that went in. Then streams
of some of them are damaged, behind the layers' CRCs' back as well. DATA: an .npz of tiles (x [N, B, 128 or more, ...])
that take turns with the generated ones. Exit 1 if a sample was further off than its bound, or a wrong tile was shown.
"""

import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from payload.bundle import load_bundle
from payload.codec.interface import Bounding, Quality
from payload.codec.registry import open_codec
from payload.engine import open_engine
from payload.errors import StreamError
from payload.link.tile_code import Bound, crc_of_samples
from payload.stopwatch import Stopwatch
from payload.tiles import Tile, split
from sim.scenes.demo import demo_scene

SIDE, BOUNDS = 256, (0, 0, 0, 1, 2, 5, 10, 10, 20, 50, 200, 4095)
DAMAGED_OF_A_TILE = 50


def made_up(rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Tiles without end [4, 256, 256]."""
    while True:
        yield from (tile.dn for tile in split(demo_scene(1024, 1024, int(rng.integers(1 << 30))), SIDE))
        for spread in (3, 300, 30_000):
            yield np.clip(rng.normal(rng.integers(65536), spread, (4, SIDE, SIDE)), 0, 65535).astype(np.uint16)
        yield rng.integers(0, 65536, (4, SIDE, SIDE)).astype(np.uint16)
        yield np.where(rng.random((4, SIDE, SIDE)) < 0.5, 0, 65535).astype(np.uint16)
        yield np.where(np.indices((SIDE, SIDE)).sum(axis=0) > rng.integers(2 * SIDE), 65535, 7).astype(np.uint16)[
            None
        ].repeat(4, 0)
        yield np.full((4, SIDE, SIDE), rng.integers(65536), np.uint16)


def stored(path: str) -> Iterator[np.ndarray]:
    """Tiles of a file [4, 256, 256], smaller ones repeated in mirror image."""
    with np.load(path) as file:
        tiles = file["x"][:, :4]
    while True:
        for dn in tiles:
            side = dn.shape[1]
            yield np.pad(dn[:, :SIDE, :SIDE], ((0, 0), *(((0, max(0, SIDE - side)),) * 2)), mode="symmetric")


def masks(rng: np.random.Generator) -> np.ndarray:
    """Mostly whole; a swath's edge, or holes."""
    kind = rng.integers(4)
    if kind < 2:
        return np.ones((SIDE, SIDE), bool)
    if kind == 2:
        return np.add.outer(np.arange(SIDE), np.arange(SIDE)) > rng.integers(2 * SIDE - 8)
    return rng.random((SIDE, SIDE)) < rng.random()


def refused(codec: Bounding, side: bytes, layers: tuple[bytes, ...], valid: np.ndarray, bound: Bound) -> str:
    """What became of a damaged tile: refused, equal, or wrong."""
    try:
        found = codec.reconstruct_bounded(side, layers, valid, bound)
    except StreamError:
        return "refused"
    return "equal" if crc_of_samples(found, valid) == bound.samples_crc else "wrong"


def damaged(octets: bytes, rng: np.random.Generator) -> bytes:
    hit = bytearray(octets)
    for at in rng.integers(0, max(1, len(hit)), rng.integers(1, 4)):
        if hit:
            hit[at] ^= int(rng.integers(1, 256))
    return bytes(hit[: rng.integers(len(hit) + 1)]) if rng.random() < 0.2 else bytes(hit)


def main(samples: int = 3_000_000, streams: int = 100, data: str | None = None) -> int:
    rng, bundle = np.random.default_rng(1), load_bundle("edge")
    codec = open_codec(bundle, open_engine("native"))
    sources = [made_up(rng)] + ([stored(data)] if data else [])
    told, tested, over, fates, turn = {}, 0, 0, Counter(), 0
    while tested < samples:
        dn, valid, bound_dn = next(sources[turn % len(sources)]), masks(rng), BOUNDS[turn % len(BOUNDS)]
        turn += 1
        if not valid.any():
            continue
        coded = codec.encode(Tile(0, 0, np.ascontiguousarray(dn), valid), Quality(max_error_dn=bound_dn), Stopwatch())
        assert coded.bound is not None
        found = codec.reconstruct_bounded(coded.side, coded.layers, valid, coded.bound)
        off = np.abs(found.astype(int) - dn)[:, valid]
        tested, over = tested + off.size, over + int((off > bound_dn).sum())
        told[bound_dn] = max(told.get(bound_dn, 0), int(off.max()))
        for _ in range(min(DAMAGED_OF_A_TILE, streams - sum(fates.values()))):
            at = int(rng.integers(len(coded.layers))) if rng.random() < 0.3 else -1
            layers = list(coded.layers)
            layers[at] = damaged(layers[at], rng)
            bound = coded.bound if rng.random() < 0.9 else replace(coded.bound, error_dn=int(rng.integers(65536)))
            fates[refused(codec, coded.side, tuple(layers), valid, bound)] += 1
    print(f"{tested} samples of {turn} tiles, {over} further off than their bound; largest by bound: {told}")
    print(f"{sum(fates.values())} damaged streams: {dict(fates)}")
    return int(over > 0 or fates["wrong"] > 0)


if __name__ == "__main__":
    given = sys.argv[1:]
    sys.exit(main(*map(int, given[:2]), *given[2:3]))
