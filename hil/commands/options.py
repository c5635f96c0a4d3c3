"""Options that several commands share, and how their values are read."""

from pathlib import Path
from typing import Annotated

import typer

from hil.host.tiles_in import FileReading, TileSource, npz_tiles, scene_tiles
from hil.host.trusted_bundle import trusted_bundle
from payload.bundle import Bundle
from payload.errors import InputError
from payload.signature import load_public_key

DeviceUrl = Annotated[
    str,
    typer.Option(
        "--device",
        help="tcp://HOST:PORT, serial:///dev/tty?baud=N, ssh://HOST/PATH.pyz, stdio:COMMAND, host:, emulated:CPU",
    ),
]
BundleName = Annotated[str, typer.Option("--bundle", help="shipped name or directory")]
TrustedKeys = Annotated[
    list[Path] | None, typer.Option("--trusted-key", help="*.pub; repeat it: the bundle must be signed by one of these")
]
SceneName = Annotated[str | None, typer.Option("--scene", help="a scene, as `sim downlink` takes it")]
FileBands = Annotated[str | None, typer.Option("--bands", help="names of the scene's bands, e.g. B02,B03,B04,B08")]
Scale = Annotated[float | None, typer.Option("--scale", help="reflectance = stored x scale + offset")]
Offset = Annotated[float | None, typer.Option("--offset", help="as --scale")]
TilesFile = Annotated[Path | None, typer.Option("--tiles", help=".npz with x uint16 [N, bands, height, width]")]
EngineName = Annotated[str, typer.Option("--engine", help="on the device: auto, openvino, onnxruntime, native, myriad")]
Threads = Annotated[int, typer.Option("--threads", min=1, max=256, help="of the device's runtime")]
StepDn = Annotated[float, typer.Option("--step-dn", help="finest quantiser step in DN")]
Limit = Annotated[int | None, typer.Option("--limit", min=1, help="at most so many tiles")]
Out = Annotated[Path, typer.Option("--out", "-o", help="output directory")]
Overwrite = Annotated[bool, typer.Option("--overwrite")]
MissionName = Annotated[str | None, typer.Option("--mission", help="a shipped mission's name, or a TOML file")]


def read_bundle(name: str, trusted: list[Path] | None = None, mission: str | None = None) -> Bundle:
    return trusted_bundle(name, [load_public_key(path) for path in trusted or ()], mission)


def reading(bands: str | None, scale: float | None, offset: float | None) -> FileReading:
    names = tuple(name.strip() for name in bands.split(",")) if bands else None
    return FileReading(names, scale, offset)


def read_tiles(scene: str | None, reading: FileReading, tiles: Path | None, bundle: Bundle) -> TileSource:
    if (scene is None) == (tiles is None):
        raise InputError("wanted one of --scene and --tiles, " + ("both are given" if scene else "neither is given"))
    if scene is None:
        return npz_tiles(tiles or Path(), bundle.tile_px, bundle.bands)
    return scene_tiles(scene, bundle.tile_px, bundle.sensor, reading)


def require_fresh(out: Path, names: tuple[str, ...], overwrite: bool) -> None:
    there = [name for name in names if (out / name).exists()]
    if there and not overwrite:
        raise InputError(f"{out / there[0]} exists; use --overwrite, or another --out")


def write_text(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror}); choose another file") from None
