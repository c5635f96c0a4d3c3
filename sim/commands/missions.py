"""`sim mission`, `sim passes`, and the lists of what ships: missions, bundles, devices, engines."""

import dataclasses
import json
import re
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from payload.errors import InputError
from payload.sensor import Sensor, as_table
from sim.commands import options
from sim.commands.console import progress

mission_app = typer.Typer(
    help="Fly a mission over days (--scenes), or show, copy and check mission files.", invoke_without_command=True
)


@mission_app.callback()
def mission(
    context: typer.Context,
    mission: options.Mission = "phisat2",
    scenes: Annotated[str | None, typer.Option(help="A catalogue (JSON), a folder of scenes, or demo:N.")] = None,
    days: Annotated[float, typer.Option(help="How long to fly.")] = 7.0,
    station: Annotated[list[str] | None, typer.Option(help="A station; repeat it. All if left out.")] = None,
    rate_bps: Annotated[float | None, typer.Option(help="Ceiling of the rate, in place of the mission's.")] = None,
    start: Annotated[str | None, typer.Option(help="UTC. The orbit's epoch if left out.")] = None,
    take_s: Annotated[float | None, typer.Option(help="Length of a take: 20 of demo:N, a file's own size.")] = None,
    ndvi_mae: Annotated[float, typer.Option(help="The NDVI error that everything is coded for.")] = 0.02,
    sample: Annotated[int, typer.Option(help="Distinct scenes that are really coded.")] = 3,
    bundle: options.Bundle = "edge",
    engine: options.Engine = "openvino",
    seed: Annotated[int, typer.Option(help="Of sensing times, losses and the random order.")] = 0,
    out: Annotated[Path | None, typer.Option(help="A folder for mission.json, mission.html, map and timeline.")] = None,
    as_json: options.AsJson = False,
    overwrite: options.Overwrite = False,
) -> None:
    """Fly a mission over days: what gets down, in which order, and what binds. Without --scenes: show, copy, check."""
    if context.invoked_subcommand is not None:
        return
    if scenes is None:
        print(context.get_help())
        return
    from sim.planning.mission_plan import PlanRequest

    stations = tuple(station or ())
    asked = _mission_at(mission, rate_bps)
    _fly(
        PlanRequest(asked, scenes, days, stations, _time(start), take_s, sample, ndvi_mae, bundle, engine, seed),
        out, as_json, overwrite,
    )  # fmt: skip


def _fly(request: Any, out: Path | None, as_json: bool, overwrite: bool) -> None:
    from sim.planning import page, report, terminal
    from sim.planning.mission_plan import plan_mission
    from sim.products.delivery import refuse_in_the_way

    if out is not None:
        refuse_in_the_way(out, overwrite)
    with progress("mission") as advance:
        plan = plan_mission(request, advance)
    found = report.compose(plan)
    if out is not None:
        page.write(plan, found, out, overwrite)
    print(json.dumps(found, indent=2) if as_json else terminal.as_text(found))


def _mission_at(where: str, rate_bps: float | None) -> Any:
    from sim.mission.spec import load_mission

    loaded = load_mission(where)
    return loaded if rate_bps is None else replace(loaded, link=replace(loaded.link, rate_bps=rate_bps))


@mission_app.command("show")
def show(
    name: Annotated[str, typer.Argument(help="Shipped mission or a TOML file.")],
    as_json: Annotated[bool, typer.Option("--json", help="As read, with every default, as JSON.")] = False,
) -> None:
    """Print a mission's file, or with --json all that it says and leaves to the defaults."""
    from sim.mission.spec import load_mission, mission_file

    loaded = load_mission(name)
    print(json.dumps(_plain(loaded), indent=2) if as_json else mission_file(name).read_text(encoding="utf-8"), end="")


@mission_app.command("new")
def new(
    name: Annotated[str, typer.Argument(help="The new mission's name.")],
    like: Annotated[str, typer.Option("--from", help="The mission to copy.")] = "phisat2",
    out: Annotated[Path | None, typer.Option(help="The file to write; NAME.toml if left out.")] = None,
) -> None:
    """Copy a mission's file under a new name, to be changed."""
    from sim.mission.spec import load_mission, mission_file

    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", name):
        raise InputError(f"{name[:80]!r} is no name for a mission, wanted up to 64 letters, digits, dots, dashes")
    load_mission(like)
    text = mission_file(like).read_text(encoding="utf-8")
    path = out or Path(f"{name}.toml")
    _write_new(path, re.sub(r'(?m)^name\s*=\s*"[^"\n]*"', f'name = "{name}"', text, count=1))
    print(f"wrote {path}: change it, then: sim mission check {path}")


@mission_app.command("check")
def check(files: Annotated[list[Path], typer.Argument(help="TOML files of missions.")]) -> None:
    """Read missions as a run would. Exit 2 at the first that cannot be used."""
    from sim.mission.spec import load_mission

    for path in files:
        loaded = load_mission(path)
        asked = sum(value is not None for value in dataclasses.asdict(loaded.requirements).values())
        print(f"{path}: {loaded.name}, {len(loaded.stations)} stations, {asked} requirements, device {loaded.device}")


