"""`sim bench --decoders`: how fast the ground decodes on one core, beside OpenJPEG at about the same octets.

Tile code to DN: octets read, indices, transform or network, pixels. A pixel counts once, whatever bands it has. The
best of some rounds over the same tiles, in processor time, all in one run; the ratio to OpenJPEG is what travels.
"""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from payload.bundle import Bundle, load_bundle
from payload.engine import open_engine
from payload.errors import InputError
from payload.link import tile_code
from payload.link.tile_code import TileCode
from payload.pipeline import Payload
from payload.scene import Dn
from payload.tiles import Tile
from sim.compare.classical import open_codecs
from sim.compare.speed import EVERYTHING, Question, setting_near, step_for, tiles_of
from sim.ground.decoder import DECODERS, Decoder
from sim.metrics.distortion import psnr_db
from sim.onboard import ran
from sim.progress import Progress

RATIOS = (20.0, 50.0, 100.0)
ROUNDS = 5
PEER = "OpenJPEG, near the same octets"


@dataclass(frozen=True)
class DecoderSpeed:
    """One decoder over all tiles at one rate. `ratio` to OpenJPEG; PSNR (peak 10 000) is the mean over tiles."""

    decoder: str
    cr16: float
    mpx_s: float
    ratio: float
    psnr_10k_db: float


def decoder_speeds(question: Question, advance: Progress) -> list[DecoderSpeed]:
    """Every decoder that the bundle has, at each of RATIOS."""
    bundle = load_bundle(question.bundle)
    tiles = tiles_of(question, bundle.tile_px)
    payload = Payload(bundle, EVERYTHING, open_engine(question.engines[0], threads=1))
    found = []
    for ratio in RATIOS:
        payload.policy = replace(EVERYTHING, step_dn=step_for(payload, tiles, ratio))
        codes = [payload.encode_tile(tile) for tile in tiles]
        found += list(_at_one_rate(bundle, tiles, codes))
        advance(f"CR {ratio:g}", len(RATIOS))
    return found


def _at_one_rate(bundle: Bundle, tiles: Sequence[Tile], codes: Sequence[TileCode]) -> Iterator[DecoderSpeed]:
    octets = sum(len(tile_code.pack(code)) for code in codes)
    cr16 = sum(2 * tile.dn.size for tile in tiles) / octets
    openjpeg = open_codecs("jpeg2000-joint")[0]
    setting = setting_near(openjpeg, tiles, octets)
    streams = [openjpeg.encode(tile.dn, setting) for tile in tiles]
    peer_s, psnr = _timed(openjpeg.decode, streams, tiles)
    pixels = sum(tile.valid.size for tile in tiles) / 1e6
    yield DecoderSpeed(PEER, cr16, pixels / peer_s, 1.0, psnr)
    for decoder in _decoders(bundle):
        seconds, psnr = _timed(decoder.decode_tile, codes, tiles)
        yield DecoderSpeed(decoder.kind, cr16, pixels / seconds, peer_s / seconds, psnr)


def _decoders(bundle: Bundle) -> Iterator[Decoder]:
    for kind in DECODERS:
        try:
            yield Decoder(bundle, open_engine("openvino", threads=1), kind)
        except InputError:
            continue  # the bundle has none of that name


def _timed(decode: Callable[[Any], Dn], streams: Sequence[Any], tiles: Sequence[Tile]) -> tuple[float, float]:
    """Seconds of the best round of each tile, added up, after one round that pays for memory; and the mean PSNR."""
    errors = [np.mean((decode(s).astype(np.float64) - t.dn) ** 2) for s, t in zip(streams, tiles, strict=True)]
    best = np.full(len(streams), np.inf)
    for _ in range(ROUNDS):
        for k, stream in enumerate(streams):
            start_s = time.process_time()
            decode(stream)
            best[k] = min(best[k], time.process_time() - start_s)
    return float(best.sum()), float(np.mean([psnr_db(float(error)) for error in errors]))


def as_text(found: Sequence[DecoderSpeed]) -> str:
    """The table for people."""
    host = f"{os.cpu_count()} cores, one thread, processor time, kernel: {ran.kernel()}, {ran.instruction_set()}"
    lines = [host, "", f"{'tile code to DN':34}{'CR':>8}{'Mpx/s':>9}{'x OpenJPEG':>12}{'PSNR, dB':>10}"]
    for row in found:
        lines.append(f"{row.decoder:34}{row.cr16:8.1f}{row.mpx_s:9.2f}{row.ratio:12.2f}{row.psnr_10k_db:10.2f}")
    return "\n".join(lines)


def as_dicts(found: Sequence[DecoderSpeed]) -> list[dict[str, Any]]:
    return [asdict(row) for row in found]
