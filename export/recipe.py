"""Recipes: what a network is trained as and built from, one TOML file each in export/recipes/."""

import tomllib
from pathlib import Path
from typing import Any

from payload.errors import InputError

RECIPES = Path(__file__).parent / "recipes"


def load_recipe(name: str) -> dict[str, Any]:
    """A recipe by the name of its file, or file-variant where the file lists [variants.VARIANT] of a common text."""
    stem, _, variant = name.rpartition("-")
    for file, chosen in ((name, None), (stem, variant)):
        path = RECIPES / f"{file}.toml"
        if file and path.is_file():
            recipe = tomllib.loads(path.read_text(encoding="utf-8"))
            variants = recipe.pop("variants", {})
            if chosen is None and not variants:
                return recipe
            if chosen in variants:
                return recipe | variants[chosen] | {"name": name}
    raise InputError(f"recipe {name!r} is unknown; choose one of {', '.join(recipe_names())}")


def recipe_names() -> list[str]:
    names = []
    for path in sorted(RECIPES.glob("*.toml")):
        variants = tomllib.loads(path.read_text(encoding="utf-8")).get("variants")
        names += [f"{path.stem}-{variant}" for variant in variants] if variants else [path.stem]
    return names
