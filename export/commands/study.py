"""`study`: what else the flight codec could do, measured on held-out sites."""

import argparse
from pathlib import Path

from export.commands.shared import HELD, Commands, add_command, positive

STUDIES = ("blocks-16", "functions", "residual", "zones")
#: Functions that learn faster become such as no short functions undo: at 5e-4 they reach no PSNR of the flown ones.
LEARNING_RATES = {"functions": 2e-5, "residual": 5e-4}


def add_to(commands: Commands) -> None:
    study = add_command(commands, "study", _study, "what was tried with the flight codec, again (docs/codec.md)")
    study.add_argument("name", choices=STUDIES)
    study.add_argument("--recipe", default="edge")
    study.add_argument("--steps", type=positive, default=450, help="of the training of `functions` and `residual`")
    rates = ", ".join(f"{rate:g} of {name}" for name, rate in LEARNING_RATES.items())
    study.add_argument("--learning-rate", type=float, help=f"of that training; default {rates}")
    study.add_argument("--refit-steps", type=int, default=300, help="of each arm's context model; 0: as it ships")
    study.add_argument("--counted", type=positive, default=120, help="tiles that each arm's tables are counted on")
    study.add_argument("--out", type=Path, default=Path("build/studies"))
    study.add_argument("--threads", type=positive, default=1)


def _study(arguments: argparse.Namespace) -> int:
    import torch

    from export.recipe import load_recipe
    from export.studies.run import Budget, study

    torch.set_num_threads(arguments.threads)
    learning_rate = arguments.learning_rate or LEARNING_RATES.get(arguments.name, 0.0)
    budget = Budget(arguments.refit_steps, arguments.counted, arguments.steps, learning_rate)
    for line in study(arguments.name, load_recipe(arguments.recipe), budget, arguments.out):
        print(line)
    return HELD
