"""A pool and a sensor -> a bundle of that sensor, and how it does on the sites that were held out.

    out/bundle           for tiles of `tile_px`
    out/measured         the same for tiles as large as the pool's squares
    out/held_out.npz     the squares of the held-out sites
    out/report/rd.html   both beside the classical codecs: written by `python -m sim evaluate`

Or a sensor and a bundle of another number of bands, whose tables are taken as they are: out/bundle alone.
"""

import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from export.bundle.assemble import Origin, assemble
from export.lapped.adapt import adapt_tables, law_of, parts_of
from export.lapped.files import export_encoder
from export.lapped.transform import to_blocks
from export.pools import SensorPool
from payload.bundle import Bundle
from payload.codec.interface import ENCODER_FILE, TABLES_FILE
from payload.codec.lapped.codec import REST_TABLES_FILE
from payload.codec.lapped.many.sets import set_bands, sets_in
from payload.codec.lapped.tables import load_kernels
from payload.codec.rotation import FEW_BANDS
from payload.errors import InputError
from payload.sensor import Sensor, as_table

#: Side of a tile in px. Of many bands a small one holds as many samples as a large one of a few: a strip of a scene
#: stays small, and the rotation follows the ground.
TILE_PX, MANY_BANDS_TILE_PX = 256, 64
#: What a bundle that takes another's tables says of them.
KEPT = ("adapted", "held_out_sites", "fitted_on")
OPPONENTS = "klt-jpeg2000-joint,klt-jpeg2000,jpeg2000"
LONGEST_PAGE_S = 3600.0


def tile_px_of(sensor: Sensor) -> int:
    return TILE_PX if len(sensor.bands) <= FEW_BANDS else MANY_BANDS_TILE_PX


def adapted(
    sensor: Sensor, pool: SensorPool, out: Path, name: str, settings: dict[str, Any], tile_px: int | None = None
) -> Bundle:
    """The bundle `name` of a sensor in out/bundle, out/measured and out/held_out.npz."""
    out.mkdir(parents=True, exist_ok=True)
    used = adapt_tables(pool, law_of(sensor), out, settings)
    held = pool.held_out
    np.savez_compressed(
        out / "held_out.npz", x=pool.dn[held], bands=np.array(sensor.names),
        names=np.array([f"{pool.site[k]}_{k}" for k in held]),
    )  # fmt: skip
    side = pool.dn.shape[2]
    _bundle(sensor, pool, out, (f"{name}-{side}px", side, out / "measured"), used)
    return _bundle(sensor, pool, out, (name, tile_px or tile_px_of(sensor), out / "bundle"), used)


def _bundle(
    sensor: Sensor, pool: SensorPool, out: Path, what: tuple[str, int, Path], settings: dict[str, Any]
) -> Bundle:
    name, tile_px, folder = what
    recipe = {"name": name, "kind": "fsq", "bands": list(sensor.names), "tile_px": tile_px, "adapted": settings}
    recipe["held_out_sites"] = list(pool.held_out_sites)
    recipe["fitted_on"] = dict(sorted(Counter(pool.site[pool.training].tolist()).items()))  # squares of each site
    with tempfile.TemporaryDirectory(prefix=".adapted-", dir=out) as scratch:
        parts = parts_of(sensor, tile_px, out, settings, Path(scratch))
        calibration = {"activations": parts.calibration, "data_sha256": pool.digest}
        origin = Origin(recipe, pool.digest, calibration)
        more = {"sensor": as_table(sensor)}
        return assemble(folder, name, sensor.names, tile_px, parts.codec, parts.files, origin, more=more)


def with_tables_of(source: Bundle, sensor: Sensor, out: Path, name: str, tile_px: int | None = None) -> Bundle:
    """The bundle `name` of a sensor in `out`, of the tables of a bundle for another number of bands: of many bands a
    table is of a rotated band's rank, not of the sensor's bands. InputError where they do not fit."""
    bands, each, tile_px = len(sensor.bands), sets_in(source)[1], tile_px or tile_px_of(sensor)
    both_many = min(bands, len(source.bands)) > FEW_BANDS and set_bands(bands) <= each
    fits = bands == len(source.bands) or both_many
    if source.codec.get("kind") != "fsq" or not fits:
        raise InputError(
            f"bundle {source.name} has tables for {len(source.bands)} bands, sensor {sensor.name} has {bands}; wanted "
            f"as many, or more than {FEW_BANDS} of both; give --tiles of this sensor"
        )
    with tempfile.TemporaryDirectory(prefix=".adapted-") as scratch:
        encoder = Path(scratch) / "encoder.onnx"
        export_encoder(_transform_of(source), each, tile_px, encoder)
        tables = [file for file in (TABLES_FILE, REST_TABLES_FILE) if file in source.manifest["files"]]
        macs = source.codec["entropy_macs_per_px"] * -(-bands // each) / sets_in(source)[0]
        codec = {**source.codec, **law_of(sensor), "entropy_macs_per_px": macs}
        codec |= {"set_bands": each} if bands > FEW_BANDS else {}
        built = source.manifest.get("built", {})
        recipe = {"name": name, "kind": "fsq", "bands": list(sensor.names), "tile_px": tile_px}
        recipe["tables_of"] = {"bundle": f"{source.name} {source.bundle_id:08x}", "bands": len(source.bands)}
        recipe |= {key: built["recipe"][key] for key in KEPT if key in built.get("recipe", {})}
        origin = Origin(recipe, built.get("data_sha256") or "unknown", built.get("calibration", {}))
        files: dict[str, Path | bytes] = {ENCODER_FILE: encoder}
        files.update({file: source.file(file) for file in tables})
        more = {"sensor": as_table(sensor)}
        return assemble(out, name, sensor.names, tile_px, codec, files, origin, more=more)


def _transform_of(bundle: Bundle) -> dict[str, Tensor]:
    """The analysis kernels that a bundle's encoder holds, from its tables."""
    kernels = load_kernels(bundle.file(TABLES_FILE))
    if kernels is None:
        raise InputError(f"bundle {bundle.name}: no kernels in {TABLES_FILE}; give one that `adapt` or `train` made")
    return {
        "integers": torch.from_numpy(to_blocks(kernels.values)), "exponents": torch.from_numpy(kernels.exponents),
    }  # fmt: skip


def compare(out: Path, against: str = OPPONENTS, limit: int | None = None) -> Path:
    """The page of the bundle beside the classical codecs on the held-out sites. InputError where it did not come."""
    page = out / "report" / "rd.html"
    command = [
        sys.executable, "-m", "sim", "evaluate", "--bundle", str(out / "measured"), "--tiles",
        str(out / "held_out.npz"), "--out", str(page.parent), "--against", against, "--decoder", "fast",
    ]  # fmt: skip
    command += ["--limit", str(limit)] if limit else []
    _run(command)
    return page


def _run(command: Sequence[str]) -> None:
    done = subprocess.run(command, timeout=LONGEST_PAGE_S, check=False)
    if done.returncode:
        raise InputError(f"sim evaluate ended with {done.returncode}; run it by itself: {' '.join(command)}")
