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
from hil.bench.meters import open_meter
from hil.bench.profiling import Plan
from hil.bench.profiling import profile as take_profile
from hil.bench.run import RunFolder, RunReport, run_identity
from hil.bench.run import run as run_tiles
from hil.command_group import Root
from hil.console import guarded, say, set_up_logging
from hil.host.client import open_device
from hil.host.deploy import deploy as deploy_agent
from hil.host.devices_here import device_kinds
from hil.host.emulation import ROOT, make_sysroot, processors
from hil.host.labgrid_place import place as labgrid_place
from hil.host.tiles_in import FileReading, TileSource, npz_tiles, scene_tiles
from hil.host.transports import connector
from hil.line.code_id import version
from hil.line.key import write_key
from hil.profiles.comparison import as_csv, as_junit, comparison, judge, read_threshold
from hil.profiles.demand import Margin, margins, read_demand
from hil.profiles.headline import headline
from hil.profiles.page import write_page
from hil.profiles.profile_file import load_profile, save_profile
from hil.progress import progress
from payload.bundle import DEFAULT, Bundle, load_bundle
from payload.engine import open_engine
from payload.errors import InputError
from payload.policy import Policy
from payload.signature import load_public_key

app = typer.Typer(
    name="hil", cls=Root, no_args_is_help=True, pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Hardware in the loop: the same payload on a device under test.",
)  # fmt: skip

DeviceUrl = Annotated[
    str,
    typer.Option(
        "--device",
        help="tcp://HOST:PORT, serial:///dev/tty?baud=N, ssh://HOST/PATH.pyz, stdio:COMMAND, host:, emulated:CPU",
    ),
]
BundleName = Annotated[str, typer.Option("--bundle", help="shipped name or directory")]
TrustedKeys = Annotated[
    list[Path] | None, typer.Option("--trusted-key", help="*.pub; repeat it: the bundle must be signed by one of these")
]
SceneName = Annotated[str | None, typer.Option("--scene", help="a scene, as `sim downlink` takes it")]
FileBands = Annotated[str | None, typer.Option("--bands", help="names of the scene's bands, e.g. B02,B03,B04,B08")]
Scale = Annotated[float | None, typer.Option("--scale", help="reflectance = stored x scale + offset")]
Offset = Annotated[float | None, typer.Option("--offset", help="as --scale")]
TilesFile = Annotated[Path | None, typer.Option("--tiles", help=".npz with x uint16 [N, bands, height, width]")]
EngineName = Annotated[str, typer.Option("--engine", help="auto, openvino, onnxruntime or native: on the device")]
Threads = Annotated[int, typer.Option("--threads", min=1, max=256, help="of the device's runtime")]
StepDn = Annotated[float, typer.Option("--step-dn", help="finest quantiser step in DN")]
Limit = Annotated[int | None, typer.Option("--limit", min=1, help="at most so many tiles")]
Out = Annotated[Path, typer.Option("--out", "-o", help="output directory")]
Overwrite = Annotated[bool, typer.Option("--overwrite")]
MissionName = Annotated[str | None, typer.Option("--mission", help="a shipped mission's name, or a TOML file")]


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
    print(deploy_agent(_bundle(bundle, trusted_key), to))


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
    loaded, policy = _bundle(bundle, trusted_key), Policy(step_dn=step_dn)
    if (device is None) == (place is None):
        raise InputError("wanted one of --device and --place, " + ("both are given" if device else "neither is given"))
    if device is not None:
        connector(device, loaded.directory)
    source = _tiles(scene, _reading(bands, scale, offset), tiles, loaded).first(limit)
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
    loaded, policy = load_bundle(bundle, flight_only=True), Policy(step_dn=step_dn)
    if not scene and not tiles:
        raise InputError("wanted --scene, --tiles or both, none is given")
    reading = _reading(bands, scale, offset)
    sources = [_tiles(name, reading, None, loaded) for name in scene or []]
    sources += [_tiles(None, reading, tiles, loaded)] if tiles else []
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
def profile(
    device: DeviceUrl,
    out: Out,
    scene: SceneName = None,
    bands: FileBands = None,
    scale: Scale = None,
    offset: Offset = None,
    tiles: TilesFile = None,
    bundle: BundleName = DEFAULT,
    trusted_key: TrustedKeys = None,
    power: Annotated[
        str | None, typer.Option(help="sysfs:PATH, scpi:RESOURCE, ppk2:PORT, joulescope: or model:IDLE_W,BUSY_W")
    ] = None,
    repeats: Annotated[int, typer.Option(min=1)] = 3,
    window_s: Annotated[float, typer.Option(help="length of the energy windows")] = 12.0,
    peak_gmac_s: Annotated[float | None, typer.Option(help="the device's published peak, for the roofline")] = None,
    peak_source: Annotated[str, typer.Option(help="where that peak is published")] = "",
    engine: EngineName = "auto",
    threads: Threads = 1,
    step_dn: StepDn = Policy.step_dn,
    limit: Limit = 64,
    mission: MissionName = None,
    highest_c: Annotated[float | None, typer.Option(help="temperature the device may reach")] = None,
    overwrite: Overwrite = False,
) -> None:
    """Measures latency, memory and energy of a device: profile.json and profile.html."""
    loaded, policy = _bundle(bundle, trusted_key), Policy(step_dn=step_dn)
    connector(device, loaded.directory)
    source = list(_tiles(scene, _reading(bands, scale, offset), tiles, loaded).first(limit).tiles)
    _fresh(out, ("profile.json", "profile.html"), overwrite)
    demand = read_demand(mission, highest_c) if mission else None
    meter = open_meter(power) if power else None
    plan = Plan(repeats, window_s, threads=threads, peak_gmac_s=peak_gmac_s, peak_source=peak_source)
    with open_device(device, loaded, policy, engine, threads) as session, progress() as told:
        found = take_profile(session, source, loaded, meter, plan, told)
    judged = margins(found, demand) if demand else []
    out.mkdir(parents=True, exist_ok=True)
    save_profile(found, out / "profile.json")
    write_page(found, out / "profile.html", demand.name if demand else "", judged)
    for figure in headline(found):
        print(figure.line())
    for doubt in found.complaints:
        say(f"doubtful: {doubt}")
    say(f"{out / 'profile.html'}")
    if demand:
        _judge(judged, demand.name)


