"""A newly trained decoder network into a copy of a bundle: what flies stays, and so does the id."""

import hashlib
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

from export.builds import FLOAT
from export.bundle.assemble import describe, installed_versions, move_into_place
from export.data import pool_file
from export.recipe import load_recipe
from payload.bundle import Bundle, load_bundle
from payload.codec.interface import DECODER_FILE
from payload.errors import InputError
from payload.signature import FILE


def with_decoder(bundle: Bundle, recipe_name: str, checkpoints: Path, pool: Path | None, out: Path) -> Bundle:
    """The bundle, unsigned, with the decoder of `checkpoints`, trained by the recipe on `pool`. InputError where the
    bundle has none to replace, or training wrote none."""
    from export.lapped.files import export_decoder
    from export.lapped.model import load_trained

    if DECODER_FILE not in bundle.manifest["files"]:
        raise InputError(f"bundle {bundle.name} has no {DECODER_FILE} to replace; its tiles are decoded without")
    recipe = load_recipe(recipe_name)
    model, trained_on = load_trained(recipe, checkpoints), pool_file(pool)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as scratch:
        folder = Path(scratch) / out.name
        shutil.copytree(bundle.directory, folder, ignore=shutil.ignore_patterns(FILE))
        export_decoder(model, len(bundle.bands), bundle.tile_px, folder / DECODER_FILE)
        made = {
            "recipe": recipe["decoder"], "versions": installed_versions(), "data_sha256": _digest(trained_on),
            "checkpoint_sha256": _digest(checkpoints / "decoder.safetensors"),
        }  # fmt: skip
        text = json.dumps(_manifest(bundle, folder, made), indent=1, sort_keys=True) + "\n"
        (folder / "manifest.json").write_text(text, encoding="utf-8")
        load_bundle(folder)
        move_into_place(folder, out)
    return load_bundle(out)


def _manifest(bundle: Bundle, folder: Path, made: dict[str, Any]) -> dict[str, Any]:
    old, path = bundle.manifest, folder / DECODER_FILE
    first = {DECODER_FILE: old["files"][DECODER_FILE]} | old.get("first_ground", {})
    recipe = old["built"]["recipe"] | {"decoder": made.pop("recipe")}
    return old | {
        "files": old["files"] | {DECODER_FILE: _digest(path)},
        "first_ground": first,
        "octets": old["octets"] | {DECODER_FILE: path.stat().st_size},
        "networks": old["networks"] | {DECODER_FILE: describe(path, bundle.tile_px, FLOAT)},
        "built": old["built"] | {"recipe": recipe, "decoder": made},
    }


def _digest(path: Path) -> str:
    if not path.is_file():
        raise InputError(f"{path}: no such file, its digest belongs into the manifest; name what training used")
    return hashlib.sha256(path.read_bytes()).hexdigest()
