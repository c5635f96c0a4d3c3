"""The ground's cloud network into a bundle. Every other file stays as it is, octet for octet, and so does the id."""

import hashlib
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

from export.builds import FLOAT
from export.bundle.assemble import describe, move_into_place
from payload.bundle import GROUND_CLOUDS_FILE, Bundle, load_bundle
from payload.clouds.network import places_in
from payload.errors import InputError
from payload.signature import FILE as SIGNATURE_FILE

NETWORK, TABLE = "clouds.onnx", "clouds.json"


def add_ground_mask(bundle: Bundle, folder: Path, out: Path) -> Bundle:
    """A copy of the bundle with the network that `python -m export.clouds.ground_train` wrote into `folder`; `out` may
    be the bundle's own folder. It must be signed anew. BundleError where its bands have not the roles."""
    places_in(bundle)
    if not all((folder / name).is_file() for name in (NETWORK, TABLE)):
        raise InputError(f"{folder}: no {NETWORK} with {TABLE}; run `python -m export.clouds.ground_train` first")
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as scratch:
        copy = Path(scratch) / out.name
        shutil.copytree(bundle.directory, copy, ignore=shutil.ignore_patterns(SIGNATURE_FILE))
        path = copy / GROUND_CLOUDS_FILE
        path.parent.mkdir(exist_ok=True)
        shutil.copyfile(folder / NETWORK, path)
        text = json.dumps(_manifest(bundle, path, folder), indent=1, sort_keys=True) + "\n"
        (copy / "manifest.json").write_text(text, encoding="utf-8")
        load_bundle(copy)
        move_into_place(copy, out)
    return load_bundle(out)


def ground_clouds_table(folder: Path) -> dict[str, Any]:
    """What the manifest says of the network of a folder, under "ground_clouds"."""
    table: dict[str, Any] = json.loads((folder / TABLE).read_text(encoding="utf-8"))
    return table


def _manifest(bundle: Bundle, path: Path, folder: Path) -> dict[str, Any]:
    found = dict(bundle.manifest) | {"ground_clouds": ground_clouds_table(folder)}
    for key, value in (
        ("files", hashlib.sha256(path.read_bytes()).hexdigest()), ("octets", path.stat().st_size),
        ("networks", describe(path, bundle.tile_px, FLOAT)),
    ):  # fmt: skip
        found[key] = {**found.get(key, {}), GROUND_CLOUDS_FILE: value}
    return found
