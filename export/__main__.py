"""The workshop's commands, python -m export COMMAND: from training to signed bundles.

Exit codes: 0 everything held, 1 something did not hold, 2 bad input.
"""

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from payload.bundle import Bundle, load_bundle
from payload.errors import InputError

if TYPE_CHECKING:
    from export.proof.inputs import TilePool

    Commands = argparse._SubParsersAction[argparse.ArgumentParser]

HELD, NOT_HELD, BAD_INPUT = 0, 1, 2
TOOLKIT_VARIABLE = "NADIR_MYRIAD_TOOLKIT"
#: Finest steps (DN) at which the FP16 build's indices are compared: fine, usual, coarse.
STEPS_DN = (12.0, 40.0, 160.0)


def main(argv: Sequence[str] | None = None) -> int:
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        if words[:1] == ["train"]:
            return _train(words[1:])
        if words[:1] == ["single-rate"]:
            return _single_rate(words[1:])
        arguments = _parser().parse_args(words)
        command: Callable[[argparse.Namespace], int] = arguments.command
        return command(arguments)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return BAD_INPUT


def _train(words: list[str]) -> int:
    try:
        from export.lapped.train import main as train
    except ImportError as error:
        raise InputError(f"training needs {error.name}; pip install 'nadir-payload[train]'") from None
    train(words)
    return HELD


def _single_rate(words: list[str]) -> int:
    try:
        from export.lapped.single_rate_study import main as single_rate
    except ImportError as error:
        raise InputError(f"training needs {error.name}; pip install 'nadir-payload[train]'") from None
    single_rate(words, _progress)
    return HELD


def _build(arguments: argparse.Namespace) -> int:
    from export.bundle.assemble import derive
    from export.bundle.from_recipe import build_recipe

    if arguments.bundle is None:
        where = arguments.checkpoints, arguments.clouds
        built = build_recipe(arguments.recipe, *where, arguments.target, arguments.out)
    else:
        out = arguments.out or Path("build") / f"{Path(arguments.bundle).name}-{arguments.target}"
        built = derive(load_bundle(arguments.bundle), arguments.target, out, arguments.keep_rounding)
    _print_bundle(built)
    return HELD


def _check(arguments: argparse.Namespace) -> int:
    from export.bundle.from_recipe import torch_models
    from export.proof.check import check_bundle, table
    from export.proof.front_ends import feeder_for

    bundle = load_bundle(arguments.bundle)
    pool = None if arguments.random else _pool(arguments.pool)
    feeders = {n: feeder_for(bundle, n, pool) for n in _networks(bundle, arguments.network)}
    models = torch_models(bundle, arguments.checkpoints, arguments.clouds) if arguments.checkpoints else None
    proof = check_bundle(
        bundle, feeders, arguments.tiles, tuple(arguments.isa), tuple(arguments.threads), models, _progress
    )
    out = arguments.out or bundle.directory / "check.json"
    out.write_text(proof.to_json(), encoding="utf-8")
    print(table(proof))
    print(f"written: {out}")
    return HELD if proof.held else NOT_HELD


def _codes(arguments: argparse.Namespace) -> int:
    from export.proof.tile_codes import prove, to_json

    bundle = load_bundle(arguments.bundle)
    found = prove(bundle.directory, _progress)
    out = arguments.out or bundle.directory / "codes.json"
    out.write_text(to_json(found), encoding="utf-8")
    held = len({codes.sha256 for codes in found}) == 1
    print(f"{'HELD' if held else 'NOT HELD'}: {len(found)} settings over {found[0].tiles} tiles; written: {out}")
    return HELD if held else NOT_HELD


