"""The command line of the ground: parses, calls one function, prints its result.

Exit 0: all held; 1: a requirement failed; 2: bad input.
"""

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from payload.bundle import DEFAULT
from payload.errors import InputError

OPPONENTS = "klt-jpeg2000-joint,klt-diff-jpeg2000-joint,klt-jpeg2000,jpeg2000,jpegxl,htj2k,ccsds121,jpeg"
OPPONENTS += ",klt-hevc,klt-av1,klt-vvc"  # where the extra `opponents` is installed


app = typer.Typer(
    name="sim",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Nadir: an onboard inference payload, from scene to ground.",
)


@app.callback()
def _root() -> None:
    """Nadir: an onboard inference payload, from scene to ground."""


@app.command("downlink")
def _downlink(
    scene: Annotated[str, typer.Option(help="GeoTIFF or COG, Sentinel-2 .SAFE folder or .zip, or: demo.")],
    mission: Annotated[str, typer.Option(help="Shipped mission or a TOML file.")] = "phisat2",
    bundle: Annotated[str, typer.Option(help="Shipped bundle or a directory.")] = DEFAULT,
    engine: Annotated[str, typer.Option(help="openvino, onnxruntime or native.")] = "openvino",
    psnr: Annotated[float | None, typer.Option(help="Constant quality: PSNR (peak 10 000) of every tile, dB.")] = None,
    seed: Annotated[int, typer.Option(help="Of the channel, and of the demo scene.")] = 0,
    bands: Annotated[str | None, typer.Option(help="Names of the file's bands, e.g. B02,B03,B04,B08.")] = None,
    out: Annotated[Path, typer.Option(help="Folder for report, pictures, rasters and packets.")] = Path("out/downlink"),
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an earlier run in --out.")] = False,
    device: Annotated[str | None, typer.Option(help="A device codes the tiles: a URL as docs/hil.md has it.")] = None,
    compare: Annotated[bool, typer.Option("--compare", help="Every octet of the device with this host's own.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="The report as JSON on stdout.")] = False,
) -> None:
    """Send a scene through payload, link and ground, verify it, write the report. Exit 1 if a requirement failed."""
    from sim.downlink import Request, downlink
    from sim.onboard.sending import Device
    from sim.report.files import all_held, arrange, canonical_json
    from sim.report.terminal import as_text

    names = tuple(name.strip() for name in bands.split(",")) if bands else None
    if compare and device is None:
        raise InputError("--compare holds a device's octets against this host's; give --device, too")
    under_test = Device(device, compare) if device else None
    with _progress("downlink") as progress:
        report = downlink(
            Request(scene, out, mission, bundle, engine, seed, names, overwrite, under_test, psnr), progress
        )
    print(canonical_json(arrange(report)) if as_json else as_text(report, out), end="")
    if not all_held(report):
        raise typer.Exit(1)


@app.command("receive")
def _receive(
    stream: Annotated[Path, typer.Option(help="A file of space packets, such as packets.bin.")],
    mission: Annotated[str, typer.Option(help="Shipped mission or a TOML file: whose packets these are.")] = "phisat2",
    bundle: Annotated[list[str] | None, typer.Option(help="Shipped bundle or a directory; repeat it.")] = None,
    engine: Annotated[str, typer.Option(help="openvino or onnxruntime.")] = "openvino",
    out: Annotated[Path, typer.Option(help="Folder for rasters and report.")] = Path("out/received"),
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an earlier run in --out.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="The report as JSON on stdout.")] = False,
) -> None:
    """Decode a stream with nothing else at hand: every scene in it becomes a raster with its place and a report."""
    from sim.receive import ReceiveRequest, receive
    from sim.report.files import canonical_json
    from sim.report.received import as_text

    with _progress("receive") as progress:
        request = ReceiveRequest(stream, out, mission, tuple(bundle or [DEFAULT]), engine, overwrite)
        report = receive(request, progress)
    print(canonical_json(report) if as_json else as_text(report, out), end="")


