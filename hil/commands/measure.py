"""What measures a device, and what reads the measurements: `hil profile`, `sweep`, `compare`, `budget`."""

import json
from pathlib import Path
from typing import Annotated

import typer

from hil.bench.meters import open_meter
from hil.bench.profiling import Plan
from hil.bench.profiling import profile as take_profile
from hil.bench.soak import duration_s
from hil.bench.sweep import SweepPlan
from hil.bench.sweep import sweep as take_sweep
from hil.commands.options import (
    BundleName,
    DeviceUrl,
    EngineName,
    FileBands,
    Limit,
    MissionName,
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
    require_fresh,
    write_text,
)
from hil.console import say
from hil.host.client import open_device
from hil.host.transports import connector
from hil.profiles.comparison import as_csv, as_junit, comparison, judge, read_threshold
from hil.profiles.demand import Margin, margins, read_demand
from hil.profiles.headline import headline
from hil.profiles.page import write_page
from hil.profiles.profile_file import load_profile, save_profile
from hil.profiles.sweep_file import as_csv as sweep_csv
from hil.profiles.sweep_file import as_json as sweep_json
from hil.profiles.sweep_page import write_page as write_sweep_page
from hil.profiles.tables import as_table
from hil.progress import progress
from payload.bundle import DEFAULT, Bundle
from payload.errors import InputError
from payload.policy import Policy
from payload.tiles import Tile


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
    calibration: Annotated[str, typer.Option(help="of the power meter, for the report: '2026-03-01, 0.5 %'")] = "",
    soak: Annotated[str | None, typer.Option(help="a sustained run of so long, e.g. 10m")] = None,
    accuracy: Annotated[bool, typer.Option(help="PSNR, rate and cloud IoU of the same tiles")] = True,
    cloud_reference: Annotated[
        Path | None, typer.Option(help=".npz with `cloud` or `scl`: where the clouds of the tiles are")
    ] = None,
    engine: EngineName = "auto",
    threads: Threads = 1,
    step_dn: StepDn = Policy.step_dn,
    limit: Limit = 64,
    mission: MissionName = None,
    highest_c: Annotated[float | None, typer.Option(help="temperature the device may reach")] = None,
    overwrite: Overwrite = False,
) -> None:
    """Measures latency, memory, energy and accuracy of a device: profile.json, profile.html and profile.csv."""
    loaded, policy = read_bundle(bundle, trusted_key, mission), Policy(step_dn=step_dn)
    connector(device, loaded.directory)
    source = list(read_tiles(scene, reading(bands, scale, offset), tiles, loaded).first(limit).tiles)
    require_fresh(out, ("profile.json", "profile.html", "profile.csv"), overwrite)
    demand = read_demand(mission, highest_c) if mission else None
    meter = open_meter(power) if power else None
    plan = Plan(
        repeats, window_s, threads=threads, peak_gmac_s=peak_gmac_s, peak_source=peak_source, calibration=calibration,
        soak_s=duration_s(soak) if soak else None, accuracy=accuracy, scene=scene, cloud_reference=cloud_reference,
    )  # fmt: skip
    with open_device(device, loaded, policy, engine, threads) as session, progress() as told:
        out.mkdir(parents=True, exist_ok=True)  # now: what took an hour must not fail for want of a folder
        found = take_profile(session, source, loaded, meter, plan, told)
    judged = margins(found, demand) if demand else []
    save_profile(found, out / "profile.json")
    write_text(out / "profile.csv", as_table(found))
    write_page(found, out / "profile.html", demand.name if demand else "", judged)
    for figure in headline(found):
        print(figure.line())
    for doubt in found.complaints:
        say(f"doubtful: {doubt}")
    say(f"{out / 'profile.html'}")
    if demand:
        _judge(judged, demand.name)


def sweep(
    device: DeviceUrl,
    out: Out,
    scene: SceneName = None,
    bands: FileBands = None,
    scale: Scale = None,
    offset: Offset = None,
    tiles: TilesFile = None,
    bundle: BundleName = DEFAULT,
    trusted_key: TrustedKeys = None,
    threads: Annotated[str, typer.Option("--threads", help="e.g. 1,2,4: of the device's runtime")] = "1,2",
    batch: Annotated[str, typer.Option("--batch", help="e.g. 1,2,4,8: of the networks alone")] = "1,2,4",
    tile_px: Annotated[str, typer.Option("--tile-px", help="e.g. 128,256,512, on host: only")] = "",
    engine: EngineName = "auto",
    repeats: Annotated[int, typer.Option(min=1)] = 2,
    limit: Limit = 16,
    overwrite: Overwrite = False,
) -> None:
    """A device over threads, batch and tile size, with the Pareto front: sweep.html, sweep.json and sweep.csv."""
    loaded = read_bundle(bundle, trusted_key)
    connector(device, loaded.directory)
    plan = SweepPlan(
        _numbers("threads", threads), _numbers("batch", batch), _numbers("tile-px", tile_px), engine, repeats
    )  # fmt: skip
    require_fresh(out, ("sweep.json", "sweep.html", "sweep.csv"), overwrite)
    read_as = reading(bands, scale, offset)

    def tiles_of(sized: Bundle) -> list[Tile]:
        return list(read_tiles(scene, read_as, tiles, sized).first(limit).tiles)

    with progress() as told:
        found = take_sweep(device, loaded, Policy(), tiles_of, plan, told)
    out.mkdir(parents=True, exist_ok=True)
    write_text(out / "sweep.json", json.dumps(sweep_json(found), indent=1) + "\n")
    write_text(out / "sweep.csv", sweep_csv(found))
    write_sweep_page(found, out / "sweep.html")
    for point in found.points:
        setting = f"{point.what:<15}{point.tile_px:>5} px {point.threads:>3} thr  batch {point.batch:<3}"
        known = point.call_s is not None and point.mpx_s is not None
        figures = f"{1e3 * (point.call_s or 0):>9.4g} ms {point.mpx_s:>8.4g} Mpx/s" if known else point.why
        print(f"{setting} {figures}{'  on the front' if point.front else ''}")
    say(f"{out / 'sweep.html'}")


def _numbers(name: str, text: str) -> tuple[int, ...]:
    """`1,2,4` -> numbers."""
    try:
        return tuple(int(part) for part in text.split(",") if part.strip())
    except ValueError:
        raise InputError(f"--{name} {text!r}: wanted whole numbers joined by commas, e.g. 1,2,4") from None


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
        write_text(csv, as_csv(found, names))
    if junit:
        write_text(junit, as_junit(verdicts))
    raise typer.Exit(0 if all(verdict.held for verdict in verdicts) else 1)


def budget(
    profile: Annotated[Path, typer.Argument(help="profile.json")],
    mission: Annotated[str, typer.Option(help="a shipped mission's name, or a TOML file")],
    highest_c: Annotated[float | None, typer.Option(help="temperature the device may reach")] = None,
) -> None:
    """A profile against a mission: real-time factor, duty cycle, energy of an orbit, and what fails first."""
    demand = read_demand(mission, highest_c)
    _judge(margins(load_profile(profile), demand), demand.name)


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