def _compile(arguments: argparse.Namespace) -> int:
    from export.devices.targets import load_target
    from export.devices.to_myriad import HOW_TO_INSTALL, as_text, compile_bundle, find_toolkit

    bundle, target = load_bundle(arguments.bundle), load_target(arguments.target)
    folder = arguments.toolkit or os.environ.get(TOOLKIT_VARIABLE)
    toolkit = find_toolkit(Path(folder)) if folder else None
    if toolkit is None:
        print(f"no toolkit: nothing is compiled, figures come from the model alone. To compile: {HOW_TO_INSTALL}")
    out = arguments.out or Path("build") / f"{bundle.name}-{target.name}"
    reports = compile_bundle(bundle, target, toolkit, tuple(arguments.tile), out, _progress)
    for report in reports:
        print(as_text(report, arguments.stages))
    if arguments.fp16_tiles:
        _print_agreement(bundle, arguments.fp16_tiles, _pool(arguments.pool), out)
    print(f"written: {out}")
    return HELD if all(report.held for report in reports) else NOT_HELD


def _print_agreement(bundle: Bundle, tiles: int, pool: "TilePool", out: Path) -> None:
    """What FP16 changes, in simulation: indices and PSNR."""
    from export.devices.to_myriad import float_twin
    from export.proof.front_ends import feeder_for, front_end_for, quantiser_for
    from export.proof.half_precision import as_text, compare, open_half
    from payload.engine import open_engine

    found = []
    for name in _networks(bundle, None):
        if front_end_for(bundle, name) is None:
            continue
        quantisers = {q.name: q for q in (quantiser_for(bundle, name, s) for s in STEPS_DN)}
        reference = open_engine("onnxruntime").load(bundle.file(name)).run
        half = open_half(float_twin(bundle.file(name), bundle.tile_px, bundle.tile_px))
        found += compare(name, reference, half, feeder_for(bundle, name, pool), tiles, list(quantisers.values()))
    print(as_text(found))
    (out / "fp16.json").write_text(json.dumps([asdict(a) for a in found], indent=1) + "\n", encoding="utf-8")


def _ptq(arguments: argparse.Namespace) -> int:
    import tempfile

    from export.graphs.graph import input_names, load_graph
    from export.graphs.to_float import to_float_model
    from export.proof.front_ends import feeder_for, front_end_for, quantiser_for
    from export.proof.ptq import as_text, baselines

    bundle, pool = load_bundle(arguments.bundle), _pool(arguments.pool)
    for name in _networks(bundle, arguments.network):
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


def _memory(arguments: argparse.Namespace) -> int:
    from export.devices.targets import load_target
    from export.graphs.memory_plan import chart, fits, plan_for_tiles

    bundle, target = load_bundle(arguments.bundle), load_target(arguments.target)
    keys = [k for k in ("on_chip_mib", "memory_mib") if k in target.figures]
    limits = {f"{target.name} {k}": int(target.figure(k).mid * 2**20) for k in keys}
    for name in _networks(bundle, arguments.network):
        plans = plan_for_tiles(bundle.file(name), bundle.tile_px, tuple(arguments.tile), target.build == "fp16-vpu")
        for size, one in plans.items():
            verdicts = ", ".join(f"{k}: {fits(one.peak_octets, v)}" for k, v in limits.items())
            peak, at = one.peak_octets / 2**20, one.peak_step.name
            print(f"{name} tile {size} px: peak {peak:.2f} MiB at {at}, weights {one.weight_octets} octets; {verdicts}")
        if arguments.chart:
            path = arguments.chart.with_stem(f"{arguments.chart.stem}-{Path(name).stem}")
            chart(plans, limits, path)
            print(f"written: {path}")
    return HELD


def _targets(arguments: argparse.Namespace) -> int:
    from export.devices.targets import estimates_table, load_targets, table

    targets = load_targets()
    print(table(targets))
    if arguments.bundle:
        print(estimates_table(targets, load_bundle(arguments.bundle)))
    return HELD


