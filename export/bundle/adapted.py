"""A pool and a sensor -> a bundle of that sensor, and how it does on the sites that were held out.

    out/bundle           for tiles of `tile_px`
    out/measured         the same for tiles as large as the pool's squares
    out/held_out.npz     the squares of the held-out sites
    out/report/rd.html   both beside the classical codecs: written by `python -m sim evaluate`
"""

import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from export.bundle.assemble import Origin, assemble
from export.lapped.adapt import adapt_tables, law_of, parts_of
from export.pools import SensorPool
from payload.bundle import Bundle
from payload.errors import InputError
from payload.sensor import Sensor, as_table

TILE_PX = 256
OPPONENTS = "klt-jpeg2000-joint,klt-jpeg2000,jpeg2000"
LONGEST_PAGE_S = 3600.0


def adapted(sensor: Sensor, pool: SensorPool, out: Path, name: str, settings: dict[str, Any]) -> Bundle:
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
    return _bundle(sensor, pool, out, (name, TILE_PX, out / "bundle"), used)


def _bundle(
    sensor: Sensor, pool: SensorPool, out: Path, what: tuple[str, int, Path], settings: dict[str, Any]
) -> Bundle:
    name, tile_px, folder = what
    recipe = {"name": name, "kind": "fsq", "bands": list(sensor.names), "tile_px": tile_px, "adapted": settings}
    recipe["held_out_sites"] = list(pool.held_out_sites)
    with tempfile.TemporaryDirectory(prefix=".adapted-", dir=out) as scratch:
        parts = parts_of(sensor, tile_px, out, settings, Path(scratch))
        calibration = {"activations": parts.calibration, "data_sha256": pool.digest}
        origin = Origin(recipe, pool.digest, calibration)
        more = {"sensor": as_table(sensor)}
        return assemble(folder, name, sensor.names, tile_px, parts.codec, parts.files, origin, more=more)


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
