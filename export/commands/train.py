"""`train` and `single-rate`: from real tiles to checkpoints."""

import argparse
import json
from pathlib import Path

from export.commands.shared import HELD, Commands, add_command, positive, say, takes_pool
from export.recipe import load_recipe
from export.workshops import workshop_for
from payload.errors import InputError

#: Stages of any kind of recipe; which of them a recipe has, its workshop says.
ALL = "all"


def add_to(commands: Commands) -> None:
    train = add_command(commands, "train", _train, "train a recipe: checkpoints and logs, picked up where they stopped")
    train.add_argument("--recipe", default="edge", help="a file of export/recipes; default edge")
    train.add_argument("--stage", default=ALL, help="of edge: transform, context, tables, decoder, keep; default all")
    train.add_argument("--out", type=Path, help="default build/RECIPE")
    train.add_argument("--fresh", action="store_true", help="from nothing, not from the newest checkpoints")
    train.add_argument("--threads", type=positive, default=2)
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
    workshop = workshop_for(recipe)
    if arguments.stage not in (ALL, *workshop.STAGES):
        stages = ", ".join((*workshop.STAGES, ALL))
        raise InputError(f"recipe {arguments.recipe} has no stage {arguments.stage!r}; choose one of {stages}")
    torch.set_num_threads(arguments.threads)
    out = arguments.out or Path("build") / arguments.recipe
    workshop.train(recipe, arguments.stage, out, arguments.pool, arguments.fresh)
    print(f"written: {out}")
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
