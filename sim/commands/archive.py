"""`sim archive`: put, get, list, verify, measure: scenes at a fraction of their octets, proved before originals go."""

import json
import logging
from pathlib import Path
from typing import Annotated

import typer

from payload.bundle import DEFAULT
from payload.errors import InputError
from sim.commands import options
from sim.commands.console import progress
from sim.commands.options import MAX_PIXELS_DEFAULT

archive_app = typer.Typer(help="Keep scenes: put, get, list, verify and measure `.nadir` files.", no_args_is_help=True)
Where = Annotated[str, typer.Option("--store", help="A folder, or an address such as s3://bucket/prefix.")]
log = logging.getLogger(__name__)


@archive_app.command("put")
def put(
    scene: Annotated[list[str], typer.Argument(help="GeoTIFFs, products, or demo; one or more.")],
    store: Where,
    cr: Annotated[float | None, typer.Option(help="Compression ratio of the whole file, against 16 bit.")] = None,
    psnr: Annotated[float | None, typer.Option(help="PSNR (peak 10 000) proved of every tile, dB.")] = None,
    max_error: options.MaxError = None,
    profile: options.Profile = None,
    bundle: options.Bundle = DEFAULT,
    engine: options.Engine = "openvino",
    decoder: options.Decoder = "fast",
    bands: options.Bands = None,
    scale: options.Scale = None,
    offset: options.Offset = None,
    max_pixels: options.MaxPixels = MAX_PIXELS_DEFAULT,
    seed: Annotated[int, typer.Option(help="Of the demo scene.")] = 0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a file of the same name.")] = False,
    as_json: options.AsJson = False,
) -> None:
    """Archive scenes. Every tile is decoded and measured; exit 1 if an original must stay, with the reason."""
    from sim.archive import service, text
    from sim.archive.coding import Quality
    from sim.archive.store import Store
    from sim.archive.writing import Order

    quality = Quality(50.0 if cr is psnr is max_error is None else cr, psnr, max_error, profile or "fast")
    order = Order(quality, bundle, engine, decoder, options.reading(bands, scale, offset, max_pixels), seed, overwrite)
    with progress("archive") as advance:
        found = [service.put(where, Store(store), order, advance) for where in scene]
    print(json.dumps([e.as_json() for e in found], indent=2) if as_json else text.proven(found), end="")
    if any(entry.missing for entry in found):
        raise typer.Exit(1)


@archive_app.command("get")
def get(
    name: Annotated[str, typer.Argument(help="A scene of the store, as `sim archive list` names it.")],
    store: Where,
    out: Annotated[Path, typer.Option(help="The GeoTIFF to write.")],
    window: Annotated[str | None, typer.Option(help="ROW,COL,HEIGHT,WIDTH in pixels; all if left out.")] = None,
    layers: Annotated[int | None, typer.Option(min=1, help="Only the first so many layers of each tile.")] = None,
    psnr: Annotated[float | None, typer.Option(help="Only the layers that this PSNR needs, by the index.")] = None,
    bundle: Annotated[str | None, typer.Option(help="The bundle's folder, where it does not ship.")] = None,
    engine: options.Engine = "openvino",
    decoder: options.Decoder = "fast",
    archive: options.ArchiveFolder = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the file at --out.")] = False,
) -> None:
    """Decode a scene, or a window of it, into a GeoTIFF. Only what is asked for is read."""
    from sim.archive import aided, service
    from sim.archive.aided import archive_of
    from sim.archive.reader import SceneFile
    from sim.archive.store import Store

    if archive is not None and window is not None:
        raise InputError("--archive refines whole scenes; leave out --window, or --archive")
    if out.exists() and not overwrite:
        raise InputError(f"{out} is already there; choose another --out or allow --overwrite")
    there = Store(store)
    scene = SceneFile(there.address(name), bundle, decoder, layers, psnr, engine, there.options)
    dates = archive_of(archive)
    with progress("archive") as advance:
        part = _window(window)
        if dates is None:
            service.get(scene, out, service.Window(*part) if part else None, advance)
        else:
            beside = aided.get(scene, out, dates, overwrite, advance)
            print(f"{beside.picture.path}: {len(beside.tiles)} tiles refined; overruled in {beside.change_map}")
    print(f"{out}: {scene.octets.read_octets} octets read in {scene.octets.requests} pieces")


