"""`study`: what else the flight codec could do, measured on held-out sites."""

import argparse
from pathlib import Path

from export.commands.shared import HELD, Commands, add_command, positive

STUDIES = ("blocks-16", "functions", "residual", "zones")


def add_to(commands: Commands) -> None:
    study = add_command(commands, "study", _study, "what was tried with the flight codec, again (docs/codec.md)")
    study.add_argument("name", choices=STUDIES)
    study.add_argument("--recipe", default="edge")
    study.add_argument("--steps", type=positive, default=450, help="of the training of `functions` and `residual`")
    study.add_argument("--learning-rate", type=float, default=5e-4, help="of that training; default 5e-4")
    study.add_argument("--refit-steps", type=int, default=300, help="of each arm's context model; 0: as it ships")
    study.add_argument("--counted", type=positive, default=120, help="tiles that each arm's tables are counted on")
    study.add_argument("--out", type=Path, default=Path("build/studies"))
    study.add_argument("--threads", type=positive, default=1)


def _study(arguments: argparse.Namespace) -> int:
    import torch

    from export.recipe import load_recipe
    from export.studies.run import Budget, study

    torch.set_num_threads(arguments.threads)
    budget = Budget(arguments.refit_steps, arguments.counted, arguments.steps, arguments.learning_rate)
    for line in study(arguments.name, load_recipe(arguments.recipe), budget, arguments.out):
        print(line)
    return HELD