def passes(
    mission: options.Mission = "phisat2",
    station: Annotated[list[str] | None, typer.Option(help="A station; repeat it. All if left out.")] = None,
    days: Annotated[float, typer.Option(help="How far ahead to look.")] = 1.0,
    start: Annotated[str | None, typer.Option(help="UTC. The orbit's epoch if left out.")] = None,
    octets: Annotated[int, typer.Option(help="A volume to send: what fits in each pass, and when it is down.")] = 0,
    out: Annotated[Path | None, typer.Option(help="A folder for passes.json, passes.html, timeline and map.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The plan as JSON on stdout.")] = False,
    overwrite: options.Overwrite = False,
) -> None:
    """When stations see the satellite, and what each pass carries. Exit 1 if a volume given is not down in time."""
    from sim.mission import passes as module
    from sim.mission.spec import load_mission

    plan = module.plan_passes(load_mission(mission), station or [], _time(start), days, octets)
    if out is not None:
        _write_passes(plan, out, overwrite)
    print(json.dumps(module.as_json(plan), indent=2) if as_json else module.as_text(plan))
    if plan.waiting_octets:
        raise typer.Exit(1)


def _write_passes(plan: Any, out: Path, overwrite: bool) -> None:
    from sim.mission import passes as module
    from sim.mission import passes_page
    from sim.products.delivery import whole_or_nothing

    with whole_or_nothing(out, overwrite) as folder:
        (folder / "passes.json").write_text(json.dumps(module.as_json(plan), indent=2) + "\n", encoding="utf-8")
        passes_page.write(plan, folder)


def missions(as_json: options.AsJson = False) -> None:
    """List the missions that ship with Nadir."""
    from sim.mission.spec import load_mission, shipped_missions

    loaded = [load_mission(name) for name in shipped_missions()]
    _print_rows([{"name": m.name, "title": m.title, "device": m.device} for m in loaded], as_json)


def sensors(
    name: Annotated[str | None, typer.Argument(help="A sensor that ships, or a TOML file: its bands.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON; of one sensor as a manifest has it.")] = False,
) -> None:
    """List the sensors that ship with Nadir, or show one."""
    from sim.scenes.imager.sensor_files import load_sensor, shipped_sensors

    if name is not None:
        _show_sensor(load_sensor(name), as_json)
        return
    found = [load_sensor(shipped) for shipped in shipped_sensors()]
    _print_rows(
        [{"name": s.name, "kind": s.kind, "bands": len(s.bands), "bits": s.bits, "title": s.title} for s in found],
        as_json,
    )


def _show_sensor(sensor: Sensor, as_json: bool) -> None:
    if as_json:
        print(json.dumps(as_table(sensor), indent=2))
        return
    print(f"{sensor.name}: {sensor.title or sensor.kind}")
    counts, sign = f"{sensor.lowest} to {sensor.lowest + sensor.highest_dn}", "-" if sensor.offset < 0 else "+"
    means = f"{sensor.unit} = {sensor.scale:g} x count {sign} {abs(sensor.offset):g}"
    print(f"{sensor.kind}, {sensor.bits} bit, counts {counts}, {means}")
    if sensor.nodata is not None:
        print(f"no data is {sensor.nodata}")
    _print_rows([{key: "" if value is None else value for key, value in vars(b).items()} for b in sensor.bands], False)
    for group in sensor.groups:
        print(f"group {group.name}: {', '.join(group.bands)}")


def bundles(as_json: options.AsJson = False) -> None:
    """List the bundles that ship with Nadir."""
    from payload.bundle import load_bundle, shipped_bundles
    from sim.design.names import bands as band_names

    loaded = [load_bundle(name) for name in shipped_bundles()]
    _print_rows(
        [
            {
                "name": b.name,
                "id": f"0x{b.bundle_id:08x}",
                "codec": b.manifest["codec"]["kind"],
                "sensor": b.sensor.name,
                "bands": " ".join(b.bands) if as_json else band_names(b.bands),
                "tile_px": b.tile_px,
                "flight_octets": sum(path.stat().st_size for path in (b.directory / "flight").rglob("*")),
            }
            for b in loaded
        ],
        as_json,
    )


def devices(as_json: options.AsJson = False) -> None:
    """List the devices that time and energy can be modelled for, and what they run of a bundle."""
    from hil.devices.targets import load_target
    from sim.mission.devices import device_names

    found = [load_target(name) for name in device_names()]
    _print_rows(
        [
            {
                "name": t.name,
                "equality": t.equality,
                "rate_gmac_per_s": str(t.figure("rate_gmac_per_s")),
                "rate_is": t.figure("rate_gmac_per_s").status,
                "published_runs": len(t.published),
                "title": t.title,
                "engine": t.engine,
                "runs": t.runs,
            }
            for t in found
        ],
        as_json,
    )


def engines(as_json: options.AsJson = False) -> None:
    """List the engines that run networks, and whether they can run here."""
    from payload.engine import ENGINES, open_engine

    rows = []
    for name in ENGINES:
        try:
            rows.append({"name": name, "version": open_engine(name).version, "here": "yes"})
        except InputError as error:
            rows.append({"name": name, "version": "", "here": f"no: {error}"})
    _print_rows(rows, as_json)


def _print_rows(rows: list[dict[str, Any]], as_json: bool) -> None:
    """A table with one row a line, names of columns first."""
    if as_json:
        print(json.dumps(rows, indent=2))
        return
    columns = list(rows[0])
    cells = [columns, *([str(row[column]) for column in columns] for row in rows)]
    widths = [max(len(line[k]) for line in cells) for k in range(len(columns))]
    for line in cells:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def _write_new(path: Path, text: str) -> None:
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise InputError(f"{path} is already there; choose another --out") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror}), wanted a writable folder") from None


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, tuple | list):
        return [_plain(entry) for entry in value]
    return value.isoformat() if isinstance(value, datetime) else value


def _time(text: str | None) -> datetime | None:
    """A time from the command line; without a zone it is UTC."""
    if text is None:
        return None
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise InputError(f"--start is {text!r}, wanted a time like 2026-06-21T00:00:00") from None
    return at if at.tzinfo else at.replace(tzinfo=UTC)
