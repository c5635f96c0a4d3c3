"""`sim serve`: the page, its tiles, the values under a cursor, and a WMTS, over HTTP. Reads files, writes none."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from payload.errors import InputError
from sim.viewer import wmts
from sim.viewer.shelf import ShownScene
from sim.viewer.tiles import empty, tile

STATIC = Path(__file__).parent / "static"
#: What of a scene's folder can be had.
FILES = ("report.html", "report.json", "item.json", "footprint.geojson", "quicklook.png", "reconstruction.tif",
         "provenance.tif", "cloud.tif", "reconstruction.kmz")  # fmt: skip
DEEPEST = 24
XML = "application/xml"
#: The page loads what this server has and nothing else.
POLICY = (
    "default-src 'self'; worker-src 'self' blob:; img-src 'self' data: blob:; style-src 'self' 'unsafe-inline'; "
    "connect-src 'self'"
)


def application(scenes: Mapping[str, ShownScene]) -> Starlette:
    """The server over these scenes."""

    def scene_of(key: str) -> ShownScene:
        if key not in scenes:
            raise HTTPException(404, f"no scene {key[:40]}")
        return scenes[key]

    def page(request: Request) -> Response:
        return FileResponse(STATIC / "viewer.html", headers={"Content-Security-Policy": POLICY})

    def listed(request: Request) -> Response:
        return JSONResponse([scene.about() for scene in scenes.values()])

    def one_tile(request: Request) -> Response:
        at = request.path_params
        return _png(scene_of(at["key"]), at["layer"], at["style"], at["z"], at["x"], at["y"])

    def value(request: Request) -> Response:
        at = [_number(request.query_params, name) for name in ("lon", "lat")]
        return JSONResponse(scene_of(request.path_params["key"]).values(*at))

    def file(request: Request) -> Response:
        name, scene = request.path_params["name"], scene_of(request.path_params["key"])
        if name not in FILES or not (scene.folder / name).is_file():
            raise HTTPException(404, f"no file {name[:40]}")
        return FileResponse(scene.folder / name)

    def service(request: Request) -> Response:
        asked = {key.lower(): text for key, text in request.query_params.items()}
        if asked.get("request", "GetCapabilities").lower() != "gettile":
            return Response(wmts.capabilities(scenes.values(), str(request.base_url).rstrip("/")), media_type=XML)
        for identifier, scene, layer, style in wmts.names(scenes.values()):
            if identifier == asked.get("layer"):
                z, x, y = (int(_number(asked, name)) for name in ("tilematrix", "tilecol", "tilerow"))
                return _png(scene, layer, style, z, x, y)
        raise HTTPException(400, "no such layer; GetCapabilities lists them")

    return Starlette(routes=[
        Route("/", page), Route("/scenes.json", listed), Route("/value/{key}", value),
        Route("/tiles/{key}/{layer}/{style}/{z:int}/{x:int}/{y:int}.png", one_tile),
        Route("/files/{key}/{name}", file), Route("/wmts", service),
        Route("/wmts/1.0.0/WMTSCapabilities.xml", service), Mount("/static", StaticFiles(directory=STATIC)),
    ])  # fmt: skip


def _png(scene: ShownScene, layer: str, style: str, z: int, x: int, y: int) -> Response:
    try:
        inside = 0 <= z <= DEEPEST and 0 <= x < 2**z and 0 <= y < 2**z
        octets = tile(scene, layer, style, z, x, y) if inside else empty()
    except InputError as error:
        raise HTTPException(404, str(error)) from None
    return Response(octets, media_type="image/png", headers={"Cache-Control": "max-age=60"})


def _number(table: Mapping[str, Any], name: str) -> float:
    try:
        return float(table[name])
    except (KeyError, ValueError):
        raise HTTPException(400, f"{name} is missing or no number") from None