def _sign(arguments: argparse.Namespace) -> int:
    from export.bundle.sign import new_key, public_path, sign_bundle
    from payload.signature import key_id

    if arguments.new_key:
        public = new_key(arguments.new_key)
        print(
            f"key {key_id(public)}: {arguments.new_key} (keep it secret), {public_path(arguments.new_key)} (trust it)"
        )
    if arguments.bundle:
        if not arguments.key:
            raise InputError("no key given; --key KEY.pem signs, --new-key KEY.pem makes one")
        bundle = load_bundle(arguments.bundle)
        signature = sign_bundle(bundle.directory, arguments.key, arguments.serial)
        print(f"bundle {bundle.name} signed by key {signature.key_id}")
    return HELD


def _delta(arguments: argparse.Namespace) -> int:
    from export.bundle.delta import apply_delta, as_text, make_delta

    if arguments.apply:
        try:
            octets = arguments.apply.read_bytes()
        except OSError as error:
            raise InputError(f"{arguments.apply}: {error.strerror}; give a delta file") from None
        _print_bundle(apply_delta(load_bundle(arguments.old, flight_only=True).directory, octets, Path(arguments.new)))
        return HELD
    delta, files = make_delta(load_bundle(arguments.old).directory, load_bundle(arguments.new).directory)
    print(as_text(files, delta))
    if arguments.out:
        arguments.out.write_bytes(delta)
        print(f"written: {arguments.out}")
    return HELD


def _networks(bundle: Bundle, only: str | None) -> list[str]:
    from export.proof.check import flight_networks

    names = flight_networks(bundle)
    if only is not None and only not in names:
        raise InputError(f"bundle {bundle.name}: no network {only}; it has {', '.join(names)}")
    return [only] if only else names


def _pool(path: Path | None) -> "TilePool":
    from export.proof.inputs import real_pool

    return real_pool(path)


def _progress(line: str) -> None:
    print(line, file=sys.stderr)


def _print_bundle(bundle: Bundle) -> None:
    print(f"bundle {bundle.name}, id {bundle.bundle_id:08x}, in {bundle.directory}")
    for name, n in bundle.manifest.get("networks", {}).items():
        print(
            f"  {name}: {n['octets']} octets, {n['parameters']} parameters, {n['macs_per_px']} MAC/px, "
            f"peak activations {n['peak_activation_octets']} octets"
        )


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a positive number")
    return number


def _parser() -> argparse.ArgumentParser:
    from export.bundle.assemble import TARGETS
    from export.proof.check import ISAS, THREADS

    parser = argparse.ArgumentParser(prog="python -m export", description=(__doc__ or "").splitlines()[0])
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    commands.add_parser("train", help="train a recipe; see `train --help`")
    commands.add_parser("single-rate", help="what an embedded stream costs; see `single-rate --help`")

    build = _command(commands, "build", _build, "checkpoints, or an int8 bundle, -> a bundle for a target")
    build.add_argument("--recipe", default="edge")
    build.add_argument("--bundle", help="derive from this int8-po2w7 bundle instead of from checkpoints")
    build.add_argument("--target", choices=TARGETS, default="int8-po2w7")
    build.add_argument("--checkpoints", type=Path, help="what training wrote; default build/RECIPE")
    _takes_clouds(build)
    build.add_argument("--keep-rounding", action="store_true", help="round activations in a float build as INT8 does")
    build.add_argument("--out", type=Path)

    check = _command(commands, "check", _check, "prove a bundle: every runtime, thread count and ISA alike")
    _takes_bundle(check)
    _takes_tiles(check, 1000)
    check.add_argument("--random", action="store_true", help="seeded random inputs, where there is no real data")
    check.add_argument("--checkpoints", type=Path, help="also hold the trained torch models against the reference")
    _takes_clouds(check)
    check.add_argument("--isa", nargs="+", default=list(ISAS), help="limits of the CPU library; '' is none")
    check.add_argument("--threads", nargs="+", type=_positive, default=list(THREADS))
    check.add_argument("--out", type=Path, help="default BUNDLE/check.json")

    codes = _command(commands, "codes", _codes, "prove the octets: tile codes of all real tiles under every setting")
    codes.add_argument("bundle", help="a bundle's folder, or the name of one that is shipped")
    codes.add_argument("--out", type=Path, help="default BUNDLE/codes.json")

    ptq = _command(commands, "ptq", _ptq, "post-training quantisation with NNCF, as a baseline")
    _takes_bundle(ptq)
    _takes_tiles(ptq, 50)
    ptq.add_argument("--float", type=Path, help="the float network trained, .onnx; default: the bundle's own weights")
    ptq.add_argument("--calibration", type=_positive, default=100, help="tiles NNCF takes its ranges from")

    _add_device_commands(commands)
    _add_uplink_commands(commands)
    return parser


