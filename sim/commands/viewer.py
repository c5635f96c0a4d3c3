"""`sim serve`: received scenes on a map in the browser."""

import logging
from pathlib import Path
from typing import Annotated

import typer

from payload.errors import InputError


def serve(
    folders: Annotated[list[Path], typer.Argument(help="Folders of sim downlink, receive or campaign.")],
    originals: Annotated[
        Path | None, typer.Option(help="Folder of the originals, NAME.tif by the scene's name.")
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen at; others than this host's reach it only if told.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: one that is free.")] = 8000,
) -> None:
    """Show received scenes on a map: tiles, WMTS, swipe against the originals, values, holes, indices."""
    from sim.viewer.shelf import find_scenes

    try:
        import uvicorn

        from sim.viewer.server import application
    except ModuleNotFoundError as error:
        raise InputError(f"{error.name} is not installed; pip install 'nadir-payload[viewer]'") from None
    scenes = find_scenes(folders, originals)
    config = uvicorn.Config(application(scenes), host=host, port=port, log_level="error")
    try:
        listening = config.bind_socket()
    except SystemExit:
        raise InputError(f"{host}:{port}: cannot listen there; choose another --port") from None
    print(f"{len(scenes)} scenes on http://{host}:{listening.getsockname()[1]}/ (Ctrl-C ends it)", flush=True)
    logging.getLogger("rasterio").setLevel(logging.CRITICAL)
    uvicorn.Server(config).run([listening])
