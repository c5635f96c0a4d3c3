"""Tile codes that a device made, as the ground sees them; and what is cloud in their scene, as far as it is known.

`hil profile` asks here through the entry points `nadir.judges` (pyproject.toml), without knowing the ground.
"""

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from payload.array_files import ArrayFileError, read_arrays
from payload.bundle import Bundle, load_bundle
from payload.clouds.gate import detect_clouds, pixels_without_detail
from payload.clouds.network import CloudNet, load_cloud_net
from payload.engine import Engine, open_engine
from payload.errors import InputError
from payload.link import tile_code
from payload.link.tile_code import Kind
from payload.policy import Gate
from payload.tiles import Tile
from sim.clouds.samples import CloudSample
from sim.ground.decoder import FULL, Decoder
from sim.metrics.distortion import SceneQuality
from sim.scenes.demo import SyntheticScene
from sim.scenes.open_scene import open_scene

Bools = NDArray[np.bool_]
#: A tile -> which of its pixels are cloud, and where that is known. [T, T] each
Truth = Callable[[Tile], tuple[Bools, Bools]]
FIGURES = ("psnr_10k_pooled_db", "psnr_10k_mean_db", "psnr_10k_worst_db", "sam_deg", "ndvi_mae")


def distortion(bundle: Bundle, pairs: Iterable[tuple[Tile, bytes]]) -> dict[str, float]:
    """FIGURES over the coded tiles, decoded by the bundle's own network; empty where none was coded.

    Closed cloud that the gate flattens, as it does by default on every device, is in none of them: as in a report.
    """
    engine = _engine()
    ground = Decoder(load_bundle(bundle.directory), engine, FULL)
    net = load_cloud_net(bundle, engine) if "clouds" in bundle.manifest else None
    quality, coded = SceneQuality(bundle.sensor), 0
    for tile, octets in pairs:
        code = tile_code.unpack(octets)
        if code.kind in (Kind.CODED, Kind.FALLBACK):
            quality.add(tile.dn, ground.decode_tile(code), tile.valid & ~_flattened(tile, net))
            coded += 1
    found = quality.figures() if coded else {}
    return {name: found[name] for name in FIGURES if name in found}


def _flattened(tile: Tile, net: CloudNet | None) -> Bools:
    """Pixels whose detail the default gate gives up. [T, T]"""
    if net is None:
        return np.zeros(tile.valid.shape, bool)
    return pixels_without_detail(tile, detect_clouds(tile, net), Gate())


def cloud_truth(bundle: Bundle, scene: str | None, reference: Path | None) -> tuple[str, Truth] | None:
    """(whose word it is, what it says of a tile); None where nobody knows. `reference`: an .npz with `cloud` or `scl`,
    [H, W] on the scene's pixels or [N, H, W] beside the tiles of an .npz."""
    if reference is not None:
        cloud, known, whose = _read_reference(reference)
        return f"{whose} of {reference.name}", lambda tile: _cut(cloud, known, tile)
    if scene is None or scene.split(":")[0] != "demo":
        return None
    opened = open_scene(scene, None, bundle.sensor)
    if not isinstance(opened, SyntheticScene):
        return None
    return "the generated scene's own light", lambda tile: _of_demo(opened, tile)


def _engine() -> Engine:
    try:
        return open_engine("openvino")
    except InputError:
        return open_engine("onnxruntime")


def _of_demo(scene: SyntheticScene, tile: Tile) -> tuple[Bools, Bools]:
    px = tile.dn.shape[1]
    top, left = tile.row * px, tile.col * px
    height, width = min(px, scene.info.height_px - top), min(px, scene.info.width_px - left)
    cloud = np.zeros((px, px), bool)
    cloud[:height, :width] = scene.truth(top, left, height, width).cloud
    return cloud, tile.valid


def _read_reference(path: Path) -> tuple[Bools, Bools, str]:
    """cloud and known, [H, W] or [N, H, W], and what they were read from."""
    try:
        arrays = read_arrays(path, ("cloud", "scl"), kinds="iufb")
    except ArrayFileError as error:
        raise InputError(f"{path}: not a usable .npz ({error}); wanted `cloud` or `scl`, [H, W] or [N, H, W]") from None
    picture = arrays.get("cloud", arrays.get("scl"))
    if picture is None or picture.ndim not in (2, 3):
        found = "neither" if picture is None else f"{list(picture.shape)}"
        raise InputError(f"{path}: wanted `cloud` or `scl`, [H, W] or [N, H, W], found {found}")
    if "cloud" in arrays:
        return picture.astype(bool), np.ones(picture.shape, bool), "cloud mask"
    layers = picture.reshape(-1, *picture.shape[-2:]).astype(np.uint8)
    read = [CloudSample("", "", np.zeros((4, 1, 1), np.uint16), layer, 10).reference() for layer in layers]
    cloud, known = (np.stack(part).reshape(picture.shape) for part in zip(*read, strict=True))
    return cloud, known, "Sen2Cor's classification"


def _cut(cloud: Bools, known: Bools, tile: Tile) -> tuple[Bools, Bools]:
    """The part under a tile; what the reference does not cover is not known."""
    px = tile.dn.shape[1]
    if cloud.ndim == 3:
        number = tile.row * 256 + tile.col
        parts = [part[number, :px, :px] if number < len(part) else part[:0, 0, :0] for part in (cloud, known)]
    else:
        rows, cols = (slice(n * px, (n + 1) * px) for n in (tile.row, tile.col))
        parts = [part[rows, cols] for part in (cloud, known)]
    whole = [np.pad(part, [(0, px - length) for length in part.shape]) for part in parts]
    return whole[0], whole[1] & tile.valid
