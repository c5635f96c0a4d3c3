"""`targets` and `compile`: what each device runs, holds and draws."""

import argparse
import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

from export.commands.shared import (
    HELD,
    NOT_HELD,
    STEPS_DN,
    Commands,
    add_command,
    positive,
    say,
    takes_bundle,
    takes_pool,
)
from hil.devices.targets import Target, load_target, load_targets
from payload.bundle import Bundle, load_bundle
from payload.errors import InputError

TOOLKIT_VARIABLE = "NADIR_MYRIAD_TOOLKIT"


def add_to(commands: Commands) -> None:
    compiler = add_command(commands, "compile", _compile, "a real blob for Myriad 2 or X, and what it needs")
    takes_bundle(compiler)
    compiler.add_argument("--target", required=True, help="myriad2 or myriadx")
    compiler.add_argument("--toolkit", help=f"the unpacked old wheel; default: environment variable {TOOLKIT_VARIABLE}")
    compiler.add_argument("--tile", nargs="+", type=positive, default=[256, 512], help="tile sizes in px")
    compiler.add_argument("--stages", action="store_true", help="print the compiled stages")
    compiler.add_argument("--fp16-tiles", type=int, default=0, help="simulate FP16 on so many real tiles")
    compiler.add_argument(
        "--fp16-sums", type=int, default=0, metavar="TILES", help="the same with FP16 sums, end to end; 20 s a tile"
    )
    takes_pool(compiler)
    compiler.add_argument("--out", type=Path, help="folder of blobs and reports; default build/BUNDLE-TARGET")
    compiler.add_argument("--variant", type=Path, metavar="DIR", help="write the bundle with its blobs there")
    compiler.add_argument("--key", type=Path, metavar="PEM", help="sign the variant with this private key")
    compiler.add_argument("--serial", type=int, help="serial number of the variant, under the signature")

    calibrate = add_command(commands, "calibrate", _calibrate, "the Myriad models against published latencies")
    calibrate.add_argument("--target", nargs="+", default=["myriad2", "myriadx"], help="default: both Myriads")
    calibrate.add_argument("--toolkit", help="compile the reference networks anew; default: what was compiled before")
    calibrate.add_argument("--write", action="store_true", help="put the figures into the devices' files")

    targets = add_command(commands, "targets", _targets, "what each device runs, holds and draws")
    targets.add_argument("--bundle", help="with estimates of this bundle's networks")


def _compile(arguments: argparse.Namespace) -> int:
    from export.devices.myriad_toolkit import HOW_TO_INSTALL, find_toolkit
    from export.devices.to_myriad import as_text, compile_bundle

    bundle, target = load_bundle(arguments.bundle), load_target(arguments.target)
    folder = arguments.toolkit or os.environ.get(TOOLKIT_VARIABLE)
    toolkit = find_toolkit(Path(folder)) if folder else None
    if arguments.key and not arguments.variant:
        raise InputError("--key signs a variant; give --variant DIR, too")
    if toolkit is None:
        print(f"no toolkit: nothing is compiled, figures come from the model alone. To compile: {HOW_TO_INSTALL}")
    out = arguments.out or Path("build") / f"{bundle.name}-{target.name}"
    reports = compile_bundle(bundle, target, toolkit, tuple(arguments.tile), out, say)
    for report in reports:
        print(as_text(report, arguments.stages))
    if arguments.fp16_tiles or arguments.fp16_sums:
        _print_agreement(bundle, arguments, out)
    print(f"written: {out}")
    if arguments.variant:
        _write_variant(bundle, target, reports, out, arguments)
    return HELD if all(report.held for report in reports) else NOT_HELD


def _write_variant(
    bundle: Bundle, target: Target, reports: list[Any], blobs: Path, arguments: argparse.Namespace
) -> None:
    from export.bundle.sign import sign_bundle
    from export.bundle.variant import write_variant

    variant = write_variant(bundle, target, reports, blobs, arguments.variant)
    print(f"written: {variant.directory}, bundle {variant.name}, id {variant.bundle_id:08x}")
    if arguments.key:
        print(f"signed by {sign_bundle(variant.directory, arguments.key, arguments.serial).key_id}")
    else:
        print(f"not signed: python -m export sign {variant.directory} --key KEY.pem")


def _calibrate(arguments: argparse.Namespace) -> int:
    from export.devices.calibrate import as_text, calibrate, compile_references, reference_work, write
    from export.devices.myriad_toolkit import find_toolkit

    targets = [load_target(name) for name in arguments.target]
    if arguments.toolkit:
        compile_references(targets, find_toolkit(Path(arguments.toolkit)), say)
    for target in targets:
        found = calibrate(target, reference_work(target))
        print(as_text(found))
        if arguments.write:
            print(f"written: {write(found)}")
    return HELD


def _print_agreement(bundle: Bundle, arguments: argparse.Namespace, out: Path) -> None:
    """What FP16 changes, in simulation: indices, classes, octets and PSNR."""
    from export.proof.half_device import SUMS, end_to_end, network_agreement
    from export.proof.half_device import as_text as as_table
    from export.proof.half_precision import as_text
    from export.proof.inputs import real_pool

    pool = real_pool(arguments.pool)
    told = {}
    for sums, tiles in zip(SUMS, (arguments.fp16_tiles, arguments.fp16_sums), strict=True):
        if tiles:
            networks = network_agreement(bundle, pool, tiles, sums, STEPS_DN)
            tables = end_to_end(bundle, pool, tiles, sums, STEPS_DN)
            print(as_text(networks, sums), as_table(tables), sep="\n")
            told[sums] = {"networks": [asdict(a) for a in networks], "end_to_end": [asdict(e) for e in tables]}
    (out / "fp16.json").write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")


def _targets(arguments: argparse.Namespace) -> int:
    from export.devices.estimates import estimates_table, table

    targets = load_targets()
    print(table(targets))
    if arguments.bundle:
        print(estimates_table(targets, load_bundle(arguments.bundle)))
    return HELD
