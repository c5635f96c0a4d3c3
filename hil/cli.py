"""The command line of the bench: parses, calls one function, prints. JSON on stdout, words on stderr.

Exit 0: all held; 1: octets differ or a budget failed; 2: bad input.
"""

import json
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import asdict
from itertools import chain, islice
from pathlib import Path
from typing import Annotated, Any

import typer

from hil.agent.serve import main as serve
from hil.bench.equal import PROCESSORS, write_fingerprints
from hil.bench.equal import equal as take_fingerprints
from hil.bench.meters import open_meter
from hil.bench.profiling import Plan
from hil.bench.profiling import profile as take_profile
from hil.bench.run import RunFolder, RunReport, run_identity
from hil.bench.run import run as run_tiles
from hil.host.client import open_device
from hil.host.deploy import deploy as deploy_agent
from hil.host.emulation import ROOT, make_sysroot, processors
from hil.host.labgrid_place import place as labgrid_place
from hil.host.tiles_in import npz_tiles, scene_tiles
from hil.line.key import write_key
from hil.profiles.demand import Margin, margins, read_demand
from hil.profiles.page import write_page
from hil.profiles.profile_file import load_profile, save_profile
from payload.bundle import DEFAULT, Bundle, load_bundle
from payload.engine import open_engine
from payload.errors import InputError
from payload.policy import Policy
from payload.tiles import Tile

app = typer.Typer(
    name="hil", no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False,
    help="Hardware in the loop: the same payload on a device under test.",
)  # fmt: skip

Device = Annotated[
    str,
    typer.Option(
        "--device",
        help="tcp://HOST:PORT, serial:///dev/tty?baud=N, ssh://HOST/PATH.pyz, stdio:COMMAND, host:, emulated:CPU",
    ),
]
BundleName = Annotated[str, typer.Option("--bundle", help="shipped name or directory")]
SceneName = Annotated[str | None, typer.Option("--scene", help="a scene, as `sim downlink` takes it")]
TilesFile = Annotated[Path | None, typer.Option("--tiles", help=".npz with x uint16 [N, bands, height, width]")]
EngineName = Annotated[str, typer.Option("--engine", help="auto, openvino or onnxruntime: on the device")]
Threads = Annotated[int, typer.Option("--threads", min=1, max=256, help="of the device's runtime")]
StepDn = Annotated[float, typer.Option("--step-dn", help="finest quantiser step in DN")]
Limit = Annotated[int | None, typer.Option("--limit", min=1, help="at most so many tiles")]
Out = Annotated[Path, typer.Option("--out", "-o", help="output directory")]
Overwrite = Annotated[bool, typer.Option("--overwrite")]


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []})
def agent(context: typer.Context) -> None:
    """The program on the device: --tcp HOST:PORT, --serial PATH or --stdio, with --bundle DIR."""
    raise typer.Exit(serve(context.args))


@app.command()
def key(file: Annotated[Path, typer.Argument(help="a new file; the agent gets a copy of it")]) -> None:
    """Makes a key that host and agent share: `--key FILE` there, `?key=FILE` in the device's URL here."""
    write_key(file)
    _say(f"{file}: copy it to the device for `--key`, and add ?key={file} to the device's URL")


@app.command()
def deploy(
    bundle: BundleName = DEFAULT,
    to: Annotated[str, typer.Option("--to", help="a directory, or ssh://USER@HOST/DIRECTORY")] = "build/agent",
) -> None:
    """Packs agent and bundle into one zipapp named by its sha256, puts it there, prints the device's URL."""
    print(deploy_agent(load_bundle(bundle, flight_only=True), to))