@app.command("passes")
def _passes(
    mission: Annotated[str, typer.Option(help="Shipped mission or a TOML file.")] = "phisat2",
    station: Annotated[list[str] | None, typer.Option(help="A station; repeat it. All if left out.")] = None,
    days: Annotated[float, typer.Option(help="How far ahead to look.")] = 1.0,
    start: Annotated[str | None, typer.Option(help="UTC. The orbit's epoch if left out.")] = None,
    octets: Annotated[int, typer.Option(help="A volume to send: what fits in each pass, and when it is down.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="The plan as JSON on stdout.")] = False,
) -> None:
    """When stations see the satellite, and what each pass carries. Exit 1 if a volume given is not down in time."""
    from sim.mission import passes
    from sim.mission.spec import load_mission

    plan = passes.plan_passes(load_mission(mission), station or [], _time(start), days, octets)
    print(json.dumps(passes.as_json(plan), indent=2) if as_json else passes.as_text(plan))
    if plan.waiting_octets:
        raise typer.Exit(1)


@app.command("bench")
def _bench(
    bundle: Annotated[str, typer.Option(help="Shipped bundle or a directory.")] = DEFAULT,
    engine: Annotated[str | None, typer.Option(help="One engine; all that run here if left out.")] = None,
    tiles: Annotated[list[Path] | None, typer.Option(help="Time over these tiles, not over a generated scene.")] = None,
    cr: Annotated[float, typer.Option(min=2.0, help="Compression ratio to code at, against 16 bit.")] = 20.0,
    granule_px: Annotated[int, typer.Option(help="Side of the scene whose memory is measured; 0: none.")] = 10_980,
    as_json: Annotated[bool, typer.Option("--json", help="The figures as JSON on stdout.")] = False,
) -> None:
    """Speed of each stage beside classical coders, and the memory of a granule. Exit 1 if that passes its limit."""
    from sim.compare import speed

    engines = (engine,) if engine else speed.engines_here()
    result = speed.benchmark(speed.Question(bundle, engines, tuple(tiles or ()), cr), granule_px)
    print(json.dumps(result.as_dict(), indent=2) if as_json else speed.as_text(result))
    if not result.held:
        raise typer.Exit(1)


@app.command("evaluate")
def _evaluate(
    tiles: Annotated[list[Path], typer.Option(help="An .npz of tiles (x [N,B,H,W] uint16, bands), or GeoTIFFs.")],
    more: Annotated[list[Path] | None, typer.Argument(hidden=True)] = None,
    bundle: Annotated[
        list[str] | None, typer.Option(help="Shipped bundle or a directory; repeat it. none: the opponents alone.")
    ] = None,
    against: Annotated[str, typer.Option(help="Opponents, comma-separated.")] = OPPONENTS,
    out: Annotated[Path, typer.Option(help="Where rd.json, rd.html and the plots go.")] = Path("out/evaluate"),
    limit: Annotated[int | None, typer.Option(min=1, help="The first so many tiles only.")] = None,
    picture_px: Annotated[
        int | None, typer.Option(min=64, help="Side of the pictures coded; a bundle cuts them. Its tile if left out.")
    ] = None,
    engine: Annotated[str, typer.Option(help="openvino, onnxruntime or native.")] = "openvino",
    as_json: Annotated[bool, typer.Option("--json", help="rd.json on stdout.")] = False,
) -> None:
    """Rate and distortion of one bundle or several beside classical codecs, on the same tiles in one run."""
    from sim.compare import report
    from sim.compare.evaluate import evaluate

    with _progress("tiles") as advance:
        opponents = [name.strip() for name in against.split(",") if name.strip()]
        bundles = [name for name in bundle or [DEFAULT] if name != "none"]
        result = evaluate([*tiles, *(more or [])], bundles, opponents, limit, engine, advance, picture_px)
    report.write_results(result, out)
    print(report.canonical_json(result) if as_json else report.as_text(result, out / "rd.html"))


@contextmanager
def _progress(what: str) -> Iterator[Callable[[str, int], None]]:
    """A bar on stderr where that is a terminal; silence where it is not."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(what)
        yield lambda label, total: bar.update(task, total=total, advance=1, description=label)


@app.command("evaluate-clouds")
def _evaluate_clouds(
    network: Annotated[list[str] | None, typer.Option(help="A bundle or a trained folder; repeat it.")] = None,
    data: Annotated[Path | None, typer.Option(help="Folder of the Sentinel-2 tiles; else NADIR_DATA.")] = None,
    engine: Annotated[str, typer.Option(help="openvino, onnxruntime or native.")] = "openvino",
    out: Annotated[Path, typer.Option(help="Folder for clouds.json and clouds.html.")] = Path("build/clouds-report"),
) -> None:
    """The cloud gate beside people, ukis-csmask, s2cloudless, rules and Sen2Cor. Exit 1 if a bar is missed."""
    from sim.clouds import evaluate, judged, page, requirements
    from sim.clouds.samples import data_folder

    networks = network or judged.default_networks()
    result, material = evaluate.evaluate_clouds(data_folder(data), networks, engine)
    paths = page.write_page(result, material, out)
    print(requirements.as_text(result))
    print(f"wrote {paths[0]} and {paths[1]}")
    if not all(check["held"] for check in result["checks"]):
        raise typer.Exit(1)


@app.command("evaluate-corsa")
def _evaluate_corsa(
    tiles: Annotated[list[Path], typer.Option(help="An .npz of tiles (x [N,B,H,W] uint16, bands), or GeoTIFFs.")],
    bundle: Annotated[list[str] | None, typer.Option(help="Shipped bundle or a directory; repeat it.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="The first so many tiles only.")] = None,
    engine: Annotated[str, typer.Option(help="openvino, onnxruntime or native.")] = "openvino",
    as_json: Annotated[bool, typer.Option("--json", help="The rows as JSON on stdout.")] = False,
) -> None:
    """The field's reference system in its published convention and in ours, beside JPEG 2000 at CR 20."""
    from sim.compare import corsa

    with _progress("coders") as advance:
        rows = corsa.compare(tiles, bundle or ["corsa-fpn3-512", DEFAULT], limit, engine, advance)
    print(json.dumps(corsa.as_json(rows), indent=2) if as_json else corsa.as_text(rows))


@app.command("audit")
def _audit(
    reports: Annotated[list[Path], typer.Argument(help="report.json of runs.")],
    verdicts: Annotated[Path | None, typer.Option(help="CSV of a person's verdicts: scene, row, col, verdict.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The estimate as JSON on stdout.")] = False,
) -> None:
    """What the gate destroys, from the audits of many runs: exact bounds. Exit 1 if the claim is not borne out yet."""
    from sim.clouds import audit

    result = audit.audit(reports, verdicts)
    print(json.dumps(result, indent=2) if as_json else audit.as_text(result))
    if not result["claim_held"]:
        raise typer.Exit(1)


def _time(text: str | None) -> datetime | None:
    """A time from the command line; without a zone it is UTC."""
    if text is None:
        return None
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise InputError(f"--start is {text!r}, wanted a time like 2026-06-21T00:00:00") from None
    return at if at.tzinfo else at.replace(tzinfo=UTC)


def main() -> None:
    """Entry point of the console script `sim`."""
    try:
        app()
    except InputError as error:
        print(f"sim: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
