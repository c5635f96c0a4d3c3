"""`sim features`, `sim search`, `sim change`: what the decoder knows before it makes pixels, on disk and searched."""

import json
from pathlib import Path
from typing import Annotated

import typer

from payload.bundle import DEFAULT
from sim.commands import options
from sim.commands.console import progress
from sim.commands.options import MAX_PIXELS_DEFAULT


def features(
    source: Annotated[str, typer.Argument(help="A run's folder, packets.bin, frames.bin, a scene or a .nadir file.")],
    bundle: options.Bundle = DEFAULT,
    mission: options.Mission = "phisat2",
    engine: options.Engine = "openvino",
    step: Annotated[float | None, typer.Option(help="Of a scene: quantiser step in DN; else the mission's.")] = None,
    scene_id: Annotated[str | None, typer.Option("--scene-id", help="Which of several scenes in a stream.")] = None,
    formats: Annotated[str, typer.Option(help="Some of zarr, geotiff, parquet.")] = "zarr,geotiff,parquet",
    bands: options.Bands = None,
    scale: options.Scale = None,
    offset: options.Offset = None,
    max_pixels: options.MaxPixels = MAX_PIXELS_DEFAULT,
    seed: Annotated[int, typer.Option(help="Of the demo scene.")] = 0,
    out: Annotated[Path, typer.Option(help="Folder of the features.")] = Path("out/features"),
    overwrite: options.Overwrite = False,
    as_json: options.AsJson = False,
) -> None:
    """Features without decoding: per level on its own grid as Zarr and GeoTIFF, an embedding per tile as GeoParquet."""
    from sim.features.service import FeaturesRequest, as_text
    from sim.features.service import features as run
    from sim.features.source import Asked

    reading = options.reading(bands, scale, offset, max_pixels)
    asked = Asked(source, bundle, mission, engine, step, scene_id, reading, seed)
    wanted = tuple(name.strip() for name in formats.split(","))
    with progress("features") as advance:
        record = run(FeaturesRequest(asked, out, wanted, overwrite), advance)
    print(json.dumps(record, indent=1) + "\n" if as_json else as_text(record, out), end="")


def search(
    folders: Annotated[list[Path], typer.Argument(help="Folders with embeddings of sim features, however deep.")],
    like: Annotated[str, typer.Option(help="FOLDER@ROW,COL, a tile of the index; or a picture as sim features reads.")],
    count: Annotated[int, typer.Option(min=1, help="So many hits.")] = 12,
    bundle: Annotated[str | None, typer.Option(help="Whose embeddings, where there are several.")] = None,
    mission: options.Mission = "phisat2",
    out: Annotated[Path | None, typer.Option(help="The page of hits to write, as in out/search.html.")] = None,
    as_json: options.AsJson = False,
) -> None:
    """Tiles like one tile, over the embeddings of many runs."""
    from sim.features import search as module
    from sim.features.source import Asked

    asked = Asked(like, mission=mission)
    found = module.search(module.SearchRequest(like, folders, asked, count, bundle))
    if out is not None:
        module.write_page(found, out)
    print(json.dumps(found, indent=1) + "\n" if as_json else module.as_text(found), end="")


def change(
    before: Annotated[str, typer.Argument(help="The earlier pass: whatever sim features reads.")],
    after: Annotated[str, typer.Argument(help="The later pass, registered with it.")],
    bundle: options.Bundle = DEFAULT,
    mission: options.Mission = "phisat2",
    false_alarms: Annotated[
        float, typer.Option("--false-alarms", help="Share of blocks called changed where nothing changed.")
    ] = 0.01,
    out: Annotated[Path, typer.Option(help="Folder of the map.")] = Path("out/change"),
    overwrite: options.Overwrite = False,
    as_json: options.AsJson = False,
) -> None:
    """Change between two passes over a place, from features alone, as a map with a false-alarm rate."""
    from sim.features import change_files as module
    from sim.features.source import Asked

    earlier, later = Asked(before, bundle, mission), Asked(after, bundle, mission)
    record = module.change(module.ChangeRequest(earlier, later, out, false_alarms, overwrite))
    print(json.dumps(record, indent=1) + "\n" if as_json else module.as_text(record, out), end="")
