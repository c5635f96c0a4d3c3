"""A scene -> its archive file: tile codes as they are made and proved, and then the head that knows them all."""

import hashlib
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from payload.bundle import DEFAULT, Bundle
from payload.engine import open_engine
from payload.errors import InputError
from payload.link import tile_code
from payload.link.scene_header import SceneHeader
from payload.link.tile_code import TileCode
from payload.pipeline import Payload
from payload.scene import Scene
from payload.tiles import grid
from payload.version import described
from sim.archive import layout
from sim.archive.coding import POLICY, ProvenTile, Quality, code_scene
from sim.archive.layout import Head, Index
from sim.archive.proof import Proof
from sim.ground.decoder import FAST, Decoder
from sim.progress import Progress
from sim.report.tables import attribution_of
from sim.scenes.radiometry import AS_STORED, Reading


@dataclass(frozen=True)
class Order:
    """How scenes are archived. `decoder` is the one that proves them."""

    quality: Quality
    bundle: str = DEFAULT
    engine: str = "openvino"
    decoder: str = FAST
    reading: Reading = AS_STORED
    seed: int = 0
    overwrite: bool = False


@dataclass(frozen=True)
class _Row:
    """A tile's row of the index, its offset left out."""

    kind: int
    cloud: int
    head: int
    layers: tuple[int, ...]
    psnr_db: tuple[float, ...]


def write_file(
    path: Path, scene: Scene, header: SceneHeader, bundle: Bundle, order: Order, progress: Progress
) -> None:
    """The archive file of a scene at `path`. In memory are a strip and, where a ratio is asked for, the tile codes."""
    engine = open_engine(order.engine)
    payload = Payload(bundle, replace(POLICY, profile=order.quality.profile), engine)
    payload.clouds = None
    proof = Proof(Decoder(bundle, engine, order.decoder))
    layers = payload.codec.layers + (order.quality.max_error_dn is not None)
    rows, cols = grid(scene.info, bundle.tile_px)
    nothing = [_Row(0, 0, 0, (), ())] * (rows * cols)
    text = _text(scene, bundle, order, proof.samples_per_px)
    head = Head(header, text, _index(nothing, layers), 0, bytes(layout.DIGEST_OCTETS))
    body, digest, found = path.with_name("body"), hashlib.sha256(), []
    with body.open("wb") as file:
        for tile in code_scene(scene, header, payload, proof, order.quality, head.octets):
            octets = tile_code.pack(tile.code)
            file.write(octets)
            digest.update(octets)
            found.append(_row(tile))
            if len(found) % cols == 0:
                progress("archive", rows)
    whole = replace(head, index=_index(found, layers), body_octets=body.stat().st_size, body_sha256=digest.digest())
    with path.open("wb") as file, body.open("rb") as codes:
        file.write(layout.pack(whole))
        shutil.copyfileobj(codes, file)


def _row(tile: ProvenTile) -> _Row:
    code: TileCode = tile.code
    lengths = tuple(map(len, code.layers))
    if 0 in lengths:
        raise InputError(
            f"tile ({code.row}, {code.col}) has an empty layer, which an archive file cannot tell from none; "
            "archive the scene with another bundle"
        )
    return _Row(int(code.kind), code.cloud_percent, code.head_octets(len(lengths)), lengths, tile.psnr_db)


def _index(rows: Sequence[_Row], layers: int) -> Index:
    count = len(rows)
    layer, psnr = np.zeros((count, layers), np.uint32), np.zeros((count, layers), np.uint16)
    for at, row in enumerate(rows):
        layer[at, : len(row.layers)] = row.layers
        psnr[at] = layout.kept_psnr(row.psnr_db, layers)
    head = np.array([row.head for row in rows], np.uint32)
    ends = np.cumsum(head.astype(np.uint64) + layer.sum(axis=1).astype(np.uint64))
    offset = np.concatenate([np.zeros(1, np.uint64), ends[:-1]])
    kind, cloud = (np.array([getattr(row, name) for row in rows], np.uint8) for name in ("kind", "cloud"))
    return Index(offset, kind, cloud, head, layer, psnr)


def _text(scene: Scene, bundle: Bundle, order: Order, samples_per_px: float) -> dict[str, Any]:
    """What the file says besides: all that a reader in twenty years may ask for."""
    quality = order.quality
    asked = {"cr": quality.cr, "psnr_db": quality.psnr_db, "max_error_dn": quality.max_error_dn}
    return {
        "asked": {name: value for name, value in asked.items() if value is not None},
        "attribution": attribution_of(scene.info),
        "bundle": bundle.name,
        "decoder": order.decoder,
        "notes": list(scene.info.notes),
        "software": described(),
        **({} if samples_per_px == len(bundle.bands) else {"samples_per_px": samples_per_px}),
    }
