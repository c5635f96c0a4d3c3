"""A newly trained decoder network into a copy of a bundle: what flies stays, and so does the id."""

import hashlib
from functools import partial
from pathlib import Path

from export.bundle.assemble import installed_versions, with_ground_file
from export.data import pool_file
from export.recipe import load_recipe
from payload.bundle import Bundle
from payload.codec.interface import DECODER_FILE
from payload.errors import InputError


def with_decoder(bundle: Bundle, recipe_name: str, checkpoints: Path, pool: Path | None, out: Path) -> Bundle:
    """The bundle, unsigned, with the decoder of `checkpoints`, trained by the recipe on `pool`. InputError where the
    bundle has none to replace, or training wrote none."""
    from export.lapped.files import export_decoder
    from export.lapped.model import load_trained

    old = bundle.manifest
    if DECODER_FILE not in old["files"]:
        raise InputError(f"bundle {bundle.name} has no {DECODER_FILE} to replace; its tiles are decoded without")
    recipe = load_recipe(recipe_name)
    model, trained_on = load_trained(recipe, checkpoints), pool_file(pool)
    made = {
        "versions": installed_versions(), "data_sha256": _digest(trained_on),
        "checkpoint_sha256": _digest(checkpoints / "decoder.safetensors"),
    }  # fmt: skip
    more = {
        "first_ground": {DECODER_FILE: old["files"][DECODER_FILE]} | old.get("first_ground", {}),
        "built": old["built"] | {"recipe": old["built"]["recipe"] | {"decoder": recipe["decoder"]}, "decoder": made},
    }
    write = partial(export_decoder, model, len(bundle.bands), bundle.tile_px)
    return with_ground_file(bundle, DECODER_FILE, write, more, out)


def _digest(path: Path) -> str:
    if not path.is_file():
        raise InputError(f"{path}: no such file, its digest belongs into the manifest; name what training used")
    return hashlib.sha256(path.read_bytes()).hexdigest()
