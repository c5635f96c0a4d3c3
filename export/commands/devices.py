"""`targets` and `compile`: what each device runs, holds and draws."""

import argparse
import json
import os
from dataclasses import asdict
from pathlib import Path

from export.commands.shared import (
    HELD,
    NOT_HELD,
    STEPS_DN,
    Commands,
    add_command,
    networks_of,
    positive,
    say,
    takes_bundle,
    takes_pool,
)
from payload.bundle import Bundle, load_bundle

TOOLKIT_VARIABLE = "NADIR_MYRIAD_TOOLKIT"


def add_to(commands: Commands) -> None:
    compiler = add_command(commands, "compile", _compile, "a real blob for Myriad 2 or X, and what it needs")
    takes_bundle(compiler)
    compiler.add_argument("--target", required=True, help="myriad2 or myriadx")
    compiler.add_argument("--toolkit", help=f"the unpacked old wheel; default: environment variable {TOOLKIT_VARIABLE}")
    compiler.add_argument("--tile", nargs="+", type=positive, default=[256, 512], help="tile sizes in px")
    compiler.add_argument("--stages", action="store_true", help="print the compiled stages")
    compiler.add_argument("--fp16-tiles", type=int, default=0, help="simulate FP16 on so many real tiles")
    takes_pool(compiler)
    compiler.add_argument("--out", type=Path)

    targets = add_command(commands, "targets", _targets, "what each device runs, holds and draws")
    targets.add_argument("--bundle", help="with estimates of this bundle's networks")


def _compile(arguments: argparse.Namespace) -> int:
    from export.devices.to_myriad import HOW_TO_INSTALL, as_text, compile_bundle, find_toolkit
    from hil.devices.targets import load_target

    bundle, target = load_bundle(arguments.bundle), load_target(arguments.target)
    folder = arguments.toolkit or os.environ.get(TOOLKIT_VARIABLE)
    toolkit = find_toolkit(Path(folder)) if folder else None
    if toolkit is None:
        print(f"no toolkit: nothing is compiled, figures come from the model alone. To compile: {HOW_TO_INSTALL}")
    out = arguments.out or Path("build") / f"{bundle.name}-{target.name}"
    reports = compile_bundle(bundle, target, toolkit, tuple(arguments.tile), out, say)
    for report in reports:
        print(as_text(report, arguments.stages))
    if arguments.fp16_tiles:
        _print_agreement(bundle, arguments.fp16_tiles, arguments.pool, out)
    print(f"written: {out}")
    return HELD if all(report.held for report in reports) else NOT_HELD


def _print_agreement(bundle: Bundle, tiles: int, pool: Path | None, out: Path) -> None:
    """What FP16 changes, in simulation: indices and PSNR."""
    from export.devices.to_myriad import float_twin
    from export.graphs.fewer_stages import fewer_stages
    from export.proof.front_ends import feeder_for, front_end_for, quantiser_for
    from export.proof.half_precision import as_text, compare, open_half
    from export.proof.inputs import real_pool
    from payload.engine import open_engine

    agreements = []
    for name in networks_of(bundle, None):
        if front_end_for(bundle, name) is None:
            continue
        quantisers = {q.name: q for q in (quantiser_for(bundle, name, s) for s in STEPS_DN)}
        reference = open_engine("onnxruntime").load(bundle.file(name)).run
        half = open_half(fewer_stages(float_twin(bundle.file(name), bundle.tile_px, bundle.tile_px)))
        feeder = feeder_for(bundle, name, real_pool(pool))
        agreements += compare(name, reference, half, feeder, tiles, list(quantisers.values()))
    print(as_text(agreements))
    (out / "fp16.json").write_text(json.dumps([asdict(a) for a in agreements], indent=1) + "\n", encoding="utf-8")


def _targets(arguments: argparse.Namespace) -> int:
    from export.devices.estimates import estimates_table, table
    from hil.devices.targets import load_targets

    targets = load_targets()
    print(table(targets))
    if arguments.bundle:
        print(estimates_table(targets, load_bundle(arguments.bundle)))
    return HELD