@archive_app.command("list")
def list_(store: Where, as_json: options.AsJson = False) -> None:
    """The scenes of a store: size, ratio, proved quality."""
    from sim.archive import service, text
    from sim.archive.store import Store

    found = list(service.entries(Store(store)))
    print(json.dumps([e.as_json() for e in found], indent=2) if as_json else text.table(found), end="")


@archive_app.command("verify")
def verify(
    name: Annotated[list[str] | None, typer.Argument(help="Scenes of the store; all if left out.")] = None,
    store: Where = ".",
    decode: Annotated[bool, typer.Option("--decode", help="Decode every tile, too.")] = False,
    bundle: Annotated[str | None, typer.Option(help="With --decode: the bundle's folder.")] = None,
    engine: options.Engine = "openvino",
    decoder: options.Decoder = "fast",
    as_json: options.AsJson = False,
) -> None:
    """Every octet against the files' checksums. Exit 1 if a file is damaged, with the tiles that are."""
    from dataclasses import asdict

    from sim.archive import text
    from sim.archive.store import Store
    from sim.archive.verification import decoder_for
    from sim.archive.verification import verify as look

    there = Store(store)
    verdicts = []
    for one in name or there.names():
        octets = there.open(one)
        verdicts.append(look(octets, one, decoder_for(octets, bundle, engine, decoder) if decode else None))
    print(json.dumps([asdict(v) for v in verdicts], indent=2) if as_json else text.verdicts(verdicts), end="")
    if not all(verdict.sound for verdict in verdicts):
        raise typer.Exit(1)


@archive_app.command("measure")
def measure(
    scene: Annotated[str, typer.Argument(help="A GeoTIFF, a product, or demo.")],
    cr: Annotated[str, typer.Option(help="Compression ratios, comma-separated.")] = "20,50,100,150,250",
    decoders: Annotated[str, typer.Option(help="Decoders to read back by, comma-separated.")] = "fast,full",
    bundle: options.Bundle = DEFAULT,
    engine: options.Engine = "openvino",
    bands: options.Bands = None,
    scale: options.Scale = None,
    offset: options.Offset = None,
    max_pixels: options.MaxPixels = MAX_PIXELS_DEFAULT,
    seed: Annotated[int, typer.Option(help="Of the demo scene.")] = 0,
    out: Annotated[Path, typer.Option(help="Where ratios.json and ratios.html go.")] = Path("out/ratios"),
    as_json: options.AsJson = False,
) -> None:
    """What a ratio costs: a scene archived at each, read back, with every figure of the field. Nothing is kept."""
    from sim.archive import ratios

    reading, names = options.reading(bands, scale, offset, max_pixels), tuple(decoders.split(","))
    trial = ratios.Trial(scene, ratios.numbers(cr), names, bundle, engine, reading, seed)
    with progress("archive") as advance:
        result = ratios.measure(trial, advance)
    data, shown = ratios.write(result, out)
    print(data.read_text(encoding="utf-8") if as_json else f"{ratios.as_text(result)}wrote {data} and {shown}")


def _window(text: str | None) -> tuple[int, int, int, int] | None:
    if text is None:
        return None
    numbers = text.split(",")
    if len(numbers) != 4 or not all(n.strip().isdecimal() for n in numbers):
        raise InputError(f"--window is {text[:80]!r}, wanted ROW,COL,HEIGHT,WIDTH in pixels, as in 0,0,1024,1024")
    top, left, height, width = map(int, numbers)
    return top, left, height, width
