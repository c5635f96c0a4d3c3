"""`check`, `codes` and `ptq`: what a bundle promises, proven or measured."""

import argparse
import tempfile
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
    takes_clouds,
    takes_network,
    takes_tiles,
)
from export.proof.settings import THREADS, isas_here
from payload.bundle import load_bundle


def add_to(commands: Commands) -> None:
    check = add_command(commands, "check", _check, "prove a bundle: every runtime, thread count and ISA alike")
    takes_bundle(check)
    takes_network(check)
    takes_tiles(check, 1000)
    check.add_argument("--random", action="store_true", help="seeded random inputs, where there is no real data")
    check.add_argument("--checkpoints", type=Path, help="also hold the trained torch models against the reference")
    takes_clouds(check)
    check.add_argument(
        "--isa",
        nargs="+",
        default=list(isas_here()),
        help="limits of the CPU library; default: '' (none) and this host's",
    )
    check.add_argument("--threads", nargs="+", type=positive, default=list(THREADS))
    check.add_argument("--out", type=Path, help="default BUNDLE/check.json")

    codes = add_command(commands, "codes", _codes, "prove the octets: tile codes of all real tiles under every setting")
    takes_bundle(codes)
    codes.add_argument("--out", type=Path, help="default BUNDLE/codes.json")

    ptq = add_command(commands, "ptq", _ptq, "post-training quantisation with NNCF, as a baseline")
    takes_bundle(ptq)
    takes_network(ptq)
    takes_tiles(ptq, 50)
    ptq.add_argument("--float", type=Path, help="the float network trained, .onnx; default: the bundle's own weights")
    ptq.add_argument("--calibration", type=positive, default=100, help="tiles NNCF takes its ranges from")


def _check(arguments: argparse.Namespace) -> int:
    from export.bundle.from_recipe import torch_models
    from export.proof.check import check_bundle, table
    from export.proof.front_ends import feeder_for
    from export.proof.inputs import real_pool

    bundle = load_bundle(arguments.bundle)
    pool = None if arguments.random else real_pool(arguments.pool)
    feeders = {n: feeder_for(bundle, n, pool) for n in networks_of(bundle, arguments.network)}
    models = torch_models(bundle, arguments.checkpoints, arguments.clouds) if arguments.checkpoints else None
    proof = check_bundle(bundle, feeders, arguments.tiles, tuple(arguments.isa), tuple(arguments.threads), models, say)
    out = arguments.out or bundle.directory / "check.json"
    out.write_text(proof.to_json(), encoding="utf-8")
    print(table(proof))
    print(f"written: {out}")
    return HELD if proof.held else NOT_HELD


def _codes(arguments: argparse.Namespace) -> int:
    from export.proof.tile_codes import equal, headline, prove, to_json

    bundle = load_bundle(arguments.bundle)
    proven = prove(bundle.directory, say)
    out = arguments.out or bundle.directory / "codes.json"
    out.write_text(to_json(proven), encoding="utf-8")
    print(f"{headline(proven)}; written: {out}")
    return HELD if equal(proven) else NOT_HELD


def _ptq(arguments: argparse.Namespace) -> int:
    from export.graphs.graph import input_names, load_graph
    from export.graphs.to_float import to_float_model
    from export.proof.front_ends import feeder_for, front_end_for, quantiser_for
    from export.proof.inputs import real_pool
    from export.proof.ptq import as_text, baselines

    bundle, pool = load_bundle(arguments.bundle), real_pool(arguments.pool)
    for name in networks_of(bundle, arguments.network):
        path, feeder = bundle.file(name), feeder_for(bundle, name, pool)
        shapes = dict(zip(input_names(path), (a.shape for a in feeder.arrays(0)), strict=True))
        trained = load_graph(path, shapes)
        float_model = load_graph(arguments.float).model if arguments.float else to_float_model(trained, for_vpu=False)
        quantiser = quantiser_for(bundle, name, STEPS_DN[1]) if front_end_for(bundle, name) else None
        chosen = arguments.calibration, arguments.tiles
        with tempfile.TemporaryDirectory(prefix="nadir-ptq-") as folder:
            rows = baselines(float_model, path, feeder, chosen, Path(folder), quantiser)
        print(f"{name}\n{as_text(rows)}")
    return HELD
