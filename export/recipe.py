"""Recipes: what a network is trained as and built from, one TOML file each in export/recipes/."""

import tomllib
from pathlib import Path
from typing import Any

from payload.errors import InputError

RECIPES = Path(__file__).parent / "recipes"


def load_recipe(name: str) -> dict[str, Any]:
    """A recipe by its path, or by the name of its file, or file-variant where the file lists [variants.VARIANT] of a
    common text. InputError where there is none, or it is no TOML."""
    if name.endswith(".toml"):
        return _of_path(Path(name))
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


def _of_path(path: Path) -> dict[str, Any]:
    try:
        recipe = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: not readable as TOML ({error}); wanted a recipe, as in {RECIPES}") from None
    missing = [key for key in ("name", "kind") if not isinstance(recipe.get(key), str)]
    if missing:
        raise InputError(f"{path}: no {missing[0]}; wanted a text, as in {RECIPES}")
    return recipe | ({"sensor": str(path.parent / recipe["sensor"])} if _beside(path, recipe) else {})


def _beside(path: Path, recipe: dict[str, Any]) -> bool:
    """Whether the sensor's file lies beside the recipe."""
    return isinstance(recipe.get("sensor"), str) and (path.parent / recipe["sensor"]).is_file()


def recipe_names() -> list[str]:
    names = []
    for path in sorted(RECIPES.glob("*.toml")):
        variants = tomllib.loads(path.read_text(encoding="utf-8")).get("variants")
        names += [f"{path.stem}-{variant}" for variant in variants] if variants else [path.stem]
    return names
