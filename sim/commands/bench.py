"""`sim bench`, `sim evaluate`, `sim evaluate-corsa`: a bundle measured beside other coders."""

import json
from pathlib import Path
from typing import Annotated

import typer

from payload.bundle import DEFAULT
from payload.errors import InputError
from sim.commands import options
from sim.commands.console import progress
from sim.commands.options import MAX_PIXELS_DEFAULT
from sim.scenes.radiometry import Reading


def bench(
    bundle: options.Bundle = DEFAULT,
    engine: Annotated[str | None, typer.Option(help="One engine; all that run here if left out.")] = None,
    tiles: Annotated[list[Path] | None, typer.Option(help="Time over these tiles, not over a generated scene.")] = None,
    bands: options.Bands = None,
    scale: options.Scale = None,
    offset: options.Offset = None,
    max_pixels: options.MaxPixels = MAX_PIXELS_DEFAULT,
    cr: Annotated[float, typer.Option(min=2.0, help="Compression ratio to code at, against 16 bit.")] = 20.0,
    decoders: Annotated[
        bool, typer.Option("--decoders", help="The ground's decoders beside OpenJPEG at CR 20, 50, 100, and no more.")
    ] = False,
    granule_px: Annotated[int, typer.Option(help="Side of the scene whose memory is measured; 0: none.")] = 10_980,
    as_json: options.AsJson = False,
) -> None:
    """Speed of each stage beside classical coders, and the memory of a granule. Exit 1 if that passes its limit."""
    from dataclasses import asdict

    from sim.compare import speed

    engines = (engine,) if engine else speed.engines_here()
    question = speed.Question(
        bundle, engines, tuple(tiles or ()), cr, options.reading(bands, scale, offset, max_pixels)
    )
    if decoders:
        with progress("bench") as advance:
            rows = speed.decoder_speeds(question, advance)
        print(json.dumps([asdict(row) for row in rows], indent=2) if as_json else speed.decoders_text(rows))
        return
    with progress("bench") as advance:
        result = speed.benchmark(question, granule_px, advance)
    print(json.dumps(result.as_dict(), indent=2) if as_json else speed.as_text(result))
    if not result.held:
        raise typer.Exit(1)


def evaluate(
    tiles: options.Tiles,
    more: Annotated[list[Path] | None, typer.Argument(hidden=True)] = None,
    bundle: Annotated[
        list[str] | None, typer.Option(help="Shipped bundle or a directory; repeat it. none: the opponents alone.")
    ] = None,
    against: Annotated[
        str | None, typer.Option(help="Opponents, comma-separated; those of the sensor's kind if left out.")
    ] = None,
    bands: options.Bands = None,
    scale: options.Scale = None,
    offset: options.Offset = None,
    max_pixels: options.MaxPixels = MAX_PIXELS_DEFAULT,
    out: Annotated[Path, typer.Option(help="Where rd.json, rd.html and the plots go.")] = Path("out/evaluate"),
    limit: options.Limit = None,
    picture_px: Annotated[
        int | None, typer.Option(min=64, help="Side of the pictures coded; a bundle cuts them. Its tile if left out.")
    ] = None,
    engine: options.Engine = "openvino",
    decoder: Annotated[str, typer.Option(help="fast, full, best, or several with commas between.")] = "full",
    profile: Annotated[str, typer.Option(help="Of the entropy coder: fast, dense, or fast,dense.")] = "fast",
    max_error: Annotated[
        str | None, typer.Option(help="Bounds in DN, comma-separated: rates within them (0: lossless), and no curves.")
    ] = None,
    as_json: options.AsJson = False,
) -> None:
    """Rate and distortion of one bundle or several beside classical codecs, on the same tiles in one run."""
    from sim.compare import report
    from sim.compare.evaluate import evaluate as run
    from sim.compare.nadir_codec import decoders, profiles

    reading = options.reading(bands, scale, offset, max_pixels)
    if max_error is not None:
        _evaluate_bounds([*tiles, *(more or [])], (bundle or [DEFAULT])[0], max_error, limit, engine, reading, as_json)
        return
    with progress("tiles") as advance:
        opponents = None if against is None else [name.strip() for name in against.split(",") if name.strip()]
        bundles = [name for name in bundle or [DEFAULT] if name != "none"]
        result = run(
            [*tiles, *(more or [])], bundles, opponents, limit, engine, advance, picture_px, reading,
            decoders(decoder), profiles(profile),
        )  # fmt: skip
    report.write_results(result, out)
    print(report.canonical_json(result) if as_json else report.as_text(result, out / "rd.html"))


def _evaluate_bounds(
    tiles: list[Path], bundle: str, bounds: str, limit: int | None, engine: str, reading: Reading, as_json: bool
) -> None:
    from sim.compare.evaluate import bounds_as_text, within_bounds

    words = bounds.split(",")
    if not all(word.strip().isdecimal() for word in words):
        raise InputError(f"--max-error is {bounds[:80]!r}, wanted whole DN with commas between, as in 0,5,10")
    with progress("tiles") as advance:
        found = within_bounds(tiles, bundle, [int(word) for word in words], limit, engine, advance, reading)
    print(json.dumps(found, indent=2) if as_json else bounds_as_text(found), end="\n" if as_json else "")


