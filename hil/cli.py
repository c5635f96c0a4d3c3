"""The command line of the bench: parses, calls one function, prints. JSON on stdout, words on stderr.

Exit 0: all held; 1: octets differ, or a budget or a threshold failed; 2: bad input.
"""

import json
import sys
from contextlib import nullcontext
from dataclasses import asdict
from itertools import chain, islice
from pathlib import Path
from typing import Annotated, Any

import typer

from hil.bench.equal import PROCESSORS, write_fingerprints
from hil.bench.equal import equal as take_fingerprints
from hil.bench.run import RunFolder, RunReport, run_identity
from hil.bench.run import run as run_tiles
from hil.command_group import Root
from hil.commands import measure
from hil.commands.campaign import campaign
from hil.commands.options import (
    BundleName,
    EngineName,
    FileBands,
    Limit,
    Offset,
    Out,
    Overwrite,
    Scale,
    SceneName,
    StepDn,
    Threads,
    TilesFile,
    TrustedKeys,
    read_bundle,
    read_tiles,
    reading,
)
from hil.console import guarded, say, set_up_logging
from hil.host.client import open_device
from hil.host.deploy import deploy as deploy_agent
from hil.host.devices_here import device_kinds
from hil.host.emulation import ROOT, make_sysroot, processors
from hil.host.labgrid_place import place as labgrid_place
from hil.host.transports import connector
from hil.line.code_id import version
from hil.line.key import write_key
from hil.progress import progress
from payload.bundle import DEFAULT
from payload.engine import open_engine
from payload.errors import InputError
from payload.policy import Policy

app = typer.Typer(
    name="hil", cls=Root, no_args_is_help=True, pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Hardware in the loop: the same payload on a device under test.",
)  # fmt: skip


def _print_version(wanted: bool) -> None:
    if wanted:
        print(version())
        raise typer.Exit


@app.callback()
def root(
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="also what libraries say; tracebacks")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="errors only: no progress, no notes")] = False,
    show: Annotated[bool, typer.Option("--version", callback=_print_version, is_eager=True, help="and exit")] = False,
) -> None:
    """Options of every command."""
    set_up_logging("hil", verbose, quiet)


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []})
def agent(context: typer.Context) -> None:
    """The program on the device: --tcp HOST:PORT, --serial PATH or --stdio, with --bundle DIR."""
    from hil.agent.serve import main as serve

    raise typer.Exit(serve(context.args))


@app.command()
def devices() -> None:
    """The kinds of devices, and what is missing here for each."""
    for kind in device_kinds():
        print(f"{kind.url:<36}  {kind.about:<58}  {kind.missing or 'ready'}")


@app.command()
def key(file: Annotated[Path, typer.Argument(help="a new file; the agent gets a copy of it")]) -> None:
    """Makes a key that host and agent share: `--key FILE` there, `?key=FILE` in the device's URL here."""
    write_key(file)
    say(f"{file}: copy it to the device for `--key`, and add ?key={file} to the device's URL")


@app.command()
def deploy(
    bundle: BundleName = DEFAULT,
    to: Annotated[str, typer.Option("--to", help="a directory, or ssh://USER@HOST/DIRECTORY")] = "build/agent",
    trusted_key: TrustedKeys = None,
) -> None:
    """Packs agent and bundle into one zipapp named by its sha256, puts it there, prints the device's URL."""
    print(deploy_agent(read_bundle(bundle, trusted_key), to))


@app.command()
def run(
    out: Out,
    device: Annotated[str | None, typer.Option("--device", help="as `hil profile` takes it")] = None,
    place: Annotated[
        str | None, typer.Option("--place", help="a board's labgrid place instead: NAME or NAME?python=PATH")
    ] = None,
    labgrid_env: Annotated[Path | None, typer.Option(help="labgrid environment file, as docs/labgrid.yaml")] = None,
    scene: SceneName = None,
    bands: FileBands = None,
    scale: Scale = None,
    offset: Offset = None,
    tiles: TilesFile = None,
    bundle: BundleName = DEFAULT,
    trusted_key: TrustedKeys = None,
    reference: Annotated[bool, typer.Option(help="compare every octet with this host's own")] = True,
    engine: EngineName = "auto",
    reference_engine: Annotated[str, typer.Option(help="openvino or onnxruntime: on this host")] = "openvino",
    threads: Threads = 1,
    step_dn: StepDn = Policy.step_dn,
    limit: Limit = None,
    resume: Annotated[bool, typer.Option("--resume", help="go on with a run that broke off")] = False,
    overwrite: Overwrite = False,
) -> None:
    """Streams a scene's tiles through a device and compares every octet; packets.bin is what the ground reads."""
    loaded, policy = read_bundle(bundle, trusted_key), Policy(step_dn=step_dn)
    if (device is None) == (place is None):
        raise InputError("wanted one of --device and --place, " + ("both are given" if device else "neither is given"))
    if device is not None:
        connector(device, loaded.directory)
    source = read_tiles(scene, reading(bands, scale, offset), tiles, loaded).first(limit)
    identity = run_identity(f"{scene or tiles} {bands} {scale} {offset} {limit or 'all'}", loaded, policy)
    folder = RunFolder(out, identity, resume, overwrite)
    host = open_engine(reference_engine, 1) if reference else None
    with (
        labgrid_place(place, labgrid_env, loaded) if place else nullcontext(device or "") as url,
        open_device(url, loaded, policy, engine, threads) as session,
        progress() as told,
    ):
        report = run_tiles(
            session, source.tiles, loaded, policy, folder, host, lambda done: told("tiles", done, source.total)
        )
    _print_json(asdict(report) | {"held": report.held})
    say(_run_words(report))
    raise typer.Exit(0 if report.held else 1)


