"""The ground's cloud network into a bundle. Every other file stays as it is, octet for octet, and so does the id."""

import json
import shutil
from functools import partial
from pathlib import Path
from typing import Any

from export.bundle.assemble import with_ground_file
from payload.bundle import GROUND_CLOUDS_FILE, Bundle
from payload.clouds.network import places_in
from payload.errors import InputError

NETWORK, TABLE = "clouds.onnx", "clouds.json"


def add_ground_mask(bundle: Bundle, folder: Path, out: Path) -> Bundle:
    """A copy of the bundle with the network that `python -m export.clouds.ground_fit` wrote into `folder`; `out` may
    be the bundle's own folder. It must be signed anew. BundleError where its bands have not the roles."""
    places_in(bundle)
    if not all((folder / name).is_file() for name in (NETWORK, TABLE)):
        raise InputError(f"{folder}: no {NETWORK} with {TABLE}; run `python -m export.clouds.ground_fit` first")
    told = {"ground_clouds": ground_clouds_table(folder)}
    return with_ground_file(bundle, GROUND_CLOUDS_FILE, partial(shutil.copyfile, folder / NETWORK), told, out)


def ground_clouds_table(folder: Path) -> dict[str, Any]:
    """What the manifest says of the network of a folder, under "ground_clouds"."""
    table: dict[str, Any] = json.loads((folder / TABLE).read_text(encoding="utf-8"))
    return table
