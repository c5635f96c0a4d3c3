"""`sim view`, `sim serve`, and what `sim downlink --live` adds: pages on this machine until the command is stopped."""

import logging
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated

import typer

from payload.errors import InputError
from sim.commands import options
from sim.ground.arrivals import Watch, unwatched


def view(
    run: Annotated[Path, typer.Argument(help="The folder of a finished run of sim downlink.")],
    bundle: Annotated[str | None, typer.Option(help="The run's bundle, where it does not ship: a directory.")] = None,
    engine: options.Engine = "openvino",
    speed: options.Speed = None,
    port: options.Port = None,
) -> None:
    """Replay a finished run on a page on this machine, at any speed, until Ctrl-C."""
    from sim.live.replay import open_run
    from sim.live.server import LiveServer

    show = open_run(run, bundle, engine, speed or 1.0)
    server = LiveServer(port or 0)
    server.show = show
    server.start()
    _say(f"replay   {server.address} (Ctrl-C ends it)")
    _until_stopped()
    server.close()


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


@contextmanager
def live_page(wanted: bool, speed: float | None, port: int | None) -> Iterator[Watch]:
    """What watches a run. With a page it goes on when the run is over, until Ctrl-C: the page replays the run."""
    if not wanted:
        if speed is not None or port is not None:
            raise InputError("--speed and --port are of the live page; give --live, too")
        yield unwatched
        return
    from sim.live.server import LiveServer
    from sim.live.watching import LiveRun

    server = LiveServer(port or 0)
    server.start()
    _say(f"live     {server.address}")
    try:
        yield LiveRun(server, speed or 1.0).watch
        _say(f"run over: {server.address} replays it (Ctrl-C ends it)")
        _until_stopped()
    finally:
        server.close()


def _until_stopped() -> None:
    """Waits for Ctrl-C or SIGTERM, which here is the ordinary end."""
    with suppress(SystemExit):
        threading.Event().wait()


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