@app.command()
def equal(
    out: Out,
    device: Annotated[
        list[str] | None, typer.Option("--device", help="repeat it; left out: this host, and three emulated processors")
    ] = None,
    scene: Annotated[list[str] | None, typer.Option("--scene", help="repeat it; as `sim downlink` takes it")] = None,
    bands: FileBands = None,
    scale: Scale = None,
    offset: Offset = None,
    tiles: TilesFile = None,
    bundle: BundleName = DEFAULT,
    step_dn: StepDn = Policy.step_dn,
    limit: Limit = None,
    resume: Annotated[bool, typer.Option("--resume", help="go on with a run that broke off")] = False,
    overwrite: Overwrite = False,
) -> None:
    """The same tiles on several devices: one sha256 of the tile codes from each. Exit 1 if they differ."""
    loaded, policy = read_bundle(bundle), Policy(step_dn=step_dn)
    if not scene and not tiles:
        raise InputError("wanted --scene, --tiles or both, none is given")
    read_as = reading(bands, scale, offset)
    sources = [read_tiles(name, read_as, None, loaded) for name in scene or []]
    sources += [read_tiles(None, read_as, tiles, loaded)] if tiles else []
    identity = run_identity(f"{scene} {bands} {scale} {offset} {tiles} {limit or 'all'}", loaded, policy)
    found = take_fingerprints(
        device or PROCESSORS, islice(chain.from_iterable(source.tiles for source in sources), limit), loaded, policy,
        lambda name: RunFolder(out / name, identity, resume, overwrite), say,
    )  # fmt: skip
    write_fingerprints(found, loaded, out / "equal.json")
    for one in found:
        state = f"{len(one.different)} of {one.tiles} tiles DIFFER" if one.different else "equal"
        print(f"{one.device:<24} {one.engine:<28} {one.tiles:>4} tiles  sha256 {one.sha256}  {state}")
    raise typer.Exit(1 if any(one.different for one in found) else 0)


@app.command()
def sysroot(root: Annotated[Path, typer.Option(help="where it is kept")] = ROOT) -> None:
    """Makes the arm64 root for emulated devices (needs debootstrap, qemu-user-static and a network; once)."""
    print(make_sysroot(root))
    say(f"now: --device emulated:CPU, with CPU one of {', '.join(processors())}")


def _run_words(report: RunReport) -> str:
    equal = report.compared - len(report.different)
    kinds = ", ".join(f"{count} {kind}" for kind, count in report.kinds.items())
    words = [f"{report.tiles} tiles ({kinds}), {report.octets} octets, sha256 {report.sha256[:16]}"]
    if report.compared:
        words.append(f"{equal} of {report.compared} equal to this host's, octet for octet")
    words += [f"{1e3 * seconds:.1f} ms a {kind} tile on the device" for kind, seconds in report.mean_s.items()]
    if report.timed_tiles < report.tiles and not report.device["emulated"]:
        words.append(f"{report.tiles - report.timed_tiles} tiles were kept without their times")
    if report.compute_s and report.wall_s:
        words.append(f"the device at work {100 * report.compute_s / report.wall_s:.0f} % of {report.wall_s:.1f} s")
    words += [f"{part} in {what}" for part, what in report.device["ran"].items()]
    if report.line:
        words.append(report.line)
    if report.device["emulated"]:
        words.append(f"emulated {report.device['emulated']}: octets are judged, times and memory are not")
    return "; ".join(words)


def _print_json(fields: dict[str, Any]) -> None:
    print(json.dumps(fields, indent=1))


for _command in (measure.profile, measure.sweep, measure.compare, measure.budget, campaign):
    app.command()(_command)


def main() -> None:
    """Runs a command; bad input is one line and exit 2."""
    sys.exit(guarded("hil", app))


if __name__ == "__main__":
    main()
