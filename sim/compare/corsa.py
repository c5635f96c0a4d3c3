"""The field's reference system in its own convention and in ours: what `sim evaluate-corsa` prints.

CORSA's table gives SSIM and PSNR of standardised bands at peak 1, beside JPEG 2000 at CR 20. Its text does not say what
the bands are standardised with; here it is each tile's own mean and standard deviation per band. The compression ratio
there counts the indices alone: 64 / (log2 K (1/4 + 1/16 + 1/64)) of RGB-NIR at 16 bit and strides 2, 4, 8.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from payload.bundle import load_bundle
from payload.engine import open_engine
from payload.errors import InputError
from payload.link import tile_code
from payload.link.space_packet import octets_on_air
from payload.pipeline import Payload
from payload.policy import Policy
from payload.scene import Dn
from payload.tiles import Tile
from sim.compare.classical import Jpeg2000
from sim.compare.tiles import BenchTile, read_tiles
from sim.ground.decoder import Decoder
from sim.metrics.distortion import PEAK_10K, psnr_db
from sim.metrics.similarity import ssim
from sim.scenes.radiometry import AS_STORED, Reading

JPEG2000_CR = 20.0
FINEST_RMSE_DN, COARSEST_RMSE_DN = 1.0, 4096.0
Coder = Callable[[Dn], "Sent"]


@dataclass(frozen=True)
class Row:
    """Means over tiles. `cr_indices` counts what the field counts; `cr16` every octet on the link. None: not known."""

    system: str
    source: str
    cr_indices: float | None
    cr16: float | None
    psnr_standardised_db: float
    ssim_standardised: float
    psnr_10k_db: float | None = None
    ssim_10k: float | None = None


@dataclass(frozen=True, eq=False)
class Sent:
    """One tile, coded and decoded: octets as the field counts them, octets in all, the picture uint16 [B, h, w]."""

    index_octets: int
    octets: int
    dn: Dn


#: VITO's figures as design notes quote them; their tiles are not ours.
PUBLISHED = (
    Row("CORSA VQVAE-FPN-3, K = 256", "published", 24.4, None, 13.7, 0.956),
    Row("CORSA VQVAE-FPN-3, K = 512", "published", 21.7, None, 13.9, 0.958),
    Row("CORSA VQVAE-FPN-3, K = 1024", "published", 19.5, None, 14.5, 0.962),
    Row("JPEG 2000 at CR 20", "published", 20.0, None, 16.0, 0.956),
)


def compare(
    paths: Sequence[Path],
    bundles: Sequence[str],
    limit: int | None = None,
    engine: str = "openvino",
    advance: Callable[[str, int], None] = lambda *_: None,
    reading: Reading = AS_STORED,
) -> list[Row]:
    """Rows measured on the tiles of `paths`: each bundle, then JPEG 2000 at CR 20; the published ones follow."""
    tiles = read_tiles(paths, limit=limit, reading=reading)
    coders: dict[str, Coder] = {f"bundle {load_bundle(name).name}": _bundle_coder(name, engine) for name in bundles}
    coders[f"JPEG 2000 at CR {JPEG2000_CR:g}"] = at_cr20
    rows = []
    for name, coder in coders.items():
        rows.append(_measure(name, coder, tiles))
        advance(name, len(coders))
    return [*rows, *PUBLISHED]


def standardised(original: Dn, reconstruction: Dn) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Both pictures in standard deviations of the original's bands about their means. A flat band divides by 1 DN."""
    mean = original.mean(axis=(1, 2), keepdims=True)
    deviation = np.maximum(original.std(axis=(1, 2), keepdims=True), 1.0)
    return (original - mean) / deviation, (reconstruction - mean) / deviation


def at_cr20(dn: Dn) -> Sent:
    """Per-band JPEG 2000 at the finest common quality within CR 20, found by bisection."""
    codec, budget = Jpeg2000(), int(2 * dn.size / JPEG2000_CR)
    fine, coarse = np.log(FINEST_RMSE_DN), np.log(COARSEST_RMSE_DN)
    octets = codec.encode(dn, COARSEST_RMSE_DN)
    if len(octets) > budget:
        raise InputError(f"JPEG 2000 needs {len(octets)} octets at its coarsest, CR 20 is {budget}; give larger tiles")
    for _ in range(14):
        middle = (fine + coarse) / 2
        trial = codec.encode(dn, float(np.exp(middle)))
        if len(trial) <= budget:
            coarse, octets = middle, trial
        else:
            fine = middle
    return Sent(len(octets), len(octets), codec.decode(octets))


def _bundle_coder(name: str, engine: str) -> Coder:
    bundle, runtime = load_bundle(name), open_engine(engine, 1)
    payload, decoder = Payload(bundle, Policy(), runtime), Decoder(bundle, runtime)
    payload.clouds = None  # coding alone is compared

    def code(dn: Dn) -> Sent:
        found = payload.encode_tile(Tile(0, 0, dn, np.ones(dn.shape[1:], bool)))
        whole = octets_on_air(len(tile_code.pack(found)), payload.policy.packet_octets)
        return Sent(sum(len(layer) for layer in found.layers), whole, decoder.decode_tile(found))

    return code


def _measure(name: str, coder: Coder, tiles: Sequence[BenchTile]) -> Row:
    figures = np.array([_figures(tile.dn, coder(tile.dn)) for tile in tiles]).mean(axis=0)
    return Row(name, f"measured, {len(tiles)} tiles", *(float(value) for value in figures))


def _figures(dn: Dn, sent: Sent) -> tuple[float, ...]:
    """In the order of Row. Lossless tiles have no PSNR; at these rates there are none."""
    everywhere = np.ones(dn.shape[1:], bool)
    a, b = standardised(dn, sent.dn)
    error = float(np.mean((dn.astype(np.float64) - sent.dn) ** 2))
    return (
        2 * dn.size / sent.index_octets,
        2 * dn.size / sent.octets,
        psnr_db(float(np.mean((a - b) ** 2)), 1.0),
        ssim(a, b, everywhere, 1.0),
        psnr_db(error),
        ssim(dn, sent.dn, everywhere, PEAK_10K),
    )


def as_text(rows: Sequence[Row]) -> str:
    head = ("system", "source", "CR indices", "CR all", "PSNR std", "SSIM std", "PSNR 10k", "SSIM 10k")
    lines = [f"{head[0]:28} {head[1]:19}" + "".join(f"{title:>11}" for title in head[2:])]
    for row in rows:
        values = (row.cr_indices, row.cr16, row.psnr_standardised_db, row.ssim_standardised)
        cells = zip((*values, row.psnr_10k_db, row.ssim_10k), (2, 2, 2, 3, 2, 3), strict=True)
        lines.append(
            f"{row.system:28} {row.source:19}" + "".join(f"{'-' if v is None else f'{v:.{d}f}':>11}" for v, d in cells)
        )
    notes = "std: each tile's bands standardised by their own mean and deviation, peak and range 1. 10k: peak and range"
    return "\n".join([*lines, notes + " 10 000 DN.", "Published rows were measured elsewhere on other tiles."])


def as_json(rows: Sequence[Row]) -> list[dict[str, Any]]:
    return [asdict(row) for row in rows]