def _add_device_commands(commands: "Commands") -> None:
    compiler = _command(commands, "compile", _compile, "a real blob for Myriad 2 or X, and what it needs")
    _takes_bundle(compiler)
    compiler.add_argument("--target", required=True, help="myriad2 or myriadx")
    compiler.add_argument("--toolkit", help=f"the unpacked old wheel; default: environment variable {TOOLKIT_VARIABLE}")
    compiler.add_argument("--tile", nargs="+", type=_positive, default=[256, 512], help="tile sizes in px")
    compiler.add_argument("--stages", action="store_true", help="print the compiled stages")
    compiler.add_argument("--fp16-tiles", type=int, default=0, help="simulate FP16 on so many real tiles")
    compiler.add_argument("--pool", type=Path, help="real tiles, .npz; default the data folder")
    compiler.add_argument("--out", type=Path)

    memory = _command(commands, "memory", _memory, "peak activation memory per tile size")
    _takes_bundle(memory)
    memory.add_argument("--target", default="myriad2")
    memory.add_argument("--tile", nargs="+", type=_positive, default=[128, 256, 512, 1024])
    memory.add_argument("--chart", type=Path, help="write a .png or .svg per network")

    targets = _command(commands, "targets", _targets, "what each device runs, holds and draws")
    targets.add_argument("--bundle", help="with estimates of this bundle's networks")


def _add_uplink_commands(commands: "Commands") -> None:
    sign = _command(commands, "sign", _sign, "sign a bundle with Ed25519")
    sign.add_argument("bundle", nargs="?")
    sign.add_argument("--key", type=Path)
    sign.add_argument("--new-key", type=Path)
    sign.add_argument("--serial", type=int, help="number of this issue: a device refuses a lower one than it has run")

    delta = _command(commands, "delta", _delta, "what must be uplinked to get from one bundle to another")
    delta.add_argument("old", help="the bundle on board")
    delta.add_argument("new", help="the new bundle; with --apply, the folder to build it in")
    delta.add_argument("--out", type=Path, help="write the delta here")
    delta.add_argument("--apply", type=Path, help="apply this delta instead of making one")


def _command(
    commands: "Commands",
    name: str,
    run: Callable[[argparse.Namespace], int],
    text: str,
) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=text, description=text)
    parser.set_defaults(command=run)
    return parser


def _takes_bundle(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bundle", help="a bundle's folder, or the name of one that is shipped")
    if parser.prog.split()[-1] != "compile":
        parser.add_argument("--network", help="only this network, e.g. flight/encoder.onnx")


def _takes_clouds(parser: argparse.ArgumentParser) -> None:
    kept = Path(__file__).parent / "checkpoints" / "clouds" / "shipped"
    parser.add_argument("--clouds", type=Path, default=kept, help="folder of the cloud network; default the one kept")


def _takes_tiles(parser: argparse.ArgumentParser, tiles: int) -> None:
    parser.add_argument("--tiles", type=_positive, default=tiles, help=f"how many tiles; default {tiles}")
    parser.add_argument("--pool", type=Path, help="real tiles, .npz; default the data folder")


if __name__ == "__main__":
    sys.exit(main())
