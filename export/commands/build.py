"""`build` and `memory`: checkpoints, or an INT8 bundle, into a bundle for a target; and what its networks hold."""

import argparse
from pathlib import Path

from export.builds import BUILDS, NORMATIVE, VPU
from export.commands.shared import (
    HELD,
    Commands,
    add_command,
    kept_ground_clouds,
    networks_of,
    positive,
    print_bundle,
    takes_bundle,
    takes_clouds,
    takes_network,
)
from payload.bundle import DEFAULT, load_bundle
from payload.errors import InputError


def add_to(commands: Commands) -> None:
    build = add_command(commands, "build", _build, "checkpoints, or an int8 bundle, -> a bundle for a target")
    build.add_argument("--recipe", default="edge")
    build.add_argument("--bundle", help="derive from this int8-po2w7 bundle instead of from checkpoints")
    build.add_argument("--target", choices=BUILDS, default=NORMATIVE)
    build.add_argument("--checkpoints", type=Path, help="what training wrote; default build/RECIPE")
    takes_clouds(build)
    build.add_argument("--keep-rounding", action="store_true", help="round activations in a float build as INT8 does")
    build.add_argument("--app", metavar="NAME=FILE.onnx", help="an INT8 network of an application, into --bundle")
    build.add_argument("--app-counts", type=int, default=1, metavar="CLASS", help="of --app: the class that is counted")
    build.add_argument("--app-cell", type=int, choices=(2, 4), default=2, metavar="PX", help="of --app: 2 or 4")
    build.add_argument("--gate", metavar="BUNDLE", help="the cloud network of this bundle, into --bundle")
    build.add_argument("--decoder", type=Path, metavar="CHECKPOINTS", help="a newly trained decoder, into --bundle")
    build.add_argument("--pool", type=Path, help="what --decoder was trained on; default the usual tiles")
    build.add_argument(
        "--ground-clouds", type=Path, nargs="?", const=kept_ground_clouds(), metavar="FOLDER",
        help="the ground's cloud network of this folder, default the one kept; with --bundle: added to it",
    )  # fmt: skip
    build.add_argument("--out", type=Path)

    memory = add_command(commands, "memory", _memory, "peak activation memory per tile size")
    takes_bundle(memory)
    takes_network(memory)
    memory.add_argument("--target", default="myriad2")
    memory.add_argument("--tile", nargs="+", type=positive, default=[128, 256, 512, 1024])
    memory.add_argument("--chart", type=Path, help="write a .png or .svg per network")


def _build(arguments: argparse.Namespace) -> int:
    from export.bundle.add_app import add_app, add_gate
    from export.bundle.add_ground_mask import add_ground_mask
    from export.bundle.assemble import derive
    from export.bundle.from_recipe import build_recipe
    from export.bundle.new_decoder import with_decoder

    if arguments.app is not None:
        name, _, file = arguments.app.partition("=")
        if not (name and file):
            raise InputError(f"--app is {arguments.app!r}, wanted NAME=FILE.onnx")
        bundle = load_bundle(arguments.bundle or DEFAULT)
        out = arguments.out or Path("build") / f"{bundle.name}-{name}"
        built = add_app(bundle, name, Path(file), out, arguments.app_counts, arguments.app_cell)
    elif arguments.gate is not None:
        bundle = load_bundle(arguments.bundle or DEFAULT)
        out = arguments.out or Path("build") / f"{bundle.name}-gate"
        built = add_gate(bundle, load_bundle(arguments.gate), out)
    elif arguments.decoder is not None:
        bundle = load_bundle(arguments.bundle or DEFAULT)
        out = arguments.out or Path("build") / f"{bundle.name}-decoder"
        built = with_decoder(bundle, arguments.recipe, arguments.decoder, arguments.pool, out)
    elif arguments.bundle is not None and arguments.ground_clouds is not None:
        bundle = load_bundle(arguments.bundle)
        out = arguments.out or Path("build") / f"{bundle.name}-ground-clouds"
        built = add_ground_mask(bundle, arguments.ground_clouds, out)
    elif arguments.bundle is None:
        where = arguments.checkpoints, (arguments.clouds, arguments.ground_clouds or kept_ground_clouds())
        built = build_recipe(arguments.recipe, *where, arguments.target, arguments.out)
    else:
        out = arguments.out or Path("build") / f"{Path(arguments.bundle).name}-{arguments.target}"
        built = derive(load_bundle(arguments.bundle), arguments.target, out, arguments.keep_rounding)
    print_bundle(built)
    return HELD


def _memory(arguments: argparse.Namespace) -> int:
    from export.graphs.memory_plan import chart, fits, plan_for_tiles
    from hil.devices.targets import load_target

    bundle, target = load_bundle(arguments.bundle), load_target(arguments.target)
    keys = [k for k in ("on_chip_mib", "memory_mib") if k in target.figures]
    limits = {f"{target.name} {k}": int(target.figure(k).mid * 2**20) for k in keys}
    for name in networks_of(bundle, arguments.network):
        plans = plan_for_tiles(bundle.file(name), bundle.tile_px, tuple(arguments.tile), target.build == VPU)
        for size, one in plans.items():
            verdicts = ", ".join(f"{k}: {fits(one.peak_octets, v)}" for k, v in limits.items())
            peak, at = one.peak_octets / 2**20, one.peak_step.name
            print(f"{name} tile {size} px: peak {peak:.2f} MiB at {at}, weights {one.weight_octets} octets; {verdicts}")
        if arguments.chart:
            path = arguments.chart.with_stem(f"{arguments.chart.stem}-{Path(name).stem}")
            chart(plans, limits, path)
            print(f"written: {path}")
    return HELD
