"""`train` and `single-rate`: from real tiles to checkpoints."""

import argparse
import json
from pathlib import Path
from typing import Any

from export.commands.shared import HELD, Commands, add_command, positive, print_bundle, say, takes_pool
from export.recipe import load_recipe
from export.workshops import workshop_for
from payload.errors import InputError

#: Stages of any kind of recipe; which of them a recipe has, its workshop says.
ALL = "all"


def add_to(commands: Commands) -> None:
    train = add_command(commands, "train", _train, "train a recipe: checkpoints and logs, picked up where they stopped")
    train.add_argument("--recipe", default="edge", help="a file of export/recipes, or a .toml by path; default edge")
    train.add_argument("--stage", default=ALL, help="of edge: transform, context, tables, decoder, keep; default all")
    train.add_argument("--out", type=Path, help="default build/RECIPE")
    train.add_argument("--fresh", action="store_true", help="from nothing, not from the newest checkpoints")
    train.add_argument("--threads", type=positive, help="default 2; of a sensor's recipe 1, as adapt")
    train.add_argument("--hold-out", action="append", default=[], metavar="SITE", help="of a sensor's recipe, as adapt")
    train.add_argument("--no-page", action="store_true", help="of a sensor's recipe: no comparison")
    takes_pool(train)

    single = add_command(commands, "single-rate", _single_rate, "what an embedded stream costs against one-rate models")
    single.add_argument("--recipe", default="edge")
    single.add_argument("--checkpoints", type=Path, help="what training wrote; default build/RECIPE")
    single.add_argument("--out", type=Path, default=Path("build/single-rate"))
    single.add_argument("--every", type=positive, default=3, help="of the held-out tiles")
    single.add_argument("--context-steps", type=positive, default=900)
    single.add_argument("--decoder-steps", type=positive, default=300)
    single.add_argument("--threads", type=positive, default=2)


def _train(arguments: argparse.Namespace) -> int:
    import torch

    recipe = load_recipe(arguments.recipe)
    if "sensor" in recipe:
        return _train_sensor(arguments, recipe)
    workshop = workshop_for(recipe)
    if arguments.stage not in (ALL, *workshop.STAGES):
        stages = ", ".join((*workshop.STAGES, ALL))
        raise InputError(f"recipe {arguments.recipe} has no stage {arguments.stage!r}; choose one of {stages}")
    torch.set_num_threads(arguments.threads or 2)
    out = arguments.out or Path("build") / arguments.recipe
    workshop.train(recipe, arguments.stage, out, arguments.pool, arguments.fresh)
    print(f"written: {out}")
    return HELD


def _train_sensor(arguments: argparse.Namespace, recipe: dict[str, Any]) -> int:
    """Everything that `adapt` refits, and the transform, from nothing; a bundle and its page as `adapt` writes them."""
    import torch

    from export.bundle.adapted import adapted, compare
    from export.commands.adapt import read_sensor
    from export.pools import read_pool

    if arguments.pool is None or arguments.stage != ALL:
        raise InputError(f"recipe {arguments.recipe} is of a sensor: give its pool with --pool, and no --stage")
    torch.set_num_threads(arguments.threads or 1)
    sensor, out = read_sensor(recipe["sensor"]), arguments.out or Path("build") / recipe["name"]
    pool = read_pool(arguments.pool, sensor, arguments.hold_out)
    if arguments.fresh and out.is_dir():
        for path in [*out.glob("*.safetensors"), *out.glob("tables*.npz")]:
            path.unlink()
    settings = {**recipe.get("context", {}), "from_nothing": True}
    print_bundle(adapted(sensor, pool, out, recipe["name"], settings, recipe.get("tile_px")))
    if pool.held_out_sites and not arguments.no_page:
        print(f"written: {compare(out)}")
    return HELD


def _single_rate(arguments: argparse.Namespace) -> int:
    from export.lapped.single_rate_study import compare

    recipe = load_recipe(arguments.recipe)
    checkpoints = arguments.checkpoints or Path("build") / arguments.recipe
    points = compare(recipe, checkpoints, arguments.out, arguments, say)
    arguments.out.mkdir(parents=True, exist_ok=True)
    text = json.dumps([vars(point) for point in points], indent=1) + "\n"
    (arguments.out / "points.json").write_text(text, encoding="utf-8")
    print(f"written: {arguments.out / 'points.json'}")
    return HELD
