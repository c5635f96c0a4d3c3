"""Options that several commands share, so that each reads the same everywhere."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from payload.errors import InputError
from sim.scenes.radiometry import MAX_PIXELS, Reading

Mission = Annotated[str, typer.Option(help="Shipped mission or a TOML file.")]
Bundle = Annotated[str, typer.Option(help="Shipped bundle or a directory.")]
Trust = Annotated[list[Path] | None, typer.Option("--trust", help="KEY.pub whose bundles fly, too; repeat it.")]
AllowUnsigned = Annotated[bool, typer.Option("--allow-unsigned", help="Take a bundle without a signature.")]
Engine = Annotated[str, typer.Option(help="openvino, onnxruntime or native.")]
AnyEngine = Annotated[str, typer.Option(help="As --engine of others, or auto: openvino, and native for a large scene.")]
Decoder = Annotated[str, typer.Option(help="fast (no network), full, or best (full, averaged over eight turns).")]
AnyDecoder = Annotated[str, typer.Option(help="As --decoder of others, or auto: full, and fast for a large scene.")]
CloudMask = Annotated[str, typer.Option(help="Who draws cloud.tif: bundle, ukis-csmask or ukis-csmask-l1c.")]
Jobs = Annotated[int | None, typer.Option(min=1, help="Threads for one scene, or one a core; octets stay the same.")]
Tiles = Annotated[list[Path], typer.Option(help="An .npz of tiles (x [N,B,H,W] uint16, bands), or GeoTIFFs.")]
Limit = Annotated[int | None, typer.Option(min=1, help="The first so many tiles only.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace an earlier run in --out.")]
MaxError = Annotated[int | None, typer.Option(metavar="DN", help="Largest error of any sample; 0: lossless.")]
OneGrid = Annotated[bool, typer.Option("--one-grid", help="All bands in one file, coarser ones repeated on its grid.")]
Profile = Annotated[
    Literal["fast", "dense"] | None, typer.Option(help="Of the entropy coder; dense: fewer octets, slower.")
]
ArchiveFolder = Annotated[
    Path | None, typer.Option("--archive", help="Folder of older dates (rasters, .nadir): a second product, aided.")
]
AsJson = Annotated[bool, typer.Option("--json", help="The result as JSON on stdout.")]

Speed = Annotated[float | None, typer.Option(min=1e-4, max=1e6, help="Of the live page or replay: times real time.")]
Port = Annotated[int | None, typer.Option(min=0, max=65535, help="Of the page; any free one if left out.")]

Bands = Annotated[str | None, typer.Option(help="Names of the file's bands, e.g. B02,B03,B04,B08; - for one not used.")]
Scale = Annotated[float | None, typer.Option(help="Reflectance = stored x scale + offset, before the file's own tag.")]
Offset = Annotated[float | None, typer.Option(help="See --scale; also in stored units, e.g. -1000.")]
MaxPixels = Annotated[int, typer.Option(min=1, help="Larger scenes are refused.")]
MAX_PIXELS_DEFAULT = MAX_PIXELS


def reading(bands: str | None, scale: float | None, offset: float | None, max_pixels: int) -> Reading:
    """What the options say about how rasters are read."""
    names = tuple(name.strip() for name in bands.split(",")) if bands is not None else None
    if names is not None and not all(names):
        raise InputError(f"--bands is {bands!r}, wanted a name or - for each layer, as in B02,B03,B04,B08")
    return Reading(names, scale, offset, max_pixels)
