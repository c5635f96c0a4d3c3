"""The archive's four verbs: put, get, list, verify.

put: scene -> tile codes -> each decoded and measured -> one .nadir file -> read back. What put calls proven may go.
"""

import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from payload.bundle import load_bundle
from payload.errors import InputError
from payload.link.tile_code import Kind
from payload.scene import SceneInfo
from sim.archive import layout
from sim.archive.layout import Head
from sim.archive.reader import SceneFile
from sim.archive.store import Store, name_for
from sim.archive.writing import Order, write_file
from sim.ground.place import wkt_of
from sim.metrics.distortion import psnr_db
from sim.onboard.sending import header_of
from sim.products.rasters import PictureWriter
from sim.progress import Progress
from sim.scenes.open_scene import open_reading


@dataclass(frozen=True)
class Entry:
    """One scene of a store, as its file tells. `missing`: why the original must not go; empty where it may."""

    name: str
    octets: int
    cr16: float
    worst_psnr_db: float | None
    mean_psnr_db: float | None
    sensed_at: str | None
    height_px: int
    width_px: int
    bands: tuple[str, ...]
    bundle: str
    asked: dict[str, float]
    proved_by: str
    tiles: dict[str, int]
    missing: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def put(where: str, store: Store, order: Order, progress: Progress) -> Entry:
    """One scene into a store. InputError where it cannot be read, or lies there already."""
    bundle = load_bundle(order.bundle)
    with open_reading(order.reading, where, bundle.sensor, order.seed) as scene:
        header = header_of(scene, bundle)
        name = name_for(scene.info.name, header.scene_id)
        if store.has(name) and not order.overwrite:
            raise InputError(f"{store.address(name)} is already there; allow --overwrite, or leave the scene out")
        with tempfile.TemporaryDirectory(prefix="nadir-archive-") as folder:
            made = Path(folder) / "scene"
            write_file(made, scene, header, bundle, order, progress)
            store.take(made, name)
    return describe(SceneFile(store.address(name), options=store.options), name)


@dataclass(frozen=True)
class Window:
    """Part of a scene: its first row and column, its height and width, in pixels."""

    top: int
    left: int
    height: int
    width: int


def get(scene: SceneFile, out: Path, window: Window | None, progress: Progress) -> Path:
    """A scene of a store, or a window of it, as a Cloud Optimized GeoTIFF with its place and its mask."""
    part = window or Window(0, 0, *scene.shape[1:])
    info, side = info_of(scene, part), scene.tile_px
    stops = [part.top, *range((part.top // side + 1) * side, part.top + part.height, side), part.top + part.height]
    with PictureWriter(out, info) as writer:
        for first, end in pairwise(stops):
            writer.write_strip(first - part.top, *scene.read(first, part.left, end - first, part.width))
            progress("archive", len(stops) - 1)
    return out


def info_of(scene: SceneFile, part: Window) -> SceneInfo:
    """The scene's description, for a window of it."""
    height, width = scene.shape[1:]
    fits = 0 <= part.top < part.top + part.height <= height and 0 <= part.left < part.left + part.width <= width
    if not fits:
        raise InputError(
            f"window of rows {part.top} to {part.top + part.height}, columns {part.left} to {part.left + part.width}, "
            f"wanted one that is not empty inside {height} x {width} px"
        )
    info, transform = scene.info, scene.info.transform
    if transform is not None:
        a, b, c, d, e, f = transform
        transform = (a, b, c + a * part.left + b * part.top, d, e, f + d * part.left + e * part.top)
    moved = tuple((row - part.top, col - part.left, x, y, z) for row, col, x, y, z in info.gcps)
    whole = (part.height, part.width) == (height, width)
    return replace(
        info, height_px=part.height, width_px=part.width, transform=transform, crs_wkt=wkt_of(info.crs_wkt),
        gcps=moved, rpcs=info.rpcs if whole else (),
    )  # fmt: skip


def entries(store: Store) -> Iterator[Entry]:
    """The scenes of a store, by name; only their heads are read."""
    for name in store.names():
        yield describe(SceneFile(store.address(name), options=store.options), name)


def describe(scene: SceneFile, name: str) -> Entry:
    """What a scene's file says of it."""
    head, info = scene.head, scene.info
    octets = head.octets + head.body_octets
    kinds = Counter(Kind(int(kind)).name.lower() for kind in head.index.kind)
    worst, mean = _psnr(scene)
    return Entry(
        name, octets, 2 * scene.samples_per_px * info.height_px * info.width_px / octets, worst, mean, info.sensed_at,
        info.height_px, info.width_px, info.bands, f"{head.header.bundle_id:08x}", dict(head.text.get("asked", {})),
        str(head.text.get("decoder", "")), dict(sorted(kinds.items())), tuple(_missing(head, kinds, worst)),
    )  # fmt: skip


def _psnr(scene: SceneFile) -> tuple[float | None, float | None]:
    """Worst tile, and all tiles that hold pixels pooled, each counted alike; None where there is none."""
    known = scene.psnr_db[~np.isnan(scene.psnr_db)]
    if not known.size:
        return None, None
    return float(known.min()), psnr_db(float(np.mean(1e8 * 10 ** (-known / 10))))


def _missing(head: Head, kinds: Counter[str], worst_db: float | None) -> Iterator[str]:
    """Why the original must not go."""
    rows, cols = head.header.grid
    for kind in ("withheld", "omitted"):
        if kinds[kind]:
            yield f"{kinds[kind]} of {rows * cols} tiles are {kind}: ask for a smaller --cr"
    asked = head.text.get("asked", {}).get("psnr_db")
    if asked is not None and worst_db is not None:
        short = layout.psnr_db(head.index.psnr).max(axis=1)[head.index.counts > 0] < float(asked) - 0.01
        if short.any():
            yield f"{int(short.sum())} tiles fall short of {asked:g} dB, the worst has {worst_db:.2f}: ask for less"