@app.command()
def compare(
    profiles: Annotated[list[Path], typer.Argument(help="two or more profile.json")],
    threshold: Annotated[
        list[str] | None, typer.Option(help="e.g. 'p50<=1.1': at most 1.1 times the first's; repeat it")
    ] = None,
    junit: Annotated[Path | None, typer.Option(help="the verdicts as JUnit XML, into this file")] = None,
    csv: Annotated[Path | None, typer.Option(help="the table as CSV, into this file")] = None,
) -> None:
    """Profiles held against the first: figures, equality of the tile codes, thresholds. Exit 1 if one fails."""
    if len(profiles) < 2:
        raise InputError(f"{len(profiles)} profile given, wanted two or more")
    thresholds = [read_threshold(text) for text in threshold or []]
    found, names = [load_profile(path) for path in profiles], [str(path) for path in profiles]
    verdicts = judge(found, names, thresholds)
    for line in comparison(found):
        print(line)
    for verdict in verdicts:
        say(f"{'held' if verdict.held else 'FAILED':<7}{verdict.profile}: {verdict.judged} ({verdict.found})")
    if csv:
        _write(csv, as_csv(found, names))
    if junit:
        _write(junit, as_junit(verdicts))
    raise typer.Exit(0 if all(verdict.held for verdict in verdicts) else 1)


@app.command()
def budget(
    profile: Annotated[Path, typer.Argument(help="profile.json")],
    mission: Annotated[str, typer.Option(help="a shipped mission's name, or a TOML file")],
    highest_c: Annotated[float | None, typer.Option(help="temperature the device may reach")] = None,
) -> None:
    """A profile against a mission: real-time factor, duty cycle, energy of an orbit, and what fails first."""
    demand = read_demand(mission, highest_c)
    _judge(margins(load_profile(profile), demand), demand.name)


@app.command()
def sysroot(root: Annotated[Path, typer.Option(help="where it is kept")] = ROOT) -> None:
    """Makes the arm64 root for emulated devices (needs debootstrap, qemu-user-static and a network; once)."""
    print(make_sysroot(root))
    say(f"now: --device emulated:CPU, with CPU one of {', '.join(processors())}")


def _bundle(name: str, trusted: list[Path] | None) -> Bundle:
    keys = [load_public_key(path) for path in trusted] if trusted else None
    return load_bundle(name, flight_only=True, trusted_keys=keys)


def _reading(bands: str | None, scale: float | None, offset: float | None) -> FileReading:
    names = tuple(name.strip() for name in bands.split(",")) if bands else None
    return FileReading(names, scale, offset)


def _tiles(scene: str | None, reading: FileReading, tiles: Path | None, bundle: Bundle) -> TileSource:
    if (scene is None) == (tiles is None):
        raise InputError("wanted one of --scene and --tiles, " + ("both are given" if scene else "neither is given"))
    if scene is None:
        return npz_tiles(tiles or Path(), bundle.tile_px, bundle.bands)
    return scene_tiles(scene, bundle.tile_px, bundle.bands, reading)


def _fresh(out: Path, names: tuple[str, ...], overwrite: bool) -> None:
    there = [name for name in names if (out / name).exists()]
    if there and not overwrite:
        raise InputError(f"{out / there[0]} exists; use --overwrite, or another --out")


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror}); choose another file") from None


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


def _judge(found: list[Margin], name: str) -> None:
    for margin in found:
        state = "held" if margin.held else "FAILED"
        known = "unknown" if margin.used is None else f"{margin.used:.4g}"
        used = f"{known:>10} of {margin.available:>10.4g} {margin.unit:<6}"
        print(f"{state:<7}{margin.name:<56}{used} {margin.words:<28} {margin.basis}")
    if not found:
        raise InputError(f"mission {name}: asks nothing of a device; add [budgets] (docs/mission.md)")
    first = found[0]
    say(f"{name}: {first.name} {'is the tightest' if first.held else 'fails first'}")
    raise typer.Exit(0 if all(margin.held for margin in found) else 1)


def _print_json(fields: dict[str, Any]) -> None:
    print(json.dumps(fields, indent=1))


def main() -> None:
    """Runs a command; bad input is one line and exit 2."""
    sys.exit(guarded("hil", app))


if __name__ == "__main__":
    main()