@app.command()
def run(
    out: Out,
    device: Annotated[str | None, typer.Option("--device", help="as `hil profile` takes it")] = None,
    place: Annotated[
        str | None, typer.Option("--place", help="a board's labgrid place instead: NAME or NAME?python=PATH")
    ] = None,
    labgrid_env: Annotated[Path | None, typer.Option(help="labgrid environment file, as docs/labgrid.yaml")] = None,
    scene: SceneName = None,
    tiles: TilesFile = None,
    bundle: BundleName = DEFAULT,
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
    loaded, policy = load_bundle(bundle, flight_only=True), Policy(step_dn=step_dn)
    source = _tiles(scene, tiles, loaded, limit)
    if (device is None) == (place is None):
        raise InputError("wanted one of --device and --place, " + ("both are given" if device else "neither is given"))
    folder = RunFolder(out, run_identity(f"{scene or tiles} {limit or 'all'}", loaded, policy), resume, overwrite)
    host = open_engine(reference_engine, 1) if reference else None
    with (
        labgrid_place(place, labgrid_env, loaded) if place else nullcontext(device or "") as url,
        open_device(url, loaded, policy, engine, threads) as session,
    ):
        report = run_tiles(session, source, loaded, policy, folder, host)
    _print_json(asdict(report) | {"held": report.held})
    _say(_run_words(report))
    raise typer.Exit(0 if report.held else 1)


@app.command()
def equal(
    out: Out,
    device: Annotated[
        list[str] | None, typer.Option("--device", help="repeat it; left out: this host, and three emulated processors")
    ] = None,
    scene: Annotated[list[str] | None, typer.Option("--scene", help="repeat it; as `sim downlink` takes it")] = None,
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
    sources = [scene_tiles(name, loaded.tile_px) for name in scene or []]
    sources += [npz_tiles(tiles, loaded.tile_px, loaded.bands)] if tiles else []
    identity = run_identity(f"{scene} {tiles} {limit or 'all'}", loaded, policy)
    found = take_fingerprints(
        device or PROCESSORS, islice(chain(*sources), limit), loaded, policy,
        lambda name: RunFolder(out / name, identity, resume, overwrite), _say,
    )  # fmt: skip
    write_fingerprints(found, loaded, out / "equal.json")
    for one in found:
        state = f"{len(one.different)} of {one.tiles} tiles DIFFER" if one.different else "equal"
        print(f"{one.device:<24} {one.engine:<28} {one.tiles:>4} tiles  sha256 {one.sha256}  {state}")
    raise typer.Exit(1 if any(one.different for one in found) else 0)


@app.command()
def profile(
    device: Device,
    out: Out,
    scene: SceneName = None,
    tiles: TilesFile = None,
    bundle: BundleName = DEFAULT,
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
    mission: Annotated[Path | None, typer.Option(help="a mission's TOML: which budget fails first")] = None,
    highest_c: Annotated[float | None, typer.Option(help="temperature the device may reach")] = None,
    overwrite: Overwrite = False,
) -> None:
    """Measures latency, memory and energy of a device: profile.json and profile.html."""
    loaded, policy = load_bundle(bundle, flight_only=True), Policy(step_dn=step_dn)
    source = list(_tiles(scene, tiles, loaded, limit))
    _fresh(out, ("profile.json", "profile.html"), overwrite)
    demand = read_demand(mission, highest_c) if mission else None
    meter = open_meter(power) if power else None
    with open_device(device, loaded, policy, engine, threads) as session:
        plan = Plan(repeats, window_s, threads=threads, peak_gmac_s=peak_gmac_s, peak_source=peak_source)
        found = take_profile(session, source, loaded, meter, plan)
    judged = margins(found, demand) if demand else []
    save_profile(found, out / "profile.json")
    write_page(found, out / "profile.html", demand.name if demand else "", judged)
    for doubt in found.complaints:
        _say(f"doubtful: {doubt}")
    _say(f"{out / 'profile.html'}")
    if demand:
        _judge(judged, demand.name)


@app.command()
def compare(profiles: Annotated[list[Path], typer.Argument(help="two or more profile.json")]) -> None:
    """Profiles side by side: devices, bundles, versions. The first is the yardstick."""
    if len(profiles) < 2:
        raise InputError(f"{len(profiles)} profile given, wanted two or more")
    for line in comparison([load_profile(path) for path in profiles]):
        print(line)


@app.command()
def budget(
    profile: Annotated[Path, typer.Argument(help="profile.json")],
    mission: Annotated[Path, typer.Option(help="a mission's TOML")],
    highest_c: Annotated[float | None, typer.Option(help="temperature the device may reach")] = None,
) -> None:
    """A profile against a mission: real-time factor, duty cycle, energy of an orbit, and what fails first."""
    demand = read_demand(mission, highest_c)
    _judge(margins(load_profile(profile), demand), demand.name)


@app.command()
def sysroot(root: Annotated[Path, typer.Option(help="where it is kept")] = ROOT) -> None:
    """Makes the arm64 root for emulated devices (needs debootstrap, qemu-user-static and a network; once)."""
    print(make_sysroot(root))
    _say(f"now: --device emulated:CPU, with CPU one of {', '.join(processors())}")


def comparison(found: list[Any]) -> list[str]:
    """A table of the profiles, one figure a line; times and energies also as a ratio to the first profile's."""
    rows: list[tuple[str, list[Any]]] = [
        ("device", [p.device.name for p in found]),
        ("cpu", [p.device.cpu for p in found]),
        ("engine", [f"{p.device.engine}, {p.device.threads} thr" for p in found]),
        ("bundle", [f"{p.bundle} {p.bundle_id:08x}" for p in found]),
        ("agent code", [p.code_id for p in found]),
        ("tiles", [p.tiles for p in found]),
        ("tile codes", [p.sha256[:16] for p in found]),
    ]
    times = [p.performance for p in found]
    for name in ("p50", "p95", "p99", "max"):
        rows.append((f"tile {name}, ms", [1e3 * getattr(t.tile_s, f"{name}_s") if t else None for t in times]))
    for stage in dict.fromkeys(stage for t in times if t for stage in t.stages_s):
        rows.append(
            (
                f"  {stage} p50, ms",
                [1e3 * t.stages_s[stage].p50_s if t and stage in t.stages_s else None for t in times],
            )
        )
    rows.append(("Mpx/s", [t.tile_mpx_s if t else None for t in times]))
    rows.append(("peak memory, MiB", [t.peak_memory_mib if t else None for t in times]))
    for name, key in (("net mJ/tile", "tile_net_j"), ("gross mJ/tile", "tile_gross_j")):
        rows.append((name, [1e3 * getattr(p.energy, key) if p.energy else None for p in found]))
    rows.append(("energy is", [p.energy.basis.partition(" ")[0].rstrip(":") if p.energy else "-" for p in found]))
    return [f"{name:<20}" + "".join(f"{_cell(value, values[0]):>34}" for value in values) for name, values in rows]


def _cell(value: Any, first: Any) -> str:
    if value is None:
        return "-"
    if not isinstance(value, float):
        return str(value)[:32]
    return f"{value:.4g}" + (
        f" (x{value / first:.2f})" if isinstance(first, float) and first and value is not first else ""
    )


def _tiles(scene: str | None, tiles: Path | None, bundle: Bundle, limit: int | None) -> Iterator[Tile]:
    if (scene is None) == (tiles is None):
        raise InputError("wanted one of --scene and --tiles, " + ("both are given" if scene else "neither is given"))
    found = scene_tiles(scene, bundle.tile_px) if scene else npz_tiles(tiles or Path(), bundle.tile_px, bundle.bands)
    return islice(found, limit)


def _fresh(out: Path, names: tuple[str, ...], overwrite: bool) -> None:
    there = [name for name in names if (out / name).exists()]
    if there and not overwrite:
        raise InputError(f"{out / there[0]} exists; use --overwrite, or another --out")
    out.mkdir(parents=True, exist_ok=True)


def _run_words(report: RunReport) -> str:
    equal = report.compared - len(report.different)
    words = [f"{report.tiles} tiles, {report.octets} octets, sha256 {report.sha256[:16]}"]
    if report.compared:
        words.append(f"{equal} of {report.compared} equal to this host's, octet for octet")
    if report.compute_s is not None and report.tiles:
        words.append(f"{1e3 * report.compute_s / report.tiles:.1f} ms a tile on the device")
    if report.compute_s and report.wall_s:
        words.append(f"the device at work {100 * report.compute_s / report.wall_s:.0f} % of {report.wall_s:.1f} s")
    if report.line:
        words.append(report.line)
    if report.device["emulated"]:
        words.append(f"emulated {report.device['emulated']}: no times")
    return "; ".join(words)


def _judge(found: list[Margin], name: str) -> None:
    for margin in found:
        state = "held" if margin.held else "FAILED"
        used = f"{margin.used:>10.4g} of {margin.available:>10.4g} {margin.unit:<6}"
        print(f"{state:<7}{margin.name:<44}{used} {margin.words:<28} {margin.basis}")
    if not found:
        raise InputError(f"mission {name}: asks nothing of this profile; profile with --power, or add budgets")
    first = found[0]
    _say(f"{name}: {first.name} {'is the tightest' if first.held else 'fails first'}")
    raise typer.Exit(0 if all(margin.held for margin in found) else 1)


def _print_json(fields: dict[str, Any]) -> None:
    print(json.dumps(fields, indent=1))


def _say(words: str) -> None:
    print(words, file=sys.stderr)


def main() -> None:
    """Entry point of the console script `hil`."""
    try:
        app()
    except InputError as error:
        print(f"hil: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