def evaluate_corsa(
    tiles: options.Tiles,
    bundle: Annotated[list[str] | None, typer.Option(help="Shipped bundle or a directory; repeat it.")] = None,
    bands: options.Bands = None,
    scale: options.Scale = None,
    offset: options.Offset = None,
    max_pixels: options.MaxPixels = MAX_PIXELS_DEFAULT,
    limit: options.Limit = None,
    engine: options.Engine = "openvino",
    as_json: options.AsJson = False,
) -> None:
    """The field's reference system in its published convention and in ours, beside JPEG 2000 at CR 20."""
    from sim.compare import corsa

    reading = options.reading(bands, scale, offset, max_pixels)
    with progress("coders") as advance:
        rows = corsa.compare(tiles, bundle or ["corsa-fpn3-512", DEFAULT], limit, engine, advance, reading)
    print(json.dumps(corsa.as_json(rows), indent=2) if as_json else corsa.as_text(rows))


def evaluate_cubes(
    cube: Annotated[
        list[Path], typer.Option(help="An .npz: x [B,h,w] counts; label: anomalies [h,w] or abundances [K,h,w].")
    ],
    bundle: options.Bundle,
    cr: Annotated[str, typer.Option(help="Compression ratios against 16 bit.")] = "20,50,100",
    engine: options.Engine = "native",
    as_json: options.AsJson = False,
) -> None:
    """Hyperspectral cubes: angles, anomalies found, abundances, before a codec and behind it, beside JPEG 2000."""
    from sim.compare.kinds.cubes import as_text, evaluate_cubes

    ratios = _ratios(cr)
    with progress("cubes") as advance:
        rows = evaluate_cubes(cube, bundle, ratios, engine, advance)
    print(json.dumps(rows, indent=2) + "\n" if as_json else as_text(rows), end="")


def evaluate_aided(
    tiles: options.Tiles,
    cr: Annotated[str, typer.Option(help="Compression ratios against 16 bit.")] = "20,50,100,250",
    bundle: options.Bundle = DEFAULT,
    engine: options.Engine = "native",
    decoder: options.Decoder = "full",
    limit: options.Limit = None,
    as_json: options.AsJson = False,
) -> None:
    """Tiles of places at several dates (PLACE_DATE), each decoded plainly and aided by other dates of its place."""
    from payload.bundle import load_bundle
    from payload.engine import open_engine
    from sim.compare.kinds.dates import as_text
    from sim.compare.kinds.dates import evaluate_aided as run
    from sim.compare.tiles import read_tiles

    ours = load_bundle(bundle)
    read = read_tiles(tiles, ours.tile_px, limit, sensor=ours.sensor)
    with progress("aided") as advance:
        rows = run(read, _ratios(cr), ours, open_engine(engine), decoder, advance)
    print(json.dumps(rows, indent=2) + "\n" if as_json else as_text(rows), end="")


def _ratios(text: str) -> list[float]:
    try:
        return [float(word) for word in text.split(",")]
    except ValueError:
        raise InputError(f"--cr is {text!r}, wanted numbers, as in 20,50,100") from None


def evaluate_tasks(
    data: Annotated[Path, typer.Option(help="The data folder: docs/tasks.md names its files.")],
    tasks: Annotated[str | None, typer.Option(help="Some of the tasks, comma-separated; all if left out.")] = None,
    bundle: Annotated[list[str] | None, typer.Option(help="Bundle or directory; repeat it. First: decoded.")] = None,
    profile: options.Profile = None,
    decoder: Annotated[str, typer.Option(help="full, fast or best, of pixels.")] = "full",
    quick: Annotated[bool, typer.Option("--quick", help="Few pictures, one seed, little training: a look.")] = False,
    jobs: options.Jobs = 1,
    out: Annotated[Path, typer.Option(help="Where tasks.json, tasks.csv and tasks.html go.")] = Path("out/tasks"),
    as_json: options.AsJson = False,
) -> None:
    """Small heads on originals, decoded pixels and features: what is left. Exit 1 if a bar is missed.

    A run that was cut goes on where it stood when the same command is given again.
    """
    from sim.tasks.evaluate import BUNDLES, NAMES, QUICK, TasksRequest
    from sim.tasks.evaluate import evaluate as run
    from sim.tasks.page import as_csv, as_text, render_page
    from sim.tasks.steps import Plan

    wanted = tuple(name.strip() for name in tasks.split(",")) if tasks else NAMES
    plan = QUICK if quick else Plan()
    with progress("tasks") as advance:
        request = TasksRequest(
            data, wanted, tuple(bundle or BUNDLES), plan, jobs or 1, out / "kept", profile or "fast", decoder
        )
        result = run(request, advance)
    text = json.dumps(result, indent=1) + "\n"
    out.mkdir(parents=True, exist_ok=True)
    for name, content in (("tasks.json", text), ("tasks.csv", as_csv(result)), ("tasks.html", render_page(result))):
        (out / name).write_text(content, encoding="utf-8")
    print(text if as_json else as_text(result), end="")
    if not all(bar["held"] for bar in result["summary"]["bars"]):
        raise typer.Exit(1)
